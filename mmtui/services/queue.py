"""What changes the queue: runs are added, and wishes are left for the supervisor to carry out."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.text import as_text
from mmtui.domain.slurm import BEYOND
from mmtui.domain.states import ACTIVE_STATES, RunEvent, RunState, is_legal
from mmtui.domain.terms import Terms
from mmtui.errors import MmtuiError, NoResourcesError, RefusedError, UsageError
from mmtui.paths import Home
from mmtui.services.text_limits import check_lengths

if TYPE_CHECKING:
    from sqlmodel import Session

    from engine.config import Recipe
    from mmtui.services.forks import Fork
    from mmtui.services.labels import Looks

VERBS: dict[str, RunEvent] = {
    "cancel": RunEvent.CANCEL,
    "pause": RunEvent.PAUSE,
    "resume": RunEvent.RESUME,
    "hold": RunEvent.HOLD,
    "release": RunEvent.RELEASE,
    "retry": RunEvent.RETRY,
}


IF_FAILED = ("hold", "cancel", "run")
_USUAL = Terms()


def enqueue(
    home: Home,
    recipe: str,
    overrides: Sequence[str] = (),
    *,
    name: str = "",
    tags: Sequence[str] = (),
    seed: int | None = None,
    hold: bool = False,
    group: str = "",
) -> str:
    """Queue a run of a recipe and freeze the code it will run; returns its id.

    Raises:
        UsageError: the recipe or an override is wrong.
        UnreachableError: the database cannot be written.
    """
    texts = [*overrides, *([f"seed={seed}"] if seed is not None else [])]
    return enqueue_all(home, recipe, [texts], Terms(name=name, tags=tags, hold=hold, group=group))[0]


def enqueue_all(
    home: Home,
    recipe: str,
    members: Sequence[Sequence[str]],
    terms: Terms = _USUAL,
    fork: Fork | None = None,
    *,
    resolved: Sequence[Recipe] = (),
    tell: Callable[[int, int], None] = lambda _done, _total: None,
    looks: Looks | None = None,
) -> list[str]:
    """Queue one run for each list of overrides, all or none; returns their ids.

    Args:
        fork: the run whose checkpoint they begin with; it is theirs from now on.
        resolved: the recipe with each of them, if that was just found out.
        tell: called with (done, total) runs on the way.
        looks: with which the masks are looked at; it then knows what is doubtful about them.

    Raises:
        UsageError: the recipe, an override or a term is wrong.
        RefusedError: the run to fork has no checkpoint at or before the step.
        UnreachableError: the database cannot be written.
    """
    check_terms(terms, len(members))
    for what, told in (("name", [terms.name]), ("group", [terms.group]), ("tag", terms.tags)):
        check_lengths(what, told)
    _refuse_impossible(terms)
    # SQLModel takes most of a second to import; verbs that only read must not pay for it.
    from mmtui.services import code, forks, inputs, labels, recipes, unfinished
    from mmtui.services.together import Together
    from mmtui.store.db import Database

    members = [[as_text(text) for text in texts] for texts in members]
    resolved = resolved or [recipes.resolve(recipe, list(texts), home) for texts in members]
    for one in resolved:
        taken = () if fork is None else forks.taken(forks.plan(home, fork, one))
        for problem in untrainable(one, terms, taken):
            raise UsageError(problem)
        if not terms.hold:
            look = looks.look if looks is not None else labels.look
            inputs.refuse_lacking(one, later=terms.comes_later, taken=taken, look=look)
    frozen = code.freeze(home.create())
    database = Database(home)
    try:
        unfinished.remove_abandoned(database, home)
        return Together(database, home, frozen, terms, fork, tell).queue(list(zip(resolved, members, strict=True)))
    finally:
        database.close()


def check_terms(terms: Terms, count: int) -> None:
    """Raises UsageError if the terms of ``count`` runs contradict themselves."""
    wanted = terms.wanted
    if not (0 < wanted < 1 or (1 <= wanted < BEYOND and wanted == int(wanted))):
        raise UsageError(f"--gpus {wanted:g}: write a whole number, or a share of one GPU such as 0.5")
    if terms.fail_fast and not terms.group and count < 2:
        raise UsageError("--fail-fast is for a sweep or a --group", "leave it out for one run")
    if terms.budget and not terms.group and count < 2:
        raise UsageError("--budget is shared by the runs of a sweep or of a --group", "for one run use --time-limit")


def untrainable(recipe: Recipe, terms: Terms, taken: Collection[str] = ()) -> list[str]:
    """What the processes of a run could not train, each with what to write; the trainers would refuse it at once.

    Args:
        taken: stages that are not trained.
    """
    from engine.config.checks import too_few_values

    left = [stage for stage, _ in recipe.stages() if stage not in taken]
    return [f"--gpus {terms.wanted:g}: {text}" for text in too_few_values(recipe, max(1, int(terms.wanted)), left)]


def _refuse_impossible(terms: Terms) -> None:
    """A run that this machine can never start is refused, unless it is held: then a place may come first.

    Raises:
        NoResourcesError: it wants more GPUs, or CPU slots, than there are.
    """
    if terms.wanted <= 1 or terms.hold or terms.launcher:
        return
    from mmtui.services.places import find_slots

    slots = find_slots([])
    if slots.total and terms.wanted > slots.total:
        raise NoResourcesError(
            f"--gpus {terms.wanted:g}: this machine has {slots.total} {slots.kind}{'' if slots.total == 1 else 's'}",
            "ask for fewer, queue it with --hold, or submit it to a cluster: --launcher slurm",
        )


def move(home: Home, run_id: str, *, before: str = "", after: str = "", bottom: bool = False) -> None:
    """Put a waiting run before or after another one, to the end of the queue, or with none of these to its top.

    Raises:
        RefusedError: one of them does not wait.
    """
    from mmtui.store.runs import comparable, place, waiting_line

    with writing(home) as session:
        if bottom:
            others = [run.id for run in comparable(waiting_line(session)) if run.id != int(run_id)]
            place(session, int(run_id), after=others[-1] if others else None)
        else:
            place(session, int(run_id), before=int(before) if before else None, after=int(after) if after else None)


def set_priority(home: Home, run_id: str, priority: int) -> None:
    """Give a run another priority; it counts when the run next waits."""
    list(set_priorities(home, [run_id], priority))


def set_priorities(home: Home, run_ids: Iterable[str], priority: int) -> Iterator[str]:
    """The same for many runs; yields the id of each when it is done."""
    from mmtui.store.runs import read_run

    def change(session: Session, run_id: str) -> None:
        run = read_run(session, int(run_id))
        run.priority = priority
        session.add(run)

    yield from changing(home, run_ids, change)


def close_queue(home: Home, why: str) -> None:
    """Start nothing any more; what runs goes on. "" opens the queue again."""
    from mmtui.store.runs import set_setting

    with writing(home) as session:
        set_setting(session, "closed", why)


def limit_group(home: Home, group: str, most: int | None) -> None:
    """Let at most so many runs of a group be active at once; None = no limit."""
    from mmtui.store.runs import set_setting

    with writing(home) as session:
        set_setting(session, f"limit:{group}", "" if most is None else str(most))


def set_budget(home: Home, group: str, hours: float | None) -> None:
    """Let the runs of a group take at most so many device hours in all; None = no limit. What runs goes on."""
    from mmtui.store.runs import set_setting

    with writing(home) as session:
        set_setting(session, f"budget:{group}", "" if hours is None else repr(hours))


def extend(home: Home, run_id: str, seconds: float) -> None:
    """Let a run train so many seconds more than it has; 0 = without a limit."""
    list(extend_all(home, [run_id], seconds))


def extend_all(home: Home, run_ids: Iterable[str], seconds: float) -> Iterator[str]:
    """The same for many runs; yields the id of each when it is done."""
    from mmtui.store.runs import read_run, seconds_taken

    def change(session: Session, run_id: str) -> None:
        run = read_run(session, int(run_id))
        run.time_limit = seconds_taken(session, int(run_id)) + seconds if seconds else 0.0
        session.add(run)

    yield from changing(home, run_ids, change)


@contextmanager
def writing(home: Home) -> Iterator[Session]:
    """One short durable write transaction."""
    from mmtui.store.db import Database

    database = Database(home.create())
    try:
        with database.write(durable=True) as session:
            yield session
    finally:
        database.close()


def changing(home: Home, run_ids: Iterable[str], change: Callable[[Session, str], None]) -> Iterator[str]:
    """Change rows of many runs in durable transactions of a moment; yields the id of each when it is done.

    An error ends it and takes back those of its own transaction; what was yielded is done.
    """
    from mmtui.store.batches import in_batches
    from mmtui.store.db import Database

    database = Database(home.create())
    try:
        for done in in_batches(database, run_ids, change, durable=True):
            yield from done
    finally:
        database.close()


def cancel(home: Home, run_id: str, *, now: bool = False, save: bool = False) -> None:
    """Stop a run: it checkpoints and leaves, within 30 s or it is killed.

    Args:
        now: it is killed after 3 s.
        save: it has ten minutes for its checkpoint.

    Raises:
        RefusedError: it is finished already.
        NotFoundError: there is no such run.
    """
    wish(home, run_id, "cancel", {"now": now, "save": save})


def pause(home: Home, run_id: str) -> None:
    """Checkpoint, end the process and free its device."""
    wish(home, run_id, "pause")


def resume(home: Home, run_id: str) -> None:
    """Put a paused run back into the queue."""
    wish(home, run_id, "resume")


def hold(home: Home, run_id: str) -> None:
    """Keep a queued run from starting."""
    wish(home, run_id, "hold")


def release(home: Home, run_id: str, *, trust_code: str = "") -> None:
    """Let a held run start; ``trust_code``: see ``wish``."""
    wish(home, run_id, "release", trust_code=trust_code)


def retry(home: Home, run_id: str) -> None:
    """Put a failed, cancelled or interrupted run back; it goes on from its last checkpoint."""
    wish(home, run_id, "retry")


def wish(
    home: Home, run_id: str, verb: str, arguments: Mapping[str, object] | None = None, *, trust_code: str = ""
) -> RunState:
    """Do what is asked of a run that has no trainer; of one that has, leave a wish for the supervisor. Its state then.

    Args:
        trust_code: SHA-256 of code from elsewhere that the run may start with.

    Raises:
        UsageError: a run that is to be released would not find what it reads.
        UntrustedCodeError: it would start code from elsewhere, and not that one.
        RefusedError: not possible in this state.
        NotFoundError: there is no such run.
    """
    (answer,) = wish_all(home, [run_id], verb, arguments, trust_code=trust_code)
    if isinstance(answer.found, MmtuiError):
        raise answer.found
    return answer.found


@dataclass(frozen=True)
class Answer:
    """What came of what was asked of a run: its state, or why it was refused."""

    run_id: str
    found: RunState | MmtuiError


def wish_all(
    home: Home,
    run_ids: Sequence[str],
    verb: str,
    arguments: Mapping[str, object] | None = None,
    *,
    trust_code: str = "",
) -> Iterator[Answer]:
    """The same for each of many runs, in transactions of a moment; an answer for each comes when it is done.

    Raises:
        UnreachableError: the database cannot be written; what was answered is done.
    """
    from mmtui.store.batches import in_batches
    from mmtui.store.db import Database

    answers = _refused_release(home, run_ids) if verb == "release" else {}

    def ask(session: Session, run_id: str) -> None:
        if run_id in answers:
            return
        try:
            with session.begin_nested():
                answers[run_id] = _ask(session, home, run_id, verb, arguments or {}, trust_code)
        except MmtuiError as error:
            answers[run_id] = error

    database = Database(home)
    try:
        for done in in_batches(database, run_ids, ask, durable=True):
            yield from (Answer(run_id, answers[run_id]) for run_id in done)
    finally:
        database.close()


def _refused_release(home: Home, run_ids: Sequence[str]) -> dict[str, RunState | MmtuiError]:
    """Runs that would not find what they read."""
    from mmtui.services import inputs

    found: dict[str, RunState | MmtuiError] = {}
    for run_id in run_ids:
        try:
            inputs.refuse_release(home, run_id)
        except MmtuiError as error:
            found[run_id] = error
    return found


def _ask(
    session: Session, home: Home, run_id: str, verb: str, arguments: Mapping[str, object], trust_code: str
) -> RunState:
    from mmtui.services import trust
    from mmtui.store import cells
    from mmtui.store.runs import add_wish, apply_verb, read_run, state_of

    run = read_run(session, int(run_id))
    state = state_of(run)
    if state is RunState.STOPPING and verb == "cancel":
        pass  # a second, harder cancel
    elif not is_legal(state, VERBS[verb]):
        raise RefusedError(f"run {run_id} is {state.value}: it cannot be {_PARTICIPLES[verb]}", _hint(state))
    if verb in trust.VERBS:
        run.code = json.dumps(dict(trust.demand(home, run_id, cells.mapped(run.code), trust_code, verb)))
    if state in ACTIVE_STATES:
        add_wish(session, int(run_id), verb, arguments)
        return state
    # At once, in this very transaction: what is refused is refused here, not later in a log.
    return apply_verb(session, int(run_id), verb)


_PARTICIPLES = {
    "cancel": "cancelled",
    "pause": "paused",
    "resume": "resumed",
    "hold": "held",
    "release": "released",
    "retry": "retried",
}


def _hint(state: RunState) -> str:
    possible = [verb for verb, event in VERBS.items() if is_legal(state, event)]
    return f"possible now: {', '.join(possible)}" if possible else ""
