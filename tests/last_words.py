"""What a process said that a test has started and that has failed: a plugin of pytest (tests/conftest.py).

``subprocess.run(..., check=True, capture_output=True)`` raises an error which holds its words and does not show them.
"""

from __future__ import annotations

import subprocess
from collections.abc import Generator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    error = call.excinfo.value if call.excinfo else None
    if isinstance(error, subprocess.CalledProcessError | subprocess.TimeoutExpired):
        for name, said in (("stdout", error.stdout), ("stderr", error.stderr)):
            if said:
                error.add_note(f"{name} ends with:\n{_text(said)[-4000:]}")
    return (yield)


def _text(said: str | bytes) -> str:
    return said.decode(errors="replace") if isinstance(said, bytes) else said
