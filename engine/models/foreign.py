"""State dicts from elsewhere, renamed to ours: torchvision, common self-supervised ResNets.

Wrappers, trainers and checkpoints put prefixes before a network's names. They are found and not listed: where most of
the names of a network follow one prefix, there it is.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from engine.config.backbones import is_timm
from engine.models.vgg import VGG16_STAGES

COUNTERS = ("num_batches_tracked", "weight_sum")
"""Ends of names that are no weights: numbers of batches, which older files lack."""
TRAINED = frozenset({"q", "query", "online", "base", "teacher"})
AVERAGED = frozenset({"k", "key", "momentum", "target", "ema", "student", "avg", "averaged", "shadow"})
"""Words by which the networks of one checkpoint are told apart: the field takes the query, online or base network, and
of a teacher and its student (DINO) the teacher."""
NEARLY = 0.5
"""A network counts beside another if it fills at least so much of what that fills: a part of it may be gone."""
NAMED = 4
MOST_COMPARED = 5_000
LONGEST_COMPARED = 200
"""Names, and characters of one, among which the nearest to a missing one is looked for."""
BN_PARTS = ("weight", "bias", "running_mean", "running_var")
CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
"""Parts of a ResNet by their places in nn.Sequential(*resnet.children()): 2 and 3 are ReLU and pooling."""
NET = "net."
"""What stands before timm's names in those of an encoder of timm."""
Shape = tuple[int, ...]


class ForeignError(ValueError):
    """A file that cannot be taken; the text goes on after "FILE holds "."""


@dataclass
class Renamed:
    """Tensors by our names.

    Attributes:
        tensors: what fills the backbone.
        left_out: foreign names that belong to no backbone: classifiers, projection heads, queues, averaged networks.
        notes: what was changed on the way, in words.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Naming:
    """A way to name a backbone's tensors.

    Attributes:
        shapes: of every tensor that has a name.
        convert: tensors by these names, and others of the same parts, to ours.
    """

    shapes: Mapping[str, Shape]
    convert: Callable[[Mapping[str, Tensor]], Renamed]


@dataclass(frozen=True)
class _Place:
    """Where in a file a network may be: its names behind ``prefix``, those of the right shape in ``fitting``."""

    prefix: str
    naming: _Naming
    names: frozenset[str]
    fitting: int


def rename(tensors: Mapping[str, Tensor], backbone: str, ours: Mapping[str, Shape]) -> Renamed:
    """Tensors of a state dict by the names of one of our backbones.

    Taken is what follows the prefix behind which most of the network is found. Other parts under that prefix (a
    classifier) and whatever has another are left out; a name within the network's own parts that it lacks is kept, so
    that the file is refused.

    Args:
        tensors: as stored.
        backbone: our name of the network, as in ``model.backbone``.
        ours: the network's own names and the shapes of its tensors.

    Raises:
        ForeignError: two networks fit and nothing tells which is meant, or it is another AlexNet.
    """
    places = _places(tensors, _namings(backbone, ours))
    if not places:
        if backbone.startswith("alexnet") and any(name.endswith("features.0.weight") for name in tensors):
            raise ForeignError("torchvision's AlexNet: set model.backbone=alexnet_torchvision")
        return Renamed(dict(tensors))
    networks = _networks(places)
    place = _chosen(tensors, networks)
    found, left_out = _taken(tensors, place)
    notes, told = _other_networks(left_out, place, networks)
    rest = [name for name in left_out if name not in told]
    if rest:
        more = f" and {len(rest) - NAMED} more" if len(rest) > NAMED else ""
        tell = "1 other tensor" if len(rest) == 1 else f"{len(rest)} other tensors"
        notes.append(f"{tell} of the file left over: {', '.join(rest[:NAMED])}{more}")
    return Renamed(found.tensors, [*left_out, *found.left_out], [*notes, *found.notes])


def nearest(name: str, names: Iterable[str], most: int = 2) -> tuple[str, ...]:
    """Those of a file's names whose ends are most like one that is missing; their prefixes do not count."""
    parts = name.count(".") + 1
    matcher = difflib.SequenceMatcher(b=name, autojunk=False)

    def likeness(other: str) -> float:
        matcher.set_seq1(".".join(other[-LONGEST_COMPARED:].split(".")[-parts:]))
        return matcher.ratio()

    return tuple(sorted(list(names)[:MOST_COMPARED], key=likeness, reverse=True)[:most])


def _namings(backbone: str, ours: Mapping[str, Shape]) -> list[_Naming]:
    """Ours, and those of others for the same network."""
    found = [_Naming(ours, lambda tensors: Renamed(dict(tensors)))]
    if backbone == "vgg16":
        found += [_Naming(_vgg_shapes(ours, normalised), _vgg) for normalised in (True, False)]
    elif backbone == "alexnet_torchvision":
        theirs = {f"features.{theirs}": f"convs.{number}" for number, theirs in enumerate((0, 3, 6, 8, 10))}
        found.append(_by_parts(theirs, ours))
    elif backbone.startswith("resnet"):
        found.append(_by_parts(CHILDREN, ours))
    elif is_timm(backbone):
        names = {name.removeprefix(NET): shape for name, shape in ours.items()}
        found.append(_Naming(names, lambda tensors: Renamed({NET + name: value for name, value in tensors.items()})))
        if "layer1.0.conv1.weight" in names:
            found.append(_by_parts({number: NET + part for number, part in CHILDREN.items()}, ours))
    return found


def _by_parts(theirs: Mapping[str, str], ours: Mapping[str, Shape]) -> _Naming:
    """A naming in which some parts of our names read otherwise."""
    names = {
        f"{part}{name.removeprefix(own)}": name
        for part, own in theirs.items()
        for name in ours
        if name.startswith(f"{own}.")
    }
    shapes = {name: ours[own] for name, own in names.items()}
    return _Naming(shapes, lambda tensors: Renamed({names.get(name, name): value for name, value in tensors.items()}))


def _places(tensors: Mapping[str, Tensor], namings: Sequence[_Naming]) -> list[_Place]:
    """Every prefix behind which names of the network stand, for every naming."""
    found = []
    for naming in namings:
        wanted = {name: shape for name, shape in naming.shapes.items() if not name.endswith(COUNTERS)}
        most = max(name.count(".") for name in wanted) + 1
        names: dict[str, set[str]] = {}
        for stored in tensors:
            parts = stored.rsplit(".", most)
            ends = [".".join(parts[start:]) for start in range(len(parts))]
            for end in (end for end in ends if end in wanted):
                names.setdefault(stored.removesuffix(end), set()).add(end)
        for prefix, own in names.items():
            fitting = sum(tuple(tensors[prefix + name].shape) == wanted[name] for name in own)
            found.append(_Place(prefix, naming, frozenset(own), fitting))
    return found


def _networks(places: Sequence[_Place]) -> list[_Place]:
    """The places that are filled best, one for each prefix; a prefix that fills nearly as much is another network."""
    ordered = sorted(places, key=lambda place: (-len(place.names), -place.fitting))
    best: dict[str, _Place] = {}
    for place in ordered:
        best.setdefault(place.prefix, place)
    first = ordered[0]
    return [
        place
        for place in best.values()
        if place.fitting >= NEARLY * first.fitting and len(place.names) >= NEARLY * len(first.names)
    ]


def _chosen(tensors: Mapping[str, Tensor], networks: Sequence[_Place]) -> _Place:
    """The network that the field takes of several."""
    ranks = _ranks([place.prefix for place in networks])
    first, *others = [place for place, rank in zip(networks, ranks, strict=True) if rank == min(ranks)]
    for other in others:
        for name in (name for name in first.naming.shapes if name in first.names & other.names):
            one, two = first.prefix + name, other.prefix + name
            if tensors[one].dtype != tensors[two].dtype or not torch.equal(tensors[one], tensors[two]):
                raise ForeignError(f"two networks ({one} and {two}): save the state_dict of one alone")
    return first


def _ranks(prefixes: Sequence[str]) -> list[tuple[bool, bool, bool]]:
    """How far each is from the network that is meant, by the words that its prefix has and the others have not."""
    ranks = []
    for own in _distinct([prefix.split(".")[:-1] for prefix in prefixes]):
        words = {word for part in own for word in part.lower().split("_")}
        ranks.append((bool(words & AVERAGED), own[-1:] != ["backbone"], not words & TRAINED))
    return ranks


def _distinct(rows: list[list[str]]) -> list[list[str]]:
    """Rows without what all of them begin and end with."""
    for _ in range(2):
        while len(rows) > 1 and all(rows) and len({row[0] for row in rows}) == 1:
            rows = [row[1:] for row in rows]
        rows = [row[::-1] for row in rows]
    return rows


def _taken(tensors: Mapping[str, Tensor], place: _Place) -> tuple[Renamed, list[str]]:
    """What stands behind the prefix in parts of the network, by our names, and all other names."""
    parts = {name.split(".")[0] for name in place.naming.shapes}
    taken: dict[str, Tensor] = {}
    left_out = []
    for stored, value in tensors.items():
        name = stored.removeprefix(place.prefix)
        if stored.startswith(place.prefix) and name.split(".")[0] in parts:
            taken[name] = value
        else:
            left_out.append(stored)
    return place.naming.convert(taken), left_out


def _other_networks(left_out: Sequence[str], place: _Place, networks: Sequence[_Place]) -> tuple[list[str], set[str]]:
    """Notes on the networks that were not taken, and the names of what they and their heads hold."""
    notes: list[str] = []
    told: set[str] = set()
    for other in networks:
        theirs = {name for name in left_out if name.startswith(other.prefix)} - told
        if place.prefix.startswith(other.prefix):  # everything would be theirs
            theirs = {name for name in theirs if name[len(other.prefix) :] in other.naming.shapes}
        if other is not place and theirs:
            taken, left = (
                f"{prefix}*" if prefix else "names without a prefix" for prefix in (place.prefix, other.prefix)
            )
            notes.append(f"two networks fit: {taken} was taken, {left} left out ({len(theirs)} tensors)")
            told |= theirs
    return notes, told


def _vgg_plan(normalised: bool) -> Iterable[tuple[int, str]]:
    """torchvision's number of each convolution, and our name of it; ReLU, pools and norms have numbers too."""
    number = 0
    for stage, blocks in enumerate(VGG16_STAGES):
        for index in range(len(blocks)):
            yield number, f"stages.{stage}.{index}"
            number += 3 if normalised else 2
        number += 1


def _vgg_shapes(ours: Mapping[str, Shape], normalised: bool) -> dict[str, Shape]:
    """Names of torchvision's vgg16_bn, or vgg16."""
    shapes: dict[str, Shape] = {}
    for number, name in _vgg_plan(normalised):
        shapes[f"features.{number}.weight"] = ours[f"{name}.conv.weight"]
        shapes[f"features.{number}.bias"] = ours[f"{name}.bn.bias"]
        if normalised:
            shapes |= {f"features.{number + 1}.{part}": ours[f"{name}.bn.{part}"] for part in BN_PARTS}
            shapes[f"features.{number + 1}.num_batches_tracked"] = ()
    return shapes


def _vgg(tensors: Mapping[str, Tensor]) -> Renamed:
    """torchvision's vgg16_bn, or vgg16 without batch normalisation; what neither has keeps its name."""
    found = Renamed()
    normalised = any(name.endswith("running_mean") for name in tensors)
    rest = dict(tensors)
    for number, name in _vgg_plan(normalised):
        conv, norm = f"features.{number}", f"features.{number + 1}"
        bias = rest.pop(f"{conv}.bias", None)
        if f"{conv}.weight" in rest:
            found.tensors[f"{name}.conv.weight"] = rest.pop(f"{conv}.weight")
        if normalised:
            rest.pop(f"{norm}.num_batches_tracked", None)
            found.tensors |= {f"{name}.bn.{p}": rest.pop(f"{norm}.{p}") for p in BN_PARTS if f"{norm}.{p}" in rest}
            _move_bias(found, f"{name}.bn.running_mean", bias)
        elif bias is not None:
            zeros, ones = torch.zeros_like(bias), torch.ones_like(bias)
            parts = zip(BN_PARTS, (ones, bias, zeros, ones), strict=True)
            found.tensors |= {f"{name}.bn.{part}": value for part, value in parts}
    found.tensors |= rest
    found.notes.append(
        "biases before batch normalisation were moved into its running means"
        if normalised
        else "a network without batch normalisation: each bias became a shift, and statistics start at 0 and 1"
    )
    return found


def _move_bias(found: Renamed, mean: str, bias: Tensor | None) -> None:
    """(x + b - mean) = (x - (mean - b)): the bias in front of a normalisation moves into its mean."""
    if bias is not None and mean in found.tensors and found.tensors[mean].shape == bias.shape:
        found.tensors[mean] = found.tensors[mean] - bias
