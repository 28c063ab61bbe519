"""What the scheduler has to know: runs that wait, places, rules. Reads only; forecasts are made from it too."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mmtui.devices.slots import Use
from mmtui.domain.placing import Slots, expected
from mmtui.domain.scheduling import UNMEASURED, Rules, Waiting
from mmtui.domain.states import ACTIVE_STATES, FINAL_STATES, RunState
from mmtui.paths import Home
from mmtui.services.places import find_slots
from mmtui.services.trainers import Living, is_alive
from mmtui.store import cells
from mmtui.store.reader import Reader

_ACTIVE = ",".join(f"'{state.value}'" for state in ACTIVE_STATES)
_PORTION = 500
_COLUMNS = "id, priority, position, not_before, run_group, after, if_failed, wanted, work, shared_stages"


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
        where = f"state = 'queued' AND deleted_at IS NULL AND launcher {'!=' if on_cluster else '='} '{{}}'"
        rows = self.reader.query(f"SELECT {_COLUMNS} FROM runs INDEXED BY ix_runs_waiting WHERE {where}")
        if not rows:
            return {}
        busy, needs, found = self._stages_in_training(), self._needs(), {}
        self.broken = {}
        # A sweep waits for the same few runs: each list is read once.
        lists = {text: _ids(text) for text in {row[5] for row in rows} if text != "[]"}
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
        ids, found = sorted({run_id for after in several for run_id in after}), {}
        for start in range(0, len(ids), _PORTION):
            portion = ids[start : start + _PORTION]
            marks = ",".join("?" * len(portion))
            found.update(
                {r[0]: r[1] for r in self.reader.query(f"SELECT id, state FROM runs WHERE id IN ({marks})", portion)}
            )
        return found

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
        sql = (
            f"SELECT r.id, r.shared_stages, group_concat(s.name) FROM runs r LEFT JOIN stages s ON s.run_id = r.id"
            f" AND s.status = 'finished' WHERE r.state IN ({_ACTIVE}) AND r.shared_stages != '{{}}' GROUP BY r.id"
        )
        found: dict[str, str] = {}
        for run_id, stages, finished in self.reader.query(sql):
            done = (finished or "").split(",")
            for stage, name in cells.mapped(stages).items():
                if stage not in done:
                    found.setdefault(name, f"waiting for #{run_id}, which trains the same {stage} stage")
        return found

    def _needs(self) -> dict[str, dict[str, int]]:
        """{work: {model of a device: bytes}}, as measured."""
        found: dict[str, dict[str, int]] = {}
        for work, device, count in self.reader.query("SELECT work, device, bytes FROM needs"):
            found.setdefault(work, {})[device] = count
        return found

    def slots(self) -> Slots:
        """Places as they are now."""
        self.strangers = [one for one in self.strangers if is_alive(one.trainer.pid, one.trainer.identity)]
        whole = [slot for one in self.strangers for slot in one.slots]
        shares: dict[str, list[tuple[float, str]]] = {}
        lost = ""
        rows = self.reader.query(f"SELECT id, gpus, wanted, work FROM runs WHERE state IN ({_ACTIVE})")
        for run_id, gpus, wanted, work in rows:
            share = cells.number(wanted) or 1.0  # a damaged cell: it may need all of its place
            held = cells.places(gpus)
            if held is None:
                lost = f"which places run #{run_id} holds cannot be read: see mmtui doctor"
            for name in held or ():
                if share < 1:
                    shares.setdefault(name, []).append((share, work))
                else:
                    whole.append(name)
        found = find_slots(whole, self._uses(shares), self.home) if shares else find_slots(whole)
        # Each may be the one: two trainers on one place are worse than a queue that waits and says why.
        return replace(found, free=(), partly=(), note=lost) if lost else found

    def _uses(self, shares: Mapping[str, list[tuple[float, str]]]) -> dict[str, Use]:
        needs = self._needs()
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
        sql = f"SELECT run_group, count(*) FROM runs WHERE state IN ({_ACTIVE}) AND run_group != '' GROUP BY run_group"
        active = {row[0]: row[1] for row in (self.reader.query(sql) if limits else [])}
        return Rules(settings.get("closed", ""), limits, active, budgets, self._spent() if budgets else {})

    def _spent(self) -> dict[str, float]:
        """Device hours that each group has taken; a run on a share of a device counts that share."""
        sql = (
            "SELECT r.run_group, sum(max(coalesce(a.ended_at, ?) - a.spawned_at, 0) * r.wanted) / 3600 FROM attempts a"
            " JOIN runs r ON r.id = a.run_id WHERE r.run_group != '' GROUP BY r.run_group"
        )
        return {row[0]: row[1] for row in self.reader.query(sql, [self._clock()])}


def _ids(cell: Any) -> tuple[int, ...]:
    return tuple(item for item in cells.listed(cell) if isinstance(item, int))


def _same_stage(stages: str, busy: Mapping[str, str]) -> str:
    """Why a run with these shared stages waits for another one, "" if it need not."""
    return next((why for name, why in busy.items() if name in stages), "")
