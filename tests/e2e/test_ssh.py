"""Over a real sshd on loopback: the screen works, and losing the connection ends the screen alone."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pexpect
import pyte
import pytest

from mmtui.paths import Home
from mmtui.services import runs
from tests.e2e.support import TINY, kill_everything, mmtui, processes_of, wait_until

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not Path(SSHD).exists() or shutil.which("ssh") is None, reason="sshd or ssh is not installed"),
]


@dataclass(frozen=True)
class Server:
    """An sshd of the test's own."""

    port: int
    key: Path
    known_hosts: Path

    def command(self, remote: str) -> list[str]:
        options = ["StrictHostKeyChecking=no", f"UserKnownHostsFile={self.known_hosts}", "IdentitiesOnly=yes"]
        words = ["-tt", "-p", str(self.port), "-i", str(self.key), "-F", "none"]
        for option in options:
            words += ["-o", option]
        return [*words, f"{getpass.getuser()}@127.0.0.1", remote]


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Server]:
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)], check=True)
    (tmp_path / "authorized").write_text((tmp_path / "user.pub").read_text())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (tmp_path / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {tmp_path / 'host'}\nPidFile {tmp_path / 'pid'}\n"
        f"AuthorizedKeysFile {tmp_path / 'authorized'}\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
        "PermitRootLogin yes\nPermitUserEnvironment no\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True, mode=0o755)
    server = subprocess.Popen(
        [SSHD, "-D", "-e", "-f", str(tmp_path / "config")], stderr=(tmp_path / "log").open("w"), start_new_session=True
    )
    wait_until(lambda: "Server listening" in (tmp_path / "log").read_text(), 10, "sshd listening")
    yield Server(port, tmp_path / "user", tmp_path / "known")
    server.kill()
    server.wait()


def test_ssh_screen_shows_the_run_and_a_lost_connection_ends_the_screen_alone(sshd: Server, home: Home) -> None:
    try:
        queued = mmtui(home, "run", "shapes_mixmatch", *TINY, "segment.steps=1500", "-q")
        assert queued.returncode == 0, queued.stderr
        run_id = queued.stdout.strip()
        remote = f"MMTUI_HOME={home.root} LC_ALL=C.UTF-8 TERM=xterm-256color exec {sys.executable} -m mmtui"
        client = pexpect.spawn("ssh", sshd.command(remote), dimensions=(48, 160), encoding=None, timeout=20)
        screen = pyte.Screen(160, 48)
        stream = pyte.ByteStream(screen)

        def shows(words: str) -> bool:
            try:
                stream.feed(client.read_nonblocking(65536, timeout=0.2))
            except (pexpect.TIMEOUT, pexpect.EOF):
                pass
            return words in "\n".join(screen.display)

        wait_until(lambda: shows("● running"), 40, "the live run over ssh")
        wait_until(lambda: shows("┤"), 20, "the chart over ssh")
        screens = [p.pid for p in processes_of(home) if p.cmdline()[-2:] == ["-m", "mmtui"]]
        assert len(screens) == 1
        os.kill(client.pid, signal.SIGKILL)
        client.close(force=True)
        wait_until(lambda: screens[0] not in [p.pid for p in processes_of(home)], 15, "the screen ending")
        at_loss = runs.get_run(home, run_id).row.progress
        wait_until(lambda: runs.get_run(home, run_id).row.progress > at_loss, 20, "the run going on")
        left = [" ".join(p.cmdline()) for p in processes_of(home)]
        assert sorted("supervisor" in line for line in left) == [False, True], left
        assert sum("engine train" in line for line in left) == 1
        assert mmtui(home, "wait", run_id, "--timeout", "120", timeout=130).returncode == 0
    finally:
        kill_everything(home)
