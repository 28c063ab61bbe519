"""Telling the terminal that a run has ended, so that it can tell its user: OSC 9, 777 or 99, and the bell. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from mmtui.domain.states import FINAL_STATES, RunState
from mmtui.domain.text import fixed, printable, shorten
from mmtui.domain.views import RunRow, doubted

BELL = "\a"


def ended(before: Mapping[str, str], rows: tuple[RunRow, ...]) -> list[RunRow]:
    """Runs that were not final when last seen and now are; cancelled ones were asked for, and are left out."""
    final = {state.value for state in FINAL_STATES if state is not RunState.CANCELLED}
    return [row for row in rows if row.state in final and before.get(row.id, row.state) != row.state]


def text_of(rows: list[RunRow]) -> str:
    """One line about runs that have ended."""
    if len(rows) == 1:
        row, miou = rows[0], rows[0].metrics.get("miou")
        result = (
            f", mIoU {doubted(fixed(miou, 2), row.doubts)}"
            if miou is not None and row.state == RunState.SUCCEEDED
            else ""
        )
        return f"run {row.id} {shorten(printable(row.name), 40)} {row.state}{result}"
    good = sum(row.state == RunState.SUCCEEDED for row in rows)
    return f"{len(rows)} runs have ended, {len(rows) - good} of them not well"


def sequence(text: str, way: str, environment: Mapping[str, str]) -> str:
    """What to write to the terminal.

    Args:
        text: one line; control characters and the separators of the sequences are taken out.
        way: one of ``mmtui.settings.NOTIFY``; auto goes by what the terminal says of itself.
        environment: TERM, TERM_PROGRAM, KITTY_WINDOW_ID, VTE_VERSION and TMUX are looked at.
    """
    way = _guess(environment) if way == "auto" else way
    clean = printable(text).replace(";", ",")
    if way == "off":
        return ""
    osc = {
        "osc9": f"\x1b]9;{clean}\x1b\\",
        "osc777": f"\x1b]777;notify;mmtui;{clean}\x1b\\",
        "osc99": f"\x1b]99;;{clean}\x1b\\",
    }.get(way, "")
    if osc and environment.get("TMUX"):
        # tmux hands on what is wrapped so, if allow-passthrough is on; each escape inside is doubled.
        osc = "\x1bPtmux;" + osc.replace("\x1b", "\x1b\x1b") + "\x1b\\"
    return osc + BELL


def _guess(environment: Mapping[str, str]) -> str:
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "").lower()
    if environment.get("KITTY_WINDOW_ID") or "kitty" in term:
        return "osc99"
    if program in ("iterm.app", "wezterm", "ghostty", "windows_terminal") or environment.get("WT_SESSION"):
        return "osc9"
    if environment.get("VTE_VERSION") or term.startswith(("rxvt", "foot")):
        return "osc777"
    return "bell"
