"""What a recipe reads must be there when it is queued, unless it can come later."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmtui.paths import Home
from mmtui.services import inputs, queue, recipes, runs

Invoke = Callable[..., Any]
FOLDER = "camvid_tiny_baseline"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((FOLDER,), "data.root is empty: add data.root=FOLDER, the one that holds images, labels"),
        ((FOLDER, "data.root=/no/such"), "data.root /no/such is no folder"),
        (("voc_vgg16_random_baseline",), "the one that holds JPEGImages"),
        (("shapes_baseline", "model.weights=/no/such.pth"), "model.weights /no/such.pth is no file"),
        (("shapes_colorization_mixmatch", "proxy.images=/no/such"), "proxy.images /no/such is no folder"),
        (("shapes_colorization_mixmatch", "proxy.kind=classification"), "proxy.images is empty"),
        (("voc_vgg16_ensemble", "data.root=/"), "evaluate.ensemble names no run: add evaluate.ensemble=[FOLDER]"),
    ],
)
def test_run_that_could_not_read_its_data_is_refused(
    home: Home, mmtui_: Invoke, words: tuple[str, ...], told: str
) -> None:
    found = mmtui_("run", *words, "-q")
    assert (found.code, found.out) == (2, "")
    assert told in found.err
    assert "it would not start here" in mmtui_("run", *words, "--dry-run").err
    assert not home.database.exists() or not runs.count_runs(home)


def test_one_bad_member_refuses_the_whole_sweep(home: Home, mmtui_: Invoke, tmp_path: Path) -> None:
    found = mmtui_("run", "shapes_baseline", f"model.weights='',{tmp_path}/none.pth", "--hold", "-q")
    assert found.code == 0, "a held run may wait for its files"
    refused = mmtui_("run", "shapes_baseline", f"model.weights='',{tmp_path}/none.pth", "-q")
    assert (refused.code, refused.out) == (2, "") and "queue it with --hold if it comes later" in refused.err
    assert sum(runs.count_runs(home).values()) == len(found.out.split())


@pytest.mark.processes
def test_what_comes_later_may_be_missing_but_not_what_is_never_right(home: Home, mmtui_: Invoke) -> None:
    first = mmtui_("run", "shapes_baseline", "--hold", "-q").out.strip()
    later = ("--after", first, "-q")
    assert mmtui_("run", "shapes_baseline", "model.weights=/made/by/the/first.pth", *later).code == 0
    assert mmtui_("run", FOLDER, *later).code == 2
    assert mmtui_("run", FOLDER, "--hold", "-q").code == 0
    assert mmtui_("run", "shapes_baseline", "evaluate.ensemble=['']", *later).code == 2


def test_recipes_say_what_they_lack(home: Home) -> None:
    views = {view.name: view for view in recipes.list_recipes(home)}
    assert views[FOLDER].lacks.startswith("data.root is empty")
    assert views["shapes_mixmatch"].lacks == ""


def test_recipes_of_the_user_may_have_a_shipped_base(home: Home) -> None:
    own = home.root / "recipes" / "mine.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("base: shapes_baseline\ndescription: mine\nseed: 3\n")
    views = {view.name: view for view in recipes.list_recipes(home)}
    assert (views["mine"].error, views["mine"].data) == ("", "shapes")
    assert {view.error for view in views.values()} == {""}


def test_edit_of_a_waiting_run_is_held_to_the_same(home: Home, mmtui_: Invoke) -> None:
    waiting, held = queue.enqueue(home, "shapes_baseline"), queue.enqueue(home, "shapes_baseline", hold=True)
    refused = mmtui_("edit", waiting, "model.weights=/no/such.pth")
    assert refused.code == 2 and "/no/such.pth is no file" in refused.err
    assert runs.get_run(home, waiting).config["model"]["weights"] == ""
    assert mmtui_("edit", held, "model.weights=/no/such.pth").code == 0


@pytest.mark.processes
def test_held_run_is_released_when_what_it_reads_is_there(home: Home, mmtui_: Invoke, tmp_path: Path) -> None:
    weights = tmp_path / "later.pth"
    held = queue.enqueue(home, "shapes_baseline", [f"model.weights={weights}"], hold=True)
    (after,) = queue.enqueue_all(
        home, "shapes_baseline", [[f"model.weights={weights}"]], queue.Terms(hold=True, after=(held,))
    )
    refused = mmtui_("release", held)
    assert refused.code == 2 and f"model.weights {weights} is no file" in refused.err
    assert f"mmtui edit {held} KEY=VALUE" in refused.err
    assert runs.get_run(home, held).row.state == "held", "nothing has happened"
    assert mmtui_("release", after).code == 0, "the file may come before it starts"
    assert mmtui_("hold", after).code == 0
    assert mmtui_("cancel", held).code == 0
    assert mmtui_("release", after).code == 2, "nothing is waited for any more: it would start at once"
    weights.touch()
    assert mmtui_("release", after).code == 0
    held = queue.enqueue(home, "shapes_baseline", [f"model.weights={weights}"], hold=True)
    assert mmtui_("release", held).code == 0
    assert runs.get_run(home, held).row.state == "queued"


def test_dry_run_says_nothing_of_what_may_come_later(home: Home, mmtui_: Invoke) -> None:
    words = ("run", "shapes_baseline", "model.weights=/no/such.pth", "--dry-run")
    assert "it would not start here" in mmtui_(*words).err
    for later in ("--hold", "--delay=2h"):
        assert mmtui_(*words, later).err == ""


def test_file_system_that_does_not_answer_is_asked_once(
    home: Home, mmtui_: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, asked = recipes.resolve("shapes_baseline", ["model.weights=/hangs.pth"], home), list[Path]()
    over = threading.Event()

    def hang(path: Path) -> bool:
        asked.append(path)
        over.wait()
        return False

    monkeypatch.setattr(inputs, "PATIENCE", 0.05)
    monkeypatch.setattr(Path, "is_file", hang)
    try:
        assert inputs.lacking(recipe) == [] and inputs.lacking(recipe) == []
    finally:
        over.set()
    assert len(asked) == 1
