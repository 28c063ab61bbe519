"""What the scheduler has to know: runs that wait, places, rules. Reads only; forecasts are made from it too."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from mmtui.devices.slots import Use
from mmtui.domain.placing import Slots, expected
from mmtui.domain.scheduling import UNMEASURED, Rules, Waiting
from mmtui.domain.states import FINAL_STATES, RunState
from mmtui.paths import Home
from mmtui.services.places import find_slots
from mmtui.services.trainers import Living, is_alive
from mmtui.store import cells
from mmtui.store.queries import active
from mmtui.store.queries import queue as queued
from mmtui.store.reader import Reader


class Queue:
    """The queue of one data directory, as it is now.

    Args:
        clock: tells Unix time now; None = as the machine's clock is set.

    Attributes:
        strangers: trainers that live and of which the database knows nothing: their slots are in use.
        broken: {run: (what to do, why)} of queued runs that wait for one that has failed.
    """

    def __init__(self, home: Home, reader: Reader, clock: Callable[[], float] | None = None) -> None:
        self.home, self.reader, self._clock = home, reader, clock or time.time
        self.broken: dict[int, tuple[str, str]] = {}
        self.strangers: Sequence[Living] = ()

    def waiting(self, *, on_cluster: bool = False) -> dict[int, Waiting]:
        """Queued runs by id, with what each of them still waits for.

        Args:
            on_cluster: those that SLURM shall start, instead of those for this machine.
        """
        rows = queued.waiting(self.reader, on_cluster=on_cluster)
        if not rows:
            return {}
        busy, needs, found = self._stages_in_training(), queued.needs(self.reader), {}
        self.broken = {}
        # A sweep waits for the same few runs: each list is read once.
        lists = {text: _ids(text) for text in {row.after for row in rows} if text != "[]"}
        states = self._states_of(lists.values())
        for run_id, priority, position, not_before, group, after, if_failed, wanted, work, stages in rows:
            left = self._left_of(run_id, lists[after], if_failed, states) if after != "[]" else ()
            if run_id in self.broken:
                continue
            blocked = _same_stage(stages, busy) if busy else ""
            found[run_id] = Waiting(
                run_id, priority, position, not_before, group, left, wanted, needs.get(work, UNMEASURED), blocked
            )
        return found

    def _states_of(self, several: Iterable[Sequence[int]]) -> dict[int, str]:
        """States of all runs that others wait for; one that is gone is missing."""
        return queued.states(self.reader, sorted({run_id for after in several for run_id in after}))

    def _left_of(self, run_id: int, after: Sequence[int], if_failed: str, states: Mapping[int, str]) -> tuple[int, ...]:
        """Runs that a run still waits for. One that failed is noted, and is waited for no longer."""
        over = [other for other in after if states.get(other, RunState.CANCELLED) in FINAL_STATES]
        bad = [other for other in over if states.get(other) != RunState.SUCCEEDED]
        if bad and if_failed != "run":
            reason = f"run #{bad[0]}, which it waits for, is {states.get(bad[0], 'gone')}"
            self.broken[run_id] = (if_failed, reason)
        return tuple(other for other in after if other not in over)

    def _stages_in_training(self) -> dict[str, str]:
        """{name of a shared stage: why others wait for it}, of stages that active runs have not finished."""
        found: dict[str, str] = {}
        for run_id, names, finished in queued.shared_stages(self.reader):
            for stage, name in names.items():
                if stage not in finished:
                    found.setdefault(name, f"waiting for #{run_id}, which trains the same {stage} stage")
        return found

    def slots(self) -> Slots:
        """Places as they are now."""
        self.strangers = [one for one in self.strangers if is_alive(one.trainer.pid, one.trainer.identity)]
        whole = [slot for one in self.strangers for slot in one.slots]
        shares: dict[str, list[tuple[float, str]]] = {}
        lost = ""
        for run in active.holders(self.reader):
            share = cells.number(run.wanted) or 1.0  # a damaged cell: it may need all of its place
            held = run.places
            if held is None:
                lost = f"which places run #{run.run_id} holds cannot be read: see mmtui doctor"
            for name in held or ():
                if share < 1:
                    shares.setdefault(name, []).append((share, run.work))
                else:
                    whole.append(name)
        found = find_slots(whole, self._uses(shares), self.home) if shares else find_slots(whole)
        # Each may be the one: two trainers on one place are worse than a queue that waits and says why.
        return replace(found, free=(), partly=(), note=lost) if lost else found

    def _uses(self, shares: Mapping[str, list[tuple[float, str]]]) -> dict[str, Use]:
        needs = queued.needs(self.reader)
        kinds = {name: place.kind for name, place in find_slots([]).places.items()}
        found = {}
        for name, parts in shares.items():
            counts = [needs.get(work, {}).get(kinds.get(name, "")) for _, work in parts]
            known = [expected(count) for count in counts if count is not None]
            total = sum(known) if len(known) == len(counts) else None
            found[name] = Use(min(sum(share for share, _ in parts), 1.0), total)
        return found

    def rules(self) -> Rules:
        """What holds for the queue as a whole, as it is now."""
        settings = self.reader.settings()
        limits, budgets = cells.by_group(settings, "limit"), cells.by_group(settings, "budget")
        working = queued.active_by_group(self.reader) if limits else {}
        spent = queued.hours_by_group(self.reader, self._clock()) if budgets else {}
        return Rules(settings.get("closed", ""), limits, working, budgets, spent)


def _ids(cell: object) -> tuple[int, ...]:
    return tuple(item for item in cells.listed(cell) if isinstance(item, int))


def _same_stage(stages: str, busy: Mapping[str, str]) -> str:
    """Why a run with these shared stages waits for another one, "" if it need not."""
    return next((why for name, why in busy.items() if name in stages), "")
