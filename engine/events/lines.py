"""Lines of an event file as bytes: whole ones from any place on, the last ones first, torn ones cut off."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from engine.events.numbers import LARGEST_STEP

LONGEST_LINE = 16 * 1024 * 1024
"""Bytes of the longest line that is written and read, its newline counted: a longer one is no event."""
BLOCK_BYTES = 1 << 16


def last_seq(path: Path) -> int:
    """``seq`` of the last complete line that can be read, 0 if there is none."""
    if not path.exists():
        return 0
    with path.open("rb") as file:
        for line in lines_from_the_end(file):
            try:
                seq = json.loads(line)["seq"]
            except (ValueError, KeyError, TypeError, IndexError, RecursionError):
                continue
            if type(seq) is int and 0 <= seq <= LARGEST_STEP:
                return seq
    return 0


def cut_torn_line(path: Path) -> int:
    """Remove what stands behind the last newline: a line that was not written whole. Returns bytes removed."""
    if not path.exists():
        return 0
    with path.open("r+b") as file:
        size, keep = file.seek(0, os.SEEK_END), _behind_the_last_newline(file)
        if keep < size:
            file.truncate(keep)
        return size - keep


def _behind_the_last_newline(file: BinaryIO) -> int:
    for start, block in _blocks_from_the_end(file, file.seek(0, os.SEEK_END)):
        newline = block.rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
    return 0


def lines_from_the_end(file: BinaryIO) -> Iterator[bytes]:
    """Complete lines without their newline, the last one first; those that are too long are left out."""
    end = _behind_the_last_newline(file)
    if not end:
        return
    pieces: list[bytes] = []
    length = 0
    for _, block in _blocks_from_the_end(file, end - 1):
        for number, piece in enumerate(reversed(block.split(b"\n"))):
            if number:
                # A newline stands before what was gathered: that is a whole line.
                if length < LONGEST_LINE:
                    yield b"".join(reversed(pieces))
                pieces, length = [], 0
            length += len(piece)
            pieces = [*pieces, piece] if length < LONGEST_LINE else []
    if length < LONGEST_LINE:
        yield b"".join(reversed(pieces))


def _blocks_from_the_end(file: BinaryIO, end: int) -> Iterator[tuple[int, bytes]]:
    """(where it begins, bytes) of the blocks before ``end``, the last one first."""
    while end > 0:
        start = max(0, end - BLOCK_BYTES)
        file.seek(start)
        yield start, file.read(end - start)
        end = start


def whole_lines(file: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """Complete lines from where a file stands: (bytes of the line, the line or None where it is too long)."""
    while line := file.readline(LONGEST_LINE):
        length, fits = len(line), line.endswith(b"\n")
        whole = line if fits else None
        while not fits:
            line = file.readline(BLOCK_BYTES)
            if not line:
                return
            length, fits = length + len(line), line.endswith(b"\n")
        yield length, whole
