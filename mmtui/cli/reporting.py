"""Reports: the paper's tables, measured beside published."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from mmtui.cli import render
from mmtui.cli.diagnostics import say
from mmtui.cli.options import Argument, JsonOption, option
from mmtui.errors import UsageError
from mmtui.paths import Home

if TYPE_CHECKING:
    from mmtui.services.reports import Row


def report(
    what: Annotated[str, Argument("paper: the tables of the paper")] = "paper",
    as_markdown: Annotated[bool, option("--md", help="Markdown")] = False,
    as_json: JsonOption = False,
) -> None:
    """The paper's tables: what was measured here beside what was published, and how to run what is missing."""
    from mmtui.services import reports

    if what != "paper":
        raise UsageError(f"mmtui report {what}: write mmtui report paper")
    rows = list(reports.paper(Home.from_environment()))
    if as_json:
        render.document({"rows": [{name: getattr(row, name) for name in row.__slots__} for row in rows]})
        return
    header = ("", "published", "measured", "sd", "runs", "recipe")
    for number, (title, _) in reports.TABLES.items():
        render.line(f"{'### ' if as_markdown else ''}Table {number}: {title}" if number.isdigit() else title)
        if as_markdown:
            render.line("")
        body = [_cells(row) for row in rows if row.table == number]
        render.markdown_table(header, body) if as_markdown else render.table(header, body, right=(1, 2, 3, 4))
        render.line("")
    missing = next((row for row in rows if not row.runs), None)
    if missing is not None:
        say(f"rows with 0 runs have not been run; run one with: mmtui run {missing.recipe} data.root=FOLDER")


def _cells(row: Row) -> tuple[str, ...]:
    numbers = (_percent(value) for value in (row.published, row.measured, row.spread))
    return (row.label, *numbers, str(row.runs), row.recipe)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
