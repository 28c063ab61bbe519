"""What SLURM runs on each node of a job: ``job.py RUN_DIR ATTEMPT CODE PROCESSES -- PROGRAM CODE SHA256 -m ...``.

It starts the node's trainer, or torchrun over several, and waits for it. SIGTERM reaches the trainer by itself: SLURM
signals every process of a step. Imports nothing but the standard library.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

PATIENCE_SECONDS = 600
"""How long a node waits for the first one; nodes of a job may start minutes apart."""


def command(folder: Path, processes: int, arguments: list[str]) -> list[str]:
    """The engine, under torchrun if the job has more than one process. The program that loads it loads torchrun, too:
    other code than what was frozen is told of before anything has begun."""
    nodes = int(os.environ.get("SLURM_JOB_NUM_NODES") or os.environ.get("SLURM_NNODES") or 1)
    if nodes * processes < 2:
        return [sys.executable, *arguments]
    # The node from which the step was launched is the job's first one; its address needs no look-up of names.
    head = os.environ.get("SLURM_LAUNCH_NODE_IPADDR") or "127.0.0.1"
    torchrun = ["-m", "torch.distributed.run", f"--nnodes={nodes}", f"--nproc_per_node={processes}"]
    # SLURM has told every node its number, so nobody has to find out who opens the meeting: the first node does.
    # (With the c10d rendezvous each node guesses by its addresses, and two on one machine both take the part.)
    number = os.environ.get("SLURM_NODEID") or "0"
    port = open_meeting(folder) if number == "0" else find_meeting(folder)
    meeting = [f"--node_rank={number}", f"--master_addr={head}", f"--master_port={port}"]
    program = arguments[: arguments.index("-m")]
    return [sys.executable, *program, *torchrun, *meeting, *arguments]


def _note(folder: Path) -> Path:
    """Where the first node says at which port the others find it; of this start of the job alone."""
    job, restart = os.environ.get("SLURM_JOB_ID", "0"), os.environ.get("SLURM_RESTART_COUNT", "0")
    return folder / f"meeting-{job}-{restart}"


def open_meeting(folder: Path) -> int:
    """Choose a port that is free on this, the first, node, and tell the others through the shared directory."""
    with socket.socket() as found:
        found.bind(("", 0))
        port = int(found.getsockname()[1])
    note = _note(folder)
    draft = note.with_name(f"{note.name}.draft")
    draft.write_text(f"{port}\n")
    draft.rename(note)
    return port


def find_meeting(folder: Path) -> int:
    """The port that the first node has chosen; waits until it has. Raises SystemExit if it never does."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            return int(_note(folder).read_text())
        except (FileNotFoundError, ValueError):
            time.sleep(0.2)
    sys.exit(f"error: the first node of the job said nothing within {PATIENCE_SECONDS} s")


def main(words: list[str]) -> int:
    """Train to the end; the trainer's exit code."""
    run_dir, attempt, code, processes = Path(words[0]), int(words[1]), words[2], int(words[3])
    os.umask(0o077)
    folder = run_dir / "attempts" / f"{attempt:03d}"
    folder.mkdir(parents=True, exist_ok=True)
    log = os.open(folder / "output.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    # Safe path: else Python would look into the folder it starts in first, where files of a capsule may lie.
    os.environ["PYTHONSAFEPATH"] = "1"
    arguments = words[words.index("--") + 1 :]
    if arguments[0] == "-m":
        os.environ["PYTHONPATH"] = code  # submitted by an earlier version, which named no program
    else:
        os.environ.pop("PYTHONPATH", None)
    os.environ |= {"PYTHONUNBUFFERED": "1", "MMTUI_RUN_ID": run_dir.name}
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # Before the trainer is there: a signal must not end this process and, with it, the step.
    signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    child = subprocess.Popen(command(folder, processes, arguments))

    def leave(_number: int, _frame: FrameType | None) -> None:
        child.send_signal(signal.SIGTERM)

    # submitit's word for: the time is nearly over.
    signal.signal(signal.SIGUSR2, leave)
    code_of_child = child.wait()
    return code_of_child if code_of_child >= 0 else 128 - code_of_child


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
