"""Terms of runs under a real supervisor: shared stages, shares and several places, limits, budgets, hooks."""

from __future__ import annotations

import json
import os
import signal
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mmtui.services import queue, runs

if TYPE_CHECKING:
    from collections.abc import Callable

    Workshop = Any

pytestmark = pytest.mark.e2e


def test_runs_of_the_same_stage_wait_for_the_one_that_trains_it(workshop: Workshop) -> None:
    same = {"shared_stages": {"segment": "abc"}}
    ids = [workshop.add(steps=60, waits=True, terms=same) for _ in range(2)]
    other = workshop.add(steps=60, waits=True, terms={"shared_stages": {"segment": "xyz"}})
    workshop.start(MMTUI_CPU_SLOTS="3")
    workshop.until_state(other, "running")
    reason = f"waiting for #{ids[0]}, which trains the same segment stage"
    workshop.until(lambda: workshop.row(ids[1]).reason == reason, "the second says for whom it waits")
    assert workshop.row(ids[0]).state == "running"
    for run_id in (*ids, other):
        workshop.let_end(run_id)
    workshop.until_state(ids[1], "succeeded")
    (began,) = workshop.sql("SELECT min(t) FROM transitions WHERE run_id = ? AND event = 'start'", ids[1])[0]
    (ended,) = workshop.sql("SELECT max(t) FROM transitions WHERE run_id = ? AND event = 'exit_ok'", ids[0])[0]
    assert began >= ended


def test_runs_of_the_same_stage_go_on_when_the_one_that_trains_it_fails(workshop: Workshop) -> None:
    same = {"shared_stages": {"segment": "abc"}}
    first, second = workshop.add(steps=5, fail="no such file", terms=same), workshop.add(steps=5, terms=same)
    workshop.start(MMTUI_CPU_SLOTS="2")
    workshop.until_state(second, "succeeded")
    assert workshop.row(first).state == "failed"


def test_runs_with_half_a_place_share_it(workshop: Workshop) -> None:
    ids = [workshop.add(steps=2000, terms={"wanted": 0.5}) for _ in range(3)]
    workshop.start(MMTUI_CPU_SLOTS="1")
    workshop.until(lambda: [workshop.row(i).state for i in ids] == ["running", "running", "queued"], "two share")
    assert workshop.row(ids[0]).gpus == workshop.row(ids[1]).gpus == ("cpu:0",)


def test_run_with_more_places_than_there_are_says_so_and_lets_others_pass(workshop: Workshop) -> None:
    greedy, small = workshop.add(terms={"wanted": 3.0}), workshop.add()
    workshop.start(MMTUI_CPU_SLOTS="2")
    workshop.until_state(small, "succeeded")
    workshop.until(
        lambda: workshop.row(greedy).reason == "cannot start: it needs 3 CPU slots, this machine has 2", "reason"
    )


def test_time_limit_ends_in_a_checkpoint_and_can_be_extended(workshop: Workshop) -> None:
    run_id = workshop.add(steps=400, seconds_per_step=0.02, save_every=10_000, terms={"time_limit": 1.0})
    workshop.start()
    row = workshop.until_state(run_id, "cancelled")
    assert "time limit" in row.reason or "checkpoint" in row.reason
    (told,) = workshop.sql("SELECT reason FROM transitions WHERE run_id = ? AND event = 'cancel'", run_id)[0]
    assert told.startswith("its time limit of 1s is over; mmtui retry")
    step = int((workshop.home.run(run_id).root / "checkpoint").read_text())
    assert 5 < step < 400
    queue.extend(workshop.home, run_id, 60)
    queue.retry(workshop.home, run_id)
    workshop.until_state(run_id, "succeeded")
    told_steps, stored = workshop.steps_told_and_stored(run_id)
    assert told_steps == stored
    assert (2, step + 1) in stored


def test_budget_that_is_spent_starts_none_and_lets_the_last_one_finish(workshop: Workshop) -> None:
    ids = [workshop.add(steps=40, seconds_per_step=0.02, terms={"group": "g"}) for _ in range(2)]
    queue.set_budget(workshop.home, "g", 0.1 / 3600)
    workshop.start()
    workshop.until_state(ids[0], "succeeded")
    workshop.until(lambda: "device hours" in workshop.row(ids[1]).reason, "the second says why")
    assert workshop.row(ids[1]).state == "queued"
    queue.set_budget(workshop.home, "g", None)
    workshop.until_state(ids[1], "succeeded")


def test_cancel_save_waits_for_a_slow_checkpoint(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = workshop.add(steps=5000, save_every=100_000, save_seconds=2)
    workshop.start()
    workshop.until_state(run_id, "running")
    workshop.until(lambda: workshop.steps_told_and_stored(run_id)[1], "it trains")
    queue.cancel(workshop.home, run_id, save=True)
    workshop.until_state(run_id, "cancelled")
    (kill_at,) = workshop.sql("SELECT kill_at FROM attempts WHERE run_id = ?", run_id)[0]
    assert kill_at > time.time() + 300
    assert (workshop.home.run(run_id).root / "checkpoint").exists()


@pytest.fixture
def hook(workshop: Workshop, tmp_path: Path) -> Callable[[str], Path]:
    """Settings with a command for both endings; it writes its environment to a file."""

    def make(body: str) -> Path:
        out, script = tmp_path / "told.json", tmp_path / "hook with a space"
        script.write_text(f"#!/usr/bin/env python3\nimport json, os, sys, time\nout = {str(out)!r}\n{body}\n")
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        words = json.dumps([str(script), "a b", "$(id)"])
        workshop.home.config.write_text(f"on_finish = {words}\non_failure = {words}\n")
        return out

    return make


TELL = "json.dump({'argv': sys.argv[1:], **os.environ}, open(out + '.new', 'w')); os.rename(out + '.new', out)"


def test_hook_is_told_what_became_of_a_run_and_no_shell_reads_it(workshop: Workshop, hook: Any) -> None:
    out = hook(TELL)
    run_id = workshop.add(steps=4)
    workshop.start()
    workshop.until(out.exists, "the hook has run")
    told = json.loads(out.read_text())
    assert told["argv"] == ["a b", "$(id)"]
    assert (told["MMTUI_RUN_ID"], told["MMTUI_STATE"], told["MMTUI_LOSS"]) == (run_id, "succeeded", "0.25")
    assert told["MMTUI_RUN_DIR"] == str(workshop.home.run(run_id).root)


def test_hook_runs_after_a_failure_and_not_after_a_requeue_or_cancel(workshop: Workshop, hook: Any) -> None:
    out = hook("open(out, 'a').write(os.environ['MMTUI_RUN_ID'] + os.environ['MMTUI_REASON'] + '|')")
    dies = workshop.add(steps=10, die_at=[4, 0], save_every=2)
    fails = workshop.add(steps=2, fail="no such file")
    workshop.start()
    workshop.until_state(fails, "failed")
    workshop.until(lambda: out.exists() and out.read_text().count("|") == 2, "two endings were told")
    assert f"{fails}no such file|" in out.read_text()
    assert len(workshop.sql("SELECT 1 FROM attempts WHERE run_id = ?", dies)) == 2


def test_hook_that_cannot_run_or_hangs_or_fails_holds_up_nothing(workshop: Workshop, hook: Any) -> None:
    hook("time.sleep(60)")
    first = workshop.add(steps=2)
    workshop.start()
    workshop.until_state(first, "succeeded")
    workshop.home.config.write_text('on_finish = ["/no/such/command"]\n')
    second = workshop.add(steps=2)
    workshop.until_state(second, "succeeded")
    workshop.until(lambda: "/no/such/command cannot be run" in workshop.home.supervisor_log.read_text(), "it is told")
    workshop.home.config.write_text("on_finish = 7\n")
    third = workshop.add(steps=2)
    workshop.until_state(third, "succeeded")
    workshop.until(lambda: "no hook is run" in workshop.home.supervisor_log.read_text(), "it is told")


GIB = 2**30
RECORDING = {
    "format": 1,
    "about": "one GPU of which nobody uses anything",
    "users": {},
    "frames": [
        {
            "devices": [
                {
                    "nvmlDeviceGetName": "H100",
                    "nvmlDeviceGetUUID": "GPU-00000000-1111",
                    "nvmlDeviceGetMemoryInfo": {"total": 80 * GIB, "used": GIB, "free": 79 * GIB},
                    "nvmlDeviceGetComputeRunningProcesses": [],
                }
            ]
        }
    ],
}


def test_share_of_a_gpu_is_measured_alone_first_and_then_packed(workshop: Workshop, tmp_path: Path) -> None:
    """The GPU is simulated (a recording of NVML); supervisor, trainers and what they report are real."""
    (tmp_path / "gpu.json").write_text(json.dumps(RECORDING))
    source = workshop.home.code / workshop.code / "engine"
    (source / "probe.py").touch()
    main = source / "__main__.py"
    told = '{"peak_bytes": recipe["peak"], "device": "H100", "stages": {"segment": {"seconds_per_step": 0.5}}}'
    line = f'if "--probe" in sys.argv:\n    time.sleep(0.5)\n    emit("probe", begin, {told}, "")\n'
    main.write_text(main.read_text().replace('emit("stage_started"', line + 'emit("stage_started"', 1))
    from mmtui.services import code

    digest = code.digest_of_sources(source)
    source.parent.rename(workshop.home.code / digest)
    workshop.code = digest
    small = {"wanted": 0.3, "work": "small"}
    first = workshop.add(steps=4000, peak=4 * GIB, terms=small)
    second = workshop.add(steps=4000, peak=4 * GIB, terms=small)
    large = workshop.add(steps=4000, peak=99 * GIB, terms={"wanted": 0.3, "work": "large"})
    workshop.start(MMTUI_NVML_RECORDING=str(tmp_path / "gpu.json"))
    workshop.until_state(first, "running")
    assert workshop.row(second).state == "queued", "before the first is measured nobody joins it"
    workshop.until_state(second, "running")
    assert workshop.row(first).gpus == workshop.row(second).gpus == ("GPU-00000000-1111",)
    commands = {i: Path(f"/proc/{workshop.trainer(i)}/cmdline").read_bytes().split(b"\0") for i in (first, second)}
    assert b"--probe" in commands[first] and b"--probe" not in commands[second], "measured once"
    assert workshop.sql("SELECT work, device, bytes FROM needs") == [("small", "H100", 4 * GIB)]
    workshop.until(lambda: "waiting" in workshop.row(large).reason, "the unmeasured one waits for a whole place")
    os.kill(workshop.trainer(first), signal.SIGTERM)


def test_list_runs_still_reads_what_was_queued_with_terms(workshop: Workshop) -> None:
    run_id = workshop.add(terms={"wanted": 0.5, "time_limit": 9.0})
    assert runs.get_run(workshop.home, run_id).row.state == "queued"


def test_fail_fast_holds_what_waits_of_the_sweep_and_nothing_else(workshop: Workshop) -> None:
    group = {"group": "g"}
    fails = workshop.add(steps=2, fail="no such file", terms=group)
    rest, other = workshop.add(terms=group), workshop.add()
    workshop.sql_write("INSERT INTO settings VALUES ('failfast:g', '1')")
    workshop.start()
    workshop.until_state(rest, "held")
    assert workshop.row(rest).reason == f"run #{fails} of its sweep has failed"
    workshop.until_state(other, "succeeded")


def test_run_after_another_starts_when_that_has_succeeded(workshop: Workshop) -> None:
    first = workshop.add(steps=300, waits=True)
    second = workshop.add(steps=2, terms={"after": [int(first)], "priority": 9})
    workshop.start(MMTUI_CPU_SLOTS="2")
    workshop.until_state(first, "running")
    assert workshop.row(second).state == "queued"
    workshop.until(lambda: workshop.row(second).reason == f"waiting for #{first} to succeed", "the reason")
    workshop.let_end(first)
    workshop.until_state(second, "succeeded")
    assert (workshop.row(second).started_at or 0) >= (workshop.row(first).ended_at or 1e18)


@pytest.mark.parametrize(("policy", "state"), [("hold", "held"), ("cancel", "cancelled"), ("run", "succeeded")])
def test_run_after_one_that_fails_follows_its_policy(workshop: Workshop, policy: str, state: str) -> None:
    first = workshop.add(steps=2, fail="no luck")
    second = workshop.add(steps=2, terms={"after": [int(first)], "if_failed": policy})
    workshop.start()
    row = workshop.until_state(second, state)
    if policy != "run":
        assert row.reason == f"run #{first}, which it waits for, is failed"


def test_group_limit_lets_others_pass(workshop: Workshop) -> None:
    members = [workshop.add(steps=400, waits=True, terms={"group": "g"}) for _ in range(2)]
    other = workshop.add(steps=2)
    queue.limit_group(workshop.home, "g", 1)
    workshop.start(MMTUI_CPU_SLOTS="3")
    workshop.until_state(other, "succeeded")
    assert workshop.row(members[1]).state == "queued"
    workshop.until(lambda: "group g has 1 of 1" in workshop.row(members[1]).reason, "the reason")
    queue.limit_group(workshop.home, "g", None)
    workshop.until_state(members[1], "running", "succeeded")


def test_drained_queue_finishes_what_runs_and_starts_nothing(workshop: Workshop) -> None:
    first, second = workshop.add(steps=300, waits=True), workshop.add(steps=2)
    workshop.start()
    workshop.until_state(first, "running")
    queue.close_queue(workshop.home, "the queue is drained")
    workshop.let_end(first)
    workshop.until_state(first, "succeeded")
    workshop.until(lambda: workshop.row(second).reason == "the queue is drained", "the reason")
    assert workshop.row(second).state == "queued"
    queue.close_queue(workshop.home, "")
    workshop.until_state(second, "succeeded")
