"""Which code this is: the SHA-256 of every file of the engine, and a way to run exactly those bytes.

    python own_code.py FOLDER SHA256 -m MODULE ARGUMENTS...

reads every file below FOLDER once, compares their SHA-256, and then runs a module; the package ``engine`` is loaded
from what was read, and from nowhere else. So what was hashed is what runs: there is no moment between a check and a
load, no compiled file that nobody has hashed, and no search path that a name could lead astray (PYTHONPATH is split
at colons). What is imported late is there even if the folder is not any more. The digest depends on bytes of names
and files alone, so no path changes it. Without SHA256 ("") the folder comes first in the search path, and no more.

The standard library alone: it runs as a program, before anything of the engine is loaded.
"""

from __future__ import annotations

import hashlib
import importlib.abc
import os
import re
import runpy
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import cast

PACKAGE = "engine"
CHANGES = re.compile(r"changes-[0-9a-f]{1,40}\.diff")
"""Lists of changes beside frozen code, which are none of it."""
OTHER_CODE = "the trainer loaded other code"
THIS = f"{PACKAGE}/own_code.py"


def read(root: Path) -> dict[str, bytes]:
    """Every file that Python could load from a folder, by its path: all but ``__pycache__``, which Python writes
    itself, and the lists of changes beside the engine.

    Raises:
        OSError: a file cannot be read.
    """
    found = {}
    for file in root.rglob("*"):
        path = file.relative_to(root)
        if "__pycache__" not in path.parts and not CHANGES.fullmatch(path.as_posix()) and not file.is_dir():
            found[path.as_posix()] = file.read_bytes()
    return found


def sums(files: Mapping[str, bytes]) -> dict[str, str]:
    """SHA-256 of each file, by its path."""
    return {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}


def digest_of(files: Mapping[str, str]) -> str:
    """SHA-256 of names and contents: what a run's code is.

    Args:
        files: SHA-256 of each file, by its path below the folder that holds the package.
    """
    lines = "".join(f"{path}\0{files[path]}\n" for path in sorted(files))
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


def other_code(loaded: str, frozen: str) -> str:
    """The sentence for a trainer whose code is not what was frozen for its run (two SHA-256)."""
    return f"{OTHER_CODE} (SHA-256 {loaded}) than what was frozen ({frozen})"


class HeldCode(importlib.abc.SourceLoader):
    """Loads the package from bytes in memory, and is the only one that does: first of ``sys.meta_path``, and loader.

    Frozen code asks it for ``sha256``, ``folder``, ``program`` and ``files``: these names stay.
    """

    def __init__(self, folder: str, files: Mapping[str, bytes]) -> None:
        self.folder, self.files = folder, files
        self.sha256 = digest_of(sums(files))
        self.program = str(Path(__file__).absolute())

    def find_spec(self, name: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Where a module of the package comes from; None for modules of others.

        Raises:
            ModuleNotFoundError: the package has no such module. Nobody else is asked for it.
        """
        if name.partition(".")[0] != PACKAGE:
            return None
        stem = name.replace(".", "/")
        for file in (f"{stem}/__init__.py", f"{stem}.py"):
            if file in self.files:
                spec = ModuleSpec(name, self, origin=f"{self.folder}/{file}", is_package=file.endswith("/__init__.py"))
                spec.has_location = True  # its ``__file__`` is the origin
                return spec
        if any(file.startswith(f"{stem}/") for file in self.files):
            return ModuleSpec(name, None, is_package=True)
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    def get_filename(self, fullname: str) -> str:
        """Where its source lay when it was read."""
        spec = self.find_spec(fullname)
        if spec is None or spec.origin is None:
            raise ImportError(f"{fullname} has no source", name=fullname)
        return spec.origin

    def get_data(self, path: str | bytes) -> bytes:
        """What a file held when it was read.

        Raises:
            OSError: it was not there.
        """
        try:
            return self.files[os.fsdecode(path).removeprefix(f"{self.folder}/")]
        except KeyError:
            raise FileNotFoundError(path) from None


def _held() -> HeldCode | None:
    """What has loaded this very module, if its bytes were hashed before. It is an object of another copy of the class:
    of the program that this process began with."""
    loader = __spec__.loader if __spec__ is not None else None
    return cast(HeldCode, loader) if hasattr(loader, "sha256") else None


def _belongs(module: ModuleType, held: HeldCode) -> bool:
    spec = getattr(module, "__spec__", None)
    return spec is not None and (spec.loader is held or spec.origin is None)


def loaded() -> dict[str, str | bool]:
    """What a trainer says of its code: ``sha256`` of every file of the engine, and whether what was hashed is what was
    loaded (``held``); else the files were hashed now. {} if they cannot be read."""
    held = _held()
    if held is not None:
        modules = [module for name, module in list(sys.modules.items()) if name.partition(".")[0] == PACKAGE]
        return {"sha256": held.sha256, "held": all(_belongs(module, held) for module in modules)}
    try:
        files = sums(read(Path(__file__).parent))
    except OSError:
        return {}
    return {"sha256": digest_of({f"{PACKAGE}/{path}": total for path, total in files.items()}), "held": False}


def sources() -> dict[str, bytes]:
    """The engine's source files, by their path below the package: those that were loaded, where they are known."""
    held, inside = _held(), f"{PACKAGE}/"
    if held is not None:
        files = {path.removeprefix(inside): body for path, body in held.files.items() if path.startswith(inside)}
        return {path: body for path, body in files.items() if path.endswith(".py")}
    root = Path(__file__).parent
    return {file.relative_to(root).as_posix(): file.read_bytes() for file in root.rglob("*.py")}


def command(module: str, *arguments: str) -> list[str]:
    """What runs a module of this very engine in a process of its own."""
    held = _held()
    program, folder, digest = (
        (__file__, str(Path(__file__).resolve().parents[1]), "")
        if held is None
        else (held.program, held.folder, held.sha256)
    )
    return [sys.executable, "-P", program, folder, digest, "-m", module, *arguments]


def _hold(folder: str, expected: str) -> None:
    """Load the package from this folder alone, as it is now, if it is what was expected; else end the process."""
    try:
        held = HeldCode(folder, read(Path(folder)))
    except OSError as error:
        sys.exit(f"error: the frozen code {folder!r} cannot be read: {error.strerror}")
    if held.sha256 != expected:
        sys.exit(f"error: {other_code(held.sha256, expected)}")
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]
    sys.meta_path.insert(0, held)
    if THIS not in held.files:
        # Frozen before this file existed: its processes find their engine by this variable. The name of an open folder
        # has no colon, and stays when the folder is renamed.
        os.environ["PYTHONPATH"] = f"/proc/{os.getpid()}/fd/{os.open(folder, os.O_RDONLY | os.O_DIRECTORY)}"


def main(words: Sequence[str]) -> None:
    """Run a module as Python's ``-m`` does."""
    folder, expected, _, module, *arguments = words
    if expected:
        _hold(folder, expected)
    else:
        sys.path.insert(0, folder)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
