"""A run's folder that is moved while it trains: nothing is written in its old place."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import run_folder
from engine.errors import EngineError


@pytest.mark.parametrize("replaced", [False, True])
def test_folder_that_was_moved_or_replaced_is_not_made_again(tmp_path: Path, replaced: bool) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with run_folder.claimed(run):
        run_folder.make_folder(run / "checkpoints" / "match")
        assert (run / "checkpoints" / "match").is_dir()
        run.rename(tmp_path / "moved")
        if replaced:
            run.mkdir()
        with pytest.raises(EngineError, match="put it back and retry the run"):
            run_folder.make_folder(run / "checkpoints" / "segment")
        assert not (run / "checkpoints").exists()
        if replaced:
            run.rmdir()
        (tmp_path / "moved").rename(run)
        run_folder.make_folder(run / "checkpoints" / "segment")
    run.rename(tmp_path / "moved")
    run_folder.make_folder(run)
