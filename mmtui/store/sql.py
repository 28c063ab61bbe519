"""Parts that statements have in common."""

from __future__ import annotations

from collections.abc import Sized

from mmtui.domain.states import ACTIVE_STATES

ACTIVE = ",".join(f"'{state.value}'" for state in ACTIVE_STATES)
"""The active states, for ``state IN (...)``."""
PORTION = 500
"""So many values are given to one statement at most, where there may be any number of them."""


def marks(values: Sized) -> str:
    """A question mark for each value, for ``IN (...)``."""
    return ",".join("?" * len(values))
