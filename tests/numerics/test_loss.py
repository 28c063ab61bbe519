"""The triplet loss against its formula, term by term (PAPER 1.4)."""

from __future__ import annotations

import math
from typing import Literal, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.mixmatch.graph import MatchGraph, build_match_graph
from engine.mixmatch.loss import triplet_distances, triplet_loss

Normalizer = Literal["paper", "reference"]
NORMALIZERS: tuple[Normalizer, ...] = get_args(Normalizer)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def features(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=generator(seed), dtype=torch.float64)


def naive_loss(embeddings: Tensor, graph: MatchGraph, margin: float, normalizer: Normalizer) -> float:
    """L = (1/N) sum max(0, D(a,p) - D(a,n) + alpha), one number after the other."""
    unit: list[list[float]] = []
    for row in embeddings.double().tolist():
        length = math.sqrt(sum(x * x for x in row))
        unit.append([x / length for x in row] if length else row)
    zero = [0.0] * embeddings.shape[1]
    total = 0.0
    for k in range(len(graph)):
        anchor, positive = unit[int(graph.anchor[k])], unit[int(graph.positive[k])]
        negative = unit[int(graph.negative[k])] if graph.has_negative[k] else zero
        to_positive = sum((a - p) ** 2 for a, p in zip(anchor, positive, strict=True))
        to_negative = sum((a - n) ** 2 for a, n in zip(anchor, negative, strict=True))
        total += max(0.0, to_positive - to_negative + margin)
    return total / (len(graph) * (2 if normalizer == "reference" else 1))


@settings(max_examples=40, deadline=None)
@given(
    labels=st.lists(st.integers(0, 3), min_size=1, max_size=24),
    margin=st.sampled_from([0.1, 0.5, 2.1]),
    normalizer=st.sampled_from(NORMALIZERS),
    seed=st.integers(0, 2**30),
)
def test_triplet_loss_any_graph_equals_the_naive_sum(
    labels: list[int], margin: float, normalizer: Normalizer, seed: int
) -> None:
    graph = build_match_graph(torch.tensor(labels), "graph", generator(seed))
    embeddings = features(len(labels), 5, seed)
    embeddings[seed % len(labels)] = 0
    expected = naive_loss(embeddings, graph, margin, normalizer)
    assert triplet_loss(embeddings, graph, margin, normalizer).item() == pytest.approx(expected, rel=1e-12)
    single = triplet_loss(embeddings.float(), graph, margin, normalizer)
    assert single.dtype == torch.float32
    assert single.item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("normalizer", NORMALIZERS)
@pytest.mark.parametrize("margin", [0.3, 2.1])
@pytest.mark.parametrize(
    "labels", [[0, 0, 1, 1, 2, 0, 1], [3, 3, 3, 3], [0], [0, 1]], ids=["mixed", "no-negative", "single", "singletons"]
)
def test_triplet_loss_gradient_equals_finite_differences(
    labels: list[int], margin: float, normalizer: Normalizer
) -> None:
    graph = build_match_graph(torch.tensor(labels), "graph", generator(1))
    embeddings = features(len(labels), 6, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: triplet_loss(x, graph, margin, normalizer), (embeddings,))


def test_triplet_loss_small_margin_has_open_and_closed_hinges_under_gradcheck() -> None:
    """The check above means little if all hinges are on one side."""
    graph = build_match_graph(torch.tensor([0, 0, 1, 1, 2, 0, 1]), "graph", generator(1))
    unit = torch.nn.functional.normalize(features(7, 6, 2))
    positive, negative = triplet_distances(unit, graph)
    is_open = positive - negative + 0.3 > 0
    assert 0 < int(is_open.sum()) < 7


def test_triplet_loss_reference_gradient_is_that_of_its_layer() -> None:
    """d/da = (n - p)/N, d/dp = (p - a)/N, d/dn = (a - n)/N on normalised features, scattered back to the nodes."""
    labels = torch.tensor([0, 0, 1, 1, 2, 2, 2])
    graph = build_match_graph(labels, "graph", generator(4))
    raw = features(7, 5, 3)
    unit = raw / raw.norm(dim=1, keepdim=True)
    expected = torch.zeros_like(unit)
    for k in range(7):
        a, p, n = int(graph.anchor[k]), int(graph.positive[k]), int(graph.negative[k])
        expected[a] += (unit[n] - unit[p]) / 7
        expected[p] += (unit[p] - unit[a]) / 7
        expected[n] += (unit[a] - unit[n]) / 7
    along = (expected * unit).sum(1, keepdim=True)
    expected = (expected - along * unit) / raw.norm(dim=1, keepdim=True)
    raw.requires_grad_()
    triplet_loss(raw, graph, 5.0, "reference").backward()
    assert raw.grad is not None
    torch.testing.assert_close(raw.grad, expected)


def test_triplet_loss_zero_row_gets_no_gradient_and_spoils_no_other() -> None:
    embeddings = features(6, 4)
    embeddings[2] = 0
    embeddings.requires_grad_()
    triplet_loss(embeddings, build_match_graph(torch.tensor([0, 0, 0, 1, 1, 1]), "graph", generator())).backward()
    assert embeddings.grad is not None
    assert not embeddings.grad[2].any()
    assert embeddings.grad.isfinite().all()
    assert embeddings.grad[[0, 1, 3, 4, 5]].any(dim=1).all()


def test_triplet_loss_no_nodes_is_a_zero_that_can_be_differentiated() -> None:
    embeddings = torch.zeros((0, 8), requires_grad=True)
    loss = triplet_loss(embeddings, build_match_graph(torch.zeros(0, dtype=torch.int64)))
    loss.backward()
    assert loss.item() == 0
    assert embeddings.grad is not None


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1.0, 1e18, 1e30])
def test_triplet_loss_very_small_and_large_features_give_the_loss_of_plain_ones(scale: float) -> None:
    graph = build_match_graph(torch.tensor([0, 0, 1, 1, 2]), "graph", generator())
    plain = features(5, 8).float()
    scaled = (plain * scale).requires_grad_()
    loss = triplet_loss(scaled, graph)
    loss.backward()
    assert loss.item() == pytest.approx(triplet_loss(plain, graph).item(), rel=1e-5)
    assert scaled.grad is not None
    assert scaled.grad.isfinite().all()
    assert scaled.grad.any()


def test_triplet_loss_bfloat16_features_are_summed_in_float32() -> None:
    graph = build_match_graph(torch.arange(64) % 5, "graph", generator())
    low = features(64, 512).bfloat16()
    loss = triplet_loss(low, graph)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(triplet_loss(low.double(), graph).item(), rel=1e-6)


def test_triplet_loss_features_after_relu_keep_every_hinge_open() -> None:
    graph = build_match_graph(torch.arange(40) % 6, "graph", generator())
    embeddings = features(40, 12).relu()
    positive, negative = triplet_distances(torch.nn.functional.normalize(embeddings), graph)
    linear = (positive - negative).mean() + 2.1
    torch.testing.assert_close(triplet_loss(embeddings, graph), linear)
    half = triplet_loss(embeddings, graph, normalizer="reference").item()
    assert half == pytest.approx(linear.item() / 2)
    assert 0.05 <= half <= 2.05


def test_triplet_loss_triplets_in_any_order_or_number_are_honoured() -> None:
    graph = MatchGraph(
        anchor=torch.tensor([3, 0, 3]),
        positive=torch.tensor([1, 0, 0]),
        negative=torch.tensor([2, -1, 1]),
        has_negative=torch.tensor([True, False, True]),
        order=torch.arange(4),
    )
    embeddings = features(4, 3)
    expected = naive_loss(embeddings, graph, 0.7, "paper")
    assert triplet_loss(embeddings, graph, 0.7).item() == pytest.approx(expected)


def test_triplet_loss_not_finite_features_show() -> None:
    embeddings = features(4, 3)
    embeddings[1, 0] = torch.inf
    assert triplet_loss(embeddings, build_match_graph(torch.tensor([0, 0, 1, 1]), "graph", generator())).isnan()


def test_triplet_loss_unknown_normalizer_is_refused() -> None:
    graph = build_match_graph(torch.tensor([0, 1]), "graph", generator())
    with pytest.raises(ValueError, match="'paper' or 'reference'"):
        triplet_loss(features(2, 3), graph, normalizer="mean")  # type: ignore[arg-type]
