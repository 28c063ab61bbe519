"""What a run that somebody is about to queue would do and cost, or what keeps it from being queued."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmtui.domain.text import duration, printable
from mmtui.domain.views import doubtful
from mmtui.errors import MmtuiError, UsageError
from mmtui.paths import Home
from mmtui.services import forecast, forks, inputs, labels, recipe_form, recipes, run_line
from mmtui.services.recipe_form import Form
from mmtui.services.recipes import Sample
from mmtui.services.run_line import RunLine

if TYPE_CHECKING:
    from engine.config import Recipe


@dataclass(frozen=True)
class RunCheck:
    """What was found.

    Attributes:
        form: None if the recipe itself does not load.
        sample: some of the runs that are meant, None if there is none that could be looked at.
        verdict: one line: steps and cost, or what is wrong.
        good: whether it can be queued.
    """

    form: Form | None
    sample: Sample | None
    verdict: str
    good: bool


def check_run(
    home: Home,
    recipe: str,
    overrides: Sequence[str],
    options: Sequence[str],
    costs: forecast.Costs | None = None,
    most: int = 8,
) -> RunCheck:
    """Check a run or a sweep. Reads files, so it takes its time: 0.1 s and more.

    Args:
        options: words of ``mmtui run`` that are no overrides.
        most: runs of a sweep that are looked at.
    """
    form: Form | None = None
    sample: Sample | None = None
    try:
        form = recipe_form.build(recipe, overrides, home)
        for problem in form.problems.values():
            return RunCheck(form, None, printable(problem), False)
        line = _line(options)
        sample = _sample(home, recipe, overrides, line, most)
        _refuse_lacking(home, sample, line)
        return RunCheck(form, sample, _summary(home, sample, line.from_run, costs), True)
    except MmtuiError as error:
        return RunCheck(form, sample, printable(error.message), False)


def _line(options: Sequence[str]) -> RunLine:
    """The options as they are meant; as if there were none while one of them is still being typed."""
    try:
        return run_line.read(["", *options])
    except UsageError:
        return RunLine()


def _sample(home: Home, recipe: str, overrides: Sequence[str], line: RunLine, most: int) -> Sample:
    """Some of the runs that the command line means."""
    texts = [*overrides, *(line.overrides or ()), *([f"seed={line.seed}"] if line.seed is not None else [])]
    return recipes.sample(recipe, texts, home, most=most, zipped=line.zipped, smoke=line.smoke)


def _refuse_lacking(home: Home, sample: Sample, line: RunLine) -> None:
    """Raises UsageError if what the runs read is not there, as queueing them does."""
    later = bool(line.after or line.wait or line.launcher == "slurm")
    origin = line.from_run
    for one in sample.recipes if not line.hold else ():
        taken = forks.taken(forks.plan(home, forks.parse(home, origin), one)) if origin else ()
        inputs.refuse_lacking(one, later=later, taken=taken)


def _summary(home: Home, sample: Sample, origin: str, costs: forecast.Costs | None) -> str:
    """Steps and cost; of a fork what is taken over and what is trained.

    Raises:
        MmtuiError: there is no such checkpoint, or it does not fit the recipe.
    """
    first = sample.recipes[0]
    plan = ", ".join(f"{name} {steps} steps" for name, steps in first.stages() if name != "evaluate")
    each = "each" if all(one.stages() == first.stages() for one in sample.recipes) else "the first"
    times = [costs.seconds(one) for one in sample.recipes] if costs is not None else []
    known = [seconds for seconds in times if seconds is not None]
    cost = f"; about {duration(sum(known) * sample.count / len(known))}" if known else ""
    several = f"{sample.count} runs, {each} {plan}"
    told = dict.fromkeys(f"; {forks.describe(home, origin, one)}" for one in sample.recipes if origin)
    forked = printable("".join(told))
    doubt = printable("".join(f"; {text}" for text in dict.fromkeys(map(_doubt, sample.recipes)) if text))
    return f"ok: {several if sample.count > 1 else f'{plan}; seed {first.seed}'}{forked or cost}{doubt}"


def _doubt(recipe: Recipe) -> str:
    """What makes the score of its runs doubtful, as far as a look at the masks shows it; "" if nothing."""
    return doubtful(labels.look(recipe).doubts)
