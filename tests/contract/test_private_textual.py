"""Private parts of Textual are imported in one package, whose tests hold what it takes them for."""

from __future__ import annotations

import re
from pathlib import Path

from tests.contract.test_no_circles import imported, modules

HOME = "mmtui.tui.terminal"
PRIVATE = re.compile(r"textual(\.\w+)*\._\w")


def private_imports(texts: dict[str, str]) -> set[str]:
    """Modules outside of the package that import such a part."""
    return {
        name
        for name, text in texts.items()
        if not f"{name}.".startswith(f"{HOME}.") and any(PRIVATE.match(other) for other in imported(text))
    }


def test_private_parts_of_textual_have_one_home(repository: Path) -> None:
    texts = {name: file.read_text(encoding="utf-8") for name, file in modules(repository).items()}
    assert private_imports(texts) == set()


def test_rule_sees_each_way_to_import_one() -> None:
    texts = {
        "mmtui.a": "from textual._compositor import LayoutUpdate",
        "mmtui.b": "import textual.drivers._writer_thread",
        "mmtui.c": "def late():\n    from textual import _xterm_parser",
        "mmtui.d": "from textual.app import App",
        "mmtui.tui.terminal.e": "from textual._parser import Peek1",
    }
    assert private_imports(texts) == {"mmtui.a", "mmtui.b", "mmtui.c"}
