"""Whether a trainer has loaded the code that was frozen for its run, by what it has reported. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from engine.events.checks import SHA256, LoadedCode

PROVEN, UNPROVEN, DIFFERS = "proven", "unproven", "differs"


def frozen(code: Mapping[str, object]) -> str:
    """SHA-256 of the code that a run is to load, as its row says; "" where an earlier version froze it, which knew it
    by 16 characters alone.

    Code from elsewhere is what the user has asked for.
    """
    told = next((code[name] for name in ("trusted", "sha256") if code.get(name)), "")
    return told if isinstance(told, str) and SHA256.fullmatch(told) else ""


def verdict(code: Mapping[str, object], reports: Iterable[LoadedCode | None]) -> str:
    """What is known of an attempt's code.

    Args:
        code: what the run's row says of its code.
        reports: ``code`` of each ``run_started`` of the attempt, None where it reports none.

    Returns:
        ``proven``: it has loaded the frozen bytes; ``differs``: others; ``unproven``: the frozen copy was checked on
        disk, and the trainer reports nothing that tells more; "" before it has reported.
    """
    wanted, found = frozen(code), list(reports)
    if any(one is not None and wanted not in ("", one["sha256"]) for one in found):
        return DIFFERS
    if not found:
        return ""
    return PROVEN if wanted and all(one is not None and one["held"] for one in found) else UNPROVEN


def other(code: Mapping[str, object], reports: Iterable[LoadedCode | None]) -> str:
    """SHA-256 of the code that an attempt has loaded, if it is not the frozen one; else ""."""
    wanted = frozen(code)
    return next((one["sha256"] for one in reports if one is not None and wanted not in ("", one["sha256"])), "")
