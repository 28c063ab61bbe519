"""Write a recipe for every row of the paper's tables: ``python docs/make_paper_recipes.py``.

Settings are those of the reference release, figures those of the authors' slides (docs/method.md). A test checks that
the files are what this writes.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).resolve().parents[1] / "recipes"
VOC = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
TABLE_1, TABLE_2, TABLE_3 = (f"Zhan et al., AAAI 2018, table {number}, authors' slides" for number in (1, 2, 3))
SIZES = "Zhan et al., AAAI 2018, graph-size ablation, read off the authors' plot"
# Table 2: the 20 classes of VOC 2012 val, VGG-16; the means count the background too.
PER_CLASS = {
    "imagenet_baseline": "81.7 37.4 73.3 55.8 59.6 82.4 74.7 82.4 30.8 60.3 46.1 71.4 65.3 72.6 76.7 49.7 70.6 34.2"
    " 72.7 60.2",
    "colorization_baseline": "73.6 28.5 67.5 55.5 50.2 78.3 66.1 78.3 26.8 60.8 50.6 70.6 64.9 62.2 73.5 38.2 66.8"
    " 38.8 68.1 55.1",
    "colorization_mixmatch": "83.1 37.0 69.6 56.1 62.9 84.4 76.4 82.8 33.4 61.5 44.7 67.3 68.5 68.0 78.5 42.2 72.7"
    " 37.2 75.7 58.6",
    "ensemble": "84.5 39.4 76.3 60.3 64.6 85.4 77.7 84.1 35.6 63.6 50.4 70.6 72.0 73.6 80.1 50.2 73.7 37.6 77.8 66.6",
}
ENSEMBLE = "voc_vgg16_ensemble"
REFERENCE: dict[str, tuple[float, str]] = {
    "voc_alexnet_random_baseline": (19.8, f"{TABLE_3}; table 1 has 23.5"),
    "voc_alexnet_random_mixmatch": (43.6, TABLE_3),
    "voc_alexnet_jigsaw_baseline": (36.5, TABLE_3),
    "voc_alexnet_jigsaw_mixmatch": (41.2, TABLE_3),
    "voc_alexnet_colorization_baseline": (38.4, TABLE_3),
    "voc_alexnet_colorization_mixmatch": (42.8, TABLE_3),
    "voc_alexnet_colorization_triplets": (40.9, TABLE_1),
    "voc_alexnet_imagenet_baseline": (48.0, TABLE_1),
    "voc_vgg16_random_baseline": (35.0, TABLE_3),
    "voc_vgg16_random_mixmatch": (56.7, TABLE_3),
    "voc_vgg16_colorization_baseline": (60.2, TABLE_2),
    "voc_vgg16_colorization_mixmatch": (64.5, f"{TABLE_2}; 64.3 on the test set"),
    "voc_vgg16_imagenet_baseline": (64.2, TABLE_2),
    ENSEMBLE: (67.4, TABLE_2),
    "cityscapes_vgg16_random_baseline": (42.5, TABLE_3),
    "cityscapes_vgg16_random_mixmatch": (49.1, TABLE_3),
    "cityscapes_vgg16_colorization_baseline": (57.5, TABLE_3),
    "cityscapes_vgg16_colorization_mixmatch": (66.4, f"{TABLE_3}; 65.6 on the test set"),
    "cityscapes_vgg16_imagenet_baseline": (67.9, TABLE_3),
    "voc_alexnet_colorization_graph100": (42.0, SIZES),
    "voc_alexnet_colorization_graph200": (42.4, SIZES),
    "voc_alexnet_colorization_graph400": (42.8, SIZES),
}
OWN_TRAINING = {
    "colorization": "10,000 steps of 32 images, 320,000 draws, from the {images} unless proxy.images is set; the"
    " published colorization saw 3.7 million images.",
    "jigsaw": "10,000 steps of 128 images, 1.28 million draws, from the {images} unless proxy.images is set.",
    "imagenet": "10,000 steps of 128 images, 1.28 million draws: about one pass over ImageNet, which proxy.images has"
    " to name.",
}
"""How long our own pre-training is."""
COMPARABLE = (
    "Published numbers are of fully trained weights: compare with them after proxy=null model.weights=FILE (the"
    " authors' or others), or with proxy.images and proxy.steps for a full training."
)
INPUT_OF_RANDOM = (
    "The release's colour networks read 0 to 255 minus the mean: model.input=rgb255 does so. The default is rgb (0 to 1"
    " minus the mean, over the deviation), as the learning rates are untested for random weights with rgb255."
)
INPUT_OF_WEIGHTS = (
    "The release's colour networks read 0 to 255 minus the mean: model.input=rgb255 does so, for weights imported from"
    " Caffe, the release's or others (proxy=null model.weights=FILE). A proxy stage needs rgb (0 to 1 minus the mean,"
    " over the deviation): the learning rates are untested for random weights with rgb255."
)
TRIPLETS = (
    "Our reading of the paper's ablation, whose code the release lacks. Its slides say that random triplets leave some"
    " nodes unused; here every node is an anchor exactly once."
)
PRE_TRAINING = {
    "random": "random initialisation",
    "colorization": "colorization",
    "jigsaw": "jigsaw puzzles",
    "imagenet": "supervised classification",
}
TUNING = {
    "baseline": "",
    "mixmatch": "mix-and-match on the class-wise connected graph",
    "triplets": "mix-and-match on random triplets (ablation)",
    "graph100": "mix-and-match, graphs of 100 nodes (ablation)",
    "graph200": "mix-and-match, graphs of 200 nodes (ablation)",
    "graph400": "mix-and-match, graphs of 400 nodes (ablation)",
}
IMAGES = {"voc": "10,582 training images of VOC", "cityscapes": "2,975 training images of Cityscapes"}
"""Those that a proxy task draws from where ``proxy.images`` is empty."""
DATA = {"voc": "PASCAL VOC 2012", "cityscapes": "Cityscapes"}
NETWORK = {"vgg16": "VGG-16", "alexnet": "AlexNet"}


def rows() -> Iterator[tuple[str, str, str, str]]:
    """(data set, network, pre-training, tuning) of every recipe."""
    for network in ("vgg16", "alexnet"):
        for start in PRE_TRAINING:
            for tuning in ("baseline", "mixmatch", "triplets"):
                yield "voc", network, start, tuning
    for start in ("random", "colorization", "imagenet"):
        for tuning in ("baseline", "mixmatch"):
            yield "cityscapes", "vgg16", start, tuning
    for tuning in ("graph100", "graph200", "graph400"):
        yield "voc", "alexnet", "colorization", tuning


def recipe(data: str, network: str, start: str, tuning: str) -> dict[str, Any]:
    """The keys of one recipe; what is left out has the published value as its default."""
    arrow = [f"{DATA[data]}, {NETWORK[network]}: {PRE_TRAINING[start]}", TUNING[tuning], "fine-tuning"]
    content: dict[str, Any] = {
        "description": " -> ".join(part for part in arrow if part),
        "data": {"kind": data, "root": ""},
        "model": _model(network, start),
    }
    if start != "random":
        content["proxy"] = _proxy(start)
    if tuning != "baseline":
        content["match"] = _match(data, network, tuning)
    content["segment"] = _segment(network)
    content["evaluate"] = {"protocol": "fit" if data == "voc" else "windows", "stride": 2 if network == "vgg16" else 1}
    content["evaluate"]["batch_size"] = 4
    content["runtime"] = {"log_every": 20, "graph_every": 20}
    name = f"{data}_{network}_{start}_{tuning}"
    if name in REFERENCE:
        content["reference"] = _reference(name, f"{start}_{tuning}" if (data, network) == ("voc", "vgg16") else "")
    return content


def ensemble() -> dict[str, Any]:
    """The last row of table 2: M&M's network together with that of another run, which has to be named."""
    return {
        "base": "voc_vgg16_colorization_mixmatch",
        "description": "PASCAL VOC 2012, VGG-16: mix-and-match after colorization, evaluated together with a run of"
        " voc_vgg16_imagenet_baseline; set evaluate.ensemble to its folder",
        "evaluate": {"ensemble": [""]},
        "reference": _reference(ENSEMBLE, "ensemble"),
    }


def _reference(name: str, classes: str) -> dict[str, Any]:
    miou, source = REFERENCE[name]
    found: dict[str, Any] = {"miou": miou, "source": source}
    if classes in PER_CLASS:
        found["per_class"] = dict(zip(VOC, map(float, PER_CLASS[classes].split()), strict=True))
    return found


def _model(network: str, start: str) -> dict[str, Any]:
    colour = "gray" if start == "colorization" else "rgb"
    if network == "vgg16":
        return {"backbone": "vgg16", "input": colour}
    variant = "alexnet_jigsaw" if start == "jigsaw" else "alexnet"
    return {"backbone": variant, "input": colour, "head": "fcn32", "extra_channels": 0}


def _proxy(start: str) -> dict[str, Any]:
    """Our own pre-training, far shorter than that of the paper's weights, which are those of others (``_comments``)."""
    if start == "colorization":
        return {"kind": "colorization", "images": ""}
    if start == "jigsaw":
        return {"kind": "jigsaw", "images": "", "crop": 225, "permutations": 1000, "batch_size": 128}
    return {"kind": "classification", "images": "", "crop": 224, "batch_size": 128}


def _match(data: str, network: str, tuning: str) -> dict[str, Any]:
    match: dict[str, Any] = {"steps": 8000}
    if network == "vgg16":
        match |= {"images": 16, "patches_per_image": 9, "graphs": 4}
    else:
        nodes = int(tuning.removeprefix("graph")) if tuning.startswith("graph") else 400
        match |= {"images": nodes // 10, "patches_per_image": 10}
    if data == "cityscapes":
        # Class 0 is road there, no background.
        match |= {"patch_size": [128, 128], "background": None}
    if tuning == "triplets":
        match["strategy"] = "random"
    return match


def _segment(network: str) -> dict[str, Any]:
    shared = {"steps": 42000, "crop": 512}
    if network == "vgg16":
        return {**shared, "batch_size": 6, "accumulate": 8, "pixels": 256, "pixel_margin": 96}
    return {**shared, "batch_size": 16, "accumulate": 4}


def _comments(data: str, start: str, tuning: str) -> dict[str, str]:
    """What a recipe says above a key of its own."""
    found = {}
    if start != "colorization":
        found["model"] = INPUT_OF_RANDOM if start == "random" else INPUT_OF_WEIGHTS
    if start in OWN_TRAINING:
        found["proxy"] = f"{OWN_TRAINING[start].format(images=IMAGES[data])} {COMPARABLE}"
    if tuning == "triplets":
        found["match"] = TRIPLETS
    return found


def _commented(text: str, comments: dict[str, str]) -> str:
    """The recipe with each comment above the line of its key."""
    lines = []
    for line in text.splitlines():
        words = comments.get(line.partition(":")[0], "")
        lines += [f"# {part}" for part in textwrap.wrap(words, 118)]
        lines.append(line)
    return "\n".join(lines) + "\n"


def texts() -> dict[str, str]:
    """File name and text of every recipe."""
    contents = {"_".join(row): recipe(*row) for row in rows()} | {ENSEMBLE: ensemble()}
    comments = {"_".join(row): _comments(row[0], row[2], row[3]) for row in rows()}
    comments[ENSEMBLE] = {
        "base": "Its base and voc_vgg16_imagenet_baseline pre-train for 10,000 steps, far less than the published"
        " weights were trained: their files say how the numbers become comparable."
    }
    return {
        f"{name}.yaml": _commented(
            yaml.safe_dump(content, sort_keys=False, width=120, default_flow_style=None), comments[name]
        )
        for name, content in contents.items()
    }


if __name__ == "__main__":
    for file_name, content in texts().items():
        (FOLDER / file_name).write_text(content)
    sys.stdout.write(f"{len(texts())} recipes written\n")
