"""Inputs that are nearly sound: changed bytes, changed tables, texts that are none."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator

from tests.inputs import FUZZ, count

ODD_TEXTS = (
    "",
    " ",
    "-",
    "--",
    "-x",
    "--help",
    "@",
    "@~1",
    "0",
    "1",
    "1_0",
    "１",
    "-1",
    "99999999999999999999",
    "1e999",
    "nan",
    "a=b",
    "=",
    "a.b.c=[1",
    "seed=" + "9" * 5000,
    "match.margin={",
    "data.kind=[a]",
    "&a [*a]",
    "..",
    "../../x",
    "/dev/null",
    "/proc/self/mem",
    "~root",
    "a\nb",
    "a\rb",
    "\x1b]0;title\x07",
    "\x1b[31m[red]x[/red]",
    "\u202ex",
    "e\u0301" * 40,
    "\U0001f469\u200d\U0001f4bb",
    "\ud800",
    "\udcff",
    "x" * 100_000,
    "$(touch made)",
    "`touch made`",
    "'; touch made; '",
    "%s%n",
    "{0.__class__}",
    "<b>x</b>",
    "' OR 1=1 --",
    "; DROP TABLE runs",
    "道路",
)
_MAGIC = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)


def seeds(count: int, part: int = 0) -> range:
    """``count`` seeds, more with ``make fuzz``; no other part has the same."""
    return range(part * 10**7, part * 10**7 + max(int(count * FUZZ), 1))


def text(chosen: random.Random) -> str:
    """A text that somebody may type, or hand over, and that no name is meant to be."""
    parts = [chosen.choice(ODD_TEXTS) for _ in range(chosen.choice((1, 1, 1, 2, 3)))]
    if chosen.random() < 0.3:
        parts.append("".join(chr(chosen.choice((chosen.randrange(256), chosen.randrange(0x3000)))) for _ in range(5)))
    return "".join(parts)


def argument(chosen: random.Random) -> str:
    """A text that a process can be given as an argument."""
    return text(chosen).replace("\0", "").replace("\ud800", "\udcff")


def changed(content: bytes, chosen: random.Random) -> bytes:
    """The bytes with a few changes as a broken disk, a broken transfer or an attacker makes them."""
    data = bytearray(content)
    for _ in range(chosen.choice((1, 1, 2, 3, 8))):
        if not data:
            return bytes(data)
        chosen.choice(_DEEDS)(data, chosen)
    return bytes(data)


def _flip(data: bytearray, chosen: random.Random) -> None:
    data[chosen.randrange(len(data))] ^= 1 << chosen.randrange(8)


def _replace(data: bytearray, chosen: random.Random) -> None:
    data[chosen.randrange(len(data))] = chosen.randrange(256)


def _cut(data: bytearray, chosen: random.Random) -> None:
    del data[chosen.randrange(len(data)) :]


def _drop(data: bytearray, chosen: random.Random) -> None:
    at = chosen.randrange(len(data))
    del data[at : at + chosen.randint(1, 64)]


def _repeat(data: bytearray, chosen: random.Random) -> None:
    at = chosen.randrange(len(data))
    data[at:at] = data[at : at + chosen.randint(1, 256)] * chosen.randint(1, 3)


def _number(data: bytearray, chosen: random.Random) -> None:
    at, value = chosen.randrange(len(data)), chosen.choice(_MAGIC)
    form = chosen.choice(("<B", "<H", "<I", "<Q", ">I"))
    data[at : at + struct.calcsize(form)] = struct.pack(form, value & ((1 << 8 * struct.calcsize(form)) - 1))


def _splice(data: bytearray, chosen: random.Random) -> None:
    at, source = chosen.randrange(len(data)), chosen.randrange(len(data))
    length = chosen.randint(1, 512)
    data[at : at + length] = data[source : source + length]


_DEEDS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _flip,
    _flip,
    _replace,
    _cut,
    _drop,
    _repeat,
    _number,
    _number,
    _splice,
)


def each(seeds_: range, kind: str) -> Iterator[tuple[int, random.Random]]:
    """(seed, its source of chance) for every input; ``kind``: what inputs they are, in the account of ``make fuzz``."""
    for seed in seeds_:
        count(kind)
        yield seed, random.Random(seed)
