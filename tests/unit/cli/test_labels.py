"""Masks are looked at when a run is queued: what would end it is refused, what makes its score doubtful is told."""

from __future__ import annotations

import json
import random
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.config.schema import FolderData
from engine.data.check import summarise
from engine.data.pairs import Pair
from engine.look import _spread, look
from mmtui.paths import Home
from mmtui.services import labels, recipes, run_check

Invoke = Callable[..., Any]
RUN = ("run", "shapes_mixmatch", "data.kind=folder")


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "_answers", {})


def data_set(root: Path, values: tuple[int, ...], count: int = 3, classes: str = "sky\nroad\n") -> Path:
    for split in ("train", "val"):
        for number in range(count):
            picture = np.random.default_rng(number + 50 * (split == "val")).integers(0, 255, (16, 16, 3), np.uint8)
            mask = np.repeat(np.resize(np.array(values, np.uint8), 16)[None], 16, axis=0)
            for kind, pixels in (("images", picture), ("labels", mask)):
                (root / kind / split).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(root / kind / split / f"{split}{number}.png")
    (root / "classes.txt").write_text(classes)
    return root


def test_binary_masks_are_refused_and_the_remedy_works_as_it_stands_there(mmtui_: Invoke, tmp_path: Path) -> None:
    root = data_set(tmp_path / "data", (0, 255))
    outcome = mmtui_(*RUN, f"data.root={root}")
    assert outcome.code == 2 and "every labelled pixel of the train split is of one class, 0 sky" in outcome.err
    remedy = re.search(r"'(data\.label_map=\{.*?\})'", outcome.err)
    assert remedy is not None
    assert mmtui_(*RUN, f"data.root={root}", *shlex.split(remedy[0]), "--hold").code == 0
    assert mmtui_(*RUN, f"data.root={root}", remedy[1]).code == 0
    assert mmtui_("ls", "--json").json()["runs"][0]["state"] in ("queued", "starting", "running")
    assert mmtui_(*RUN, f"data.root={root}", "--hold").code == 0, "what is held may change yet"


@pytest.mark.parametrize(
    "override, told",
    [
        ("segment.class_weights={lake: 2}", "segment.class_weights names 'lake', which is no class of the data set"),
        ("match.background=2", "match.background 2 is no class of the data set, which has 0 to 1"),
    ],
)
def test_a_class_that_the_data_do_not_have_is_refused_when_the_run_is_queued(
    mmtui_: Invoke, tmp_path: Path, override: str, told: str
) -> None:
    root = data_set(tmp_path / "data", (0, 1))
    outcome = mmtui_(*RUN, f"data.root={root}", override)
    assert outcome.code == 2 and told in outcome.err
    assert mmtui_("ls", "--json").json()["runs"] == []
    assert mmtui_(*RUN, f"data.root={root}", override, "--hold").code == 0, "what is held may change yet"


def test_a_class_that_drawn_data_do_not_have_is_refused_when_the_run_is_queued(mmtui_: Invoke) -> None:
    outcome = mmtui_("run", "shapes_baseline", "segment.class_weights.lake=2")
    assert outcome.code == 2 and "'lake', which is no class of the data set: write names of background" in outcome.err


@pytest.mark.parametrize("values, words", [
    ((255,), "every pixel of the train split is void (255)"), ((1,), "of one class, 1 road"),
    ((0, 1, 7), "holds the value 7"), ((1, 2), "classes look counted from 1"),
])  # fmt: skip
def test_masks_of_which_nothing_can_come_are_refused(
    mmtui_: Invoke, tmp_path: Path, values: tuple[int, ...], words: str
) -> None:
    outcome = mmtui_(*RUN, f"data.root={data_set(tmp_path / 'data', values)}")
    assert outcome.code == 2 and words in outcome.err and "Traceback" not in outcome.err
    assert mmtui_("ls", "--json").json()["runs"] == []


def test_masks_that_lost_something_and_masks_that_are_missing_are_refused(mmtui_: Invoke, tmp_path: Path) -> None:
    root = data_set(tmp_path / "data", (0, 1))
    mask = root / "labels" / "train" / "train1.png"
    Image.open(mask).save(mask, "JPEG")
    assert "train1.png" in mmtui_(*RUN, f"data.root={root}").err
    mask.unlink()
    labels._answers.clear()
    outcome = mmtui_(*RUN, f"data.root={root}")
    assert outcome.code == 2 and "train1.png has no mask" in outcome.err


def test_doubts_are_told_when_a_run_is_queued_and_on_the_form(home: Home, mmtui_: Invoke, tmp_path: Path) -> None:
    root = data_set(tmp_path / "data", (0, 1, 255, 255, 255), classes="sky\nroad\ncar\n")
    outcome = mmtui_(*RUN, f"data.root={root}")
    doubt = "no pixel of the train split is of class 2 car: it cannot be learned"
    assert outcome.code == 0 and f"warning: doubtful: {doubt}" in outcome.err
    assert "% of the pixels of the val split are void" in outcome.err
    checked = run_check.check_run(home, RUN[1], [RUN[2], f"data.root={root}"], [])
    assert checked.good and f"doubtful: {doubt} (and 2 more)" in checked.verdict
    sound = data_set(tmp_path / "sound", (0, 1))
    assert "doubtful" not in run_check.check_run(home, RUN[1], [RUN[2], f"data.root={sound}"], []).verdict


def test_look_finds_what_a_check_of_all_masks_finds(tmp_path: Path) -> None:
    root = data_set(tmp_path, (0, 1, 1, 255), 5, "sky\nroad\ncar\n")
    config = FolderData(root=str(root))
    assert look(config, ("train", "val")) == ["no pixel of the train split is of class 2 car: it cannot be learned"]
    assert summarise(config).splits["train"].pixels[2] == 0
    assert look(config, ()) == look(config, ("val",)) == []


def test_look_that_has_no_time_says_how_much_it_saw_and_refuses_nothing(tmp_path: Path) -> None:
    config = FolderData(root=str(data_set(tmp_path, (0, 255), 9)))
    told = look(config, ("train",), seconds=-1.0)
    assert told == ["no pixel of the train split (1 of 9 images looked at) is of class 1 road: it cannot be learned"]


def test_look_that_has_no_time_to_compare_pictures_tells_the_rest(tmp_path: Path) -> None:
    config = FolderData(root=str(data_set(tmp_path, (0, 1), 3, "sky\nroad\ncar\n")), val_split="train")
    doubt = "no pixel of the train split is of class 2 car: it cannot be learned"
    assert look(config, ("train", "val"))[0] == doubt and "3 of 3 pictures" in look(config, ("train", "val"))[1]
    late = look(config, ("train", "val"), seconds=-1.0)
    assert len(late) == 1 and late[0].startswith("no pixel of the train split (1 of 3 images looked at)")


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 8, 9, 100])
def test_masks_are_looked_at_spread_over_the_split_and_each_once(count: int) -> None:
    pairs = [Pair(str(number), Path(), Path()) for number in range(count)]
    order = [int(pair.name) for pair in _spread(pairs)]
    assert sorted(order) == list(range(count))
    if count == 100:
        first = sorted(order[:8])
        assert max(b - a for a, b in zip(first, [*first[1:], count], strict=True)) <= 40


def test_look_loads_no_torch(tmp_path: Path) -> None:
    program = "import sys, engine.look; sys.exit('torch' in sys.modules or 'mmtui' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_equal_data_are_looked_at_once_and_no_more_than_a_few_of_a_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def answer(text: str) -> labels.Look:
        asked.append(text)
        return labels.Look("", (text,))

    monkeypatch.setattr(labels, "_ask", answer)
    root = data_set(tmp_path, (0, 1))
    for number in range(30):
        one = recipes.resolve("shapes_mixmatch", ["data.kind=folder", f"data.root={root}", f"seed={number}"])
        assert labels.look(one).doubts
    assert len(asked) == 1
    for number in range(1, 31):
        labels.look(
            recipes.resolve("shapes_mixmatch", ["data.kind=folder", f"data.root={root}", f"data.max_val={number}"])
        )
    assert len(asked) == labels.MOST and len(set(asked)) == len(asked)
    assert json.loads(asked[0])["splits"] == ["train", "val"]


@pytest.mark.parametrize("answer", ["", "[]", "{}", '{"problem": 5, "doubts": 7}', "\\ud800"])
def test_engine_that_answers_nonsense_or_nothing_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\ncat > /dev/null\nprintf '%s' '{answer}'\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    one = recipes.resolve("shapes_mixmatch", ["data.kind=folder", f"data.root={data_set(tmp_path / 'd', (255,))}"])
    assert labels.look(one) == labels.Look()


def test_package_where_the_person_stands_is_not_what_is_asked(
    mmtui_: Invoke, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``python -m`` would take it first."""
    from mmtui.services import commands

    for name in ("engine", "mmtui"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    root = data_set(tmp_path / "data", (255,))
    monkeypatch.chdir(tmp_path)
    one = recipes.resolve("shapes_mixmatch", ["data.kind=folder", f"data.root={root}"])
    assert "void" in labels.look(one).problem
    assert commands.run(home, "ls", 80)[-1].startswith("no runs yet")
    assert not (tmp_path / "ran").exists()


def test_random_masks_are_judged_as_the_run_would(tmp_path: Path) -> None:
    """What the look refuses, the check of all data has as a problem, and the other way round."""
    chosen = random.Random(5)
    for number in range(12):
        values = tuple(chosen.sample([0, 1, 2, 255], chosen.randint(1, 3)))
        config = FolderData(root=str(data_set(tmp_path / str(number), values, 2, "a\nb\nc\n")))
        problems = summarise(config).problems
        try:
            look(config, ("train", "val"))
            assert not problems, values
        except Exception as error:
            assert str(error) in problems, (values, error, problems)


@pytest.mark.parametrize(
    ("key", "named"),
    [("segment.keep_best=class:tree", "class:tree names no class"), ("segment.class_weights={tree: 2}", "'tree'")],
)
@pytest.mark.parametrize("kind", ["folder", "shapes"])
def test_classes_that_the_data_lack_are_refused_when_a_run_is_queued(
    mmtui_: Invoke, tmp_path: Path, kind: str, key: str, named: str
) -> None:
    own = [f"data.root={data_set(tmp_path / 'data', (0, 1))}"] if kind == "folder" else []
    words = ("run", "shapes_baseline", f"data.kind={kind}", *own, "segment.eval_every=50")
    outcome = mmtui_(*words, key)
    assert outcome.code == 2 and named in outcome.err and ("sky, road" if own else "background, disc") in outcome.err
    assert ("--hold" in outcome.err) == bool(own), "shapes have no other classes later"
    known = key.replace("tree", "road" if own else "disc")
    assert mmtui_(*words, known, "--hold", "-q").code == 0
    assert mmtui_(*words, known, "-q").code == 0
