"""Contrast of views against plain loops: InfoNCE, correspondence of cells, the queue, the network that follows."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from engine.config.schema import ProxyConfig
from engine.models import tiny_vgg
from engine.models.alexnet import CaffeBatchNorm, alexnet
from engine.proxies import DenseCL, MoCo, build_proxy
from engine.proxies.densecl import corresponding, pooled
from engine.proxies.info_nce import info_nce
from engine.proxies.key_queue import KeyQueue
from engine.proxies.momentum import follow, twin
from engine.proxies.projection import Projected, Projection
from engine.proxies.running import RATE, Running, settle

Rows = list[list[float]]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def unit(row: list[float]) -> list[float]:
    length = math.hypot(*row)
    return [x / length for x in row]


def units(tensor: Tensor) -> Tensor:
    return tensor / tensor.norm(dim=-1, keepdim=True)


def dot(a: list[float], b: list[float]) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def naive_info_nce(queries: Rows, positives: Rows, negatives: Rows, temperature: float) -> tuple[float, float]:
    """MoCo's equation 1 as it stands; the share of queries with the positive ahead."""
    losses, hits = [], 0
    for query, positive in zip(queries, positives, strict=True):
        right = math.exp(dot(query, positive) / temperature)
        wrong = [math.exp(dot(query, negative) / temperature) for negative in negatives]
        losses.append(-math.log(right / (right + math.fsum(wrong))))
        hits += right > max(wrong)
    return math.fsum(losses) / len(losses), hits / len(losses)


# ---- InfoNCE ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "negatives"), [(1, 1), (3, 5), (7, 20)])
@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.0])
def test_info_nce_is_the_papers_equation(count: int, negatives: int, temperature: float) -> None:
    query, positive, others = (units(rows(n, 6, seed=k)) for k, n in enumerate((count, count, negatives)))
    loss, accuracy = info_nce(query, positive, others, temperature)
    wanted = naive_info_nce(query.tolist(), positive.tolist(), others.tolist(), temperature)
    assert (loss.item(), accuracy.item()) == pytest.approx(wanted, rel=1e-6)
    assert not accuracy.requires_grad


def test_info_nce_gradient_is_that_of_finite_differences() -> None:
    query, positive, others = (units(rows(n, 4, seed=k)).requires_grad_() for k, n in enumerate((3, 3, 5)))
    assert torch.autograd.gradcheck(lambda *three: info_nce(*three, 0.3)[0], (query, positive, others))


def test_info_nce_extreme_scores_stay_finite() -> None:
    same = torch.eye(2)
    loss, accuracy = info_nce(same, same, -same, 1e-4)
    assert loss.item() == 0 and accuracy.item() == 1
    loss, accuracy = info_nce(same, -same, same, 1e-4)
    assert loss.item() == pytest.approx(2e4) and accuracy.item() == 0


def test_info_nce_is_not_computed_in_half_precision() -> None:
    query, positive, others = (units(rows(n, 8, seed=k)).float() for k, n in enumerate((4, 4, 9)))
    plain = info_nce(query, positive, others, 0.2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(info_nce(query, positive, others, 0.2)[0], plain[0])


# ---- the queue -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 4, 7])
def test_queue_holds_the_newest_as_a_list_would(length: int) -> None:
    queue = KeyQueue(length, 3, generator())
    oracle = queue.keys.tolist()
    assert [math.hypot(*row) for row in oracle] == pytest.approx([1.0] * length)
    for number, count in enumerate((2, 0, 3, 9, 1, 4)):
        keys = units(torch.randn(count, 3, generator=generator(number)))
        queue.push(keys)
        oracle = (oracle + keys.tolist())[-length:]
        place = int(queue.place)
        assert [queue.keys[(place + k) % length].tolist() for k in range(length)] == oracle


# ---- the network that follows ----------------------------------------------------------------------------------------


def test_follow_is_the_weighted_mean_of_the_weights_alone() -> None:
    query = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).double()
    key = twin(query)
    with torch.no_grad():
        for k, parameter in enumerate(query.parameters()):
            parameter.add_(rows(*parameter.shape, seed=k))
    query(rows(5, 3))
    before, other = (copy.deepcopy(network.state_dict()) for network in (key, query))
    follow(key, query, 0.9)
    assert sorted(before) == sorted(other) and len(before) == 7
    for name, found in key.state_dict().items():
        if "running" in name or "tracked" in name:
            assert torch.equal(found, before[name]), name
            continue
        pairs = zip(before[name].flatten().tolist(), other[name].flatten().tolist(), strict=True)
        assert found.flatten().tolist() == pytest.approx([0.9 * old + 0.1 * new for old, new in pairs], abs=1e-12)
    assert all(torch.equal(value, other[name]) for name, value in query.state_dict().items())
    assert not any(parameter.requires_grad for parameter in key.parameters())


def test_follow_after_n_steps_forgets_geometrically() -> None:
    query, key = nn.Linear(1, 1).double(), nn.Linear(1, 1).double()
    with torch.no_grad():
        query.weight.fill_(1)
        key.weight.zero_()
    for _ in range(20):
        follow(key, query, 0.95)
    assert key.weight.item() == pytest.approx(1 - 0.95**20)


@pytest.mark.parametrize("build", [tiny_vgg, alexnet])
def test_settle_gives_the_statistics_of_the_batch(build: object) -> None:
    backbone = build(3, 0.25, generator())  # type: ignore[operator]
    network = Projection(backbone, 8, 4, generator(1), dense=True)
    images = torch.randint(0, 256, (6, 3, 64, 64), generator=generator(2), dtype=torch.uint8)
    seen: list[tuple[nn.Module, Tensor]] = []
    norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d | CaffeBatchNorm)]
    for norm in norms:
        norm.register_forward_hook(lambda part, inputs, _: seen.append((part, inputs[0].clone())))
    momenta = [getattr(norm, "momentum", None) for norm in norms]
    settle(network, images)
    assert len(seen) == len(norms) > 0
    for norm, x in seen:
        torch.testing.assert_close(norm.running_mean, x.mean(dim=(0, 2, 3)), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(norm.running_var, x.var(dim=(0, 2, 3)), rtol=1e-4, atol=1e-8)
    assert [getattr(norm, "momentum", None) for norm in norms] == momenta and not network.training


@pytest.mark.parametrize("portions", [[6], [4, 2], [1, 1, 3, 1]])
def test_running_statistics_are_those_of_all_values_of_the_step_whatever_the_portions(portions: list[int]) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4)).double().eval()
    running, images, values = Running(network), rows(6, 3, 8, 8), [[list[float]() for _ in range(4)] for _ in range(2)]
    convolved = network[0](images)
    for level, x in enumerate((convolved, torch.relu(network[1](convolved)))):
        for channel in range(4):
            values[level][channel] = x[:, channel].flatten().tolist()
    network(rows(2, 3, 8, 8, seed=5))
    running.forget()
    for portion in images.split(portions):
        network(portion)
    running.update()
    for norm, channels in zip(running.norms, values, strict=True):
        for channel, numbers in enumerate(channels):
            mean = math.fsum(numbers) / len(numbers)
            variance = math.fsum((x - mean) ** 2 for x in numbers) / len(numbers)
            wanted = (RATE * mean, 1 - RATE + RATE * variance)
            found = (float(norm.running_mean[channel]), float(norm.running_var[channel]))  # type: ignore[index]
            assert found == pytest.approx(wanted, abs=1e-6)
    assert all(not seen for seen in running.seen)


# ---- whole images and cells ------------------------------------------------------------------------------------------


def task_of(kind: str, **changes: object) -> MoCo | DenseCL:
    config = ProxyConfig.model_validate({"kind": kind, "queue": 6, "projection": 5, "head_channels": 8, **changes})
    task = build_proxy(config, tiny_vgg(3, 0.25, generator()), generator(1)).double()
    assert isinstance(task, MoCo | DenseCL)
    return task


def projected(seed: int, images: int = 2, cells: int = 4) -> Projected:
    return Projected(rows(images, 5, seed=seed), rows(images, cells, 7, seed=seed + 1), rows(images, cells, 5, seed=9))


def test_moco_loss_is_that_of_loops() -> None:
    task, query, key = task_of("moco"), projected(0), projected(3)
    loss, metrics = task.compare(query, key)
    own, other = ([unit(row) for row in part.whole.tolist()] for part in (query, key))
    wanted = naive_info_nce(own, other, task.negatives(0).tolist(), 0.2)
    assert (loss.item(), metrics["accuracy"].item()) == pytest.approx(wanted, rel=1e-6)


def naive_corresponding(query: list[Rows], key: list[Rows]) -> list[list[int]]:
    found = []
    for own, other in zip(query, key, strict=True):
        scores = [[dot(unit(cell), unit(there)) for there in other] for cell in own]
        found.append([max(range(len(line)), key=line.__getitem__) for line in scores])
    return found


def test_corresponding_cells_are_those_of_loops_whatever_their_lengths() -> None:
    query, key = rows(3, 6, 7), rows(3, 6, 7, seed=1)
    wanted = naive_corresponding(query.tolist(), key.tolist())
    assert corresponding(query, key).tolist() == wanted
    lengths = torch.linspace(0.01, 100, 6, dtype=torch.float64)[None, :, None]
    assert corresponding(query * lengths, key * lengths.flip(1)).tolist() == wanted


def test_corresponding_finds_a_permutation_again() -> None:
    maps, order = rows(2, 9, 7), torch.randperm(9, generator=generator())
    assert torch.equal(corresponding(maps[:, order], maps), order.expand(2, 9))


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_densecl_loss_is_that_of_loops(weight: float) -> None:
    task, query, key = task_of("densecl", dense_weight=weight), projected(0), projected(3)
    assert not torch.equal(task.negatives(0), task.negatives(1)), "two queues, not one"
    loss, metrics = task.compare(query, key)
    own, other = ([unit(row) for row in part.whole.tolist()] for part in (query, key))
    whole = naive_info_nce(own, other, task.negatives(0).tolist(), 0.2)
    match = naive_corresponding(query.maps.tolist(), key.maps.tolist())
    cells, positives = [], []
    for image, places in enumerate(match):
        for cell, place in enumerate(places):
            cells.append(unit(query.cells[image, cell].tolist()))
            positives.append(unit(key.cells[image, place].tolist()))
    dense = naive_info_nce(cells, positives, task.negatives(1).tolist(), 0.2)
    assert loss.item() == pytest.approx((1 - weight) * whole[0] + weight * dense[0], rel=1e-6)
    found = [metrics[name].item() for name in ("loss_global", "accuracy", "loss_dense", "dense_accuracy")]
    assert found == pytest.approx([*whole, *dense], rel=1e-6)


def test_densecl_gradient_is_that_of_finite_differences() -> None:
    task, key, maps = task_of("densecl"), projected(3), rows(2, 4, 7, seed=1)
    whole, cells = rows(2, 5).requires_grad_(), rows(2, 4, 5, seed=4).requires_grad_()
    assert torch.autograd.gradcheck(lambda w, c: task.compare(Projected(w, maps, c), key)[0], (whole, cells))


def test_pooled_is_the_unit_mean_of_the_cells() -> None:
    cells = rows(3, 4, 5)
    wanted = [unit([math.fsum(column) / 4 for column in zip(*image, strict=True)]) for image in cells.tolist()]
    torch.testing.assert_close(pooled(cells), torch.tensor(wanted, dtype=torch.float64))
