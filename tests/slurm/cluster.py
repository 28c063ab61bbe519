"""A real SLURM on this machine alone: munged, slurmctld, and a slurmd for each of two nodes.

``python tests/slurm/cluster.py FOLDER`` starts one and stays until it is interrupted. Debian: apt install slurmctld
slurmd slurm-client munge (slurm-wlm has them all).
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]  # where it is a program of its own

from tests.waiting import PATIENCE, until  # noqa: E402

NEEDED = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "squeue", "scancel", "sinfo")
CONF = """ClusterName=mmtui
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
CredType=cred/munge
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=0,preempt_youngest_first
MpiDefault=none
ReturnToService=2
MinJobAge=300
KillWait=15
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=0
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={port1} CPUs=2 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={port2} CPUs=2 State=UNKNOWN
PartitionName=low Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=30
PartitionName=high Nodes=n1,n2 MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


def missing() -> list[str]:
    """Programs that are not installed."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return [name for name in NEEDED if shutil.which(name, path=path) is None]


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    found = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return found


class Cluster:
    """Two nodes of two CPUs. Partition ``high`` takes nodes from ``low``, whose jobs get SIGTERM and half a minute."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.children: list[subprocess.Popen[bytes]] = []
        self.conf = folder / "slurm.conf"

    def start(self) -> None:
        """Returns once both nodes are idle."""
        for name in ("state", "spool"):
            (self.folder / name).mkdir(parents=True)
        self.folder.chmod(0o755)
        port, port1, port2 = free_ports(3)
        names = {"host": socket.gethostname().split(".")[0], "user": getpass.getuser(), "folder": self.folder}
        self.conf.write_text(CONF.format(**names, port=port, port1=port1, port2=port2))
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        munge = ["munged", "--foreground", "--force", "--num-threads=2", f"--key-file={key}"]
        munge += [f"--socket={self.folder}/munge.sock", f"--pid-file={self.folder}/munged.pid"]
        self._run([*munge, f"--log-file={self.folder}/munged.log", f"--seed-file={self.folder}/munged.seed"], "munged")
        self.until(lambda: (self.folder / "munge.sock").exists(), "munged listens")
        self._run(["slurmctld", "-D", "-c", "-f", str(self.conf)], "slurmctld")
        for node in ("n1", "n2"):
            self._run(["slurmd", "-D", "-f", str(self.conf), "-N", node], node)
        self.until(
            lambda: self.ask("sinfo", "-h", "-p", "low", "-t", "idle", "-o", "%D").strip() == "2", "both nodes idle"
        )

    def _run(self, words: list[str], name: str) -> None:
        log = (self.folder / f"{name}.out").open("wb")
        child = subprocess.Popen(words, env=self.environment(), stdout=log, stderr=log, start_new_session=True)
        log.close()
        self.children.append(child)

    def environment(self) -> dict[str, str]:
        """What makes SLURM's commands speak to this cluster."""
        path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
        return {**os.environ, "SLURM_CONF": str(self.conf), "PATH": path}

    def ask(self, *words: str) -> str:
        """What a SLURM command prints, "" if it fails."""
        done = subprocess.run(
            words, env=self.environment(), capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        return done.stdout if done.returncode == 0 else ""

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for something; what the daemons have logged is told if it never comes."""
        until(condition, what, self.logs)

    def logs(self) -> str:
        """The last words of each daemon."""
        logs = self.folder.glob("*.log")
        return "\n".join(f"{log.name}: {log.read_text(errors='replace')[-800:]}" for log in logs)

    def stop(self) -> None:
        """Cancel every job and end the daemons."""
        self.ask("scancel", f"--user={getpass.getuser()}")
        time.sleep(0.3)  # jobs that still end then are ended with their daemons
        for child in reversed(self.children):
            with suppress(ProcessLookupError):
                os.killpg(child.pid, 15)
        for child in self.children:
            try:
                child.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, 9)


def main() -> None:
    """Start a cluster and keep it."""
    if missing():
        sys.exit(f"not installed: {', '.join(missing())}\n  apt install slurmctld slurmd slurm-client munge")
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "/tmp/mmtui-slurm").absolute()
    cluster = Cluster(folder)
    cluster.start()
    sys.stdout.write(f"export SLURM_CONF={cluster.conf}\n")
    sys.stdout.flush()
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        cluster.stop()


if __name__ == "__main__":
    main()
