"""Quiet steps of every stage and option on the pretended GPU: what they stall and launch. See docs/discipline.md.

A quiet step is one without log, checkpoint or report: all that the loop does between two of its questions whether to
leave. The tests hold these counts, and ``docs/make_discipline.py`` writes them down.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image

from engine import determinism, host
from engine.config.schema import Recipe
from engine.events import SilentWriter
from engine.loop import Stop, run_steps
from engine.replay import Replay
from engine.stages import Context, Stage, build_stage
from engine.stages.encoders import check_encoder
from engine.stages.evaluate import measure
from engine.stages.match import MatchStage
from engine.stages.protocols import Member
from engine.stages.segmenter import build_segmenter
from tests.live_tensors import Live, cycles_stay, live_tensors
from tests.pretended_gpu import GPU, SIZE, TO_HOST, Count, PretendedGpu
from tests.unit.engine_run.conftest import tiny_recipe

WARM_UP = 2
"""Steps before the one that is counted: the first makes what is kept, such as the optimiser's state."""
Changes = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One way to train a stage.

    Attributes:
        stage: its name.
        option: what differs from the stage's defaults, in words.
        changes: keys of the recipe, as ``tiny_recipe`` takes them.
        prepare: changes the stage once it is built.
        beside: stalls on a stream of their own, by kind. Of the main stream there are none.
    """

    stage: str
    option: str
    changes: Changes = field(default_factory=dict)
    prepare: Callable[[Any], None] = lambda stage: None
    beside: dict[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For people, and unlike those of other cases."""
        return f"{self.stage}, {self.option}"


def _halved(stage: Any) -> None:
    stage.guard.splits = 2


def _one_unlabelled(stage: Any) -> None:
    stage.data.labels[:3] = 255


PATCHES = {SIZE: 1}
"""Of making the patches of one batch."""
REASONS = {
    "metrics.py:_note": "pixels of each pair of classes are counted with `torch.bincount`, as patch centres are: once a"
    " batch",
    "stages/predictions.py:_on_host": "what is written into files leaves the device: once a batch, not once an image",
    "mixmatch/patches.py:_collect": "how many images have a labelled pixel decides how many patches there are",
    "mixmatch/candidates.py:_balanced_pixels": "pixels of each class are counted with `torch.bincount`, which asks for"
    " the largest label; a count of fixed size sorts all pixels where kernels have to be deterministic",
}
"""Why a step waits where it does, by place. Nothing waits anywhere else."""
JITTER = {"scale_jitter": (0.5, 2.0), "colour_jitter": 0.3}
ADAMW = {"optimiser": "adamw", "layer_decay": 0.9}
HALVED = "in two portions after a lack of memory"
DISK = "data mapped from the disk"
MAPPED = {"data__train": 6, "data__height": 64, "data__width": 64, "runtime__memory_budget_gib": 1e-6}


def _both(stage: str, **optim: Any) -> Changes:
    return {f"{stage}__{key}": value for key, value in optim.items()}


def _common(stage: str, beside: dict[str, int]) -> list[Case]:
    """What every stage can do."""
    batch = {"proxy__batch_size": 4, "segment__batch_size": 4}
    colour = {"model__input": "rgb255", "model__head": "fcn"}
    others = [] if stage == "proxy" else [Case(stage, "rgb255 input", colour, beside=beside)]
    return [
        Case(stage, "bf16", {"runtime__precision": "bf16"}, beside=beside),
        Case(stage, "gray input", {"model__input": "gray"}, beside=beside),
        *others,
        Case(stage, "gradients clipped", {f"{stage}__optim": {"clip_norm": 1.0}}, beside=beside),
        Case(
            stage, "adamw, layer decay", {f"{stage}__optim": {"optimiser": "adamw", "layer_decay": 0.9}}, beside=beside
        ),
        Case(stage, "scale and colour jitter", _both(stage, **JITTER), beside=beside),
        Case(stage, DISK, MAPPED, beside=beside),
        Case(stage, HALVED, batch, _halved, beside=beside),
    ]


_NAMES = """
__rshift__ _foreach_add _foreach_add_ _foreach_copy_ _foreach_lerp_ _foreach_mul_ _foreach_norm _fused_adamw_
_fused_sgd_ _log_softmax _log_softmax_backward_data _native_batch_norm_legit_no_training
_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention_for_cpu_backward _softmax
_softmax_backward_data _to_copy _unsafe_index abs add add_ addcmul_ addmm affine_grid_generator all amax aminmax any
arange argmax argmin bernoulli_ bincount bitwise_and bitwise_not bitwise_or bmm cat ceil clamp clamp_ clamp_min clone
constant_pad_nd convolution convolution_backward copy_ cos cumsum div div_ eq exp expm1 fill_ flip floor floor_divide
full_like gather ge gelu gelu_backward grid_sampler_2d gt index index_add index_copy index_copy_ index_fill_ index_put
index_select le lerp linalg_vector_norm logaddexp logsumexp lt masked_fill masked_fill_ max max_pool2d_with_indices
max_pool2d_with_indices_backward maximum mean min minimum mm mul mul_ native_batch_norm native_batch_norm_backward
native_layer_norm native_layer_norm_backward ne neg new_full new_zeros nll_loss_backward nll_loss_forward nonzero
ones_like pow rand randint randperm reciprocal reflection_pad2d relu relu_ remainder remainder_ repeat
replication_pad2d roll rot90 round round_ rsqrt rsub scalar_tensor scatter_ searchsorted select_backward sin
slice_backward sort sqrt stack sub sub_ sum threshold_backward to upsample_bilinear2d var_mean where zeros zeros_like
"""
OPERATORS = frozenset(_NAMES.split())
"""What quiet steps and evaluations launch. Whoever adds one says that it does not wait inside, or puts it into
``WAITING``: the pretended GPU cannot see what PyTorch's own code asks of a real one."""
CONTRAST = {"proxy__queue": 8, "proxy__projection": 6, "proxy__batch_size": 4}
PROXY = [
    Case("proxy", "colorization"),
    *_common("proxy", {}),
    Case("proxy", "jigsaw", {"proxy__kind": "jigsaw", "proxy__permutations": 5, "proxy__tile": 16, "proxy__gap": 2}),
    Case("proxy", "rotation", {"proxy__kind": "rotation"}),
    Case("proxy", "classification", {"proxy__kind": "classification", "proxy__image_side": 32}),
    Case("proxy", "moco", {"proxy__kind": "moco", **CONTRAST}),
    Case("proxy", "densecl", {"proxy__kind": "densecl", **CONTRAST}),
    Case("proxy", "moco, bf16", {"proxy__kind": "moco", **CONTRAST, "runtime__precision": "bf16"}),
    Case("proxy", "densecl, halved", {"proxy__kind": "densecl", **CONTRAST}, _halved),
]


def _match(option: str, /, prepare: Callable[[Any], None] = lambda stage: None, batches: int = 1, **keys: Any) -> Case:
    changes = {f"match__{key}": value for key, value in keys.items()}
    return Case("match", option, changes, prepare, {kind: batches * number for kind, number in PATCHES.items()})


MATCH = [
    _match("graph, triplet loss"),
    *_common("match", PATCHES),
    _match("strategy random", strategy="random"),
    _match("strategy semi_hard", strategy="semi_hard"),
    _match("strategy balanced", strategy="balanced"),
    _match("loss info_nce", loss="info_nce"),
    _match("memory of 2 steps", memory=2),
    _match("memory, info_nce", memory=2, loss="info_nce"),
    Case("match", "centres balanced", {"match__centres": "balanced"}, beside={SIZE: 2}),
    _match("candidates pure", candidates="pure"),
    _match("no background class", background=None),
    _match("two graphs a step", batches=2, graphs=2),
    _match("one graph over two batches", batches=2, graphs=2, graph_scope="global"),
    _match("normalizer reference", normalizer="reference"),
    Case("match", "reference_compat", {"reference_compat": True}, beside=PATCHES),
    _match("images without a label", _one_unlabelled),
    Case("match", "convnext", {"model__backbone": "timm/test_convnext", "model__width": 1.0}, beside=PATCHES),
    Case(
        "match",
        "vit",
        {"model__backbone": "timm/test_vit", "model__width": 1.0, "match__output_size": 80},
        beside=PATCHES,
    ),
]


def _network(backbone: str, head: str = "hypercolumn", /, **keys: Any) -> Changes:
    model = {"backbone": backbone, "head": head, "width": 0.125, "dropout": 0.5, **keys}
    sizes = {"segment__crop": 64, "segment__batch_size": 4}
    return {**{f"model__{key}": value for key, value in model.items()}, **sizes}


BF16 = {"runtime__precision": "bf16"}
WEIGHED = {"segment__class_weighting": "balanced"}
SEGMENT = [
    Case("segment", "hypercolumn on tiny_vgg"),
    *_common("segment", {}),
    Case("segment", "two passes a step", {"segment__accumulate": 2}),
    Case("segment", "extra blocks", {"model__extra_channels": 8}),
    *(Case("segment", f"loss {loss}", {"segment__loss": loss}) for loss in ("focal", "dice", "ohem")),
    Case("segment", "labels smoothed, classes weighed", {"segment__label_smoothing": 0.1, **WEIGHED}),
    Case("segment", "loss ohem, classes weighed", {"segment__loss": "ohem", **WEIGHED}),
    Case("segment", "averaged weights", {"segment__ema": 0.9}),
    Case("segment", "auxiliary head", {**_network("resnet18", "fcn"), "segment__auxiliary_head": 0.4}),
    Case("segment", "pixel margin", {"segment__pixel_margin": 4}),
    Case("segment", "hypercolumn on vgg16", _network("vgg16")),
    Case("segment", "fcn32 on alexnet", _network("alexnet", "fcn32")),
    Case("segment", "fcn32 on alexnet_torchvision", _network("alexnet_torchvision", "fcn32")),
    Case("segment", "fcn on resnet18", _network("resnet18", "fcn")),
    Case("segment", "aspp on resnet18, dilated", _network("resnet18", "aspp", dilated=True)),
    Case("segment", "fcn on resnet50", _network("resnet50", "fcn")),
    Case("segment", "upernet on convnext", _network("timm/test_convnext", "upernet", width=1.0)),
    Case("segment", "deeplabv3plus on vit", _network("timm/test_vit", "deeplabv3plus", width=1.0)),
    Case("segment", "pyramid on vit, bf16", {**_network("timm/test_vit", "pyramid", width=1.0), **BF16}),
    Case("segment", "linear on a frozen vit", _network("timm/test_vit", "linear", width=1.0, freeze="backbone")),
    Case("segment", "linear on dinov3", _network("timm/vit_small_patch16_dinov3", "linear", width=1.0)),
    Case("segment", "linear on swin", _network("timm/swin_tiny_patch4_window7_224", "linear", width=1.0)),
    Case("segment", "four layers frozen", {**_network("tiny_vgg"), "model__freeze": 4}),
    Case("segment", "aspp, bf16", {**_network("resnet18", "aspp"), "runtime__precision": "bf16"}),
]
CASES = [*PROXY, *MATCH, *SEGMENT]
REPORTS = [
    Case("proxy", "with a log line", {"runtime__log_every": 1}),
    Case("match", "with a log line", {"runtime__log_every": 1}, beside=PATCHES),
    Case("match", "with a graph event", {"runtime__graph_every": 1}, beside=PATCHES),
    Case("segment", "with a log line", {"runtime__log_every": 1}),
    Case("segment", "with a checkpoint", {"runtime__checkpoint_every": 1}),
]
"""Steps that are not quiet."""


BATCH = 2
"""Images of a batch of evaluation."""


@dataclass(frozen=True)
class Evaluation:
    """One way to evaluate.

    Attributes:
        option: what differs from the defaults, in words.
        changes: keys of the recipe.
        networks: how many there are; more than one are an ensemble.
        stalls: what a further batch stalls, by kind.
    """

    option: str
    changes: Changes = field(default_factory=dict)
    networks: int = 1
    stalls: dict[str, int] = field(default_factory=lambda: {SIZE: 1})

    @property
    def name(self) -> str:
        """For people, and unlike those of others."""
        return f"evaluate, {self.option}"


def _protocol(option: str, /, networks: int = 1, stalls: dict[str, int] | None = None, **keys: Any) -> Evaluation:
    quiet = {"save_predictions": False, "show_images": 0, **keys}
    changes = {f"evaluate__{key}": value for key, value in quiet.items()}
    return Evaluation(option, changes, networks, {SIZE: 1, **(stalls or {})})


def _by(head: str, backbone: str) -> Changes:
    return {"model__head": head, "model__backbone": backbone, "model__width": 0.125}


EVALUATIONS = [
    _protocol("plain"),
    _protocol("plain, stride 2", stride=2),
    _protocol("plain, scales and flip", scales=(0.75, 1.0), flip=True),
    _protocol("fit", protocol="fit", side=32, scales=(1.0, 1.25), flip=True),
    _protocol("windows", protocol="windows", side=24, window_stride=8),
    _protocol("an ensemble of two", networks=2),
    Evaluation("fcn on resnet18", {**_by("fcn", "resnet18"), **_protocol("").changes}),
    Evaluation("bf16", {"runtime__precision": "bf16", **_protocol("").changes}),
    Evaluation(DISK, {**MAPPED, **_protocol("").changes}),
    _protocol("predictions written", stalls={TO_HOST: 2}, save_predictions=True),
    _protocol("predictions and overlays written", stalls={TO_HOST: 3}, save_predictions=True, overlays=True),
]


class _LeftError(Exception):
    """The step that counts is over."""


class _Ticks(Stop):
    """Calls a function whenever the loop asks, after each step, whether to leave, and leaves it after so many steps."""

    def __init__(self, tell: Callable[[int], object], most: int) -> None:
        super().__init__(lambda: False)
        self.tell, self.most, self.done = tell, most, 0

    def agree(self, due: bool) -> tuple[bool, bool]:
        self.done += 1
        self.tell(self.done)
        if self.done >= self.most:
            raise _LeftError
        return super().agree(due)


def _run(context: Context, stage: Stage, tell: Callable[[int], object], steps: int) -> None:
    """The first steps of the loop; ``tell`` is called after each, with its number."""
    with contextlib.suppress(_LeftError):
        replay = Replay(context.run_dir, 1, stage.name, 0)
        run_steps(context, stage, 0, 0, lambda _line: None, replay, _Ticks(tell, steps))


def recipe_of(case: Case, folder: Path, **more: Any) -> Recipe:
    """The tiny recipe with the case's changes, and nothing to report for a long time."""
    quiet = {f"{case.stage}__steps": 100_000, "runtime__log_every": 100_000, "runtime__graph_every": 100_000}
    quiet |= {"segment__eval_every": 0, "evaluate": None}
    others = {name: None for name in ("proxy", "match", "segment") if name != case.stage}
    keys = {key: value for key, value in case.changes.items() if key.split("__")[0] not in others}
    changes = {**quiet, **others, **keys, **more}
    if case.stage != "segment":
        del changes["segment__eval_every"]
    if changes.get("proxy__kind") == "classification":
        changes["proxy__images"] = str(_pictures(folder / "pictures"))
    if "runtime__memory_budget_gib" in changes:
        changes["runtime__data_cache"] = str(folder / "decoded")
    return tiny_recipe(**changes)


def _pictures(folder: Path) -> Path:
    """Pictures of two classes."""
    random = np.random.default_rng(1)
    for number in range(6):
        (folder / f"class_{number % 2}").mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"class_{number % 2}" / f"{number}.png")
    return folder


def stage_of(case: Case, folder: Path, device: torch.device, **more: Any) -> tuple[Context, Stage]:
    """The case's stage, ready for its first step."""
    context = Context(recipe_of(case, folder, **more), folder / "run", device, SilentWriter(), lambda: False)
    stage = build_stage(context, case.stage)
    case.prepare(stage)
    return context, stage


@contextlib.contextmanager
def as_in_a_run() -> Iterator[None]:
    """The kernels that a run chooses from."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    determinism.configure(1, deterministic=True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)


def quiet_step(case: Case, folder: Path) -> Count:
    """What one quiet step of the loop does on a GPU."""
    check_encoder(recipe_of(case, folder))  # as every run does; the pretended GPU knows no device meta
    with as_in_a_run(), PretendedGpu() as gpu:
        context, stage = stage_of(case, folder, GPU)
        counts: list[Count] = []
        _run(context, stage, lambda done: counts.append(gpu.restart()), WARM_UP + 1)
    return counts[WARM_UP]


def live_after(case: Case, folder: Path, first: int, last: int) -> tuple[Live, Live]:
    """What is alive of tensors after so many steps in the way of GPUs, on the CPU, and after many more."""
    found: dict[int, Live] = {}

    def tell(done: int) -> None:
        if done in (first, last):
            found[done] = live_tensors()

    with as_in_a_run(), cycles_stay(), mock.patch.object(host, "on_host", lambda tensor: False):
        context, stage = stage_of(case, folder, torch.device("cpu"))
        if isinstance(stage, MatchStage):
            stage.ahead.active = True
        _run(context, stage, tell, last)
    return found[first], found[last]


def further_batch(case: Evaluation, folder: Path) -> tuple[Count, Count]:
    """What the third of four batches of an evaluation does on a GPU, and what comes behind the last one."""
    recipe = tiny_recipe(
        **{"proxy": None, "match": None, "data__val": 4 * BATCH, "evaluate__batch_size": BATCH, **case.changes},
        runtime__data_cache=str(folder / "decoded"),
    )
    assert recipe.evaluate is not None
    counts: list[Count] = []

    def asked() -> bool:
        """Whether to leave, which is asked behind each batch."""
        if gpu.count.operators:
            counts.append(gpu.restart())
        return False

    with as_in_a_run(), PretendedGpu() as gpu:
        context = Context(recipe, folder / "run", GPU, SilentWriter(), lambda: False)
        own, *others = (build_segmenter(context, context.data("val").num_classes) for _ in range(case.networks))
        members = [Member.of(context.place(other).eval(), recipe.model) for other in others]  # type: ignore[arg-type]
        context.place(own)
        gpu.restart()
        context.stop_requested = asked
        measure(context, own, recipe.evaluate, lambda kind, values: None, members, final=True)
        assert len(counts) == 4
        return counts[2], gpu.restart()


def row(name: str, count: Count) -> str:
    """A line of the tables of docs/discipline.md: what is waited for, what beside the network's work, and launched."""
    cells = (name, _words(count.kinds()), _words(count.kinds(beside=True)), str(count.sent), str(count.operators))
    return f"| {' | '.join(cells)} |"


def _words(kinds: dict[str, int]) -> str:
    return ", ".join(f"{kind} {number}" for kind, number in sorted(kinds.items())) or "-"
