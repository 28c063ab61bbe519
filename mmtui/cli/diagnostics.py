"""stderr and exit codes: every error a user can meet becomes one sentence, what to write instead, and a code."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

from mmtui.errors import ExitCode, MmtuiError


class Interrupted(BaseException):
    """Ctrl-C. No Exception, so that no library between us and the terminal takes it for an error of its own."""


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise Interrupted


def say(text: str) -> None:
    """Talk to the person: stderr, never stdout."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def guarded(command: Callable[[], object]) -> int:
    """Run a command line and turn whatever ends it into an exit code."""
    signal.signal(signal.SIGINT, _interrupt)
    # `mmtui ls | head` ends quietly, like any other program in a pipe.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        command()
    except MmtuiError as error:
        say(f"error: {error.message}" + (f"\n  {error.hint}" if error.hint else ""))
        return int(error.exit_code)
    except Interrupted:
        say("interrupted")
        return int(ExitCode.INTERRUPTED)
    except SystemExit as leave:
        return leave.code if isinstance(leave.code, int) else 0 if leave.code is None else 1
    except OSError as error:
        if os.environ.get("MMTUI_DEBUG"):
            raise
        where = f"{error.filename}: " if error.filename else ""
        say(f"error: {where}{error.strerror or error}")
        return int(ExitCode.FAILED)
    return int(ExitCode.OK)
