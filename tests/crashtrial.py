"""One deed, ended at each of its steps, and what it leaves; also the table of docs/crash-safety.md.

python -m tests.crashtrial      prints that table
"""

from __future__ import annotations

import math
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mmtui.paths import Home
from mmtui.services import editing, keeping, mending, queue, stages, trash
from mmtui.services.exchange import capsule, importing
from mmtui.services.forks import Fork
from mmtui.store import batches
from tests import crashpoints, crashworld
from tests.crashworld import CHILD, FINISHED, REMOVED, WAITING

Deed = Callable[[Home], object]
EACH = 50
"""Of the files of frozen code, which are written one like the other, each such one is interrupted."""


def _queue_two(home: Home) -> object:
    return queue.enqueue_all(home, "tiny", [["seed=5"], ["seed=6"]], queue.Terms(hold=True))


def _fork(home: Home) -> object:
    return queue.enqueue_all(home, "tiny", [["seed=7", "segment.steps=9"]], queue.Terms(hold=True), Fork(FINISHED, 9))


DEEDS: dict[str, Deed] = {
    "rm": lambda home: trash.remove(home, FINISHED),
    "restore": lambda home: trash.restore(home, REMOVED),
    "purge": lambda home: trash.purge(home, really=True),
    "purge --stages": lambda home: stages.evict(home, 0.0, really=True),
    "run": _queue_two,
    "run --from": _fork,
    "edit": lambda home: editing.edit(home, WAITING, ["segment.steps=9"]),
    "edit of a fork": lambda home: editing.edit(home, CHILD, ["segment.steps=9"]),
    "backup": lambda home: keeping.backup(home),
    "export --to capsule": lambda home: capsule.export(home, FINISHED, home.root / "out.tar"),
    "import of a capsule": lambda home: capsule.take_in(home, home.root / "capsule.tar"),
    "import of events": lambda home: importing.take_in(home, home.root / "foreign" / "events.jsonl"),
    "backup --restore": lambda home: list(mending.restore_backup(home, home.root / "earlier.db")),
}


def make_world(root: Path) -> Home:
    """What every trial begins with: never changed, only copied."""
    home = crashworld.make_world(root)
    keeping.backup(home, home.root / "earlier.db")
    capsule.export(home, FINISHED, home.root / "capsule.tar")
    (home.root / "foreign").mkdir()
    shutil.copyfile(home.run(FINISHED).events(1), home.root / "foreign" / "events.jsonl")
    keeping.set_note(home, WAITING, "after the backup")
    return home


@dataclass(frozen=True)
class Outcome:
    """What a fault has left.

    Attributes:
        ended: "killed", "done" or what was raised.
        found: what did not fit together.
        told: what mending it said.
        left: what still did not fit together then.
        state: "before" or "after", of each run the same; "between" if some runs are as before and others as after;
            else which runs are neither.
    """

    ended: str
    found: list[str]
    told: list[str]
    left: list[str]
    state: str


def _in_one_batch(deed: Deed, home: Home) -> object:
    """Do it with as many transactions on a slow machine as on a fast one; in a process of its own."""
    batches.HELD_SECONDS = math.inf
    return deed(home)


class Trial:
    """Copies of the world, one for each fault of one deed.

    Args:
        world: a data directory; it is copied.
        deed: what is interrupted.
        folder: where the copies lie, one after the other.
    """

    def __init__(self, world: Home, deed: Deed, folder: Path) -> None:
        self.world, self.deed, self.folder = world, partial(_in_one_batch, deed), folder
        done = self._copy()
        self.steps = crashpoints.steps_of(partial(self.deed, done), done.root)
        self.before, self.after = crashworld.picture(world), crashworld.picture(done)

    def _copy(self) -> Home:
        shutil.rmtree(self.folder, ignore_errors=True)
        return Home(Path(shutil.copytree(self.world.root, self.folder)))

    def outcomes(self) -> Iterator[tuple[str, str, Outcome]]:
        """(fault, step, outcome) of every fault that can happen there."""
        for number, step in enumerate(self.steps, 1):
            if "/code/engine/" in step and number % EACH:
                continue
            yield crashpoints.KILL, step, self._fault(crashpoints.KILL, number, step)
            if crashpoints.takes_room(step):
                yield crashpoints.FULL, step, self._fault(crashpoints.FULL, number, step)

    def _fault(self, kind: str, number: int, step: str) -> Outcome:
        home = self._copy()
        ended = crashpoints.end_at(
            partial(self.deed, home), home.root, kind, number, lambda there: _placed(there) == _placed(step)
        )
        found, told = crashworld.problems(home), list[str]()
        if found or crashworld.hidden(home) or self._state(home) not in ("before", "after"):
            told = crashworld.mend(home)
        left = crashworld.problems(home) + [f"left: {name}" for name in crashworld.hidden(home)]
        return Outcome(ended, found, told, left, self._state(home))

    def _state(self, home: Home) -> str:
        now = crashworld.picture(home)
        if now in (self.before, self.after):
            return "after" if now == self.after else "before"
        runs = {*now, *self.before, *self.after}
        odd = [run for run in sorted(runs) if now.get(run) not in (self.before.get(run), self.after.get(run))]
        return f"neither: {', '.join(odd)}" if odd else "between"


@dataclass
class _Row:
    """Steps that follow each other and end alike."""

    first: str
    last: str
    count: int
    state: str
    mended: str

    def text(self, name: str, fault: str) -> str:
        """A row of the table."""
        where = self.first if self.first == self.last else f"{self.first} ... {self.last}"
        return f"| {name} | {fault} | {where} | {self.count} | {self.state} | {self.mended} |"


def _placed(step: str) -> str:
    """The step with what differs from run to run of this trial (numbers, random names) taken out."""
    step = re.sub(r"writer-[0-9a-f]{8}-\d+(-[a-z0-9_]{8})?", "writer-N", step)
    step = re.sub(r"\d+\.[0-9a-f]{8}\.new", "N.new", step)
    return re.sub(r"\d{2,}", "N", step)


def rows_of(name: str, outcomes: Iterable[tuple[str, str, Outcome]]) -> list[str]:
    """The rows of the table for one deed, in Markdown."""
    rows: dict[str, list[_Row]] = {crashpoints.KILL: [], crashpoints.FULL: []}
    for fault, step, outcome in outcomes:
        what = _placed(step)
        mended = "; ".join(dict.fromkeys(re.sub(r"\d+", "N", told) for told in outcome.told)) or "nothing to mend"
        last = rows[fault][-1] if rows[fault] else None
        if last is not None and (last.state, last.mended) == (outcome.state, mended):
            last.last, last.count = what, last.count + 1
        else:
            rows[fault].append(_Row(what, what, 1, outcome.state, mended))
    return [row.text(name, fault) for fault, found in rows.items() for row in found]


def table(world: Home, folder: Path) -> Iterator[str]:
    """The table of every deed, in Markdown."""
    yield "| command | fault | at the step | steps | state then | mended by |"
    yield "|---|---|---|---|---|---|"
    for name, deed in DEEDS.items():
        yield from rows_of(name, Trial(world, deed, folder).outcomes())


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        world = make_world(Path(folder) / "world")
        for row in table(world, Path(folder) / "home"):
            sys.stdout.write(f"{row}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
