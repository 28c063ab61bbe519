"""Runs that begin where another one was: which of its checkpoints a changed recipe can go on from, and taking it over.

    RUN/checkpoints/origin.json             what a forked run began with
    RUN/checkpoints/<stage>/final           outputs of stages that the parent had finished
    RUN/checkpoints/<stage>/step_00000040   weights and optimiser inside the stage it was in
    RUN/checkpoints/segment/best            the best checkpoint of a stage that the parent had finished

The files are linked (or copied) in one rename, so a run is forked or it is not, and needs its parent's folder no more.
Needs no torch: the queue takes the checkpoint over at once, so that nothing can take it away while the run waits.

What counts from the fork on: ``seed``, ``data``, ``runtime`` and the keys of the stage it goes on in. The network and
the classes have to be the parent's. A stage that the parent had finished is taken over only if its own keys, and those
of the stages before it, are the same. What was learned from labels is taken over only if their values mean the same.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

from pydantic import ValidationError

from engine.config.best import BEST, best_folder
from engine.config.checkpoint_meta import CheckpointMeta, OriginFile
from engine.config.determining import TRAINED, determines, flat, frozen_in, meaning
from engine.config.mask_meaning import LEARNED_FROM_LABELS, other_meaning
from engine.config.schema import STAGE_ORDER, Recipe, stored_recipe
from engine.errors import CheckpointError, RecipeError
from engine.files import is_plain_name, link, sync_folder, write_file
from engine.json_types import Json, JsonObject

FORMAT = 1
ORIGIN = "origin.json"
TRAINED_WITH: Final = "trained_with"
"""Key of a meta file: the checkpoint was taken over, and this is the recipe that it was trained with."""
FREEZE = "model.freeze"
SHAPING_KEYS = frozenset(
    {
        FREEZE,
        *("proxy.kind", "proxy.head_channels", "proxy.hue_bins", "proxy.chroma_bins", "proxy.permutations"),
        *("proxy.tile", "proxy.projection", "proxy.queue", "segment.reset_layers", "segment.ema"),
        *("segment.auxiliary_head", "proxy.optim.backbone_lr_factor", "segment.optim.backbone_lr_factor"),
        *(f"{stage}.optim.{key}" for stage in TRAINED for key in ("optimiser", "layer_decay")),
    }
)
"""Keys of a stage that decide which parameters it trains or begins with, or what its checkpoints keep of them: inside
that stage they cannot change."""


def _decays(factor: Json) -> bool:
    return isinstance(factor, int | float) and factor < 1


_SHAPES: Mapping[str, Callable[[Json], object]] = {
    "segment.ema": bool,
    "segment.auxiliary_head": bool,
    **{f"{stage}.optim.layer_decay": _decays for stage in TRAINED},
}
"""What of such a key counts, where it is a number: whether there is an average or a head, and whether layers have
groups of their own. From one such number to another a stage goes on."""
_OWN_CLASSES = frozenset({"shapes", "voc", "cityscapes"})
"""Kinds of data whose classes do not depend on files."""
_STEP = re.compile(r"step_(\d{8,})")
Place = int | Literal["best"] | None
"""Where to begin: at or before a step of the whole parent, at its best checkpoint, or as far as it has come."""
_ATTEMPTS = 5
"""How often to look again if a running parent removes a checkpoint while it is taken over."""


@dataclass(frozen=True)
class Origin:
    """Where a run was forked.

    Attributes:
        run: the parent's id, or its folder.
        stage: the stage that the checkpoint is of.
        step: steps of it that were done.
        global_step: steps of the parent that were done.
    """

    run: str
    stage: str
    step: int
    global_step: int


@dataclass(frozen=True)
class Kept:
    """A checkpoint that a run has on disk; ``whole``: the output of a finished stage, without its optimiser."""

    path: Path
    stage: str
    step: int
    global_step: int
    whole: bool
    recipe: Recipe = field(repr=False)
    meta: CheckpointMeta = field(repr=False)

    def __str__(self) -> str:
        where = f"the end of {self.stage}" if self.whole else f"{self.stage} {self.step}"
        return f"{where} (step {self.global_step})"


@dataclass(frozen=True)
class Plan:
    """What a fork takes over.

    Attributes:
        origin: the checkpoint.
        taken: outputs of finished stages, in order.
        begun: the checkpoint inside a stage; None if it begins with a whole stage.
        left: (stage, steps) that remain to be trained or evaluated.
        note: why no later checkpoint was taken, though there is one; "" if there is none.
    """

    origin: Origin
    taken: tuple[Kept, ...]
    begun: Kept | None
    left: tuple[tuple[str, int], ...]
    note: str = ""

    def words(self) -> str:
        """What is taken over and what is trained, in a sentence."""
        parts = [f"{kept.stage} is taken over" for kept in self.taken]
        for number, (stage, steps) in enumerate(self.left):
            if self.begun is not None and not number:
                parts.append(f"{stage} goes on at step {self.begun.step} of {self.begun.step + steps}")
            elif stage == "evaluate":
                parts.append("evaluate is done anew")
            else:
                parts.append(f"{stage} is trained anew, {steps} steps")
        return ", ".join(parts)


def kept_checkpoints(run_dir: Path) -> list[Kept]:
    """Everything that a run can be forked from, oldest first; what cannot be read is left out."""
    found = [kept for stage in STAGE_ORDER for kept in _of_stage(run_dir / "checkpoints" / stage, stage)]
    return sorted(found, key=lambda kept: (kept.global_step, kept.whole))


def _of_stage(folder: Path, stage: str) -> Iterator[Kept]:
    if stage == "evaluate" or not folder.is_dir():
        return  # an evaluation hands nothing on
    for entry in folder.iterdir():
        match = _STEP.fullmatch(entry.name)
        if match is None and entry.name not in ("final", BEST):
            continue
        try:
            file = entry / "meta.json"
            meta, recipe = _read(file, file.stat().st_mtime_ns)
            # The run may have come from elsewhere: its names must not lead out of the folder.
            sound = all(
                is_plain_name(name) and (entry / name).stat().st_size == size
                for name, (size, _) in meta["files"].items()
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ValidationError):
            continue
        plan = dict(recipe.stages())
        if not sound or stage not in plan:
            continue
        whole = entry.name == "final"
        step = int(match[1]) if match else _count(meta.get("stopped_early" if whole else "step")) or plan[stage]
        before = sum(steps for name, steps in plan.items() if STAGE_ORDER.index(name) < STAGE_ORDER.index(stage))
        yield Kept(entry, stage, step, before + step, whole, recipe, meta)


def _count(value: object) -> int:
    return value if type(value) is int and value > 0 else 0


@lru_cache(maxsize=4096)
def _read(file: Path, _changed_at: int) -> tuple[CheckpointMeta, Recipe]:
    """A meta file and its recipe; remembered, as each member of a sweep looks at the same ones."""
    meta: CheckpointMeta = json.loads(file.read_text())
    return meta, stored_recipe(meta["recipe"])


def make_plan(
    recipe: Recipe, run_dir: Path, run: str, step: Place = None, classes: Sequence[str] | None = None
) -> Plan:
    """The newest state of a run, up to a step, that a recipe can go on from.

    Args:
        recipe: the child's.
        run_dir: the parent's folder.
        run: what the parent is called.
        step: steps of the whole parent; ``best`` = its best checkpoint and no other; None = as far as it has come.
        classes: names of the child's classes; None = they are compared as far as the recipes tell.

    Raises:
        CheckpointError: the parent has no checkpoint up to that step.
        RecipeError: the recipe does not fit what it has; the sentence names the key.
    """
    found = kept_checkpoints(run_dir)
    if step == "best":
        return _plan_from_best(recipe, found, best_folder(run_dir, run), run, classes)
    early = [kept for kept in found if step is None or kept.global_step <= step]
    if not early:
        raise CheckpointError(_none_text(found, run, step))
    _check_structure(early[-1], recipe, run, classes)
    problem = ""
    for kept in reversed(early):
        plan = _plan_from(kept, early, recipe, run)
        if isinstance(plan, Plan):
            later = early[-1].global_step > kept.global_step
            return replace(plan, note=problem if later else "")
        problem = problem or plan
    raise RecipeError(f"{problem}: nothing that it has trained fits; leave that as it is, or run it without --from")


def _plan_from_best(
    recipe: Recipe, found: Sequence[Kept], folder: Path, run: str, classes: Sequence[str] | None
) -> Plan:
    """The plan that goes on from the best checkpoint; where it is of the last step, that stage may be taken over."""
    best = next((kept for kept in found if kept.path == folder), None)
    if best is None:
        raise CheckpointError(f"the best checkpoint {folder} is damaged or gone: name a step, {run}@STEP")
    _check_structure(best, recipe, run, classes)
    plan = _plan_from(best, found, recipe, run)
    same = (kept for kept in found if kept.whole and (kept.stage, kept.step) == (best.stage, best.step))
    for final in same if not isinstance(plan, Plan) else ():
        whole = _plan_from(final, found, recipe, run)
        plan = whole if isinstance(whole, Plan) else plan
    if not isinstance(plan, Plan):
        raise RecipeError(f"{plan}: its best checkpoint does not fit; leave that as it is, or name a step, {run}@STEP")
    return plan


def _none_text(found: Sequence[Kept], run: str, step: int | None) -> str:
    if step is None or not found:
        return f"run {run} has no checkpoint to go on from yet: wait for its first one"
    there = ", ".join(map(str, found[:6])) + (f" and {len(found) - 6} more" if len(found) > 6 else "")
    return (
        f"run {run} has no checkpoint at or before step {step}: the first ones are {there};"
        " set runtime.keep_every=STEPS in a run to keep more of them"
    )


def _check_structure(kept: Kept, recipe: Recipe, run: str, classes: Sequence[str] | None) -> None:
    """Raises RecipeError if the network or the classes are others than the parent's."""
    key = _difference(_section(kept.recipe, "model"), _section(recipe, "model"))
    if key is not None:
        raise RecipeError(f"{_told(key, run)}: a fork goes on with its parent's network, leave {key[0]} as it is")
    then, now = kept.recipe.data.kind, recipe.data.kind
    if then != now and {then, now} <= _OWN_CLASSES:
        raise RecipeError(f"{_told(('data.kind', then, now), run)}: their classes differ, leave data.kind as it is")
    before = kept.meta.get("classes")
    if classes is not None and before is not None and list(classes) != list(before):
        raise RecipeError(
            f"run {run} was trained on {len(before)} classes ({_some(before)}), the data of this recipe have"
            f" {len(classes)} ({_some(classes)}): a fork needs the same classes, leave data.root and data.classes"
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(str, names[:4])) + (" ..." if len(names) > 4 else "")


def _plan_from(kept: Kept, found: Sequence[Kept], recipe: Recipe, run: str) -> Plan | str:
    """The plan that goes on from one checkpoint; a sentence if the recipe does not allow it."""
    steps = dict(recipe.stages())
    if kept.stage not in steps:
        return f"run {run} has {kept}, but this recipe has no stage {kept.stage}"
    position = STAGE_ORDER.index(kept.stage)
    finished = STAGE_ORDER[: position + 1] if kept.whole else STAGE_ORDER[:position]
    for stage in finished:
        key = _difference(_section(kept.recipe, stage), _section(recipe, stage))
        if key is not None:
            return f"{_told(key, run)}, which had finished {stage} by then"
    learned = [stage for stage in STAGE_ORDER[: position + 1] if stage in dict(kept.recipe.stages())]
    if set(learned) & set(LEARNED_FROM_LABELS):
        other = other_meaning(kept.recipe, recipe, kept.meta.get("classes") or ())
        if other:
            return f"{other} in run {run}, whose stage {learned[-1]} has learned from that"
    if not kept.whole:
        theirs, own = (_shaping(_section(one, kept.stage)) for one in (kept.recipe, recipe))
        key = _difference(theirs, own, _SHAPES)
        if key is not None:
            return f"{_told(key, run)}, and cannot change inside stage {kept.stage}"
        if kept.step >= steps[kept.stage]:
            return f"run {run} has {kept}, and {kept.stage}.steps={steps[kept.stage]} leaves nothing to train"
    outputs = {one.stage: one for one in found if one.whole}
    wanted = [stage for stage in finished if stage in steps]
    missing = next((stage for stage in wanted if stage not in outputs), None)
    if missing is not None:
        return f"run {run} does not have the output of its stage {missing} any more, which {kept} needs"
    left = [(stage, count) for stage, count in recipe.stages() if stage not in wanted]
    if not kept.whole:
        left[0] = (kept.stage, steps[kept.stage] - kept.step)
    if not left:
        return f"run {run} is done at {kept}, and the recipe leaves nothing to do"
    origin = Origin(run, kept.stage, kept.step, kept.global_step)
    return Plan(origin, tuple(outputs[stage] for stage in wanted), None if kept.whole else kept, tuple(left))


def _section(recipe: Recipe, name: str) -> JsonObject:
    """The keys of a section that decide what is computed, by their full names."""
    values = recipe.model_dump(mode="json", include={name})[name]
    found = {key: meaning(key, value) for key, value in flat(values, name) if determines(key, values)}
    # The network is the same whatever of it is trained; how a stage trains it is not.
    found.pop(FREEZE, None)
    trains = name in TRAINED and values is not None
    return {**found, FREEZE: frozen_in(recipe.model.freeze, name)} if trains else found


def _shaping(section: Mapping[str, Json]) -> JsonObject:
    return {key: value for key, value in section.items() if key in SHAPING_KEYS}


def _whole(value: Json) -> Json:
    return value


def _difference(
    then: Mapping[str, Json],
    now: Mapping[str, Json],
    shapes: Mapping[str, Callable[[Json], object]] = MappingProxyType({}),
) -> tuple[str, Json, Json] | None:
    """The first key with another value: (key, then, now).

    Args:
        shapes: what of the values of a key is compared.
    """
    for key in [*then, *now]:
        shape = shapes.get(key, _whole)
        if key not in then or key not in now or shape(then[key]) != shape(now[key]):
            return key, then.get(key), now.get(key)
    return None


def _told(key: tuple[str, Json, Json], run: str) -> str:
    name, then, now = key
    return f"{name} is {_value(now)} here and {_value(then)} in run {run}"


def _value(value: Json) -> str:
    return json.dumps(value).strip('"') or "empty"


def take(recipe: Recipe, parent: tuple[Path, str, Place], run_dir: Path, classes: Sequence[str] | None = None) -> Plan:
    """Put what a fork goes on from into its folder, which has no checkpoints yet.

    Args:
        recipe: the child's.
        parent: the parent's folder, what it is called, and the step (see ``make_plan``).
        run_dir: the child's folder.
        classes: names of the child's classes.

    Raises:
        CheckpointError, RecipeError: see ``make_plan``; or the folder has checkpoints of its own.
        OSError: they cannot be linked or copied.
    """
    folder, run, step = parent
    if (run_dir / "checkpoints").exists():
        raise CheckpointError(f"{run_dir} has checkpoints of its own: fork into another run directory")
    for again in range(_ATTEMPTS):
        plan = make_plan(recipe, folder, run, step, classes)
        try:
            _place(plan, recipe, folder, run_dir)
        except FileNotFoundError:
            # The parent trains on and has just removed it; a newer one may have come.
            if again + 1 == _ATTEMPTS:
                raise
            continue
        return plan
    raise AssertionError("unreachable")


def _place(plan: Plan, recipe: Recipe, parent: Path, run_dir: Path) -> None:
    temporary = run_dir / ".checkpoints.writing"
    shutil.rmtree(temporary, ignore_errors=True)
    before = read_origin(parent) or {}
    origin = asdict(plan.origin)
    told = {"forked_from": origin, "lineage": [*before.get("lineage", ()), origin]}
    try:
        temporary.mkdir(parents=True, mode=0o700)
        begun = () if plan.begun is None else (plan.begun,)
        for kept in (*plan.taken, *_best_of(plan.taken), *begun):
            target = temporary / kept.stage / (f"step_{kept.step:08d}" if kept in begun else kept.path.name)
            target.mkdir(parents=True, mode=0o700)
            for name in kept.meta["files"]:
                link(kept.path / name, target / name)
            write_file(target / "meta.json", _meta(kept, recipe, told).encode())
            sync_folder(target)
        whole = {"taken": [kept.stage for kept in plan.taken]}
        inside = {"begun": None if plan.begun is None else [plan.begun.stage, plan.begun.step]}
        write_file(temporary / ORIGIN, json.dumps({"format": FORMAT, **told, **whole, **inside}, indent=1).encode())
        sync_folder(temporary)
        temporary.rename(run_dir / "checkpoints")
        sync_folder(run_dir)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _best_of(taken: Sequence[Kept]) -> Iterator[Kept]:
    """The best checkpoints that stages which are taken over have beside their outputs."""
    for final in taken:
        yield from (kept for kept in _of_stage(final.path.parent, final.stage) if kept.path.name == BEST)


def _meta(kept: Kept, recipe: Recipe, told: Mapping[str, object]) -> str:
    """The meta file of a checkpoint that is taken over: it counts as one of the child's recipe."""
    every = recipe.runtime.keep_every
    remembered = kept.meta.get("remembered")
    # The best so far is that of the child's own evaluations: it has no other checkpoints of its parent.
    own_memory = {key: value for key, value in remembered.items() if key != BEST} if remembered else {}
    own = {
        **({} if kept.whole else {"remembered": own_memory}),
        "recipe": recipe.model_dump(mode="json"),
        TRAINED_WITH: kept.meta.get(TRAINED_WITH, kept.meta["recipe"]),
        "kept": bool(not kept.whole and every and kept.step % every == 0),
    }
    return json.dumps({**kept.meta, **told, **own}, indent=1)


def read_origin(run_dir: Path) -> OriginFile | None:
    """What a forked run began with (``forked_from``, ``lineage``, ``taken``, ``begun``); None if it was not forked.

    Raises:
        CheckpointError: the file is damaged.
    """
    file = run_dir / "checkpoints" / ORIGIN
    try:
        found = json.loads(file.read_text())
        if not isinstance(found["forked_from"], dict) or not isinstance(found["taken"], list):
            raise TypeError
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        raise CheckpointError(f"{file} cannot be read: fork the run again") from None
    origin: OriginFile = found
    return origin


def plan_change(run_dir: Path, recipe: Recipe) -> Plan:
    """What a fork that has not begun goes on with under another recipe: the same checkpoint. Nothing is changed.

    Raises:
        RecipeError: the recipe does not fit what was taken over.
        CheckpointError: what was taken over is damaged.
    """
    return _plan_change(run_dir, recipe, kept_checkpoints(run_dir))[0]


def _plan_change(run_dir: Path, recipe: Recipe, found: Sequence[Kept]) -> tuple[Plan, OriginFile]:
    origin = read_origin(run_dir)
    if origin is None:
        raise CheckpointError(f"{run_dir} was not forked")
    where = Origin(**origin["forked_from"])
    last = next((kept for kept in reversed(found) if (kept.stage, kept.step) == (where.stage, where.step)), None)
    if last is None:
        raise CheckpointError(f"the checkpoint that {run_dir} was forked from is damaged: fork the run again")
    _check_structure(last, recipe, where.run, None)
    plan = _plan_from(last, found, recipe, where.run)
    if not isinstance(plan, Plan):
        raise RecipeError(plan)
    return Plan(where, plan.taken, plan.begun, plan.left), origin


def change_recipe(run_dir: Path, recipe: Recipe) -> Plan:
    """Give a fork that has not begun another recipe; what it goes on from stays the same.

    Raises:
        CheckpointError, RecipeError: see ``plan_change``.
    """
    found = kept_checkpoints(run_dir)
    plan, origin = _plan_change(run_dir, recipe, found)
    told = {"forked_from": origin["forked_from"], "lineage": origin["lineage"]}
    for kept in found:
        draft = kept.path / ".meta.json"
        write_file(draft, _meta(kept, recipe, told).encode())
        draft.replace(kept.path / "meta.json")
    return plan


def parse_place(text: str) -> tuple[str, Place]:
    """``RUN@STEP`` or ``RUN@best`` as run and place; without one None. A run may have ``@`` in its name."""
    match = re.fullmatch(rf"(.+)@(\d{{1,15}}|{BEST})", text)
    if match is None:
        return text, None
    return match[1], "best" if match[2] == BEST else int(match[2])
