"""What ``mmtui run`` takes, as texts: on a command line, and in the form of the screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from mmtui.domain import command_words
from mmtui.domain.lengths import device_hours, seconds_of
from mmtui.domain.options import Argument, QuietOption, option, taken
from mmtui.errors import UsageError

if TYPE_CHECKING:
    from mmtui.services.submit import Request


@dataclass(frozen=True)
class RunLine:
    """The words of ``mmtui run``; each field declares how it is written."""

    recipe: Annotated[
        str, Argument("recipe name (see: mmtui recipes) or a YAML file; with --from not needed", complete="recipes")
    ] = ""
    overrides: Annotated[
        list[str] | None,
        Argument("key=value, for example segment.steps=200; key=a,b or seed=0..4 queues one run for each", "keys"),
    ] = None
    from_run: Annotated[
        str,
        option(
            "--from",
            help="RUN or RUN@STEP: begin at its newest checkpoint (at or before that step), with its recipe;"
            " RUN@best: at its best one",
            complete="places",
        ),
    ] = ""
    name: Annotated[str, option("--name", help="name of the run (default: the recipe's); sweeps add to it")] = ""
    tag: Annotated[list[str] | None, option("--tag", help="tag (repeatable)")] = None
    seed: Annotated[int | None, option("--seed", help="seed of the run", minimum=0)] = None
    smoke: Annotated[bool, option("--smoke", help="two steps of each stage with a thin network")] = False
    zipped: Annotated[bool, option("--zip", help="sweep: the n-th values together, not every combination")] = False
    group: Annotated[str, option("--group", help="group of the runs (default: a sweep's own)")] = ""
    priority: Annotated[int, option("--priority", help="higher starts earlier (default 0)")] = 0
    after: Annotated[list[str] | None, option("--after", help="run that must succeed first (repeatable)")] = None
    if_failed: Annotated[str, option("--if-failed", help="what to do if it does not: hold, cancel or run")] = "hold"
    wait: Annotated[str, option("--delay", help="start no earlier than in 30m, 2h, 1d")] = ""
    gpus: Annotated[float, option("--gpus", help="GPUs (CPU slots) for each run; 0.5: half of one suffices")] = 1.0
    time_limit: Annotated[str, option("--time-limit", help="stop it, with a checkpoint, after 90m, 12h, 2d")] = ""
    budget: Annotated[str, option("--budget", help="sweep or group: start none after so many GPU-hours: 20h")] = ""
    fail_fast: Annotated[bool, option("--fail-fast", help="hold the rest of the sweep when one run fails")] = False
    launcher: Annotated[str, option("--launcher", help="local, or slurm: submit it to the cluster")] = "local"
    slurm: Annotated[
        list[str] | None, option("--slurm", help="KEY=VALUE for it: partition=gpu, nodes=2, time=600 (repeatable)")
    ] = None
    hold: Annotated[bool, option("--hold", help="queue it, but do not start it until released")] = False
    dry_run: Annotated[bool, option("--dry-run", help="print what would be queued and queue nothing")] = False
    follow: Annotated[bool, option("--follow", "-f", help="stay and print progress until it ends")] = False
    quiet: QuietOption = False

    def request(self) -> Request:
        """What is asked for, with its lengths of time as numbers.

        Raises:
            UsageError: one of them is no length of time, or a budget of nothing.
        """
        from mmtui.services.submit import Request

        recipe, overrides = self.recipe, tuple(self.overrides or ())
        if self.from_run and "=" in recipe:  # no recipe was given: what stands in its place is the first override
            recipe, overrides = "", (recipe, *overrides)
        budget = device_hours(self.budget, "--budget") if self.budget else 0.0
        if self.budget and not budget:
            raise UsageError(f"--budget {self.budget} would start nothing", "leave it out for no limit")
        return Request(
            recipe,
            overrides,
            from_run=self.from_run,
            name=self.name,
            tags=tuple(self.tag or ()),
            seed=self.seed,
            smoke=self.smoke,
            zipped=self.zipped,
            group=self.group,
            priority=self.priority,
            after=tuple(self.after or ()),
            if_failed=self.if_failed,
            delay=seconds_of(self.wait, "--delay") if self.wait else None,
            gpus=self.gpus,
            time_limit=seconds_of(self.time_limit, "--time-limit") if self.time_limit else 0.0,
            budget=budget,
            fail_fast=self.fail_fast,
            launcher=self.launcher,
            slurm=tuple(self.slurm or ()),
            hold=self.hold,
        )


def read(words: Sequence[str]) -> RunLine:
    """The words behind ``mmtui run``.

    Raises:
        UsageError: an option that there is not, or a value that is none.
    """
    try:
        values = command_words.read(command_words.shape_of(RunLine), words)
    except command_words.NotPlain as error:
        raise UsageError(str(error), "options are those of mmtui run") from None
    return RunLine(**taken(RunLine, values))
