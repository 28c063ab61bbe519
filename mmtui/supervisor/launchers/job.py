"""What SLURM runs on each node of a job: ``job.py RUN_DIR ATTEMPT CODE PROCESSES -- ENGINE ARGUMENTS``.

It starts the node's trainer, or torchrun over several, and waits for it. SIGTERM reaches the trainer by itself: SLURM
signals every process of a step. Imports nothing but the standard library.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

FIRST_PORT, PORTS = 20_000, 20_000


def command(processes: int, arguments: list[str]) -> list[str]:
    """The engine, under torchrun if the job has more than one process."""
    nodes = int(os.environ.get("SLURM_JOB_NUM_NODES") or os.environ.get("SLURM_NNODES") or 1)
    if nodes * processes < 2:
        return [sys.executable, *arguments]
    job = os.environ.get("SLURM_JOB_ID", "0")
    # The node from which the step was launched is the job's first one; its address needs no look-up of names.
    head = os.environ.get("SLURM_LAUNCH_NODE_IPADDR") or "127.0.0.1"
    port = FIRST_PORT + int(job) % PORTS
    torchrun = ["-m", "torch.distributed.run", f"--nnodes={nodes}", f"--nproc_per_node={processes}"]
    # SLURM has told every node its number, so nobody has to find out who opens the meeting: the first node does.
    # (With the c10d rendezvous each node guesses by its addresses, and two on one machine both take the part.)
    number = os.environ.get("SLURM_NODEID") or "0"
    meeting = [f"--node_rank={number}", f"--master_addr={head}", f"--master_port={port}"]
    return [sys.executable, *torchrun, *meeting, *arguments]


def main(words: list[str]) -> int:
    """Train to the end; the trainer's exit code."""
    run_dir, attempt, code, processes = Path(words[0]), int(words[1]), words[2], int(words[3])
    os.umask(0o077)
    folder = run_dir / "attempts" / f"{attempt:03d}"
    folder.mkdir(parents=True, exist_ok=True)
    log = os.open(folder / "output.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ |= {"PYTHONPATH": code, "PYTHONUNBUFFERED": "1", "MMTUI_RUN_ID": run_dir.name}
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # Before the trainer is there: a signal must not end this process and, with it, the step.
    signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    child = subprocess.Popen(command(processes, words[words.index("--") + 1 :]))

    def leave(_number: int, _frame: FrameType | None) -> None:
        child.send_signal(signal.SIGTERM)

    # submitit's word for: the time is nearly over.
    signal.signal(signal.SIGUSR2, leave)
    code_of_child = child.wait()
    return code_of_child if code_of_child >= 0 else 128 - code_of_child


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
