"""The drawing of a class's edges against a slow and plain search for components."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from mmtui.tui.widgets.forest import NODE, ROOT, Tree, draw_forest, forest, places
from tests.tui.seed import components, match_graph

GRAPHS = st.tuples(st.integers(0, 10_000), st.sampled_from(["graph", "random"]))


def of_class(graph: dict[str, list[int]], label: int) -> tuple[list[int], list[Tree]]:
    nodes = [node for node, found in enumerate(graph["label"]) if found == label]
    return nodes, forest(nodes, dict(enumerate(graph["positive"])), graph["order"])


@settings(max_examples=60, deadline=None)
@given(GRAPHS)
def test_forest_has_every_node_once_and_as_many_trees_as_components(chosen: tuple[int, str]) -> None:
    graph = match_graph(random.Random(chosen[0]), 3, chosen[1])
    wanted = components(graph)
    place = {node: number for number, node in enumerate(graph["order"])}
    for label in range(3):
        nodes, trees = of_class(graph, label)
        assert len(trees) == wanted[str(label)]
        assert sorted(node for tree in trees for node in tree.depth) == nodes
        for tree in trees:
            assert tree.root == min(tree.depth, key=lambda node: place[node]), "the first one placed is the root"
            below = [(node, child) for node, children in tree.children.items() for child in children]
            assert len(below) == len(tree) - 1
            assert all(tree.depth[child] == tree.depth[node] + 1 for node, child in below)
            drawn = {frozenset(pair) for pair in [*below, *tree.further]}
            ties = {frozenset((n, graph["positive"][n])) for n in tree.depth if graph["positive"][n] != n}
            assert drawn == ties, "every edge is drawn, and none that is not there"


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_trees_of_the_class_wise_graph_are_the_edges_that_nodes_took(seed: int) -> None:
    graph = match_graph(random.Random(seed), 2, "graph")
    for label in range(2):
        _, (tree,) = of_class(graph, label)
        for node, children in tree.children.items():
            assert all(graph["positive"][child] == node for child in children)


@settings(max_examples=40, deadline=None)
@given(GRAPHS)
def test_places_differ_and_children_stand_below(chosen: tuple[int, str]) -> None:
    graph = match_graph(random.Random(chosen[0]), 2, chosen[1])
    for label in range(2):
        nodes, trees = of_class(graph, label)
        found = places(trees)
        assert sorted(found) == nodes
        assert all(0 <= x <= 1 and 0 <= y <= 1 for x, y in found.values())
        assert len(set(found.values())) == len(nodes)
        for tree in trees:
            for node, children in tree.children.items():
                assert all(found[child][1] > found[node][1] for child in children)
                assert not children or found[children[0]][0] <= found[node][0] <= found[children[-1]][0]


@settings(max_examples=30, deadline=None)
@given(GRAPHS, st.booleans())
def test_drawing_fits_and_shows_every_node(chosen: tuple[int, str], ascii_only: bool) -> None:
    graph = match_graph(random.Random(chosen[0]), 2, chosen[1])
    nodes, trees = of_class(graph, 1)
    lines = draw_forest(trees, 160, 40, "cyan", ascii_only)
    text = "\n".join("".join(part for part, _ in line) for line in lines)
    assert len(lines) == 40 and all(len(line) <= 160 for line in text.splitlines())
    assert text.count(ROOT[ascii_only]) == len(trees)
    assert text.count(NODE[ascii_only]) == len(nodes) - len(trees)
    assert text.isascii() or not ascii_only
    assert lines == draw_forest(trees, 160, 40, "cyan", ascii_only), "the same graph, the same drawing"


def test_forest_of_damaged_edges_is_drawn_all_the_same() -> None:
    trees = forest([0, 1, 2, 3], {0: 0, 1: 99, 2: 3, 3: 2}, [3, 2])
    assert [sorted(tree.depth) for tree in trees] == [[2, 3], [0], [1]]
    assert draw_forest(trees, 50, 14) and draw_forest([], 50, 14)
    assert draw_forest(trees, 2, 1) == [[("too small", "dim")]]
