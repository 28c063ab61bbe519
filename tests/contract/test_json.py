"""The JSON of the command line: keys of schema version 1 are never renamed or dropped inside that version."""

from __future__ import annotations

import json
import re
import sys
from subprocess import run
from typing import Any

import pytest

from mmtui.cli import jsonform
from mmtui.errors import ExitCode
from mmtui.paths import Home
from tests.waiting import PATIENCE

RUN = {
    "id", "name", "recipe", "state", "reason", "stage", "progress", "created_at", "started_at", "ended_at",
    "seed", "gpus", "tags", "metrics",
}  # fmt: skip
DETAIL = RUN | {"config", "overrides", "stages", "attempts", "error", "code", "host", "paths"}
STAGE = {
    "name", "position", "status", "step", "total_steps", "offset", "started_at", "ended_at", "seconds_per_step",
    "eta_seconds",
}  # fmt: skip
ATTEMPT = {
    "number", "pid", "started_at", "ended_at", "outcome", "resumed_stage", "resumed_step", "host", "device",
}  # fmt: skip
DEVICES = {
    "time", "gpus", "gpu_note", "cpu_percent", "cpu_count", "load1", "memory_used", "memory_total", "disk_free",
    "disk_total", "simulated", "trainers",
}  # fmt: skip
KEY = {
    "key", "type", "choices", "low", "high", "low_excluded", "high_excluded", "nullable", "help", "default", "recipe",
    "value", "values", "changed_by",
}  # fmt: skip
RECIPE = {"name", "description", "data", "stages", "reference_miou", "path", "error"}
SUPERVISOR = {"running", "pid", "started_at", "active_runs", "queued_runs", "home"}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def document(*argv: str, code: int | None = 0) -> dict[str, Any]:
    """stdout of a command as the one JSON document it must be."""
    done = run([sys.executable, "-m", "mmtui", *argv], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert code is None or done.returncode == code, done.stderr
    body = json.loads(done.stdout, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert body["schema_version"] == 1
    assert isinstance(body, dict)
    return body


def test_ls(populated: Home) -> None:
    body = document("ls", "--json")
    assert [run["id"] for run in body["runs"]] == ["3", "2", "1"]
    for found in body["runs"]:
        assert set(found) >= RUN
        assert set(found["metrics"]) >= {"miou", "loss"}
        assert TIME.fullmatch(found["created_at"])
    assert body["runs"][0]["started_at"] is None
    assert TIME.fullmatch(body["runs"][2]["ended_at"])


def test_show(populated: Home) -> None:
    body = document("show", "1", "--json")
    assert set(body) >= DETAIL
    assert all(set(stage) >= STAGE for stage in body["stages"])
    assert all(set(attempt) >= ATTEMPT for attempt in body["attempts"])
    assert (len(body["stages"]), len(body["attempts"])) == (2, 1)
    assert TIME.fullmatch(body["attempts"][0]["started_at"])
    assert {"run", "log", "checkpoints", "predictions"} <= set(body["paths"])


def test_classes(populated: Home) -> None:
    body = document("classes", "1", "--json")
    assert set(body) >= {"run", "step", "num_present", "miou", "classes"}
    assert (body["run"], body["step"], body["num_present"]) == ("1", 4, 2)
    assert all(set(c) >= {"index", "name", "iou", "accuracy", "pixels"} for c in body["classes"])
    assert body["classes"][2]["iou"] is None


def test_metrics(populated: Home) -> None:
    body = document("metrics", "1", "-m", "loss", "--json")
    assert set(body) >= {"run", "metric", "points"}
    assert all(set(p) >= {"step", "value", "time", "attempt", "stage"} for p in body["points"])
    assert all(TIME.fullmatch(p["time"]) for p in body["points"])


def test_recipes_gpu_doctor_queue_daemon_wait(populated: Home) -> None:
    assert all(set(view) >= RECIPE for view in document("recipes", "--json")["recipes"])
    assert all(set(key) >= KEY for key in document("recipes", "shapes_baseline", "--json")["keys"])
    assert set(document("gpu", "--json")) >= DEVICES
    checks = document("doctor", "--json", code=None)["checks"]
    assert all(set(check) >= {"name", "ok", "text", "fix"} for check in checks)
    queue = document("queue", "--json")
    assert set(queue) >= {"supervisor", "counts", "active"}
    assert set(queue["supervisor"]) >= SUPERVISOR
    assert set(document("daemon", "status", "--json", code=3)["supervisor"]) >= SUPERVISOR
    assert document("wait", "1", "--json")["runs"] == [{"id": "1", "state": "succeeded"}]


def test_ls_of_nothing_is_an_empty_list(home: Home) -> None:
    assert document("ls", "--json")["runs"] == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_become_null(capsys: pytest.CaptureFixture[str], value: float) -> None:
    from mmtui.cli import render

    render.document({"a": value, "b": [{"c": value}], "d": (value, 1)})
    assert json.loads(capsys.readouterr().out) == {"schema_version": 1, "a": None, "b": [{"c": None}], "d": [None, 1]}


def test_when_is_utc_with_milliseconds() -> None:
    assert jsonform.when(0.0005) == "1970-01-01T00:00:00.000Z"
    assert jsonform.when(1_700_000_000.25) == "2023-11-14T22:13:20.250Z"
    assert jsonform.when(None) is None


def test_exit_codes_are_frozen() -> None:
    assert {code.name: code.value for code in ExitCode} == {
        "OK": 0,
        "FAILED": 1,
        "USAGE": 2,
        "UNREACHABLE": 3,
        "NOT_FOUND": 4,
        "REFUSED": 5,
        "NO_RESOURCES": 6,
        "TIMED_OUT": 124,
        "INTERRUPTED": 130,
    }
