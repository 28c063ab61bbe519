"""The attractive edges of one class as a drawing: trees that grow downwards from the nodes placed first.

Pure functions. The same graph gives the same drawing; nothing depends on what was drawn before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmtui.tui.widgets.plot import Canvas, Span

ROOT, NODE = ("◉", "@"), ("•", "o")
LEVEL = 3
"""Most lines from one level to the next."""


@dataclass(frozen=True)
class Tree:
    """One connected component.

    Attributes:
        root: the node that was placed first.
        children: {node: nodes below it, in the order in which they were placed}.
        depth: {node: edges to the root}.
        further: edges that are not in the tree: they close circles.
    """

    root: int
    children: Mapping[int, Sequence[int]]
    depth: Mapping[int, int]
    further: Sequence[tuple[int, int]] = ()

    def __len__(self) -> int:
        return len(self.depth)

    @property
    def height(self) -> int:
        """Edges on the longest way down."""
        return max(self.depth.values())


def forest(nodes: Sequence[int], positive: Mapping[int, int], order: Sequence[int]) -> list[Tree]:
    """The components of some nodes under attractive edges, the largest first.

    Args:
        positive: {node: the node its edge leads to}; itself, or a node that is none of these: no edge.
        order: all nodes as they were placed.
    """
    members = set(nodes)
    rank = {node: number for number, node in enumerate(order)}
    placed = sorted(members, key=lambda node: (rank.get(node, len(rank)), node))
    near: dict[int, list[int]] = {node: [] for node in placed}
    for node in placed:
        other = positive.get(node, node)
        if other != node and other in members:
            near[node].append(other)
            near[other].append(node)
    trees, seen = [], set[int]()
    for root in placed:
        if root not in seen:
            tree = _tree(root, near, positive, {node: number for number, node in enumerate(placed)})
            seen.update(tree.depth)
            trees.append(tree)
    return sorted(trees, key=lambda tree: -len(tree))


def _tree(root: int, near: Mapping[int, Sequence[int]], positive: Mapping[int, int], rank: Mapping[int, int]) -> Tree:
    """Below the root by the edges that the nodes took themselves; where those run in circles, by the shortest way."""
    found = _walk(root, {node: [o for o in others if positive.get(o) == node] for node, others in near.items()}, rank)
    whole = _walk(root, near, rank)
    if len(found[1]) < len(whole[1]):
        found = whole
    children, depth = found
    drawn = {frozenset((node, child)) for node, below in children.items() for child in below}
    further = sorted({(min(a, b), max(a, b)) for a in depth for b in near[a] if frozenset((a, b)) not in drawn})
    return Tree(root, children, depth, further)


def _walk(
    root: int, near: Mapping[int, Sequence[int]], rank: Mapping[int, int]
) -> tuple[dict[int, list[int]], dict[int, int]]:
    """Breadth first from the root: {node: children}, {node: depth}."""
    depth, children, line = {root: 0}, dict[int, list[int]](), [root]
    for node in line:
        below = sorted({other for other in near[node] if other not in depth}, key=lambda other: rank[other])
        children[node] = below
        for other in below:
            depth[other] = depth[node] + 1
        line += below
    return children, depth


def places(trees: Sequence[Tree]) -> dict[int, tuple[float, float]]:
    """Where nodes lie, across and down, 0-1: leaves side by side, every other node above the middle of its children."""
    across: dict[int, float] = {}
    slot = 0.0
    for tree in trees:
        for node in _bottom_up(tree):
            below = tree.children.get(node, ())
            if below:
                across[node] = (across[below[0]] + across[below[-1]]) / 2
            else:
                across[node] = slot
                slot += 1
        slot += 1  # room between components
    width = max(slot - 2, 1.0)
    tallest = max((tree.height for tree in trees), default=0) or 1
    single = len(across) == 1
    return {
        node: (0.5 if single else across[node] / width, tree.depth[node] / tallest)
        for tree in trees
        for node in tree.depth
    }


def _bottom_up(tree: Tree) -> list[int]:
    """Every node behind its children, leaves from left to right."""
    done, stack = list[int](), [(tree.root, False)]
    while stack:
        node, seen = stack.pop()
        if seen:
            done.append(node)
        else:
            stack.append((node, True))
            stack += [(child, False) for child in reversed(tree.children.get(node, ()))]
    return done


def draw_forest(
    trees: Sequence[Tree], width: int, height: int, style: str = "", ascii_only: bool = False
) -> list[list[Span]]:
    """The trees in ``height`` lines of ``width`` cells: edges as lines, the first node of each component marked."""
    if width < 3 or height < 2:
        return [[("too small", "dim")]]
    deepest = max((tree.height for tree in trees), default=0)
    rows = max(min(height, LEVEL * deepest + 1), 2)
    canvas = Canvas(width, rows, *((1, 1) if ascii_only else (2, 4)))
    at = {node: _dot(place, canvas) for node, place in places(trees).items()}
    edges = [(pair, "dim") for tree in trees for pair in tree.further]
    edges += [((n, child), style) for tree in trees for n, below in tree.children.items() for child in below]
    for (a, b), of in edges:
        (x0, y0), (x1, y1) = sorted((at[a], at[b]), key=lambda dot: dot[1])
        canvas.ink = _stroke(x1 - x0, y1 - y0)
        canvas.line(x0, y0, x1, y1, of)
    for tree in trees:
        for node in tree.depth:
            if node != tree.root:
                canvas.mark(*at[node], NODE[1 if ascii_only else 0], style)
    for tree in trees:
        canvas.mark(*at[tree.root], ROOT[1 if ascii_only else 0], "title")
    return [*canvas.lines(ascii_only), *[[] for _ in range(height - rows)]]


def _dot(place: tuple[float, float], canvas: Canvas) -> tuple[int, int]:
    """The dot in the middle of the cell that is nearest to a place."""
    column, row = round(place[0] * (canvas.columns - 1)), round(place[1] * (canvas.rows - 1))
    return column * canvas.across + canvas.across // 2, row * canvas.down + canvas.down // 2


def _stroke(across: int, down: int) -> str:
    if abs(across) > 3 * down:
        return "-"
    return "|" if abs(across) * 3 < down else "\\" if across > 0 else "/"
