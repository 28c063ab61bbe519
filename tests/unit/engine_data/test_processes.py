"""Small pictures decoded in processes: as threads do it, with nothing left behind however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from engine.config.schema import ProxyConfig
from engine.data import images, processes, threads
from engine.data.images import load_images
from engine.data.pictures import square
from engine.data.processes import squares_in_processes
from engine.errors import DataError
from tests.waiting import PATIENCE, until

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """90 pictures of three sizes; two processes, ten files a message."""
    monkeypatch.setattr(processes, "PIECE", 10)
    monkeypatch.setattr(threads, "thread_count", lambda: 2)
    monkeypatch.setattr(images, "thread_count", lambda: 2)
    rng = np.random.default_rng(0)
    found = []
    for number in range(90):
        found.append(tmp_path / f"class_{number % 3}" / f"{number:03d}\N{LATIN SMALL LETTER O WITH DIAERESIS}.png")
        found[-1].parent.mkdir(exist_ok=True)
        pixels = rng.integers(0, 256, (8 + number % 3, 9, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(found[-1])
    return found


def held() -> Counter[psutil.Process | str]:
    """Processes and nameless files of this one: also what tests before have left, and what may end at any moment."""
    opened = [os.path.realpath(f"/proc/self/fd/{name}") for name in range(256)]
    files = [path for path in opened if "memfd" in path or "pipe" in path]
    return Counter([*psutil.Process().children(recursive=True), *files])


def test_processes_decode_what_threads_decode_and_leave_nothing(files: list[Path]) -> None:
    before, told = held(), []
    found = squares_in_processes(files, 8, "decoding", lambda *words: told.append(words))
    expected = np.stack([square(file, 8).transpose(2, 0, 1) for file in files])
    assert found.dtype == np.uint8 and np.array_equal(found, expected)
    assert told[-1] == ("decoding", 90, 90) and [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    found[0] = 7  # it may be written to, as other data may
    assert not [one for one in held() - before if isinstance(one, psutil.Process)]
    del found
    assert not held() - before


@pytest.mark.parametrize("many", [90, 91])
@pytest.mark.processes
def test_load_images_takes_processes_for_many_files_and_threads_for_few(
    files: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, many: int
) -> None:
    monkeypatch.setattr(images, "MANY", many)
    started: list[int] = []
    build = processes._Decoder.__init__
    monkeypatch.setattr(processes._Decoder, "__init__", lambda *words: started.append(1) or build(*words))
    config = ProxyConfig(kind="classification", images=str(tmp_path), steps=1, image_side=16, crop=16)
    found = load_images(config, 0, None, None)
    assert len(started) == (2 if many == 90 else 0)
    expected = np.stack([square(file, 16).transpose(2, 0, 1) for file in sorted(files)])
    assert np.array_equal(found.data.images.numpy(), expected)


def test_first_bad_file_in_order_is_the_one_that_is_named(files: list[Path]) -> None:
    before = held()
    for number in (43, 47, 51, 88):
        files[number].write_bytes(b"no picture")
    with pytest.raises(DataError, match=f"{files[43].name} cannot be read as a picture"):
        squares_in_processes(files, 8, "decoding")
    assert not held() - before


def test_work_that_is_stopped_leaves_no_process_and_no_memory(files: list[Path]) -> None:
    before = held()

    def stop(_text: str, _done: int, _count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        squares_in_processes(files, 8, "decoding", stop)
    assert not held() - before


def test_process_that_is_killed_is_told_and_nobody_waits_for_it(files: list[Path]) -> None:
    before, others = held(), psutil.Process().children()

    def kill(_text: str, _done: int, _count: int) -> None:
        for child in psutil.Process().children():
            if child not in others:
                child.kill()

    with pytest.raises(DataError, match="a process that decodes images was killed near"):
        squares_in_processes(files * 50, 8, "decoding", kill)
    assert not held() - before


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_trainer_that_is_killed_takes_the_processes_along(files: list[Path], number: signal.Signals) -> None:
    program = (
        "import sys, time; from pathlib import Path; from engine.data import processes;"
        "processes.squares_in_processes([Path(f) for f in sys.argv[1:]] * 3000, 8, 'decoding')"
    )
    trainer = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, files)], cwd=ROOT, stderr=subprocess.PIPE, start_new_session=True
    )
    found: list[psutil.Process] = []
    try:
        until(lambda: len(psutil.Process(trainer.pid).children()) > 0)
        found = psutil.Process(trainer.pid).children()
        until(lambda: all(child.cpu_times().user > 0.3 for child in found[:1]))
        os.killpg(trainer.pid, number)  # as Ctrl-C does
        trainer.communicate(timeout=PATIENCE)
        assert trainer.returncode != 0
        until(lambda: not any(child.is_running() and child.status() != "zombie" for child in found))
    finally:
        trainer.kill()


def test_processes_start_without_torch() -> None:
    program = "import sys, engine.data.processes; assert 'torch' not in sys.modules and 'pydantic' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
