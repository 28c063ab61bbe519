"""Verbs that look for runs and set them side by side: ls, best, compare, diff, query."""

from __future__ import annotations

import difflib
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, TypedDict

from mmtui.cli import jsonform, render
from mmtui.cli.diagnostics import say
from mmtui.domain.filters import is_score
from mmtui.domain.options import Argument, JsonOption, RunArgument, RunsArgument, option
from mmtui.domain.states import RunState
from mmtui.domain.text import done
from mmtui.domain.views import RunRow, doubted, doubtful
from mmtui.errors import NotFoundError, UsageError
from mmtui.paths import Home

if TYPE_CHECKING:
    from mmtui.services.seeds import Fold

FilterOption = Annotated[
    str, option("--filter", "-F", help='for example: state = failed and created > 2d and lr < 0.01 or tag ~ "a"')
]
JsonlOption = Annotated[bool, option("--jsonl", help="one JSON object a line")]
CsvOption = Annotated[bool, option("--csv", help="comma-separated values")]
MarkdownOption = Annotated[bool, option("--md", help="a Markdown table")]
ALWAYS = ("id", "state", "name")


def ls(
    state: Annotated[list[str] | None, option("--state", "-s", help="only runs in this state (repeatable)")] = None,
    limit: Annotated[int | None, option("--limit", "-n", help="newest N runs (30 unless set)", minimum=1)] = None,
    all_: Annotated[bool, option("--all", "-a", help="all runs")] = False,
    filter_: FilterOption = "",
    sort: Annotated[list[str] | None, option("--sort", help="column, key or metric; -NAME: largest first")] = None,
    group: Annotated[str, option("--group", help="seed: fold runs that differ in seeds alone; sweep: by group")] = "",
    columns: Annotated[str, option("--columns", "-c", help="comma-separated: columns, keys, max miou, ...")] = "",
    view: Annotated[str, option("--view", help="a saved view; options given beside it win")] = "",
    as_json: JsonOption = False,
    as_jsonl: JsonlOption = False,
    as_csv: CsvOption = False,
    as_markdown: MarkdownOption = False,
) -> None:
    """List runs, newest first. --filter takes columns, recipe keys and metrics: mmtui ls -F 'max miou > 60'"""
    from mmtui.services import runs

    for name in state or []:
        _check_state(name)
    home = Home.from_environment()
    if view:
        from mmtui.services import saved_views

        kept = saved_views.get(home, view)
        filter_, sort = filter_ or kept.filter, sort or list(kept.sort)
        columns, group = columns or ",".join(kept.columns), group or kept.group
    names = [name.strip() for name in columns.split(",") if name.strip()]
    most = None if all_ else limit or render.settings().rows
    if group:
        if group not in ("seed", "sweep"):
            raise UsageError(f"--group {group}: write --group seed or --group sweep")
        rows = [row for row, _ in runs.find(home, filter_, states=state or ())[0]]
        if group == "sweep":
            _sweeps(rows, as_json=as_json, as_csv=as_csv, as_markdown=as_markdown)
            return
        ids = [row.id for row in rows]
        _folded(home, ids, as_json=as_json, as_csv=as_csv, as_markdown=as_markdown)
        return
    plain = not (filter_ or sort or names)
    if plain:
        found = [(row, ()) for row in runs.list_runs(home, limit=most, states=state or None)]
        total = sum(count for name, count in runs.count_runs(home).items() if not state or name in state)
    else:
        found, total = runs.find(home, filter_, states=state or (), sort=sort or (), columns=names, limit=most)
    if as_json or as_jsonl:
        bodies = [{**jsonform.run(row), **({"columns": dict(zip(names, values, strict=True))} if names else {})}
                  for row, values in found]  # fmt: skip
        render.lines(bodies) if as_jsonl else render.document({"runs": bodies})
    elif as_csv or as_markdown or (names and found):
        _chosen(found, names, as_csv=as_csv, as_markdown=as_markdown)
    elif found:
        render.runs_table([row for row, _ in found], time.time())
    else:
        nothing = " that fit" if filter_ or state else " yet; start one with: mmtui run shapes_mixmatch"
        say(f"no runs{nothing}")
    if len(found) < total:
        say(f"{len(found)} of {total} runs; all of them with --all")


def view(
    name: Annotated[str, Argument("name of the view; without one all are listed")] = "",
    filter_: FilterOption = "",
    sort: Annotated[list[str] | None, option("--sort", help="column, key or metric; -NAME: largest first")] = None,
    columns: Annotated[str, option("--columns", "-c", help="comma-separated: columns, keys, max miou, ...")] = "",
    group: Annotated[str, option("--group", help="seed or sweep")] = "",
    remove: Annotated[bool, option("--remove", "-r", help="forget the view")] = False,
    as_json: JsonOption = False,
) -> None:
    """Keep a way to look at runs: mmtui view bad -F 'state = failed'; then mmtui ls --view bad, or V on the screen"""
    from mmtui.services import saved_views

    home = Home.from_environment()
    wanted = saved_views.SavedView(
        filter_, tuple(sort or ()), tuple(one.strip() for one in columns.split(",") if one.strip()), group
    )
    if name and remove:
        saved_views.remove(home, name)
        say(f"view {name} is gone")
    elif name and wanted != saved_views.SavedView():
        saved_views.save(home.create(), name, wanted)
        say(f"view {name}: {wanted.command()}")
    else:
        found = {name: saved_views.get(home, name)} if name else saved_views.load(home)
        if as_json:
            render.document({"views": [{"name": key, **asdict(one)} for key, one in found.items()]})
        elif found:
            render.table(("view", "shown by"), [(key, one.command()) for key, one in found.items()])
        else:
            say("no views yet; keep one with: mmtui view NAME -F FILTER")


def _folded(home: Home, ids: Sequence[str], *, as_json: bool, as_csv: bool, as_markdown: bool) -> None:
    """One line for runs that differ in their seeds alone, the best first, and what their difference is worth."""
    from mmtui.services import seeds

    folds = seeds.fold(home, ids)
    if as_json:
        render.document({"folds": [_fold_body(one) for one in folds]})
        return
    header = ("mIoU", "sd", "n", "to best", "p", "recipe", "runs")
    rows = [
        (
            _cell(one.summary.mean if one.summary else None, exact=as_csv, doubts=one.doubts),
            _cell(one.summary.sd if one.summary else None, exact=as_csv),
            str(len(one.values)),
            _cell(one.against.difference if one.against else None, exact=as_csv),
            _verdict(one),
            " ".join((one.recipe, *one.changed)),
            ",".join(one.ids[:6]) + (f" and {len(one.ids) - 6} more" if len(one.ids) > 6 else ""),
        )
        for one in folds
    ]
    if as_csv:
        _csv(header, rows, [one.doubts for one in folds])
    elif as_markdown:
        render.markdown_table(header, rows)
    elif rows:
        render.table(header, rows, right=(0, 1, 2, 3))
        for one in folds:
            if one.doubts:
                say(f"warning: {' '.join((one.recipe, *one.changed))} is {doubtful(one.doubts)}")
        say("~ inside seed noise by Welch's t test (p >= 0.05); ? too few seeds to tell")
        for one in folds:
            if one.more():
                say(f"to tell {' '.join((one.recipe, *one.changed))} from the best: {one.more()}")
    else:
        say("no runs that fit")


def _sweeps(rows: Sequence[RunRow], *, as_json: bool, as_csv: bool, as_markdown: bool) -> None:
    """One line for each group of runs, the newest first; runs of no group are left out."""
    groups: dict[str, list[RunRow]] = {}
    for row in rows:
        if row.group:
            groups.setdefault(row.group, []).append(row)
    bodies = [_sweep_body(name, members) for name, members in groups.items()]
    if as_json:
        render.document({"groups": bodies})
        return
    header = ("group", "runs", "states", "done", "best mIoU", "of run", "recipe")
    table = [
        (
            body["group"],
            str(body["runs"]),
            " ".join(f"{count} {state}" for state, count in body["states"].items()),
            done(body["progress"]),
            _cell(body["best_miou"], exact=as_csv, doubts=body["best_doubts"]),
            body["best_run"] or "-",
            body["recipe"],
        )
        for body in bodies
    ]
    if as_csv:
        _csv(header, table, [body["best_doubts"] for body in bodies])
    elif as_markdown:
        render.markdown_table(header, table)
    elif table:
        render.table(header, table, right=(1, 3, 4, 5))
    else:
        say("no runs of a sweep or group")


class SweepBody(TypedDict):
    """One sweep or group of ``mmtui ls --sweeps --json``; ``best_miou`` in percent / 100, None before any."""

    group: str
    runs: int
    ids: list[str]
    states: dict[str, int]
    progress: float
    best_miou: float | None
    best_run: str
    best_doubts: list[str]
    recipe: str


def _sweep_body(name: str, members: Sequence[RunRow]) -> SweepBody:
    counts = Counter(row.state for row in members)
    best = max((row for row in members if row.metrics["miou"] is not None), key=_miou, default=None)
    return {
        "group": name,
        "runs": len(members),
        "ids": [row.id for row in members],
        "states": dict(sorted(counts.items())),
        "progress": round(sum(row.progress for row in members) / len(members), 4),
        "best_miou": best.metrics["miou"] if best else None,
        "best_run": best.id if best else "",
        "best_doubts": list(best.doubts) if best else [],
        "recipe": ", ".join(sorted({row.recipe for row in members})),
    }


def _miou(row: RunRow) -> float:
    return row.metrics["miou"] or 0.0


def _verdict(one: Fold) -> str:
    if one.against is None:
        return "best" if one.values else "-"
    if one.against.p is None:
        return "?"
    return f"{one.against.p:.3f}" + ("" if one.against.significant else " ~")


def _fold_body(one: Fold) -> dict[str, object]:
    against = one.against
    return {
        "recipe": one.recipe,
        "changed": list(one.changed),
        "ids": list(one.ids),
        "n": len(one.values),
        "miou_mean": one.summary.mean if one.summary else None,
        "miou_sd": one.summary.sd if one.summary else None,
        "difference_to_best": against.difference if against else None,
        "p_welch": against.p if against else None,
        "doubts": list(one.doubts),
        "seeds_needed": against.needed if against else None,
        "command": one.more(),
    }


def _chosen(
    found: Sequence[tuple[RunRow, tuple[object, ...]]], names: Sequence[str], *, as_csv: bool, as_markdown: bool
) -> None:
    asked = tuple(names or ("stage", "miou", "loss"))
    header, rows = [*ALWAYS, *asked], []
    scores = [is_score(name) for name in asked]
    for row, values in found:
        shown = values if names else (row.stage, row.metrics.get("miou"), row.metrics.get("loss"))
        marks = [row.doubts if score else () for score in scores]
        cells = [_cell(value, exact=as_csv, doubts=doubts) for value, doubts in zip(shown, marks, strict=True)]
        rows.append([row.id, row.state, row.name, *cells])
    if as_csv:
        _csv(header, rows, [row.doubts if any(scores) else () for row, _ in found])
    elif as_markdown:
        render.markdown_table(header, rows)
    elif rows:
        render.table(header, rows, right=(0, *range(3, len(header))))


def _csv(header: Sequence[str], rows: Sequence[Sequence[str]], doubts: Sequence[Sequence[str]]) -> None:
    """Numbers stay numbers: what makes scores doubtful is a column of its own, where there is any."""
    if any(doubts):
        header = [*header, "doubts"]
        rows = [[*row, "; ".join(some)] for row, some in zip(rows, doubts, strict=True)]
    render.csv_table(header, rows)


def _cell(value: object, *, exact: bool = False, doubts: Sequence[str] = ()) -> str:
    """A value as text: for programs to the last digit, for people rounded, and marked if it is a doubtful score."""
    if value is None:
        return "" if exact else "-"
    if isinstance(value, float):
        return repr(value) if exact else doubted(render.number(value, 5), doubts)
    return str(value)


def _check_state(name: str) -> None:
    known = [item.value for item in RunState]
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"write one of {', '.join(known)}"
        raise UsageError(f"--state {name}: there is no such state", hint)


_NEWEST = " of the last evaluation; by the highest on the way: --max 'max miou'"
_MEANINGS = {"miou": _NEWEST, "mIoU": _NEWEST, "best": " of the checkpoint that segment.keep_best has kept"}
"""What is said of what ``best`` goes by, where that may be taken for something else."""


def best(
    maximum: Annotated[str, option("--max", help="the run with the largest of this, for example miou")] = "",
    minimum: Annotated[str, option("--min", help="the run with the smallest, for example last loss")] = "",
    filter_: FilterOption = "",
    as_json: JsonOption = False,
) -> None:
    """Print the id of the best run: mmtui show $(mmtui best --max miou)"""
    from mmtui.services import runs

    if bool(maximum) == bool(minimum):
        raise UsageError("say what is best: --max NAME or --min NAME, for example --max miou")
    name = maximum or minimum
    order = f"-{name}" if maximum else name
    found, _ = runs.find(Home.from_environment(), filter_, sort=[order], columns=[name], limit=1)
    if not found or found[0][1][0] is None:
        raise NotFoundError(f"no run{' that fits' if filter_ else ''} has {name}", "see what there is with: mmtui ls")
    row, (value,) = found[0]
    if as_json:
        render.document({"run": row.id, "name": name, "value": value, "doubts": list(row.doubts)})
        return
    render.line(row.id)
    meaning = _MEANINGS.get(name, "")
    say(f"{row.name}: {name} {_cell(value, doubts=row.doubts if is_score(name) else ())}{meaning}")
    for doubt in row.doubts:
        say(f"warning: doubtful: {doubt}")


def compare(
    runs: RunsArgument,
    columns: Annotated[str, option("--columns", "-c", help="further metrics and keys, comma-separated")] = "",
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
    as_markdown: MarkdownOption = False,
) -> None:
    """Runs side by side: the keys in which their recipes differ, and what came of them."""
    from mmtui.services import comparing
    from mmtui.services import runs as lookup

    home = Home.from_environment()
    ids = list(dict.fromkeys(lookup.resolve(home, selector) for selector in runs))
    table = comparing.table(home, ids, [name.strip() for name in columns.split(",") if name.strip()])
    doubts = {run_id: lookup.get_run(home, run_id).row.doubts for run_id in ids}
    if as_json:
        body = [{"name": name, "values": list(values)} for name, values in table]
        render.document({"runs": ids, "rows": body, "doubts": doubts})
        return
    header = ["", *(f"run {run_id}" for run_id in ids)]
    rows = [_marked(name, values, list(doubts.values()), exact=as_csv) for name, values in table]
    if (as_csv or as_markdown) and any(doubts.values()):
        rows.append(["doubts", *("; ".join(some) for some in doubts.values())])
    if as_csv:
        render.csv_table(header, rows)
    elif as_markdown:
        render.markdown_table(header, rows)
    else:
        render.table(header, rows, right=tuple(range(1, len(header))))
    _warn(doubts)


def _marked(name: str, values: Sequence[object], doubts: Sequence[Sequence[str]], *, exact: bool = False) -> list[str]:
    """A line of a table of runs: a name and a value of each run."""
    marks = doubts if is_score(name) else [()] * len(values)
    return [name, *(_cell(value, exact=exact, doubts=some) for value, some in zip(values, marks, strict=True))]


def _warn(doubts: Mapping[str, Sequence[str]]) -> None:
    for run_id, some in doubts.items():
        if some:
            say(f"warning: run {run_id} is {doubtful(some)}")


def diff(
    run: RunArgument,
    other: Annotated[str, Argument("the run it is compared with", "runs")],
    as_json: JsonOption = False,
) -> None:
    """Why are two runs different? Outcome, recipe, seed, code, environment and device, what matters most first."""
    from mmtui.services import comparing, runs

    home = Home.from_environment()
    first, second = (runs.resolve(home, selector) for selector in (run, other))
    found = comparing.differences(home, first, second)
    doubts = {run_id: runs.get_run(home, run_id).row.doubts for run_id in (first, second)}
    if as_json:
        rows = [{"area": d.area, "name": d.name, first: d.first, second: d.second} for d in found]
        render.document({"runs": [first, second], "differences": rows, "doubts": doubts})
        return
    if found:
        both = doubts[first], doubts[second]
        rows_ = [(d.area, *_marked(d.name, (d.first, d.second), both)) for d in found]
        render.table(("", "", f"run {first}", f"run {second}"), rows_)
    else:
        say(f"runs {first} and {second} do not differ in anything that is recorded")
    _warn(doubts)


def query(
    sql: Annotated[str, Argument("one SELECT over the tables and views of docs/schema.md")],
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
) -> None:
    """Ask the database in SQL, read-only: mmtui query 'SELECT state, count(*) FROM runs GROUP BY state'"""
    from mmtui.services import runs

    with runs.sql(Home.from_environment(), sql) as (header, rows):
        if as_json:
            render.document_of_rows({"columns": header}, ([_stored(value) for value in row] for row in rows))
        elif as_csv:
            render.csv_table(header, ([_cell(_stored(value), exact=True) for value in row] for row in rows))
        else:
            render.long_table(header, ([_shown(value) for value in row] for row in rows))


def _stored(value: object) -> object:
    """A cell as JSON and CSV have it: bytes in hexadecimal digits, as SQL's ``hex()`` gives them."""
    return value.hex().upper() if isinstance(value, bytes) else value


def _shown(value: object) -> str:
    if isinstance(value, bytes):
        return f"({len(value)} bytes)"
    return "-" if value is None else value if isinstance(value, str) else json.dumps(value)
