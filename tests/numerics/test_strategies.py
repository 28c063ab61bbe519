"""Strategies beyond the paper's, against loops written node by node."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
import torch
from scipy import stats
from torch import Tensor

from engine.mixmatch.graph import CANDIDATES, build_match_graph
from engine.mixmatch.loss import contrast_loss
from engine.mixmatch.patches import sample_patches

SMALLEST_P = 1e-4
"""Seeds are fixed, so a test below this level fails for ever: it means a wrong distribution."""


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def distance(a: list[float], b: list[float]) -> float:
    """Squared distance of normalised vectors, entry by entry."""
    length_a, length_b = math.hypot(*a), math.hypot(*b)
    return sum((x / length_a - y / length_b) ** 2 for x, y in zip(a, b, strict=True))


def naive_semi_hard(labels: list[int], features: list[list[float]], rng: random.Random) -> list[tuple[int, int]]:
    """Positive and negative of every node, in the words of the docstring."""
    order = rng.sample(range(len(labels)), len(labels))
    chosen = [(-1, -1)] * len(labels)
    for place, i in enumerate(order):
        before = order[:place]
        same = [j for j in before if labels[j] == labels[i]] or [j for j in order if labels[j] == labels[i] and j != i]
        other = [j for j in before if labels[j] != labels[i]] or [j for j in order if labels[j] != labels[i]]
        positive = rng.choice(same)
        drawn = [rng.choice(other) for _ in range(CANDIDATES)]
        reach = distance(features[i], features[positive])
        beyond = [j for j in drawn if distance(features[i], features[j]) > reach]
        if beyond:
            negative = min(beyond, key=lambda j: distance(features[i], features[j]))
        else:
            negative = max(drawn, key=lambda j: distance(features[i], features[j]))
        chosen[i] = (positive, negative)
    return chosen


def test_semi_hard_edges_are_distributed_as_those_of_the_naive_loop() -> None:
    labels = [0, 0, 0, 1, 1, 1, 2, 2]
    features = torch.rand(8, 2, generator=generator(11))
    tensor, source, rng = torch.tensor(labels), generator(1), random.Random(1)
    ours: Counter[tuple[int, int, int]] = Counter()
    theirs: Counter[tuple[int, int, int]] = Counter()
    for _ in range(2500):
        graph = build_match_graph(tensor, "semi_hard", source, features)
        ours.update(zip(range(8), graph.positive.tolist(), graph.negative.tolist(), strict=True))
        theirs.update((i, p, n) for i, (p, n) in enumerate(naive_semi_hard(labels, features.tolist(), rng)))
    # Outcomes too rare to judge are taken together.
    often = [key for key in ours | theirs if ours[key] + theirs[key] >= 20]
    rare = [counts.total() - sum(counts[key] for key in often) for counts in (ours, theirs)]
    table = [[counts[key] for key in often] + [left] for counts, left in zip((ours, theirs), rare, strict=True)]
    table = [row if sum(rare) else row[:-1] for row in table]
    assert len(often) > 40
    assert float(stats.chi2_contingency(table).pvalue) > SMALLEST_P


def test_semi_hard_takes_no_gradient_and_needs_embeddings() -> None:
    features = torch.rand(6, 2, generator=generator(), requires_grad=True)
    graph = build_match_graph(torch.tensor([0, 0, 1, 1, 2, 2]), "semi_hard", generator(), features)
    assert not graph.negative.requires_grad and features.grad is None
    with pytest.raises(ValueError, match="needs the embeddings"):
        build_match_graph(torch.tensor([0, 1]), "semi_hard", generator())


def test_balanced_rejective_edges_go_to_every_other_class_equally_often() -> None:
    labels = [0] * 30 + [1] * 6 + [2] * 3 + [3]
    tensor, source = torch.tensor(labels), generator(2)
    pairs: Counter[tuple[int, int]] = Counter()
    nodes: Counter[int] = Counter()
    for _ in range(600):
        graph = build_match_graph(tensor, "balanced", source)
        pairs.update(zip(labels, tensor[graph.negative].tolist(), strict=True))
        nodes.update(n for n in graph.negative[:30].tolist() if labels[n] == 1)
    for own in range(4):
        counts = [pairs[own, other] for other in range(4) if other != own]
        assert pairs[own, own] == 0
        assert stats.chisquare(counts).pvalue > SMALLEST_P, (own, counts)
    assert stats.chisquare([nodes[n] for n in range(30, 36)]).pvalue > SMALLEST_P, "uniform within a class"


def test_balanced_centres_draw_every_class_equally_often_and_uniformly_within_it() -> None:
    labels = torch.zeros(2, 20, 20, dtype=torch.int64)
    labels[0, :2, :5] = 3
    labels[0, 5, 7:10] = 4
    labels[0, 10:] = 255
    labels[1, :, 10:] = 7
    source, classes, pixels = generator(3), Counter[tuple[int, int]](), Counter[tuple[int, int]]()
    for _ in range(400):
        patches = sample_patches(
            labels, 6, size=(2, 4), background=None, overlap=1.0, generator=source, centres="balanced"
        )
        classes.update(zip(patches.image.tolist(), patches.label.tolist(), strict=True))
        rows = zip(
            patches.image.tolist(), patches.label.tolist(), patches.cy.tolist(), patches.cx.tolist(), strict=True
        )
        pixels.update((y, x) for image, label, y, x in rows if image == 0 and label == 3)
        assert torch.equal(labels[patches.image, patches.cy, patches.cx], patches.label)
    assert set(classes) == {(0, 0), (0, 3), (0, 4), (1, 0), (1, 7)}
    assert stats.chisquare([classes[0, c] for c in (0, 3, 4)]).pvalue > SMALLEST_P
    assert stats.chisquare([classes[1, c] for c in (0, 7)]).pvalue > SMALLEST_P
    assert len(pixels) == 10 and stats.chisquare(list(pixels.values())).pvalue > SMALLEST_P


def test_balanced_centres_leave_the_background_its_quota() -> None:
    labels = torch.zeros(1, 16, 16, dtype=torch.int64)
    labels[0, 0, :4] = 1
    labels[0, 8:] = 2
    patches = sample_patches(labels, 10, size=(2, 2), generator=generator(4), centres="balanced")
    counts = Counter(patches.label.tolist())
    assert counts[0] == 1 and counts[1] + counts[2] == 9 and counts[1] >= 1


def naive_contrast(features: list[list[float]], labels: list[int], positive: list[int], temperature: float) -> float:
    """The formula of the docstring, term by term."""

    def score(i: int, j: int) -> float:
        a, b = features[i], features[j]
        return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b) / temperature

    total = 0.0
    for i in range(len(labels)):
        up = math.exp(score(i, positive[i]))
        down = up + sum(math.exp(score(i, j)) for j in range(len(labels)) if labels[j] != labels[i])
        total -= math.log(up / down)
    return total / len(labels)


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_contrast_loss_equals_the_formula_and_its_gradient_the_numerical_one(temperature: float) -> None:
    labels = torch.tensor([0, 0, 1, 1, 1, 2])
    features = torch.randn(6, 5, generator=generator(5), dtype=torch.float64, requires_grad=True)
    graph = build_match_graph(labels, "graph", generator(6))
    loss = contrast_loss(features, labels, graph, temperature)
    assert loss.item() == pytest.approx(
        naive_contrast(features.tolist(), labels.tolist(), graph.positive.tolist(), temperature), rel=1e-9
    )
    assert torch.autograd.gradcheck(lambda x: contrast_loss(x, labels, graph, temperature), features)


def exponents(features: Tensor, temperature: float) -> list[list[float]]:
    """exp(cosine / temperature) of every two nodes."""
    rows = [[value / math.hypot(*row) for value in row] for row in features.tolist()]
    return [[math.exp(sum(x * y for x, y in zip(a, b, strict=True)) / temperature) for b in rows] for a in rows]


def nt_xent(features: Tensor, labels: list[int], pairs: list[tuple[int, int]], temperature: float) -> float:
    """Mean over positive pairs; each is told from the anchor's negatives alone (Sohn 2016, Chen et al. 2020)."""
    e = exponents(features, temperature)
    losses = []
    for anchor, positive in pairs:
        negatives = [e[anchor][k] for k, label in enumerate(labels) if label != labels[anchor]]
        losses.append(-math.log(e[anchor][positive] / math.fsum([e[anchor][positive], *negatives])))
    return math.fsum(losses) / len(losses)


def sup_con(features: Tensor, labels: list[int], temperature: float) -> float:
    """Khosla et al. 2020, equation 2, L_out: all of an anchor's class are its positives, all others stand below."""
    e = exponents(features, temperature)
    losses = []
    for anchor, own in enumerate(labels):
        others = [k for k in range(len(labels)) if k != anchor]
        positives = [k for k in others if labels[k] == own]
        below = math.fsum(e[anchor][k] for k in others)
        if positives:
            losses.append(-math.fsum(math.log(e[anchor][k] / below) for k in positives) / len(positives))
    return math.fsum(losses) / len(losses)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
@pytest.mark.parametrize("seed", range(5))
def test_contrast_loss_is_nt_xent_of_the_graphs_edges_and_not_supcon(seed: int, temperature: float) -> None:
    labels = torch.tensor([0] * 5 + [1] * 4 + [2] * 3)
    features = torch.randn(12, 8, generator=generator(seed), dtype=torch.float64)
    graph = build_match_graph(labels, "graph", generator(seed))
    loss = contrast_loss(features, labels, graph, temperature).item()
    pairs = list(zip(graph.anchor.tolist(), graph.positive.tolist(), strict=True))
    assert loss == pytest.approx(nt_xent(features, labels.tolist(), pairs, temperature), rel=1e-12)
    assert abs(loss - sup_con(features, labels.tolist(), temperature)) > 0.02


def test_contrast_loss_of_one_class_or_of_nothing_is_zero_with_a_gradient_of_zero() -> None:
    for count in (0, 4):
        features = torch.randn(count, 3, generator=generator(), requires_grad=True)
        labels = torch.zeros(count, dtype=torch.int64)
        loss = contrast_loss(features, labels, build_match_graph(labels, "graph", generator()))
        loss.backward()
        assert loss.item() == 0.0 and not features.grad.any()  # type: ignore[union-attr]
