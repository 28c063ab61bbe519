"""What was hashed is what runs: other code, compiled files, strays and moved folders change nothing of it."""

from __future__ import annotations

import json
import os
import py_compile
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from engine import own_code
from engine.own_code import HeldCode
from mmtui.services import code

MAIN = """
import importlib, json, os, sys
from engine import own_code, words
os.rename(sys.argv[1], sys.argv[1] + ".moved")
late = importlib.import_module("engine.sub.late")
told = own_code.loaded()
print(json.dumps([words.TEXT, late.TEXT, late.__file__, told["sha256"], told["held"], sorted(own_code.sources())]))
"""
FILES = {
    "engine/__init__.py": "",
    "engine/__main__.py": MAIN,
    "engine/words.py": "TEXT = 'frozen'\n",
    "engine/sub/__init__.py": "",
    "engine/sub/late.py": "TEXT = 'late'\n",
    "engine/fails.py": "def fail():\n    raise RuntimeError('here')  # the line of the fault\nfail()\n",
}


def frozen(folder: Path, more: Mapping[str, str | bytes] = {}) -> str:
    """A small engine with the real ``own_code`` in a folder; its SHA-256."""
    real = {own_code.THIS: Path(own_code.__file__).read_bytes()}
    for name, content in {**FILES, **real, **more}.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return own_code.digest_of(own_code.sums(own_code.read(folder)))


def run(folder: Path, digest: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", own_code.__file__, str(folder), digest, "-m", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, errors="backslashreplace")


@pytest.mark.parametrize(
    "name", ["plain", "a:b", "a b", "new\nline", "50%d", "$HOME", "q'u\"o", "back\\slash", os.fsdecode(b"h\xff\xe9")]
)
def test_code_is_loaded_and_reported_whatever_its_folder_is_called(tmp_path: Path, name: str) -> None:
    """Late imports come from memory: the folder is gone by then."""
    folder = tmp_path / name
    digest = frozen(folder)
    done = run(folder, digest, "engine", str(folder))
    assert done.returncode == 0, done.stderr
    *told, files = json.loads(done.stdout)
    assert told == ["frozen", "late", str(folder / "engine/sub/late.py"), digest, True]
    assert "sub/late.py" in files and "own_code.py" in files


def test_other_code_ends_the_process_before_anything_of_it_runs(tmp_path: Path) -> None:
    digest = frozen(tmp_path / "code")
    found = frozen(tmp_path / "code", {"engine/__init__.py": f"open({str(tmp_path / 'ran')!r}, 'w')"})
    done = run(tmp_path / "code", digest, "engine", str(tmp_path / "code"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: the trainer loaded other code (SHA-256 {found}) than what was frozen ({digest})\n"
    assert not (tmp_path / "ran").exists()


def test_code_that_is_gone_is_one_sentence(tmp_path: Path) -> None:
    done = run(tmp_path / "none", "0" * 64, "engine")
    assert done.returncode == 1 and done.stderr.startswith("error: the trainer loaded other code"), done.stderr
    frozen(tmp_path / "code")
    (tmp_path / "code" / "engine" / "gone.py").symlink_to("nowhere")
    done = run(tmp_path / "code", "0" * 64, "engine")
    assert done.returncode == 1 and "cannot be read: No such file" in done.stderr, done.stderr


def test_compiled_file_that_nobody_has_hashed_is_not_loaded(tmp_path: Path) -> None:
    folder = tmp_path / "code"
    digest = frozen(folder)
    source = folder / "engine" / "words.py"
    other = tmp_path / "other.py"
    other.write_text("TEXT = 'sneaky'\n")
    compiled = py_compile.compile(
        str(other), doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
    )
    assert compiled is not None
    target = source.parent / "__pycache__" / f"words.{sys.implementation.cache_tag}.pyc"
    target.parent.mkdir()
    shutil.copy(compiled, target)
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    plain = [sys.executable, "-P", "-c", "from engine import words; print(words.TEXT)"]
    assert subprocess.run(plain, env=environment, capture_output=True, text=True, check=True).stdout == "sneaky\n"
    assert json.loads(run(folder, digest, "engine", str(folder)).stdout)[0] == "frozen"


def test_nothing_beside_the_engine_is_loaded(tmp_path: Path) -> None:
    evil = f"open({str(tmp_path / 'ran')!r}, 'w')"
    digest = frozen(tmp_path / "code", {"json.py": evil, "sitecustomize.py": evil, "torch/__init__.py": evil})
    assert run(tmp_path / "code", digest, "engine", str(tmp_path / "code")).returncode == 0
    assert not (tmp_path / "ran").exists()


def test_module_that_was_not_frozen_is_found_nowhere_else(tmp_path: Path) -> None:
    """One is in the installed engine, and one comes into the folder once it was read."""
    body = "import sys; open(sys.argv[1], 'w').close()\nimport engine.{}\n"
    digest = frozen(tmp_path / "code", {f"engine/asks_{name}.py": body.format(name) for name in ("events", "new")})
    for name in ("events", "new"):
        done = run(tmp_path / "code", digest, f"engine.asks_{name}", str(tmp_path / "code" / "engine" / "new.py"))
        assert done.returncode == 1 and f"No module named 'engine.{name}'" in done.stderr, done.stderr
        (tmp_path / "code" / "engine" / "new.py").unlink()


def test_folder_without_an_engine_does_not_run_the_installed_one(tmp_path: Path) -> None:
    (tmp_path / "words.txt").touch()
    done = run(tmp_path, own_code.digest_of(own_code.sums(own_code.read(tmp_path))), "engine", "train")
    assert done.returncode == 1 and "No module named 'engine'" in done.stderr


def test_traceback_shows_lines_of_what_was_loaded(tmp_path: Path) -> None:
    """Python's own last words read the file; what the engine says of a fault comes from ``traceback``."""
    body = (
        "import os, sys, traceback\nos.rename(sys.argv[1], sys.argv[1] + '2')\n"
        "try:\n    import engine.fails\nexcept RuntimeError:\n    traceback.print_exc()\n"
    )
    digest = frozen(tmp_path / "code", {"engine/moves.py": body})
    done = run(tmp_path / "code", digest, "engine.moves", str(tmp_path / "code"))
    assert "raise RuntimeError('here')  # the line of the fault" in done.stderr


def test_child_of_a_trainer_runs_the_same_code(tmp_path: Path) -> None:
    body = "import subprocess; from engine import own_code\nsubprocess.run(own_code.command('engine.child', 'x'))\n"
    child = "import sys; from engine import own_code\nprint(sys.argv[1:], own_code.loaded())\n"
    folder = tmp_path / "a:b"
    digest = frozen(folder, {"engine/asks.py": body, "engine/child.py": child})
    assert run(folder, digest, "engine.asks").stdout == f"['x'] {{'sha256': '{digest}', 'held': True}}\n"


def test_child_of_an_engine_that_nobody_has_frozen_runs_the_same_code(tmp_path: Path) -> None:
    """Where an engine lies that was installed or checked out is the user's choice, too."""
    body = "import subprocess; from engine import own_code\nsubprocess.run(own_code.command('engine.child'))\n"
    folder = tmp_path / "a:b"
    frozen(folder, {"engine/asks.py": body, "engine/child.py": "print(__file__)\n"})
    start = f"import sys; sys.path.insert(0, {str(folder)!r}); import engine.asks"
    done = subprocess.run([sys.executable, "-P", "-c", start], capture_output=True, text=True, check=True)
    assert done.stdout == f"{folder / 'engine/child.py'}\n"


def test_child_of_code_frozen_by_an_earlier_version_finds_its_engine(tmp_path: Path) -> None:
    """That code starts its children by a module's name alone, and the folder may be renamed meanwhile."""
    body = (
        "import os, subprocess, sys\nos.rename(sys.argv[1], sys.argv[1] + '2')\n"
        "subprocess.run([sys.executable, '-P', '-m', 'engine.child'])\n"
    )
    folder = tmp_path / "a:b"
    frozen(folder, {"engine/asks.py": body, "engine/child.py": "print('child of the old engine')\n"})
    (folder / own_code.THIS).unlink()
    digest = own_code.digest_of(own_code.sums(own_code.read(folder)))
    assert run(folder, digest, "engine.asks", str(folder)).stdout == "child of the old engine\n"


def test_folder_without_init_is_a_package_as_for_python(tmp_path: Path) -> None:
    body = "from engine.plain.deep import part\nfrom engine import own_code\nprint(part.X, own_code.loaded()['held'])\n"
    digest = frozen(tmp_path / "code", {"engine/plain/deep/part.py": "X = 1\n", "engine/asks.py": body})
    assert run(tmp_path / "code", digest, "engine.asks").stdout == "1 True\n"


def test_module_from_elsewhere_is_not_called_held(tmp_path: Path) -> None:
    body = (
        "import sys, types\nsys.modules['engine.extra'] = types.ModuleType('engine.extra')\n"
        "from engine import own_code\nprint(own_code.loaded()['held'])\n"
    )
    digest = frozen(tmp_path / "code", {"engine/asks.py": body})
    assert run(tmp_path / "code", digest, "engine.asks").stdout == "False\n"


def test_engine_by_itself_reports_its_files_and_claims_no_more() -> None:
    assert own_code.loaded() == {"sha256": code.installed(), "held": False}
    assert own_code.sources()["own_code.py"] == Path(own_code.__file__).read_bytes()


def test_file_that_is_no_module_can_be_read_from_what_is_held(tmp_path: Path) -> None:
    frozen(tmp_path, {"engine/table.txt": "held"})
    held = HeldCode(str(tmp_path), own_code.read(tmp_path))
    shutil.rmtree(tmp_path / "engine")
    assert held.get_data(str(tmp_path / "engine/table.txt")) == b"held"
    with pytest.raises(FileNotFoundError):
        held.get_data(str(tmp_path / "engine/none.txt"))
