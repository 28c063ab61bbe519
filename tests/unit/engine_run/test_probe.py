"""What a measurement before a run tells: real steps of every stage, none of which goes on from another."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from engine.probe import STEPS, probe
from tests.unit.engine_run.conftest import DEVICE, tiny_recipe


@pytest.mark.parametrize("changes", [{}, {"segment__reset_layers": 1}, {"proxy": None, "segment__reset_layers": 2}])
def test_probe_measures_every_stage_and_the_memory(changes: dict[str, Any]) -> None:
    found = probe(tiny_recipe(**changes), torch.device(DEVICE))
    stages = ["proxy", "match", "segment"] if "proxy" not in changes else ["match", "segment"]
    assert list(found["stages"]) == [*stages, "evaluate"]
    assert all(found["stages"][name]["seconds_per_step"] > 0 for name in stages)
    assert found["stages"]["evaluate"]["seconds"] > 0 and found["peak_bytes"] > 1 << 26 and STEPS > 1
