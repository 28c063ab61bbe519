"""Writing runs: insertion, the one place where a state changes, wishes."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

from sqlalchemy import CursorResult, text, update
from sqlmodel import Session, col, delete, select

from engine.events.numbers import whole
from engine.text import as_text
from mmtui.domain import dates
from mmtui.domain.scheduling import crowded, place_between
from mmtui.domain.states import RunEvent, RunState, next_state
from mmtui.errors import NotFoundError, RefusedError
from mmtui.store.tables import Attempt, Evaluation, Event, Metric, MetricBucket, Run, Setting, Stage, Transition, Wish

Cell: TypeAlias = "str | float | None"
"""What a column of a row takes."""
_ID = re.compile("[0-9]{1,18}")


@dataclass(frozen=True)
class NewRun:
    """What a run is made of when it is queued."""

    name: str
    recipe: str
    seed: int
    config: Mapping[str, object]
    overrides: Sequence[str]
    code: Mapping[str, object]
    stages: Sequence[tuple[str, int]]
    tags: Sequence[str] = ()
    group: str = ""
    held: bool = False
    priority: int = 0
    not_before: float = 0.0
    after: Sequence[int] = ()
    if_failed: str = "hold"
    wanted: float = 1.0
    work: str = ""
    shared_stages: Mapping[str, str] = field(default_factory=dict)
    time_limit: float = 0.0
    launcher: Mapping[str, object] = field(default_factory=dict)


def insert_run(
    session: Session,
    new: NewRun,
    now: float | None = None,
    above: int = 0,
    number: int | None = None,
    hidden: str = "",
    position: float | None = None,
) -> int:
    """Add a queued (or held) run with its stages; returns its id.

    Args:
        above: the id is larger than this. A database that was lost, or restored from an older copy, would else
            give ids of which folders with checkpoints exist, and a new run would go on from them.
        number: the id, which no row has: a run comes back under the id that its folder bears.
        hidden: why nobody is to see it yet; "" = it is seen at once.
        position: its place among runs of its priority; None = behind all others.
    """
    now = time.time() if now is None else now
    state = RunState.HELD if new.held else RunState.QUEUED
    run = Run(
        id=number or (above + 1 if above > _last_id(session) else None),
        name=new.name,
        recipe=new.recipe,
        run_group=new.group,
        state=state.value,
        position=end_of_line(session) if position is None else position,
        created_at=now,
        seed=new.seed,
        tags=json.dumps(list(new.tags)),
        config=json.dumps(new.config),
        overrides=json.dumps(list(new.overrides)),
        code=json.dumps(new.code),
        total_steps=sum(steps for _, steps in new.stages),
        priority=new.priority,
        not_before=new.not_before,
        reason=hidden or reason_to_wait(new.not_before, now),
        deleted_at=now if hidden else None,
        after=json.dumps(list(new.after)),
        if_failed=new.if_failed,
        wanted=new.wanted,
        work=new.work,
        shared_stages=json.dumps(dict(new.shared_stages)),
        time_limit=new.time_limit,
        launcher=json.dumps(dict(new.launcher)),
    )
    session.add(run)
    session.flush()
    assert run.id is not None
    offset = 0
    for order, (name, steps) in enumerate(new.stages):
        session.add(Stage(run_id=run.id, name=name, position=order, total_steps=steps, step_offset=offset))
        offset += steps
    session.add(Transition(run_id=run.id, t=now, event="create", before="", after=state.value, actor="user"))
    return run.id


def end_of_line(session: Session) -> float:
    """A place behind all others."""
    # A damaged cell of one run, a text, would be the greatest of all.
    numbers = select(Run.position).where(col(Run.position) <= sys.float_info.max)
    return (session.exec(numbers.order_by(col(Run.position).desc()).limit(1)).first() or 0.0) + 1.0


def set_places(session: Session, run_ids: Sequence[int], first: float) -> None:
    """Put runs one behind the other, the first of them in that place."""
    places = [{"run_id": run_id, "place": first + index} for index, run_id in enumerate(run_ids)]
    session.connection().execute(text("UPDATE runs SET position = :place WHERE id = :run_id"), places)


def reason_to_wait(not_before: float, now: float) -> str:
    """Why a run that has just been queued does not start at once, as far as that is its own wish."""
    return delayed_text(not_before) if not_before > now else ""


def delayed_text(not_before: float) -> str:
    """Why a run with a time of its own waits."""
    return f"waits until {dates.text(not_before, '%Y-%m-%d %H:%M')}"


def _last_id(session: Session) -> int:
    """The largest id ever given, also of runs that are gone."""
    row = session.connection().exec_driver_sql("SELECT seq FROM sqlite_sequence WHERE name = 'runs'").first()
    return int(row[0]) if row is not None else 0


def read_run(session: Session, run_id: int) -> Run:
    """One run.

    Raises:
        NotFoundError: there is none.
    """
    run = session.get(Run, run_id, populate_existing=True)
    if run is None:
        raise NotFoundError(f"there is no run {run_id}")
    return run


def state_of(run: Run) -> RunState:
    """Where a run is.

    Raises:
        RefusedError: its row is damaged.
    """
    try:
        return RunState(run.state)
    except ValueError:
        raise RefusedError(f"the row of run {run.id} is damaged (state {run.state!r})", "mmtui doctor --fix") from None


def transition(
    session: Session, run_id: int, event: RunEvent, *, reason: str = "", actor: str = "supervisor", **fields: Cell
) -> RunState:
    """Move a run by an event of the table: compare-and-set and audit row in the caller's transaction.

    Args:
        fields: further columns of the run to set with it.

    Raises:
        IllegalTransitionError: the table has no such pair.
        RefusedError: another process changed the state first.
    """
    before = state_of(read_run(session, run_id))
    after = next_state(before, event)
    reason = as_text(reason)  # a path in it may hold bytes that are no UTF-8
    fields = {name: as_text(value) if isinstance(value, str) else value for name, value in fields.items()}
    statement = update(Run).where(col(Run.id) == run_id, col(Run.state) == before.value)
    result = session.execute(statement.values(state=after.value, reason=reason, **fields))
    assert isinstance(result, CursorResult)
    if result.rowcount != 1:
        raise RefusedError(f"run {run_id} is not {before.value} any more")
    session.add(
        Transition(
            run_id=run_id,
            t=time.time(),
            event=event.value,
            before=before.value,
            after=after.value,
            reason=reason,
            actor=actor,
        )
    )
    return after


def apply_verb(session: Session, run_id: int, verb: str) -> RunState:
    """Do what a person asks of a run that has no trainer: a change of state and nothing else.

    Raises:
        IllegalTransitionError: not possible in the run's state.
    """
    change = partial(transition, session, run_id, RunEvent(verb), actor="user")
    if verb == "cancel":
        return change(ended_at=time.time())
    if verb == "resume":
        return change(ended_at=None)
    if verb == "retry":
        return change(ended_at=None, not_before=0.0, vanished=0, error="")
    return change()


def set_reasons(session: Session, reasons: Sequence[Mapping[str, object]]) -> None:
    """Why queued runs wait: ``key`` the run, ``why`` the words. One that has left the queue meanwhile keeps its own."""
    statement = "UPDATE runs SET reason = :why WHERE id = :key AND state = 'queued'"
    session.connection().execute(text(statement), list(reasons))


def end_attempts(session: Session, run_id: int, now: float, but: int = 0) -> None:
    """No attempt of a run trains any more, but for one: those that never had a trainer take no further time either."""
    still = (col(Attempt.run_id) == run_id) & col(Attempt.ended_at).is_(None) & (col(Attempt.number) != but)
    session.execute(update(Attempt).where(still).values(ended_at=now))


def add_wish(session: Session, run_id: int, verb: str, arguments: Mapping[str, object]) -> None:
    """Ask the supervisor for something."""
    session.add(Wish(run_id=run_id, t=time.time(), verb=verb, arguments=json.dumps(arguments)))


def add_warning(session: Session, run_id: int, attempt: int, text: str) -> None:
    """A warning that the supervisor, not the trainer, has to give."""
    body = json.dumps({"text": text})
    session.add(Event(run_id=run_id, attempt=attempt, kind="warning", t=time.time(), body=body))


def take_wishes(session: Session) -> list[Wish]:
    """All wishes, oldest first; they are gone when the transaction commits."""
    wishes = list(session.exec(select(Wish).order_by(col(Wish.id))).all())
    session.exec(delete(Wish).where(col(Wish.id).in_([wish.id for wish in wishes])))
    return wishes


def begin_attempt(session: Session, run_id: int, gpus: Sequence[str], host: str, now: float | None = None) -> int:
    """Claim a queued run for a start: state, attempt row and device in one transaction; returns the number.

    Args:
        now: Unix time from which its time is counted; None = as the machine's clock is set.
    """
    run = read_run(session, run_id)
    number, now = run.attempt + 1, time.time() if now is None else now
    transition(
        session,
        run_id,
        RunEvent.START,
        attempt=number,
        gpus=json.dumps(list(gpus)),
        started_at=run.started_at or now,
        ended_at=None,
        error="",
    )
    session.add(Attempt(run_id=run_id, number=number, spawned_at=now, host=host))
    return number


def add_attempt(
    session: Session, run_id: int, number: int, *, began: float | None, ended: float | None, host: str
) -> None:
    """The row of an attempt that is over already, of a run that was not queued here."""
    now = time.time()
    run = read_run(session, run_id)
    run.attempt = max(run.attempt, number)
    session.add(run)
    session.add(Attempt(run_id=run_id, number=number, spawned_at=began or now, ended_at=ended or now, host=host))


def set_pid(session: Session, run_id: int, number: int, pid: int, identity: str) -> None:
    """Record who trains an attempt."""
    attempt = read_attempt(session, run_id, number)
    attempt.pid, attempt.pid_identity = pid, identity
    session.add(attempt)


def read_attempt(session: Session, run_id: int, number: int) -> Attempt:
    """One attempt, which must exist."""
    attempt = session.get(Attempt, (run_id, number), populate_existing=True)
    assert attempt is not None, f"run {run_id} has no attempt {number}"
    return attempt


def seconds_taken(session: Session, run_id: int) -> float:
    """How long a run has trained, all attempts together."""
    attempts = session.exec(select(Attempt).where(Attempt.run_id == run_id)).all()
    now = time.time()
    ends = ((now if attempt.ended_at is None else attempt.ended_at) - attempt.spawned_at for attempt in attempts)
    return sum(max(seconds, 0.0) for seconds in ends)


def waiting_line(session: Session) -> list[Run]:
    """Queued and held runs in queue order."""
    states = [RunState.QUEUED.value, RunState.HELD.value]
    statement = select(Run).where(col(Run.state).in_(states), col(Run.deleted_at).is_(None))
    return list(session.exec(statement.order_by(col(Run.priority).desc(), col(Run.position), col(Run.id))).all())


def place(session: Session, run_id: int, *, before: int | None = None, after: int | None = None) -> None:
    """Move a waiting run next to another one (before or after it), or with neither to the top; takes its priority.

    Raises:
        RefusedError: one of them does not wait.
    """
    line = waiting_line(session)
    moving = _in_line(line, run_id)
    others = comparable(run for run in line if run.id != run_id)
    if before is None and after is None:
        index = 0
    else:
        anchor = _in_line(line, before if before is not None else after or 0)
        if anchor not in others:
            raise RefusedError(f"the row of run {anchor.id} has no place: it is damaged", "mend it: mmtui doctor --fix")
        index = others.index(anchor) + (0 if before is not None else 1)
    # The neighbour that was named decides the priority; at the top it is the first one's.
    if others:
        beside = others[index] if before is not None or (after is None) else others[index - 1]
        moving.priority = beside.priority
    same = [run for run in others if run.priority == moving.priority]
    left = [run.position for run in others[:index] if run.priority == moving.priority]
    right = [run.position for run in others[index:] if run.priority == moving.priority]
    low, high = (left[-1] if left else None), (right[0] if right else None)
    if crowded(low, high):
        for number, run in enumerate(same):
            run.position = float(number)
            session.add(run)
        low, high = float(len(left) - 1), float(len(left))
    moving.position = place_between(low, high)
    session.add(moving)


def comparable(line: Iterable[Run]) -> list[Run]:
    """Those that have a place among others: a damaged cell may hold anything."""
    return [run for run in line if isinstance(run.position, int | float) and isinstance(run.priority, int)]


def _in_line(line: Sequence[Run], run_id: int) -> Run:
    found = next((run for run in line if run.id == run_id), None)
    if found is None:
        raise RefusedError(f"run {run_id} does not wait in the queue", "only queued and held runs can be moved")
    return found


def set_setting(session: Session, key: str, value: str) -> None:
    """Keep a setting of the queue; "" removes it."""
    row = session.get(Setting, key)
    if not value:
        if row is not None:
            session.delete(row)
        return
    if row is None:
        session.add(Setting(key=key, value=value))
    else:
        row.value = value
        session.add(row)


def set_group(session: Session, run_id: int, group: str) -> None:
    """Put a run into a group."""
    run = read_run(session, run_id)
    run.run_group = group
    session.add(run)


def change_recipe(
    session: Session,
    run: Run,
    config: Mapping[str, object],
    overrides: Sequence[str],
    seed: int,
    stages: Sequence[tuple[str, int]],
) -> None:
    """Another recipe for a run that has not begun."""
    assert run.id is not None
    run.config, run.overrides, run.seed = json.dumps(config), json.dumps(list(overrides)), seed
    run.total_steps = sum(steps for _, steps in stages)
    session.add(run)
    session.exec(delete(Stage).where(col(Stage.run_id) == run.id))
    offset = 0
    for order, (name, steps) in enumerate(stages):
        session.add(Stage(run_id=run.id, name=name, position=order, total_steps=steps, step_offset=offset))
        offset += steps


def set_origin(
    session: Session,
    run_id: int,
    origin: Mapping[str, object],
    done: Mapping[str, int] | None = None,
    *,
    here: bool = True,
) -> None:
    """Say which checkpoint a run begins with.

    Args:
        origin: ``run``, ``stage``, ``step`` and ``global_step`` of the parent's checkpoint.
        done: steps of the run's own stages that are done with it, by stage; None = leave them as they are.
        here: whether ``run`` is the id of a run of this database.
    """
    run = read_run(session, run_id)
    run.origin = json.dumps(dict(origin))
    parent = str(origin.get("run", ""))
    run.parent_step = whole(origin.get("global_step"))
    run.parent = int(parent) if here and _ID.fullmatch(parent) else None
    session.add(run)
    if done is None:
        return
    run.global_step = sum(done.values())
    session.flush()
    for stage in session.exec(select(Stage).where(Stage.run_id == run_id)):
        stage.step = done.get(stage.name, 0)
        if stage.step and stage.step == stage.total_steps:
            stage.status = "finished"
        session.add(stage)


def forget_run(session: Session, run_id: int) -> None:
    """Delete a run and everything that belongs to it; its id is never given again."""
    for table in (Metric, MetricBucket, Event, Evaluation, Stage, Attempt, Transition, Wish):
        session.exec(delete(table).where(col(table.run_id) == run_id))
    session.exec(delete(Run).where(col(Run.id) == run_id))
