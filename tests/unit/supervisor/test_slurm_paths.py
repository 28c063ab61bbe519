"""Data directories that SLURM cannot be given, and what runs on a node."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from mmtui.errors import MmtuiError
from mmtui.supervisor.launchers import job
from mmtui.supervisor.launchers.slurm import require_plain


@pytest.mark.parametrize("name", ["new\nline", "back\\slash", "tab\there", "\x7f", os.fsdecode(b"h\xff")])
def test_path_that_slurm_does_not_take_is_refused_in_one_printable_sentence(name: str) -> None:
    with pytest.raises(MmtuiError, match="SLURM takes no data directory") as refused:
        require_plain(Path("/home") / name)
    assert refused.value.message.isprintable()
    refused.value.message.encode()


@pytest.mark.parametrize("name", ["a:b", "a b", "50%d%j", "$HOME", "q'u\"o", "Straße", "\u3000"])
def test_path_that_slurm_takes_is_let_through(name: str) -> None:
    require_plain(Path("/home") / name)


def test_torchrun_on_a_node_is_run_by_the_program_that_checks_the_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "2")
    program, engine = ["own_code.py", "/a:b", "0" * 64], ["-m", "engine", "train"]
    words = job.command(tmp_path, 1, [*program, *engine])
    assert words[:4] == [sys.executable, *program] and words[4:6] == ["-m", "torch.distributed.run"]
    assert words[-6:] == [*program, *engine]
    assert job.command(tmp_path, 1, engine)[:3] == [sys.executable, "-m", "torch.distributed.run"]
