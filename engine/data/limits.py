"""The memory budget of decoded data."""

from __future__ import annotations

from engine.errors import DataError

GIB = 1024**3


def check_budget(what: str, needed: int, budget: int | None, advice: str) -> None:
    """Refuse data that would not fit, before anything is decoded.

    Raises:
        DataError: ``needed`` bytes exceed ``budget``; the message names both sizes, the cache and ``advice``.
    """
    if budget is not None and needed > budget:
        raise DataError(
            f"{what} needs {needed / GIB:.2f} GiB decoded, more than runtime.memory_budget_gib = {budget / GIB:.2f}: "
            f"raise the budget, set runtime.data_cache to a folder for decoded data (empty = the usual one), {advice}."
        )
