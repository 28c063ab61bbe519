"""Statistics of a match graph against counts made node by node."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.mixmatch.graph import MatchGraph, build_match_graph
from engine.mixmatch.patches import sample_patches
from engine.mixmatch.stats import (
    StarvationCounter,
    graph_statistics,
    project_2d,
    tally_graph,
    tally_windows,
    told,
)
from engine.mixmatch.windows import Patches

CLASSES = 6


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch() -> tuple[Patches, MatchGraph, Tensor]:
    """Patches of four images, their graph and random features; class 5 has one node, class 4 none."""
    labels = torch.zeros((4, 60, 60), dtype=torch.int64)
    labels[0, 10:50, 10:50] = 1
    labels[1, 5:30] = 2
    labels[2, 20:, 20:] = 3
    patches = sample_patches(labels, 5, size=(8, 40), generator=generator())
    single = patches.label.clone()
    single[0] = 5
    patches = Patches(patches.image, patches.cy, patches.cx, patches.size, single, *tail(patches))
    return patches, build_match_graph(single, "graph", generator(1)), torch.randn((20, 12), generator=generator(2))


def tail(patches: Patches) -> tuple[Tensor, Tensor, Tensor]:
    return patches.padding, patches.overlap_rejections, patches.topped_up


def statistics(margin: float = 2.1) -> dict[str, Any]:
    patches, graph, features = batch()
    return graph_statistics(patches.label, graph, features, margin, patches, CLASSES)


def test_graph_statistics_have_every_key_of_the_event_and_are_json(repository: Path) -> None:
    text = (repository / "docs" / "events.md").read_text(encoding="utf-8")
    section = text[text.index("`graph` values:") :]
    documented = {key for key in re.findall(r"`(\w+)`", section) if key not in ("graph", "starved", "empty_graphs")}
    values = statistics()
    assert set(values) == documented
    assert json.loads(json.dumps(values, allow_nan=False)) == values


def test_graph_statistics_structure_equals_naive_counts() -> None:
    patches, graph, _ = batch()
    values, labels = statistics(), patches.label.tolist()
    degree: Counter[int] = Counter()
    pairs: Counter[tuple[int, int]] = Counter()
    attractive = 0
    for i in range(20):
        p, n = int(graph.positive[i]), int(graph.negative[i])
        if p != i:
            attractive += 1
            degree.update((i, p))
        degree.update((i, n))
        first, second = sorted((labels[i], labels[n]))
        pairs[first, second] += 1
    sizes = Counter(labels)
    assert values["nodes"] == values["rejective_edges"] == 20
    assert values["attractive_edges"] == attractive < 20
    assert values["nodes_per_class"] == {str(c): sizes[c] for c in sorted(sizes)}
    assert values["components_per_class"] == {str(c): 1 for c in sorted(sizes)}
    assert values["classes_present"] == len(sizes) == 5
    assert values["singletons"] == sum(n == 1 for n in sizes.values()) >= 1
    assert values["no_negative"] == 0
    assert values["degree_max"] == max(degree.values())
    assert values["degree_mean"] == pytest.approx(degree.total() / 20, abs=1e-3)
    assert values["class_pairs"] == [[a, b, n] for (a, b), n in sorted(pairs.items())]


@pytest.mark.parametrize("margin", [0.05, 2.1])
def test_graph_statistics_distances_equal_naive_ones(margin: float) -> None:
    _, graph, features = batch()
    unit = (features / features.norm(dim=1, keepdim=True)).tolist()
    positive, negative = (
        [sum((x - y) ** 2 for x, y in zip(unit[i], unit[int(to[i])], strict=True)) for i in range(20)]
        for to in (graph.positive, graph.negative)
    )
    values = statistics(margin)
    active = sum(p - n + margin > 0 for p, n in zip(positive, negative, strict=True)) / 20
    assert values["active_triplets"] == pytest.approx(active)
    assert values["d_pos_mean"] == pytest.approx(sum(positive) / 20, abs=1e-4)
    assert values["d_neg_mean"] == pytest.approx(sum(negative) / 20, abs=1e-4)
    for name, distances in (("d_pos_hist", positive), ("d_neg_hist", negative)):
        expected = [0] * 16
        for distance in distances:
            expected[min(15, int(distance * 4))] += 1
        assert values[name] == expected


def test_graph_statistics_windows_equal_naive_ones() -> None:
    patches, _, _ = batch()
    values, sides = statistics(), patches.size.tolist()
    outside = 0
    for cy, cx, side in zip(patches.cy.tolist(), patches.cx.tolist(), sides, strict=True):
        rows = range(cy - side // 2, cy + side // 2)
        columns = range(cx - side // 2, cx + side // 2)
        outside += side**2 - sum(0 <= y < 60 for y in rows) * sum(0 <= x < 60 for x in columns)
    assert values["padding_share"] == pytest.approx(outside / sum(side**2 for side in sides), abs=1e-4)
    assert outside > 0
    assert values["patch_size_mean"] == pytest.approx(sum(sides) / 20, abs=0.01)
    assert (values["patch_size_min"], values["patch_size_max"]) == (min(sides), max(sides))
    assert values["overlap_rejections"] == int(patches.overlap_rejections)
    assert values["topped_up"] == int(patches.topped_up)


def test_graph_statistics_one_class_counts_nodes_without_negative() -> None:
    labels = torch.full((4,), 2)
    graph = build_match_graph(labels, "graph", generator())
    patches = Patches(labels, labels, labels, labels, labels)
    values = graph_statistics(labels, graph, torch.eye(4), 2.1, patches, CLASSES)
    assert values["no_negative"] == 4
    assert values["rejective_edges"] == 0
    assert values["class_pairs"] == []
    assert values["d_pos_mean"] == pytest.approx(2)
    assert values["d_neg_mean"] == pytest.approx(1)


def test_graph_statistics_no_nodes_are_json_too() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    graph = build_match_graph(none, "graph", generator())
    values = graph_statistics(none, graph, torch.zeros((0, 3)), 2.1, Patches(none, none, none, none, none), CLASSES)
    assert set(values) == set(statistics())
    assert values["nodes"] == 0
    json.dumps(values, allow_nan=False)


def naive_edges(labels: list[int], graph: MatchGraph) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Attractive and rejective edges of one graph, as pairs of nodes."""
    attractive = [(i, p) for i, p in enumerate(graph.positive.tolist()) if p != i]
    return attractive, [(i, n) for i, n in enumerate(graph.negative.tolist()) if graph.has_negative[i]]


def squared(x: list[float], y: list[float]) -> float:
    return sum((a - b) ** 2 for a, b in zip(x, y, strict=True))


def test_statistics_of_several_graphs_are_those_of_all_their_nodes_and_edges() -> None:
    """Of graphs of 20, 3 and 0 nodes, with one class in the second; the last has nothing to add."""
    patches, graph, features = batch()
    few = torch.tensor([2, 2, 2])
    none = torch.zeros(0, dtype=torch.int64)
    parts = [
        (patches, graph, features),
        (Patches(few, few + 20, few + 5, few * 10, few), build_match_graph(few, "graph", generator(3)), features[:3]),
        (Patches(none, none, none, none, none), build_match_graph(none), features[:0]),
    ]
    tallies = [
        tally_graph(nodes.label, ties, rows, 0.05, CLASSES) | tally_windows(nodes) for nodes, ties, rows in parts
    ]
    values = told(tallies[0] + tallies[1] + tallies[2])
    labels, degrees, pairs, near, far, active = [], [], Counter[tuple[int, int]](), [], [], 0
    edges = [0, 0]
    for nodes, ties, rows in parts:
        own, unit = nodes.label.tolist(), [(row / row.norm()).tolist() for row in rows]
        attractive, rejective = naive_edges(own, ties)
        degree = Counter(end for edge in attractive + rejective for end in edge)
        labels += own
        degrees += [degree[node] for node in range(len(own))]
        pairs.update(tuple(sorted((own[a], own[b]))) for a, b in rejective)
        edges = [edges[0] + len(attractive), edges[1] + len(rejective)]
        for i, (p, n) in enumerate(zip(ties.positive.tolist(), ties.negative.tolist(), strict=True)):
            near.append(squared(unit[i], unit[p]))
            far.append(squared(unit[i], unit[n]) if ties.has_negative[i] else 1.0)
            active += near[-1] - far[-1] + 0.05 > 0
    assert (values["graphs"], values["nodes"]) == (3, 23)
    assert [values["attractive_edges"], values["rejective_edges"]] == edges
    assert values["nodes_per_class"] == {str(c): k for c, k in sorted(Counter(labels).items())}
    assert values["components_per_class"] == {str(c): 1 for c in sorted(set(labels))}
    assert (values["singletons"], values["no_negative"]) == (1, 3)
    assert values["degree_mean"] == pytest.approx(sum(degrees) / 23, abs=1e-3)
    assert values["degree_max"] == max(degrees)
    assert values["class_pairs"] == [[a, b, n] for (a, b), n in sorted(pairs.items())]
    assert values["active_triplets"] == pytest.approx(active / 23, abs=1e-4)
    assert values["d_pos_mean"] == pytest.approx(sum(near) / 23, abs=1e-4)
    assert values["d_neg_mean"] == pytest.approx(sum(far) / 23, abs=1e-4)
    assert [sum(values[name]) for name in ("d_pos_hist", "d_neg_hist")] == [23, 23]
    sides = [*patches.size.tolist(), 20, 20, 20]
    assert values["patch_size_mean"] == pytest.approx(sum(sides) / 23, abs=0.01)
    assert (values["patch_size_min"], values["patch_size_max"]) == (min(sides), max(sides))
    padded = sum(float(share) * side**2 for share, side in zip(patches.padding, patches.size.tolist(), strict=True))
    assert values["padding_share"] == pytest.approx(padded / sum(side**2 for side in sides), abs=1e-4)


def test_components_of_several_graphs_are_those_of_the_worst() -> None:
    labels = torch.tensor([0, 0, 0, 0])
    apart, chain = torch.tensor([1, 0, 3, 2]), torch.tensor([1, 0, 1, 2])
    nodes, has_negative = torch.arange(4), torch.zeros(4, dtype=torch.bool)
    tallies = [
        tally_graph(labels, MatchGraph(nodes, positive, nodes, has_negative, nodes), torch.eye(4), 2.1, CLASSES)
        for positive in (chain, apart, chain)
    ]
    values = told(
        (tallies[0] + tallies[1] + tallies[2]) | tally_windows(Patches(labels, labels, labels, nodes, labels))
    )
    assert values["components_per_class"] == {"0": 2}


@pytest.mark.parametrize("positive_only", [True, False])
def test_histograms_reach_as_far_as_distances_can_be(positive_only: bool) -> None:
    """Features after a ReLU are at most 2 apart: no bin stays empty for ever. The event says how far they reach."""
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6], [0.6, 0.8 if positive_only else -0.8]])
    graph = MatchGraph(
        torch.arange(4),
        torch.tensor([1, 3, 0, 2]),
        torch.tensor([2, 0, 1, 1]),
        torch.ones(4, dtype=torch.bool),
        torch.arange(4),
    )
    labels = torch.zeros(4, dtype=torch.int64)
    values = graph_statistics(labels, graph, features, 2.1, Patches(labels, labels, labels, labels, labels), CLASSES)
    largest = 2.0 if positive_only else 4.0
    assert values["d_hist_max"] == largest
    for name, ends in (("d_pos_hist", graph.positive), ("d_neg_hist", graph.negative)):
        expected = [0] * 16
        for i, end in enumerate(ends.tolist()):
            expected[min(int(squared(features[i].tolist(), features[end].tolist()) / largest * 16), 15)] += 1
        assert values[name] == expected
    assert values["d_pos_hist"][15] == positive_only, "orthogonal features lie in the last bin"


def test_starvation_counter_names_classes_not_sampled_for_long() -> None:
    counter = StarvationCounter(3)
    assert counter.starved(50) == {}
    for step in range(1, 31):
        counter.update(torch.tensor([0, 1] if step <= 5 else [0]), step)
    assert counter.starved(30, patience=20) == {"1": 25, "2": 30}
    assert counter.starved(30, patience=26) == {"2": 30}
    counter.update(torch.tensor([2]), 31)
    assert counter.starved(31, patience=20) == {"1": 26}


def test_starvation_counter_after_a_resume_counts_from_there() -> None:
    counter = StarvationCounter(2)
    counter.update(torch.tensor([0]), 1001)
    assert counter.starved(1001, patience=1) == {"1": 1}
    assert counter.starved(1020, patience=20) == {"1": 20}


def test_starvation_counter_takes_the_nodes_of_a_step_in_parts_and_goes_on_from_what_it_held() -> None:
    counter, parts, again = StarvationCounter(3), StarvationCounter(3), StarvationCounter(3)
    for step in range(1, 26):
        counter.update(torch.tensor([0, 2]), step)
        parts.update(torch.tensor([2]), step)
        parts.update(torch.tensor([0]), step)
        if step == 12:
            assert parts.last is not None
            again.recall(parts.last.tolist(), torch.device("cpu"))
        if step > 12:
            again.update(torch.tensor([2, 0]), step)
    assert counter.starved(25) == parts.starved(25) == again.starved(25) == {"1": 25}


def test_starvation_counter_does_not_recall_what_other_classes_had() -> None:
    counter = StarvationCounter(3)
    counter.recall([5, 5], torch.device("cpu"))
    assert counter.last is None


@pytest.mark.parametrize(("n", "d"), [(30, 8), (8, 30), (12, 12), (2, 5), (3, 2)])
def test_project_2d_equals_the_singular_value_decomposition(n: int, d: int) -> None:
    features = torch.randn((n, d), generator=generator(n), dtype=torch.float64)
    points = project_2d(features)
    unit = (features / features.norm(dim=1, keepdim=True)).numpy()
    u, s, _ = np.linalg.svd(unit - unit.mean(0), full_matrices=False)
    expected = u[:, :2] * s[:2]
    assert points.shape == (n, 2)
    np.testing.assert_allclose(np.abs(points.numpy()), np.abs(expected), atol=1e-5)
    for axis in points.T:
        assert float(axis[axis.abs().argmax()]) >= 0
    # Coordinates of an axis keep their signs relative to each other.
    np.testing.assert_allclose(points @ points.T, expected @ expected.T, atol=1e-5)


def test_project_2d_classes_far_apart_stay_apart() -> None:
    centers = torch.eye(3, 64).repeat_interleave(10, dim=0)
    features = centers + 0.05 * torch.randn((30, 64), generator=generator())
    points = project_2d(features)
    means = points.unflatten(0, (3, 10)).mean(1)
    spread = (points.unflatten(0, (3, 10)) - means[:, None]).norm(dim=2).max()
    gaps = torch.pdist(means)
    assert float(gaps.min()) > 4 * float(spread)


def test_project_2d_equal_directions_give_the_same_picture() -> None:
    features = torch.randn((20, 6), generator=generator())
    assert torch.equal(project_2d(features), project_2d(features.clone()))
    torch.testing.assert_close(project_2d(features * 3), project_2d(features))


@pytest.mark.parametrize("shape", [(0, 4), (1, 4), (5, 1)])
def test_project_2d_too_little_to_project_is_padded_with_zeros(shape: tuple[int, int]) -> None:
    points = project_2d(torch.ones(shape))
    assert points.shape == (shape[0], 2)
    assert not points.any()


def test_project_2d_not_finite_features_give_nan_not_an_error() -> None:
    features = torch.randn((6, 4), generator=generator())
    features[2, 1] = torch.nan
    assert project_2d(features).isnan().all()
