"""What an older version's data directory is asked, and how its answers are made comparable.

``make_fixtures.py`` asks with the old code, ``test_opens_as_before.py`` with today's. Imports nothing of either.
"""

from __future__ import annotations

import json
import re
from typing import Any

COMMIT = "cce7257"
RUNS = tuple(str(number) for number in range(1, 17) if number != 10)
TRASHED, FINISHED, RESUMED, PAUSED, KILLED = "10", "1", "6", "7", "8"
_TRAINED = ("1", "2", "3", "4", "6", "7", "8", "9")
_FILTERS = (
    "state = succeeded and loss < 100",
    "segment.optim.lr < 0.05",
    'tag ~ "paper"',
    "name ~ first",
    "max miou > 1",
)

QUESTIONS: tuple[tuple[str, ...], ...] = (
    ("ls", "-a", "--json"),
    ("ls", "--json"),
    ("ls", "-a", "--jsonl"),
    ("ls", "-a", "--csv"),
    ("ls", "-a", "--sort=-miou", "-c", "miou,loss,max miou,segment.optim.lr,group", "--json"),
    ("ls", "-a", "--group", "seed", "--json"),
    ("ls", "-a", "--group", "sweep", "--json"),
    ("ls", "--view", "lost", "--json"),
    ("ls", "--view", "by-lr", "--json"),
    *(("ls", "-a", "-F", text, "--json") for text in _FILTERS),
    *(("ls", "-a", "-s", state, "--json") for state in ("succeeded", "failed", "paused", "queued", "interrupted")),
    *(("show", run, "--json") for run in RUNS),
    *(("metrics", run, "--json") for run in _TRAINED),
    *(("metrics", run, "-m", "loss", "--json") for run in (*_TRAINED, "14")),
    ("metrics", RESUMED, "-m", "loss", "--all-attempts", "--json"),
    ("metrics", FINISHED, "-m", "loss", "--around", "4", "--window", "2", "--smooth", "2", "--json"),
    *(("classes", run, "--json") for run in ("1", "2", "3", "4", "6")),
    ("classes", FINISHED, "--step", "5", "--json"),
    ("classes", "3", "--vs", "2", "--json"),
    ("view", "--json"),
    ("best", "--max", "miou", "--json"),
    ("best", "--min", "last loss", "--json"),
    ("compare", "1", "2", "3", "4", "--json"),
    ("compare", "2", "3", "-c", "max miou", "--csv"),
    ("diff", "2", "3", "--json"),
    ("diff", "1", "4", "--json"),
    ("query", "SELECT * FROM live_runs ORDER BY id", "--json"),
    ("query", "SELECT * FROM class_iou ORDER BY run_id, global_step, class", "--json"),
    ("query", "SELECT run_id, count(*), sum(value) FROM live_metrics GROUP BY run_id ORDER BY run_id", "--json"),
    ("query", "SELECT run_id, event, before, after, reason, actor FROM transitions ORDER BY id", "--json"),
    ("query", "SELECT * FROM stages ORDER BY run_id, position", "--json"),
    ("query", "SELECT * FROM attempts ORDER BY run_id, number", "--json"),
    ("query", "SELECT * FROM settings ORDER BY key", "--json"),
    ("report", "1", "2", "3", "--latex"),
    ("report", "--json"),
    ("report", "1", "2", "--md"),
    ("queue", "--json"),
    ("daemon", "status", "--json"),
    ("cache", "--json"),
    ("cache", "verify", "--json"),
    ("gpu", "--run", FINISHED, "--json"),
    ("gpu", "--run", RESUMED, "--json"),
    ("config", "show", "--json"),
    ("recipes", "mine", "--json"),
    ("recipes", "mine_wide", "--json"),
    ("recipes", "mine_wide", "segment.steps=7", "--changed", "--json"),
    ("news", "--since", "36500d", "--json"),
    ("wait", "1", "6", "--json"),
    *(("logs", run) for run in ("1", "5", "6")),
    ("logs", RESUMED, "--attempt", "1"),
    ("logs", RESUMED, "--step", "30"),
)
"""Command lines that only read. Each answer is kept under its words."""

TAKEN_IN = (
    ("show", "1", "--json"),
    ("classes", "1", "--json"),
    ("metrics", "1", "--json"),
    ("metrics", "1", "-m", "loss", "--json"),
)
"""Asked of a capsule's run, in a data directory that has nothing else."""

HOME = "$HOME"
"""Stands for the data directory in kept answers."""

MASK: dict[str, str] = {
    "forecast": "counts from now",
    "eta_seconds": "counts from now",
    "since": "counts from now",
    "last_used": "taken from the clock of a file that is read",
    "took": "live_runs: of what has not ended, until now",
}
"""Keys whose values depend on when one asks, with why; they must be there, their values are not compared."""

MADE_AT = "/tmp/home"
"""Where it lay then: data may speak of it still."""
REMAINS = re.compile(r"starts in \d[0-9dhms]*")
"""In the reason of a run that waits for a time: counts from now."""


def name_of(words: tuple[str, ...]) -> str:
    """One line for a command line."""
    return " ".join(words)


def masked(value: Any, home: str) -> Any:
    """An answer without what depends on the clock, and with the data directory under its own name."""
    if isinstance(value, dict):
        return {key: "(masked)" if key in MASK else masked(item, home) for key, item in value.items()}
    if isinstance(value, list):
        return [masked(item, home) for item in value]
    if not isinstance(value, str):
        return value
    return REMAINS.sub("starts in (masked)", value.replace(home, HOME).replace(MADE_AT, HOME))


def lost(before: Any, now: Any, where: str = "") -> list[str]:
    """What an older answer tells and the newer one does not, or tells differently; new keys are no loss."""
    if _is_table(before) and _is_table(now):
        return lost(
            *([dict(zip(one["columns"], row, strict=True)) for row in one["rows"]] for one in (before, now)), where
        )
    if isinstance(before, dict) and isinstance(now, dict):
        gone = [f"{where}.{key} is gone" for key in before if key not in now]
        return gone + [text for key in before if key in now for text in lost(before[key], now[key], f"{where}.{key}")]
    if _named(before) and _named(now):
        return lost(*({item.get("key", item.get("name")): item for item in items} for items in (before, now)), where)
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        pairs = enumerate(zip(before, now, strict=True))
        return [text for place, (one, other) in pairs for text in lost(one, other, f"{where}[{place}]")]
    if isinstance(before, str) and isinstance(now, str) and before.startswith("{") and "}\n" in before:
        return lost(*([json.loads(line) for line in text.splitlines()] for text in (before, now)), where)
    if isinstance(before, str) and isinstance(now, str) and "\n" in before:
        return [f"{where} has no line {line!r} any more" for line in _lines(before) if line not in _lines(now)]
    return [] if before == now and type(before) is type(now) else [f"{where} was {before!r}, is {now!r}"]


def _is_table(value: Any) -> bool:
    """Whether it is the answer of a query, to which columns may be added."""
    return isinstance(value, dict) and {"columns", "rows"} <= value.keys() and len(set(value["columns"])) > 1


def _named(value: Any) -> bool:
    """Whether a list is a table of keys or settings, to which lines may be added; one of runs is none."""
    if not isinstance(value, list) or not all(isinstance(item, dict) and "id" not in item for item in value):
        return False
    names = [item.get("key", item.get("name")) for item in value]
    return bool(names) and None not in names and len(set(names)) == len(names)


def _lines(text: str) -> list[str]:
    """Lines of a text; how wide its columns are does not count."""
    return [re.sub(r"[ -]{2,}", "  ", line.replace(" |", "  |")).rstrip() for line in text.splitlines()]
