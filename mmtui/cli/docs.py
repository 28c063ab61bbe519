"""``python -m mmtui.cli.docs FILE`` writes docs/cli.md from the help of every verb; ``--check`` only compares."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path

from mmtui.cli import verbs
from mmtui.cli.app import app
from mmtui.cli.diagnostics import guarded, say
from mmtui.errors import ExitCode
from mmtui.services.output_files import write_text

HEADER = """# The command line

Generated from `--help` by `make docs`; a test compares the two.

stdout is data, stderr is talk. `--json` prints one document with `schema_version`, times in UTC ISO-8601, and `null`
where a number is missing or not finite. Colours only on a terminal, never with `NO_COLOR` or `TERM=dumb`; `--color`
overrules.

A file that is there is written over without a word only if mmtui made it and nobody has changed it since. Else it is
asked at a terminal; without one that is exit code 5, and `--force` writes over it. `-` is standard output where a verb
writes text.

Runs are named by id, by `@` (the last), `@~1` (the one before it) and so on.

| exit code | meaning |
|---|---|
| 0 | fine |
| 1 | what was asked about failed: a run that was waited for, a check of `doctor` |
| 2 | the command line, a recipe or the settings are wrong |
| 3 | the supervisor or the database cannot be reached |
| 4 | no such run, or more than one |
| 5 | refused in this state |
| 6 | not enough resources |
| 124 | `wait --timeout` ran out |
| 130 | interrupted |

`MMTUI_HOME` names the data directory (else `$XDG_DATA_HOME/mmtui`, else `~/.local/share/mmtui`). Its `config.toml` may
hold `color` ("auto", "always", "never"), `ascii` (true or false), `rows` (how many runs `mmtui ls` lists),
`mouse` (false leaves clicks to the terminal, for selecting text),
`theme` (colours of the screen: "ansi", which are the terminal's own, "ansi-light", "dark", "light", "colorblind"),
`notify` (how the screen tells the terminal that a run has ended: "auto", "osc9", "osc777", "osc99", "bell", "off"),
`pictures` (predictions as "blocks", or in pixels where the terminal knows the protocol: "kitty", "sixel"; inside tmux
and screen always blocks),
`keys` (words that give the screen other keys, `["cancel=X", "new=N,insert"]`; its help tells the names), and
`on_finish` and `on_failure`: a command, as a list of words, that is run without a shell when a run has succeeded, or
has failed or was interrupted for good; it finds the run in `MMTUI_RUN_ID`, `MMTUI_NAME`, `MMTUI_RECIPE`, `MMTUI_STATE`,
`MMTUI_REASON`, `MMTUI_STAGE`, `MMTUI_RUN_DIR`, `MMTUI_MIOU` and `MMTUI_LOSS`, and what it prints goes to `hook.log`.
`MMTUI_CPU_SLOTS` is how many runs train at once on a machine without a GPU (1 unless set).
`MMTUI_DEBUG=1` shows where an error comes from; what goes wrong on the screen is told there in one sentence, and its
origin is added to `screen.log` in the data directory.
"""


def reference() -> str:
    """The whole page."""
    names = ["", *verbs.VERBS]
    for group in reversed(verbs.GROUPS):
        names.insert(next(i for i, name in enumerate(names) if name.startswith(f"{group} ")), group)
    return HEADER + "".join(_section(name) for name in names)


def _section(name: str) -> str:
    return f"\n## {f'mmtui {name}'.strip()}\n\n```\n{help_text(name)}\n```\n"


def help_text(name: str) -> str:
    """What ``mmtui NAME --help`` prints on a terminal of 80 columns."""
    os.environ["COLUMNS"] = "80"
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        app([*name.split(), "--help"], prog_name="mmtui")
    return "\n".join(line.rstrip() for line in out.getvalue().strip().splitlines())


def _is_page(file: Path) -> bool:
    return file.read_text(encoding="utf-8", errors="replace").startswith(HEADER.splitlines()[0])


def _is_written(file: Path, text: str) -> bool:
    try:
        return file.read_text(encoding="utf-8") == text
    except FileNotFoundError:
        return False


def main(argv: list[str]) -> int:
    """Write or check the page; returns the exit code."""
    check = "--check" in argv
    file = Path(next(word for word in argv if word != "--check"))
    text = reference()
    if not check:
        write_text(file, text, force=False, is_ours=_is_page)
    elif not _is_written(file, text):
        say(f"error: {file} is not what --help says\n  write it again with: make docs")
        return int(ExitCode.FAILED)
    return int(ExitCode.OK)


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
