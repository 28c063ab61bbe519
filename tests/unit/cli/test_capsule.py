"""A run in one file: taken in whole, once, and never if it is not what was written."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmtui.paths import Home
from mmtui.services import runs
from tests.unit.cli.capsules import named, rewrite, same

Invoke = Callable[..., Any]
ODD_NAMES = {"below a file": "run/run.json/x", "as a folder": "run/attempts", "too long": "run/" + "x" * 300}
"""Names that no file can have beside the others, or at all."""


def test_capsule_is_taken_in_whole_and_once(whole: Home, capsule: Path, elsewhere: Home, mmtui_: Invoke) -> None:
    found = mmtui_("import", str(capsule))
    assert (found.code, found.out, found.err.startswith("error")) == (0, "1\n", False), found.err
    here, there = runs.get_run(elsewhere, "1"), runs.get_run(whole, "1")
    assert (here.row.name, here.row.state, here.row.seed) == ("good", "succeeded", 7)
    assert here.code["digest"] == there.code["digest"]
    assert runs.points(elsewhere, "1", "loss") == runs.points(whole, "1", "loss")
    mine, theirs = runs.class_table(elsewhere, "1"), runs.class_table(whole, "1")
    assert mine is not None and theirs is not None and mine.confusion == theirs.confusion
    weights = elsewhere.run("1").checkpoints / "segment" / "final" / "model.safetensors"
    assert weights.read_bytes() == b"weights" * 1000
    assert (elsewhere.code / here.code["digest"] / "engine" / "loop.py").exists()
    assert not (elsewhere.run("1").checkpoints / "segment" / "step_00000002").exists()
    again = mmtui_("import", str(capsule))
    assert (again.code, again.out, "already" in again.err) == (0, "1\n", True)
    assert len(runs.list_runs(elsewhere)) == 1


def test_capsule_gets_an_id_of_its_own_where_it_is_taken_in(capsule: Path, whole: Home, mmtui_: Invoke) -> None:
    assert mmtui_("import", str(capsule)).out == "4\n"
    assert runs.get_run(whole, "4").row.name == "good"


@pytest.mark.parametrize(
    "harm",
    ["bit", "missing", "stranger", "traversal", "link", "absolute", "no_tar", "format", "code", *ODD_NAMES],
)
def test_capsule_that_is_not_what_was_written_is_refused_and_leaves_nothing(
    capsule: Path, elsewhere: Home, mmtui_: Invoke, tmp_path: Path, harm: str
) -> None:
    evil = b"evil"
    if harm == "bit":
        rewrite(capsule, lambda n, c: (n, c[:-1] + bytes([c[-1] ^ 1])) if n.endswith("events.jsonl") else (n, c))
    elif harm == "missing":
        rewrite(capsule, lambda n, c: None if n.endswith("output.log") else (n, c))
    elif harm == "stranger":
        info = tarfile.TarInfo("run/stranger")
        info.size = len(evil)
        rewrite(capsule, same, (info, io.BytesIO(evil)))
    elif harm in ("traversal", "absolute", *ODD_NAMES):
        name = str(tmp_path / "escaped") if harm == "absolute" else ODD_NAMES.get(harm, "run/../../../escaped")
        info = tarfile.TarInfo(name)
        info.size = len(evil)
        rewrite(
            capsule, lambda n, c: (n, named(c, name, evil)) if n == "capsule.json" else (n, c), (info, io.BytesIO(evil))
        )
    elif harm == "link":
        info = tarfile.TarInfo("run/link")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        rewrite(capsule, lambda n, c: (n, named(c, "run/link", b"")) if n == "capsule.json" else (n, c), (info,))
    elif harm == "no_tar":
        capsule.write_bytes(b"\0" * 50 + b"no tar")
    elif harm == "format":
        rewrite(capsule, lambda n, c: (n, c.replace(b'"format": 1', b'"format": 9')) if n == "capsule.json" else (n, c))
    else:
        changed = b"x = 1\n"

        def swap(name: str, content: bytes) -> tuple[str, bytes]:
            if name == "capsule.json":
                return name, named(content, "code/engine/loop.py", changed)
            return (name, changed) if name == "code/engine/loop.py" else (name, content)

        rewrite(capsule, swap)
    found = mmtui_("import", str(capsule))
    assert found.code == 2, found.err
    assert found.err.splitlines()[-1].startswith("error: ") and "Traceback" not in found.err
    assert not (tmp_path / "escaped").exists()
    assert runs.list_runs(elsewhere) == []
    assert list(elsewhere.runs.glob("*")) == []
    assert list(elsewhere.root.glob(".import*")) == []


@pytest.mark.parametrize("folder", ["1", "0001", "00001", "１２３"])
def test_folder_that_is_an_attempt_only_nearly_is_none(
    capsule: Path, elsewhere: Home, mmtui_: Invoke, folder: str
) -> None:
    name, events = f"run/attempts/{folder}/events.jsonl", b""
    info = tarfile.TarInfo(name)
    rewrite(
        capsule, lambda n, c: (n, named(c, name, events)) if n == "capsule.json" else (n, c), (info, io.BytesIO(events))
    )
    found = mmtui_("import", str(capsule))
    assert found.code == 0, found.err
    assert len(runs.get_run(elsewhere, "1").attempts) == 1


def test_capsule_whose_events_cannot_be_read_says_so(
    whole: Home, elsewhere: Home, mmtui_: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Times in milliseconds: the run was said to have succeeded, and "when the database was lost" to be interrupted."""
    monkeypatch.setenv("MMTUI_HOME", str(whole.root))
    file = whole.run("1").events(1)
    events = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps({**event, "t": 1.764e12 + n}) + "\n" for n, event in enumerate(events)))
    capsule = tmp_path / "ms.capsule"
    assert mmtui_("export", "1", "--to", "capsule", "-o", str(capsule)).code == 0
    monkeypatch.setenv("MMTUI_HOME", str(elsewhere.root))
    found = mmtui_("import", str(capsule))
    assert found.code == 0 and "warning: " in found.err and "event" in found.err
    row = runs.get_run(elsewhere, found.out.strip()).row
    assert (row.state, row.reason) == ("interrupted", "the events in its capsule do not tell that it ended")
