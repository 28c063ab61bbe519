"""Names of backbones: our own, and those of timm, which are looked up in its files without loading it."""

from __future__ import annotations

import difflib
import importlib.metadata
import importlib.util
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, ValidationInfo

STORED = "stored"
"""Key of a validation's context: the recipe is one that a run has kept."""
OwnBackbone = Literal["tiny_vgg", "vgg16", "alexnet", "alexnet_jigsaw", "alexnet_torchvision", "resnet18", "resnet50"]
OWN: tuple[str, ...] = get_args(OwnBackbone)
TIMM = "timm/"
TIMM_WEIGHTS = "timm"
"""The value of ``model.weights`` that is no file (``./timm`` is one): timm's own weights."""
FORM = re.compile(r"timm/[A-Za-z0-9_]+(\.[A-Za-z0-9_-]+)?")
REGISTERED = re.compile(r"^@register_model\s+def (\w+)\(", re.MULTILINE)
"""How timm's files say that a function builds a network of the function's name."""
INSTALL = "pip install 'mmtui[timm]'"


@dataclass(frozen=True)
class Written:
    """How text of a certain form is written, in lists of what a key takes."""

    form: str


def is_timm(backbone: str) -> bool:
    """Whether a backbone is one of timm's."""
    return backbone.startswith(TIMM)


def timm_lacks() -> str:
    """What is missing for timm's backbones, as a sentence; "" if nothing is."""
    missing = [name for name in ("timm", "torchvision") if importlib.util.find_spec(name) is None]
    are = "are" if len(missing) > 1 else "is"
    return f"needs {' and '.join(missing)}, which {are} not installed: {INSTALL}" if missing else ""


def timm_used(backbone: str) -> dict[str, str]:
    """``{"timm": RELEASE}``, the installed one, where the backbone is one of timm's; else {}."""
    if not is_timm(backbone) or timm_lacks():
        return {}
    return {"timm": importlib.metadata.version("timm")}


@lru_cache(maxsize=1)
def timm_names() -> frozenset[str]:
    """Names of the networks that the installed timm builds, read from its files; empty where there is none."""
    spec = importlib.util.find_spec("timm")
    if spec is None or spec.origin is None:
        return frozenset()
    files = (Path(spec.origin).parent / "models").rglob("*.py")
    return frozenset(name for file in files for name in REGISTERED.findall(file.read_text("utf-8", "replace")))


def unknown_timm_name(backbone: str) -> str:
    """What is wrong with ``timm/NAME``, with the names nearest to it; "" if nothing is known to be wrong.

    A tag of weights behind a dot is not looked at. Where timm is not installed any name may be right.
    """
    names, name = timm_names(), backbone.removeprefix(TIMM).partition(".")[0]
    if not names or name in names:
        return ""
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5) or sorted(names)[:3]
    return f"timm has no {name}: write one of its names, such as {', '.join(TIMM + one for one in near)}"


def _known(value: object, info: ValidationInfo) -> object:
    """The name of a backbone, as it is."""
    if value in OWN:
        return value
    if not isinstance(value, str) or not FORM.fullmatch(value):
        shown = "null" if value is None else ascii(value) if isinstance(value, str) else str(value)
        raise ValueError(f"{shown} is not allowed; write {' | '.join(OWN)} | timm/NAME")
    problem = "" if (info.context or {}).get(STORED) else unknown_timm_name(value)
    if problem:
        raise ValueError(problem)
    return value


Backbone = Annotated[OwnBackbone | Annotated[str, Written("timm/NAME")], BeforeValidator(_known)]
"""A backbone's name in a recipe."""


FREEZE_WORDS = ("none", "backbone")


def _freeze(value: object) -> object:
    """A word or a number of layers, as it is."""
    if value in FREEZE_WORDS or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    shown = "null" if value is None else ascii(value) if isinstance(value, str) else str(value).lower()
    raise ValueError(f"{shown} is not allowed; write {' | '.join(FREEZE_WORDS)} | number of layers, from 1")


Freeze = Annotated[Literal["none", "backbone"] | Annotated[int, Written("number of layers")], BeforeValidator(_freeze)]
"""What of a backbone is not trained."""
