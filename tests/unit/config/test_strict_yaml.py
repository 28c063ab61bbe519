"""The rules of recipes' YAML hold alike with libyaml and without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from engine.config import strict_yaml

ROOT = Path(__file__).resolve().parents[3]
PIECES = (
    *(
        "a",
        "b: ",
        "- ",
        "\n",
        "  ",
        "1",
        "010",
        "1e-3",
        "1:30",
        ".inf",
        "no",
        "true",
        "~",
        "'",
        '"',
        "[",
        "]",
        "{",
        "}",
    ),
    *(
        ", ",
        "?",
        ": ",
        "#",
        "|\n",
        ">-\n",
        "!!int ",
        "!!set ",
        "!x ",
        "&a ",
        "*a",
        "<<: ",
        "---\n",
        "...\n",
        "%TAG ! x\n",
    ),
    *("\t", "\\", "\0", "\x85", "\ud800", "ä", "2001-01-01", "=", "\r", "\u2028", "@", "`"),
)


def told(text: str) -> Any:
    """What is read, or what is said against it."""
    try:
        return repr(strict_yaml.load(text, "file"))
    except strict_yaml.StrictYamlError as error:
        return error


def by_each(text: str) -> list[Any]:
    with pytest.MonkeyPatch.context() as patch:
        answers = [told(text)]
        patch.setattr(strict_yaml, "_FastLoader", strict_yaml._Loader)
        return [*answers, told(text)]


@pytest.mark.skipif(not yaml.__with_libyaml__, reason="this PyYAML has no libyaml")
@example("a: 1\na: 2\n")
@example("a: &x 1\nb: *x\n")
@example("a: [1\n")
@example("a: 1\n---\nb: 2\n")
@example("{" * 600)
@example("a: !!python/object/apply:os.system [x]")
@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
def test_libyaml_reads_and_refuses_what_pyyaml_does(text: str) -> None:
    fast, slow = by_each(text)
    assert str(fast) == str(slow) and type(fast) is type(slow)


@pytest.mark.parametrize(
    "text", ["a: !!int x", "a: !!float [1]", "a: !!bool maybe", "a: !!timestamp x", "a: " + "9" * 5000]
)
def test_value_that_is_none_of_its_kind_is_told(text: str) -> None:
    with pytest.raises(strict_yaml.StrictYamlError, match="not valid YAML"):
        strict_yaml.load(text, "file")


def test_every_recipe_is_read_alike_and_by_libyaml() -> None:
    files = sorted((ROOT / "recipes").glob("*.yaml"))
    assert len(files) > 40
    for file in files:
        text = file.read_text(encoding="utf-8")
        fast, slow = by_each(text)
        assert fast == slow and isinstance(fast, str)
        if yaml.__with_libyaml__:
            assert isinstance(strict_yaml._composed(text)[0], yaml.CSafeLoader), file
