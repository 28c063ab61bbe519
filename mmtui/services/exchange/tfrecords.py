"""The records of a TensorBoard event file, also those behind a damaged one.

TensorBoard's own reader ends at the first record that is damaged, without a word. Here such a record is passed over:
where its checksum alone is wrong, its length says where the next one begins; else the next one is searched for, by the
checksum that every record has of its length. Checksums are TensorBoard's own.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mmtui.services.plain_files import open_file

HEADER = 12
"""Bytes before the data: their length (8) and its checksum (4)."""
FOOTER = 4
"""Bytes behind the data: their checksum."""
LONGEST = 1 << 28
"""Bytes of the data of the longest record that is read."""
_BLOCK = 1 << 20
_MAYBE_LENGTH = re.compile(rb"(?=(?!\0{4}).{4}\0{4})", re.DOTALL)
"""Where a length below 4 GiB may stand: its upper four bytes are 0, and not all of it is."""


@dataclass(frozen=True)
class Gap:
    """Bytes of a file that could not be read; ``why`` in words."""

    byte: int
    count: int
    why: str


def records(path: Path) -> Iterator[bytes | Gap]:
    """The data of each record of a file, in order, and what lies between them unread.

    Raises:
        OSError: the file cannot be read.
    """
    with open_file(path) as file:
        size = file.seek(0, 2)
        byte = 0
        while byte < size:
            found = _record(file, byte, size)
            if isinstance(found, Gap):
                yield found
                byte = found.byte + found.count
            else:
                yield found
                byte += HEADER + len(found) + FOOTER


def _record(file: BinaryIO, byte: int, size: int) -> bytes | Gap:
    """The record that begins at a byte, or what is passed over in its place."""
    file.seek(byte)
    header = file.read(HEADER)
    if len(header) < HEADER:
        return Gap(byte, size - byte, "the file ends within a record")
    length = _length(header)
    if length is None:
        return _passed_over(file, byte, size, "the checksum of a length is wrong")
    if length > size - byte - HEADER - FOOTER:
        return _passed_over(file, byte, size, "the file ends within a record")
    if length > LONGEST:
        return Gap(byte, HEADER + length + FOOTER, f"a record is longer than {LONGEST >> 20} MiB")
    data = file.read(length)
    if struct.pack("<I", _checksum(data)) != file.read(FOOTER):
        return Gap(byte, HEADER + length + FOOTER, "the checksum of a record is wrong")
    return data


def _passed_over(file: BinaryIO, byte: int, size: int, why: str) -> Gap:
    """What lies between a byte at which no record can be read and the next one at which one begins."""
    start = byte + 1
    while start + HEADER + FOOTER <= size:
        file.seek(start)
        block = file.read(_BLOCK + HEADER)
        for found in _MAYBE_LENGTH.finditer(block):
            header = block[found.start() : found.start() + HEADER]
            length = _length(header) if len(header) == HEADER else None
            if length is not None and 0 < length <= size - start - found.start() - HEADER - FOOTER:
                return Gap(byte, start + found.start() - byte, why)
        start += _BLOCK
    return Gap(byte, size - byte, why)


def _length(header: bytes) -> int | None:
    """What a header says, None where its checksum is wrong."""
    return int(struct.unpack("<Q", header[:8])[0]) if struct.pack("<I", _checksum(header[:8])) == header[8:12] else None


def _checksum(data: bytes) -> int:
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    return int(masked_crc32c(data))
