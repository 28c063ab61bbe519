"""The engine in processes of its own, forked from one that has loaded it: a new interpreter takes two seconds for that.

They are as separate as any (own memory, signals, exit status), and have only not read the same libraries again; they
share the seed of string hashes, which new interpreters do not (tests/e2e/test_survival.py compares such ones).
``python -m engine`` itself is tested in test_main, torchrun in test_distributed and test_memory_distributed.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from multiprocessing import forkserver
from pathlib import Path

from engine.config import Recipe, dump_recipe
from tests.waiting import PATIENCE

_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload(["engine.__main__", "engine.loop", "tests.unit.engine_run.lacking"])


def _engine(arguments: list[str], how: str, folder: str, environment: dict[str, str], out: str, err: str) -> None:
    """What a forked process does: become what ``python -m engine ARGUMENTS`` would be in that folder."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, name in ((1, out), (2, err)):
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(descriptor, number)
        os.close(descriptor)
    from engine.__main__ import main
    from tests.unit.engine_run import lacking

    if how:
        lacking.apply(how)
    sys.exit(main(arguments))


class Engine:
    """A process of the engine; with some of subprocess.Popen's names."""

    def __init__(self, arguments: Sequence[str], folder: Path, how: str = "", **environment: str) -> None:
        name = f"{environment.get('RANK', 'alone')}_{time.monotonic_ns()}"
        self._out, self._err = folder / f"{name}.out", folder / f"{name}.err"
        told = {**os.environ, **environment}
        parameters = (list(arguments), how, str(folder), told, str(self._out), str(self._err))
        self._process = _FORKING.Process(target=_engine, args=parameters, daemon=True)
        with _one_thread():
            forkserver.ensure_running()
        self._process.start()

    def poll(self) -> int | None:
        """Exit status, of a process that a signal has ended its negative number; None while it runs."""
        return self._process.exitcode

    @property
    def code(self) -> int:
        """Exit status of a process that has ended."""
        status = self.poll()
        assert status is not None, "it runs"
        return status

    def send_signal(self, number: int) -> None:
        """Nothing happens if it has ended."""
        if self._process.pid is not None and self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    def wait(self) -> None:
        """Until it has ended."""
        self._process.join(PATIENCE)
        assert self.poll() is not None, "a process that was killed is still there"

    def said(self) -> str:
        """What it has written to stderr."""
        return _text(self._err)

    def communicate(self, timeout: float = PATIENCE) -> tuple[str, str]:
        """Wait for its end: what it has written to stdout and stderr.

        Raises:
            TimeoutError: it has not ended in time, and was killed.
        """
        self._process.join(timeout)
        if self.poll() is None:
            self.send_signal(signal.SIGKILL)
            self._process.join()
            raise TimeoutError(f"not at its end after {timeout} s:\n{_text(self._err)}")
        return _text(self._out), _text(self._err)


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.exists() else ""


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """For the server: with a second thread its children would inherit locks that nobody opens."""
    wanted = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    # As engine.__main__ sets it, which comes too late in a process that has loaded torch.
    wanted["GOMP_SPINCOUNT"] = "1000"
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


_ports = itertools.count()


def _own_port() -> str:
    """A free port that nobody else takes before rank 0 listens there: none of those that connections are given, and of
    each worker of the tests its own."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    while True:
        port = 15_000 + 1_000 * (worker % 16) + (os.getpid() + next(_ports)) % 1_000
        with socket.socket() as free, contextlib.suppress(OSError):
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind(("127.0.0.1", port))
            return str(port)


class Ranks:
    """Several processes that train together, as torchrun starts them; unlike it this ends no process for another."""

    def __init__(self, recipe: Recipe, run_dir: Path, processes: int, how: str = "", *options: str) -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        file = run_dir / "recipe.yaml"
        file.write_text(dump_recipe(recipe))
        arguments = ["train", "--recipe", str(file), "--run-dir", str(run_dir), *options]
        place = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": _own_port(),
            "WORLD_SIZE": str(processes),
            "OMP_NUM_THREADS": "1",
        }
        self._all = [
            Engine(arguments, run_dir, how, **place, RANK=rank, LOCAL_RANK=rank, LOCAL_WORLD_SIZE=str(processes))
            for rank in map(str, range(processes))
        ]

    def __enter__(self) -> Ranks:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def running(self) -> bool:
        """Whether none has ended."""
        return all(one.poll() is None for one in self._all)

    def send_signal(self, number: int) -> None:
        """To each of them, as torchrun passes on what it is sent."""
        for one in self._all:
            one.send_signal(number)

    def kill(self) -> None:
        """End all that run, and wait until they have let go of what they held: the next ones need the run's lock."""
        self.send_signal(signal.SIGKILL)
        for one in self._all:
            one.wait()

    def finish(self, timeout: float = PATIENCE) -> tuple[int, str]:
        """Wait for the end of all: the first exit status that is not 0, and what all have written to stderr.

        Raises:
            TimeoutError: one has not ended in time; all were killed.
        """
        try:
            told = "".join(one.communicate(timeout)[1] for one in self._all)
        except TimeoutError as error:
            ranks = (f"rank {number}: {one.poll()} {one.said()}" for number, one in enumerate(self._all))
            raise TimeoutError("\n".join([str(error), *ranks])) from None
        finally:
            self.kill()
        return next((one.code for one in self._all if one.code), 0), told
