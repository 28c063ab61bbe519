"""Runs for other tools, read back by these tools; capsules; runs from elsewhere; a lost database made again."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmtui.paths import Home
from mmtui.services import runs

Invoke = Callable[..., Any]
LOSSES = {step: 1 / step for step in range(1, 5)}


# ---- tables and TensorBoard ---------------------------------------------------------------------------------------


def test_export_csv_has_every_point_to_the_last_bit(populated: Home, mmtui_: Invoke, tmp_path: Path) -> None:
    file = tmp_path / "new" / "out.csv"
    assert mmtui_("export", "1", "2", "--to", "csv", "-o", str(file)).out == f"{file}\n"
    rows = list(csv.DictReader(file.open()))
    assert {int(r["step"]): float(r["value"]) for r in rows if r["metric"] == "loss"} == LOSSES
    assert {r["run"] for r in rows} == {"1"}, "the second has logged nothing"


def test_export_jsonl_is_one_object_a_line(populated: Home, mmtui_: Invoke, tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    assert mmtui_("export", "1", "--to", "jsonl", "-o", str(file)).code == 0
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert {r["step"]: r["value"] for r in rows if r["metric"] == "loss"} == LOSSES
    assert set(rows[0]) == {"run", "name", "metric", "stage", "step", "global_step", "attempt", "time", "value"}


def test_export_parquet_is_read_back_by_pyarrow(populated: Home, mmtui_: Invoke, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "out.parquet"
    assert mmtui_("export", "1", "--to", "parquet", "-o", str(file)).code == 0
    rows = parquet.read_table(file).to_pylist()
    assert {r["step"]: r["value"] for r in rows if r["metric"] == "loss"} == LOSSES
    empty = tmp_path / "empty.parquet"
    assert mmtui_("export", "2", "--to", "parquet", "-o", str(empty)).code == 0
    assert parquet.read_table(empty).num_rows == 0


def test_export_tensorboard_is_read_back_by_tensorboard(populated: Home, mmtui_: Invoke, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert mmtui_("export", "1", "--to", "tensorboard", "-o", str(tmp_path / "tb")).code == 0
    found = accumulator.EventAccumulator(str(tmp_path / "tb" / "1"))
    found.Reload()
    assert set(found.Tags()["scalars"]) == {"loss", "lr"}
    scalars = {event.step: event.value for event in found.Scalars("loss")}
    assert scalars == {step: pytest.approx(value, rel=1e-6) for step, value in LOSSES.items()}


def test_export_mlflow_is_read_back_by_mlflow(populated: Home, mmtui_: Invoke, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    file = tmp_path / "new" / "mlflow.db"
    for _ in range(2):  # the second time nothing is doubled
        assert mmtui_("export", "1", "2", "--to", "mlflow", "-o", str(file)).code == 0
    client = MlflowClient(tracking_uri=f"sqlite:///{file}")
    experiment = client.get_experiment_by_name("mmtui").experiment_id
    found = {run.data.tags["mmtui.id"]: run for run in client.search_runs([experiment])}
    assert set(found) == {"1", "2"}
    history = client.get_metric_history(found["1"].info.run_id, "loss")
    assert {point.step: point.value for point in history} == LOSSES, "doubles arrive whole"
    detail = runs.get_run(populated, "1")
    assert found["1"].info.status == "FINISHED"
    assert found["1"].info.start_time == round(detail.row.started_at * 1000)
    assert found["1"].data.params["seed"] == str(detail.config["seed"])


def test_export_wandb_is_read_back_by_wandb(populated: Home, mmtui_: Invoke, tmp_path: Path) -> None:
    """``wandb leet inspect`` is their own reader of what ``wandb sync`` would send."""
    pytest.importorskip("wandb")
    outcome = mmtui_("export", "1", "--to", "wandb", "-o", str(tmp_path / "wb"))
    assert outcome.code == 0 and "wandb leet" in outcome.err
    (folder,) = (tmp_path / "wb" / "wandb").glob("offline-run-*")
    program = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect"]
    env = {**os.environ, "HOME": str(tmp_path), "WANDB_ERROR_REPORTING": "false"}

    def read(*options: str) -> str:
        return subprocess.run([*program, *options, folder], env=env, capture_output=True, text=True, check=True).stdout

    assert re.search(r"loss +0\.25", read("--summary")) and "seed" in read("--summary")
    records = [json.loads(line) for line in read("--json").splitlines()]
    logged = [record["history"]["item"] for record in records if record["type"] == "history"]
    assert {item["_step"]: item["loss"] for item in logged} == LOSSES
    times = {point.global_step: point.time for point in runs.points(populated, "1", "loss")}
    assert {item["_step"]: item["_timestamp"] for item in logged} == times, "when it was logged, not exported"
    (theirs,) = [record["run"] for record in records if record["type"] == "run"]
    assert (theirs["display_name"], theirs["tags"]) == ("good", ["demo"])


def test_import_tensorboard_gives_the_points_that_were_exported(
    populated: Home, mmtui_: Invoke, tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard")
    mmtui_("export", "1", "--to", "tensorboard", "-o", str(tmp_path / "tb"))
    run_id = mmtui_("import", str(tmp_path / "tb" / "1"), "--name", "theirs").out.strip()
    row = runs.get_run(populated, run_id).row
    assert (row.name, row.state, row.tags) == ("theirs", "succeeded", ("imported",))
    points = {p.global_step: p.value for p in runs.points(populated, run_id, "loss")}
    assert points == {step: pytest.approx(value, rel=1e-6) for step, value in LOSSES.items()}


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("1", "--to", "xls", "-o", "x"), 2),
        (("1", "2", "--to", "capsule", "-o", "x"), 2),
        (("9", "--to", "csv", "-o", "x"), 4),
        (("3", "--to", "capsule", "-o", "x"), 5),
        (("1", "--to", "csv", "-o", "/proc/nowhere/x.csv"), 3),
    ],
)
def test_export_that_cannot_be_done_says_so(
    populated: Home, mmtui_: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: tuple[str, ...], code: int
) -> None:
    monkeypatch.chdir(tmp_path)
    found = mmtui_("export", *words)
    assert found.code == code
    assert found.err.startswith("error: ") and "Traceback" not in found.err


def test_import_of_what_is_not_there_says_so(home: Home, mmtui_: Invoke, tmp_path: Path) -> None:
    assert mmtui_("import", str(tmp_path / "no.tar")).code == 2
    assert mmtui_("import", str(tmp_path / "no.jsonl")).code == 4
    (tmp_path / "events.jsonl").write_text("no json\n")
    assert mmtui_("import", str(tmp_path / "events.jsonl")).code == 2


def test_import_of_a_foreign_event_file(home: Home, mmtui_: Invoke, tmp_path: Path) -> None:
    file = tmp_path / "theirs" / "events.jsonl"
    file.parent.mkdir()
    events = [
        {
            "v": 1,
            "seq": n,
            "t": 1e9 + n,
            "kind": "metrics",
            "stage": "x",
            "step": n,
            "global_step": n,
            "values": {"loss": 1 / n},
        }
        for n in range(1, 4)
    ]
    file.write_text("".join(json.dumps(event) + "\n" for event in events))
    run_id = mmtui_("import", str(file), "-q").out.strip()
    assert [p.value for p in runs.points(home, run_id, "loss")] == [1.0, 0.5, 1 / 3]
    assert runs.get_run(home, run_id).row.name == "theirs"


# ---- a lost database ----------------------------------------------------------------------------------------------


def test_doctor_rebuild_makes_lost_rows_again(whole: Home, mmtui_: Invoke) -> None:
    before = runs.get_run(whole, "1")
    table = runs.class_table(whole, "1")
    for file in whole.root.glob("mmtui.db*"):
        file.unlink()
    shutil.copytree(whole.run("3").root, whole.run("12").root)
    (whole.run("12").root / "run.json").write_text("{")
    found = mmtui_("doctor", "--rebuild")
    assert found.code == 1, "one folder is damaged"
    assert found.out.splitlines() == ["1 succeeded", "3 held"], "the second run had no manifest"
    assert f"error: {whole.run('12').root}" in found.err
    after = runs.get_run(whole, "1")
    assert (after.row.name, after.row.metrics, after.row.state) == ("good", before.row.metrics, "succeeded")
    assert after.row.tags == ("demo",)
    assert runs.class_table(whole, "1") == table
    assert mmtui_("run", "shapes_baseline", "--hold", "-q").out == "13\n", "no id is given twice"
    assert mmtui_("doctor", "--rebuild").out == ""
    told = mmtui_("doctor", "--rebuild", "--json").json()["folders"]
    assert [(Path(one["folder"]).name, bool(one["problem"])) for one in told] == [("2", True), ("12", True)]
    assert mmtui_("doctor", "--rebuild", "--fix").code == 2


def test_doctor_rebuild_keeps_what_a_run_trains_on_and_a_capsule_does_not(
    home: Home, mmtui_: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    mmtui_("run", "shapes_smoke", "--gpus", "0.5", "--hold", "-q")
    options = ("--slurm", "partition=long", "--slurm", "time=90")
    mmtui_("run", "shapes_smoke", "--gpus", "2", "--launcher", "slurm", *options, "--hold", "-q")
    before = [mmtui_("show", run, "--json").json()["terms"] for run in ("1", "2")]
    assert [one["gpus"] for one in before] == [0.5, 2.0] and before[1]["launcher"]["partition"] == "long"
    capsule = tmp_path / "two.capsule"
    mmtui_("cancel", "2")
    assert mmtui_("export", "2", "--to", "capsule", "-o", str(capsule)).code == 0
    for file in home.root.glob("mmtui.db*"):
        file.unlink()
    mmtui_("doctor", "--rebuild")
    assert [mmtui_("show", run, "--json").json()["terms"] for run in ("1", "2")] == before
    monkeypatch.setenv("MMTUI_HOME", str(tmp_path / "other"))
    assert mmtui_("import", str(capsule)).code == 0
    told = mmtui_("show", "1", "--json").json()["terms"]
    assert (told["gpus"], told["launcher"]) == (1.0, None), "a stranger does not say what a run here trains on"


@pytest.mark.parametrize(
    "terms",
    [
        [],
        {"wanted": "2", "launcher": "slurm"},
        {"wanted": -1, "launcher": {"kind": "other", "nodes": 1, "processes": 1, "gpus": 0}},
        {"wanted": 1e400, "launcher": {"kind": "slurm", "nodes": 1, "processes": True, "gpus": 0}},
        {"wanted": None, "launcher": {"kind": "slurm", "nodes": 1, "processes": 1, "gpus": 0, "partition": ["x"]}},
        {"wanted": 0, "launcher": {"kind": "slurm", "nodes": 1, "processes": 1, "gpus": 0, "mem_gb": 0}},
    ],
)
def test_doctor_rebuild_believes_no_terms_that_cannot_be(home: Home, mmtui_: Invoke, terms: Any) -> None:
    mmtui_("run", "shapes_smoke", "--hold", "-q")
    manifest = home.run("1").manifest
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "terms": terms}))
    for file in home.root.glob("mmtui.db*"):
        file.unlink()
    assert mmtui_("doctor", "--rebuild").code == 0
    told = mmtui_("show", "1", "--json").json()["terms"]
    assert (told["gpus"], told["launcher"]) == (1.0, None)


def test_doctor_rebuild_run_that_had_not_ended_is_interrupted_and_can_go_on(whole: Home, mmtui_: Invoke) -> None:
    events = whole.run("1").events(1)
    events.write_bytes(b"".join(events.read_bytes().splitlines(keepends=True)[:5]))
    for file in whole.root.glob("mmtui.db*"):
        file.unlink()
    mmtui_("doctor", "--rebuild")
    row = runs.get_run(whole, "1").row
    assert (row.state, row.attempt) == ("interrupted", 1)
    assert "retry" in row.reason
