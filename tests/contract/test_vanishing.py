"""Files that others may remove at any moment are looked at once, not for being there and then again."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmtui.paths import size_of
from mmtui.store.schema import schema_revision

ROOT = Path(__file__).parents[2]
FIRST = {"exists", "is_file", "is_dir", "lexists"}
THEN = {"stat", "lstat", "read_text", "read_bytes", "iterdir"}


def looked_at_twice(source: str) -> Iterator[str]:
    """Expressions that ask whether a path is there and then, of the same path, what must be there."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.BoolOp | ast.IfExp):
            continue
        calls = [
            (ast.unparse(inner.func.value), inner.func.attr)
            for inner in ast.walk(node)
            if isinstance(inner, ast.Call) and isinstance(inner.func, ast.Attribute)
        ]
        if {path for path, name in calls if name in FIRST} & {path for path, name in calls if name in THEN}:
            yield ast.unparse(node)


def test_rule_finds_what_it_is_for() -> None:
    assert list(looked_at_twice("if not file.exists() or file.stat().st_size == 0: pass"))
    assert list(looked_at_twice("x = a.b.stat().st_mtime if a.b.is_file() else 0"))
    assert not list(looked_at_twice("x = a.exists() and b.stat()"))


@pytest.mark.parametrize("package", ["engine", "mmtui"])
def test_no_expression_looks_at_a_path_twice(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    found = [f"{file.relative_to(ROOT)}: {text}" for file in files for text in looked_at_twice(file.read_text())]
    assert len(files) > 50 and found == []


class Fleeting(type(Path())):  # type: ignore[misc] - the class of paths of this machine
    """A file that is removed as soon as somebody has seen that it is there."""

    def exists(self) -> bool:
        found = bool(super().exists())
        self.unlink(missing_ok=True)
        return found


def test_database_that_goes_while_it_is_looked_at_is_none(tmp_path: Path) -> None:
    file = Fleeting(tmp_path / "mmtui.db")
    file.touch()
    assert schema_revision(file) is None
    assert size_of(tmp_path / "nothing") == size_of(tmp_path / "mmtui.db" / "below") == 0
    (tmp_path / "some").write_bytes(b"12345")
    assert size_of(tmp_path / "some") == 5
