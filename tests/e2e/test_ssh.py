"""Over a real sshd on loopback: the screen works, and losing the connection ends the screen alone."""

from __future__ import annotations

import getpass
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from mmtui.paths import Home
from mmtui.services import runs, supervisors
from tests.e2e.support import mmtui, processes_of, wait_until
from tests.e2e.terminals import (
    ENDLESS,
    PROGRAM,
    RECIPE,
    Terminal,
    downs_to,
    kinds_of,
    progress,
    screens_of,
    terminal_of,
    wait_for_moving_chart,
)

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
LEAVES_FULL_SCREEN = b"\x1b[?1049l"
Connect = Callable[..., Terminal]
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not Path(SSHD).exists(), reason="sshd is not installed (Debian: openssh-server)"),
    pytest.mark.skipif(shutil.which("ssh") is None, reason="ssh is not installed (Debian: openssh-client)"),
]


@dataclass
class Server:
    """An sshd of the test's own: its config, host key, port and authorised key are in a temporary folder."""

    port: int
    folder: Path
    process: subprocess.Popen[bytes]

    def command(self, remote: str, *options: str) -> list[str]:
        """The ssh client with a terminal; nothing of the user's own settings is used."""
        words = ["ssh", "-tt", "-F", "none", "-p", str(self.port), "-i", str(self.folder / "user")]
        settings = ["StrictHostKeyChecking=no", f"UserKnownHostsFile={self.folder / 'known'}", "IdentitiesOnly=yes"]
        for option in (*settings, "IdentityAgent=none", "BatchMode=yes", "LogLevel=ERROR", *options):
            words += ["-o", option]
        return [*words, f"{getpass.getuser()}@127.0.0.1", remote]

    def sessions(self) -> list[psutil.Process]:
        """Every live process of its connections."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Server]:
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)], check=True)
    shutil.copy(tmp_path / "user.pub", tmp_path / "authorized")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": tmp_path / "host",
        "PidFile": "none",
        "AuthorizedKeysFile": tmp_path / "authorized",
        "StrictModes": "no",  # the temporary folder may lie below one that others can write to
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "PermitRootLogin": "prohibit-password",
    }
    (tmp_path / "config").write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True, mode=0o755)  # where root's sshd locks its helper in
    log = tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(tmp_path / "config")], stderr=file)
    server = Server(port, tmp_path, process)
    try:
        wait_until(lambda: process.poll() is not None or b"Server listening" in log.read_bytes(), 10, "sshd listening")
        assert process.poll() is None, log.read_text()
        _check_login(server)
        yield server
    finally:
        if process.poll() is None:
            for session in server.sessions():
                session.kill()
            process.kill()
        process.wait()


def _check_login(server: Server) -> None:
    """Skip where this user cannot log in by key at all, such as one whose account is locked."""
    found = subprocess.run(server.command("true"), capture_output=True, text=True, timeout=20, check=False)
    if found.returncode == 255:
        shell = pwd.getpwuid(os.getuid()).pw_shell
        why = (server.folder / "log").read_text().strip().splitlines()[-1:]
        pytest.skip(f"this user (shell {shell}) cannot log in over ssh here: {found.stderr.strip()} {why}")


@pytest.fixture
def connect(sshd: Server, short_home: Home) -> Iterator[Connect]:
    """Terminals with `ssh -tt ... mmtui` in them."""
    opened: list[Terminal] = []

    def begin(columns: int = 160, rows: int = 48) -> Terminal:
        remote = f"MMTUI_HOME={short_home.root} LC_ALL=C.UTF-8 exec {PROGRAM}"
        environment = {"TERM": "xterm-256color", "PATH": os.environ["PATH"], "HOME": str(sshd.folder)}
        opened.append(Terminal(sshd.command(remote), columns, rows, environment))
        return opened[-1]

    yield begin
    for terminal in opened:
        terminal.close()


@pytest.mark.parametrize("lost", ["client-killed", "terminal-not-read"])
def test_ssh_connection_lost_ends_the_screen_and_not_the_run(
    sshd: Server, short_home: Home, connect, lost: str
) -> None:
    client = connect()
    client.wait_for("no runs yet")
    client.send("n")
    client.wait_for("New run")
    client.send("\x1b[B" * downs_to(short_home))
    client.wait_for("ok: match")
    unfocused = client.look_of("overrides")
    client.send("\r")
    wait_until(lambda: client.look_of("overrides") != unfocused, 20, "the focus on the overrides")
    client.send(" ".join(ENDLESS))
    client.wait_for("ok: match 20 steps")
    client.send("\r")
    wait_for_moving_chart(client.screen)
    (screen,) = screens_of(short_home)
    assert terminal_of(screen) != 0

    if lost == "client-killed":
        os.kill(client.child.pid, signal.SIGKILL)
    else:
        _stop_reading_then_give_up(psutil.Process(screen).parent())
    wait_until(lambda: screen not in screens_of(short_home), 20, "the screen ending")
    wait_until(lambda: sshd.sessions() == [], 10, "the end of everything that the connection began")
    left_at = progress(short_home)
    wait_until(lambda: progress(short_home) > left_at, 20, "the run going on")
    row = runs.get_run(short_home, "1").row
    assert (row.state, row.attempt) == ("running", 1), "nothing was started anew"
    assert kinds_of(short_home) == ["supervisor", "trainer"], "and nothing else is left"
    assert {terminal_of(process.pid) for process in processes_of(short_home)} == {0}
    assert supervisors.status(short_home).running


def _stop_reading_then_give_up(session: psutil.Process | None) -> None:
    """What a silent network does: the terminal's buffer fills up, and much later the server closes the terminal.

    The server's own patience is not waited for: OpenSSH 9.2 starts it anew with every byte that it sends.
    """
    assert session is not None and session.name().startswith("sshd")
    session.suspend()
    time.sleep(5)
    session.kill()


def test_ssh_live_run_is_shown_and_q_gives_the_terminal_back(short_home: Home, connect: Connect) -> None:
    queued = mmtui(short_home, "run", RECIPE, *ENDLESS, "-q")
    assert queued.returncode == 0, queued.stderr
    client = connect(80, 24)
    wait_for_moving_chart(client.screen)
    assert "running" in client.screen()
    client.send("q")
    wait_until(lambda: not client.child.isalive(), 15, "ssh ending")
    assert client.child.exitstatus == 0, "the exit status comes through ssh"
    assert LEAVES_FULL_SCREEN in client.received
    assert progress(short_home) > 0 and kinds_of(short_home) == ["supervisor", "trainer"]
    assert mmtui(short_home, "cancel", "1", "--now").returncode == 0
    assert mmtui(short_home, "wait", "1", "--timeout", "30").returncode in (0, 1)
    assert runs.get_run(short_home, "1").row.state == "cancelled"
