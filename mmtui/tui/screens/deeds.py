"""What a key does to runs: on the table, on the screen of one run, and in the queue.

Dialogs and what writes are imported when they are needed: the first picture comes sooner without them.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

from textual import work

from engine.json_types import Json
from mmtui.domain.states import FINAL_STATES, RunEvent, RunState, is_legal
from mmtui.domain.views import RunDetail
from mmtui.paths import Home
from mmtui.services import runs
from mmtui.tui.screens.common import CommonScreen

if TYPE_CHECKING:
    from mmtui.tui.screens.run_request import NewRun


_NOBODY: Mapping[str, str] = MappingProxyType({})
"""No run with code from elsewhere that was asked for."""


class RunDeeds(CommonScreen):
    """A screen with runs to act on (``acting_ids``)."""

    def launched(self, ids: Sequence[str], words: str) -> None:
        """Runs were queued from here."""
        self.say(words)
        self.look_again()

    def details(self) -> list[RunDetail]:
        """The runs a key acts on; those that are gone meanwhile are left out."""
        found = []
        for run_id in self.acting_ids():
            try:
                found.append(runs.get_run(self.program.home, run_id))
            except Exception as error:
                self.program.tell_fault(f"run {run_id}", error)
        return found

    def action_show_log(self) -> None:
        """The trainer's output, on the screen of the run."""
        for detail in self.details()[:1]:
            self.program.open_run(detail.row.id, "log")

    def action_new_run(self) -> None:
        """Launch a run."""
        from mmtui.tui.screens.new_run import FIRST, NewRunDialog

        found = self.details()[:1]
        at = found[0].row.recipe if found else FIRST
        self.app.push_screen(NewRunDialog(self.program.home, at=at), self._launch)

    def action_fork_run(self) -> None:
        """Launch a run like this one, but."""
        from mmtui.tui.screens.new_run import NewRunDialog
        from mmtui.tui.screens.run_request import like_run

        for detail in self.details()[:1]:
            like = like_run(self.program.home, detail)
            self.app.push_screen(NewRunDialog(self.program.home, like), self._launch)

    def _launch(self, wanted: object) -> None:
        from mmtui.tui.screens.run_request import NewRun

        if isinstance(wanted, NewRun):
            self.program.note_command(f"mmtui {wanted.command()}")
            self.say(f"queueing {wanted.recipe}")
            self._enqueue(wanted)

    @work(thread=True, group="deed", exit_on_error=False)
    def _enqueue(self, wanted: NewRun) -> None:
        # Loaded here: what queues takes most of a second to load, and the screen goes on meanwhile.
        from mmtui.tui.screens import queueing

        program, tell = self.program, queueing.Progress(partial(self.app.call_from_thread, self.say))
        try:
            found, told = queueing.queue(program.home, wanted, tell, program.opened_at)
        except Exception as error:
            self.app.call_from_thread(program.tell_fault, "queueing", error)
            return
        if found is None or found.trouble is not None:
            program.leaving = False  # nobody would read it
        if found is None:
            self.app.call_from_thread(self.say, told)
        else:
            self.app.call_from_thread(self.launched, found.ids, told)

    def action_cancel_run(self) -> None:
        """Ask how the runs are to be stopped."""
        from mmtui.tui.screens.dialogs import CancelDialog

        found = self.details()
        able = [one for one in found if _can_be_cancelled(one)]
        if able:
            self.app.push_screen(CancelDialog(able, time.time()), partial(self._cancel, able))
        elif found:
            words = ", ".join(f"run {one.row.id} is {one.row.state}" for one in found)
            self.say(f"{words}: there is nothing to cancel")

    def _cancel(self, found: Sequence[RunDetail], answer: object) -> None:
        ids = [one.row.id for one in found]
        if answer in ("save", "now"):
            self._wish([(run_id, "cancel") for run_id in ids], {"now": answer == "now"})

    def action_pause_run(self) -> None:
        """Checkpoint and free the device."""
        self._wish([(one.row.id, "pause") for one in self.details()], {})

    def action_resume_run(self) -> None:
        """Resume paused runs, retry ended ones."""
        verbs = [(one.row.id, "resume" if one.row.state == RunState.PAUSED else "retry") for one in self.details()]
        self._with_trust([run_id for run_id, _ in verbs], lambda trusted: self._wish(verbs, {}, trusted))

    def _with_trust(self, ids: Sequence[str], deed: Callable[[Mapping[str, str]], None]) -> None:
        """Do something that lets runs start; one question first if code from elsewhere would run. ``deed`` is given
        the digest of that code, by run."""
        from mmtui.services import trust

        foreign = trust.untrusted(self.program.home, ids)
        if not foreign:
            deed({})
            return
        from mmtui.tui.screens.dialogs import TrustDialog

        self.app.push_screen(TrustDialog(foreign), lambda answer: deed(foreign) if answer == "run" else None)

    def _wish(
        self, wishes: Sequence[tuple[str, str]], arguments: dict[str, object], trusted: Mapping[str, str] = _NOBODY
    ) -> None:
        from mmtui.services import queue, supervisors

        home = self.program.home

        def ask() -> None:
            for run_id, verb in wishes:
                queue.wish(home, run_id, verb, arguments, trust_code=trusted.get(run_id, ""))
            supervisors.ensure(home)

        for verb, digest in dict.fromkeys((verb, trusted.get(run_id, "")) for run_id, verb in wishes):
            ids = " ".join(i for i, asked in wishes if (asked, trusted.get(i, "")) == (verb, digest))
            options = f"{' --now' if arguments.get('now') else ''}{f' --trust-code {digest}' if digest else ''}"
            self.program.note_command(f"mmtui {verb} {ids}{options}")
        if wishes:
            self.do("asked: " + ", ".join(f"{verb} run {run_id}" for run_id, verb in wishes), ask)

    def action_hold(self) -> None:
        """Hold waiting runs, or release held ones; the first says which."""
        from mmtui.services import queue

        found = self.details()
        if not found:
            return
        held = found[0].row.state == RunState.HELD
        ids = [one.row.id for one in found if (one.row.state == RunState.HELD) == held]
        words = f"run {', '.join(ids)} {'released' if held else 'held'}"
        if not held:
            self.program.note_command(f"mmtui hold {' '.join(ids)}")
            self._each(words, ids, queue.hold, queue.release)
            return

        def release(trusted: Mapping[str, str]) -> None:
            def deed(home: Home, run_id: str) -> None:
                queue.release(home, run_id, trust_code=trusted.get(run_id, ""))

            for digest in dict.fromkeys(trusted.get(run_id, "") for run_id in ids):
                same = " ".join(run_id for run_id in ids if trusted.get(run_id, "") == digest)
                self.program.note_command(f"mmtui release {same}{f' --trust-code {digest}' if digest else ''}")
            self._each(words, ids, deed, queue.hold)

        self._with_trust(ids, release)

    def _each(
        self, words: str, ids: Sequence[str], deed: Callable[[Home, str], object], back: Callable[[Home, str], object]
    ) -> None:
        home = self.program.home
        self.do(words, lambda: [deed(home, run_id) for run_id in ids], lambda: [back(home, run_id) for run_id in ids])

    def action_edit_run(self) -> None:
        """Change the recipe of a run that has not started."""
        from mmtui.tui.screens.new_run import NewRunDialog
        from mmtui.tui.screens.run_request import like_run

        for detail in self.details()[:1]:
            if detail.row.state not in (RunState.QUEUED, RunState.HELD):
                self.say(f"run {detail.row.id} is {detail.row.state}: F launches one like it, with changes")
                return
            dialog = NewRunDialog(self.program.home, like_run(self.program.home, detail), f"Change run {detail.row.id}")
            self.app.push_screen(dialog, partial(self._edit, detail))

    def _edit(self, detail: RunDetail, wanted: object) -> None:
        from mmtui.services import editing, recipes
        from mmtui.tui.screens.run_request import NewRun, like_run

        if not isinstance(wanted, NewRun):
            return
        home, run_id = self.program.home, detail.row.id
        if wanted.recipe != like_run(home, detail).recipe:
            self.say(f"! run {run_id} keeps its recipe: F launches a run of another one")
            return
        asked = recipes.resolve(wanted.recipe, wanted.overrides, home).model_dump(mode="json")
        changes, back = _between(detail.config, asked), _between(asked, detail.config)
        if not changes:
            self.say("nothing is changed")
            return
        self.program.note_command(shlex.join(["mmtui", "edit", run_id, *changes]))
        self.do(
            f"run {run_id}: {' '.join(changes)}",
            lambda: editing.edit(home, run_id, changes),
            lambda: editing.edit(home, run_id, back),
        )

    def action_tag(self) -> None:
        """Ask for tags: the words are the tags that the runs have then."""
        from mmtui.tui.screens.dialogs import LineDialog

        found = self.details()
        if found:
            shared = [tag for tag in found[0].row.tags if all(tag in one.row.tags for one in found)]
            title = f"Tags of run {', '.join(one.row.id for one in found)}"
            dialog = LineDialog(title, " ".join(shared), "words   enter writes them   esc leaves them")
            self.app.push_screen(dialog, partial(self._tag, found, shared))

    def _tag(self, found: Sequence[RunDetail], before: Sequence[str], text: object) -> None:
        from mmtui.services import keeping

        if not isinstance(text, str):
            return
        add = [tag for tag in text.split() if tag not in before]
        take = [tag for tag in before if tag not in text.split()]
        ids = [one.row.id for one in found]
        words = "".join([*(f" --add {tag}" for tag in add), *(f" --remove {tag}" for tag in take)])
        if words:
            self.program.note_command(f"mmtui tag {' '.join(ids)}{words}")
            self._each(
                f"tagged run {', '.join(ids)}",
                ids,
                lambda home, run_id: keeping.change_tags(home, run_id, add, take),
                lambda home, run_id: keeping.change_tags(home, run_id, take, add),
            )

    def action_memo(self) -> None:
        """Ask for a note on the run."""
        from mmtui.tui.screens.dialogs import LineDialog

        for detail in self.details()[:1]:
            dialog = LineDialog(f"Note on run {detail.row.id}", detail.note, "enter writes it   esc leaves it")
            self.app.push_screen(dialog, partial(self._memo, detail))

    def _memo(self, detail: RunDetail, text: object) -> None:
        from mmtui.services import keeping

        if isinstance(text, str):
            home, run_id = self.program.home, detail.row.id
            self.program.note_command(shlex.join(["mmtui", "note", run_id, text]))
            self.do(
                f"noted on run {run_id}",
                lambda: keeping.set_note(home, run_id, text),
                lambda: keeping.set_note(home, run_id, detail.note),
            )

    def action_trash(self) -> None:
        """Move ended runs to the trash."""
        from mmtui.services import trash

        found = self.details()
        ids = [one.row.id for one in found if RunState(one.row.state) in FINAL_STATES]
        if not ids:
            self.say("only runs that have ended can go to the trash: x cancels one")
            return
        self.program.note_command(f"mmtui rm {' '.join(ids)}")
        self._each(f"run {', '.join(ids)} in the trash; z brings it back", ids, trash.remove, trash.restore)

    def action_diff(self) -> None:
        """Why two runs are not the same."""
        ids = self.acting_ids()
        if len(ids) < 2:
            self.say("mark two runs with space first")
            return
        self.program.open_output(f"diff {ids[0]} {ids[1]}")


def _can_be_cancelled(detail: RunDetail) -> bool:
    state = RunState(detail.row.state)
    return state == RunState.STOPPING or is_legal(state, RunEvent.CANCEL)


def _between(before: Mapping[str, Json], after: Mapping[str, Json]) -> list[str]:
    """Overrides that make one resolved recipe of another; what the recipe is called does not count."""
    from mmtui.services.comparing import flat

    old, new = dict(flat(before)), dict(flat(after))
    keys = [key for key, value in new.items() if old.get(key) != value and key not in ("name", "description")]
    return [f"{key}={json.dumps(new[key])}" for key in keys]
