"""Every screen of the real program looks as its snapshot (python docs/make_screens.py writes them anew)."""

from __future__ import annotations

import re
from difflib import unified_diff

import pytest

from mmtui.domain.look import GLYPHS
from tests.tui import visit

# One walk for all of them, through four programs at once.
pytestmark = [pytest.mark.xdist_group("looks"), pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def visits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, visit.Visit]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TERM", "xterm-256color")
        patch.delenv("NO_COLOR", raising=False)
        return visit.walk(tmp_path_factory.mktemp("looks"), kept_text)


def kept_text(name: str, variant: str) -> str:
    """What a screen is to look like; the gauges and histories of devices are of this machine and this moment."""
    file = visit.snapshot(name, variant)
    return file.read_text(encoding="utf-8") if name != "devices" and file is not None else ""


@pytest.mark.parametrize("variant", [variant.name for variant in visit.VARIANTS])
def test_every_screen_looks_as_its_snapshot(visits: dict[str, visit.Visit], variant: str) -> None:
    texts = visits[variant].texts
    assert all(words in texts["devices"] for words in ("SIMULATED", "GPU 0", "use", "mem", "power", "heat", "host"))
    wrong = [
        "\n".join(unified_diff(kept, now, f"snapshots/{name}-{variant}.txt", "now", lineterm=""))
        for name, text in texts.items()
        if name != "devices"
        and visit.snapshot(name, variant) is not None
        and (kept := visit.masked(kept_text(name, variant))) != (now := visit.masked(text))
    ]
    assert not wrong, "python docs/make_screens.py, and look at what has changed:\n" + "\n".join(wrong)


def test_terminal_of_ascii_is_sent_no_other_byte(visits: dict[str, visit.Visit]) -> None:
    received = visits["80x24-ascii"].received
    assert len(received) > 10_000
    assert max(received) < 0x80
    for name, text in visits["80x24-ascii"].texts.items():
        assert text.isascii(), name


def test_without_colours_none_is_sent_and_states_are_told_by_glyph_and_word(visits: dict[str, visit.Visit]) -> None:
    visited = visits["80x24-monochrome"]
    assert not colors_of(visited.received)
    for state in ("held", "queued", "running", "succeeded", "failed"):
        assert f"{GLYPHS[state][0]} {state}" in visited.texts["runs"]
    classes = visited.texts["predictions"]
    for letter, name in (("a", "background"), ("e", "stripes_upright"), ("h", "cross")):
        assert f"{letter} {name}" in classes and 3 * letter in classes
    assert "▀" not in classes, "half blocks say nothing without colours"


def test_with_colours_some_are_sent(visits: dict[str, visit.Visit]) -> None:
    assert {"38", "48", "36"} <= colors_of(visits["80x24"].received)
    assert "▀" in visits["80x24"].texts["predictions"]


def test_snapshots_are_those_of_the_walk_and_no_others() -> None:
    wanted = {visit.snapshot(name, variant.name) for name, _, _ in visit.STOPS for variant in visit.VARIANTS}
    assert wanted - {None} == set(visit.SNAPSHOTS.iterdir())
    assert {name for name, _, _ in visit.STOPS} > visit.PLAIN_TOO


def test_every_stop_is_reached_by_a_key_of_its_own() -> None:
    names = [name for name, _, _ in visit.STOPS]
    assert len(set(names)) == len(names) >= 20


def test_comparison_sees_another_word_and_number_but_no_clock() -> None:
    assert visit.masked("miou 48.2") != visit.masked("miou 48.3")
    assert visit.masked("took 1m03s") == visit.masked("took  12s") != visit.masked("took - ")
    assert (
        visit.masked("CPU ███░  1.5% of 2 cores") == visit.masked("CPU █░░░ 20% of 16 cores") != visit.masked("CPU 1")
    )
    assert visit.masked("done about 10:16:23") == visit.masked("done about 09:00:00") != visit.masked("done at 9")


def colors_of(received: bytes) -> set[str]:
    """Parameters of SGR sequences that choose a colour."""
    words = [word for found in re.findall(rb"\x1b\[([0-9;:]*)m", received) for word in found.decode().split(";")]
    return {word for word in words if re.fullmatch(r"3[0-8]|4[0-8]|9[0-7]|10[0-7]", word)}
