"""Write the table of keys in recipes.md from the schema: ``python docs/make_recipes.py``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

FILE = Path(__file__).resolve().parent / "recipes.md"
START, END = "<!-- keys: made by docs/make_recipes.py -->\n", "<!-- end of keys -->\n"


def table() -> str:
    """Every key of a recipe as a Markdown table, section after section."""
    from engine.config import valid_keys

    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for info in valid_keys():
        cells = [f"`{info.key}`", info.type.replace("|", "\\|"), _shown(info.default), info.description]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(_shown(item) for item in value)}]"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "empty" if value == "" else json.dumps(value).strip('"')


def updated(text: str) -> str:
    """The document with a fresh table."""
    before, rest = text.split(START)
    return f"{before}{START}{table()}{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    sys.path.insert(0, str(FILE.parents[1]))
    FILE.write_text(updated(FILE.read_text()))
