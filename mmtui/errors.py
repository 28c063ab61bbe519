"""One error tree; each error knows its exit code. Command lines turn it into one sentence on stderr."""

from __future__ import annotations

from enum import IntEnum

from engine.text import curtailed


class ExitCode(IntEnum):
    """Exit codes of every mmtui command (part of the public contract)."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    NOT_FOUND = 4
    REFUSED = 5
    NO_RESOURCES = 6
    TIMED_OUT = 124
    INTERRUPTED = 130


class MmtuiError(Exception):
    """Base of everything a user can be told. ``hint`` says what to write instead.

    Both repeat what was typed, which may be a number of thousands of digits: of that only the beginning is kept.
    """

    exit_code = ExitCode.FAILED

    def __init__(self, message: str, hint: str = "") -> None:
        self.message, self.hint = curtailed(message), curtailed(hint)
        super().__init__(self.message)


class UsageError(MmtuiError):
    """A recipe, override or option is wrong."""

    exit_code = ExitCode.USAGE


class UnreachableError(MmtuiError):
    """The supervisor or the database cannot be reached."""

    exit_code = ExitCode.UNREACHABLE


class NotFoundError(MmtuiError):
    """No such run, or more than one."""

    exit_code = ExitCode.NOT_FOUND


class RefusedError(MmtuiError):
    """What was asked for is not possible in this state."""

    exit_code = ExitCode.REFUSED


class NoResourcesError(MmtuiError):
    """Not enough GPU, memory or disk."""

    exit_code = ExitCode.NO_RESOURCES


class TimedOutError(MmtuiError):
    """A wait ran out."""

    exit_code = ExitCode.TIMED_OUT
