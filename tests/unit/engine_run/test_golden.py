"""Loss curves against stored ones: a change of what is computed cannot go unseen."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "golden" / "regenerate.py"


@pytest.fixture(scope="module")
def golden() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_regenerate", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def measured(golden: ModuleType) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = golden.curves()
    return found


CURVES = (
    *("proxy", "match", "segment", "proxy_moco", "proxy_densecl", "proxy_jigsaw", "proxy_rotation"),
    *("proxy_classification", "match_global", "match_alexnet", "segment_alexnet"),
)


@pytest.mark.parametrize("stage", CURVES)
def test_losses_of_a_stage_equal_the_stored_curve(
    golden: ModuleType, measured: dict[str, dict[int, float]], stage: str
) -> None:
    stored = golden.read(stage)
    assert len(stored) == (5 if "alexnet" in stage else 10) and measured[stage].keys() == stored.keys()
    # CPUs sum in different orders; a real change moves the third digit.
    assert measured[stage] == pytest.approx(stored, rel=1e-4)


def test_every_curve_that_is_stored_is_compared(golden: ModuleType, measured: dict[str, dict[int, float]]) -> None:
    assert sorted(measured) == sorted(CURVES) == sorted(path.stem for path in golden.FOLDER.glob("*.txt"))
