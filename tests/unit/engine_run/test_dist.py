"""Collectives: nothing alone, sums and rank order with two real processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from engine import dist
from tests.waiting import PATIENCE

ROOT = Path(__file__).resolve().parents[3]
WORKER = """
import sys, torch
from engine import dist
from engine.metrics import ConfusionMatrix
rank, file = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group("gloo", init_method="file://" + file, rank=rank, world_size=2)
assert (dist.rank(), dist.world_size(), dist.active()) == (rank, 2, True)
big = torch.tensor([2**53 + rank, rank], dtype=torch.int64)
assert dist.all_reduce_sum(big).tolist() == [2**54 + 1, 1]
assert dist.all_reduce_max(torch.tensor([rank, -rank, 7])).tolist() == [1, 0, 7]
own = torch.full((2, 3), float(rank))
assert dist.all_gather(own).tolist() == [[0.0] * 3] * 2 + [[1.0] * 3] * 2
matrix = ConfusionMatrix(2)
matrix.update(torch.tensor([0, 1]), torch.tensor([0, rank]))
assert matrix.reduce().matrix.tolist() == [[2, 1], [0, 1]], matrix.matrix
dist.barrier()
dist.finish()  # else threads of gloo may outlive the interpreter, which aborts it
assert not dist.active()
"""


def test_collectives_alone_return_their_input() -> None:
    tensor = torch.arange(3)
    assert (dist.rank(), dist.world_size(), dist.active()) == (0, 1, False)
    assert dist.all_reduce_sum(tensor) is tensor and dist.all_reduce_max(tensor) is tensor
    assert dist.all_gather(tensor) is tensor
    assert tensor.tolist() == [0, 1, 2]
    dist.barrier()


def test_collectives_of_two_processes_sum_and_gather_in_rank_order(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WORKER]
    workers = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "meet")], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    told = [worker.communicate(timeout=PATIENCE)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], told
