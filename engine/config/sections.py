"""The recipe's sections, and the recipe as plain fields: every value is checked by itself.

What fields say together is checked where the recipe itself stands (``engine.config.schema``).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from engine.config.backbones import Backbone, Freeze
from engine.config.best import metric_problem
from engine.config.datasets import DataConfig, ShapesData
from engine.config.evaluation import EvaluateConfig
from engine.config.file_names import FilePath
from engine.config.optim import HeadedOptimConfig, OptimConfig, SegmentOptimConfig
from engine.config.section import Section

InputName = Literal["rgb", "rgb255", "gray"]
Strategy = Literal["graph", "random", "semi_hard", "balanced"]


class ModelConfig(Section):
    """The network."""

    backbone: Backbone = Field(
        "vgg16",
        description="backbone, with batch normalisation; alexnet_torchvision: without, for torchvision's weights;"
        " timm/NAME: an encoder of timm, such as timm/convnext_tiny or timm/vit_small_patch14_dinov2",
    )
    width: float = Field(1.0, gt=0, le=4, description="channel multiplier of the backbone; not of timm's")
    input: InputName = Field(
        "rgb",
        description="rgb; rgb255 = from 0 to 255 minus the mean, as colour networks of Caffe read, so that their"
        " weights learn as fast as there; gray = mean of R, G and B (Larsson's input)",
    )
    head: Literal["hypercolumn", "fcn32", "fcn", "aspp", "deeplabv3plus", "upernet", "pyramid", "linear"] = Field(
        "hypercolumn",
        description="segmentation head: hypercolumn (paper, VGG), fcn32 (paper, AlexNet), fcn or aspp (ResNets),"
        " deeplabv3plus, upernet, pyramid (several maps), linear (frozen encoders)",
    )
    dilated: bool = Field(False, description="ResNets, timm: output stride 8 by dilation instead of 32")
    head_channels: int = Field(1024, ge=8, le=4096, description="channels inside heads other than fcn32 and linear")
    fc_channels: int = Field(4096, ge=0, le=8192, description="channels of fc6 and fc7; 0 leaves both out")
    extra_channels: int = Field(1024, ge=0, le=4096, description="channels of hypercolumn's two extra blocks; 0 = none")
    head_std: float = Field(
        0.0, ge=0, description="init deviation of hypercolumn's hidden layer; 0 = vgg16 1e-4 (paper), others He"
    )
    dropout: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="dropout after fc6 and fc7, in other heads but linear before the scores, probability",
    )
    weights: FilePath = Field(
        "",
        description="backbone weights to start from: safetensors, a torch state dict (.pth), a .caffemodel or"
        " .caffemodel.h5; timm = timm's own, downloaded; empty = random",
    )
    weights_partial: bool = Field(False, description="accept weights that fill only a part of the backbone")
    freeze: Freeze = Field(
        "none",
        description="what is not trained: backbone = segment trains the head alone (proxy and match train the backbone"
        " as ever); a number = that many layers from the input on, in every stage, counted as segment.reset_layers"
        " does; none = nothing",
    )


class ProxyConfig(Section):
    """Self-supervised proxy task (paper stage a)."""

    kind: Literal["colorization", "jigsaw", "rotation", "moco", "densecl", "classification"] = Field(
        "colorization", description="proxy task; classification is the supervised one, on a folder a class"
    )
    images: FilePath = Field(
        "",
        description="folder of images for the task, searched to any depth; classification: one folder a class;"
        " empty = the images of data, without their labels",
    )
    max_images: int | None = Field(None, ge=1, description="use only this many of them (chosen by the run's seed)")
    image_side: int = Field(256, ge=16, le=2048, description="images of the folder are resized to this, pixels")
    steps: int = Field(10_000, ge=1, description="optimiser steps")
    batch_size: int = Field(32, ge=1, description="images per step, shared out over the processes")
    crop: int = Field(256, ge=16, description="square training crop, pixels")
    hue_bins: int = Field(32, ge=4, le=128, description="hue histogram bins")
    chroma_bins: int = Field(32, ge=4, le=128, description="chroma histogram bins")
    pixels: int = Field(128, ge=1, description="pixels sampled per image for the loss")
    head_channels: int = Field(1024, ge=8, le=4096, description="hidden units of the proxy head")
    permutations: int = Field(100, ge=2, le=1000, description="jigsaw: size of the set of permutations, classes")
    tile: int = Field(64, ge=8, le=256, description="jigsaw: side of a tile as the network sees it, pixels")
    gap: int = Field(
        11, ge=0, le=64, description="jigsaw: mean gap between neighbouring tiles, each from 0 to twice that, pixels"
    )
    projection: int = Field(128, ge=2, le=4096, description="moco, densecl: numbers of a vector that is compared")
    queue: int = Field(
        65_536,
        ge=1,
        le=1_048_576,
        description="moco, densecl: keys of past images that serve as negatives; best below the number of images",
    )
    temperature: float = Field(0.2, gt=0, le=10, description="moco, densecl: temperature")
    key_momentum: float = Field(
        0.999, ge=0, le=1, description="moco, densecl: share of its weights that the key network keeps in a step"
    )
    dense_weight: float = Field(0.5, ge=0, le=1, description="densecl: weight of the loss of cells, lambda")
    scale_jitter: tuple[float, float] = Field(
        (1.0, 1.0),
        description="smallest and largest random resize factor of images; not for moco and densecl, which draw views",
    )
    colour_jitter: float = Field(
        0.0, ge=0, le=1, description="strength of random brightness and contrast; 0 = off; not for moco and densecl"
    )
    optim: HeadedOptimConfig = HeadedOptimConfig()


class MatchConfig(Section):
    """Mix-and-match tuning (paper stage b): patches, class-wise connected graph, triplet loss."""

    steps: int = Field(8_000, ge=1, description="optimiser steps")
    images: int = Field(16, ge=1, description="images of one graph")
    graphs: int = Field(
        1, ge=1, description="batches of images per step, shared out over the processes (release, VGG-16: 4)"
    )
    patches_per_image: int = Field(9, ge=2, description="patches drawn from each image")
    crop: int = Field(512, ge=16, description="square training crop, pixels")
    patch_size: tuple[int, int] = Field((64, 256), description="smallest and largest patch side, pixels (even)")
    output_size: int = Field(128, ge=16, description="side to which every patch is resized, pixels")
    overlap: float = Field(0.6, ge=0, le=1, description="a patch covered by kept ones beyond this share is dropped")
    background: int | None = Field(0, description="class with its own quota; null = no background class")
    background_ratio: float = Field(0.1, ge=0, le=1, description="share of patches drawn from the background class")
    strategy: Strategy = Field(
        "graph",
        description="graph (paper), random (independent triplets, our reading of its ablation), semi_hard (rejective"
        " edges to hard nodes of the graph), balanced (rejective edges spread evenly over the other classes)",
    )
    loss: Literal["triplet", "info_nce", "supcon"] = Field(
        "triplet",
        description="triplet (paper), or info_nce: each attractive edge against all nodes of other classes; supcon is"
        " its former name",
    )
    temperature: float = Field(0.1, gt=0, le=10, description="info_nce: temperature")
    memory: int = Field(
        0,
        ge=0,
        le=1000,
        description="steps whose embeddings are remembered, without gradient, as further ends of edges; 0 = none",
    )
    centres: Literal["uniform", "balanced"] = Field(
        "uniform", description="patch centres: uniform over pixels (paper), or equally often from every class present"
    )
    candidates: Literal["order", "pure"] = Field(
        "order",
        description="which of five candidate patches are tried first: order (paper, as drawn), or pure (those with the"
        " largest share of their centre's class)",
    )
    graph_scope: Literal["local", "global"] = Field(
        "local", description="local: a graph for each batch (as the release); global: one over all batches of a step"
    )
    margin: float = Field(2.1, gt=0, description="triplet margin alpha")
    normalizer: Literal["paper", "reference"] = Field("paper", description="divide by N, or by 2N (release)")
    scale_jitter: tuple[float, float] = Field(
        (1.0, 1.0), description="smallest and largest random resize factor of images, before patches are drawn"
    )
    colour_jitter: float = Field(0.0, ge=0, le=1, description="strength of random brightness and contrast; 0 = off")
    optim: OptimConfig = OptimConfig()


class SegmentConfig(Section):
    """Fine-tuning for segmentation (paper stage c)."""

    steps: int = Field(42_000, ge=1, description="optimiser steps")
    batch_size: int = Field(16, ge=1, description="images per forward pass")
    accumulate: int = Field(1, ge=1, description="forward passes per optimiser step, shared out over the processes")
    crop: int = Field(512, ge=16, description="square training crop, pixels")
    reset_layers: int = Field(
        0,
        ge=0,
        description="layers of the backbone, counted from the last map down, that begin as they were before the match"
        " stage: convolutions, in ResNets residual blocks; 0 = none (paper)",
    )
    loss: Literal["ce", "focal", "dice", "ohem"] = Field(
        "ce",
        description="ce: cross-entropy (paper); focal: hard pixels count more; dice: overlap of each class; ohem:"
        " cross-entropy over the hard pixels of a batch alone",
    )
    focal_gamma: float = Field(2.0, ge=0, le=10, description="focal: power of 1 - p by which a pixel counts less")
    ohem_threshold: float = Field(
        0.7, gt=0, le=1, description="ohem: a pixel is hard if its class has at most this probability"
    )
    ohem_keep: float = Field(
        0.2, ge=0, le=1, description="ohem: share of a batch's labelled pixels that counts in any case, the hardest"
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="ce, focal, ohem: share of the target that is spread evenly over all classes"
    )
    class_weights: dict[str, float] = Field(
        default_factory=dict, description="weights of classes in the loss, by name, above 0; those not named weigh 1"
    )
    class_weighting: Literal["given", "balanced"] = Field(
        "given",
        description="given: class_weights; balanced: a class weighs the inverse of its share of the training pixels",
    )
    auxiliary_head: float = Field(
        0.0,
        ge=0,
        le=10,
        description="weight of the loss of a second head, an fcn on an earlier map, that is there for training alone,"
        " such as 0.4; 0 = none; not with model.head hypercolumn",
    )
    pixels: int = Field(256, ge=1, description="pixels sampled per image (hypercolumn)")
    pixel_margin: int = Field(
        0, ge=0, description="distance that sampled pixels keep from the crop border, pixels; below half of the crop"
    )
    scale_jitter: tuple[float, float] = Field((1.0, 1.0), description="smallest and largest random resize factor")
    colour_jitter: float = Field(0.0, ge=0, le=1, description="strength of random brightness and contrast; 0 = off")
    ema: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="decay of an exponential moving average of the weights, such as 0.999, which is evaluated and"
        " handed on; 0 = none",
    )
    keep_best: str | None = Field(
        None,
        description="also keep the checkpoint of the best evaluation, by miou, class:NAME (the IoU of a class) or loss"
        " (mean cross-entropy of the split); it is called RUN@best; null = none",
    )
    patience: int = Field(
        0, ge=0, description="stop early after so many evaluations without a better one by keep_best; 0 = never"
    )
    eval_every: int = Field(0, ge=0, description="evaluate on the validation split every N steps; 0 = only at the end")
    optim: SegmentOptimConfig = SegmentOptimConfig()

    @field_validator("keep_best")
    @classmethod
    def _is_metric(cls, word: str | None) -> str | None:
        problem = metric_problem(word) if word is not None else ""
        if problem:
            raise ValueError(problem)
        return word


NO_CACHE = "none"
"""The value of ``runtime.data_cache`` that is no folder (``./none`` is one)."""


class RuntimeConfig(Section):
    """How the run uses the machine. Nothing here changes what is computed, but for precision and, after a
    warning, ``halve_on_oom=always``."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes a GPU if there is one")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="autocast precision")
    threads: int = Field(0, ge=0, le=1024, description="CPU threads; 0 = all cores")
    deterministic: bool = Field(True, description="only deterministic kernels")
    log_every: int = Field(10, ge=1, description="steps between metric lines")
    graph_every: int = Field(20, ge=1, description="steps between graph statistics lines")
    checkpoint_seconds: float = Field(60.0, ge=0, description="seconds between checkpoints")
    checkpoint_every: int = Field(0, ge=0, description="steps between checkpoints; 0 = by time alone")
    keep_checkpoints: int = Field(2, ge=1, description="how many step checkpoints of a stage are kept")
    keep_every: int = Field(
        0,
        ge=0,
        description="also write a checkpoint at every multiple of this many steps of a stage, and keep these for good,"
        " to fork from; with the optimiser, VGG-16 takes over 1 GB each; 0 = none",
    )
    memory_budget_gib: float = Field(
        8.0,
        gt=0,
        le=1_000_000,
        description="decoded data of a run up to this size, and to half of the machine's memory, are held there, GiB",
    )
    data_cache: FilePath = Field(
        "",
        description="folder for decoded data that do not fit, which are mapped from there; empty = MMTUI_HOME/decoded,"
        " else mmtui/decoded in XDG_CACHE_HOME or ~/.cache; none = refuse such data",
    )
    max_megapixels: float = Field(
        179.0,
        gt=0,
        le=1_000_000,
        description="largest picture that is read, millions of pixels; a larger one is refused before it is decoded",
    )
    reuse_stages: bool = Field(
        True, description="take over proxy and match stages that another run has trained from the very same inputs"
    )
    halve_on_oom: Literal["exact", "always", "never"] = Field(
        "always",
        description="GPU out of memory: compute the batch in halves and accumulate, and warn; always: down to four"
        " images or patches, each half with batch statistics of its own (formerly true); exact: only where nothing is"
        " normalised over the batch and the loss is of each pixel alone; never (formerly false)",
    )
    exchange: Literal["ddp", "retry"] = Field(
        "ddp",
        description="gradients of several processes: ddp (PyTorch's DistributedDataParallel), or retry (the engine's"
        " own messages, which a process that ran out of memory can finish, so that halve_on_oom works there too)",
    )

    @field_validator("halve_on_oom", mode="before")
    @classmethod
    def _read_boolean(cls, value: object) -> object:
        """Older recipes say true or false."""
        return {True: "always", False: "never"}[value] if isinstance(value, bool) else value


class Reference(Section):
    """Published numbers that tables show beside the measured ones."""

    miou: float | None = Field(None, ge=0, le=100, description="published mean IoU, percent")
    per_class: dict[str, float] = Field(default_factory=dict, description="published IoU per class, percent")
    source: str = Field("", description="where the numbers stand")


class RecipeFields(Section):
    """All that a recipe says, before its parts are held against each other."""

    schema_version: Literal[1] = Field(1, description="version of this schema")
    name: str = Field("", description="name of the recipe; the file name when empty")
    description: str = Field("", description="one line that says what the recipe is for")
    seed: int = Field(0, ge=0, lt=2**31, description="seed of everything random in the run")
    data: DataConfig = ShapesData()
    model: ModelConfig = ModelConfig()
    proxy: ProxyConfig | None = None
    match: MatchConfig | None = None
    segment: SegmentConfig | None = None
    evaluate: EvaluateConfig | None = EvaluateConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    reference: Reference = Reference()
    reference_compat: bool = Field(
        False, description="repeat the release's quirks: first candidate's area, 1/(2N), class 0 as background"
    )
