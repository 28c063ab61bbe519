"""Count anew what docs/discipline.md tells of every stage and option: ``python docs/make_discipline.py``. A minute."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

FILE = Path(__file__).resolve().parent / "discipline.md"
HEAD = """| {0} | waits | waits beside | sent | operators |
|---|---|---|---|---|
"""


def block(name: str) -> tuple[str, str]:
    """The lines between which a table stands."""
    return f"<!-- {name}: made by docs/make_discipline.py -->\n", f"<!-- end of {name} -->\n"


def counted() -> dict[str, str]:
    """The tables by name, with fresh counts."""
    from tests import discipline

    def quiet(cases: list[discipline.Case]) -> Iterator[str]:
        for case in cases:
            with tempfile.TemporaryDirectory() as folder:
                yield discipline.row(case.name, discipline.quiet_step(case, Path(folder)))

    def batches() -> Iterator[str]:
        for case in discipline.EVALUATIONS:
            with tempfile.TemporaryDirectory() as folder:
                yield discipline.row(case.name, discipline.further_batch(case, Path(folder))[0])

    rows = {"steps": quiet(discipline.CASES), "batches": batches(), "reports": quiet(discipline.REPORTS)}
    heads = {"steps": "stage and option", "batches": "evaluation", "reports": "step"}
    return {name: HEAD.format(heads[name]) + "".join(f"{line}\n" for line in lines) for name, lines in rows.items()}


def told() -> dict[str, str]:
    """What needs no counting, by name: reasons, and the version of PyTorch."""
    import torch

    from tests import discipline

    reasons = "".join(f"| `engine/{place}` | {reason} |\n" for place, reason in discipline.REASONS.items())
    version = f"Counted with PyTorch {torch.__version__.partition('+')[0]}.\n"
    return {"reasons": f"| place | why it waits |\n|---|---|\n{reasons}", "version": version}


def updated(text: str, parts: dict[str, str]) -> str:
    """The document with fresh parts."""
    for name, part in parts.items():
        start, end = block(name)
        before, rest = text.split(start)
        text = f"{before}{start}{part}{end}{rest.split(end)[1]}"
    return text


if __name__ == "__main__":
    sys.path.insert(0, str(FILE.parents[1]))
    FILE.write_text(updated(FILE.read_text(), {**counted(), **told()}))
