"""Queueing what stands in the form: in a thread, by the service that ``mmtui run`` calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from mmtui.domain.text import printable
from mmtui.errors import UsageError
from mmtui.paths import Home
from mmtui.services import code, submit
from mmtui.services.submit import Submitted
from mmtui.tui.screens.run_request import NewRun

SILENT_SECONDS, EVERY_SECONDS = 0.5, 0.25
"""Before how far it is is told for the first time, and from then on."""


class Progress:
    """Tells how far a sweep is; that the screen cannot show it, say because it is closed, holds nothing up."""

    def __init__(self, say: Callable[[str], object]) -> None:
        self.say, self.next_at = say, time.monotonic() + SILENT_SECONDS

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if total > 1 and now >= self.next_at:
            self.next_at = now + EVERY_SECONDS
            with suppress(Exception):
                self.say(f"queueing {total} runs: {done * 100 // total} %")


def queue(home: Home, wanted: NewRun, tell: submit.Tell, opened_at: float) -> tuple[Submitted | None, str]:
    """What was queued, None if only a look was asked for; and what there is to say.

    Args:
        opened_at: Unix time at which the screen was opened, and began to load what recipes are read with.

    Raises:
        MmtuiError: nothing is queued.
    """
    line = wanted.line()
    if line.follow:
        raise UsageError("--follow stays until a run ends: the screen shows that itself (1), or use another terminal")
    code.refuse_loaded_before(opened_at)
    if line.dry_run:
        return None, _would(submit.plan(home, line.request()))
    found = submit.submit(home, line.request(), tell)
    return found, printable("; ".join(_words(found)))


def _would(planned: submit.Plan) -> str:
    count = len(planned.members)
    lacks = "".join(f"; it would not start here: {text}" for text in planned.lacking)
    return printable(f"--dry-run: {count} run{'' if count == 1 else 's'} would be queued{lacks}")


def _words(found: Submitted) -> Sequence[str]:
    first, last, count = found.ids[0], found.ids[-1], len(found.ids)
    queued = f"queued run {first}" if count == 1 else f"queued {count} runs, {first} to {last}"
    doubts = [f"doubtful: {text}" for text in found.doubts]
    return [queued, *([str(found.trouble)] if found.trouble else []), *doubts, *([found.note] if found.note else [])]
