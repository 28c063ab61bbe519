"""A trainer that reports other code than what was frozen for its run is ended, and nothing goes on from its work."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from mmtui.services import code, runs
from tests.unit.supervisor.conftest import Workshop

SAYS = """
def says(digest):
    told = dict(stages=[["segment", recipe["steps"]]], code=dict(sha256=digest, held=True))
    emit("run_started", begin, told, "")
says(recipe["says"])
"""
SHARES = """
for run, key in ((os.environ["MMTUI_RUN_ID"], "a" * 32), ("99", "b" * 32)):
    entry = run_dir.parent.parent / "stages" / key
    entry.mkdir(parents=True)
    (entry / "meta.json").write_text(json.dumps(dict(stage="proxy", run=run, made_at=time.time(), files={})))
"""


def whole(workshop: Workshop) -> dict[str, Any]:
    """The stand-in, frozen as this version does it: what a run's row says of it."""
    source = workshop.home.code / workshop.code
    full = code.digest_of(code.files_of(source))
    if not (workshop.home.code / full[:16]).exists():
        shutil.copytree(source, workshop.home.code / full[:16])
    return {"digest": full[:16], "sha256": full}


def test_trainer_that_reports_other_code_is_killed_and_its_run_fails(workshop: Workshop) -> None:
    """It does not even hear SIGTERM; nobody takes over what it has shared, and what others have shared stays."""
    row = whole(workshop)
    run_id = workshop.add(code=row, says="0" * 64, does=SHARES + SAYS, waits=True, deaf=True)
    workshop.start()
    found = workshop.until_state(run_id, "failed")
    text = f"the trainer loaded other code (SHA-256 {'0' * 64}) than what was frozen ({row['sha256']})"
    assert found.reason == text
    detail = runs.get_run(workshop.home, run_id)
    assert (detail.error, [(a.outcome, a.code) for a in detail.attempts]) == (text, [("failed", "differs")])
    assert not workshop.trainers()
    assert [entry.name for entry in workshop.home.stage_cache.iterdir()] == ["b" * 32]


def test_trainer_that_reports_other_code_and_is_done_by_then_has_failed(workshop: Workshop) -> None:
    """No supervisor was there while it ran."""
    row = whole(workshop)
    run_id = workshop.add(code=row, says="0" * 64, does=SAYS, waits=True)
    workshop.start()
    workshop.until(lambda: workshop.sql("SELECT pid FROM attempts WHERE pid IS NOT NULL"), "its trainer")
    workshop.kill()
    workshop.let_end(run_id)
    workshop.start()
    assert "loaded other code" in workshop.until_state(run_id, "failed").reason
    assert [a.outcome for a in runs.get_run(workshop.home, run_id).attempts] == ["failed"], "whatever it says of itself"


@pytest.mark.parametrize("full", [True, False])
def test_trainer_that_reports_its_own_code_or_nothing_goes_on(workshop: Workshop, full: bool) -> None:
    row = whole(workshop)
    does = {"does": SAYS, "says": row["sha256"]} if full else {}
    run_id = workshop.add(code=row, **does)
    workshop.start()
    workshop.until_state(run_id, "succeeded")
    assert [a.code for a in runs.get_run(workshop.home, run_id).attempts] == ["unproven"]


def test_code_that_an_earlier_version_froze_is_run_unproven(workshop: Workshop) -> None:
    run_id = workshop.add()
    workshop.start()
    workshop.until_state(run_id, "succeeded")
    assert [a.code for a in runs.get_run(workshop.home, run_id).attempts] == ["unproven"]
