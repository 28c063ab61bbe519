"""What changes the queue: runs are added, and wishes are left for the supervisor to carry out."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from engine.text import as_text
from mmtui.domain import sweeps
from mmtui.domain.slurm import BEYOND
from mmtui.domain.states import ACTIVE_STATES, RunEvent, RunState, is_legal
from mmtui.domain.text import shorten
from mmtui.errors import NoResourcesError, RefusedError, UsageError
from mmtui.paths import Home, RunPaths
from mmtui.services.manifests import read_manifest
from mmtui.services.run_folders import NewFolders, highest_folder, new_folders, write_file, write_run_files
from mmtui.services.text_limits import check_lengths

if TYPE_CHECKING:
    from sqlmodel import Session

    from engine.config import Recipe
    from mmtui.services.forks import Fork
    from mmtui.store.runs import NewRun

VERBS: dict[str, RunEvent] = {
    "cancel": RunEvent.CANCEL,
    "pause": RunEvent.PAUSE,
    "resume": RunEvent.RESUME,
    "hold": RunEvent.HOLD,
    "release": RunEvent.RELEASE,
    "retry": RunEvent.RETRY,
}


IF_FAILED = ("hold", "cancel", "run")
LONGEST_SUFFIX = 60
"""Characters that tell a run of a sweep from the others, behind its name."""


@dataclass(frozen=True)
class Terms:
    """Under which terms runs are queued.

    Attributes:
        name: name of the runs, "" = the recipe's; in a sweep followed by what sets each apart.
        group: group they belong to, "" = none (a sweep makes one of its own).
        priority: higher starts earlier.
        not_before: Unix time before which they do not start.
        after: ids of runs that must succeed first.
        if_failed: what happens to them if one of those does not: ``hold``, ``cancel`` or ``run``.
        wanted: GPUs (or CPU slots) for each, 1 or more; below 1 the share of one that suffices.
        time_limit: seconds that each may train, 0 = no limit.
        budget: device hours that the runs of the group may take together, 0 = no limit.
        fail_fast: whether runs of the group that still wait are held when one of them fails.
        launcher: {} = this machine; else what SLURM is told (``mmtui.domain.slurm``).
    """

    name: str = ""
    tags: Sequence[str] = ()
    hold: bool = False
    group: str = ""
    priority: int = 0
    not_before: float = 0.0
    after: Sequence[str] = ()
    if_failed: str = "hold"
    wanted: float = 1.0
    time_limit: float = 0.0
    budget: float = 0.0
    launcher: Mapping[str, Any] = field(default_factory=dict)
    fail_fast: bool = False

    @property
    def comes_later(self) -> bool:
        """Whether what the runs read may be missing here and now: they start elsewhere, or after something else."""
        return bool(self.launcher or self.after or self.not_before)


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
    home: Home, recipe: str, members: Sequence[Sequence[str]], terms: Terms = Terms(), fork: Fork | None = None
) -> list[str]:
    """Queue one run for each list of overrides, all or none; returns their ids.

    Args:
        fork: the run whose checkpoint they begin with; it is theirs from now on.

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
    from mmtui.services import code, forks, inputs, recipes
    from mmtui.store.db import Database

    members = [[as_text(text) for text in texts] for texts in members]
    resolved = [recipes.resolve(recipe, list(texts), home) for texts in members]
    for one in resolved:
        taken = () if fork is None else forks.taken(forks.plan(home, fork, one))
        for problem in untrainable(one, terms, taken):
            raise UsageError(problem)
        if not terms.hold:
            inputs.refuse_lacking(one, later=terms.comes_later, taken=taken)
    # The folders in their places before the commit: a run is never visible without its files.
    with new_folders(home.create()) as folders:
        frozen = code.freeze(home)
        database = Database(home)
        try:
            with database.write(durable=True) as session:
                code.refuse_purged(home, frozen)
                ids = _insert_all(session, folders, zip(resolved, members, strict=True), frozen, terms, fork)
                folders.place()
            return ids
        finally:
            database.close()


def _insert_all(
    session: Session,
    folders: NewFolders,
    members: Iterable[tuple[Recipe, Sequence[str]]],
    frozen: Mapping[str, Any],
    terms: Terms,
    fork: Fork | None,
) -> list[str]:
    """Rows and folders of runs, each of a recipe and its overrides; returns their ids."""
    from engine.config import dump_recipe
    from mmtui.store.runs import insert_run, set_group, set_setting

    home, ids, group, above = folders.home, list[str](), terms.group, highest_folder(folders.home)
    found = list(members)
    for (one, texts), apart in zip(found, sweeps.differences([texts for _, texts in found]), strict=True):
        new = _new_run(one, texts, frozen, terms, group, fork)
        if apart:
            new = replace(new, name=f"{new.name} {shorten(apart, LONGEST_SUFFIX)}")
        run_id = str(insert_run(session, new, above=above))
        ids.append(run_id)
        if len(found) > 1 and not group:
            group = f"sweep-{run_id}"
            set_group(session, int(run_id), group)
            new = replace(new, group=group)
        draft = folders.draft(run_id)
        write_run_files(draft, run_id, dump_recipe(one), new)
        if fork is not None:
            _begin_fork(session, home, run_id, draft, fork, one)
    if terms.fail_fast:
        set_setting(session, f"failfast:{group}", "1")
    if terms.budget:
        set_setting(session, f"budget:{group}", repr(terms.budget))
    return ids


def _begin_fork(session: Session, home: Home, run_id: str, draft: RunPaths, fork: Fork, recipe: Recipe) -> None:
    """Take the checkpoint over now: the parent may train on, be removed or be purged while its child waits."""
    from mmtui.services import forks
    from mmtui.store.runs import set_origin

    found = forks.take(home, fork, recipe, draft.root)
    told = read_manifest(draft.manifest) | {"forked_from": forks.origin_of(found)}
    write_file(draft.manifest, json.dumps(told, indent=1))
    set_origin(session, int(run_id), forks.origin_of(found), forks.done_of(found))


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


def _new_run(
    resolved: Recipe,
    texts: Sequence[str],
    frozen: Mapping[str, Any],
    terms: Terms,
    group: str,
    fork: Fork | None = None,
) -> NewRun:
    from engine.config.determining import work_name
    from mmtui.store.runs import NewRun

    return NewRun(
        name=terms.name or resolved.name,
        recipe=resolved.name,
        seed=resolved.seed,
        config=resolved.model_dump(mode="json"),
        overrides=list(texts) if fork is None else fork.with_overrides(texts),
        code=frozen,
        stages=resolved.stages(),
        tags=terms.tags,
        group=group,
        held=terms.hold,
        priority=terms.priority,
        not_before=terms.not_before,
        after=[int(run_id) for run_id in terms.after],
        if_failed=terms.if_failed,
        wanted=terms.wanted,
        work=work_name(resolved),
        # What a fork computes depends on its parent too.
        shared_stages={} if fork is not None else shared_stages(resolved, frozen),
        time_limit=terms.time_limit,
        launcher=terms.launcher,
    )


def shared_stages(resolved: Recipe, frozen: Mapping[str, Any]) -> dict[str, str]:
    """Names of the work that runs of the same code can share, by stage."""
    from engine.config.determining import stage_names

    return {stage: f"{name}-{frozen.get('digest', '')[:8]}" for stage, name in stage_names(resolved).items()}


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
    from mmtui.store.runs import read_run

    with writing(home) as session:
        run = read_run(session, int(run_id))
        run.priority = priority
        session.add(run)


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
    from mmtui.store.runs import read_run, seconds_taken

    with writing(home) as session:
        run = read_run(session, int(run_id))
        run.time_limit = seconds_taken(session, int(run_id)) + seconds if seconds else 0.0
        session.add(run)


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
    home: Home, run_id: str, verb: str, arguments: Mapping[str, Any] | None = None, *, trust_code: str = ""
) -> None:
    """Do what is asked of a run that has no trainer; of one that has, leave a wish for the supervisor.

    Args:
        trust_code: SHA-256 of code from elsewhere that the run may start with.

    Raises:
        UsageError: a run that is to be released would not find what it reads.
        UntrustedCodeError: it would start code from elsewhere, and not that one.
        RefusedError: not possible in this state.
        NotFoundError: there is no such run.
    """
    from mmtui.services import trust
    from mmtui.store import cells
    from mmtui.store.db import Database
    from mmtui.store.runs import add_wish, apply_verb, read_run, state_of

    if verb == "release":
        from mmtui.services import inputs

        inputs.refuse_release(home, run_id)
    database = Database(home)
    try:
        with database.write(durable=True) as session:
            run = read_run(session, int(run_id))
            state = state_of(run)
            if state is RunState.STOPPING and verb == "cancel":
                pass  # a second, harder cancel
            elif not is_legal(state, VERBS[verb]):
                raise RefusedError(f"run {run_id} is {state.value}: it cannot be {_PARTICIPLES[verb]}", _hint(state))
            if verb in trust.VERBS:
                run.code = json.dumps(dict(trust.demand(home, run_id, cells.mapped(run.code), trust_code, verb)))
            if state in ACTIVE_STATES:
                add_wish(session, int(run_id), verb, arguments or {})
            else:
                # At once, in this very transaction: what is refused is refused here, not later in a log.
                apply_verb(session, int(run_id), verb)
    finally:
        database.close()


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
