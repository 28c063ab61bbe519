"""Random numbers as a pure function of seed, purpose, rank and step."""

from __future__ import annotations

import os

import pytest
import torch

from engine import determinism


def test_generator_equal_parts_give_equal_numbers_and_any_other_part_others() -> None:
    def draw(seed: int = 1, purpose: str = "a", rank: int = 0, step: int = 0) -> float:
        return float(torch.rand(1, generator=determinism.generator(seed, purpose, rank=rank, step=step)))

    assert draw() == draw()
    others = [draw(seed=2), draw(purpose="b"), draw(rank=1), draw(step=1), draw(purpose="a/0")]
    assert len({draw(), *others}) == 6


def test_derive_seed_does_not_mix_up_neighbouring_parts() -> None:
    assert determinism.derive_seed(1, "a", 2, 3) != determinism.derive_seed(1, "a", 23)
    assert 0 <= determinism.derive_seed("x") < 2**63


def test_seed_global_makes_dropout_repeatable() -> None:
    def dropped() -> torch.Tensor:
        determinism.seed_global(3, "segment", step=7)
        return torch.nn.functional.dropout(torch.ones(64), 0.5, training=True)

    assert torch.equal(dropped(), dropped())


@pytest.mark.parametrize("deterministic", [True, False])
def test_configure_sets_threads_and_kernels(deterministic: bool) -> None:
    assert determinism.configure(1, deterministic) == 1 == torch.get_num_threads()
    assert torch.are_deterministic_algorithms_enabled() is deterministic
    assert determinism.configure(0, deterministic) == len(os.sched_getaffinity(0))
