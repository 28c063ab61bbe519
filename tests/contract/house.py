"""Figures on how the code is laid out: ``make house`` prints them. Tests of this folder hold those that have reached
what they should be."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import quantiles

from tests.contract.test_no_circles import circles, graph, modules
from tests.contract.test_private_textual import private_imports

ROOT = Path(__file__).resolve().parents[2]


def uses_of_any(text: str) -> int:
    """How often a file says ``Any``; its import counts for nothing."""
    return sum(isinstance(node, ast.Name) and node.id == "Any" for node in ast.walk(ast.parse(text)))


def lengths(text: str) -> Iterator[int]:
    """Lines of each function, its decorators left out."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield (node.end_lineno or node.lineno) - node.lineno + 1


def figures(root: Path = ROOT) -> dict[str, str]:
    """What is counted, in the words of the report."""
    texts = {name: file.read_text(encoding="utf-8") for name, file in modules(root).items()}
    found = {}
    for package in ("mmtui", "engine"):
        own = [text for name, text in texts.items() if re.match(rf"{package}\b", name)]
        functions = sorted(length for text in own for length in lengths(text))
        median, most = quantiles(functions, n=2)[0], quantiles(functions, n=10)[-1]
        found[f"{package}: files / lines"] = f"{len(own)} / {sum(len(text.splitlines()) for text in own):,}"
        found[f"{package}: function median / p90 / max"] = f"{median:.0f} / {most:.0f} / {functions[-1]}"
        found[f"{package}: functions of more than 60 lines"] = str(sum(length > 60 for length in functions))
        found[f"{package}: uses of Any"] = str(sum(map(uses_of_any, own)))
    knots = circles(graph(texts))
    found["circles of imports, largest"] = f"{len(knots)}, {max(map(len, knots), default=0)}"
    found["files with private Textual imports outside their home"] = str(len(private_imports(texts)))
    return found


if __name__ == "__main__":
    for what, figure in figures().items():
        sys.stdout.write(f"{what:<60} {figure}\n")
