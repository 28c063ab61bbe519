"""Every format read back by its own tool's reader, point by point: resumed, paused, forked and three-stage runs."""

from __future__ import annotations

import csv
import json
import math
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from mmtui.paths import Home
from tests.unit.cli import courses

pytestmark = pytest.mark.slow

Invoke = Callable[..., Any]
COURSES = {
    "resumed": courses.RESUMED,
    "paused": courses.PAUSED,
    "fork": courses.FORK,
    "three stages": courses.THREE_STAGES,
}
ORIGIN = {"run": "1", "stage": "segment", "step": 4, "global_step": 14}


@pytest.fixture(params=COURSES)
def course(request: pytest.FixtureRequest, home: Home) -> tuple[str, courses.Course]:
    """A run's id and what its course was."""
    attempts = COURSES[request.param]
    origin = ORIGIN if request.param == "fork" else None
    return courses.add_run(home, request.param, attempts, origin), courses.expected(attempts)


def same(found: Mapping[Any, float], wanted: Mapping[Any, float]) -> bool:
    """Equal to the last bit; NaN is equal to NaN."""
    return {key: repr(value) for key, value in found.items()} == {key: repr(value) for key, value in wanted.items()}


def by_step(course: courses.Course) -> dict[tuple[str, int], float]:
    """{(metric, global step): value}, for formats that know no stages."""
    found = {(metric, global_step): value for (metric, _, _, global_step), value in course.items()}
    assert len(found) == len(course)
    return found


def placed(rows: list[dict[str, Any]]) -> courses.Course:
    """Rows of a table as a course."""
    found = {
        (row["metric"], row["stage"], int(row["step"]), int(row["global_step"])): float(
            "nan" if row["value"] is None else row["value"]
        )
        for row in rows
    }
    assert len(found) == len(rows), "no point twice"
    return found


def export(invoke: Invoke, run_id: str, to: str, target: Path, count: int) -> None:
    """Export twice: the second time nothing is doubled."""
    for _ in range(2):
        outcome = invoke("export", run_id, "--to", to, "-o", str(target))
        assert (outcome.code, outcome.out) == (0, f"{target}\n"), outcome.err
        assert outcome.err.startswith(f"{count} points")


def test_csv(course: tuple[str, courses.Course], mmtui_: Invoke, tmp_path: Path) -> None:
    run_id, wanted = course
    export(mmtui_, run_id, "csv", tmp_path / "out.csv", len(wanted))
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        assert same(placed(list(csv.DictReader(file))), wanted)


def test_jsonl(course: tuple[str, courses.Course], mmtui_: Invoke, tmp_path: Path) -> None:
    run_id, wanted = course
    export(mmtui_, run_id, "jsonl", tmp_path / "out.jsonl", len(wanted))

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    lines = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert same(placed([json.loads(line, parse_constant=refuse) for line in lines]), wanted)


def test_parquet(course: tuple[str, courses.Course], mmtui_: Invoke, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    run_id, wanted = course
    export(mmtui_, run_id, "parquet", tmp_path / "out.parquet", len(wanted))
    assert same(placed(parquet.read_table(tmp_path / "out.parquet").to_pylist()), wanted)


def test_tensorboard(course: tuple[str, courses.Course], mmtui_: Invoke, tmp_path: Path) -> None:
    """Its scalars have 32 bits."""
    module = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run_id, wanted = course
    export(mmtui_, run_id, "tensorboard", tmp_path / "tb", len(wanted))
    reader = module.EventAccumulator(str(tmp_path / "tb" / run_id), size_guidance={"scalars": 0})
    reader.Reload()
    scalars = [(tag, event.step, event.value) for tag in reader.Tags()["scalars"] for event in reader.Scalars(tag)]
    found = {(tag, step): value for tag, step, value in scalars}
    assert len(found) == len(scalars), "no point twice"
    assert same(found, {key: struct.unpack("f", struct.pack("f", value))[0] for key, value in by_step(wanted).items()})


def test_mlflow(course: tuple[str, courses.Course], mmtui_: Invoke, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    run_id, wanted = course
    export(mmtui_, run_id, "mlflow", tmp_path / "mlflow.db", len(wanted))
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("mmtui").experiment_id])
    found: dict[tuple[str, int], float] = {}
    for name in run.data.metrics:
        original = run.data.tags.get(f"mmtui.metric.{name}", name)
        assert unquote(name.replace(":", "%")) == original, "each way back gives the same"
        history = client.get_metric_history(run.info.run_id, name)
        found |= {(original, point.step): point.value for point in history}
        assert len({point.step for point in history}) == len(history), "no point twice"
    assert same(found, by_step(wanted))


def test_wandb(course: tuple[str, courses.Course], mmtui_: Invoke, tmp_path: Path) -> None:
    """``wandb leet inspect`` is their own reader of what ``wandb sync`` would send."""
    pytest.importorskip("wandb")
    run_id, wanted = course
    export(mmtui_, run_id, "wandb", tmp_path / "wb", len(wanted))
    (folder,) = (tmp_path / "wb" / "wandb").iterdir()
    assert [entry.name for entry in (tmp_path / "wb").iterdir()] == ["wandb"]
    records = inspect(folder, tmp_path)
    (config,) = [record["run"]["config"]["update"] for record in records if record["type"] == "run"]
    names = config["mmtui"]["metrics"]
    found: dict[tuple[str, int], float] = {}
    for item in [record["history"]["item"] for record in records if record["type"] == "history"]:
        step = item.pop("_step")
        for name in set(item) - {"_timestamp", "_runtime"}:
            assert unquote(name) == names.get(name, name), "each way back gives the same"
            found[unquote(name), step] = float(item[name])
    assert same(found, by_step(wanted))


def inspect(folder: Path, home: Path) -> list[dict[str, Any]]:
    program = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", str(folder)]
    env = {**os.environ, "HOME": str(home), "WANDB_ERROR_REPORTING": "false"}
    answer = subprocess.run(program, env=env, capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in answer.splitlines()]


def test_what_is_left_out_is_counted(home: Home, mmtui_: Invoke, tmp_path: Path) -> None:
    run_id, wanted = courses.add_run(home, "resumed", courses.RESUMED), courses.expected(courses.RESUMED)
    err = mmtui_("export", run_id, "--to", "csv", "-o", str(tmp_path / "out.csv")).err
    missing = courses.told_points(courses.RESUMED) - len(wanted)
    assert missing == 18
    assert err.splitlines() == [
        f"{len(wanted)} points of 1 run",
        "left out: 18 points of attempts that went on from an earlier step, where the next attempt did or does them"
        " again",
    ]
    paused = courses.add_run(home, "twice", [*courses.PAUSED, (5, [("segment", 5, 5, {"loss": 9.0})])])
    err = mmtui_("export", paused, "--to", "csv", "-o", str(tmp_path / "paused.csv")).err
    assert "left out: 1 point of a step that two attempts told, of which the later one counts" in err
    with (tmp_path / "paused.csv").open() as file:
        last = [row for row in csv.DictReader(file) if row["metric"] == "loss"][-1]
    assert (last["step"], last["value"]) == ("5", "9.0")


def test_numbers_beyond_a_format_are_counted(home: Home, mmtui_: Invoke, tmp_path: Path) -> None:
    module = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    told: list[courses.Told] = [("segment", 1, 1, {"huge": 1e39, "edge": 3.4028235677973364e38, "least": 1e-46})]
    run_id = courses.add_run(home, "huge", [(0, told)])
    err = mmtui_("export", run_id, "--to", "tensorboard", "-o", str(tmp_path / "tb")).err
    assert "changed: 1 point became infinite: they are beyond the 32-bit numbers of TensorBoard" in err
    reader = module.EventAccumulator(str(tmp_path / "tb" / run_id))
    reader.Reload()
    assert math.isinf(reader.Scalars("huge")[0].value) and math.isfinite(reader.Scalars("edge")[0].value)


@pytest.mark.parametrize("to", ["csv", "jsonl"])
def test_standard_output(populated: Home, to: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mmtui", "export", "1", "--to", to, "-o"]
    piped = subprocess.run([*command, "-"], capture_output=True, cwd=tmp_path, check=True)
    subprocess.run([*command, "file"], capture_output=True, cwd=tmp_path, check=True)
    assert piped.stdout == (tmp_path / "file").read_bytes() and piped.stdout.count(b"\n") >= 8
    assert b"points of 1 run" in piped.stderr


@pytest.mark.parametrize("to", ["parquet", "tensorboard", "mlflow", "wandb", "capsule"])
def test_standard_output_is_refused_where_it_cannot_be(
    populated: Home, mmtui_: Invoke, to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = mmtui_("export", "1", "--to", to, "-o", "-")
    assert (outcome.code, outcome.out) == (2, "") and "standard output" in outcome.err
    assert not list(tmp_path.iterdir())
