"""No module imports another one that imports it, by whatever way: imports inside functions and for types count, too."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

PACKAGES = ("mmtui", "engine")


def modules(root: Path) -> dict[str, Path]:
    """{dotted name: file} of both packages; a package goes by its own name."""
    files = [file for package in PACKAGES for file in (root / package).rglob("*.py")]
    names = (".".join(file.relative_to(root).with_suffix("").parts) for file in files)
    return {name.removesuffix(".__init__"): file for name, file in zip(names, files, strict=True)}


def imported(text: str) -> set[str]:
    """Dotted names that a file imports anywhere in it; ``from a import b`` may mean the module ``a.b`` as well."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports are not followed here: write the whole name"
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def graph(texts: Mapping[str, str]) -> dict[str, set[str]]:
    """Which of the modules each one imports. What lies in a package counts as no import of that package."""
    return {
        name: {other for other in imported(text) if other in texts and not f"{name}.".startswith(f"{other}.")}
        for name, text in texts.items()
    }


def circles(edges: Mapping[str, Iterable[str]]) -> set[frozenset[str]]:
    """Groups of modules each of which leads to every other: found by taking away, again and again, what leads nowhere
    or comes from nowhere, and then by what can be reached both ways."""
    left = {name: set(others) for name, others in edges.items()}
    while True:
        entered = set().union(*left.values()) if left else set()
        ends = {name for name, others in left.items() if not others or name not in entered}
        if not ends:
            break
        left = {name: others - ends for name, others in left.items() if name not in ends}
    reach = {name: _reached(left, name) for name in left}
    found = defaultdict(set)
    for name in left:
        group = frozenset(other for other in reach[name] if name in reach[other])
        found[group].add(name)
    return {group for group in found if group}


def _reached(edges: Mapping[str, set[str]], start: str) -> set[str]:
    """All that a module leads to; itself only by a way that comes back."""
    found: set[str] = set()
    waiting = list(edges[start])
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(edges[name])
    return found


def test_no_module_imports_itself_by_whatever_way(repository: Path) -> None:
    texts = {name: file.read_text(encoding="utf-8") for name, file in modules(repository).items()}
    assert len(texts) > 300
    found = circles(graph(texts))
    assert not found, "\n".join(" <-> ".join(sorted(group)) for group in found)


def test_rule_sees_circles_wherever_the_import_stands() -> None:
    texts = {
        "engine.a": "from engine import b",
        "engine.b": "def late():\n    from engine.c import name",
        "engine.c": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import engine.a",
        "engine.d": "import engine.a, engine.e",
        "engine.e": "import os",
        "engine.p": "from engine.p.q import name",
        "engine.p.q": "import engine.p.r",
        "engine.p.r": "",
    }
    assert circles(graph(texts)) == {frozenset({"engine.a", "engine.b", "engine.c"})}
    assert circles({"x": {"y"}, "y": {"x", "z"}, "z": {"w"}, "w": {"z"}}) == {frozenset("xy"), frozenset("zw")}
