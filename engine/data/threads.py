"""Work on many files at once, in threads: Pillow, NumPy and hashlib let go of the interpreter while they work."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from engine.data.dataset import Progress

PROGRESS_EVERY = 16
MOST_THREADS = 16
Result = TypeVar("Result")


def in_threads(work: Callable[[int], Result], count: int, text: str, progress: Progress | None = None) -> list[Result]:
    """``[work(0), ..., work(count - 1)]``; the first error in order is the one raised.

    Args:
        text: what ``progress`` is told is being done.
    """
    results = []
    with ThreadPoolExecutor(max_workers=thread_count()) as pool:
        futures = [pool.submit(work, index) for index in range(count)]
        try:
            for done, future in enumerate(futures, 1):
                results.append(future.result())
                if progress and (done % PROGRESS_EVERY == 0 or done == count):
                    progress(text, done, count)
        except BaseException:
            for future in futures:
                future.cancel()
            raise
    return results


def thread_count() -> int:
    """One thread a core that this process may use: decoding is bound by them, and more threads slow it down."""
    return max(1, min(MOST_THREADS, len(os.sched_getaffinity(0))))
