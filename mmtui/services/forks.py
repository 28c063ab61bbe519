"""Runs that begin at another run's checkpoint: ``RUN@STEP`` as a person writes it, and what it means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.json_types import JsonObject
from mmtui.domain.sweeps import key_of
from mmtui.errors import RefusedError, UnreachableError, UsageError
from mmtui.paths import Home
from mmtui.services import recipes, runs

if TYPE_CHECKING:
    from engine.config import Recipe
    from engine.config.forking import Place, Plan


@dataclass(frozen=True)
class Fork:
    """A run to begin from.

    Attributes:
        run: its id.
        step: steps of the whole run, ``best`` = its best checkpoint, None = as far as it has come.
        overrides: what was given on its command line; a child that has no recipe of its own inherits them.
    """

    run: str
    step: Place
    overrides: tuple[str, ...] = ()

    def with_overrides(self, texts: Sequence[str]) -> list[str]:
        """The child's command line: what it inherits, and its own overrides, which count."""
        own = {key_of(text) for text in texts}
        return [*(text for text in self.overrides if key_of(text) not in own), *texts]

    def folder(self, home: Home) -> Path:
        """The parent's folder."""
        return home.run(self.run).root

    def recipe(self, home: Home) -> str:
        """The parent's resolved recipe, a file."""
        return str(home.run(self.run).recipe)


def parse(home: Home, text: str) -> Fork:
    """What ``RUN``, ``RUN@STEP`` or ``RUN@best`` means; RUN may be any selector of one run.

    Raises:
        NotFoundError: there is no such run.
        RefusedError: its folder is gone.
        UsageError: the step is no number.
    """
    from engine.config.forking import parse_place

    run, step = parse_place(text)
    if "@" in run[1:]:
        raise UsageError(
            f"--from {text}: the step is no number that a run reaches",
            "write RUN, RUN@STEP or RUN@best, for example 12@300",
        )
    run_id = runs.resolve(home, run)
    fork = Fork(run_id, step, runs.get_run(home, run_id).overrides)
    if not home.run(run_id).recipe.is_file():
        gone = not home.run(run_id).root.exists()
        why = "its folder is gone" if gone else "it has no recipe, another program trained it"
        raise RefusedError(f"run {run_id} cannot be forked: {why}")
    return fork


@contextmanager
def _translated() -> Iterator[None]:
    from engine.errors import CheckpointError, RecipeError

    try:
        yield
    except RecipeError as error:
        raise UsageError(str(error)) from None
    except CheckpointError as error:
        raise RefusedError(str(error)) from None
    except FileNotFoundError as error:
        raise RefusedError(f"the checkpoint cannot be taken over: {error.strerror or error}") from None
    except OSError as error:
        raise UnreachableError(f"the checkpoint cannot be taken over: {error.strerror or error}") from None


def plan(home: Home, fork: Fork, recipe: Recipe) -> Plan:
    """What a child of this recipe would take over.

    Raises:
        RefusedError: there is no checkpoint at or before the step.
        UsageError: the recipe does not fit what there is.
    """
    from engine.config.forking import make_plan

    with _translated():
        return make_plan(recipe, fork.folder(home), fork.run, fork.step)


def taken(found: Plan) -> tuple[str, ...]:
    """Stages that a plan takes over whole: they are not trained again."""
    return tuple(kept.stage for kept in found.taken)


def take(home: Home, fork: Fork, recipe: Recipe, folder: Path) -> Plan:
    """Link the checkpoint into a child's folder: from then on it does not need its parent.

    Raises:
        RefusedError, UsageError: see ``plan``.
    """
    from engine.config import forking

    with _translated():
        return forking.take(recipe, (fork.folder(home), fork.run, fork.step), folder)


def plan_change(home: Home, recipe: Recipe, run_id: str) -> Plan:
    """What a child that waits would go on with under another recipe; nothing is changed.

    Raises:
        RefusedError, UsageError: see ``plan``.
    """
    from engine.config import forking

    with _translated():
        return forking.plan_change(home.run(run_id).root, recipe)


def change_recipe(home: Home, recipe: Recipe, run_id: str) -> Plan:
    """Another recipe for a child that waits. Doing it again changes nothing.

    Raises:
        RefusedError, UsageError: see ``plan``.
    """
    from engine.config import forking

    with _translated():
        return forking.change_recipe(home.run(run_id).root, recipe)


def origin_of(found: Plan) -> JsonObject:
    """The checkpoint, as it is stored."""
    return asdict(found.origin)


def done_of(found: Plan) -> Mapping[str, int]:
    """Steps of the child's stages that it begins with; a stage that ended early counts as one that is done."""
    begun = {} if found.begun is None else {found.begun.stage: found.begun.step}
    return {**{kept.stage: dict(kept.recipe.stages())[kept.stage] for kept in found.taken}, **begun}


def told(found: Plan) -> str:
    """Which checkpoint is taken and what is trained, in a sentence."""
    origin = found.origin
    note = f" (no later checkpoint: {found.note})" if found.note else ""
    return f"from run {origin.run} at step {origin.global_step} ({origin.stage} {origin.step}): {found.words()}{note}"


def checkpoint_at(home: Home, run_id: str, step: int | None) -> Plan:
    """The checkpoint of a run that a child with the same recipe would begin with.

    Raises:
        MmtuiError: as ``parse`` and ``plan``.
    """
    fork = parse(home, run_id if step is None else f"{run_id}@{step}")
    return plan(home, fork, recipes.resolve(fork.recipe(home), (), home))


def describe(home: Home, text: str, recipe: Recipe) -> str:
    """What a child of this recipe takes over from ``RUN@STEP``, and what it trains, in a sentence.

    Raises:
        MmtuiError: as ``parse`` and ``plan``.
    """
    return told(plan(home, parse(home, text), recipe))
