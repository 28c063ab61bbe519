"""Services and screens start no other programs, but for those that are listed here with a reason."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STARTERS = {
    "subprocess": {"run", "Popen", "call", "check_call", "check_output", "getoutput", "getstatusoutput"},
    "os": {"fork", "forkpty", "system", "popen", "posix_spawn", "posix_spawnp", "startfile"},
    "pty": {"fork", "spawn"},
    "asyncio": {"create_subprocess_exec", "create_subprocess_shell"},
    "psutil": {"Popen"},
    "concurrent.futures": {"ProcessPoolExecutor"},
    "multiprocessing": {"Process", "Pool", "get_context"},
}
"""What starts a process, by module; of ``os`` whatever begins with exec or spawn, too."""
REASONS = {
    "mmtui/services/code.py": "git tells the commit of the engine's source",
    "mmtui/services/commands.py": "command lines that a person types on the screen, and what they are completed to",
    "mmtui/services/editor.py": "the user's editor",
    "mmtui/services/exchange/wandb_check.py": "wandb's own reader is in another process: it ends the one it fails in",
    "mmtui/services/figures.py": "pictures need the engine's libraries, which no process of mmtui loads",
    "mmtui/services/labels.py": "masks are looked at by the engine, whose libraries no process of mmtui loads",
    "mmtui/services/launch.py": "the process of a trainer becomes the trainer",
    "mmtui/services/supervisors.py": "the supervisor outlives whoever starts it",
}
"""Files of services and screens that start another program, each with what for."""
COMMANDS = "mmtui.services.commands"
OF_COMMANDS = {
    "mmtui/tui/screens/commands.py": "completion on the screen's command line",
    "mmtui/tui/screens/output.py": "what is typed there, and what it prints",
}
"""Files that run command lines of mmtui in a child process."""


def imported(tree: ast.AST) -> dict[str, str]:
    """{name in the file: full name of what it stands for} of everything that is imported, wherever that is."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for one in node.names:
                name = one.asname or one.name.partition(".")[0]
                found[name] = one.name if one.asname else name
        elif isinstance(node, ast.ImportFrom):
            found |= {one.asname or one.name: f"{node.module}.{one.name}" for one in node.names}
    return found


def full_names(tree: ast.AST) -> Iterator[str]:
    """Names that are used in a file, as they are called where they come from: ``subprocess.run``."""
    known = imported(tree)
    yield from known.values()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            first, _, rest = ast.unparse(node).partition(".")
            if first in known:
                yield f"{known[first]}.{rest}"


def starts(source: str) -> set[str]:
    """What a file starts processes with."""
    found = set()
    for name in full_names(ast.parse(source)):
        module, _, function = name.rpartition(".")
        starter = function in STARTERS.get(module, ()) or (module == "os" and function.startswith(("exec", "spawn")))
        if starter or (function == "*" and module in STARTERS):
            found.add(name)
    return found


def uses_commands(source: str) -> bool:
    """Whether a file runs command lines, also if it names the module only as a text."""
    tree = ast.parse(source)
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    names = {*full_names(tree), *texts}
    return any(name == COMMANDS or name.startswith(f"{COMMANDS}.") for name in names)


def sources(*folders: str) -> dict[str, str]:
    """{path: text} of the Python files below folders."""
    files = [file for folder in folders for file in sorted((ROOT / folder).rglob("*.py"))]
    return {file.relative_to(ROOT).as_posix(): file.read_text() for file in files}


@pytest.mark.parametrize(
    "source",
    [
        "import subprocess\nsubprocess.run(['true'])",
        "import subprocess as s\ndef f(): return s.Popen",
        "def f():\n    from subprocess import check_output as g\n    g('true')",
        "import os\nos.execv('a', [])",
        "import os\nos.spawnlp(0, 'a')",
        "from os import fork",
        "import asyncio\nasync def f(): await asyncio.create_subprocess_exec('a')",
        "from concurrent.futures import ProcessPoolExecutor",
        "import concurrent.futures\nconcurrent.futures.ProcessPoolExecutor()",
        "from multiprocessing import Process",
        "from subprocess import *",
    ],
)
def test_rule_finds_what_starts_a_process(source: str) -> None:
    assert starts(source)


def test_rule_leaves_the_rest_alone() -> None:
    assert not starts("import os, subprocess\nos.getpid()\nx = subprocess.DEVNULL\nrun = object()\nrun.Popen")
    assert uses_commands("from mmtui.services import commands")
    assert uses_commands("def f():\n    from mmtui.services.commands import run as r")
    assert uses_commands("import mmtui.services.commands as c\nc.run()")
    assert uses_commands("import importlib\nimportlib.import_module('mmtui.services.commands')")
    assert not uses_commands("from mmtui.tui.screens import commands\nfrom mmtui.services import runs")


def test_services_and_screens_start_no_other_program_than_those_with_a_reason() -> None:
    texts = sources("mmtui/services", "mmtui/tui")
    found = {path for path, text in texts.items() if starts(text)}
    assert len(texts) > 50 and sorted(found - set(REASONS)) == [], "start nothing here, or say what for"
    assert sorted(set(REASONS) - found) == [], "these start nothing any more: take their reasons out"


def test_command_lines_in_a_child_process_are_for_what_a_person_types() -> None:
    found = {path for path, text in sources("mmtui").items() if uses_commands(text)}
    assert sorted(found - set(OF_COMMANDS)) == [], "call the service that the command line calls"
    assert sorted(set(OF_COMMANDS) - found) == []
