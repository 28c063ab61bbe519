"""What the pages of a run show over its steps. Reads only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine.events import records
from mmtui.domain.views import Bucket, Change, Embeddings, EvaluationMark, GraphStats, Point, RunRow
from mmtui.paths import Home
from mmtui.services import runs
from mmtui.store import run_history as store
from mmtui.store.queries import metrics
from mmtui.store.session import reading

MOST_BASELINES = 100


def evaluations(home: Home, run_id: str) -> list[EvaluationMark]:
    """Where a run was evaluated, oldest first."""
    with reading(home) as reader:
        return store.evaluations(reader, int(run_id))


def changes(home: Home, run_id: str) -> list[Change]:
    """Every change of a run's state, oldest first."""
    with reading(home) as reader:
        return store.changes(reader, int(run_id))


def all_series(
    home: Home, ids: Sequence[str], names: Sequence[str], most: int
) -> dict[tuple[str, str], tuple[Bucket, ...]]:
    """{(run, metric): about ``most`` buckets}, read at one go."""
    with reading(home) as reader:
        found = reader.several_series([(int(run_id), name) for run_id in ids for name in names], most)
    return {(str(run_id), name): buckets for (run_id, name), (buckets, _) in found.items()}


def parts_of_series(
    home: Home, within: Mapping[tuple[str, str], tuple[int, int]], most: int
) -> dict[tuple[str, str], tuple[Bucket, ...]]:
    """{(run, metric): about ``most`` buckets} between two global steps, those included, read at one go."""
    wanted = {(int(run_id), name): ends for (run_id, name), ends in within.items()}
    with reading(home) as reader:
        found = reader.several_series(list(wanted), most, None, wanted)
    return {(str(run_id), name): buckets for (run_id, name), (buckets, _) in found.items()}


def values_at(home: Home, steps: Mapping[str, int], names: Sequence[str]) -> dict[tuple[str, str], Point]:
    """{(run, metric): the last point up to a step}, where there is one.

    Args:
        steps: {run: global step}.
    """
    with reading(home) as reader:
        return {
            (run_id, name): point
            for run_id, step in steps.items()
            for name, point in metrics.points_at(reader, int(run_id), names, step).items()
        }


def images(home: Home, run_id: str) -> dict[str, tuple[int, int]]:
    """{stage: (training images of a step, of an epoch)}, of stages whose trainer told."""
    with reading(home) as reader:
        return store.images(reader, int(run_id))


def projection(home: Home, run_id: str, *, until: int | None = None) -> Embeddings | None:
    """The newest embeddings and edges of a match graph, up to a global step; None before the first."""
    with reading(home) as reader:
        return store.projection(reader, int(run_id), until)


def line_warnings(home: Home, run_id: str) -> list[str]:
    """What was said here of lines of a trainer's event file that were skipped or changed, oldest first."""
    with reading(home) as reader:
        told = [event.record for event in reader.events(int(run_id), records.Warning.KIND) if not event.seq]
    return [record.text or "" for record in told if isinstance(record, records.Warning)]


def graphs_over_time(home: Home, run_id: str, every: int, *, until: int | None = None) -> list[GraphStats]:
    """The last graph of each ``every`` steps (up to a global step), oldest first."""
    with reading(home) as reader:
        return store.graphs_over_time(reader, int(run_id), every, until)


def baselines(home: Home, run_id: str, first: tuple[str, ...] = ()) -> list[RunRow]:
    """Runs whose classes a run's can be compared with: those named first, pinned ones, succeeded ones, newest first.

    All but those named have been evaluated on the same classes.
    """
    with reading(home) as reader:
        same = store.comparable(reader, int(run_id), MOST_BASELINES)
    pinned = [other for other in runs.pinned(home) if other in same]
    ids = dict.fromkeys([*(other for other in first if other != run_id), *pinned, *same])
    return runs.by_ids(home, list(ids))
