"""Shell completion: the quick answers are Typer's own, and a real bash completes with them."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sysconfig
from collections.abc import Callable
from typing import Any

import pytest

from mmtui.cli import quick_completion, verbs
from mmtui.domain.command_words import kind_of
from mmtui.domain.options import Argument
from mmtui.paths import Home

Invoke = Callable[..., Any]
LINES = ("mmtui ", "mmtui sh", "mmtui show ", "mmtui show 1", "mmtui run shapes_mix", "mmtui wait 1 ", "mmtui ps ",
         "mmtui diff 1 2 ", "mmtui priority 3 ", "mmtui show 77", "mmtui run shapes_baseline segment.st",
         "mmtui ls --fil", "mmtui daemon st", "mmtui mv 3 --before ", "mmtui nothing ")  # fmt: skip


def test_table_of_arguments_is_what_the_verbs_declare() -> None:
    for name in verbs.VERBS:
        declared = []
        for parameter in inspect.signature(verbs.load(name), eval_str=True).parameters.values():
            about = parameter.annotation.__metadata__[0]
            if isinstance(about, Argument):
                kind = "" if about.complete == "keys" else about.complete
                declared.append((kind, kind_of(parameter)[1]))
        assert quick_completion.POSITIONAL.get(name, ()) == quick_completion.kinds_of(declared), name


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize("line", LINES)
def test_answer_is_that_of_typer(
    populated: Home, mmtui_: Invoke, typer_: Invoke, monkeypatch: pytest.MonkeyPatch, shell: str, line: str
) -> None:
    words = line.split() + ([""] if line.endswith(" ") else [])
    for name, value in {
        "_MMTUI_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }.items():
        monkeypatch.setenv(name, value)
    slow, quick = typer_(), mmtui_()
    if "shapes_mix" in line:  # Typer wraps long descriptions
        names = [set(re.findall(r"\bshapes_mix\w*", found.out)) for found in (quick, slow)]
        assert names[0] == names[1] != set()
    else:  # Typer lists groups of verbs last
        assert sorted(quick.out.split()) == sorted(slow.out.split())
    assert (quick.code, quick.err) == (slow.code, slow.err)


def test_fish_is_told_whether_there_is_anything(
    populated: Home, mmtui_: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_MMTUI_COMPLETE", "complete_fish")
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "is-args")
    for line, code in (("mmtui show ", 0), ("mmtui show 9", 1)):
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", line)
        assert mmtui_().code == code


def test_damaged_database_says_nothing_at_the_prompt(
    populated: Home, mmtui_: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    populated.database.write_bytes(b"no database" * 1000)
    monkeypatch.setenv("_MMTUI_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "mmtui show ")
    monkeypatch.setenv("COMP_CWORD", "2")
    found = mmtui_()
    assert (found.code, found.out.strip(), found.err) == (0, "", "")


def test_bash_completes_runs_verbs_recipes_and_keys(populated: Home) -> None:
    env = {**os.environ, "MMTUI_HOME": str(populated.root)}
    env["PATH"] = f"{sysconfig.get_path('scripts')}:{env['PATH']}"

    def complete(*words: str) -> list[str]:
        quoted = " ".join(f"'{word}'" for word in words)
        script = f'eval "$(mmtui completion bash)"; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; '
        script += 'function=$(complete -p mmtui | sed "s/.*-F \\([^ ]*\\).*/\\1/"); $function mmtui; '
        script += 'printf "%s\\n" "${COMPREPLY[@]}"'
        return subprocess.run(
            ["bash", "-c", script], env=env, capture_output=True, text=True, check=True
        ).stdout.split()

    assert complete("mmtui", "show", "") == ["3", "2", "1"]
    assert complete("mmtui", "rest") == ["restore"]
    assert complete("mmtui", "run", "shapes_base") == ["shapes_baseline"]
    assert complete("mmtui", "run", "shapes_baseline", "match.marg") == ["match.margin="]
