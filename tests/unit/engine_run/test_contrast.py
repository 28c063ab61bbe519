"""Contrast with a momentum encoder as the stage trains it: exact resume, portions, retries, processes, learning."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from engine.config import Recipe
from engine.config.schema import OptimConfig, ProxyConfig, ShapesData
from engine.data.registry import build_data
from engine.events import SilentWriter
from engine.models import BUILDERS as BACKBONES
from engine.models import tiny_vgg
from engine.optim import build_optimiser
from engine.proxies import DenseCL, MoCo, build_proxy
from engine.proxies.contrast import Contrast
from engine.proxies.views import two_views
from engine.stages import Context
from engine.stages.proxy import ProxyStage
from tests.unit.engine_run.conftest import ROOT, Runner, tiny_recipe
from tests.unit.engine_run.test_memory import freeze_statistics, limit_memory
from tests.waiting import PATIENCE

pytestmark = pytest.mark.slow

KINDS = ("moco", "densecl")
CONTRAST: dict[str, Any] = {"proxy__queue": 7, "proxy__projection": 6, "proxy__key_momentum": 0.9, "proxy__steps": 6}
ALONE: dict[str, Any] = {**CONTRAST, "match": None, "segment": None, "evaluate": None}
WIDE: dict[str, Any] = {**ALONE, "proxy__batch_size": 16, "data__train": 16}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def stage_of(recipe: Recipe, folder: Path) -> ProxyStage:
    context = Context(recipe, folder, torch.device("cpu"), SilentWriter(), lambda: False)
    assert recipe.proxy is not None
    return ProxyStage(context, recipe.proxy)


def task_in(stage: ProxyStage) -> Contrast:
    assert isinstance(stage.task, Contrast)
    return stage.task


def at(step: int) -> Callable[[list[dict[str, Any]]], bool]:
    return lambda events: any(e["kind"] == "metrics" and e["stage"] == "proxy" and e["step"] == step for e in events)


# ---- a step ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_step_enqueues_the_keys_of_its_batch_and_lets_the_key_network_follow(tmp_path: Path, kind: str) -> None:
    stage = stage_of(tiny_recipe(**ALONE, proxy__kind=kind), tmp_path)
    task, seen = task_in(stage), list[torch.Tensor]()
    plain = task.enqueued
    task.enqueued = lambda key: seen.append(plain(key)[-1]) or plain(key)  # type: ignore[method-assign,func-returns-value]
    for step in range(3):
        before = {name: value.clone() for name, value in task.key.state_dict().items()}
        stage.step(step)
        now = dict(task.query.state_dict())
        for name, value in task.key.named_parameters():
            torch.testing.assert_close(value.data, 0.9 * before[name] + 0.1 * now[name], rtol=1e-5, atol=1e-7)
        queue = task.queues[len(task.queues) - 1]
        held = torch.cat([torch.zeros(0, 6), *seen])[-7:]
        place = int(queue.place)  # type: ignore[arg-type]
        assert place == 2 * (step + 1) % 7
        at_places = [(place - len(held) + k) % 7 for k in range(len(held))]
        assert torch.equal(task.negatives(len(task.queues) - 1)[at_places], held)
    assert any((a - b).abs().max() > 1e-6 for a, b in zip(task.key.parameters(), task.query.parameters(), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_query_network_is_trained(tmp_path: Path, kind: str) -> None:
    stage = stage_of(tiny_recipe(**ALONE, proxy__kind=kind), tmp_path)
    trained = {id(p) for group in stage.optimiser.param_groups for p in group["params"]}
    assert trained == {id(p) for p in task_in(stage).query.parameters()}
    stage.step(0)
    assert all(p.grad is not None for p in task_in(stage).query.parameters())
    assert all(p.grad is None for p in task_in(stage).key.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_does_not_depend_on_its_batch(kind: str) -> None:
    config = ProxyConfig.model_validate({"kind": kind, "queue": 4, "projection": 6, "head_channels": 8})
    task = build_proxy(config, tiny_vgg(3, 0.25, generator()), generator(1)).train()
    assert isinstance(task, Contrast)
    images = torch.randint(0, 256, (6, 3, 32, 32), generator=generator(2), dtype=torch.uint8)
    task.begin(lambda: images)
    together = task.key(images)
    for number in range(6):
        alone = task.key(images[number : number + 1])
        for one, all_ in zip(alone, together, strict=True):
            torch.testing.assert_close(one[0], all_[number], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backbone", sorted(BACKBONES))
@pytest.mark.parametrize("channels", [1, 3])
def test_every_backbone_takes_a_step(kind: str, backbone: str, channels: int) -> None:
    config = ProxyConfig.model_validate({"kind": kind, "queue": 8, "projection": 6, "head_channels": 8})
    task = build_proxy(config, BACKBONES[backbone](channels, 0.125, generator()), generator(1)).train()
    images = torch.randint(0, 256, (4, 3, 96, 96), generator=generator(2), dtype=torch.uint8)
    task.begin(lambda: images)
    loss, metrics = task(task.prepare(images, generator(3)), generator(3))
    loss.backward()
    task.after_step()
    assert loss.isfinite() and all(0 <= float(metrics[name]) <= 1 for name in metrics if "accuracy" in name)
    assert isinstance(task, Contrast)
    for name, parameter in task.query.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


# ---- going on --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", [1, 3, 5])
def test_stop_then_resume_equals_the_run_that_was_never_stopped(
    runner: Runner, another_runner: Runner, kind: str, step: int
) -> None:
    recipe = tiny_recipe(**CONTRAST, proxy__kind=kind, segment=None, evaluate=None, runtime__keep_every=6)
    assert another_runner.train(recipe) == "succeeded"
    assert runner.train(recipe, at(step)) == "stopped"
    assert runner.train(recipe) == "succeeded"
    assert runner.losses() == another_runner.losses()
    for stage in ("proxy", "match"):
        assert runner.weights(stage) == another_runner.weights(stage)
    whole, cut = (load_file(r.run_dir / f"checkpoints/proxy/step_{6:08d}/model.safetensors")
                  for r in (another_runner, runner))  # fmt: skip
    assert {"queues.0.keys", "queues.0.place", "key.backbone.stages.0.0.bn.running_var"} <= whole.keys()
    assert whole.keys() == cut.keys() and all(torch.equal(whole[name], cut[name]) for name in whole)


@pytest.mark.parametrize("kind", ["densecl"])  # it has MoCo's queue as well as its own
def test_process_killed_and_stopped_equals_the_run_that_was_not(
    runner: Runner, another_runner: Runner, kind: str
) -> None:
    long = {**ALONE, "proxy__steps": 60, "runtime__checkpoint_every": 7}
    recipe = tiny_recipe(**long, proxy__kind=kind)
    code, _, err = another_runner.finish(recipe, "--quiet")
    assert code == 0, err
    assert runner.kill_at(recipe, signal.SIGKILL, "proxy", 12) == -signal.SIGKILL
    assert runner.kill_at(recipe, signal.SIGTERM, "proxy", 30) == 143
    code, _, err = runner.finish(recipe, "--quiet")
    assert code == 0, err
    assert runner.losses() == another_runner.losses()
    assert runner.weights("proxy") == another_runner.weights("proxy")
    replayed = [e["values"] for e in runner.kind("stage_finished")]
    assert all(v["replayed"] == v["replayed_equal"] for v in replayed)


@pytest.mark.parametrize("kind", KINDS)
def test_the_stage_hands_on_the_trained_backbone_and_nothing_else(runner: Runner, kind: str) -> None:
    recipe = tiny_recipe(**ALONE, proxy__kind=kind, runtime__keep_every=6)
    assert runner.train(recipe) == "succeeded"
    folder = runner.run_dir / "checkpoints" / "proxy"
    handed, state = (load_file(folder / name / "model.safetensors") for name in ("final", f"step_{6:08d}"))
    own = {name.removeprefix("query."): value for name, value in state.items() if name.startswith("query.backbone.")}
    assert own.keys() == handed.keys() and all(torch.equal(own[name], handed[name]) for name in own)


# ---- portions and retries --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_portions_compute_the_same_training_where_statistics_are_fixed(
    monkeypatch: pytest.MonkeyPatch, runner: Runner, another_runner: Runner, kind: str
) -> None:
    freeze_statistics(monkeypatch)
    recipe = tiny_recipe(**WIDE, proxy__kind=kind, runtime__keep_every=6, runtime__halve_on_oom="always")
    runner.train(recipe)
    limit_memory(monkeypatch, "proxy", 4)
    another_runner.train(recipe)
    whole, cut = runner.losses(), another_runner.losses()
    assert len(another_runner.kind("warning")) == 2 and not runner.kind("warning")
    assert list(cut.values()) == pytest.approx(list(whole.values()), rel=1e-5)
    first, second = (load_file(r.run_dir / f"checkpoints/proxy/step_{6:08d}/model.safetensors")
                     for r in (runner, another_runner))  # fmt: skip
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_that_is_computed_again_counts_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str) -> None:
    """After the retry the key network's own statistics and the queue are those of one step, not of two."""
    recipe = tiny_recipe(**{**WIDE, "proxy__queue": 64}, proxy__kind=kind, runtime__halve_on_oom="always")
    limit_memory(monkeypatch, "proxy", 8)
    stage = stage_of(recipe, tmp_path)
    task = task_in(stage)
    before = {name: value.clone() for name, value in task.key.state_dict().items()}
    stage.step(0)
    assert stage.splits == 2 and [int(queue.place) for queue in task.queues] == [16] * len(task.queues)  # type: ignore[arg-type]
    name = "backbone.stages.0.0.conv.weight"
    query, key = task.query.state_dict()[name], task.key.state_dict()[name]
    torch.testing.assert_close(key, 0.9 * before[name] + 0.1 * query, rtol=1e-5, atol=1e-7)


# ---- processes -------------------------------------------------------------------------------------------------------

WORKER = """
import sys, torch
from torch import nn
from engine import dist
from engine.config.schema import OptimConfig, ProxyConfig
from engine.models import tiny_vgg
from engine.optim import build_optimiser
from engine.proxies import DenseCL, MoCo, build_proxy

kind, rank, world, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
torch.set_num_threads(1)
nn.BatchNorm2d.forward = lambda self, x: x * self.weight[:, None, None] + self.bias[:, None, None]
made = lambda seed: torch.Generator().manual_seed(seed)
if world > 1:
    torch.distributed.init_process_group("gloo", init_method="file://" + folder + "/meet", rank=rank, world_size=world)
config = ProxyConfig(kind=kind, queue=10, projection=6, head_channels=8, key_momentum=0.9)
task = build_proxy(config, tiny_vgg(3, 0.25, made(0)), made(1)).train()
network = nn.parallel.DistributedDataParallel(task, broadcast_buffers=True) if world > 1 else task
optimiser, losses = build_optimiser(task, OptimConfig(lr=0.05)), []
for step in range(5):
    images = torch.randint(0, 256, (8, 3, 32, 32), generator=made(step), dtype=torch.uint8)
    share = 8 // world
    views = task.prepare(images, made(100 + step))[rank * share : (rank + 1) * share]
    task.zero_grad()
    loss, _ = network(views, made(0))
    loss.backward()
    optimiser.update()
    task.after_step()
    losses.append(float(dist.mean(loss.detach())))
torch.save({"losses": losses, "state": task.state_dict()}, f"{folder}/{world}_{rank}.pt")
dist.barrier()
dist.finish()
"""


@pytest.mark.parametrize("kind", ["densecl"])
def test_two_processes_train_as_one_on_the_joined_views_and_hold_one_queue(tmp_path: Path, kind: str) -> None:
    for world in (1, 2):
        command = [sys.executable, "-c", WORKER, kind]
        workers = [
            subprocess.Popen([*command, str(rank), str(world), str(tmp_path)], cwd=ROOT, stderr=subprocess.PIPE)
            for rank in range(world)
        ]
        told = [worker.communicate(timeout=PATIENCE)[1] for worker in workers]
        assert [worker.returncode for worker in workers] == [0] * world, told
    one, first, second = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("1_0", "2_0", "2_1"))
    assert first["losses"] == second["losses"] == pytest.approx(one["losses"], rel=1e-5)
    for name, value in one["state"].items():
        torch.testing.assert_close(first["state"][name], value, rtol=1e-4, atol=1e-5, msg=name)
        assert torch.equal(first["state"][name], second["state"][name]), name


# ---- what it learns --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_right_key_is_found_far_more_often_than_by_chance(kind: str) -> None:
    """On procedural shapes, and then on others that were never seen."""
    shapes = ShapesData(height=48, width=48, train=48, val=96)
    images, unseen = (build_data(shapes, split).images for split in ("train", "val"))
    torch.manual_seed(0)
    settings = {"queue": 32, "projection": 64, "head_channels": 128, "key_momentum": 0.9}
    config = ProxyConfig.model_validate({"kind": kind, **settings})
    source = generator()
    task = build_proxy(config, tiny_vgg(3, 0.5, source), source).train()
    assert isinstance(task, MoCo | DenseCL)
    task.begin(lambda: images[:32])

    def found() -> float:
        """How often, of all keys of unseen images, that of the query's image is the nearest."""
        views = two_views(unseen, generator(1))
        with torch.no_grad():
            query, key = (F.normalize(task.key(views[:, number]).whole, dim=1) for number in (0, 1))
        return float(((query @ key.T).argmax(dim=1) == torch.arange(len(unseen))).float().mean())

    optimiser = build_optimiser(task, OptimConfig(lr=0.02))
    hits, before = [], found()
    for _ in range(150):
        chosen = torch.randperm(len(images), generator=source)[:32]
        loss, metrics = task(task.prepare(images[chosen], source), source)
        task.zero_grad()
        loss.backward()
        optimiser.update()
        task.after_step()
        hits.append(float(metrics["accuracy"]))
    last = sum(hits[-20:]) / 20
    print(
        f"{kind}: {last:.3f} after {sum(hits[5:25]) / 20:.3f}, by chance {1 / 33:.3f};"
        f" unseen {found():.3f} after {before:.3f}"
    )
    assert last > 4 / 33
    assert found() > 2 * before
