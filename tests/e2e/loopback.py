"""A real sshd on loopback, for tests that come over the network."""

from __future__ import annotations

import getpass
import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from mmtui.paths import Home
from tests.e2e.terminals import PROGRAM, Terminal
from tests.waiting import PATIENCE, until

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
NEEDS_SSH = [
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


@contextmanager
def serving(tmp_path: Path) -> Iterator[Server]:
    """An sshd with its files in a folder."""
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
        until(lambda: process.poll() is not None or b"Server listening" in log.read_bytes(), "sshd listening")
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
    found = subprocess.run(server.command("true"), capture_output=True, text=True, timeout=PATIENCE, check=False)
    if found.returncode == 255:
        shell = pwd.getpwuid(os.getuid()).pw_shell
        why = (server.folder / "log").read_text().strip().splitlines()[-1:]
        pytest.skip(f"this user (shell {shell}) cannot log in over ssh here: {found.stderr.strip()} {why}")


def connect(server: Server, home: Home, columns: int = 160, rows: int = 48, command: str = str(PROGRAM)) -> Terminal:
    """A terminal with ``ssh -tt ... COMMAND`` in it."""
    remote = f"MMTUI_HOME={home.root} LC_ALL=C.UTF-8 exec {command}"
    environment = {"TERM": "xterm-256color", "PATH": os.environ["PATH"], "HOME": str(server.folder)}
    return Terminal(server.command(remote), columns, rows, environment)
