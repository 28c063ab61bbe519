"""What a killed command leaves is counted by doctor at once; purge frees it at once where the process is known dead."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmtui.paths import Home
from mmtui.services import doctor, leftovers
from tests.waiting import PATIENCE

Invoke = Callable[..., Any]

ENDS = """
import os, signal, sys
from pathlib import Path
from mmtui.paths import Home
from mmtui.services.exchange import capsule

def end(*_):
    os.kill(os.getpid(), getattr(signal, sys.argv[3]))

capsule._known = end
capsule.take_in(Home(Path(sys.argv[1])), Path(sys.argv[2]))
"""


def importing(home: Home, capsule: Path, how: str) -> subprocess.Popen[bytes]:
    """An import that has unpacked everything and gets a signal from itself then."""
    return subprocess.Popen([sys.executable, "-c", ENDS, str(home.root), str(capsule), how])


def finding(home: Home) -> doctor.Check:
    (found,) = [item for item in doctor.checks(home) if item.name == "leftovers"]
    return found


def folders(home: Home) -> list[Path]:
    return list(home.root.glob(".import-*"))


def test_killed_import_is_counted_and_freed_at_once(whole: Home, capsule: Path, mmtui_: Invoke) -> None:
    assert finding(whole).ok
    process = importing(whole, capsule, "SIGKILL")
    assert process.wait(PATIENCE) == -signal.SIGKILL and len(folders(whole)) == 1
    found = finding(whole)
    assert found.ok is None and "an import that was interrupted; to free it: mmtui purge --yes" in found.text
    freed = mmtui_("purge", "--yes")
    assert "an import that was interrupted" in freed.out and not folders(whole)
    assert finding(whole).ok


def test_import_that_goes_on_is_counted_and_left_alone(whole: Home, capsule: Path, mmtui_: Invoke) -> None:
    process = importing(whole, capsule, "SIGSTOP")
    try:
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        (folder,) = folders(whole)
        found = finding(whole)
        assert found.ok is None and "an import that may still go on" in found.text
        assert "an hour" in found.text and re.search(r"^[0-9.]+ [KM]iB", found.text)
        told = mmtui_("purge", "--yes")
        assert "an import that may still go on" in told.err and folder.exists()
    finally:
        process.kill()
        process.wait(PATIENCE)
    assert "an import that was interrupted" in mmtui_("purge", "--yes").out and not folder.exists()


@pytest.mark.parametrize("name", [".import-8leopgk0", ".import-writer-00000000-{dead}-8leopgk0"])
def test_what_nobody_is_known_to_have_left_stays_for_an_hour(whole: Home, mmtui_: Invoke, name: str) -> None:
    """Of an older mmtui, or of another machine, whose processes are not seen here."""
    process = subprocess.Popen(["true"])
    process.wait(PATIENCE)
    folder = whole.root / name.format(dead=process.pid)
    folder.mkdir()
    (folder / "big").write_bytes(b"x" * 5000)
    assert "an import that may still go on" in finding(whole).text
    assert mmtui_("purge", "--yes").code == 0 and folder.exists()
    for path in (folder / "big", folder):
        os.utime(path, (time.time() - leftovers.IDLE_SECONDS - 10,) * 2)
    assert "an import that was interrupted; to free it" in finding(whole).text
    assert mmtui_("purge", "--yes").code == 0 and not folder.exists()
