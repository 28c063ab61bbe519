"""Which tests start processes: found in the code of the test, of its fixtures and of what these call in tests/."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import cache
from types import CodeType, FunctionType
from typing import Any

import pytest

PROCESSES = {"subprocess", "pexpect", "pty", "multiprocessing", "forkserver", "squares_in_processes", "ensure"}
TERMINALS = {"pexpect"}
OF_A_RUNNER = {"finish", "start", "kill_at"}
"""Methods of tests/unit/engine_run/conftest.Runner that start a process; the others train in this one."""


def start_processes(item: pytest.Item) -> bool:
    """Whether a test starts processes of its own."""
    used = names(item)
    has_runner = "Runner" in used or any("runner" in name for name in getattr(item, "fixturenames", ()))
    return bool(used & PROCESSES) or (has_runner and bool(used & OF_A_RUNNER))


def run_in_a_terminal(item: pytest.Item) -> bool:
    """Whether a test runs a program in a pseudo-terminal."""
    return bool(names(item) & TERMINALS)


def names(item: pytest.Item) -> set[str]:
    """What is named by a test's code, by its fixtures, and by everything in tests/ that they name."""
    found = set(_reached(getattr(item, "function", None)))
    for definitions in getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {}).values():
        for definition in definitions:
            found |= _reached(inspect.unwrap(definition.func))
    return found


@cache
def _reached(start: Any) -> frozenset[str]:
    found, seen, waiting = set[str](), set[int](), [start]
    while waiting:
        one = waiting.pop()
        if id(one) in seen or not _is_ours(one):
            continue
        seen.add(id(one))
        waiting += getattr(one, "__bases__", ())
        for function in _functions(one):
            used = set(_names_of(function.__code__))
            found |= used
            named = [function.__globals__[name] for name in used if name in function.__globals__]
            modules = [module for module in named if inspect.ismodule(module) and module.__name__.startswith("tests.")]
            waiting += named + [vars(module)[name] for module in modules for name in used if name in vars(module)]
    return frozenset(found)


def _is_ours(one: Any) -> bool:
    named = getattr(one, "__name__", "")
    return named != "Runner" and (getattr(one, "__module__", None) or "").startswith(("tests.", "conftest"))


def _functions(one: Any) -> list[FunctionType]:
    """A function, or those of a class."""
    members = vars(one).values() if inspect.isclass(one) else [one]
    return [found for found in map(inspect.unwrap, members) if isinstance(found, FunctionType)]


def _names_of(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_of(constant)
