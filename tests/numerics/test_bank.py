"""Cross-batch memory against lists."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from scipy import stats
from torch import Tensor

from engine.mixmatch.bank import Bank
from engine.mixmatch.graph import build_match_graph
from engine.mixmatch.loss import contrast_loss, triplet_loss

SMALLEST_P = 1e-4


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def unit(row: list[float]) -> list[float]:
    length = math.hypot(*row)
    return [x / length for x in row]


def filled(labels: list[int], capacity: int, dimensions: int = 3, seed: int = 0) -> Bank:
    bank = Bank(capacity, dimensions)
    bank.store(torch.randn(len(labels), dimensions, generator=generator(seed)), torch.tensor(labels, dtype=torch.int64))
    return bank


@pytest.mark.parametrize("capacity", [1, 5, 7, 12])
def test_bank_holds_the_newest_as_a_list_would(capacity: int) -> None:
    bank, oracle = Bank(capacity, 2), list[tuple[list[float], int]]()
    for number, count in enumerate((3, 0, 4, 1, 5, 9, 2)):
        rows = torch.randn(count, 2, generator=generator(number))
        labels = torch.randint(0, 4, (count,), generator=generator(number))
        bank.store(rows, labels)
        oracle = (oracle + list(zip(map(unit, rows.tolist()), labels.tolist(), strict=True)))[-capacity:]
        place, held = int(bank.place), len(oracle)
        at = [(place - held + k) % capacity for k in range(held)]
        assert bank.labels[at].tolist() == [label for _, label in oracle]
        torch.testing.assert_close(bank.embeddings[at], torch.tensor([row for row, _ in oracle]).view(held, 2))
        assert int((bank.labels == -1).sum()) == capacity - held


def test_bank_draws_uniformly_among_places_of_the_class_and_of_others() -> None:
    kept = [4, 0, 0, 7, 4, 0, 2]
    bank, labels, source = filled(kept, capacity=10), torch.tensor([0, 4, 7, 9]), generator(1)
    near, far = [Counter[int]() for _ in range(4)], [Counter[int]() for _ in range(4)]
    for _ in range(3000):
        for row, (n, f) in enumerate(zip(*(part.tolist() for part in bank.draw(labels, source)), strict=True)):
            near[row][n] += 1
            far[row][f] += 1
    for row, label in enumerate(labels.tolist()):
        same = [k for k, other in enumerate(kept) if other == label]
        others = [k for k, other in enumerate(kept) if other != label]
        assert set(near[row]) == (set(same) or {-1}) and set(far[row]) == set(others)
        assert stats.chisquare([far[row][k] for k in others]).pvalue > SMALLEST_P
        if len(same) > 1:
            assert stats.chisquare([near[row][k] for k in same]).pvalue > SMALLEST_P


def test_bank_empty_or_of_one_class_says_that_there_is_none() -> None:
    labels = torch.tensor([0, 1])
    assert [part.tolist() for part in Bank(4, 2).draw(labels, generator())] == [[-1, -1], [-1, -1]]
    near, far = filled([1, 1], 4).draw(labels, generator())
    assert near[0] == -1 and far[1] == -1 and near[1] in (0, 1) and far[0] in (0, 1)


def squared(a: list[float], b: list[float]) -> float:
    return sum((x - y) ** 2 for x, y in zip(unit(a), unit(b), strict=True))


@pytest.mark.parametrize("kept", [[], [1, 1, 0], [0, 2, 2, 1, 3]])
def test_triplets_with_memory_equal_the_formula_and_give_it_no_gradient(kept: list[int]) -> None:
    labels = torch.tensor([0, 0, 1, 1, 2])
    rows = torch.randn(5, 3, generator=generator(3), dtype=torch.float64, requires_grad=True)
    bank, graph = filled(kept, 6).double(), build_match_graph(labels, "graph", generator(4))
    near, far = (part.tolist() for part in bank.draw(labels, generator(5)))
    joined, more = bank.extend(rows, labels, graph, generator(5))
    loss = triplet_loss(joined, more, margin=0.3)
    features, past, total = rows.tolist(), bank.embeddings.tolist(), 0.0
    for i in range(5):
        p, n = features[int(graph.positive[i])], features[int(graph.negative[i])]
        total += max(0.0, squared(features[i], p) - squared(features[i], n) + 0.3)
        p, n = (past[near[i]] if near[i] >= 0 else p), (past[far[i]] if far[i] >= 0 else n)
        total += max(0.0, squared(features[i], p) - squared(features[i], n) + 0.3)
    assert loss.item() == pytest.approx(total / 10, rel=1e-9)
    assert torch.autograd.gradcheck(
        lambda x: triplet_loss(*bank.extend(x, labels, graph, generator(5)), margin=0.3), rows
    )
    assert not bank.embeddings.requires_grad
    if not kept:
        assert loss.item() == pytest.approx(triplet_loss(rows, graph, margin=0.3).item(), rel=1e-12)


def test_memory_gives_a_batch_of_one_class_its_negatives() -> None:
    labels, rows = torch.tensor([1, 1, 1]), torch.randn(3, 3, generator=generator(6))
    graph = build_match_graph(labels, "graph", generator())
    assert not graph.has_negative.any()
    _, more = filled([0, 2], 4).extend(rows, labels, graph, generator())
    assert more.has_negative.tolist() == [False] * 3 + [True] * 3


def naive_contrast(
    rows: list[list[float]], labels: list[int], positive: list[int], bank: Bank, near: list[int]
) -> float:
    past = [(r, c) for r, c in zip(bank.embeddings.tolist(), bank.labels.tolist(), strict=True) if c >= 0]
    rows = [unit(row) for row in rows]

    def score(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True)) / 0.5

    terms = []
    for i, row in enumerate(rows):
        down = sum(math.exp(score(row, rows[j])) for j in range(len(rows)) if labels[j] != labels[i])
        down += sum(math.exp(score(row, r)) for r, c in past if c != labels[i])
        ends = [rows[positive[i]]] + ([bank.embeddings[near[i]].tolist()] if near[i] >= 0 else [])
        for end in ends:
            up = math.exp(score(row, end))
            terms.append(-math.log(up / (up + down)))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("kept", [[], [1, 1, 0], [0, 2, 2, 1, 3]])
def test_contrast_with_memory_equals_the_formula(kept: list[int]) -> None:
    labels = torch.tensor([0, 0, 1, 1, 2])
    rows = torch.randn(5, 3, generator=generator(3), dtype=torch.float64, requires_grad=True)
    bank, graph = filled(kept, 6).double(), build_match_graph(labels, "graph", generator(4))
    near, _ = bank.draw(labels, generator(5))

    def loss(x: Tensor) -> Tensor:
        return contrast_loss(x, labels, graph, 0.5, (bank.embeddings, bank.labels, near))

    expected = naive_contrast(rows.tolist(), labels.tolist(), graph.positive.tolist(), bank, near.tolist())
    assert loss(rows).item() == pytest.approx(expected, rel=1e-9)
    assert torch.autograd.gradcheck(loss, rows)
    if not kept:
        assert loss(rows).item() == pytest.approx(contrast_loss(rows, labels, graph, 0.5).item(), rel=1e-12)
