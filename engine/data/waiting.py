"""How long training steps were busy with getting their data, summed up over the process.

On a GPU that keeps the data this is the time to queue some kernels; where data come from the host it is the wait for
them; on a CPU it is the work of cutting crops.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
_seconds = 0.0


def seconds() -> float:
    """Seconds of the host spent so far in all ``counted`` functions."""
    return _seconds


def counted(work: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """The function, with its time counted. Counted functions must not call each other."""

    @wraps(work)
    def timed(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        global _seconds  # noqa: PLW0603
        began = time.perf_counter()
        try:
            return work(*args, **kwargs)
        finally:
            _seconds += time.perf_counter() - began

    return timed
