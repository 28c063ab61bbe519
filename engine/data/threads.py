"""Work on many files at once, in threads: Pillow, NumPy and hashlib let go of the interpreter while they work.

Processes that write into shared memory are no faster with pictures of a camera's size, and have to be started; they are
with tens of thousands of thumbnails, see ``engine.data.processes`` (measured by ``benchmarks/bench_decode.py``).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from engine.data.values import Progress

MOST_AT_ONCE = 16
"""Of small files so many are one piece of work: handing over each one takes as long as decoding a thumbnail."""
PIECES = 8
"""Pieces of work for each thread, at least; more of them are finished more evenly."""
MOST_THREADS = 16
Result = TypeVar("Result")


def in_threads(work: Callable[[int], Result], count: int, text: str, progress: Progress | None = None) -> list[Result]:
    """``[work(0), ..., work(count - 1)]``; the first error in order is the one raised.

    Args:
        text: what ``progress`` is told is being done.
    """
    threads, left = thread_count(), threading.Event()
    size = max(1, min(MOST_AT_ONCE, count // (PIECES * threads)))

    def piece(first: int) -> list[Result]:
        return [work(index) for index in range(first, min(first + size, count)) if not left.is_set()]

    results: list[Result] = []
    with ThreadPoolExecutor(max_workers=threads) as pool:
        futures = [pool.submit(piece, first) for first in range(0, count, size)]
        try:
            for future in futures:
                results += future.result()
                if progress:
                    progress(text, len(results), count)
        except BaseException:
            left.set()
            for future in futures:
                future.cancel()
            raise
    return results


def thread_count() -> int:
    """One thread a core that this process may use: decoding is bound by them, and more threads slow it down."""
    return max(1, min(MOST_THREADS, len(os.sched_getaffinity(0))))
