"""Trainers that write or print without end, or put something else in the place of a file: others do not notice."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from mmtui.domain.states import RunEvent
from mmtui.paths import Home
from mmtui.services import runs
from mmtui.store.tables import Attempt, Run
from mmtui.supervisor.loop import Supervisor
from mmtui.supervisor.outcome import LONGEST_REASON, last_line
from tests.unit.supervisor.conftest import Workshop

MIB = 2**20
FLOOD = "os.ftruncate(file, os.fstat(file).st_size + (400 << 20)); os.write(file, b'\\n')"
CHATTER = "piece = 'y' * (1 << 20)\nfor _ in range(400): sys.stdout.write(piece)\nprint('\\nout of luck'); sys.exit(3)"
REPLACED = {
    "pipe": "os.unlink(folder / 'events.jsonl'); os.mkfifo(folder / 'events.jsonl'); sys.exit(3)",
    "folder": "os.unlink(folder / 'events.jsonl'); os.mkdir(folder / 'events.jsonl'); sys.exit(3)",
    "output": "os.unlink(folder / 'output.log'); os.mkfifo(folder / 'output.log'); sys.exit(3)",
}


def most_memory(pid: int) -> int:
    """Bytes that a process has had at most."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def test_a_line_of_400_mib_holds_up_no_other_run_and_takes_no_memory(workshop: Workshop) -> None:
    pid = workshop.start(MMTUI_CPU_SLOTS="2")
    plain = workshop.add(steps=10)
    workshop.until_state(plain, "succeeded")
    before = most_memory(pid)
    flooding, other = workshop.add(steps=20, does=FLOOD), workshop.add(steps=20)
    workshop.until_state(other, "succeeded")
    workshop.until_state(flooding, "succeeded")
    assert most_memory(pid) - before < 100 * MIB
    told, stored = workshop.steps_told_and_stored(other)
    assert stored == told
    assert len(runs.points(workshop.home, flooding, "loss")) == 20
    (warning,) = runs.get_run(workshop.home, flooding).warnings
    assert "longer than 16 MiB" in warning


def test_output_of_400_mib_in_one_line_takes_no_memory_and_its_end_is_the_reason(workshop: Workshop) -> None:
    pid = workshop.start()
    workshop.until_state(workshop.add(steps=10), "succeeded")
    before = most_memory(pid)
    chattering, other = workshop.add(does=CHATTER), workshop.add(steps=10)
    assert workshop.until_state(chattering, "failed").reason == "the trainer left with code 3: out of luck"
    workshop.until_state(other, "succeeded")
    assert most_memory(pid) - before < 100 * MIB


@pytest.mark.parametrize("does", REPLACED.values(), ids=REPLACED)
def test_something_in_the_place_of_a_file_frees_the_slot(workshop: Workshop, does: str) -> None:
    odd, other = workshop.add(does=does), workshop.add(steps=10)
    workshop.start()
    assert "left with code 3" in workshop.until_state(odd, "failed").reason
    workshop.until_state(other, "succeeded")


def test_an_end_that_cannot_be_judged_is_a_failure(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_much(*_: object, **__: object) -> None:
        raise MemoryError("no more")

    monkeypatch.setattr("mmtui.supervisor.attempts.judge", too_much)
    supervisor = Supervisor(home.create())
    run, attempt = Run(id=1, name="x", recipe="x", seed=0), Attempt(run_id=1, number=1)
    ending = supervisor.attempts.judged(run, attempt, 0, Path("/dev/null"), time.time())
    assert (ending.event, ending.outcome) == (RunEvent.EXIT_ERROR, "failed")
    assert "MemoryError: no more" in ending.error


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it printed nothing"),
        (b"\n \n", "it printed nothing"),
        (b"first\nlast\n\n", "last"),
        (b"\xff\x1b[31mred", "\ufffd\\x1b[31mred"),
        (b"z" * 1_000_000 + b" end", "…" + "z" * (LONGEST_REASON - 5) + " end"),
    ],
    ids=["empty", "blank", "last", "bytes", "long"],
)
def test_last_line_is_bounded(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "output.log").write_bytes(content)
    assert last_line(tmp_path / "output.log") == said
