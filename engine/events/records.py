"""The kinds of events and what their values are (docs/events.md): a class each, with a typed field for each value.

A trainer writes what it likes, and an event file may come from anybody: a record holds what is a value of its kind,
and names what was left out, so that nobody who reads it has to ask again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Generic, TypeVar, cast, overload

from engine.events import checks
from engine.events.checks import LONGEST_NAME, Check
from engine.events.numbers import finite

T = TypeVar("T")
MOST_METRICS = 1_000
"""Numbers of one ``metrics`` event, and names of metrics of one run."""
SUPERVISION = "supervision"
"""What a ``warning`` is about that makes the score doubtful; it is shown beside the score."""


class Field(Generic[T]):
    """A value of a record: what its check gives, None where it was not told or is none of its kind."""

    def __init__(self, check: Check[T]) -> None:
        self.check, self.name = check, ""

    def __set_name__(self, owner: type[Record], name: str) -> None:
        self.name = name

    @overload
    def __get__(self, record: None, owner: type[Record]) -> Field[T]: ...
    @overload
    def __get__(self, record: Record, owner: type[Record]) -> T | None: ...
    def __get__(self, record: Record | None, owner: type[Record]) -> Field[T] | T | None:
        # What the check has given lies there, and nothing else does.
        return self if record is None else cast("T | None", record.values.get(self.name))


class Record:
    """The values of an event of a kind that nobody knows, or that has none of its own.

    Values whose names the kind does not know stay as they are, but for infinities and NaN in them, for which JSON has
    no form. A value of None counts as one that was not told.

    Attributes:
        values: name and value, as they are stored.
        refused: names of those that are no values of this kind, and are left out.
    """

    __slots__ = ("refused", "values")
    KIND: ClassVar[str] = ""
    _CHECKS: ClassVar[Mapping[str, Check[object]]] = {}

    def __init_subclass__(cls) -> None:
        own = {name: one.check for name, one in vars(cls).items() if isinstance(one, Field)}
        cls._CHECKS = {**cls._CHECKS, **own}

    def __init__(self, told: Mapping[str, object] = {}) -> None:
        self.values: Mapping[str, object]
        self.refused: Sequence[str]
        self.values, self.refused = self._checked(told)

    def _checked(self, told: Mapping[str, object]) -> tuple[Mapping[str, object], Sequence[str]]:
        known, kept, left = self._CHECKS, dict[str, object](), list[str]()
        for name, value in told.items():
            try:
                kept[name] = None if value is None else known.get(name, checks.json_value)(value)
            except (ValueError, TypeError, OverflowError):
                left.append(name)
        for name in self._odd(kept):
            del kept[name]
            left.append(name)
        return kept, left

    def _odd(self, kept: Mapping[str, object]) -> Sequence[str]:
        """Names of values that do not fit each other."""
        return ()

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and isinstance(other, Record) and other.values == self.values

    def __hash__(self) -> int:
        return hash((type(self), *self.values))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.values!r})"


class RunStarted(Record):
    """An attempt begins, or goes on."""

    KIND = "run_started"
    attempt = Field(checks.count)
    pid = Field(checks.count)
    threads = Field(checks.count)
    processes = Field(checks.count)
    host = Field(checks.name)
    device = Field(checks.name)
    precision = Field(checks.name)
    resumed_stage = Field(checks.name)
    resumed_step = Field(checks.step)
    resumed_global_step = Field(checks.step)
    seed = Field(checks.number)
    stages = Field(checks.plan)
    versions = Field(checks.words)
    classes = Field(checks.names)
    forked_from = Field(checks.words)
    code = Field(checks.loaded_code)


class StageStarted(Record):
    """A stage begins, or goes on; ``offset`` is the global step before its first."""

    KIND = "stage_started"
    total_steps = Field(checks.step)
    offset = Field(checks.step)
    resumed_step = Field(checks.step)


class StageData(Record):
    """How many images a stage trains on."""

    KIND = "stage_data"
    images_per_step = Field(checks.step)
    images_per_epoch = Field(checks.step)


class Weights(Record):
    """A file of weights was loaded: how many of its keys fitted."""

    KIND = "weights"
    file = Field(checks.text)
    loaded = Field(checks.count)
    left_out = Field(checks.count)
    missing = Field(checks.count)
    unexpected = Field(checks.count)
    mismatched = Field(checks.count)
    first = Field(checks.parts)
    partial = Field(checks.truth)
    notes = Field(checks.texts)


class ClassWeights(Record):
    """The weight of each class in the loss, and the labelled pixels that it follows from."""

    KIND = "class_weights"
    classes = Field(checks.names)
    weights = Field(checks.weights)
    pixels = Field(checks.counts)


class Progress(Record):
    """Work that takes long and is no step: reading, evaluating, compiling."""

    KIND = "progress"
    text = Field(checks.text)
    done = Field(checks.count)
    total = Field(checks.count)
    eta_seconds = Field(checks.number)


class Metrics(Record):
    """Numbers of a step, under any name. All values are finite numbers, or None for one that was not."""

    KIND = "metrics"

    @property
    def numbers(self) -> Mapping[str, float | None]:
        """{metric: number}."""
        return cast("Mapping[str, float | None]", self.values)

    def _checked(self, told: Mapping[str, object]) -> tuple[Mapping[str, object], Sequence[str]]:
        kept, left = dict[str, float | None](), list[str]()
        for name, value in told.items():
            if type(value) is float and math.isfinite(value):  # most are: first
                fits: float | None = value
            else:
                fits = finite(value)
            if (fits is None and value is not None) or not 0 < len(name) <= LONGEST_NAME or len(kept) == MOST_METRICS:
                left.append(name)
            else:
                kept[name] = fits
        return kept, left


class Graph(Record):
    """Statistics of a match graph: its patches, its edges and its triplets."""

    KIND = "graph"
    graphs = Field(checks.count)
    nodes = Field(checks.count)
    attractive_edges = Field(checks.count)
    rejective_edges = Field(checks.count)
    classes_present = Field(checks.count)
    singletons = Field(checks.count)
    no_negative = Field(checks.count)
    empty_graphs = Field(checks.count)
    degree_max = Field(checks.count)
    degree_mean = Field(checks.number)
    overlap_rejections = Field(checks.count)
    topped_up = Field(checks.count)
    patch_size_mean = Field(checks.number)
    patch_size_min = Field(checks.number)
    patch_size_max = Field(checks.number)
    padding_share = Field(checks.number)
    purity_mean = Field(checks.number)
    active_triplets = Field(checks.number)
    d_pos_mean = Field(checks.number)
    d_neg_mean = Field(checks.number)
    d_hist_max = Field(checks.number)
    d_pos_hist = Field(checks.bins)
    d_neg_hist = Field(checks.bins)
    nodes_per_class = Field(checks.by_class)
    components_per_class = Field(checks.by_class)
    starved = Field(checks.by_class)
    class_pairs = Field(checks.class_pairs)


class Confusion(Record):
    """An evaluation: pixels by class in the truth (down) and in the prediction (across)."""

    KIND = "confusion"
    matrix = Field(checks.matrix)
    classes = Field(checks.names)
    images = Field(checks.count)
    networks = Field(checks.count)
    split = Field(checks.text)
    predictions = Field(checks.text)
    protocol = Field(checks.text)
    weights = Field(checks.text)
    checkpoint = Field(checks.text)
    checkpoint_step = Field(checks.step)

    def _odd(self, kept: Mapping[str, object]) -> Sequence[str]:
        """More names than classes."""
        matrix, names = kept.get("matrix"), kept.get("classes")
        if isinstance(matrix, list) and isinstance(names, list) and len(names) > len(matrix):
            return ["classes"]
        return ()


class Image(Record):
    """Pictures that were kept: files below the run's folder, "" where there is none."""

    KIND = "image"
    index = Field(checks.count)
    kind = Field(checks.text)
    name = Field(checks.text)
    image = Field(checks.text)
    truth = Field(checks.text)
    prediction = Field(checks.text)


class Projection(Record):
    """Embeddings of a match graph's nodes in two dimensions, and its edges."""

    KIND = "projection"
    x = Field(checks.coordinates)
    y = Field(checks.coordinates)
    label = Field(checks.labels)
    positive = Field(checks.nodes)
    order = Field(checks.nodes)
    negative = Field(checks.nodes_or_none)

    def _odd(self, kept: Mapping[str, object]) -> Sequence[str]:
        """Lists that do not belong to the same nodes."""
        lists = {name: value for name, value in kept.items() if isinstance(value, list)}
        nodes = len(lists.get("label", ()))
        odd = [name for name in ("x", "y", "positive", "negative") if len(lists.get(name) or range(nodes)) != nodes]
        ends = [name for name in ("positive", "negative") if name not in odd]
        odd += [name for name in ends if max(lists.get(name) or (-1,)) >= nodes]
        order = lists.get("order")
        if order and sorted(order) != list(range(nodes)):
            odd.append("order")
        return odd


class Checkpoint(Record):
    """A checkpoint lies on the disk."""

    KIND = "checkpoint"
    path = Field(checks.text)
    seconds = Field(checks.number)
    bytes = Field(checks.count)


class Best(Record):
    """The best evaluation so far; its weights are kept."""

    KIND = "best"
    metric = Field(checks.name)
    step = Field(checks.step)
    value = Field(checks.number)
    weights = Field(checks.text)


class EarlyStop(Record):
    """A stage ends before its last step: so many evaluations in a row were no better."""

    KIND = "early_stop"
    metric = Field(checks.name)
    step = Field(checks.step)
    total_steps = Field(checks.step)
    value = Field(checks.number)
    patience = Field(checks.count)


class Warning(Record):
    """Something that a person should know."""

    KIND = "warning"
    text = Field(checks.text)
    about = Field(checks.name)
    splits = Field(checks.count)


class Supervision(Record):
    """The labels of these splits are looked at, now: what was doubted of them before is said anew."""

    KIND = "supervision"
    splits = Field(checks.names)


class Alive(Record):
    """Nothing else has been said for some seconds; ``rss`` is the memory of the process in bytes."""

    KIND = "heartbeat"
    rss = Field(checks.count)


class StageFinished(Record):
    """A stage has ended; losses that were computed again are compared with those of earlier attempts."""

    KIND = "stage_finished"
    seconds = Field(checks.number)
    replayed = Field(checks.count)
    replayed_equal = Field(checks.count)
    replayed_worst = Field(checks.number)
    reused = Field(checks.truth)
    stopped_early = Field(checks.step)


class StageReused(Record):
    """A stage was not trained: its output is that of an earlier run."""

    KIND = "stage_reused"
    key = Field(checks.text)
    run = Field(checks.word)
    saved_seconds = Field(checks.number)


class Data(Record):
    """What the run trains on."""

    KIND = "data"
    fingerprint = Field(checks.text)


class DataCache(Record):
    """Decoded images lie in, or were found in, a folder."""

    KIND = "data_cache"
    label = Field(checks.text)
    folder = Field(checks.text)
    bytes = Field(checks.count)
    found = Field(checks.truth)


class Probe(Record):
    """What the run's stages need on their device."""

    KIND = "probe"
    stages = Field(checks.measured)
    peak_bytes = Field(checks.count)
    device = Field(checks.text)


class Error(Record):
    """Why the attempt fails."""

    KIND = "error"
    text = Field(checks.text)
    type = Field(checks.text)


class RunFinished(Record):
    """The attempt has ended by itself."""

    KIND = "run_finished"
    status = Field(checks.name)


RECORDS: Mapping[str, type[Record]] = {one.KIND: one for one in Record.__subclasses__()}
KINDS = frozenset(RECORDS)


def record_of(kind: str, told: Mapping[str, object]) -> Record:
    """The record of a kind; a plain ``Record`` where nobody knows the kind."""
    return RECORDS.get(kind, Record)(told)
