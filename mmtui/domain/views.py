"""What the store answers and the front ends show: plain frozen records, no SQL, no Textual."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from engine.events.checks import Word
from engine.events.records import Graph, Projection
from engine.json_types import Json, JsonObject


def doubtful(doubts: Sequence[str]) -> str:
    """What makes a score doubtful, in one sentence; "" if nothing does."""
    more = f" (and {len(doubts) - 1} more)" if len(doubts) > 1 else ""
    return f"doubtful: {doubts[0]}{more}" if doubts else ""


def doubted(score: str, doubts: Sequence[str]) -> str:
    """A score as every list, table and report shows it: with a mark where something makes it doubtful."""
    return f"{score}!" if doubts and score != "-" else score


def metric_words(metric: str) -> str:
    """What a run keeps its best checkpoint by, for people: "mIoU", "IoU of car", "validation loss"."""
    name = metric.removeprefix("class:")
    return f"IoU of {name}" if name != metric else {"miou": "mIoU", "loss": "validation loss"}.get(metric, metric)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """One line of ``mmtui ls`` and of the runs table. Times are Unix seconds (UTC) or None."""

    id: str
    name: str
    recipe: str
    state: str
    reason: str  # why it waits, failed or was interrupted; "" if there is nothing to say
    stage: str  # stage it is in or ended in, "" before the first
    progress: float  # share of all planned steps done, 0-1
    created_at: float | None  # None only in a damaged row
    started_at: float | None
    ended_at: float | None
    seed: int
    gpus: tuple[str, ...]
    tags: tuple[str, ...]
    metrics: dict[str, float | None]  # always has "miou" (percent) and "loss"
    attempt: int = 0
    group: str = ""
    doubts: tuple[str, ...] = ()  # what makes its score doubtful, such as labels that teach little

    @property
    def remark(self) -> str:
        """The reason and what makes the score doubtful, of a run that has succeeded the latter first; "" if nothing."""
        parts = (self.reason, doubtful(self.doubts))
        return "; ".join(part for part in (reversed(parts) if self.state == "succeeded" else parts) if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageView:
    """Progress of one stage of a run."""

    name: str
    position: int
    status: str  # pending running finished
    step: int
    total_steps: int
    offset: int  # steps of the whole run before this stage
    started_at: float | None
    ended_at: float | None
    seconds_per_step: float | None
    eta_seconds: float | None  # None when unknown or finished
    reused_from: str = ""  # run whose output was taken over instead of training
    stopped_early: str = ""  # why it ended at ``step``, before its last one; "" if it did not


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptView:
    """One process life of a run."""

    number: int
    pid: int | None
    started_at: float
    ended_at: float | None
    outcome: str  # "" while alive; succeeded failed stopped vanished
    resumed_stage: str
    resumed_step: int
    host: str
    device: str  # "" before the trainer has reported where it begins
    code: str = ""  # proven unproven differs (see domain.proof); "" before the trainer has reported

    def begins(self) -> str:
        """Where it begins, in words; "" before the trainer has reported."""
        if self.resumed_stage:
            return f"from {self.resumed_stage} {self.resumed_step}"
        return "from the beginning" if self.device else ""


@dataclass(frozen=True, slots=True)
class ForkView:
    """One tie of a run's lineage: another run, and the checkpoint at which the younger of the two begins."""

    run: str  # the parent's id, of a child the child's
    stage: str
    step: int  # step within its stage
    global_step: int  # steps of the whole parent
    here: bool = True  # False: that run is gone, or was never in this database

    def words(self) -> str:
        """The checkpoint, for people."""
        return f"step {self.global_step} ({self.stage} {self.step})" if self.stage else f"step {self.global_step}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BestView:
    """The best evaluation of a run, whose checkpoint is kept (``segment.keep_best``)."""

    metric: str  # miou, class:NAME or loss
    value: float | None  # IoU in percent
    stage: str
    step: int  # step within its stage
    weights: str  # trained, ema; "" if not told

    def words(self) -> str:
        """What it is the best by, its value and where, for people."""
        value = "-" if self.value is None else f"{self.value:.4g}"
        return f"{metric_words(self.metric)} {value} at step {self.step} of {self.stage}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Relative:
    """One line of a run's family tree."""

    row: RunRow
    depth: int  # generations below the first line
    fork: ForkView | None  # where it begins; None for one that is no fork
    changed: tuple[str, ...] = ()  # overrides that its parent did not have


@dataclass(frozen=True, slots=True)
class RunTerms:
    """Under which terms a run was queued."""

    gpus: float = 1.0  # GPUs or CPU slots; below 1 the share of one
    time_limit_seconds: float | None = None
    launcher: JsonObject | None = None  # what SLURM is told; None = this machine
    after: tuple[str, ...] = ()  # ids of the runs that it begins after
    not_before: float | None = None  # Unix seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDetail:
    """Everything ``mmtui show`` prints."""

    row: RunRow
    config: JsonObject
    overrides: tuple[str, ...]
    stages: tuple[StageView, ...]
    attempts: tuple[AttemptView, ...]
    error: str
    code: Mapping[str, Word]  # digest, git commit, dirty
    host: dict[str, str]
    paths: dict[str, str]
    eta_seconds: float | None
    last_event_at: float | None
    warnings: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()  # names, from the trainer's first event
    versions: dict[str, str] = field(default_factory=dict)  # of Python, torch, CUDA, driver, engine
    data_fingerprint: str = ""  # SHA-256 of the data set, "" before it was computed
    replay: str = ""  # whether losses after a resume repeated those before it, in words
    terms: RunTerms = RunTerms()
    note: str = ""  # what the user wrote
    parent: ForkView | None = None  # the run it was forked from
    children: tuple[ForkView, ...] = ()  # runs that were forked from it, oldest first
    progress_note: str = ""  # work that is no training step, such as decoding, while it goes on
    global_step: int = 0  # of its newest event
    best: BestView | None = None  # its best evaluation so far, if it keeps the best checkpoint

    def section(self, name: str) -> Mapping[str, Json]:
        """A part of the recipe, such as ``match``; {} where it has none, or something else in its place."""
        found = self.config.get(name)
        return found if isinstance(found, Mapping) else {}


@dataclass(frozen=True, slots=True)
class Point:
    """One value of a series."""

    step: int  # step within its stage
    value: float
    time: float
    attempt: int
    stage: str
    global_step: int


@dataclass(frozen=True, slots=True)
class Bucket:
    """Min/max summary of consecutive points of a series, for drawing."""

    x: float
    low: float
    high: float
    first: float
    last: float
    count: int
    attempt: int
    superseded: bool  # an earlier attempt's tail that a later attempt did again
    time: float = 0.0  # Unix seconds of the last point


@dataclass(frozen=True, slots=True)
class Series:
    """A metric of a run, reduced to at most the asked number of buckets. Order: by x."""

    run: str
    metric: str
    buckets: tuple[Bucket, ...]
    total_points: int


@dataclass(frozen=True, slots=True)
class ClassRow:
    """One class of one evaluation. IoU and accuracy are shares 0-1, None where the class is absent."""

    index: int
    name: str
    iou: float | None
    accuracy: float | None
    pixels: int  # pixels of the class in the ground truth
    history: tuple[float | None, ...] = ()  # IoU of this class at every evaluation so far


@dataclass(frozen=True, slots=True)
class ClassTable:
    """Per-class IoU of a run at one step, derived from its int64 confusion matrix."""

    run: str
    step: int
    stage: str
    num_present: int
    miou: float | None  # share 0-1 over present classes
    classes: tuple[ClassRow, ...]
    confusion: tuple[tuple[int, ...], ...]
    doubts: tuple[str, ...] = ()  # what makes the scores doubtful


@dataclass(frozen=True, slots=True)
class GraphStats:
    """The newest graph-sampling statistics of a run (see the ``graph`` event)."""

    run: str
    step: int
    time: float
    graph: Graph


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Embeddings and edges of a match graph's nodes (see the ``projection`` event) at a step of the stage."""

    step: int
    nodes: Projection


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a run's state."""

    time: float  # Unix seconds
    actor: str
    event: str
    before: str  # "" of the first
    after: str
    reason: str


@dataclass(frozen=True, slots=True)
class EvaluationMark:
    """Where a run was evaluated."""

    global_step: int
    time: float  # Unix seconds
    stage: str


@dataclass(frozen=True, slots=True)
class GpuView:
    """One GPU. None = the driver does not tell."""

    index: int
    uuid: str
    name: str
    utilisation: float | None  # percent
    memory_used: int | None  # bytes
    memory_total: int | None  # bytes
    power_watts: float | None
    temperature: float | None  # degrees Celsius
    processes: tuple[GpuProcess, ...] = ()
    lost: bool = False
    mig: bool = False  # split into MIG devices, which follow it in the list; nothing can run on the whole
    parent: str = ""  # UUID of the GPU that this MIG device is a part of, "" for a whole GPU


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process that holds GPU memory."""

    pid: int
    user: str
    memory: int | None  # bytes
    run: str  # id of the run it belongs to, "" if none of ours
    kind: str = "compute"  # or "graphics": a desktop, which leaves room for a run


@dataclass(frozen=True, slots=True)
class DeviceSnapshot:
    """The machine at one moment."""

    time: float
    gpus: tuple[GpuView, ...]
    gpu_note: str  # "" or why there is no GPU list, in words
    cpu_percent: float
    cpu_count: int
    load1: float
    memory_used: int  # bytes
    memory_total: int  # bytes
    disk_free: int  # bytes, of the data directory
    disk_total: int  # bytes
    simulated: bool = False  # a recorded or simulated driver; must be labelled so wherever shown


@dataclass(frozen=True, slots=True)
class TrainerView:
    """What the trainer of an active run takes of the processor and of memory, with all its processes."""

    run: str  # id
    pid: int
    cpu_percent: float | None  # of one core, None at the first look
    memory: int  # resident bytes
    processes: int
    threads: int


@dataclass(frozen=True, slots=True)
class DeviceUse:
    """Use of one device at one moment. None = not told."""

    time: float
    utilisation: float | None  # percent
    memory_used: int | None  # bytes
    memory_total: int | None  # bytes
    power_watts: float | None
    temperature: float | None  # degrees Celsius


@dataclass(frozen=True, slots=True)
class DeviceRecord:
    """What one device did during one attempt of a run, oldest first."""

    device: str  # UUID of a GPU, or "host"
    attempt: int
    samples: tuple[DeviceUse, ...]


@dataclass(frozen=True, slots=True)
class RunDevices:
    """What the devices of a run did while it was active."""

    run: str
    records: tuple[DeviceRecord, ...]
    note: str = ""  # why there is nothing, or not all, in words
    simulated: bool = False  # recorded by a simulated driver; must be labelled so wherever shown


@dataclass(frozen=True, slots=True)
class RecipeView:
    """A recipe that can be launched."""

    name: str
    path: str
    description: str
    data: str
    stages: tuple[tuple[str, int], ...]
    reference_miou: float | None
    error: str = ""  # why it does not load, "" if it does
    reference_source: str = ""  # where the published number stands
    lacks: str = ""  # a key without which it reads nothing, as a sentence; "" if all are given


@dataclass(frozen=True, slots=True)
class SupervisorStatus:
    """Whether a supervisor serves this data directory."""

    running: bool
    pid: int | None
    started_at: float | None
    heartbeat_age: float | None  # seconds since its last tick
    active_runs: int
    queued_runs: int
    home: str = ""
    extra: JsonObject = field(default_factory=dict)
    note: str = ""  # why the last one has left, and what to run, in words; "" where nothing is to be done
    trouble: str = ""  # why the runs cannot be counted, in words
