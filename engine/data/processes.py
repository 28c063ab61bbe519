"""Many small pictures, decoded in processes: there threads wait for the interpreter most of the time.

The processes write into memory that has no name, so that nothing of it is left whoever is killed; they end when
the pipe to them ends. This module is their program, too, and needs no torch for that.
"""

from __future__ import annotations

import json
import mmap
import os
import queue
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from engine.data.pictures import Bytes, allow, allowed, square
from engine.errors import DataError
from engine.own_code import command

PIECE = 64
"""Files that are decoded for one message."""
Progress = Callable[[str, int, int], None]


class _Decoder:
    """A process that decodes what it is told into shared memory."""

    def __init__(self, descriptor: int, shape: tuple[int, int, int, int]) -> None:
        self._process = subprocess.Popen(
            command(__spec__.name, str(descriptor), str(allowed()), *map(str, shape)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[descriptor],
            start_new_session=True,  # Ctrl-C is for the trainer, which ends it
        )

    def decode(self, first: int, files: Sequence[Path]) -> None:
        """Decode files into the places from ``first`` on.

        Raises:
            DataError: of the first file that is no picture; or the process was killed.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps([first, [str(file) for file in files]]).encode() + b"\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = b""
        if not answer and self._process.wait() > 0:
            raise DataError(f"a process that decodes images left with code {self._process.returncode}: see its output")
        if not answer:
            raise DataError(f"a process that decodes images was killed near {files[0]}: is there memory for them?")
        text = json.loads(answer)
        if text:
            raise DataError(text)

    def end(self) -> None:
        """Kill it; what it has written stays."""
        self._process.kill()
        self._process.communicate()


def squares_in_processes(
    files: Sequence[Path], side: int, text: str, progress: Progress | None = None, into: int | None = None
) -> Bytes:
    """``square`` of all files: uint8 (N, 3, side, side), in memory that is shared with nobody any more.

    Args:
        into: descriptor of an open file of that size that is written instead; None = memory without a name.

    Raises:
        DataError: of the first file in order that is no picture.
    """
    from engine.data.threads import in_threads, thread_count

    shape = (len(files), 3, side, side)
    descriptor = os.memfd_create("images") if into is None else into
    decoders: list[_Decoder] = []
    idle: queue.SimpleQueue[_Decoder] = queue.SimpleQueue()

    def piece(number: int) -> None:
        decoder = idle.get()
        try:
            decoder.decode(number * PIECE, files[number * PIECE : (number + 1) * PIECE])
        finally:
            idle.put(decoder)

    def tell(_: str, done: int, __: int) -> None:
        if progress:
            progress(text, min(done * PIECE, len(files)), len(files))

    try:
        if into is None:
            os.ftruncate(descriptor, int(np.prod(shape)))
        for _ in range(thread_count()):
            decoders.append(_Decoder(descriptor, shape))
            idle.put(decoders[-1])
        in_threads(piece, -(-len(files) // PIECE), text, tell)
        return _mapped(descriptor, shape)
    finally:
        for decoder in decoders:
            decoder.end()
        if into is None:
            os.close(descriptor)


def _mapped(descriptor: int, shape: tuple[int, ...]) -> Bytes:
    return np.frombuffer(mmap.mmap(descriptor, int(np.prod(shape))), np.uint8).reshape(shape)


def main(arguments: Sequence[str]) -> None:
    """Decode what standard input says until it ends; answer each line with a problem, or with nothing."""
    allow(float(arguments[1]))
    descriptor, *shape = map(int, [arguments[0], *arguments[2:]])
    images = _mapped(descriptor, tuple(shape))
    for line in sys.stdin.buffer:
        first, files = json.loads(line)
        text = ""
        try:
            for index, file in enumerate(files, first):
                images[index] = square(Path(file), shape[-1]).transpose(2, 0, 1)
        except Exception as error:  # whatever it is: the trainer is to hear of it, and not of a process that was killed
            text = str(error) or repr(error)
        sys.stdout.write(json.dumps(text) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
