"""Marks: a file of ours is known as long as nobody has changed it, and other programs read it as before."""

from __future__ import annotations

import io
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from engine.marks import is_marked, marked_png, marked_text


def picture(colour: str = "red") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (5, 4), colour).save(stream, format="PNG")
    return stream.getvalue()


def test_marked_text_is_known_until_a_byte_is_changed(tmp_path: Path) -> None:
    file = tmp_path / "a.svg"
    text = marked_text('<svg xmlns="http://www.w3.org/2000/svg"><text>Straße</text></svg>', "<!-- -->")
    file.write_text(text, encoding="utf-8")
    assert is_marked(file) and ElementTree.fromstring(text).tag.endswith("svg")
    for other in (text.replace("Straße", "Strasse"), f"{text}\n", f" {text}", text.replace("made by", "made  by")):
        file.write_text(other, encoding="utf-8")
        assert not is_marked(file), other
    file.write_text(marked_text("[Unit]\n", "#"))
    assert is_marked(file) and file.read_text().splitlines()[1].startswith("# ")


def test_marked_picture_is_known_and_shows_the_same(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    content = marked_png(picture())
    file.write_bytes(content)
    assert is_marked(file) and marked_png(content) == content
    with Image.open(file) as found:
        found.load()
        assert found.convert("RGB").getpixel((0, 0)) == (255, 0, 0)
        assert found.info["Software"].startswith("mmtui")
        found.save(file, format="PNG")
    assert not is_marked(file), "another program has saved it"
    for changed in (content.replace(b"IDAT", b"IdAT"), content[:-1], content + b"x", picture(), picture()[:20], b""):
        file.write_bytes(changed)
        assert not is_marked(file)


@pytest.mark.parametrize("content", [b"", b"a sheet", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_gets_no_mark(content: bytes) -> None:
    assert marked_png(content) == content


def test_what_cannot_be_read_has_no_mark(tmp_path: Path) -> None:
    assert not is_marked(tmp_path / "no") and not is_marked(tmp_path)


@given(st.binary(max_size=300))
def test_mark_is_found_in_no_other_bytes(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any"
    for head in (b"", b"\x89PNG\r\n\x1a\n"):
        file.write_bytes(head + content)
        assert not is_marked(file)
