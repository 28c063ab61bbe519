"""An SQLite store of MLflow, written through its own client. It is meant to be shared: runs are added to one."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from mmtui.domain.states import RunState
from mmtui.domain.views import RunDetail
from mmtui.errors import RefusedError, UnreachableError, UsageError
from mmtui.paths import Home
from mmtui.services import runs
from mmtui.services.comparing import flat
from mmtui.services.exchange.naming import MLFLOW
from mmtui.services.exchange.points import Account, points
from mmtui.services.output_files import HINT, replacing
from mmtui.store.foreign_file import tables_of

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

EXPERIMENT = "mmtui"
BATCH = 1000
"""Most metrics that MLflow takes in one call."""
BATCH_OF_WORDS = 100
"""Most parameters, or tags, that it takes in one call."""
LONGEST_PARAMETER = 6000
CUT = f"parameters: their values were cut to the {LONGEST_PARAMETER:,} characters that MLflow takes"
UNFINISHED = "mmtui.unfinished"
"""A tag of a run that is still being written: the host and the process that writes it."""
METRIC_PREFIX = "mmtui.metric."
_TABLES = {"alembic_version", "experiments", "runs", "metrics", "params", "tags"}
_STATUS = {
    RunState.SUCCEEDED: "FINISHED",
    RunState.CANCELLED: "KILLED",
    RunState.FAILED: "FAILED",
    RunState.RUNNING: "RUNNING",
}


@dataclass(slots=True)
class _Store:
    """An opened store and what this export has added to it: runs that are not finished, and those they replace."""

    client: MlflowClient
    entities: ModuleType
    experiment: str
    fresh: list[str] = field(default_factory=list)
    earlier: list[str] = field(default_factory=list)


def _library() -> tuple[type[MlflowClient], ModuleType]:
    try:
        from mlflow import entities
        from mlflow.tracking import MlflowClient
    except ImportError:
        raise UsageError("this needs MLflow", "install it: pip install 'mmtui[mlflow]'") from None
    return MlflowClient, entities


def write(home: Home, ids: Sequence[str], target: Path, *, force: bool = False) -> Account:
    """Add runs to the SQLite file ``target``, experiment ``mmtui``, all of them or none.

    A run that is in the file already (tag ``mmtui.run``: id and time of queueing) is written anew, and the old one is
    deleted, as MLflow deletes, when the new one is complete: exporting twice shows every run once. Names that MLflow
    does not take are written as ``mmtui.services.exchange.naming`` says, the metric's own in a tag
    ``mmtui.metric.NAME``.

    A new file is written beside and renamed. In one that is there, runs being written carry the tag ``UNFINISHED``; a
    failure deletes them, and after a kill the next export does.

    Args:
        force: a file that is no store of MLflow is written over. A store is always added to.

    Raises:
        UsageError: MLflow is not installed.
        RefusedError: the file is no store of MLflow, or of another version of it.
        UnreachableError: it cannot be written.
    """
    library = _library()
    for name in ("alembic", "mlflow"):  # they tell of each of their own migrations
        logging.getLogger(name).setLevel(logging.WARNING)
    if is_store(target):
        return _add(home, ids, target, target, library)
    with replacing(target, force=force) as file:
        return _add(home, ids, file, target, library)


def check(target: Path, *, force: bool) -> None:
    """Refuse a file that is no store of MLflow, before anything is read.

    Raises:
        RefusedError: it is none, and there is no ``force``.
    """
    if target.exists() and not target.is_dir() and not force and not is_store(target):
        raise RefusedError(f"{target} is there and is no SQLite store of MLflow", HINT)


def is_store(file: Path) -> bool:
    """Whether a file is an SQLite database with the tables of MLflow."""
    return file.is_file() and tables_of(file) >= _TABLES


def _add(
    home: Home, ids: Sequence[str], file: Path, named: Path, library: tuple[type[MlflowClient], ModuleType]
) -> Account:
    """Add runs to the store ``file``, which is called ``named`` in the end."""
    client_class, entities = library
    account = Account()
    with _translated(named):
        client = client_class(tracking_uri=f"sqlite:///{file}")
        found = client.get_experiment_by_name(EXPERIMENT)
        experiment = found.experiment_id if found else client.create_experiment(EXPERIMENT, f"file://{named}.artifacts")
        store = _Store(client, entities, experiment)
        _delete_abandoned(store)
        try:
            ends = [_write_run(home, store, run_id, account) for run_id in ids]
            for theirs, state, ended in ends:
                client.set_terminated(theirs, state, end_time=ended)
                client.delete_tag(theirs, UNFINISHED)
        except BaseException:
            _delete_fresh(store)
            raise
        for old in store.earlier:
            client.delete_run(old)
    return account


@contextmanager
def _translated(target: Path) -> Iterator[None]:
    """Errors of MLflow and of its database, in one sentence each."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "schema" in said:
            raise RefusedError(f"{target} is a store of another version of MLflow: {said}") from None
        raise UnreachableError(f"{target} cannot be written: {said}") from None


def _mark() -> str:
    """What a run bears while this process writes it."""
    return f"{socket.gethostname()} {os.getpid()}"


def _delete_fresh(store: _Store) -> None:
    """Delete what this export has added. Found by its mark, too: ctrl-C may come when a run is in the store and
    ``create_run`` has not returned."""
    found = list(store.fresh)
    with suppress(Exception):  # of a full disk, say: the mark stays, and the next export deletes the run
        marked = store.client.search_runs([store.experiment], f"tags.`{UNFINISHED}` = '{_mark()}'")
        found += [run.info.run_id for run in marked]
    for theirs in dict.fromkeys(found):
        with suppress(Exception):
            store.client.delete_run(theirs)


def _delete_abandoned(store: _Store) -> None:
    """Delete runs that an export on this machine was writing when it was killed."""
    here = socket.gethostname()
    for run in store.client.search_runs([store.experiment], f"tags.`{UNFINISHED}` LIKE '{here} %'"):
        process = run.data.tags[UNFINISHED].rpartition(" ")[2]
        if process.isdecimal() and not Path(f"/proc/{process}").exists():
            store.client.delete_run(run.info.run_id)


def _write_run(home: Home, store: _Store, run_id: str, account: Account) -> tuple[str, str, int | None]:
    """Write one run; returns its name there, and status and time of its end, which it gets when all are written."""
    detail = runs.get_run(home, run_id)
    row, client = detail.row, store.client
    mark = f"{run_id}@{row.created_at or 0:.6f}"
    earlier = client.search_runs([store.experiment], f"tags.`mmtui.run` = '{mark}'")
    store.earlier += [run.info.run_id for run in earlier]
    begun = client.create_run(
        store.experiment,
        _milliseconds(row.started_at or row.created_at or 0.0),
        tags={UNFINISHED: _mark()},
        run_name=row.name,
    )
    theirs = begun.info.run_id
    store.fresh.append(theirs)
    names: dict[str, str] = {}
    metrics = (store.entities.Metric(*item) for item in _metrics(home, run_id, account, names))
    while batch := list(islice(metrics, BATCH)):
        client.log_batch(theirs, metrics=batch)
    _log_words(store, theirs, detail, {"mmtui.run": mark, **_tags(detail), **names}, account)
    ended = None if row.ended_at is None else _milliseconds(row.ended_at)
    return theirs, _STATUS.get(RunState(row.state), "SCHEDULED"), ended


def _tags(detail: RunDetail) -> dict[str, str]:
    row = detail.row
    tags = {"mmtui.id": row.id, "mmtui.recipe": row.recipe, "mmtui.state": row.state}
    return tags | {MLFLOW.safe(tag, "mmtui.tag."): tag for tag in row.tags}


def _log_words(store: _Store, theirs: str, detail: RunDetail, tags: dict[str, str], account: Account) -> None:
    """Tags and parameters."""
    marks = [store.entities.RunTag(*item) for item in tags.items()]
    parameters = [store.entities.Param(*item) for item in _parameters(detail, account)]
    for first in range(0, len(marks), BATCH_OF_WORDS):
        store.client.log_batch(theirs, tags=marks[first : first + BATCH_OF_WORDS])
    for first in range(0, len(parameters), BATCH_OF_WORDS):
        store.client.log_batch(theirs, params=parameters[first : first + BATCH_OF_WORDS])


def _parameters(detail: RunDetail, account: Account) -> Iterator[tuple[str, str]]:
    for key, value in flat(detail.config):
        text = str(value)
        if len(text) > LONGEST_PARAMETER:
            account.other[CUT] += 1
        yield MLFLOW.safe(key), text[:LONGEST_PARAMETER]


def _metrics(home: Home, run_id: str, account: Account, names: dict[str, str]) -> Iterator[tuple[str, float, int, int]]:
    """(name, value, milliseconds, step) of every point; ``names`` gets a tag for each name that had to be changed."""
    naming = replace(MLFLOW, longest=MLFLOW.longest - len(METRIC_PREFIX))  # its tag must have room for it
    for point in points(home, run_id, account):
        name = naming.safe(point.metric)
        if name != point.metric:
            names[f"{METRIC_PREFIX}{name}"] = point.metric
        yield name, point.value, _milliseconds(point.time), point.global_step


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
