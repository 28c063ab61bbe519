"""Gradients of two real processes: the means that DistributedDataParallel makes, and an exchange that always ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from engine.stages import exchange
from tests.unit.engine_run.conftest import ROOT
from tests.waiting import PATIENCE

START = """
import copy, sys, gc, torch, weakref
from torch import nn
from engine.stages import exchange
from engine.stages.exchange import GradientMean
rank, file = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo", init_method="file://" + file, rank=rank, world_size=2)
exchange.FIRST_BYTES, exchange.BUCKET_BYTES = 64, 512

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.unused = nn.Linear(2, 2)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3))
        self.head = nn.Linear(4, 2)
        self.fixed = nn.Parameter(torch.ones(3), requires_grad=False)
    def forward(self, x):
        return self.head(self.body(x).mean(dim=(2, 3)))

torch.manual_seed(rank)
net = Net().to(memory_format=torch.channels_last)
mean = GradientMean(net)
x = torch.randn(2, 4, 3, 8, 8)

def means():
    return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
def passes(module, quiet, last):
    for part in x[:-1]:
        with quiet():
            module(part).square().mean().backward()
    with last():
        module(x[-1]).square().mean().backward()
"""
END = """
torch.distributed.barrier()
torch.distributed.destroy_process_group()
"""
SAME = """
from torch.nn.parallel import DistributedDataParallel
from contextlib import nullcontext, contextmanager
twin = copy.deepcopy(net)
del twin.unused
parallel = DistributedDataParallel(twin)
passes(parallel, parallel.no_sync, nullcontext)
expected = {name: p.grad for name, p in twin.named_parameters() if p.grad is not None}
other = [torch.empty(1) for _ in range(2)]
torch.distributed.all_gather(other, x.sum().view(1))
assert other[0] != other[1], "the processes see different data"

@contextmanager
def last():
    mean.open()
    yield
    mean.close()
for _ in range(2):
    net.zero_grad(set_to_none=True)
    passes(net, nullcontext, last)
    mean.finish()
    found = means()
    idle = {"unused.weight", "unused.bias"}
    assert found.keys() == expected.keys() | idle, (found.keys(), expected.keys())
    assert not any(found[name].any() for name in idle), "another process may have had a gradient: it counts 0 here"
    for name in expected:
        assert torch.equal(found[name], expected[name]), (name, found[name] - expected[name], found[name])
assert len(mean._buckets) >= 3 and net.body[0].weight.grad.stride() == net.body[0].weight.stride()
"""
FAILING = """
def fail(_):
    raise torch.OutOfMemoryError("a test says so")

net.zero_grad(set_to_none=True)
mean.open()
loss = net(x[0]).square().mean()
if rank == 1:
    maps = net.body[0](x[0])
    maps.register_hook(fail)
    loss = net.head(net.body[1:](maps).mean(dim=(2, 3))).square().mean()
try:
    loss.backward()
    assert rank == 0
except torch.OutOfMemoryError:
    assert 0 < len(mean._sent) < len(mean._buckets), "it fails in the middle of the exchange"
mean.close()
assert len(mean._sent) == len(mean._buckets)
mean.finish()
net.zero_grad(set_to_none=True)
mean.open()
net(x[0]).square().mean().backward()
mean.close()
mean.finish()
one, two = [torch.empty(8) for _ in range(2)], net.body[0].bias.grad
torch.distributed.all_gather(one, two)
assert torch.equal(one[0], one[1]), "the next exchange is not disturbed"
"""
LET_GO = """
seen = weakref.ref(net.head.weight), weakref.ref(mean)
gc.disable()
del net, mean
assert seen[0]() is None and seen[1]() is None, "a stage's memory is free as soon as it is left"
"""


@pytest.mark.parametrize("body", [SAME, FAILING, LET_GO], ids=["same", "failing", "let_go"])
def test_two_processes_exchange_gradients(tmp_path: Path, body: str) -> None:
    command = [sys.executable, "-c", START + body + END]
    workers = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "meet")], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    try:
        told = [worker.communicate(timeout=PATIENCE)[1] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0], told


def test_messages_hold_parameters_in_order_up_to_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "FIRST_BYTES", 8)
    monkeypatch.setattr(exchange, "BUCKET_BYTES", 16)
    sizes = [1, 1, 2, 2, 9, 1]
    parameters = [nn.Parameter(torch.empty(size)) for size in sizes]
    found = exchange._buckets([*parameters, nn.Parameter(torch.empty(1, dtype=torch.float64))])
    assert [[p.numel() for p in bucket.parameters] for bucket in found] == [[1, 1], [2, 2], [9], [1], [1]]
    assert [len(bucket.values) for bucket in found] == [2, 4, 9, 1, 1]
