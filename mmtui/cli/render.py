"""stdout: tables, JSON and lines. The only place that prints.

Everything that is printed goes through ``_clean``: control characters of names, logs and recipes reach no terminal.
"""

from __future__ import annotations

import csv
import json
import math
import os
import sys
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import chain
from pathlib import Path

from mmtui.domain import text as words
from mmtui.domain.look import COLORS, glyph
from mmtui.domain.text import done, duration, fixed, in_ascii, printable, shorten, shorten_inside
from mmtui.domain.views import ClassTable, RunRow, doubted, doubtful
from mmtui.errors import UsageError
from mmtui.paths import Home
from mmtui.settings import COLOR_MODES, Settings, SettingsError, load

SCHEMA_VERSION = 1
ROWS_AT_ONCE = 1000
LETTERS_AT_ONCE = 4 * 2**20
"""A long table is laid out in portions of so many rows or letters."""
_ANSI = {"bright_black": 90, "red": 31, "green": 32, "yellow": 33, "magenta": 35, "cyan": 36}
_asked_color = ""
_passed_over = set[Path]()
"""Files of settings that are wrong, where that is told in another way."""

Part = str | tuple[str, str]
"""Text, or (text, colour)."""


def settings() -> Settings:
    """The user's settings.

    Raises:
        UsageError: the file is wrong.
    """
    path = Home.from_environment().config
    return Settings() if path in _passed_over else _settings(path)


def use_default_settings_if_broken() -> None:
    """From now on the defaults, if the user's file is wrong."""
    try:
        settings()
    except UsageError:
        _passed_over.add(Home.from_environment().config)


@cache
def _settings(path: Path) -> Settings:
    try:
        return load(path)
    except SettingsError as error:
        raise UsageError(str(error)) from None


def set_color(mode: str) -> None:
    """What the option --color says; "" leaves it to the settings.

    Raises:
        UsageError: there is no such mode.
    """
    global _asked_color  # noqa: PLW0603  (one setting of one process, given on its command line)
    if mode and mode not in COLOR_MODES:
        raise UsageError(f"--color {mode}: write {', '.join(COLOR_MODES[:-1])} or {COLOR_MODES[-1]}")
    _asked_color = mode


def use_color() -> bool:
    """Whether escape codes may be written: the option, the settings, NO_COLOR, TERM, and at last the terminal."""
    mode = _asked_color or settings().color
    if mode != "auto":
        return mode == "always"
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return sys.stdout is not None and sys.stdout.isatty()


def ascii_only() -> bool:
    """Whether stdout cannot take, or shall not have, more than ASCII."""
    return settings().ascii or "utf" not in (getattr(sys.stdout, "encoding", "") or "").lower()


def line(*parts: Part) -> None:
    """One line of data, at once."""
    print("".join(_painted(part) for part in parts), flush=True)


def block(text: str) -> None:
    """Several lines of text."""
    print("\n".join(_clean(part) for part in text.splitlines()), flush=True)


def redraw(texts: Sequence[str], above: int) -> None:
    """Lines in the place of the ``above`` lines that were drawn last, on a terminal."""
    up = f"\x1b[{above}F" if above else ""
    # Each line is cut to its end only after it was written: nothing flickers.
    body = "".join(f"{_clean(text)}\x1b[K\n" for text in texts)
    print(f"{up}{body}\x1b[J", end="", flush=True)


def _painted(part: Part) -> str:
    text, color = (part, "") if isinstance(part, str) else part
    text = _clean(text)
    return f"\x1b[{_ANSI[color]}m{text}\x1b[0m" if color in _ANSI and use_color() else text


def _clean(text: str) -> str:
    text = printable(text)
    return text if text.isascii() or not ascii_only() else in_ascii(text)


def document(body: Mapping[str, object]) -> None:
    """One JSON document with its schema version; NaN and infinities become null."""
    print(json.dumps(_finite({"schema_version": SCHEMA_VERSION, **body}), indent=2, allow_nan=False), flush=True)


def document_of_rows(body: Mapping[str, object], rows: Iterable[Sequence[object]]) -> None:
    """The same document with the rows under the key ``rows``, written as they come; cut off if one raises."""
    text = json.dumps(_finite({"schema_version": SCHEMA_VERSION, **body, "rows": []}), indent=2, allow_nan=False)
    write = sys.stdout.write
    write(text.removesuffix("]\n}"))
    comma = ""
    for row in rows:
        item = json.dumps(_finite(row), indent=2, allow_nan=False)
        write(f"{comma}\n{textwrap.indent(item, '    ')}")
        comma = ","
    write("\n  ]\n}\n" if comma else "]\n}\n")
    sys.stdout.flush()


def _finite(value: object) -> object:
    """JSON knows no NaN."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def cells(text: str) -> int:
    """Terminal columns that a text takes."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(unicodedata.combining(character) > 0 for character in text)


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    right: Sequence[int] = (),
    colors: Sequence[str] = (),
    colored: int = -1,
) -> None:
    """Aligned columns, written at once.

    Args:
        right: columns whose cells are flush right.
        colors: a colour for each row's cell in column ``colored``.
    """
    lines = [[_clean(cell) for cell in row] for row in (header, *rows)]
    widths = [max(cells(row[column]) for row in lines) for column in range(len(header))]
    text = []
    for number_, row in enumerate(lines):
        padded = [_padded(cell, widths[column], column in right) for column, cell in enumerate(row)]
        if number_ and colors:
            padded[colored] = _painted((padded[colored], colors[number_ - 1]))
        text.append("  ".join(padded).rstrip())
    print("\n".join(text), flush=True)


def long_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Aligned columns of rows that may never end: printed in portions, each as wide as what came so far needs."""
    widths = [0] * len(header)
    for portion in _portions(chain([header], rows)):
        lines_ = [[_clean(cell) for cell in row] for row in portion]
        widths = [max(width, *(cells(row[column]) for row in lines_)) for column, width in enumerate(widths)]
        padded = ([_padded(cell, width, False) for cell, width in zip(row, widths, strict=True)] for row in lines_)
        print("\n".join("  ".join(row).rstrip() for row in padded), flush=True)


def _portions(rows: Iterable[Sequence[str]]) -> Iterator[list[Sequence[str]]]:
    """The rows in portions that fit memory."""
    portion: list[Sequence[str]] = []
    length = 0
    for row in rows:
        portion.append(row)
        length += sum(map(len, row))
        if len(portion) > ROWS_AT_ONCE or length > LETTERS_AT_ONCE:
            yield portion
            portion, length = [], 0
    if portion:
        yield portion


def csv_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Comma-separated values with a header, quoted where needed, written as they come.

    In a pipe or a file cells are data, as they are. On a terminal control characters in them are spelled out.
    """
    writer = csv.writer(sys.stdout, lineterminator="\n")
    lines_: Iterable[Sequence[str]] = chain([header], rows)
    if sys.stdout.isatty():
        lines_ = ([printable(cell) for cell in row] for row in lines_)
    writer.writerows(lines_)
    sys.stdout.flush()


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table that Markdown shows as one."""
    lines_ = [header, ["---"] * len(header), *rows]
    cells_ = [[_clean(cell).replace("|", "\\|") for cell in row] for row in lines_]
    print("\n".join(f"| {' | '.join(row)} |" for row in cells_), flush=True)


def lines(bodies: Iterable[Mapping[str, object]]) -> None:
    """One JSON object a line, each with its schema version."""
    for body in bodies:
        print(json.dumps(_finite({"schema_version": SCHEMA_VERSION, **body}), allow_nan=False), flush=True)


def _padded(text: str, width: int, right: bool) -> str:
    fill = " " * (width - cells(text))
    return fill + text if right else text + fill


def number(value: float | None, digits: int = 4) -> str:
    """A number for people, ``-`` where there is none."""
    return words.number(value, digits)


def percent(share: float | None) -> str:
    """A share 0-1 as percent with one decimal."""
    return fixed(None if share is None else 100 * share, 1)


def score(row: RunRow, digits: int = 3) -> str:
    """The mIoU of a run, with a mark where something makes it doubtful."""
    return doubted(number(row.metrics.get("miou"), digits), row.doubts)


def runs_table(rows: Sequence[RunRow], now: float) -> None:
    """The table of ``mmtui ls``."""
    narrow = ascii_only()
    body = [
        (
            row.id,
            f"{glyph(row.state, narrow)} {row.state}",
            shorten_inside(printable(row.name), 32),
            row.stage or "-",
            done(row.progress),
            number(row.metrics.get("loss")),
            score(row),
            duration(None if row.created_at is None else now - row.created_at),
            shorten(printable(row.remark), 70),
        )
        for row in rows
    ]
    header = ("id", "state", "name", "stage", "done", "loss", "mIoU", "age", "reason")
    table(header, body, right=(0, 4, 5, 6, 7), colors=[COLORS.get(row.state, "") for row in rows], colored=1)


def bar(share: float | None, width: int = 20) -> str:
    """A share 0-1 as a bar."""
    filled = 0 if share is None or math.isnan(share) else round(min(max(share, 0.0), 1.0) * width)
    full, empty = ("#", ".") if ascii_only() else ("█", "░")
    return full * filled + empty * (width - filled)


def class_table(found: ClassTable) -> None:
    """Per-class IoU of one run."""
    rows = [
        (str(c.index), c.name, percent(c.iou), bar(c.iou), percent(c.accuracy), str(c.pixels)) for c in found.classes
    ]
    table(("", "class", "IoU %", "", "acc %", "pixels"), rows, right=(0, 2, 4, 5))
    present = f"{found.num_present}/{len(found.classes)} classes"
    mean = doubted(percent(found.miou), found.doubts)
    line(f"mIoU {mean} over {present} ({found.stage} step {found.step})")
    for doubt in found.doubts:
        line(f"doubtful: {printable(doubt)}")


def class_comparison(names: Sequence[str], tables: Sequence[ClassTable], last_row: Sequence[str] = ()) -> None:
    """Per-class IoU of runs side by side: of two with the difference of the second to the first, of more with a row of
    the differences of means.

    Args:
        last_row: a row below that of the means, one cell for the row's name and one for each run.
    """
    two = len(tables) == 2
    # By index and name: two classes of one data set may share a name.
    found = [{(c.index, c.name): c for c in part.classes} for part in tables]
    rows: list[tuple[str, ...]] = []
    for key in dict.fromkeys(key for part in found for key in part):
        here = [part.get(key) for part in found]
        ious = [c.iou if c else None for c in here]
        pixels = next(str(c.pixels) for c in here if c)
        rows.append((key[1], *map(percent, ious), *([_difference(*ious)] if two else []), pixels))
    means = [part.miou for part in tables]
    shown = [doubted(percent(part.miou), part.doubts) for part in tables]
    rows.append(("mean IoU", *shown, *([_difference(*means)] if two else []), ""))
    if not two:
        rows.append(("difference", "", *(_difference(means[0], mean) for mean in means[1:]), ""))
    if last_row:
        rows.append((*last_row, *[""] * (len(rows[0]) - len(last_row))))
    columns = ("class (IoU %)", *names, *(["difference"] if two else []), "pixels")
    table(columns, rows, right=tuple(range(1, len(columns))))
    for name, part in zip(names, tables, strict=True):
        if part.doubts:
            line(f"{printable(name)} is {printable(doubtful(part.doubts))}")


def _difference(before: float | None, after: float | None) -> str:
    return "-" if before is None or after is None else f"{100 * (after - before):+.1f}"
