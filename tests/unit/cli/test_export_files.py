"""What an export leaves: all of it or nothing, in place of its own earlier one and of nobody else's file."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mmtui.paths import Home
from mmtui.services.exchange import mlflow as exchange_mlflow
from tests.unit.cli import courses
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.slow

Invoke = Callable[..., Any]
FORMATS = ("csv", "jsonl", "parquet", "tensorboard", "mlflow", "wandb")
SMALL = 40_000
"""Bytes of the largest file that a process may write here: less than an export of ``full``."""


def needs(to: str) -> None:
    """Skip where the library of a format is not installed."""
    pytest.importorskip({"parquet": "pyarrow", "csv": "csv", "jsonl": "json", "capsule": "tarfile"}.get(to, to))


def mmtui(*words: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "mmtui", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"},
        **options,
    )


def limited() -> None:
    """Files end early, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL, SMALL))


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too, and the empty folders. Of a link where it leads: W&B's to the log of
    its server, which other runs write to."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_symlink():
            found[str(path.relative_to(folder))] = os.fsencode(path.readlink())
        elif path.is_file() or not any(path.iterdir()):
            found[str(path.relative_to(folder))] = path.read_bytes() if path.is_file() else b""
    return found


@pytest.fixture
def two(home: Home) -> tuple[str, str]:
    """A run that fits into a small file, and one that does not."""
    small, large = courses.add_run(home, "small", courses.RESUMED), courses.add_run(home, "large", courses.FORK)
    courses.add_points(home, large, 3000)
    return small, large


@pytest.mark.parametrize("to", FORMATS)
def test_a_full_disk_leaves_nothing_of_a_new_export(two: tuple[str, str], to: str, tmp_path: Path) -> None:
    """The second of two runs does not fit: nothing of the first one is left either."""
    needs(to)
    (tmp_path / "mine").write_text("stays")
    before = tree(tmp_path)
    process = mmtui("export", *two, "--to", to, "-o", str(tmp_path / "deep" / "out"), preexec_fn=limited)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (3, ""), err
    assert err.startswith("error: ") and "cannot be written" in err
    assert tree(tmp_path) == before


@pytest.mark.parametrize("to", FORMATS)
def test_a_full_disk_leaves_an_earlier_export_as_it_was(two: tuple[str, str], to: str, tmp_path: Path) -> None:
    needs(to)
    target = tmp_path / "out"
    # In a process of its own: W&B's client would leave a server that later processes of the test use, without limits.
    first = mmtui("export", two[0], "--to", to, "-o", str(target))
    assert first.communicate(timeout=PATIENCE)[0] == f"{target}\n"
    before = shown(tmp_path, to)
    process = mmtui("export", *two, "--to", to, "-o", str(target), preexec_fn=limited)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (3, ""), err
    assert shown(tmp_path, to) == before


def shown(folder: Path, to: str) -> Any:
    """What the tool shows of an export."""
    if to != "mlflow":
        return tree(folder)
    with closing(sqlite3.connect(folder / "out")) as connection:
        return [
            connection.execute(f"SELECT * FROM {table} WHERE run_uuid IN ({LIVE}) ORDER BY 1, 2, 3").fetchall()
            for table in ("runs", "metrics", "params", "tags")
        ]


LIVE = "SELECT run_uuid FROM runs WHERE lifecycle_stage = 'active'"


def test_a_kill_leaves_the_earlier_file(home: Home, two: tuple[str, str], mmtui_: Invoke, tmp_path: Path) -> None:
    courses.add_points(home, two[0], 300_000)
    target = tmp_path / "folder" / "out.csv"
    assert mmtui_("export", two[1], "--to", "csv", "-o", str(target)).code == 0
    before = target.read_bytes()
    process = mmtui("export", two[1], two[0], "--to", "csv", "-o", str(target))
    until(lambda: [path for path in target.parent.glob(".*") if path.stat().st_size > len(before)], "it writes")
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it was on its way"
    assert target.read_bytes() == before


def marked(store: Path) -> list[str]:
    """Runs of a store of MLflow that are being written, or were when somebody was killed."""
    sql = f"SELECT run_uuid FROM tags WHERE key = 'mmtui.unfinished' AND run_uuid IN ({LIVE})"
    with closing(sqlite3.connect(store, timeout=PATIENCE)) as connection:
        return [row[0] for row in connection.execute(sql)]


@pytest.fixture
def shared_store(home: Home, two: tuple[str, str], mmtui_: Invoke, tmp_path: Path) -> Path:
    """A store of MLflow with the second run, while the first one takes a while to be written."""
    pytest.importorskip("mlflow")
    courses.add_points(home, two[0], 300_000)
    assert mmtui_("export", two[1], "--to", "mlflow", "-o", str(tmp_path / "store")).code == 0
    return tmp_path / "store"


def live(store: Path) -> int:
    with closing(sqlite3.connect(store)) as connection:
        return int(connection.execute(f"SELECT count(*) FROM ({LIVE})").fetchone()[0])


def test_a_kill_leaves_a_marked_run_in_mlflow_which_the_next_export_deletes(
    two: tuple[str, str], shared_store: Path, mmtui_: Invoke
) -> None:
    process = mmtui("export", two[0], "--to", "mlflow", "-o", str(shared_store))
    (left,) = until(lambda: marked(shared_store), "a run is being written")
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it was on its way"
    assert marked(shared_store) == [left], "a kill leaves the run, and says so in it"
    assert mmtui_("export", two[1], "--to", "mlflow", "-o", str(shared_store)).code == 0
    assert marked(shared_store) == [] and live(shared_store) == 1


def test_ctrl_c_leaves_no_run_in_mlflow_and_the_earlier_ones(two: tuple[str, str], shared_store: Path) -> None:
    process = mmtui("export", two[1], two[0], "--to", "mlflow", "-o", str(shared_store))
    until(lambda: marked(shared_store), "a run is being written")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (130, "interrupted\n")
    assert marked(shared_store) == [] and live(shared_store) == 1


def test_ctrl_c_while_mlflow_creates_a_run_leaves_none(
    home: Home, two: tuple[str, str], mmtui_: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    store = tmp_path / "store"
    assert mmtui_("export", two[1], "--to", "mlflow", "-o", str(store)).code == 0
    create_run = mlflow.MlflowClient.create_run

    def interrupted(*arguments: Any, **options: Any) -> None:
        create_run(*arguments, **options)
        assert len(marked(store)) == 1, "it is in the store, and nobody here knows its name"
        raise KeyboardInterrupt

    monkeypatch.setattr(mlflow.MlflowClient, "create_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        exchange_mlflow.write(home, [two[0]], store)
    assert marked(store) == [] and live(store) == 1


@pytest.mark.parametrize("to", ["csv", "tensorboard", "wandb"])
def test_ctrl_c_leaves_nothing(home: Home, two: tuple[str, str], to: str, tmp_path: Path) -> None:
    needs(to)
    courses.add_points(home, two[0], 300_000)
    process = mmtui("export", two[0], "--to", to, "-o", str(tmp_path / "new" / "out"))
    until(lambda: list((tmp_path / "new").rglob(".*")), "it writes")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130 and err.splitlines()[-1] == "interrupted"
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("to", ["csv", "jsonl", "parquet", "capsule", "mlflow"])
def test_a_file_of_somebody_else_is_not_written_over(whole: Home, mmtui_: Invoke, to: str, tmp_path: Path) -> None:
    needs(to)
    target = tmp_path / "thesis"
    with closing(sqlite3.connect(target)) as connection:  # MLflow's is SQLite, too
        connection.execute("CREATE TABLE chapters (text)")
        connection.commit()
    before = target.read_bytes()
    outcome = mmtui_("export", "1", "--to", to, "-o", str(target))
    assert (outcome.code, outcome.out) == (5, "") and "--force" in outcome.err
    assert target.read_bytes() == before and list(tmp_path.iterdir()) == [target]
    for options in (["--force"], []):  # then it is ours
        assert mmtui_("export", "1", "--to", to, "-o", str(target), *options).code == 0
    assert target.read_bytes() != before


def test_tensorboard_replaces_its_own_folders_alone(populated: Home, mmtui_: Invoke, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / "events.out.tfevents.1.theirs").write_bytes(b"theirs")
    (tmp_path / "notes").write_text("mine")
    assert mmtui_("export", "1", "--to", "tensorboard", "-o", str(tmp_path)).code == 0
    before = tree(tmp_path)
    outcome = mmtui_("export", "1", "2", "--to", "tensorboard", "-o", str(tmp_path))
    assert outcome.code == 5 and "--force" in outcome.err
    assert tree(tmp_path) == before
    assert mmtui_("export", "1", "2", "--to", "tensorboard", "-o", str(tmp_path), "--force").code == 0
    assert not (tmp_path / "2" / "events.out.tfevents.1.theirs").exists()
    assert (tmp_path / "notes").read_text() == "mine"


def test_tensorboard_keeps_the_run_of_another_data_directory_that_has_the_same_number(
    populated: Home, mmtui_: Invoke, tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard")
    argv = ("export", "1", "--to", "tensorboard", "-o", str(tmp_path))
    assert [mmtui_(*argv).code for _ in range(2)] == [0, 0]
    before = tree(tmp_path)
    with closing(sqlite3.connect(populated.database)) as connection, connection:
        connection.execute("UPDATE runs SET created_at = created_at + 7 WHERE id = 1")  # what tells the two apart
    outcome = mmtui_(*argv)
    assert outcome.code == 5 and "--force" in outcome.err
    assert tree(tmp_path) == before
    assert mmtui_(*argv, "--force").code == 0


def test_mlflow_is_added_to_whatever_else_is_in_it(populated: Home, mmtui_: Invoke, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'shared.db'}")
    theirs = client.create_run(client.create_experiment("theirs")).info.run_id
    client.log_metric(theirs, "loss", 1.5)
    for options in ([], ["--force"]):
        assert mmtui_("export", "1", "--to", "mlflow", "-o", str(tmp_path / "shared.db"), *options).code == 0
        assert client.get_run(theirs).data.metrics == {"loss": 1.5}
        assert len(client.search_runs([client.get_experiment_by_name("mmtui").experiment_id])) == 1


@pytest.mark.parametrize(
    ("to", "name", "said"),
    [
        ("mlflow", "m?x.db", "in which ? has a meaning"),
        ("mlflow", "m#x.db", "in which # has a meaning"),
        ("mlflow", "m%41.db", "in which % has a meaning"),
        ("mlflow", "m\udcff.db", "m\\xff.db: the library of mlflow takes UTF-8 names alone"),
        ("wandb", "w\udcff", "w\\xff: the library of wandb takes UTF-8 names alone"),
    ],
)
def test_a_path_that_a_tool_cannot_be_told_is_refused(
    two: tuple[str, str], mmtui_: Invoke, tmp_path: Path, to: str, name: str, said: str
) -> None:
    """Else MLflow wrote to the file that is called like the part before the ?, and mmtui said so many points."""
    folder = tmp_path / "new"
    folder.mkdir()
    done = mmtui_("export", two[0], "--to", to, "-o", str(folder / name))
    assert done.code == 2 and said in done.err, done.err
    assert not list(folder.iterdir())


@pytest.mark.parametrize("to", ["tensorboard", "wandb"])
@pytest.mark.parametrize("below", [".", "deep/er"])
def test_a_folder_of_runs_below_a_file_is_refused(
    two: tuple[str, str], mmtui_: Invoke, tmp_path: Path, to: str, below: str
) -> None:
    file = tmp_path / "mine"
    file.write_text("stays")
    done = mmtui_("export", two[0], "--to", to, "-o", str(file / below), "--force")
    assert done.code == 5 and f"{file} is no folder" in done.err, done.err
    assert file.read_text() == "stays"
