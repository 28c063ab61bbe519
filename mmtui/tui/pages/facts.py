"""The recipe of a run and its history, as text."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from mmtui.domain import dates
from mmtui.domain.states import ACTIVE_STATES
from mmtui.domain.text import duration, fixed, printable, shorten
from mmtui.domain.views import RunDetail, StageView, doubted
from mmtui.paths import Home
from mmtui.services import moments, run_history, runs
from mmtui.services.comparing import flat
from mmtui.services.overrides import as_typed
from mmtui.tui.pages.compose import table
from mmtui.tui.widgets.panels import Line, fit

MOST_RELATIVES = 40
"""Lines of a family tree; a sweep may have forked thousands of runs off one."""


def config(home: Home, run_id: str, width: int, ascii_only: bool) -> list[Line]:
    """Every key of the resolved recipe; those that were overridden are marked."""
    detail = runs.get_run(home, run_id)
    changed = {text.partition("=")[0] for text in detail.overrides}
    lines: list[Line] = [
        [(f"recipe {printable(detail.row.recipe)}", "title"), ("  * given on the command line", "dim")]
    ]
    above = ""
    for key, value in flat(detail.config):
        section, _, _ = key.partition(".")
        if section != above and "." in key:
            lines.append([])
        above = section
        own = any(name and (f"{key}.".startswith(f"{name}.") or key.endswith(f".{name}")) for name in changed)
        text = fit(f"{value}", max(width - 36, 8), ascii_only).rstrip()
        lines.append([("* " if own else "  ", "warn"), (f"{key:32} ", "dim"), (text, "warn" if own else "")])
    return lines


def history(home: Home, run_id: str, width: int, ascii_only: bool, until: int | None = None) -> list[Line]:
    """Stages, attempts, changes of state, warnings, and what it ran with.

    Args:
        until: global step as of which it is told, None: all there is.
    """
    detail = runs.get_run(home, run_id)
    moment = None if until is None else moments.time_at(home, run_id, until)
    past = float("inf") if moment is None else moment
    lines: list[Line] = [[("stages", "title")], *_stages(detail, until, moment), [], [("attempts", "title")]]
    rows = []
    for one in detail.attempts:
        if one.started_at > past:
            continue
        over = one.ended_at is not None and one.ended_at <= past
        took = duration(one.ended_at - one.started_at) if one.ended_at is not None and over else ""
        outcome = one.outcome if over else "alive"
        alive = one.outcome or ("alive" if one.ended_at is None else "")
        rows.append(
            (
                *(str(one.number), _when(one.started_at), took, alive if moment is None else outcome),
                *(one.begins(), one.host, one.device),
            )
        )
    lines += table(
        ("", "began", "took", "outcome", "", "host", "device"), [tuple(map(printable, r)) for r in rows], (2,)
    )
    changes = run_history.changes(home, run_id)
    arrow = "->" if ascii_only else "→"
    lines += [[], [("states", "title")]]
    for change in takewhile(lambda change: change.time <= past, changes):
        what = f"{change.before or '-'} {arrow} {change.after}  ({change.event} by {change.actor})  {change.reason}"
        lines.append([(fit(f"{_when(change.time)}  {printable(what)}", width, ascii_only).rstrip(), "")])
    if any(change.time > past for change in changes):
        lines.append([(f"later changes come behind step {until}", "dim")])
    lines += lineage(home, detail, width, ascii_only)
    lines += [[], [("ran with", "title")]]
    facts: dict[str, object] = {
        **detail.versions,
        "host": detail.host.get("name", ""),
        "data": detail.data_fingerprint[:16],
    }
    facts |= {
        "code": detail.code.get("digest", ""),
        "commit": detail.code.get("commit") or "",
        "resumed": detail.replay,
        "best": detail.best.words() if detail.best is not None else "",
    }
    lines += [[(f"{name:10}", "dim"), (printable(str(value)), "")] for name, value in facts.items() if value]
    if detail.warnings:
        lines += [[], [("warnings", "title")]]
        lines += [[(fit(text, width, ascii_only).rstrip(), "warn")] for text in detail.warnings]
    return lines


def lineage(home: Home, detail: RunDetail, width: int, ascii_only: bool) -> list[Line]:
    """Where the run was forked, and what was forked from it, as a tree; nothing if it stands alone."""
    if detail.parent is None and not detail.children:
        return []
    lines: list[Line] = [[], [("lineage", "title")]]
    if detail.parent is not None and not detail.parent.here:
        gone = f"run {printable(detail.parent.run)}, not here any more: forked at {printable(detail.parent.words())}"
        lines.append([(fit(gone, width, ascii_only).rstrip(), "dim")])
    found = runs.family(home, detail.row.id, MOST_RELATIVES)
    for one, branch in zip(found, branches([one.depth for one in found], ascii_only), strict=True):
        where = f"  from {printable(one.fork.words())}" if one.fork is not None else ""
        own = one.row.id == detail.row.id
        here = ("  <- this run" if ascii_only else "  ← this run") if own else ""
        miou = one.row.metrics.get("miou")
        outcome = one.row.state if miou is None else f"{one.row.state}, mIoU {doubted(fixed(miou, 1), one.row.doubts)}"
        changed = f"  {printable(as_typed(one.changed))}" if one.changed else ""
        text = f"{branch}{one.row.id} {shorten(printable(one.row.name), 40)}{here}{where}  {outcome}{changed}"
        lines.append([(fit(text, width, ascii_only).rstrip(), "warn" if own else "")])
    if len(found) >= MOST_RELATIVES:
        lines.append([("... and more: mmtui ls", "dim")])
    return lines


def branches(depths: Sequence[int], ascii_only: bool) -> list[str]:
    """What stands before each line of a tree whose lines have these depths, parents first."""
    tee, corner, down = ("|- ", "`- ", "|  ") if ascii_only else ("├─ ", "└─ ", "│  ")
    found: list[str] = []
    open_: list[int] = []  # depths at which more is to come below this line
    for depth in reversed(depths):
        end = tee if depth in open_ else corner
        found.append("".join(down if above in open_ else "   " for above in range(1, depth)) + (end if depth else ""))
        open_ = [*(above for above in open_ if above < depth), depth]
    return found[::-1]


def _stages(detail: RunDetail, until: int | None, moment: float | None) -> list[Line]:
    """Status and steps of each stage, then or now."""
    now = [(stage, stage.status, stage.step) for stage in detail.stages]
    if detail.row.state not in ACTIVE_STATES:
        now = [(stage, "stopped" if status == "running" else status, step) for stage, status, step in now]
    told = now if until is None else moments.stages_at(detail.stages, until, moment)
    rows = [(stage.name, _status(stage, status), f"{step}/{stage.total_steps}") for stage, status, step in told]
    return table(("", "status", "steps"), [tuple(map(printable, row)) for row in rows], (2,))


def _status(stage: StageView, status: str) -> str:
    return "stopped early" if stage.stopped_early and status == "finished" else status


def _when(t: float) -> str:
    return dates.text(t, "%m-%d %H:%M:%S")
