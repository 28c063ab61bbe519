"""Command lines run inside the test's process, through the real entry point."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

import mmtui.__main__
from mmtui.cli import render
from mmtui.cli.diagnostics import guarded
from mmtui.paths import Home
from mmtui.services import supervisors


@dataclass(frozen=True)
class Outcome:
    """What a command line did."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """stdout as the one JSON document that it must be."""

        def refuse(constant: str) -> None:
            raise AssertionError(f"{constant} is no JSON")

        return json.loads(self.out, parse_constant=refuse)


Invoke = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def process_state_kept() -> Iterator[None]:
    """The entry point sets signal handlers and a colour mode; the test process gets its own back."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGPIPE)}
    yield
    render.set_color("")
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.fixture
def mmtui_(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """``mmtui_("ls", "--json")`` as typed at a prompt."""

    def invoke(*argv: str) -> Outcome:
        capsys.readouterr()
        monkeypatch.setattr("sys.argv", ["mmtui", *argv])
        code = mmtui.__main__.main()
        out, err = capsys.readouterr()
        return Outcome(code, out, err)

    return invoke


@pytest.fixture
def typer_(capsys: pytest.CaptureFixture[str]) -> Invoke:
    """The same through Typer alone, past the quick parser."""

    def invoke(*argv: str) -> Outcome:
        from mmtui.cli.app import app

        capsys.readouterr()

        def command() -> int:
            app(list(argv), prog_name="mmtui")
            return 0

        code = guarded(command)
        out, err = capsys.readouterr()
        return Outcome(code, out, err)

    return invoke


@pytest.fixture
def supervised(home: Home) -> Iterator[Home]:
    """A data directory whose supervisor, should a verb start one, is stopped at the end."""
    yield home
    supervisors.stop(home, 30)
