"""Many files at once: order, the first error, progress, and a quick end."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from engine.data import threads
from engine.data.pairs import LabelRule, check_indices, plain_meaning
from engine.data.pictures import pixels_of
from engine.data.threads import in_threads
from engine.errors import DataError
from tests.waiting import PATIENCE

NOWHERE = Path("mask.png")


@pytest.fixture(params=[1, 4])
def some_threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(threads, "thread_count", lambda: request.param)
    return int(request.param)


@pytest.mark.parametrize("count", [0, 1, 7, 64, 1000])
def test_in_threads_keeps_the_order_and_tells_everything(some_threads: int, count: int) -> None:
    told: list[tuple[str, int, int]] = []
    assert in_threads(lambda index: index**2, count, "squaring", lambda *words: told.append(words)) == [
        index**2 for index in range(count)
    ]
    done = [number for _, number, _ in told]
    assert done == sorted(set(done)) and all(words[::2] == ("squaring", count) for words in told)
    assert not count or done[-1] == count
    assert max(np.diff([0, *done]), default=0) <= threads.MOST_AT_ONCE


def test_in_threads_raises_the_first_error_in_order_though_a_later_one_comes_sooner(some_threads: int) -> None:
    def work(index: int) -> int:
        if index == 300:
            time.sleep(0.2)
        if index >= 300:
            raise DataError(f"file {index}")
        return index

    with pytest.raises(DataError, match=r"^file 300$"):
        in_threads(work, 1000, "reading")


def test_in_threads_that_is_stopped_leaves_what_has_not_begun(
    some_threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []
    left = threading.Event()
    monkeypatch.setattr(threads, "threading", SimpleNamespace(Event=lambda: left))

    def work(index: int) -> None:
        begun.append(index)
        if index >= threads.MOST_AT_ONCE:  # however slowly the stop is heard of, nobody gets further meanwhile
            assert left.wait(PATIENCE)

    def stop(_text: str, _done: int, _count: int) -> None:
        raise KeyboardInterrupt

    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt):
        in_threads(work, 2000, "reading", stop)
    assert threads.MOST_AT_ONCE <= len(begun) <= threads.MOST_AT_ONCE + some_threads
    assert set(threading.enumerate()) <= before


def test_check_indices_finds_every_value_that_is_not_allowed() -> None:
    rule = LabelRule(("a", "b"), plain_meaning(2, (255,)), "there are 2 classes", lambda _: "remove it")
    allowed = np.array([[0, 1, 255]], np.uint8)
    assert check_indices(allowed, NOWHERE, rule).tolist() == [[0, 1, 255]]
    for wrong in range(2, 255):
        with pytest.raises(DataError, match=rf"holds the value {wrong} \(1 pixels"):
            check_indices(np.array([[0, wrong, 255]], np.uint8), NOWHERE, rule)


def test_check_indices_of_as_many_classes_as_there_are_values() -> None:
    everything = np.arange(256, dtype=np.uint8)[None]
    rule = LabelRule(("a",), plain_meaning(255, (255,)), "all", lambda _: "")
    assert check_indices(everything, NOWHERE, rule).tolist() == everything.tolist()
    rule = LabelRule(("a",), plain_meaning(255, ()), "all but 255", lambda _: "")
    assert check_indices(everything[:, :255], NOWHERE, rule).tolist() == everything[:, :255].tolist()
    with pytest.raises(DataError, match="holds the value 255"):
        check_indices(everything, NOWHERE, rule)


def test_pixels_of_a_picture_are_those_that_pillow_gives() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    found = pixels_of(Image.fromarray(pixels))
    assert np.array_equal(found, pixels) and found.transpose(2, 0, 1).flags.c_contiguous
