"""Reports on runs: terminal text and Markdown, LaTeX tables, and one HTML file that needs nothing but itself."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from engine.events.numbers import finite
from engine.events.records import Image
from mmtui.domain.text import duration, fixed, printable
from mmtui.domain.views import ClassTable, RunDetail, doubted
from mmtui.errors import NotFoundError
from mmtui.paths import Home
from mmtui.services import comparing, runs, svg
from mmtui.services.overrides import live
from mmtui.services.plain_files import named_file

POINTS = 400
PICTURES = 6
MEAN = "mean IoU"
LARGEST_PICTURE = 4 * 2**20


@dataclass(frozen=True)
class Table:
    """A table of text; the first column names the row, the others are numbers unless ``text``."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text: bool = False


@dataclass(frozen=True)
class Report:
    """What is known of some runs."""

    title: str
    runs: tuple[RunDetail, ...]
    tables: tuple[Table, ...]
    charts: tuple[tuple[str, str], ...]  # title and SVG
    pictures: tuple[tuple[str, tuple[Path, ...]], ...]  # caption; image, truth and prediction


def collect(home: Home, ids: Sequence[str]) -> Report:
    """Everything a report shows, in the order given.

    Raises:
        NotFoundError: there is no such run, or none was given.
    """
    if not ids:
        raise NotFoundError("no run was named", "give one: mmtui report @")
    details = tuple(runs.get_run(home, run_id) for run_id in ids)
    names = [f"{d.row.id} {printable(d.row.name)}" for d in details]
    tables = [_facts(details, names)]
    classes = [runs.class_table(home, d.row.id) for d in details]
    if any(classes):
        tables.append(_class_rows(classes, names))
    if len(details) > 1:
        differing = _differences(home, ids, names)
        tables += [differing] if differing.rows else []
    title = f"Run {names[0]}" if len(names) == 1 else f"Runs {', '.join(d.row.id for d in details)}"
    charts = tuple((metric, chart) for metric, chart in _charts(home, details, names) if chart)
    pictures = tuple(_pictures(home, details[0]))
    return Report(title, details, tuple(tables), charts, pictures)


def _facts(details: Sequence[RunDetail], names: Sequence[str]) -> Table:
    def took(d: RunDetail) -> str:
        return duration(d.row.ended_at - d.row.started_at) if d.row.ended_at and d.row.started_at else "-"

    def versions(d: RunDetail) -> str:
        return ", ".join(f"{name} {text}" for name, text in d.versions.items()) or "-"

    lines = {
        "state": [d.row.state for d in details],
        "recipe": [d.row.recipe for d in details],
        "changed": [" ".join(live(d.overrides)) or "-" for d in details],
        "seed": [str(d.row.seed) for d in details],
        "mIoU, %": [doubted(_number(d.row.metrics.get("miou")), d.row.doubts) for d in details],
        "best": [d.best.words() if d.best is not None else "-" for d in details],
        "doubtful": ["; ".join(d.row.doubts) or "-" for d in details],
        "published": [_number(finite(d.section("reference").get("miou"))) for d in details],
        "loss": [_number(d.row.metrics.get("loss"), 4) for d in details],
        "took": [took(d) for d in details],
        "device": [str(d.host.get("device") or "-") for d in details],
        "versions": [versions(d) for d in details],
        "code": [str(d.code.get("commit") or d.code.get("digest") or "-")[:16] for d in details],
        "data": [d.data_fingerprint[:16] or "-" for d in details],
    }
    rows = tuple((name, *(printable(text) for text in texts)) for name, texts in lines.items() if set(texts) != {"-"})
    return Table("Runs", ("", *names), rows, text=True)


def _class_rows(tables: Sequence[ClassTable | None], names: Sequence[str]) -> Table:
    """IoU of each class, percent; with two runs also the difference of the second to the first."""
    labels = list(dict.fromkeys(row.name for table in tables if table for row in table.classes))
    columns = [{row.name: row.iou for row in table.classes} if table else {} for table in tables]
    means = [table.miou if table else None for table in tables]
    rows = []
    for label, values in [*((name, [c.get(name) for c in columns]) for name in labels), (MEAN, means)]:
        cells = [_number(None if value is None else 100 * value) for value in values]
        if label == MEAN:
            cells = [doubted(cell, table.doubts if table else ()) for cell, table in zip(cells, tables, strict=True)]
        if len(tables) == 2:
            first, second = values
            cells.append(f"{100 * (second - first):+.2f}" if first is not None and second is not None else "-")
        rows.append((printable(label), *cells))
    header = ("class", *names, *(("difference",) if len(tables) == 2 else ()))
    return Table("IoU of each class, %", header, tuple(rows))


def _differences(home: Home, ids: Sequence[str], names: Sequence[str]) -> Table:
    skipped = {"name", *comparing.OUTCOME}
    rows = [(key, *(_plain(v) for v in values)) for key, values in comparing.table(home, ids) if key not in skipped]
    return Table("Settings that differ", ("key", *names), tuple(rows), text=True)


def _plain(value: object) -> str:
    return "-" if value is None else printable(value if isinstance(value, str) else json.dumps(value))


def _charts(home: Home, details: Sequence[RunDetail], names: Sequence[str]) -> Iterator[tuple[str, str]]:
    for metric in ("loss", "miou", "lr"):
        lines: list[svg.Line] = []
        for detail, name in zip(details, names, strict=True):
            if metric in runs.metric_names(home, detail.row.id):
                found = runs.series(home, detail.row.id, metric, max_buckets=POINTS)
                lines.append((name, [(b.x, b.last) for b in found.buckets if not b.superseded]))
        yield metric, svg.chart(metric, lines, "step of the run")


def _pictures(home: Home, detail: RunDetail) -> Iterator[tuple[str, tuple[Path, ...]]]:
    """Image, truth and prediction of the first validation images, of the newest evaluation."""
    root, newest = home.run(detail.row.id).root, dict[int, Image]()
    for event in runs.events(home, detail.row.id, Image.KIND):
        image = event.record
        if isinstance(image, Image) and image.kind == "validation" and image.index is not None:
            newest[image.index] = image
    for index in sorted(newest)[:PICTURES]:
        image = newest[index]
        files = [named_file(root, part) for part in (image.image, image.truth, image.prediction)]
        small = [file for file in files if file is not None and file.stat().st_size < LARGEST_PICTURE]
        if len(small) == len(files):
            yield printable(str(index) if image.name is None else image.name), tuple(small)


def _number(value: float | None, digits: int = 2) -> str:
    return fixed(value, digits)


def text_lines(report: Report) -> Iterator[str]:
    """As Markdown, which a terminal shows well too."""
    yield f"# {report.title}"
    for table in report.tables:
        yield from ("", f"## {table.title}", "")
        widths = [max(len(row[i]) for row in (table.header, *table.rows)) for i in range(len(table.header))]
        yield "| " + " | ".join(cell.ljust(width) for cell, width in zip(table.header, widths, strict=True)) + " |"
        marks = [("-" * width if table.text or i == 0 else "-" * (width - 1) + ":") for i, width in enumerate(widths)]
        yield "| " + " | ".join(marks) + " |"
        for row in table.rows:
            cells = [
                cell.replace("|", "\\|").ljust(width) if table.text or i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            yield "| " + " | ".join(cells) + " |"


_LATEX = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
}


def latex_lines(report: Report) -> Iterator[str]:
    """Tables for a paper: needs the package booktabs."""
    for table in report.tables:
        kind = "l" * len(table.header) if table.text else "l" + "r" * (len(table.header) - 1)
        yield f"% {report.title}: {table.title}"
        yield f"\\begin{{tabular}}{{{kind}}}"
        yield "\\toprule"
        yield _latex_row(table.header)
        yield "\\midrule"
        for row in table.rows:
            if row[0] == MEAN:
                yield "\\midrule"
            yield _latex_row(row)
        yield from ("\\bottomrule", "\\end{tabular}", "")


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join("".join(_LATEX.get(char, char) for char in cell) for cell in cells) + " \\\\"


STYLE = """
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; display: block; overflow-x: auto; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #8884; text-align: left; vertical-align: top; }
td.n, th.n { text-align: right; } tr.sum td { border-top: 2px solid #888; font-weight: 600; }
svg { width: 100%; height: auto; } .grid { stroke: #8884; } .tick { font-size: 11px; fill: currentColor; }
.images { display: grid; grid-template-columns: repeat(3, 1fr); gap: .3rem; margin: 0 0 1rem; }
.images img { width: 100%; image-rendering: pixelated; } figcaption { font-size: .85rem; grid-column: 1 / 4; }
footer { margin-top: 3rem; font-size: .8rem; opacity: .7; }
"""


def html(report: Report, now: float | None = None) -> str:
    """One file with everything in it: no script, no style sheet, picture or font from elsewhere."""
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        # A browser is told as well: nothing is to be loaded.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:;',
        " style-src 'unsafe-inline'\">",
        f"<title>{escape(report.title)}</title><style>{STYLE}</style></head><body><h1>{escape(report.title)}</h1>",
    ]
    parts += [_html_table(table) for table in report.tables]
    parts += [f"<h2>{escape(metric)}</h2>{chart}" for metric, chart in report.charts]
    if report.pictures:
        parts.append("<h2>Predictions: image, truth, prediction</h2>")
    for caption, files in report.pictures:
        images = "".join(f'<img alt="" src="{_data(file)}">' for file in files)
        parts.append(f'<figure class="images">{images}<figcaption>{escape(caption)}</figcaption></figure>')
    stamp = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(time.time() if now is None else now))
    parts.append(f"<footer>mmtui, {stamp}</footer></body></html>\n")
    return "\n".join(parts)


def _html_table(table: Table) -> str:
    kind = "" if table.text else ' class="n"'
    head = "".join(f"<th{kind if i else ''}>{escape(cell)}</th>" for i, cell in enumerate(table.header))
    body = ""
    for row in table.rows:
        cells = "".join(f"<td{kind if i else ''}>{escape(cell)}</td>" for i, cell in enumerate(row))
        last = ' class="sum"' if row[0] == MEAN else ""
        body += f"<tr{last}>{cells}</tr>"
    return f"<h2>{escape(table.title)}</h2><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _data(file: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"
