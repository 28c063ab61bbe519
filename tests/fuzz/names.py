"""Names, tags, notes and groups of runs that no verb would have let in."""

from __future__ import annotations

import json
import random
import sqlite3

from mmtui.paths import Home
from tests.fuzz.mutations import argument, text

COLUMNS = ("name", "note", "run_group", "reason", "recipe", "error", "stage", "origin", "launcher", "parent")


def named(home: Home, chosen: random.Random, untouched: str = "1") -> None:
    """Give the runs but ``untouched`` names, tags, notes and groups that no verb would have let in."""
    connection = sqlite3.connect(home.database)
    with connection:
        for (run_id,) in connection.execute("SELECT id FROM runs WHERE id != ?", (untouched,)).fetchall():
            for column in chosen.sample(COLUMNS, 3):
                sql = f"UPDATE OR IGNORE runs SET {column} = CAST(? AS TEXT) WHERE id = ?"
                connection.execute(sql, (stored(chosen), run_id))
            tags = json.dumps([argument(chosen)[:100] for _ in range(3)])
            connection.execute("UPDATE runs SET tags = ? WHERE id = ?", (tags, run_id))
    connection.close()


def stored(chosen: random.Random) -> bytes:
    """A text as a database may hold it, with bytes that are none, or surrogates."""
    errors = chosen.choice(("surrogatepass", "backslashreplace"))
    odd = text(chosen).encode("utf-8", errors) if chosen.random() < 0.8 else chosen.randbytes(12)
    return odd.replace(b"\0", b"")[:5000]
