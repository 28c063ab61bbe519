"""TensorBoard event files, one folder a run, through TensorBoard's own code. Reading: ``.tensorboard_reader``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import BinaryIO, NamedTuple, Protocol

from mmtui.errors import UsageError
from mmtui.paths import Home
from mmtui.services import runs
from mmtui.services.exchange.points import Account, points
from mmtui.services.output_files import replacing_folder

LARGEST_FLOAT = 2.0**128 - 2.0**103
"""From here on a number is infinite when it is rounded to the 32 bits that a scalar of TensorBoard has."""
INFINITE = "became infinite: they are beyond the 32-bit numbers of TensorBoard"


class Library(NamedTuple):
    """TensorBoard's modules of messages, and what writes records into an open file."""

    event_pb2: ModuleType
    summary_pb2: ModuleType
    record_writer: Callable[[BinaryIO], RecordWriter]


class RecordWriter(Protocol):
    """TensorBoard's ``RecordWriter``, of which this is used."""

    def write(self, data: bytes, /) -> object:
        """Append a record."""


def load() -> Library:
    """TensorBoard.

    Raises:
        UsageError: TensorBoard is not installed.
    """
    try:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter
    except ImportError:
        raise UsageError("this needs tensorboard", "install it: pip install 'mmtui[tensorboard]'") from None
    return Library(event_pb2, summary_pb2, RecordWriter)


def write(home: Home, ids: Sequence[str], target: Path, *, force: bool = False) -> Account:
    """Write one folder ``target/RUN`` a run, all of them or none. Steps are those of the whole run.

    A folder that an earlier export has made is replaced, so exporting twice shows every point once; what else lies in
    ``target`` stays. Numbers have 32 bits there.

    Raises:
        UsageError: TensorBoard is not installed.
        RefusedError: a folder of a run's name is there and is not of an earlier export.
        UnreachableError: it cannot be written.
    """
    library = load()
    account = Account()
    with ExitStack() as folders:
        for run_id in ids:
            ours = partial(is_ours, name=_name(home, run_id))
            folder = folders.enter_context(replacing_folder(target / run_id, force=force, is_ours=ours))
            _write_run(home, run_id, folder, account, library)
    return account


def is_ours(folder: Path, name: str) -> bool:
    """Whether a folder holds the file of this name, which ``write`` makes of one run, and nothing else.

    Another data directory has runs of the same numbers: theirs stay.
    """
    try:
        return all(entry.name == name and entry.is_file() for entry in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return False


def _name(home: Home, run_id: str) -> str:
    """The name of a run's event file, which tells the second in which it was queued."""
    return f"events.out.tfevents.{round(runs.get_run(home, run_id).row.created_at or 0.0):010d}.mmtui"


def _write_run(home: Home, run_id: str, folder: Path, account: Account, library: Library) -> None:
    event_pb2, summary_pb2, writer_class = library
    begun = runs.get_run(home, run_id).row.created_at or 0.0
    # Not under the name that TensorBoard looks for: a program that watches the folder would show half a run.
    file = folder / "unfinished"
    with file.open("wb") as stream:
        writer = writer_class(stream)
        writer.write(event_pb2.Event(wall_time=begun, file_version="brain.Event:2").SerializeToString())
        for point in points(home, run_id, account):
            if abs(point.value) >= LARGEST_FLOAT:
                account.changed[INFINITE] += 1
            value = summary_pb2.Summary.Value(tag=point.metric, simple_value=point.value)
            summary = summary_pb2.Summary(value=[value])
            event = event_pb2.Event(wall_time=point.time, step=point.global_step, summary=summary)
            writer.write(event.SerializeToString())
    file.rename(folder / _name(home, run_id))
