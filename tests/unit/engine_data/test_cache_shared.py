"""The data cache among runs: what killed ones left, what others write now, and users without a home directory."""

from __future__ import annotations

import fcntl
import os
import pwd
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
import torch

from engine.config import Recipe
from engine.config.schema import ShapesData
from engine.data import cache
from engine.data.cache import CacheUse, cache_folder, load_cached
from engine.data.registry import BUILDERS, build_data
from engine.data.source import Source
from engine.errors import DataError, EngineError
from engine.events import SilentWriter
from engine.probe import probe
from engine.stages import Context
from tests.unit.engine_run.conftest import tiny_recipe
from tests.waiting import PATIENCE, until

SHAPES = ShapesData(height=40, width=56, train=7, val=3)


def source() -> Source:
    return BUILDERS["shapes"](SHAPES, "train")


def enormous(label: str = "train") -> Source:
    """Two images of 8 TB in all, of which nothing may be read."""

    def never(*_: object) -> NoReturn:
        raise AssertionError("read")

    two = BUILDERS["shapes"](ShapesData(train=2, val=1), "train")
    return replace(two, split=label, sizes=[(10**6, 10**6)] * 2, read=never, digest=never)


@contextmanager
def held(lock: Path, kind: int = fcntl.LOCK_EX) -> Iterator[None]:
    """The lock as another run holds it."""
    with lock.open("w") as file:
        fcntl.flock(file, kind)
        yield


def leftover(folder: Path, stem: str, nbytes: int) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / f"{stem}.bin.writing"
    with file.open("wb") as content:
        try:
            content.truncate(nbytes)
        except OSError:
            pytest.skip(f"the file system knows no sparse file of {nbytes} bytes")
    return file


@pytest.mark.processes
def test_what_a_killed_decoder_left_goes_with_the_next_content(tmp_path: Path) -> None:
    def die(_index: int) -> NoReturn:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    child = os.fork()  # a new interpreter would load torch for seconds
    if not child:
        try:
            load_cached(replace(source(), read=die), tmp_path)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    (left,) = tmp_path.glob("*.bin.writing")
    assert os.WTERMSIG(status) == signal.SIGKILL and left.stat().st_size == source().nbytes
    load_cached(BUILDERS["shapes"](SHAPES, "val"), tmp_path)
    assert not left.exists() and [file.name[:4] for file in tmp_path.glob("*.bin*")] == ["val_"]


def test_file_that_another_run_writes_stays(tmp_path: Path) -> None:
    file = leftover(tmp_path, "val_other", 9)
    with held(tmp_path / "val_other.lock"):
        load_cached(source(), tmp_path)
        assert file.exists()
    load_cached(source(), tmp_path)
    assert not file.exists()


def test_leftover_of_the_same_size_does_not_pass_for_one_that_is_being_written(tmp_path: Path) -> None:
    file = leftover(tmp_path, "train_dead", enormous().nbytes)
    with pytest.raises(DataError, match=r"set runtime\.data_cache to a folder with room"):
        load_cached(enormous(), tmp_path)
    assert not file.exists()


@pytest.mark.parametrize(("label", "waits"), [("train", True), ("val", False)])
def test_file_that_grows_while_another_run_writes_it_puts_off_the_look_for_room(
    tmp_path: Path, label: str, waits: bool
) -> None:
    """Where the file system takes no room in one go its size says nothing."""
    leftover(tmp_path, "train_other", 5)
    with (
        held(tmp_path / "train_other.lock"),
        pytest.raises(AssertionError if waits else DataError, match="^read$" if waits else "folder with room"),
    ):
        load_cached(enormous(label), tmp_path)


def test_lack_of_room_counts_files_that_are_being_written(tmp_path: Path) -> None:
    leftover(tmp_path, "val_other", 3 * 2**30)
    (tmp_path / "val_done.bin").touch()
    os.truncate(tmp_path / "val_done.bin", 2**30)
    with held(tmp_path / "val_other.lock"), pytest.raises(DataError, match=r"no run needs there \(4\.00 GiB\)"):
        load_cached(enormous(), tmp_path)


def test_cache_that_cannot_be_written_is_read_whatever_was_left_there(tmp_path: Path) -> None:
    first = load_cached(source(), tmp_path)
    leftover(tmp_path, "val_dead", 9)
    (tmp_path / "val_dead.lock").mkdir()  # cannot be opened as a lock, by root neither
    assert torch.equal(load_cached(source(), tmp_path).images, first.images)


def test_runs_that_waited_for_the_decoder_check_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both checks of the runs that lost the race must be under way at once; else one never comes to the barrier."""
    barrier, real = threading.Barrier(2, timeout=PATIENCE), cache._chunk_digests
    waiting: set[int] = set()
    told: list[CacheUse] = []

    def meeting(content: cache.Bytes, text: str, progress: cache.Progress | None) -> list[str]:
        if text.startswith("checking"):
            barrier.wait()
        return real(content, text, progress)

    def progress(text: str, *_: object) -> None:
        if "waiting" in text:
            waiting.add(threading.get_ident())

    load_cached(source(), tmp_path)
    for file in (*tmp_path.glob("*.json"), *tmp_path.glob("*.bin")):
        file.unlink()
    monkeypatch.setattr(cache, "_chunk_digests", meeting)
    threads = [
        threading.Thread(target=load_cached, args=(source(), tmp_path, progress, None, told.append)) for _ in range(3)
    ]
    with held(next(tmp_path.glob("*.lock")), fcntl.LOCK_SH):  # all of them see that there is no entry
        for thread in threads:
            thread.start()
        until(lambda: len(waiting) == 3, "three who wait")
    for thread in threads:
        thread.join()
    assert len(waiting) == 3 and not barrier.broken and len(list(tmp_path.glob("*.bin"))) == 1
    assert [use.found for use in told if use.found] == [True, True]


def test_what_is_going_to_be_decoded_is_told_once_and_before_anything_is_read(tmp_path: Path) -> None:
    told: list[CacheUse] = []

    def digest(progress: object) -> str:
        assert told == [CacheUse("train", tmp_path, source().nbytes, found=False)]
        return source().digest(None)

    load_cached(replace(source(), digest=digest), tmp_path, None, None, told.append)
    assert [use.found for use in told] == [False]


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without $HOME who is not in the list of users, as in many containers."""

    def unknown(_number: int) -> NoReturn:
        raise KeyError("no such user")

    for name in ("MMTUI_HOME", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.mark.usefixtures("homeless")
def test_user_without_a_home_directory_has_data_that_fit(tmp_path: Path) -> None:
    context = Context(tiny_recipe(), tmp_path, torch.device("cpu"), SilentWriter(), lambda: False)
    assert len(context.data("train")) == 5


@pytest.mark.usefixtures("homeless")
@pytest.mark.parametrize("setting", ["", "~/decoded"])
def test_user_without_a_home_directory_is_told_to_name_a_folder(tmp_path: Path, setting: str) -> None:
    with pytest.raises(DataError, match=r"no home directory.*set runtime\.data_cache to a folder"):
        build_data(SHAPES, "train", 1, None, cache_folder(setting))
    assert build_data(SHAPES, "train", 1, None, cache_folder(str(tmp_path / "cache"))).mapped


def over(recipe: Recipe, **runtime: object) -> Recipe:
    small = {"memory_budget_gib": 1e-9, **runtime}
    return recipe.model_copy(update={"runtime": recipe.runtime.model_copy(update=small)})


def test_measurement_decodes_nothing_that_goes_into_the_cache(tmp_path: Path) -> None:
    recipe = over(
        tiny_recipe(proxy=None, match=None, segment__steps=1, segment__eval_every=0), data_cache=str(tmp_path / "cache")
    )
    with pytest.raises(EngineError, match=r"train images.*not decoded into .*cache yet.*runtime\.memory_budget_gib"):
        probe(recipe, torch.device("cpu"))
    assert not list((tmp_path / "cache").glob("*.bin*"))
    for split in ("train", "val"):
        build_data(recipe.data, split, 1, None, tmp_path / "cache")  # type: ignore[arg-type]
    assert set(probe(recipe, torch.device("cpu"))["stages"]) == {"segment", "evaluate"}
