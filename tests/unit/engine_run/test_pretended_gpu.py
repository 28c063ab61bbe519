"""The pretended GPU sees whatever would stall a real one, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine import determinism, host
from engine.mixmatch.graph import build_match_graph
from tests.pretended_gpu import (
    FLAGS,
    GPU,
    KINDS,
    SIZE,
    SYNCHRONISE,
    TO_DEVICE,
    TO_HOST,
    VALUE,
    PretendedGpu,
    WrongDeviceError,
)


@pytest.fixture
def gpu() -> Iterator[PretendedGpu]:
    with PretendedGpu() as found:
        yield found


def numbers(count: int = 6) -> Tensor:
    """0.0, 1.0, ... on the device."""
    return torch.arange(count, dtype=torch.float32, device=GPU)


def hidden_if(x: Tensor) -> None:
    if (x > 2).any():
        pass


def into_host(x: Tensor) -> None:
    torch.zeros(6).copy_(x)


def from_host(x: Tensor) -> None:
    x.copy_(torch.zeros(6))


def write_flagged(x: Tensor) -> None:
    x[x > 2] = torch.zeros(3, device=x.device)


def pinned_but_waited_for(x: Tensor) -> Tensor:
    return torch.ones(3).pin_memory().to(x.device)


OFFENDERS: dict[str, tuple[str, Callable[[Tensor], object]]] = {
    "item": (VALUE, lambda x: x[2].item()),
    "float": (VALUE, lambda x: float(x.sum())),
    "int as index": (VALUE, lambda x: range(8)[x.argmax()]),
    "if": (VALUE, hidden_if),
    "element by a number of the device": (VALUE, lambda x: x[x.argmax()]),
    "equal": (VALUE, lambda x: torch.equal(x, x + 1)),
    "allclose": (VALUE, lambda x: torch.allclose(x, x + 1)),
    "eigenvectors": (VALUE, lambda x: torch.linalg.eigh(x[:, None] * x)),
    "nonzero": (SIZE, lambda x: x.nonzero()),
    "where": (SIZE, lambda x: torch.where(x > 2)),
    "argwhere": (SIZE, lambda x: torch.argwhere(x > 2)),
    "masked_select": (SIZE, lambda x: x.masked_select(x > 2)),
    "unique": (SIZE, lambda x: x.unique()),
    "unique with counts": (SIZE, lambda x: x.long().unique(return_counts=True)),
    "bincount": (SIZE, lambda x: torch.bincount(x.long(), minlength=9)),
    "repeat_interleave": (SIZE, lambda x: x.repeat_interleave(x.long())),
    "read by flags": (FLAGS, lambda x: x[x > 2]),
    "write by flags": (FLAGS, write_flagged),
    "tolist": (TO_HOST, lambda x: x.tolist()),
    "cpu": (TO_HOST, lambda x: x.cpu()),
    "to cpu": (TO_HOST, lambda x: x.to("cpu")),
    "to cpu, non-blocking": (TO_HOST, lambda x: x.to("cpu", non_blocking=True)),
    "to a tensor of the host": (TO_HOST, lambda x: x.to(torch.zeros(1))),
    "copy_ to the host": (TO_HOST, into_host),
    "copies to the host": (TO_HOST, lambda x: torch._foreach_copy_([torch.zeros(())], [x[0]])),
    "copies to the device": (TO_DEVICE, lambda x: torch._foreach_copy_([x, x[0]], [x + 1, torch.zeros(())])),
    "tensor": (TO_DEVICE, lambda x: torch.tensor([1.0, 2.0], device=x.device)),
    "to the device": (TO_DEVICE, lambda x: torch.ones(3).to(x.device)),
    "to the device, non-blocking": (TO_DEVICE, lambda x: torch.ones(3).to(x.device, non_blocking=True)),
    "pinned, but waited for": (TO_DEVICE, pinned_but_waited_for),
    "to a tensor of the device": (TO_DEVICE, lambda x: torch.ones(3).to(x)),
    "copy_ to the device": (TO_DEVICE, from_host),
    "index of the host": (TO_DEVICE, lambda x: x[torch.tensor([0, 1])]),
    "module": (TO_DEVICE, lambda x: nn.Linear(2, 2, bias=False).to(x.device)),
    "synchronize": (SYNCHRONISE, lambda x: torch.cuda.synchronize()),
}


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("name", OFFENDERS)
def test_every_offender_is_seen_once(gpu: PretendedGpu, name: str, inference: bool) -> None:
    """In inference mode, too, where PyTorch takes operators apart only behind the mode that counts them."""
    kind, offend = OFFENDERS[name]
    with torch.inference_mode(inference):
        x = numbers()
        gpu.restart()
        offend(x)
    assert gpu.count.kinds() == {kind: 1}


def test_there_is_an_offender_of_every_kind() -> None:
    assert {kind for kind, _ in OFFENDERS.values()} == set(KINDS)


@pytest.mark.parametrize(
    "name", [name for name, (kind, _) in OFFENDERS.items() if kind not in (TO_DEVICE, SYNCHRONISE)]
)
def test_the_same_on_the_host_is_none(gpu: PretendedGpu, name: str) -> None:
    OFFENDERS[name][1](torch.arange(6, dtype=torch.float32))
    assert gpu.count.kinds() == {} and gpu.count.operators == 0


def fill_flagged(x: Tensor) -> None:
    x[x > 2] = 0.0


def fill_one(x: Tensor) -> None:
    x[0] = 3.0


INNOCENT: dict[str, Callable[[Tensor], object]] = {
    "arithmetic": lambda x: (2 * x + 1).relu().sum().sqrt(),
    "where": lambda x: torch.where(x > 2, x, 0.0),
    "masked_fill": lambda x: x.masked_fill(x > 2, 0.0),
    "fill by flags": fill_flagged,
    "fill one": fill_one,
    "index of the device": lambda x: x[torch.arange(3, device=x.device)],
    "search": lambda x: torch.searchsorted(x, x, right=True),
    "sort": lambda x: x.sort(stable=True),
    "repeat_interleave": lambda x: x.repeat_interleave(3),
    "scatter": lambda x: torch.zeros_like(x).scatter_(0, x.long(), x),
    "number of the host": lambda x: x + torch.tensor(3.0),
    "pinned": lambda x: host.send(torch.ones(3), x.device),
    "pinned, into a tensor": lambda x: x.copy_(torch.ones(6).pin_memory(), non_blocking=True),
    "random numbers": lambda x: torch.rand(3, generator=torch.Generator(x.device), device=x.device),
    "the device it is on": lambda x: x.to(GPU, torch.float64).to(x),
    "memory alone": lambda x: torch.empty(3, device=x.device),
}  # fmt: skip


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("name", INNOCENT)
def test_innocent_work_stalls_nothing_and_stays_on_the_device(gpu: PretendedGpu, name: str, inference: bool) -> None:
    with torch.inference_mode(inference):
        x = numbers()
        gpu.restart()
        made = INNOCENT[name](x)
    assert gpu.count.stalls == []
    assert gpu.count.sent == name.startswith("pinned")
    for tensor in made if isinstance(made, tuple) else [made]:
        assert tensor is None or (isinstance(tensor, Tensor) and tensor.device == GPU and tensor.is_cuda)


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize(
    ("operators", "work"),
    [
        (2, lambda x: (x + 1) * 2),
        (0, lambda x: x.view(2, 3)[1:].mT.detach()),
        (0, lambda x: torch.empty_like(x)),
        (1, lambda x: x.double()),
        (0, lambda x: x.view(2, 3).reshape(6)),
        (1, lambda x: x.view(2, 3).mT.reshape(6)),
        (0, lambda x: x.float()),
        (1, lambda x: torch._foreach_add_([x, x.view(2, 3)], 1.0)),
        (1, lambda x: x.nonzero()),
        (0, lambda x: x[0].item()),
        (0, lambda x: x.cpu() + 1),
        (1, lambda x: torch.zeros(3, device=x.device)),
        (0, lambda x: torch.zeros(3)),
    ],
)
def test_operators_that_launch_work_are_counted(
    gpu: PretendedGpu, operators: int, work: Callable[[Tensor], object], inference: bool
) -> None:
    with torch.inference_mode(inference):
        x = numbers()
        gpu.restart()
        work(x)
    assert gpu.count.operators == operators, gpu.count.launched


def test_gradients_are_on_the_device_and_backward_passes_are_counted(gpu: PretendedGpu) -> None:
    layer = nn.Linear(6, 2).to(GPU)
    loss = layer(numbers()).square().sum()
    gpu.restart()
    loss.backward()
    assert gpu.count.stalls == [] and gpu.count.operators > 4
    assert all(parameter.grad is not None and parameter.grad.device == GPU for parameter in layer.parameters())
    float(layer.bias.grad.norm())  # type: ignore[union-attr]
    assert gpu.count.kinds() == {VALUE: 1}


def test_gradients_of_reads_by_index_are_on_the_device(gpu: PretendedGpu) -> None:
    x = numbers().requires_grad_()
    x[torch.arange(3, device=GPU)].sum().backward()
    assert x.grad is not None and x.grad.device == GPU and x.grad.tolist() == [1, 1, 1, 0, 0, 0]


def add(x: Tensor) -> Any:
    return x + torch.zeros(6)


@pytest.mark.parametrize(
    "wrong",
    [
        add,
        lambda x: torch.cat([x, torch.zeros(3)]),
        lambda x: torch.zeros(6)[x.long()],
        lambda x: x.pin_memory(),
        lambda x: torch.rand(3, generator=torch.Generator(), device=x.device),
        lambda x: torch.rand(3, generator=torch.Generator(device=x.device)),
        lambda x: nn.Linear(6, 2)(x),
    ],
)
def test_what_a_gpu_refuses_is_refused(gpu: PretendedGpu, wrong: Callable[[Tensor], object]) -> None:
    with pytest.raises(WrongDeviceError):
        wrong(numbers())


def test_numpy_of_the_device_is_refused_as_by_pytorch(gpu: PretendedGpu) -> None:
    with pytest.raises(TypeError, match="cuda:0"):
        numbers().numpy()
    assert numbers().cpu().numpy().tolist() == [0, 1, 2, 3, 4, 5]


def test_numbers_are_those_of_the_cpu() -> None:
    def work(device: torch.device) -> list[float]:
        generator = torch.Generator(device=device).manual_seed(7)
        x = torch.rand((5, 4), generator=generator, device=device).requires_grad_()
        (x @ x.T).softmax(dim=0)[torch.arange(3, device=device)].log().sum().backward()
        assert x.grad is not None
        return x.grad.flatten().tolist()

    plain = work(torch.device("cpu"))
    with PretendedGpu():
        assert work(GPU) == plain


def test_engine_takes_its_way_for_gpus_and_stalls_are_told_with_their_place(gpu: PretendedGpu) -> None:
    labels = torch.arange(6, device=GPU) % 3
    gpu.restart()
    graph = build_match_graph(labels, generator=determinism.generator(1, "t", device=GPU))
    assert gpu.count.stalls == [] and graph.positive.device == GPU
    assert {place for _, place in gpu.count.launched} >= {"mixmatch/graph.py:_place", "mixmatch/graph.py:_others"}
    graph.components(labels)
    assert {stall.place for stall in gpu.count.stalls} == {"mixmatch/graph.py:components"}


def test_stalls_of_a_stream_of_its_own_are_told_apart(gpu: PretendedGpu) -> None:
    x, beside = numbers(), torch.cuda.Stream(GPU)
    gpu.restart()
    with torch.cuda.stream(beside):
        x.nonzero()
    torch.cuda.current_stream(GPU).wait_stream(beside)
    float(x[0])
    assert gpu.count.kinds(beside=True) == {SIZE: 1} and gpu.count.kinds() == {VALUE: 1}


def test_memory_that_was_freed_is_not_taken_for_the_devices(gpu: PretendedGpu) -> None:
    for _ in range(50):
        x = numbers()
        assert x.is_cuda
        del x
        assert not torch.zeros(6).is_cuda


def test_nothing_is_left_of_it_afterwards() -> None:
    before = torch.Generator, torch.autocast, torch.cuda.Stream, torch.cuda.stream, torch.Tensor.record_stream
    with PretendedGpu():
        assert before[0] is not torch.Generator
        x = numbers()
    assert before == (torch.Generator, torch.autocast, torch.cuda.Stream, torch.cuda.stream, torch.Tensor.record_stream)
    assert x.device.type == "cpu" and x.tolist() == [0, 1, 2, 3, 4, 5]
