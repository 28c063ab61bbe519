"""Who queues runs: what is asked for, what would be queued for it, and the queueing of it.

Command line and screen both come through here. A screen stays open for weeks: nothing here may rely on the process
having just begun.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from engine.json_types import JsonObject
from mmtui.domain.terms import Terms
from mmtui.errors import MmtuiError, UsageError
from mmtui.paths import Home

if TYPE_CHECKING:
    from engine.config import Recipe
    from engine.config.forking import Plan as ForkPlan
    from mmtui.services.forks import Fork

Tell = Callable[[int, int], None]
"""Is called with (done, total) runs on the way."""
_TURN = threading.Lock()
"""Held while runs are queued: what is half written carries the mark of its process, in which another thread may be
queueing too."""


def untold(_done: int, _total: int) -> None:
    """Nobody looks on."""


@dataclass(frozen=True)
class Request:
    """What somebody asks to be queued.

    Attributes:
        recipe: its name or a file; "" = that of the run to fork.
        overrides: ``key=value``; ``key=a,b`` and ``key=0..4`` make a sweep.
        from_run: ``RUN``, ``RUN@STEP`` or ``RUN@best`` to begin from, "" = from the start.
        name: name of the runs, "" = the recipe's.
        tags: words that the runs carry.
        seed: seed of the run; None = the recipe's.
        smoke: whether it is made a matter of seconds.
        zipped: of a sweep, whether the n-th values go together, instead of every combination.
        group: group of the runs, "" = none (a sweep makes one of its own).
        priority: higher starts earlier.
        after: selectors of runs that must succeed first.
        if_failed: what happens if one of those does not: ``hold``, ``cancel`` or ``run``.
        delay: seconds from now before which they do not start; None = at once.
        gpus: GPUs (or CPU slots) for each, 1 or more; below 1 the share of one that suffices.
        time_limit: seconds that each may train, 0 = no limit.
        budget: device hours that the runs of the group may take together, 0 = no limit.
        fail_fast: whether runs of the group that still wait are held when one of them fails.
        launcher: ``local``, or ``slurm``.
        slurm: ``KEY=VALUE`` for SLURM.
        hold: whether they wait until they are released.
    """

    recipe: str = ""
    overrides: tuple[str, ...] = ()
    from_run: str = ""
    name: str = ""
    tags: tuple[str, ...] = ()
    seed: int | None = None
    smoke: bool = False
    zipped: bool = False
    group: str = ""
    priority: int = 0
    after: tuple[str, ...] = ()
    if_failed: str = "hold"
    delay: float | None = None
    gpus: float = 1.0
    time_limit: float = 0.0
    budget: float = 0.0
    fail_fast: bool = False
    launcher: str = "local"
    slurm: tuple[str, ...] = ()
    hold: bool = False


@dataclass(frozen=True)
class Plan:
    """What would be queued.

    Attributes:
        home: where.
        recipe: the recipe that the overrides are of: its name, or a file.
        members: the overrides of each run.
        resolved: the recipe of each run.
        terms: under which all are queued.
        fork: the run whose checkpoint they begin with, None = from the start.
    """

    home: Home
    recipe: str
    members: tuple[tuple[str, ...], ...]
    resolved: tuple[Recipe, ...]
    terms: Terms
    fork: Fork | None = None

    @cached_property
    def begun(self) -> tuple[ForkPlan, ...]:
        """What each run takes over from the run that is forked, () if none is.

        Raises:
            RefusedError, UsageError: as of ``forks.plan``.
        """
        from mmtui.services import forks

        fork = self.fork
        return () if fork is None else tuple(forks.plan(self.home, fork, one) for one in self.resolved)

    @cached_property
    def lacking(self) -> tuple[str, ...]:
        """Why runs would not start on this machine as it is, each reason once; () for runs that are held."""
        from mmtui.services import forks, inputs, queue

        if self.terms.hold:
            return ()
        taken = [forks.taken(plan) for plan in self.begun] or [()] * len(self.resolved)
        found: dict[str, None] = {}
        for one, kept in zip(self.resolved, taken, strict=True):
            found |= dict.fromkeys(queue.untrainable(one, self.terms, kept))
            found |= dict.fromkeys(inputs.lacking(one, later=self.terms.comes_later, taken=kept))
        return tuple(found)


@dataclass(frozen=True)
class Submitted:
    """What was queued.

    Attributes:
        ids: of the runs, in the order of the plan.
        group: that they belong to, "" = none.
        doubts: what makes their scores doubtful, as far as a look at the masks has shown it.
        note: why there was no supervisor, if the last one has left without being told to.
        trouble: why none serves them now, None if one does: they stay queued.
    """

    ids: tuple[str, ...]
    group: str
    doubts: tuple[str, ...] = ()
    note: str = ""
    trouble: MmtuiError | None = None


def plan(home: Home, request: Request) -> Plan:
    """What would be queued for a request. Reads recipes and runs, and writes nothing.

    Raises:
        UsageError: the recipe, an override or a term is wrong.
        NotFoundError: there is no such run to fork or to wait for.
        RefusedError: the run cannot be forked.
    """
    from mmtui.services import queue, recipes

    recipe, fork = _base(home, request)
    texts = [*request.overrides, *([f"seed={request.seed}"] if request.seed is not None else [])]
    found = recipes.members(recipe, texts, home, zipped=request.zipped, smoke=request.smoke)
    terms = _terms(home, request, on_gpus=found[0][1].runtime.device != "cpu")
    queue.check_terms(terms, len(found))
    return Plan(home, recipe, tuple(tuple(texts) for texts, _ in found), tuple(one for _, one in found), terms, fork)


def _base(home: Home, request: Request) -> tuple[str, Fork | None]:
    """The recipe that the overrides are of, and the run to fork."""
    from mmtui.services import forks

    if not request.recipe and not request.from_run:
        raise UsageError("say what to run: a RECIPE", "list them with: mmtui recipes; or fork a run: --from RUN@STEP")
    if not request.from_run:
        return request.recipe, None
    fork = forks.parse(home, request.from_run)
    if request.recipe:
        return request.recipe, replace(fork, overrides=())
    return fork.recipe(home), fork


def _terms(home: Home, request: Request, *, on_gpus: bool) -> Terms:
    from mmtui.services import queue, runs

    if request.if_failed not in queue.IF_FAILED:
        raise UsageError(f"--if-failed {request.if_failed}: write one of {', '.join(queue.IF_FAILED)}")
    return Terms(
        name=request.name,
        tags=request.tags,
        hold=request.hold,
        group=request.group,
        priority=request.priority,
        not_before=time.time() + request.delay if request.delay is not None else 0.0,
        after=[runs.resolve(home, selector) for selector in request.after],
        if_failed=request.if_failed,
        wanted=request.gpus,
        time_limit=request.time_limit,
        budget=request.budget,
        fail_fast=request.fail_fast,
        launcher=_launcher(request, on_gpus=on_gpus),
    )


def _launcher(request: Request, *, on_gpus: bool) -> JsonObject:
    """What starts the runs: {} for this machine."""
    from mmtui.domain import slurm

    if request.launcher == "slurm":
        return slurm.launcher(request.slurm, request.gpus, on_gpus)
    if request.launcher != "local":
        raise UsageError(f"--launcher {request.launcher}: write local or slurm")
    if request.slurm:
        raise UsageError("--slurm is for runs with --launcher slurm")
    return {}


def enqueue(planned: Plan, tell: Tell = untold) -> Submitted:
    """Queue what was planned, all or none; nobody is made to serve it yet (``serve``).

    Raises:
        UsageError: what the runs read is not there, or a term is wrong.
        NoResourcesError: this machine can never start them.
        RefusedError: the run to fork was removed meanwhile.
        UnreachableError: rows or files cannot be written.
    """
    from mmtui.services import labels, queue, runs

    looks = labels.Looks()
    with _TURN:
        ids = queue.enqueue_all(
            planned.home,
            planned.recipe,
            planned.members,
            planned.terms,
            planned.fork,
            resolved=planned.resolved,
            tell=tell,
            looks=looks,
        )
    group = planned.terms.group
    if len(ids) > 1 and not group:
        group = runs.get_run(planned.home, ids[0]).row.group
    return Submitted(tuple(ids), group, tuple(looks.doubts()))


def serve(planned: Plan) -> str:
    """Make sure that a supervisor runs, unless the runs are held; why the last one has left, "" if it was told to.

    Raises:
        UnreachableError: none can be started.
    """
    from mmtui.services import supervisors

    return "" if planned.terms.hold else supervisors.ensure(planned.home).note


def submit(home: Home, request: Request, tell: Tell = untold) -> Submitted:
    """Queue what is asked for and make sure that a supervisor serves it.

    Raises:
        MmtuiError: as ``plan`` and ``enqueue``; nothing is queued.
    """
    planned = plan(home, request)
    found = enqueue(planned, tell)
    try:
        return replace(found, note=serve(planned))
    except MmtuiError as error:
        return replace(found, trouble=error)
