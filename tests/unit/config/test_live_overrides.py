"""Overrides as they are typed again: the same recipe comes of those that count, and a shell reads them back."""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import RecipeFileError, load_recipe
from mmtui.services.overrides import as_typed, live

BASES = {
    "shapes": "data: {kind: shapes, height: 64, train: 9}\nsegment: {steps: 5, crop: 32}\nmatch: {steps: 3}\n",
    "folder": "data: {kind: folder, root: /x, label_map: {255: 1, 3: 0}}\nsegment: {steps: 5}\n"
    "reference: {miou: 3, per_class: {sky: 4}}\n",
}
TEXTS = (
    *("seed=1", "seed=2", "data.kind=folder", "data.kind=shapes", "data.kind=voc", "data.root=/y", "data.height=48"),
    *("data.label_map={255: 0}", "data.label_map.255=1", "data.label_map.7=0", "data.label_map=null"),
    *("match=null", "match.steps=4", "match.images=5", "match.optim.lr=0.5", "reference.per_class.sky=9"),
    *("reference=null", "reference.per_class=null", "segment.crop=48", "data.scale=0.5"),
)


@given(st.sampled_from(sorted(BASES)), st.lists(st.sampled_from(TEXTS), max_size=9))
def test_the_recipe_is_the_same_without_overrides_that_came_to_nothing(base: str, texts: list[str]) -> None:
    file = _file(base)
    try:
        whole = load_recipe(file, texts)
    except RecipeFileError:
        return
    kept = live(texts)
    assert load_recipe(file, kept) == whole, (texts, kept)
    assert kept == live(kept) and tuple(shlex.split(as_typed(texts))) == kept


def _file(base: str) -> Path:
    file = Path(tempfile.gettempdir()) / f"mmtui-live-{base}.yaml"
    file.write_text(BASES[base])
    return file


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["seed=1", "segment.steps=2", "seed=2"], ["segment.steps=2", "seed=2"]),
        (["match.steps=2", "match=null"], ["match=null"]),
        (["match=null", "match.steps=2"], ["match=null", "match.steps=2"]),
        (["data.label_map={255: 1}", "data.label_map.3=0"], ["data.label_map={255: 1}", "data.label_map.3=0"]),
        (["data.label_map.3=0", "data.label_map=null"], ["data.label_map=null"]),
        (["data.height=8", "data.data_seed=1", "data.kind=folder"], ["data.data_seed=1", "data.kind=folder"]),
        (["segment.steps=2", "segment.steps_more=3"], ["segment.steps=2", "segment.steps_more=3"]),
    ],
)
def test_what_a_later_override_makes_void_is_left_out(texts: list[str], expected: list[str]) -> None:
    assert list(live(texts)) == expected


def test_a_shell_reads_what_is_typed() -> None:
    texts = ["data.label_map={255: thing, 0: void}", "match.patch_size=[16,48]", "description=it's $HOME; `x` *", "a=b"]
    done = subprocess.run(["sh", "-c", f"printf '%s\\n' {as_typed(texts)}"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == texts
