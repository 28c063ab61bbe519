"""Batches shared out over processes: wholes or parts of them, together what one process computes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.config import Recipe
from engine.stages.sharing import Share
from tests.unit.engine_run.conftest import Runner, tiny_recipe
from tests.unit.engine_run.processes import Ranks
from tests.unit.engine_run.test_distributed import SHARED, assert_equal_graphs, events, losses, weights

torchrun = pytest.mark.xdist_group("torchrun")
FROZEN = json.dumps({"stages": {}, "ranks": [], "where": "", "frozen": True})
"""Batch normalisation, which sees a part of the batch, is taken out: see ``lacking``."""


def share(per_step: int, rank: int, world: int, monkeypatch: pytest.MonkeyPatch) -> Share:
    monkeypatch.setattr("engine.dist.rank", lambda: rank)
    monkeypatch.setattr("engine.dist.world_size", lambda: world)
    return Share.of(per_step)


# ---- one process at a time -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("per_step", "world"), [(1, 1), (4, 2), (6, 3), (3, 1), (1, 2), (3, 2), (4, 8)])
def test_share_draws_every_batch_of_a_step_and_knows_which_follows(
    monkeypatch: pytest.MonkeyPatch, per_step: int, world: int
) -> None:
    drawn: list[int] = []
    for rank in range(world):
        own = share(per_step, rank, world, monkeypatch)
        draws = [draw for step in range(3) for draw in own.draws(step)]
        assert [own.following(draw) for draw in draws[:-1]] == draws[1:]
        drawn += draws
    times = 1 if per_step % world == 0 else world
    assert sorted(drawn) == sorted(list(range(3 * per_step)) * times)


@pytest.mark.parametrize("world", [2, 3, 8])
@pytest.mark.parametrize("sizes", [[12], [7, 5], [9, 0, 11]])
def test_rows_gathered_in_rank_order_come_back_into_the_order_of_the_batches(
    monkeypatch: pytest.MonkeyPatch, world: int, sizes: list[int]
) -> None:
    batches = torch.arange(sum(sizes)).split(sizes)
    per_step = len(sizes) if len(sizes) % world else 1
    shares = [share(per_step, rank, world, monkeypatch) for rank in range(world)]
    gathered = torch.cat([batch[one.rows(len(batch))] for one in shares for batch in batches])
    order = shares[0].order(sizes, torch.device("cpu"))
    assert torch.equal(gathered if order is None else gathered[order], torch.arange(sum(sizes)))


# ---- several ---------------------------------------------------------------------------------------------------------


@torchrun
@pytest.mark.parametrize(
    ("graphs", "changes"),
    [
        (1, {"match__memory": 2}),
        (3, {"match__graph_scope": "local", "match__normalizer": "reference"}),
        (3, {"match__graph_scope": "global", "runtime__exchange": "retry"}),
    ],
    ids=["one graph", "three graphs", "one over three batches"],
)
def test_parts_of_batches_are_the_training_of_one_process(tmp_path: Path, graphs: int, changes: dict[str, Any]) -> None:
    sizes = {"match__graphs": graphs, "segment__accumulate": graphs, "data__train": 7}
    recipe = tiny_recipe(**{**SHARED, **sizes, **changes}, proxy=None)
    for processes in (1, 2):
        code, told = Ranks(recipe, tmp_path / str(processes), processes, FROZEN).finish()
        assert code == 0, told
    for stage in ("match", "segment"):
        one, two = (losses(tmp_path / str(processes), stage) for processes in (1, 2))
        assert len(one) == len(two) == getattr(recipe, stage).steps
        assert two == pytest.approx(one, rel=1e-4), stage
    one_graphs, two_graphs = (events(tmp_path / str(processes), "graph") for processes in (1, 2))
    assert_equal_graphs(one_graphs, two_graphs, 12 * graphs)
    one_weights, two_weights = (weights(tmp_path / str(processes), "segment") for processes in (1, 2))
    for name, value in one_weights.items():
        torch.testing.assert_close(two_weights[name], value, rtol=2e-3, atol=2e-5, msg=name)


@torchrun
def test_a_process_without_a_row_goes_along(tmp_path: Path) -> None:
    """Crops may hold fewer labelled pixels than there are processes: here no more than two patches are drawn."""
    few = {"match__images": 1, "match__patches_per_image": 6, "match__steps": 3, "runtime__exchange": "retry"}
    recipe = tiny_recipe(**few, proxy=None, segment=None, evaluate=None)
    hold = json.dumps({"stages": {}, "ranks": [], "where": "", "frozen": True, "patches": 2})
    code, told = Ranks(recipe, tmp_path / "run", 3, hold).finish()
    assert code == 0, told
    assert [event["values"]["nodes"] for event in events(tmp_path / "run", "graph")] == [2, 2]
    assert len(losses(tmp_path / "run", "match")) == 3
    counted = [event["values"]["images_per_second"] for event in events(tmp_path / "run", "metrics")]
    assert all(value > 0.1 for value in counted), "the processes' numbers were mixed up"


def refused(recipe: Recipe, run_dir: Path) -> str:
    """What two processes say that do not begin to train."""
    code, told = Ranks(recipe, run_dir, 2).finish()
    assert code == 2, told
    assert not (run_dir / "checkpoints").exists() and not events(run_dir, "stage_started")
    return told


@torchrun
@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"proxy__batch_size": 3}, "proxy.batch_size of 3 cannot be shared out over 2 processes: make it a multiple"),
        (
            {"segment__batch_size": 3, "segment__accumulate": 1},
            "segment.batch_size or segment.accumulate of 3 cannot be shared out over 2 processes: make it a multiple",
        ),
        (
            {"match__graphs": 1, "match__images": 1, "match__patches_per_image": 3},
            "match.images times match.patches_per_image of 3 is too little for 2 processes: make it at least 4",
        ),
        (
            {"match__memory": 2},
            "match.memory on several processes needs match.graph_scope=global, or set match.memory=0",
        ),
        (
            {"proxy__batch_size": 2, "proxy__crop": 16},
            "proxy.batch_size 2 gives each of 2 processes one image at a time, of which tiny_vgg keeps one value a"
            " channel at proxy.crop 16, too little for batch normalisation: write proxy.batch_size 4 or more, or a"
            " proxy.crop above 16",
        ),
        (
            {"segment__batch_size": 2, "segment__accumulate": 1, "segment__crop": 16},
            "segment.batch_size 2 gives each of 2 processes one image at a time, of which tiny_vgg with model.head"
            " hypercolumn keeps one value a channel at segment.crop 16",
        ),
        (
            {"match__graphs": 1, "match__images": 2, "match__patches_per_image": 2},
            "match.patches_per_image 2 may leave one of 2 processes a single patch, of which tiny_vgg keeps one value"
            " a channel at match.output_size 16, too little for batch normalisation: write match.patches_per_image 4"
            " or more, match.graphs as a multiple of 2, or a match.output_size above 16",
        ),
    ],
)
def test_what_cannot_be_shared_out_is_refused_before_any_stage_has_trained(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    assert sentence in refused(tiny_recipe(**{**SHARED, **changes}), tmp_path / "run")


@torchrun
def test_what_a_fork_has_taken_over_need_not_be_shared_out(tmp_path: Path) -> None:
    changes = {**SHARED, "proxy__batch_size": 3, "match__memory": 2, "segment__steps": 2}
    parent = Runner(tmp_path / "parent")
    assert parent.train(tiny_recipe(**changes)) == "succeeded"
    recipe = tiny_recipe(**changes, segment__optim={"lr": 0.01})
    code, told = Ranks(recipe, tmp_path / "fork", 2, "", "--from", f"{parent.run_dir}@7").finish()
    assert code == 0, told
    assert [event["stage"] for event in events(tmp_path / "fork", "stage_reused")] == ["proxy", "match"]
