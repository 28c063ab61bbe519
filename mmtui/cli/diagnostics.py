"""stderr and exit codes: every error a user can meet becomes one sentence, what to write instead, and a code."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

from engine.streams import wait_for_room
from mmtui.access import remedy
from mmtui.domain.text import printable
from mmtui.errors import ExitCode, MmtuiError

DEBUG = "MMTUI_DEBUG"
"""A variable: if it is set, errors nobody expected are told with their traceback."""


UNSERVED = "no supervisor runs: nothing begins or ends until one does; start it with: mmtui daemon start"


class Interrupted(BaseException):
    """Ctrl-C. No Exception, so that no library between us and the terminal takes it for an error of its own."""


class Ended(BaseException):
    """SIGTERM, or SIGHUP where the terminal is gone: whatever is half done is taken back before the process ends.

    Attributes:
        number: the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


_ENDING = (signal.SIGTERM, signal.SIGHUP)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise Interrupted


def _end(number: int, _frame: FrameType | None) -> None:
    raise Ended(number)


def _end_by(number: int) -> None:
    """End as whoever sent the signal expects: by it."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def leave_signals() -> None:
    """For what handles them itself, from its own start on; until then they end the process as they always do."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in _ENDING:
        if signal.getsignal(number) is _end:
            signal.signal(number, signal.SIG_DFL)


def say(text: str) -> None:
    """Talk to the person: stderr, never stdout."""
    if sys.stderr is None:
        return
    text = "\n".join(printable(part) for part in text.splitlines())
    encoding = getattr(sys.stderr, "encoding", None) or "ascii"
    sys.stderr.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    sys.stderr.flush()


def ask(question: str) -> bool:
    """Whether the person at the terminal says yes; no without a terminal."""
    if sys.stdin is None or sys.stderr is None or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    say(f"{question} [y/N]")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def tell_shell(text: str) -> None:
    """Answer a shell that completes: on stdout, without ``render``, which takes longer to load than all the rest."""
    sys.stdout.write(f"{text}\n")


def report(error: MmtuiError) -> int:
    """Say what went wrong; its exit code."""
    say(f"error: {error.message}" + (f"\n  {error.hint}" if error.hint else ""))
    return int(error.exit_code)


def guarded(command: Callable[[], int]) -> int:
    """Run a command line and turn whatever ends it into an exit code."""
    signal.signal(signal.SIGINT, _interrupt)
    # `mmtui ls | head` ends quietly, like any other program in a pipe.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    for number in _ENDING:
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores one of them
            signal.signal(number, _end)
    wait_for_room()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # What its encoding lacks is spelled out instead of ending the program.
            stream.reconfigure(errors="backslashreplace")
    try:
        return command()
    except MmtuiError as error:
        return report(error)
    except Ended as ended:
        _end_by(ended.number)
        return int(ExitCode.INTERRUPTED)
    except (Interrupted, KeyboardInterrupt):
        say("interrupted")
        return int(ExitCode.INTERRUPTED)
    except SystemExit as leave:
        return leave.code if isinstance(leave.code, int) else 0 if leave.code is None else int(ExitCode.FAILED)
    except OSError as error:
        return _report_system(error)
    except Exception as error:
        return _report_fault(error)


def _report_system(error: OSError) -> int:
    """One line on what the system refused, and what mends it where that can be told; its exit code."""
    _tell_origin(error)
    where = f"{error.filename}: " if error.filename else ""
    say(f"error: {where}{error.strerror or error}")
    closed = remedy(error.filename) if isinstance(error, PermissionError) and error.filename else ""
    if closed:
        say(f"  {closed}")
    return int(ExitCode.FAILED)


def _report_fault(error: Exception) -> int:
    """One line on what nobody expected to fail; its exit code."""
    from mmtui.domain.faults import sentence

    _tell_origin(error)
    more = "" if os.environ.get(DEBUG) else f"; {DEBUG}=1 shows where it comes from"
    say(f"error: {sentence(error)}{more}")
    return int(ExitCode.FAILED)


def _tell_origin(error: Exception) -> None:
    """The traceback, for those who ask for it."""
    if os.environ.get(DEBUG):
        import traceback

        say("".join(traceback.format_exception(error)).rstrip())
