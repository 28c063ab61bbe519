"""A frozen vision transformer with a linear head on CamVid, by the shipped recipe: queued, killed, gone on with.

Its weights are random, as nothing is downloaded in tests, and the network is small.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mmtui.services import queue, runs
from tests.e2e.test_survival import Machine, machine

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.needs_data]
__all__ = ["machine"]

STEPS = 120
OVERRIDES = (
    "model.backbone=timm/test_vit",
    "model.weights=",
    "data.scale=0.25",
    "data.max_train=24",
    "data.max_val=6",
    f"segment.steps={STEPS}",
    "segment.crop=80",
    "segment.eval_every=0",
    "segment.optim.lr=0.01",
    "runtime.checkpoint_every=5",
    "runtime.log_every=1",
    "runtime.threads=1",
    "runtime.device=cpu",
)


def test_linear_probe_killed_in_the_middle_ends_as_its_twin_with_its_encoder_as_it_was(
    machine: Machine, shared_data: Path
) -> None:
    root = shared_data / "camvid"
    if not root.is_dir():
        pytest.skip(f"no CamVid at {root}")
    victim, twin = (
        queue.enqueue(machine.home, "camvid_vit_linear", (*OVERRIDES, f"data.root={root}"), name=name)
        for name in ("victim", "twin")
    )
    machine.start()
    machine.until(lambda: machine.trained(victim) >= 20)
    machine.kill_trainer(victim)
    machine.until(lambda: all(row.state == "succeeded" for row in runs.list_runs(machine.home)))

    assert [attempt.outcome for attempt in runs.get_run(machine.home, victim).attempts] == ["vanished", "succeeded"]
    curves = [[point.value for point in runs.points(machine.home, one, "loss")] for one in (victim, twin)]
    assert curves[0] == curves[1] and len(curves[0]) == STEPS
    assert sum(curves[0][-10:]) < sum(curves[0][:10]), "the head has learned"
    tables = [runs.class_table(machine.home, one) for one in (victim, twin)]
    assert tables[0] is not None and tables[1] is not None
    assert tables[0].confusion == tables[1].confusion

    finals = [machine.home.run(one).checkpoints / "segment" / "final" / "model.safetensors" for one in (victim, twin)]
    assert finals[0].read_bytes() == finals[1].read_bytes()
    from engine import determinism
    from engine.models.timm_backbone import timm_encoder

    start = timm_encoder("timm/test_vit", 3, determinism.generator(0, "init/backbone")).state_dict()
    found = load_file(finals[0])
    assert all(torch.equal(found[f"backbone.{key}"], value) for key, value in start.items())
    assert {key for key in found if not key.startswith("backbone.")} == {"head.weight", "head.bias"}
