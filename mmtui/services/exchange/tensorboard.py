"""TensorBoard event files, one folder a run, and metrics from such files. Through TensorBoard's own code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmtui.errors import NotFoundError, UsageError
from mmtui.paths import Home
from mmtui.services import runs


def _library() -> Any:
    try:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError:
        raise UsageError("this needs tensorboard", "install it: pip install 'mmtui[tensorboard]'") from None
    return event_pb2, summary_pb2, EventFileWriter


def write(home: Home, ids: Sequence[str], target: Path) -> int:
    """Write one folder ``RUN-NAME`` a run; returns the number of points. Steps are those of the whole run.

    Raises:
        UsageError: TensorBoard is not installed.
    """
    event_pb2, summary_pb2, writer_class = _library()
    count = 0
    for run_id in ids:
        writer = writer_class(str(target / run_id))
        try:
            for metric in runs.metric_names(home, run_id):
                for point in runs.points(home, run_id, metric):
                    value = summary_pb2.Summary.Value(tag=metric, simple_value=point.value)
                    summary = summary_pb2.Summary(value=[value])
                    writer.add_event(event_pb2.Event(wall_time=point.time, step=point.global_step, summary=summary))
                    count += 1
        finally:
            writer.close()
    return count


def read(folder: Path) -> Iterator[tuple[str, int, float, float]]:
    """(tag, step, Unix time, value) of every scalar below a folder of event files.

    Raises:
        UsageError: TensorBoard is not installed.
        NotFoundError: there is no event file.
    """
    _library()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    if not folder.exists() or not any(folder.rglob("*tfevents*") if folder.is_dir() else [folder]):
        raise NotFoundError(f"{folder} has no TensorBoard event file", "give the folder that holds them")
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    found.Reload()
    for tag in found.Tags()["scalars"]:
        for event in found.Scalars(tag):
            yield tag, event.step, event.wall_time, event.value
    for tag in found.Tags()["tensors"]:
        # TensorFlow 2 writes scalars as tensors of no dimension.
        for event in found.Tensors(tag):
            array = tensor_util.make_ndarray(event.tensor_proto)
            if array.ndim == 0 and array.dtype.kind in "fiu":
                yield tag, event.step, event.wall_time, float(array)
