"""Code that comes with a capsule: nothing of it runs or lies where one's own runs take theirs, unless asked for."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from mmtui.errors import MmtuiError
from mmtui.paths import Home
from mmtui.services import code, queue, runs, supervisors, trust
from mmtui.services.exchange import capsule as capsules
from mmtui.store.quick import put_setting
from mmtui.supervisor.launchers import job, local
from tests.ptys import Program
from tests.unit.cli.capsules import rewrite
from tests.waiting import until

Invoke = Callable[..., Any]
EVIL = b"import pathlib; pathlib.Path('ran').touch()\n"
STRAYS = ("sitecustomize.py", "engine/loop.abi3.so", "torch/__init__.py", "engine/loop.pyc", "engine/data/__init__.so")


def with_files(
    capsule: Path, files: Mapping[str, bytes], manifest: Callable[[dict[str, Any]], None] | None = None
) -> None:
    """The capsule as a stranger would make it who knows its format: with these files, sums that are right, and a
    manifest that agrees."""
    with tarfile.open(capsule) as archive:
        kept = {m.name: archive.extractfile(m).read() for m in archive if m.isreg()}  # type: ignore[union-attr]
    header = json.loads(kept.pop("capsule.json"))
    kept |= files
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in kept.items()}
    told = json.loads(kept["run/run.json"])
    digest = capsules._digest_of_code(sums)
    told["code"] |= {"sha256": digest, "digest": digest[:16]}
    if manifest is not None:
        manifest(told)
    kept["run/run.json"] = json.dumps(told).encode()
    header["files"] = {name: hashlib.sha256(content).hexdigest() for name, content in kept.items()}
    rewrite(capsule, lambda name, _: (name, json.dumps(header).encode()) if name == "capsule.json" else None)
    with tarfile.open(capsule, "a") as archive:
        for name, content in sorted(kept.items()):
            file = capsule.parent / "member"
            file.write_bytes(content)
            archive.add(file, name)


def end_as(home: Home, run_id: str, state: str) -> None:
    connection = sqlite3.connect(home.database)
    with connection:
        connection.execute("UPDATE runs SET state = ? WHERE id = ?", [state, run_id])
    connection.close()


@pytest.mark.parametrize("stray", STRAYS)
def test_file_beside_the_genuine_engine_reaches_no_run_of_ones_own(
    capsule: Path, elsewhere: Home, mmtui_: Invoke, stray: str
) -> None:
    with_files(capsule, {f"code/{stray}": EVIL})
    found = mmtui_("import", str(capsule))
    assert found.code == 0, found.err
    assert "code of its own" in found.err and "runs only if you ask for it" in found.err
    own = queue.enqueue(elsewhere, "shapes_smoke", hold=True)
    folder = trust.startable(elsewhere, own, runs.get_run(elsewhere, own).code).folder
    assert {entry.name.partition("-")[0] for entry in folder.iterdir()} <= {"engine", "changes"}
    assert not any((parent / stray).exists() for parent in elsewhere.code.iterdir())
    (kept,) = elsewhere.imported_code.iterdir()
    assert (kept / stray).read_bytes() == EVIL
    with pytest.raises(trust.UntrustedCodeError):
        trust.startable(elsewhere, "1", runs.get_run(elsewhere, "1").code)


@pytest.mark.parametrize(
    "name",
    ["code/engine/__pycache__/loop.cpython-311.pyc", "code/.hidden/x.py", "run/attempts/001/pid", "run/trainer.lock"],
)
def test_what_no_capsule_of_ours_holds_is_refused(capsule: Path, elsewhere: Home, mmtui_: Invoke, name: str) -> None:
    with_files(capsule, {name: EVIL})
    found = mmtui_("import", str(capsule))
    assert found.code == 2 and "has no place in a capsule" in found.err
    assert not list(elsewhere.runs.iterdir()) and not elsewhere.imported_code.exists()


@pytest.mark.parametrize(("state", "verb"), [("failed", "retry"), ("interrupted", "retry"), ("cancelled", "retry"),
                                             ("paused", "resume"), ("held", "release")])  # fmt: skip
def test_foreign_code_runs_only_on_request(
    capsule: Path, elsewhere: Home, mmtui_: Invoke, monkeypatch: pytest.MonkeyPatch, state: str, verb: str
) -> None:
    monkeypatch.setattr("mmtui.services.supervisors.ensure", lambda _home: None)
    with_files(capsule, {"code/sitecustomize.py": EVIL})
    assert mmtui_("import", str(capsule), "-q").err == ""
    end_as(elsewhere, "1", state)
    refused = mmtui_(verb, "1")
    assert refused.code == 5 and runs.get_run(elsewhere, "1").row.state == state
    digest = re.search(rf"mmtui {verb} 1 --trust-code ([0-9a-f]{{64}})", refused.err)
    assert digest, refused.err
    for wrong in (digest[1][:16], digest[1][:63], "0" * 64):
        assert mmtui_(verb, "1", "--trust-code", wrong).code == 5
    assert runs.get_run(elsewhere, "1").row.state == state
    if verb == "retry":
        assert mmtui_("retry", "--failed").code == 0
        assert runs.get_run(elsewhere, "1").row.state == state, "nothing imported is put back unless it is named"
    with pytest.raises(trust.UntrustedCodeError):
        trust.startable(elsewhere, "1", runs.get_run(elsewhere, "1").code)
    assert mmtui_(verb, "1", "--trust-code", digest[1]).code == 0
    found = runs.get_run(elsewhere, "1")
    assert found.row.state == "queued"
    folder = trust.startable(elsewhere, "1", found.code).folder
    assert folder == elsewhere.imported_code / digest[1]
    assert "--stage-cache" not in local.train(elsewhere, 1, 1, folder), "nobody else goes on from what it makes"
    (folder / "engine" / "more.py").write_bytes(EVIL)
    with pytest.raises(MmtuiError):
        trust.startable(elsewhere, "1", found.code)


def test_manifest_that_calls_its_code_trusted_is_not_believed(capsule: Path, elsewhere: Home, mmtui_: Invoke) -> None:
    def lie(manifest: dict[str, Any]) -> None:
        manifest["code"] |= {"trusted": manifest["code"]["sha256"], "diff": "/etc/passwd", "commit": "\x1b[2J"}

    with_files(capsule, {"code/sitecustomize.py": EVIL, "run/imported.json": b'{"code": ""}'}, lie)
    assert mmtui_("import", str(capsule)).code == 0
    told = runs.get_run(elsewhere, "1").code
    assert not {"trusted", "diff", "commit"} & told.keys()
    with pytest.raises(trust.UntrustedCodeError):
        trust.startable(elsewhere, "1", told)


def test_code_of_this_installation_is_asked_about_by_nobody(
    capsule: Path, elsewhere: Home, mmtui_: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmtui.services.supervisors.ensure", lambda _home: None)
    assert "the code of this installation" in mmtui_("import", str(capsule)).err
    end_as(elsewhere, "1", "failed")
    assert mmtui_("retry", "1").code == 0
    found = runs.get_run(elsewhere, "1")
    folder = trust.startable(elsewhere, "1", found.code).folder
    assert folder == elsewhere.code / code.freeze(elsewhere)["digest"]
    assert "--stage-cache" not in local.train(elsewhere, 1, 1, folder), "its checkpoints are a stranger's"
    assert not elsewhere.imported_code.exists()


MODULES = ("engine/__init__.py", "engine/__main__.py", "json.py", "sitecustomize.py")
IN_THE_RUN = {f"run/{name}": EVIL for name in MODULES}


@pytest.mark.e2e
@pytest.mark.slow
def test_trainer_loads_no_module_from_the_folder_of_its_run(
    capsule: Path, elsewhere: Home, mmtui_: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It starts there, and the capsule's code is the genuine one: nobody is asked."""
    monkeypatch.setattr("mmtui.services.supervisors.ensure", lambda _home: None)
    with_files(capsule, IN_THE_RUN)
    assert "the code of this installation" in mmtui_("import", str(capsule)).err
    root, found = elsewhere.run("1").root, trust.startable(elsewhere, "1", runs.get_run(elsewhere, "1").code)
    assert (root / "engine" / "__main__.py").read_bytes() == EVIL
    child = local.start(elsewhere, 1, 2, ["cpu:0"], found, probe=False)
    events = elsewhere.run("1").events(2)
    until(lambda: child.poll() is not None or events.exists(), "the trainer", elsewhere.run("1").log(2).read_text)
    child.terminate()
    until(lambda: child.poll() is not None, "the trainer's end")
    assert "run_started" in events.read_text(), elsewhere.run("1").log(2).read_text()
    assert not (root / "ran").exists()


def test_node_of_a_cluster_loads_no_module_from_where_it_starts(home: Home, tmp_path: Path) -> None:
    told = code.freeze(home)
    frozen = home.code / told["digest"]
    for name, content in IN_THE_RUN.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    engine = [*local.held(code.FrozenCode(frozen, told["sha256"])), "-m", "engine", "train", "none"]
    command = [sys.executable, str(Path(job.__file__)), ".", "1", str(frozen), "1", "--", *engine]
    done = subprocess.run(command, cwd=tmp_path / "run", capture_output=True, check=False)
    log = (tmp_path / "run" / "attempts" / "001" / "output.log").read_text()
    assert done.returncode == 2 and "required: --run-dir" in log, "the frozen engine has read its command line"
    assert not (tmp_path / "run" / "ran").exists()


@pytest.mark.parametrize("digest", ["../secret", "/tmp/../{root}/secret", "secret", "", 7, None, ["x"]])
def test_path_for_a_digest_leads_nowhere(
    capsule: Path, elsewhere: Home, mmtui_: Invoke, tmp_path: Path, digest: Any
) -> None:
    for folder in (elsewhere.root / "secret", elsewhere.code / "secret"):
        (folder / "engine").mkdir(parents=True)
        (folder / "secret.txt").write_text("mine")
    told = digest.format(root=elsewhere.root) if isinstance(digest, str) else digest

    def lead_away(manifest: dict[str, Any]) -> None:
        manifest["code"] = {"digest": told}

    rewrite(capsule, lambda name, content: None if name.startswith("code/") else (name, content))
    with tarfile.open(capsule) as archive:
        assert not [name for name in archive.getnames() if name.startswith("code/")]
    with_files(capsule, {}, lead_away)
    assert mmtui_("import", str(capsule)).code == 0
    assert mmtui_("export", "1", "--to", "capsule", "-o", str(tmp_path / "again.tar")).code == 0
    with tarfile.open(tmp_path / "again.tar") as archive:
        assert not [name for name in archive.getnames() if "secret" in name]
    end_as(elsewhere, "1", "failed")
    with pytest.raises(MmtuiError):
        trust.startable(elsewhere, "1", runs.get_run(elsewhere, "1").code)


def test_code_travels_on_with_its_run_and_stays_apart(capsule: Path, elsewhere: Home, mmtui_: Invoke, tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    with_files(capsule, {"code/sitecustomize.py": EVIL})
    assert mmtui_("import", str(capsule)).code == 0
    assert mmtui_("export", "1", "--to", "capsule", "-o", str(tmp_path / "again.tar")).code == 0
    third = Home(tmp_path / "third")
    monkeypatch.setenv("MMTUI_HOME", str(third.root))
    assert "code of its own" in mmtui_("import", str(tmp_path / "again.tar")).err
    assert [kept.name for kept in third.imported_code.iterdir()] == [k.name for k in elsewhere.imported_code.iterdir()]
    own = queue.enqueue(third, "shapes_smoke", hold=True)
    assert not list((third.code / runs.get_run(third, own).code["digest"]).glob("sitecustomize*"))


@pytest.mark.parametrize(("answer", "state"), [("y", "queued"), ("n", "failed"), ("", "failed")])
def test_terminal_is_asked_one_question(
    capsule: Path, elsewhere: Home, mmtui_: Invoke, answer: str, state: str
) -> None:
    with_files(capsule, {"code/sitecustomize.py": EVIL})
    assert mmtui_("import", str(capsule)).code == 0
    end_as(elsewhere, "1", "failed")
    put_setting(elsewhere, "closed", "nothing is to start in this test")
    environment = {**os.environ, "MMTUI_HOME": str(elsewhere.root)}
    child = Program(sys.executable, ["-m", "mmtui", "retry", "1"], 160, 40, env=environment, encoding=None)
    seen = b""

    def asked() -> bool:
        nonlocal seen
        seen += child.drain()
        return b"[y/N]" in seen

    try:
        until(asked, "the question", lambda: seen)
        child.send(f"{answer}\r".encode())
        assert child.until_ended() == (0 if state == "queued" else 5)
    finally:
        child.close()
        until(lambda: supervisors.holder(elsewhere)[0] != -1, "a supervisor that has started")
        supervisors.stop(elsewhere)
    assert b"SHA-256" in seen
    assert runs.get_run(elsewhere, "1").row.state == state
