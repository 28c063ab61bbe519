"""Reports: the paper's tables, measured beside published."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

from engine.marks import is_marked, marked_text
from mmtui.cli import render
from mmtui.cli.diagnostics import say
from mmtui.cli.outputs import ForceOption, allowed, announce, output_path, refuse_no_folder
from mmtui.domain.options import Argument, JsonOption, RunsArgument, option
from mmtui.domain.text import fixed, printable
from mmtui.domain.views import doubted, doubtful
from mmtui.errors import MmtuiError, UsageError
from mmtui.paths import Home

if TYPE_CHECKING:
    from mmtui.services.reports import Row


def report(
    what: Annotated[list[str] | None, Argument("paper: the paper's tables (default), or runs", complete="runs")] = None,
    as_markdown: Annotated[bool, option("--md", help="Markdown")] = False,
    as_latex: Annotated[bool, option("--latex", help="runs: LaTeX tables (booktabs)")] = False,
    html: Annotated[
        str, option("--html", help="runs: write one HTML file that needs nothing but itself; - is stdout")
    ] = "",
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """The paper's tables with what was measured here, or a report on runs: mmtui report 3 4 --html report.html"""
    from mmtui.services import reports

    if what and what != ["paper"]:
        if as_json:
            raise UsageError("--json is for the paper's tables", f"of a run: mmtui show {what[0]} --json")
        _runs(what, as_latex, html, force)
        return
    if as_latex or html:
        raise UsageError("--latex and --html are for reports on runs", "name them: mmtui report @")
    rows = list(reports.paper(Home.from_environment()))
    if as_json:
        render.document({"rows": [{name: getattr(row, name) for name in row.__slots__} for row in rows]})
        return
    header = ("", "published", "(test)", "measured", "sd", "runs", "recipe")
    for number, (title, _) in reports.TABLES.items():
        render.line(f"{'### ' if as_markdown else ''}Table {number}: {title}" if number.isdigit() else title)
        if as_markdown:
            render.line("")
        body = [_cells(row) for row in rows if row.table == number]
        render.markdown_table(header, body) if as_markdown else render.table(header, body, right=(1, 2, 3, 4, 5))
        render.line("")
    for row in rows:
        if row.doubts:
            say(f"warning: {row.recipe} is {doubtful(row.doubts)}")
    missing = next((row for row in rows if row.recipe and not row.runs), None)
    if missing is not None:
        say(f"rows with 0 runs have not been run; run one with: mmtui run {missing.recipe} data.root=FOLDER")


def figures(
    runs: RunsArgument,
    output: Annotated[str, option("--output", "-o", help="folder for the pictures")] = "figures",
    force: ForceOption = False,
) -> None:
    """Draw graph, patches, boxes, embeddings, predictions and curves of runs: mmtui figures 3 4 -o figures"""
    from mmtui.services import figures as service
    from mmtui.services import runs as lookup

    home, target = Home.from_environment(), output_path(output)
    refuse_no_folder(target)
    ids = list(dict.fromkeys(lookup.resolve(home, selector) for selector in runs))
    with TemporaryDirectory(prefix="mmtui-") as scratch:
        drawn, problems = _drawn(home, ids, Path(scratch))
        force = allowed(*(target / path.name for path in drawn), force=force, is_ours=is_marked)
        made = service.place(drawn, target, force=force)
    for path in made:
        render.line(str(path))
    if problems:
        raise MmtuiError("; ".join(map(printable, problems)))


def _drawn(home: Home, ids: list[str], scratch: Path) -> tuple[list[Path], list[str]]:
    from mmtui.services import figures, output_files

    try:
        return figures.draw(home, ids, scratch)
    except OSError as error:
        raise output_files.unwritable(error, Path(error.filename or scratch)) from None


def _runs(selectors: list[str], as_latex: bool, html: str, force: bool) -> None:
    """A report on runs, to stdout or to a file."""
    from mmtui.services import output_files, run_report, runs

    target = output_path(html, stdout=True, flag="--html") if html else None
    if target is not None:
        force = allowed(target, force=force, is_ours=is_marked)
    home = Home.from_environment()
    ids = list(dict.fromkeys(runs.resolve(home, selector) for selector in selectors))
    found = run_report.collect(home, ids)
    if target is not None:
        text = marked_text(run_report.html(found), "<!-- -->")
        output_files.write_text(target, text, force=force, is_ours=is_marked)
        announce(target)
        return
    for line in run_report.latex_lines(found) if as_latex else run_report.text_lines(found):
        render.line(line)


def _cells(row: Row) -> tuple[str, ...]:
    published = (_percent(value) for value in (row.published, row.published_test))
    measured = (doubted(_percent(row.measured), row.doubts), _percent(row.spread))
    return (row.label, *published, *measured, str(row.runs) if row.recipe else "-", row.recipe or "-")


def _percent(value: float | None) -> str:
    return fixed(value, 1)
