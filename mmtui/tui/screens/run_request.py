"""What is to be queued from the screen."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmtui.domain.views import RunDetail
from mmtui.paths import Home
from mmtui.services import recipes
from mmtui.services.overrides import live

if TYPE_CHECKING:
    from mmtui.services.run_line import RunLine


@dataclass(frozen=True)
class NewRun:
    """What is to be queued."""

    recipe: str
    overrides: tuple[str, ...]
    name: str
    options: tuple[str, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """What stands behind ``mmtui run``."""
        name = ("--name", self.name) if self.name else ()
        return (self.recipe, *self.overrides, *name, *self.options)

    def command(self) -> str:
        """The command line that queues it, without ``mmtui``."""
        return shlex.join(["run", *self.words])

    def line(self) -> RunLine:
        """What that command line says, so that the form means what it shows.

        Raises:
            UsageError: an option that there is not, or a value that is none.
        """
        from mmtui.services import run_line

        return run_line.read(self.words)


def like_run(home: Home, detail: RunDetail) -> NewRun:
    """A new run like one there is; a fork begins where that one began.

    Where its recipe is no longer known by name, the one that it was queued with.
    """
    tie = detail.parent
    origin = ("--from", f"{tie.run}@{tie.global_step}") if tie is not None and tie.here else ()
    if detail.row.recipe in recipes.names(home):
        return NewRun(detail.row.recipe, live(detail.overrides), "", origin)
    return NewRun(detail.paths["recipe"], (), "", origin)


def words_of(text: str) -> tuple[str, ...]:
    """The words of a command line; one that is still being typed may lack a quote."""
    try:
        return tuple(shlex.split(text))
    except ValueError:
        return tuple(text.split())
