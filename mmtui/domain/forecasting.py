"""When queued runs will start and end: the scheduler's own rules, played forward over guessed durations. Pure."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from mmtui.domain.placing import Place, Slots
from mmtui.domain.scheduling import OPEN, Rules, Waiting, order, pick_first

FOREVER = float("inf")


@dataclass(frozen=True)
class Work:
    """What a run has still to do.

    Attributes:
        parts: (name of the stage if others can take it over, seconds) in order; inf = nothing like it was ever seen.
    """

    parts: tuple[tuple[str, float], ...]

    def seconds(self, done: Mapping[str, float] | None = None) -> float:
        """How long it takes, without stages that are taken over."""
        return sum(seconds for name, seconds in self.parts if not (done and name in done))


@dataclass(frozen=True)
class Span:
    """Unix times; None = cannot be told."""

    start: float | None
    end: float | None


@dataclass(frozen=True)
class Forecast:
    """When a run starts and ends: middle, and the end if everything goes quickly or slowly. Unix times.

    ``start`` is None for a run that has started; all are None where nothing is known.
    """

    start: float | None
    end: float | None
    earliest: float | None
    latest: float | None


@dataclass
class _State:
    """The machine at one moment of the play."""

    now: float
    free: list[str]
    shares: dict[str, float]
    active: dict[str, int]
    ended: set[int] = field(default_factory=set)
    trained: dict[str, float] = field(default_factory=dict)
    """When a shared stage is done, once a run has begun it."""
    events: list[tuple[float, int, int, tuple[str, ...], float, str]] = field(default_factory=list)


def play(
    active: Mapping[int, tuple[tuple[str, ...], float, str, Work]],
    waiting: Sequence[Waiting],
    works: Mapping[int, Work],
    slots: Slots,
    now: float,
    rules: Rules = OPEN,
) -> dict[int, Span]:
    """Start and end of every active and waiting run, if every guess of its duration comes true.

    Args:
        active: {run: (its places, what it wanted, its group, what it has still to do)}.
        waiting: queued runs.
        works: what each of them has to do.
        slots: places as they are now.
        now: Unix time.
        rules: of the queue; a spent budget or a closed queue makes starts unknown.
    """
    state = _State(now, list(slots.free), {n: slots.place(n).share for n in slots.partly}, dict(rules.active))
    found: dict[int, Span] = {}
    for run_id, (places, wanted, group, work) in active.items():
        _begin(state, run_id, places, wanted, group, work)
        found[run_id] = Span(None, _known(now + work.seconds()))
    line = order(waiting)
    while line:
        # Strictly in turn: what starts now changes who may start next.
        seen = (_as_seen(run, works[run.run_id], state) for run in line)
        chosen = pick_first(seen, _slots(slots, state), state.now, replace(rules, active=state.active))
        if chosen is not None:
            run, places = chosen
            work, start = works[run.run_id], state.now
            end = start + work.seconds({k: v for k, v in state.trained.items() if v <= start})
            _begin(state, run.run_id, places, run.wanted, run.group, work)
            found[run.run_id] = Span(_known(start), _known(end))
            del line[next(index for index, other in enumerate(line) if other.run_id == run.run_id)]
        elif not _next_moment(state, line):
            break
    return {**{run.run_id: Span(None, None) for run in line}, **found}


def _known(moment: float) -> float | None:
    return moment if math.isfinite(moment) else None


def _as_seen(run: Waiting, work: Work, state: _State) -> Waiting:
    """A waiting run at this moment of the play: who it still waits for, and whether its stage is being trained."""
    busy = any(state.trained.get(name, 0.0) > state.now for name, _ in work.parts if name)
    after = tuple(other for other in run.after if other not in state.ended) if run.after else ()
    if after == run.after and not busy and not run.blocked:
        return run
    return run._replace(after=after, blocked="busy" if busy else "")


def _slots(slots: Slots, state: _State) -> Slots:
    partly = tuple(name for name, share in state.shares.items() if share > 0)
    # Memory is not played: a run that shares a place is taken to fit there.
    places = {name: Place(share=share) for name, share in state.shares.items()}
    return Slots(tuple(state.free), slots.total, slots.kind, "", partly, places)


def _begin(state: _State, run_id: int, places: tuple[str, ...], wanted: float, group: str, work: Work) -> None:
    for name in places:
        if name in state.free:
            state.free.remove(name)
        if wanted < 1:
            state.shares[name] = state.shares.get(name, 1.0) - wanted
    if group:
        state.active[group] = state.active.get(group, 0) + 1
    moment = state.now
    for name, seconds in work.parts:
        if name and state.trained.get(name, FOREVER) <= state.now:
            continue
        moment += seconds
        if name:
            state.trained.setdefault(name, moment)
            if moment < FOREVER:
                heapq.heappush(state.events, (moment, 0, 0, (), 0.0, ""))
    if moment < FOREVER:
        heapq.heappush(state.events, (moment, 1, run_id, places, wanted, group))


def _next_moment(state: _State, line: Sequence[Waiting]) -> bool:
    """Go on to when something ends or a run's time comes; False if nothing ever will."""
    delayed = [run.not_before for run in line if run.not_before > state.now]
    soonest = min([*delayed, *([state.events[0][0]] if state.events else [])], default=None)
    if soonest is None:
        return False
    state.now = max(state.now, soonest)
    while state.events and state.events[0][0] <= state.now:
        _, ends, run_id, places, wanted, group = heapq.heappop(state.events)
        if ends:
            _end(state, run_id, places, wanted, group)
    return True


def _end(state: _State, run_id: int, places: tuple[str, ...], wanted: float, group: str) -> None:
    state.ended.add(run_id)
    if group:
        state.active[group] -= 1
    for name in places:
        if wanted >= 1:
            state.free.append(name)
            continue
        state.shares[name] = min(state.shares.get(name, 0.0) + wanted, 1.0)
        if state.shares[name] >= 1 - 1e-9:
            del state.shares[name]
            state.free.append(name)
