"""Why a file holds no weights: what it is instead, and what PyTorch says of it without its advice. Needs no torch."""

from __future__ import annotations

import re
from pathlib import Path

FIRST_BYTES = 512
_AGAIN = "which servers send in place of a file: download it again"
_SIGNATURES: tuple[tuple[bytes, tuple[str, ...], str], ...] = (
    (rb"\s*<(!doctype\s+html|html|head|body)\b", (), f"is a page of HTML, {_AGAIN}"),
    (rb"\s*<\?xml\b", (), f"is a text of XML, {_AGAIN}"),
    (rb"version https://git-lfs", (), "is a pointer of Git LFS, not the file itself: fetch that with git lfs pull"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ", (), "is packed: unpack it first"),
    (rb".{4}\0{4}\{", (".safetensors",), "is a safetensors file: end its name in .safetensors"),
    (
        rb"PK\x03\x04",
        (".pth", ".pt", ".bin", ".tar", ".ckpt"),
        "is a zip file: if torch.save wrote it, end its name in .pth",
    ),
    (rb"\x89HDF", (".h5", ".hdf5"), "is an HDF5 file: if Caffe wrote it, end its name in .caffemodel.h5"),
)
"""First bytes of a file, the ends of names that go with them, and what it is, continuing "FILE ..."."""


def looks_like(path: Path) -> str:
    """What a file is that cannot be read as weights, continuing "FILE ..."; "" if its first bytes do not tell."""
    if path.is_dir():
        return "is a folder: write a file of weights"
    try:
        with path.open("rb") as file:
            first = file.read(FIRST_BYTES)
    except OSError:
        return ""
    if not first:
        return "is empty: download it again"
    for pattern, ends, words in _SIGNATURES:
        if re.match(pattern, first, re.IGNORECASE | re.DOTALL):
            return "" if path.suffix in ends else words  # what is called so is damaged, or of another content
    return "is a text: write a file of weights" if _is_text(first) else ""


def _is_text(first: bytes) -> bool:
    try:
        text = first.decode()
    except UnicodeDecodeError as error:
        if len(first) < FIRST_BYTES or error.start < FIRST_BYTES - 3:
            return False
        text = first[: error.start].decode()  # the last letter is cut in two
    return all(letter.isprintable() or letter in "\r\n\t" for letter in text)


def reason(error: Exception) -> str:
    """What PyTorch says in its first sentence, without its advice to read a file whatever code it brings."""
    text = str(error)
    named = re.search(r"Unsupported global: GLOBAL (\S+)", text)
    if named:
        return f"it holds {named[1]}, which is no plain tensor"
    if "weights_only" in text or "Weights only" in text:
        return "it is no file of torch.save, or damaged"
    first = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    return first.partition(". ")[0].rstrip(".")
