"""Every command of docs/cookbook.md, run as it stands, says what the page says it says."""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
OF_THE_MACHINE = ("mmtui gpu", "mmtui doctor")
"""Their answers are about the machine: that they succeed is all one can ask."""
MOMENTARY = re.compile(r"run \d+ .* (queued|starting|running)\b|^(outcome )? *took ")
"""Lines that come or do not come by how fast a run is."""


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_cookbook", ROOT / "docs" / "make_cookbook.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def answers(maker: ModuleType, text: str) -> list[tuple[str, list[str]]]:
    """(command, lines of its answer) in the order of the page."""
    found: list[tuple[str, list[str]]] = []
    for block in maker.BLOCK.findall(text):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return found


def masked(lines: list[str]) -> Counter[str]:
    """Lines without what differs from day to day, machine to machine and checkout to checkout: numbers, times, digests,
    rank, width."""
    kept = [line for line in lines if not MOMENTARY.search(line)]
    kept = [re.sub(r", with changes(: [^)]+)?", "", line) for line in kept]  # of who works on the engine
    plain = [re.sub(r"commit [0-9a-f]+\*?|\b[0-9a-f]{16}\b", "H", line) for line in kept]
    plain = [re.sub(r"[█░▏▎▍▌▋▊▉]+", "", line) for line in plain]
    plain = [re.sub(r"\d{4}-\d\d-\d\d[ T][\d:.]+Z?", "N", line) for line in plain]
    plain = [re.sub(r"\d[\d.:TZe-]*( ?[KMG]iB)?[hms]?(\d+[ms])?", "N", line) for line in plain]
    return Counter(re.sub(r"(?<!\S)[-+~?N]+(?!\S)", "N", line).replace(" ", "") for line in plain)


def test_commands_of_the_cookbook_say_what_it_says(
    maker: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MMTUI_HOME", raising=False)
    told = (ROOT / "docs" / "cookbook.md").read_text(encoding="utf-8")
    written, fresh = answers(maker, told), answers(maker, maker.played(told, tmp_path))
    assert [command for command, _ in fresh] == [command for command, _ in written]
    assert len(re.findall(r"^\*\*\d+\. ", told, re.MULTILINE)) == 25
    wrong = {}
    for (command, lines), (_, now) in zip(written, fresh, strict=True):
        assert not any("Traceback" in line for line in now), now
        if not command.startswith(OF_THE_MACHINE) and masked(lines) != masked(now):
            wrong[command] = (lines, now)
    assert not wrong, "make docs writes the page anew"


def test_comparison_of_the_cookbook_sees_another_answer() -> None:
    page = ["id  state      name", " 2  succeeded  shapes  20.434  -"]
    assert masked(page) == masked(["id  state      name", " 31  succeeded  shapes  9.1  +0.5", "run 1  x  running"])
    assert masked(page) != masked(["id  state      name", " 2  failed  shapes  20.434  -"])
    assert masked(page) != masked(page[:1])
