"""What is known of the code of an attempt, by its run's row and by what its trainer has reported."""

from __future__ import annotations

from typing import Any

import pytest

from mmtui.domain import proof

THIS, OTHER = "ab" * 32, "cd" * 32
HELD, HASHED_LATER, FOREIGN = ({"sha256": THIS, "held": True}, {"sha256": THIS, "held": False},
                               {"sha256": OTHER, "held": True})  # fmt: skip
ROW = {"digest": THIS[:16], "sha256": THIS}


@pytest.mark.parametrize(
    ("code", "reports", "known"),
    [
        (ROW, [], ""),
        (ROW, [HELD], "proven"),
        (ROW, [HELD, HELD], "proven"),
        (ROW, [None], "unproven"),
        (ROW, [HELD, None], "unproven"),
        (ROW, [HASHED_LATER], "unproven"),
        (ROW, [FOREIGN], "differs"),
        (ROW, [HELD, FOREIGN], "differs"),
        ({"digest": THIS[:16]}, [None], "unproven"),
        ({"digest": THIS[:16]}, [HELD], "unproven"),
        ({**ROW, "sha256": OTHER, "trusted": THIS}, [HELD], "proven"),
        ({**ROW, "trusted": OTHER}, [HELD], "differs"),
        ({**ROW, "sha256": "../x"}, [HELD], "unproven"),
        ({**ROW, "sha256": 7}, [HELD], "unproven"),
        ({}, [FOREIGN], "unproven"),
    ],
)
def test_verdict_holds_reports_against_the_row(code: dict[str, Any], reports: list[Any], known: str) -> None:
    assert proof.verdict(code, reports) == known
    assert bool(proof.other(code, reports)) == (known == "differs")
