"""The dialog for new runs, driven by Textual's Pilot on a real store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, Static

from mmtui.domain.states import RunEvent
from mmtui.paths import Home
from mmtui.services import queue, recipes, runs
from mmtui.store.db import Database
from mmtui.store.runs import NewRun as StoredRun
from mmtui.store.runs import begin_attempt, insert_run, transition
from mmtui.tui.app import MmtuiApp
from mmtui.tui.screens.new_run import NewRunDialog
from mmtui.tui.screens.run_request import NewRun
from mmtui.tui.screens.runs import RunsScreen
from mmtui.tui.widgets.lines import LinesPanel
from mmtui.tui.widgets.recipe_panes import following
from tests.tui.test_terminal import Terminal
from tests.waiting import until_async

SIZES = [(80, 24), (160, 48)]


@asynccontextmanager
async def opened(
    home: Home, size: tuple[int, int] = (100, 30), like: NewRun | None = None, title: str = "", ascii_only: bool = False
) -> AsyncIterator[tuple[Pilot[int], NewRunDialog]]:
    """The program with the dialog open and all recipes read."""
    app = MmtuiApp(home, ascii_only=ascii_only)
    async with app.run_test(size=size) as pilot:
        await until_async(lambda: app.runs_screen.is_mounted)
        if like is None and not title:
            await pilot.press("n")
        else:
            await app.push_screen(NewRunDialog(home, like, title or "New run"))
        await until_async(lambda: isinstance(app.screen, NewRunDialog) and app.screen.checker.ready)
        dialog = app.screen
        assert isinstance(dialog, NewRunDialog)
        await until_async(lambda: len(dialog.recipe_list.views) == len(dialog.files))
        yield pilot, dialog


async def test_recipe_without_its_data_is_told_and_not_queued(home: Home, tmp_path: Path) -> None:
    async with opened(home, (160, 48)) as (pilot, dialog):
        assert dialog.recipe_list.key == "shapes_mixmatch", "a recipe that needs no data comes first"
        dialog.recipe_list.go_to("camvid_tiny_baseline")
        assert dialog.recipe_list.row("camvid_tiny_baseline", 80)[0][1] == "dim"
        assert dialog.recipe_list.row("shapes_mixmatch", 80)[0][1] == ""
        await dialog.check()
        assert verdict(dialog).startswith("data.root is empty")
        assert "camvid_tiny_baseline" in dialog.preview.plain_text(), "what lacks hides nothing of the recipe"
        for local in ("--launcher local", "--launcher=local"):
            dialog.query_one("#options", Input).value = local
            await pilot.pause()
            assert verdict(dialog).startswith("data.root is empty")
        dialog.query_one("#options", Input).value = ""
        await pilot.press("ctrl+g")
        assert isinstance(pilot.app.screen, NewRunDialog), "it stays open"
        dialog.query_one("#options", Input).value = "--hold"
        await until_async(lambda: verdict(dialog).startswith("ok:"))
        dialog.query_one("#options", Input).value = ""
        dialog.query_one("#overrides", Input).value = f"data.root={tmp_path}"
        await until_async(lambda: verdict(dialog).startswith("ok:"))


def verdict(dialog: NewRunDialog) -> str:
    return str(dialog.query_one("#verdict", Static).render())


def hints(dialog: NewRunDialog) -> str:
    return str(dialog.query_one("#keys", Static).render())


def line(panel: LinesPanel, words: str) -> str:
    """The first line that has the words."""
    return next((one for one in panel.plain_text().splitlines() if words in one), "")


async def choose(pilot: Pilot[int], name: str = "shapes_mixmatch") -> None:
    """Put the cursor on a recipe and go to its form."""
    await pilot.press(*name, "tab")


async def find(pilot: Pilot[int], text: str) -> None:
    """Put the cursor of the form on a key."""
    await pilot.press("slash", *text)


async def test_field_is_found_changed_refused_when_wrong_swept_and_queued(home: Home) -> None:
    async with opened(home) as (pilot, dialog):
        await choose(pilot)
        await find(pilot, "segment.steps")
        form = dialog.form_list
        assert form.key == "segment.steps" and dialog.focused is form
        assert "+ segment.steps" in line(form, "segment.steps"), "the recipe has set it"
        assert "takes integer >= 1; default 42000; recipe 200" in form.plain_text()

        await pilot.press("enter", "end", "x")
        await until_async(lambda: "'200x' is not allowed; write int >= 1" in verdict(dialog))
        assert "! segment.steps" in line(form, "segment.steps")
        await pilot.press("enter")
        assert dialog.focused is not None and dialog.focused.id == "edit", "a wrong value is not taken"
        assert not await dialog.check()

        await pilot.press("backspace", "backspace", "backspace", "backspace", "5")
        await until_async(lambda: verdict(dialog).startswith("ok: match 200 steps, segment 5 steps"))
        assert dialog.overrides == ("segment.steps=5",)
        await pilot.press("enter")
        assert dialog.focused is form
        assert "* segment.steps" in line(form, "segment.steps")
        assert "changed by you" in form.plain_text()

        await pilot.press("escape", *"/seed", "enter", "home", "ctrl+k", *"0..1", "enter")
        await until_async(lambda: verdict(dialog).startswith("ok: 2 runs, each match 200 steps, segment 5 steps"))
        await pilot.press("tab")
        preview = dialog.preview
        assert dialog.focused is preview
        assert preview.plain_text().startswith("2 runs; the first of them is shown")
        assert "seed = 0, 1" in line(preview, "seed =")
        await pilot.press("G", "k")
        assert not line(preview, "# sweep"), "scrolled away"
        await pilot.press("g")
        assert line(preview, "# sweep: 0, 1").startswith("* seed: 0")

        dialog.query_one("#options", Input).value = "--hold"
        await pilot.press("enter")
        await until_async(lambda: len(runs.list_runs(home)) == 2, 30)
        configs = [runs.get_run(home, run_id).config for run_id in ("1", "2")]
        assert [config["segment"]["steps"] for config in configs] == [5, 5]
        assert [config["seed"] for config in configs] == [0, 1]
        assert runs.get_run(home, "2").overrides == ("segment.steps=5", "seed=1")


async def test_line_and_form_are_views_of_the_same_overrides(home: Home) -> None:
    async with opened(home) as (pilot, dialog):
        await choose(pilot)
        typed = dialog.query_one("#overrides", Input)
        typed.value = "match.margin=3 segment.stepz=1"
        await until_async(lambda: "stepz" in verdict(dialog))
        assert "3.0" in line(dialog.form_list, "match.margin") or dialog.form_list.fields["match.margin"].text == "3"
        assert not await dialog.check()
        typed.value = "match.margin=3"
        await until_async(lambda: verdict(dialog).startswith("ok"))
        await find(pilot, "match.margin")
        assert "* match.margin" in line(dialog.form_list, "match.margin")
        await pilot.press("delete")
        assert typed.value == "" and dialog.form_list.fields["match.margin"].changed_by == ""

        await pilot.press("escape")
        await find(pilot, "patch_size")
        await pilot.press("enter", "home", "ctrl+k", *"[8, 32]", "enter")
        assert typed.value == "'match.patch_size=[8, 32]'"
        assert dialog.overrides == ("match.patch_size=[8, 32]",)
        await pilot.press("enter", "home", "ctrl+k", *"[16,48]", "enter")
        assert typed.value == "", "the recipe's own value needs no override"


async def test_escape_undoes_an_edit_and_asks_before_changes_are_lost(home: Home) -> None:
    async with opened(home) as (pilot, dialog):
        await choose(pilot)
        await find(pilot, "match.margin")
        await pilot.press("enter", "end", "1")
        await until_async(lambda: dialog.overrides == ("match.margin=2.11",))
        await pilot.press("escape")
        assert dialog.overrides == () and dialog.focused is dialog.form_list
        await pilot.press("enter", "end", "x", "tab")
        await until_async(lambda: dialog.overrides == ()), "who leaves a field with a wrong value leaves the value"
        assert dialog.focused is dialog.preview
        await pilot.press("shift+tab", "enter", "end", "1", "tab")
        await until_async(lambda: dialog.overrides == ("match.margin=2.11",))
        await pilot.press("escape")
        assert "throws the changes away" in verdict(dialog)
        await pilot.press("escape")
        await until_async(lambda: isinstance(dialog.app.screen, RunsScreen))


async def test_choices_and_stages_are_turned(home: Home) -> None:
    async with opened(home) as (pilot, dialog):
        await choose(pilot)
        await find(pilot, "match.strategy")
        await pilot.press("right")
        assert dialog.overrides == ("match.strategy=random",)
        await pilot.press("left", "left")
        assert dialog.overrides == ("match.strategy=balanced",)
        await pilot.press("enter", "right", "enter")
        assert dialog.overrides == (), "graph, the recipe's own, comes after the last"

        await pilot.press("escape")
        await find(pilot, "reuse_stages")
        await pilot.press("enter")
        assert dialog.overrides == ("runtime.reuse_stages=false",)
        await pilot.press("enter", "escape")
        assert dialog.overrides == ()

        await find(pilot, "proxy")
        assert dialog.form_list.key == "proxy"
        await pilot.press("enter")
        await until_async(lambda: verdict(dialog).startswith("ok: proxy 10000 steps"))
        assert "proxy.hue_bins" in dialog.form_list.fields
        await pilot.press("enter")
        assert dialog.overrides == () and "proxy.hue_bins" not in dialog.form_list.fields


async def test_letters_search_and_j_and_k_move_until_a_search_begins(home: Home) -> None:
    async with opened(home) as (pilot, dialog):
        await choose(pilot)
        form = dialog.form_list
        await pilot.press("j", "j")
        assert form.key == "data.height"
        await pilot.press("k", "up", "home")
        assert form.key == "schema_version"
        await pilot.press("slash", *"jitter")
        found = [form.items[number].key for number in form.found]
        assert found == [f"{stage}.{what}_jitter" for stage in ("match", "segment") for what in ("scale", "colour")]
        await pilot.press("j")
        assert form.sought == "jitter", "a letter that nothing has is dropped"
        await pilot.press("down")
        assert form.key == found[1]
        await pilot.press("escape")
        assert form.key == found[1] and len(form.found) == len(form.items)
        await pilot.press(*"gradient norm")
        assert form.key == "match.optim.clip_norm", "the help is searched too"


async def test_one_backspace_more_than_a_search_has_letters_takes_no_setting_away(home: Home) -> None:
    async with opened(home, (120, 40)) as (pilot, dialog):
        await pilot.press("home", *"shapes_sm", "enter", *"segment.steps=23", *["tab"] * 4)
        form = dialog.form_list
        await until_async(lambda: dialog.focused is form and bool(form.items), "the form")
        for sought in ("segment.st", "/seg"):
            await pilot.press(*["slash" if key == "/" else "full_stop" if key == "." else key for key in sought])
            await pilot.press(*["backspace"] * (len(sought) + 3))
            assert form.sought == "" and "segment.steps=23" in dialog.overrides
        await pilot.press(*"segment.steps", "delete")
        await until_async(lambda: "segment.steps=23" not in dialog.overrides, "delete takes it away")


@pytest.mark.parametrize("size", SIZES)
async def test_recipes_are_found_by_letters_and_no_line_wraps(home: Home, size: tuple[int, int]) -> None:
    async with opened(home, size) as (pilot, dialog):
        await pilot.press("home", *"_mixm")
        assert dialog.recipe is not None and dialog.recipe.name == "camvid_mixmatch"
        await pilot.press(*["backspace"] * 5, *"shapes_sm")
        assert dialog.recipe.name == "shapes_smoke"
        await pilot.press("z")
        assert dialog.recipe.name == "shapes_smoke" and dialog.recipe_list.sought == "shapes_sm"
        await pilot.press("escape", "end")
        for panel in (dialog.recipe_list, dialog.preview):
            room = panel.size.width
            assert all(len(text) <= room for text in panel.plain_text().splitlines())
        assert dialog.recipe.name == dialog.views[-1]


@pytest.mark.parametrize("size", SIZES)
async def test_panes_are_beside_each_other_where_they_fit(home: Home, size: tuple[int, int]) -> None:
    wide = size[0] > 120
    async with opened(home, size) as (pilot, dialog):
        shown = lambda: [panel.display for panel in (dialog.recipe_list, dialog.form_list, dialog.preview)]  # noqa: E731
        assert shown() == [True, False, wide]
        assert "enter type changes" in hints(dialog)
        await pilot.press("tab")
        assert shown() == [False, True, wide]
        assert "enter edit" in hints(dialog)
        await pilot.press("tab")
        left = dialog.query_one("#left")
        assert (left.display, dialog.preview.display) == (wide, True)
        assert "enter queue it" in hints(dialog)
        for name in ("overrides", "name", "options", "recipes"):
            await pilot.press("tab")
            assert dialog.focused is not None and dialog.focused.id == name
        await pilot.press("shift+tab")
        assert dialog.focused is not None and dialog.focused.id == "options"
        for widget in dialog.query("#verdict, #keys, #options"):
            assert widget.region.bottom < size[1] and widget.region.height >= 1, "everything is on the screen"


async def test_recipes_have_data_cost_and_published_number(home: Home) -> None:
    _finished(home, "shapes_mixmatch", seconds_per_step=0.5)
    async with opened(home, (160, 48)) as (_, dialog):
        rows = dialog.recipe_list
        rows.go_to("shapes_mixmatch")
        assert line(rows, "shapes_mixmatch").split()[2:5] == ["shapes", "3m20s", "-"], "400 steps of half a second"
        known = next(view for view in rows.views.values() if view.reference_miou is not None)
        rows.go_to(known.name)
        assert line(rows, known.name).split()[2:5] == [known.data, "-", f"{known.reference_miou:.1f}"]
        assert known.reference_source and "published mIoU" in rows.plain_text()
        rows.go_to("shapes_mixmatch")
        await dialog.check()
        assert verdict(dialog).endswith("; about 3m20s")


def _finished(home: Home, recipe: str, seconds_per_step: float) -> None:
    """A run of a recipe that has succeeded, with the time of its steps."""
    resolved = recipes.resolve(recipe)
    database = Database(home)
    try:
        with database.write() as session:
            config = resolved.model_dump(mode="json")
            run_id = insert_run(session, StoredRun(recipe, recipe, 0, config, (), {}, resolved.stages()), 1000.0)
            begin_attempt(session, run_id, ["cpu:0"], "box")
            transition(session, run_id, RunEvent.EXIT_OK, ended_at=1000.0)
            values = {"rate": seconds_per_step, "id": run_id}
            session.connection().exec_driver_sql(
                "UPDATE stages SET seconds_per_step = :rate WHERE run_id = :id AND name != 'evaluate'", values
            )
    finally:
        database.close()


async def test_like_a_run_prefills_everything(home: Home) -> None:
    (run_id,) = queue.enqueue_all(
        home.create(), "shapes_mixmatch", [["segment.steps=7"]], queue.Terms(name="first", hold=True)
    )
    app = MmtuiApp(home)
    async with app.run_test(size=(100, 30)) as pilot:
        await until_async(lambda: app.feed.latest.detail is not None and app.feed.latest.detail.row.id == run_id)
        await pilot.press("F")
        await until_async(lambda: isinstance(app.screen, NewRunDialog) and app.screen.checker.ready)
        dialog = app.screen
        assert isinstance(dialog, NewRunDialog)
        assert dialog.recipe_list.key == "shapes_mixmatch"
        assert dialog.overrides == ("segment.steps=7",)
        assert dialog.focused is dialog.form_list
        await until_async(lambda: verdict(dialog).startswith("ok: match 200 steps, segment 7 steps"))
        await pilot.press("escape")
        await until_async(lambda: app.screen is app.runs_screen), "nothing was changed: nothing is lost"


async def test_title_name_and_options_are_taken_over(home: Home) -> None:
    like = NewRun("shapes_smoke", ("seed=3",), "other", ("--priority", "3", "--hold"))
    async with opened(home, like=like, title="Fork of run 3 at step 120") as (_, dialog):
        assert dialog.entered() == like
        assert "Fork of run 3 at step 120" in str(dialog.query_one("#tabs", Static).render())
        assert await dialog.check()


async def test_options_that_change_the_runs_are_counted(home: Home) -> None:
    async with opened(home) as (_, dialog):
        dialog.recipe_list.go_to("shapes_mixmatch")
        dialog.query_one("#overrides", Input).value = "seed=0..2 match.margin=1,2,3"
        await until_async(lambda: "9 runs" in verdict(dialog))
        dialog.query_one("#options", Input).value = "--zip"
        await until_async(lambda: "3 runs" in verdict(dialog))
        dialog.query_one("#options", Input).value = "--zip --smoke"
        await until_async(lambda: "3 runs, each match 2 steps" in verdict(dialog))
        dialog.query_one("#overrides", Input).value = "segment.steps=3,4"
        dialog.query_one("#options", Input).value = ""
        await until_async(lambda: "2 runs, the first match 200 steps, segment 3 steps" in verdict(dialog))


async def test_run_of_a_recipe_that_is_no_longer_known_is_repeated_from_its_own(home: Home, tmp_path: Path) -> None:
    own = tmp_path / "gone.yaml"
    own.write_text("base: shapes_smoke\nseed: 5\n")
    (run_id,) = queue.enqueue_all(home.create(), str(own), [["match.margin=4"]], queue.Terms(hold=True))
    own.unlink()
    app = MmtuiApp(home)
    async with app.run_test(size=(100, 30)) as pilot:
        await until_async(lambda: app.feed.latest.detail is not None and app.feed.latest.detail.row.id == run_id)
        await pilot.press("F")
        await until_async(lambda: isinstance(app.screen, NewRunDialog) and app.screen.checker.ready)
        dialog = app.screen
        assert isinstance(dialog, NewRunDialog)
        await until_async(lambda: verdict(dialog).startswith("ok"))
        assert dialog.form is not None and dialog.form.resolved.match is not None
        assert (dialog.form.resolved.seed, dialog.form.resolved.match.margin) == (5, 4.0)


async def test_recipe_that_does_not_load_says_why(home: Home) -> None:
    own = home.create().root / "recipes"
    own.mkdir()
    (own / "a_broken.yaml").write_text("segment: {stepz: 1}\n")
    async with opened(home) as (pilot, dialog):
        dialog.recipe_list.go_to("a_broken")
        assert not await dialog.check() and "stepz" in verdict(dialog)
        assert "stepz" in dialog.recipe_list.plain_text()
        await pilot.press("tab", "enter")
        await pilot.press("ctrl+g")
        assert dialog.app.screen is dialog


async def test_ascii_mode_draws_ascii_alone(home: Home) -> None:
    async with opened(home, (160, 48), ascii_only=True) as (pilot, dialog):
        dialog.query_one("#overrides", Input).value = "description=中文…"
        await choose(pilot)
        await until_async(lambda: "description=" in dialog.query_one("#overrides", Input).value)
        await find(pilot, "description")
        for panel in (dialog.recipe_list, dialog.form_list, dialog.preview):
            texts = ["".join(part.text for part in panel.render_line(y)) for y in range(panel.size.height)]
            assert "".join(texts).isascii(), panel.id


def test_dialog_beside_panes_is_what_a_repaint_shows(home: Home) -> None:
    # The form and the resolved recipe have different parents: what is beside a changed part is not drawn for it.
    terminal = Terminal(home, 150, 34)
    try:
        terminal.wait_for("no runs yet")
        terminal.child.send(b"n")
        terminal.wait_for("ok: ")
        for keys in (*"shapes_m", "\t", "j", "j", "j"):
            terminal.child.send(keys.encode())
            terminal.settle(0.25)
        terminal.wait_for("> ")
        terminal.settle()
        shown = terminal.text()
        for columns in (149, 150):
            terminal.screen.erase_in_display(2)
            terminal.child.setwinsize(34, columns)
            terminal.screen.resize(34, columns)
            terminal.settle(1.5)
        assert "model.backbone" in shown and "backbone: tiny_vgg" in shown
        terminal.until(lambda: terminal.text() == shown, "the same picture")
    finally:
        terminal.child.close(force=True)


@pytest.mark.parametrize(
    ("now", "steps", "then"), [("a", 1, "b"), ("c", 1, "a"), ("a", -1, "c"), ("typed", 1, "a"), ("typed", -1, "c")]
)
def test_following_choice_goes_round(now: str, steps: int, then: str) -> None:
    assert following(("a", "b", "c"), now, steps) == then
