"""Names of runs and recipes that a shell would take for commands: real shells show them and run nothing."""

from __future__ import annotations

import os
import random
import shutil
import sysconfig
from pathlib import Path

import pytest

from mmtui.cli.quick_completion import harmless, recipe_choices
from mmtui.paths import Home
from mmtui.store.db import Database
from mmtui.store.runs import NewRun, insert_run
from tests.inputs import FUZZ, count
from tests.ptys import Program
from tests.waiting import until

SETUPS = {
    "bash": (["--norc", "--noprofile", "-i"], 'eval "$(mmtui completion bash)"', "\t\t"),
    "zsh": (["-f", "-i"], 'autoload -U compinit; compinit -u -D; eval "$(mmtui completion zsh)"', "\t\t"),
    "fish": (["--no-config", "-i"], "mmtui completion fish | source", "\t"),
}
"""(options of an interactive shell without settings, how it learns to complete, keys that list what there is)."""
FORMS = (
    *("x\\$(touch {0})", "x$(touch {0})", "x`touch {0}`", "x\\`touch {0}\\`", "'; touch {0}; '", "'\\''; touch {0}; '"),
    *('"; touch {0}; "', '\\"; touch {0}; \\"', "))'; touch {0}; '((", "${{(e):-$(touch {0})}}", "\n touch {0}\n"),
    *("[/red] $(touch {0})", "a:b\\:$(touch {0})", "=(touch {0})", "$'\\x60touch {0}\\x60'"),
)
PIECES = (
    *("$(touch {0})", "`touch {0}`", "=(touch {0})", "<(touch {0})", "${{(e):-$(touch {0})}}", "$[$(touch {0})]"),
    *("; touch {0};", "\n touch {0}\n", "| touch {0} |", "& touch {0} &", "&& touch {0} #"),
    *("'", '"', "\\", "\\\\", "))", "((", "]]", "}}", "{{", ":", "\\:", "\t", " ", "$'", "'\\''", "!", "%", "x"),
)
"""What a name that breaks out of quotes is made of."""


def forms(seed: int) -> list[str]:
    """Names of as many runs as are offered: those that were thought of, then others that begin like them."""
    if seed == 0:
        return list(FORMS)
    chosen = random.Random(seed)
    return ["".join(chosen.choices(PIECES, k=chosen.randint(2, 6))) for _ in FORMS]


@pytest.mark.parametrize("shell", list(SETUPS))
@pytest.mark.parametrize("line", ["mmtui show ", "mmtui mv 3 --before "], ids=["quick answer", "Typer's answer"])
@pytest.mark.parametrize("seed", range(1 + int(FUZZ)))
def test_names_of_runs_are_no_commands_of_a_shell(home: Home, tmp_path: Path, shell: str, line: str, seed: int) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    database = Database(home.create())
    with database.write() as session:
        for number, form in enumerate(forms(seed)):
            count(f"names of runs in {shell}")
            name = form.format(tmp_path / f"made{number}")
            insert_run(session, NewRun(name, "shapes_smoke", 0, {}, (), {}, [], held=True))
    database.close()
    options, setup, keys = SETUPS[shell]
    environment = {**os.environ, "MMTUI_HOME": str(home.root), "HOME": str(tmp_path), "ZDOTDIR": str(tmp_path)}
    environment["PATH"] = f"{sysconfig.get_path('scripts')}:{environment['PATH']}"
    child = Program(shell, options, 160, 60, env=environment, encoding=None)
    seen = b""

    def shown(words: bytes) -> None:
        def there() -> bool:
            nonlocal seen
            seen += child.drain()
            return words in seen

        until(there, repr(words), lambda: seen.decode(errors="replace"))

    try:
        child.send(f"{setup}; echo rea''dy\r")
        shown(b"ready")
        child.send(f"{line}{keys}")
        shown(b"15")  # the newest run is offered: the shell has read the whole answer
        child.send("\x03\x15   echo do''ne; exit\r")
        shown(b"done")
        child.until_ended()
    finally:
        child.close()
    assert not list(tmp_path.glob("made*"))


def test_recipe_whose_file_is_called_like_a_command_is_not_offered(home: Home) -> None:
    folder = home.create().root / "recipes"
    folder.mkdir()
    for name in ("mine", "x;touch made", "$(touch made)", "a b", "größe-1.2"):
        (folder / f"{name}.yaml").write_text('name: mine\ndescription: "$(touch made) [/b] it\'s 50%"\n')
    offered = dict(recipe_choices(""))
    assert {"mine", "größe-1.2"} <= offered.keys()
    assert not {"x;touch made", "$(touch made)", "a b"} & offered.keys()
    assert offered["mine"] == "?(touch made) ?/b? it?s 50%"


@pytest.mark.parametrize("char", list("\\$`\"'!*<>|&[]{}\n\x1b\u202e"))
def test_what_a_shell_or_a_terminal_acts_on_is_replaced(char: str) -> None:
    assert harmless(f"a{char}b") == "a?b"
