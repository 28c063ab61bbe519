"""Runs that are queued together: hidden until the rows and the folders of all are there, then shown in one moment.

Sweeps have thousands of members. Their rows are written in short transactions, their files outside of any, so that
others can write meanwhile; killed at any point, nothing of them is seen (``mmtui.services.unfinished``).
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine.json_types import Json
from mmtui.access import remedy
from mmtui.domain import sweeps
from mmtui.domain.terms import Terms
from mmtui.domain.text import shorten
from mmtui.errors import MmtuiError, UnreachableError
from mmtui.paths import Home, RunPaths
from mmtui.services import code, unfinished
from mmtui.services.manifests import read_manifest
from mmtui.services.run_folders import NewFolders, highest_folder, write_file
from mmtui.store.batches import in_batches

if TYPE_CHECKING:
    from sqlmodel import Session

    from engine.config import Recipe
    from engine.config.forking import Plan
    from mmtui.services.forks import Fork
    from mmtui.store.db import Database
    from mmtui.store.runs import NewRun

LONGEST_SUFFIX = 60
"""Characters that tell a run of a sweep from the others, behind its name."""
BREATH_SECONDS = 0.0001


class Together:
    """Queues runs, all or none.

    Args:
        frozen: the code that they train with, see ``mmtui.services.code.freeze``.
        fork: the run whose checkpoint they begin with; it is theirs from now on.
        tell: called with (done, total) runs on the way.
    """

    def __init__(
        self,
        database: Database,
        home: Home,
        frozen: Mapping[str, Json],
        terms: Terms,
        fork: Fork | None,
        tell: Callable[[int, int], None],
    ) -> None:
        self.database, self.home, self.frozen = database, home, frozen
        self.terms, self.fork, self.tell = terms, fork, tell
        self.folders = NewFolders(home)
        self.group = terms.group
        self.ids: list[int] = []
        self.new: list[NewRun] = []
        self.position: float | None = None

    def queue(self, members: Sequence[tuple[Recipe, Sequence[str]]]) -> list[str]:
        """Queue a run of each recipe with its overrides; returns their ids.

        Raises:
            UnreachableError: rows or files cannot be written.
            RefusedError: the code, or the run to fork, was deleted meanwhile.
        """
        self.new = self._named(members)
        try:
            self._insert()
            self._write([recipe for recipe, _ in members])
            self._show()
        except OSError as error:
            self._remove()
            why, closed = error.strerror or str(error), remedy(error.filename or self.home.root)
            raise UnreachableError(
                f"the files of a run cannot be written to {self.home.root}: {why}",
                f"nothing is queued{closed and f'; {closed}'}",
            ) from None
        except BaseException:
            self._remove()
            raise
        return [str(run_id) for run_id in self.ids]

    def _named(self, members: Sequence[tuple[Recipe, Sequence[str]]]) -> list[NewRun]:
        apart = sweeps.differences([texts for _, texts in members])
        new = []
        for recipe, texts in members:
            new.append(new_run(recipe, texts, self.frozen, self.terms, self.fork))
            _give_way()
        return [
            replace(one, name=f"{one.name} {shorten(suffix, LONGEST_SUFFIX)}") if suffix else one
            for one, suffix in zip(new, apart, strict=True)
        ]

    def _insert(self) -> None:
        """The rows, hidden."""
        above, hidden = highest_folder(self.home), unfinished.reason(unfinished.QUEUEING)

        def insert(session: Session, index: int) -> None:
            from mmtui.store.runs import end_of_line, insert_run, set_group

            self.new[index] = replace(self.new[index], group=self.group)
            if self.position is None:
                self.position = end_of_line(session)
            place = self.position + index
            run_id = insert_run(session, self.new[index], above=above, hidden=hidden, position=place)
            self.ids.append(run_id)
            if len(self.new) > 1 and not self.group:
                self.group = f"sweep-{run_id}"
                set_group(session, run_id, self.group)
                self.new[index] = replace(self.new[index], group=self.group)

        for _ in in_batches(self.database, range(len(self.new)), insert):
            self.tell(len(self.ids) // 2, len(self.new))

    def _write(self, recipes: Sequence[Recipe]) -> None:
        """The folders, in their places."""
        from engine.config import dump_recipe

        plans: list[tuple[int, Plan]] = []
        for done, (run_id, new, recipe) in enumerate(zip(self.ids, self.new, recipes, strict=True)):
            draft = self.folders.write(str(run_id), dump_recipe(recipe), new)
            if self.fork is not None:
                plans.append((run_id, self._take(self.fork, draft.root, recipe)))
            self.tell((len(self.ids) + done) // 2, len(self.ids))
        for _ in in_batches(self.database, plans, _begin):
            pass
        self.folders.place()

    def _take(self, fork: Fork, draft: Path, recipe: Recipe) -> Plan:
        """Take the checkpoint over now: the parent may train on, be removed or be purged while its child waits."""
        from mmtui.services import forks

        found = forks.take(self.home, fork, recipe, draft)
        manifest = RunPaths(draft).manifest
        told = read_manifest(manifest) | {"forked_from": forks.origin_of(found)}
        write_file(manifest, json.dumps(told, indent=1))
        return found

    def _show(self) -> None:
        from mmtui.store.runs import end_of_line, reason_to_wait, set_places, set_setting

        with self.database.write(durable=True) as session:
            code.refuse_purged(self.home, self.frozen)
            if self.terms.fail_fast:
                set_setting(session, f"failfast:{self.group}", "1")
            if self.terms.budget:
                set_setting(session, f"budget:{self.group}", repr(self.terms.budget))
            # Anew: whoever came meanwhile stands before all of them, not among them.
            set_places(session, self.ids, end_of_line(session))
            unfinished.show_all(session, self.ids, reason_to_wait(self.terms.not_before, time.time()))

    def _remove(self) -> None:
        """Take back what is there; what cannot be is seen by nobody, and goes with the next purge."""
        self.folders.remove()
        with suppress(MmtuiError, OSError):
            for run_id in self.ids:
                unfinished.remove(self.database, self.home, run_id)


def _give_way() -> None:
    """Let the thread that draws a screen have its turn.

    What hashes gives Python's lock up and takes it back at once, so often that who waits for it is woken in vain every
    time, and was seen to wait for half a second.
    """
    if threading.current_thread() is not threading.main_thread():
        time.sleep(BREATH_SECONDS)


def _begin(session: Session, begun: tuple[int, Plan]) -> None:
    from mmtui.services import forks
    from mmtui.store.runs import set_origin

    run_id, found = begun
    set_origin(session, run_id, forks.origin_of(found), forks.done_of(found))


def new_run(
    resolved: Recipe, texts: Sequence[str], frozen: Mapping[str, Json], terms: Terms, fork: Fork | None = None
) -> NewRun:
    """What the row of a run is made of."""
    from engine.config.determining import work_name
    from mmtui.store.runs import NewRun

    return NewRun(
        name=terms.name or resolved.name,
        recipe=resolved.name,
        seed=resolved.seed,
        config=resolved.model_dump(mode="json"),
        overrides=list(texts) if fork is None else fork.with_overrides(texts),
        code=frozen,
        stages=resolved.stages(),
        tags=terms.tags,
        group=terms.group,
        held=terms.hold,
        priority=terms.priority,
        not_before=terms.not_before,
        after=[int(run_id) for run_id in terms.after],
        if_failed=terms.if_failed,
        wanted=terms.wanted,
        work=work_name(resolved),
        # What a fork computes depends on its parent too.
        shared_stages={} if fork is not None else shared_stages(resolved, frozen),
        time_limit=terms.time_limit,
        launcher=terms.launcher,
    )


def shared_stages(resolved: Recipe, frozen: Mapping[str, Json]) -> dict[str, str]:
    """Names of the work that runs of the same code can share, by stage."""
    from engine.config.determining import stage_names

    return {stage: f"{name}-{str(frozen.get('digest', ''))[:8]}" for stage, name in stage_names(resolved).items()}
