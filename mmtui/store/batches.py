"""Something is done to many runs, and others can write meanwhile: transactions of a moment, with room between."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from sqlmodel import Session

    from mmtui.store.db import Database

Item = TypeVar("Item")
HELD_SECONDS = 0.08
"""For which the write lock is held, and what is begun then."""
FREE_SECONDS = 0.02
"""For which it is free then: who waits for it looks each 100 ms at least, and must meet it within ten seconds."""


def in_batches(
    database: Database, items: Iterable[Item], do: Callable[[Session, Item], None], *, durable: bool = False
) -> Iterator[list[Item]]:
    """Do something to each item in write transactions that are short; yields what each has committed.

    An error rolls back the batch in which it is raised, and ends all; the batches before it stay.

    Args:
        durable: see ``Database.write``.
    """
    left = deque(items)
    while left:
        done: list[Item] = []
        with database.write(durable=durable) as session:
            until = time.monotonic() + HELD_SECONDS
            while left and (not done or time.monotonic() < until):
                do(session, left[0])
                done.append(left.popleft())
        yield done
        if left:
            time.sleep(FREE_SECONDS)
