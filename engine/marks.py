"""A mark by which this program knows a file that it made and that nobody has changed since. No torch in here.

The mark holds the SHA-256 of the rest of the file: what a person has edited, or another program has saved again, is
theirs. Text ends with it in a comment; PNG files carry it in a text chunk, which viewers do not show.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from pathlib import Path
from typing import Literal

LARGEST = 2**28
"""Bytes of a file that is looked at; a larger one counts as another's."""
Comment = Literal["<!-- -->", "#"]
_TEXT = "made by mmtui, SHA-256 of what is above: "
_KEYWORD = b"Software\0mmtui, SHA-256 of the rest: "
_FOOT = re.compile(rb"(?:<!--|#) made by mmtui, SHA-256 of what is above: ([0-9a-f]{64})(?: -->)?\n\Z")
_PNG = b"\x89PNG\r\n\x1a\n"
_HEADER_END = len(_PNG) + 25
"""Bytes of the signature and of the chunk IHDR, which must come first."""
_CHUNK_LENGTH = 12 + len(_KEYWORD) + 64


def marked_text(text: str, comment: Comment) -> str:
    """Text with its mark at the end, as a comment of HTML and SVG, or of a file in which # begins one."""
    text = text if text.endswith("\n") or not text else f"{text}\n"
    before, _, behind = comment.partition(" ")
    digest = hashlib.sha256(text.encode("utf-8")).hexdigest()
    return f"{text}{before} {_TEXT}{digest}{f' {behind}' if behind else ''}\n"


def marked_png(content: bytes) -> bytes:
    """A PNG file with its mark; one that has a mark gets a new one. What is no PNG file is given back as it is."""
    if not content.startswith(_PNG) or len(content) < _HEADER_END:
        return content
    head, rest = content[:_HEADER_END], content[_HEADER_END:]
    if rest[4:].startswith(b"tEXt" + _KEYWORD):
        rest = rest[_CHUNK_LENGTH:]
    return head + _chunk(head, rest) + rest


def _chunk(head: bytes, rest: bytes) -> bytes:
    data = b"tEXt" + _KEYWORD + hashlib.sha256(head + rest).hexdigest().encode()
    return struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))


def is_marked(path: Path) -> bool:
    """Whether a regular file carries a mark and is as it was made; False if it cannot be read."""
    try:
        if path.stat().st_size > LARGEST:
            return False
        content = path.read_bytes()
    except OSError:
        return False
    if content.startswith(_PNG):
        head, rest = content[:_HEADER_END], content[_HEADER_END + _CHUNK_LENGTH :]
        return content[_HEADER_END : _HEADER_END + _CHUNK_LENGTH] == _chunk(head, rest)
    found = _FOOT.search(content[-200:])
    if found is None:
        return False
    above = content[: len(content) - len(found[0])]
    return hashlib.sha256(above).hexdigest() == found[1].decode()
