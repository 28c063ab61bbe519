"""Verbs that ask about the machine and the installation: recipes, gpu, doctor."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated

from engine.text import as_text
from mmtui.cli import jsonform, render
from mmtui.cli.diagnostics import say
from mmtui.domain.device_use import trainer_words
from mmtui.domain.options import Argument, JsonOption, option
from mmtui.domain.text import shorten, size
from mmtui.domain.views import GpuView
from mmtui.errors import ExitCode, UsageError
from mmtui.paths import Home

LOOK_SECONDS = 0.3
"""How long the use of the processor by trainers is measured."""
WIDEST = 24
"""Characters of a value in a table."""


def recipes(
    recipe: Annotated[str, Argument("name of a recipe or a YAML file: show its keys", complete="recipes")] = "",
    overrides: Annotated[list[str] | None, Argument("key=value: show the recipe with them", "keys")] = None,
    changed: Annotated[bool, option("--changed", help="only the keys whose values are not the defaults")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the recipes that can be launched by name; or every key of one, with type, range, default and meaning."""
    from mmtui.services import recipes as service

    if recipe:
        _keys(recipe, overrides or (), changed_only=changed, as_json=as_json)
        return
    found = service.list_recipes(Home.from_environment())
    if as_json:
        render.document({"recipes": [jsonform.recipe(view) for view in found]})
        return
    rows = [
        (
            view.name,
            view.data or "-",
            " ".join(f"{name}:{steps}" for name, steps in view.stages if name != "evaluate"),
            view.error or view.description,
        )
        for view in found
    ]
    render.table(("recipe", "data", "steps", "description"), rows)


def _keys(name: str, overrides: Sequence[str], *, changed_only: bool, as_json: bool) -> None:
    """Every key of a recipe."""
    from mmtui.services import recipe_form

    form = recipe_form.build(name, overrides, Home.from_environment())
    for problem in form.problems.values():
        raise UsageError(problem)
    fields = [one for one in form.fields if one.changed_by or not changed_only]
    if as_json:
        render.document({"recipe": form.resolved.name, "keys": [recipe_form.plain(one) for one in fields]})
        return
    rows = [
        (
            one.key,
            shorten(one.text, WIDEST),
            one.changed_by,
            one.type.words,
            shorten(one.default_text, WIDEST),
            one.help,
        )
        for one in fields
    ]
    render.table(("key", "value", "set by", "takes", "default", "meaning"), rows)


def gpu(
    run: Annotated[str | None, option("--run", help="what the devices did during this run", complete="runs")] = None,
    as_json: JsonOption = False,
) -> None:
    """The devices now: GPUs with their processes, CPU, memory, disk; or those of a run while it was active."""
    from mmtui.services import devices

    if run is not None:
        _run_devices(run, as_json)
        return
    home = Home.from_environment()
    trainers = devices.Trainers(home)
    if trainers.look():
        time.sleep(LOOK_SECONDS)  # CPU use is what was used between two looks
    working, found = trainers.look(), devices.snapshot(home)
    if as_json:
        render.document(jsonform.devices(found, working))
        return
    if found.simulated:
        render.line("SIMULATED: a recording plays the NVIDIA driver")
    for item in found.gpus:
        _gpu_lines(item)
    if found.gpu_note:
        render.line(found.gpu_note)
    render.line(f"CPU     {found.cpu_percent:.0f}% of {found.cpu_count} cores, load {found.load1:.2f}")
    render.line(f"memory  {size(found.memory_used)} of {size(found.memory_total)}")
    render.line(f"disk    {size(found.disk_free)} free of {size(found.disk_total)}")
    for one in working:
        render.line(trainer_words(one).strip())


def _run_devices(selector: str, as_json: bool) -> None:
    """What was recorded of the devices of a run."""
    from mmtui.domain.device_use import summary
    from mmtui.services import runs
    from mmtui.services.device_history import history

    home = Home.from_environment()
    found = history(home, runs.resolve(home, selector))
    if as_json:
        render.document(jsonform.run_devices(found))
        return
    if found.note:
        say(f"note: {found.note}")
    if found.simulated:
        render.line("SIMULATED: a recording plays the NVIDIA driver")
    rows = []
    for device in dict.fromkeys(record.device for record in found.records):
        told = summary(record.samples for record in found.records if record.device == device)
        memory = f"{size(told.memory_used)} of {size(told.memory_total)}"
        rows.append(
            (
                *(device, str(told.count), _or_na(told.utilisation, "%"), memory),
                *(_or_na(told.power_watts, " W"), _or_na(told.temperature, " C")),
                "n/a" if told.energy_joules is None else f"{told.energy_joules / 3.6e6:.3f} kWh",
            )
        )
    if rows:
        render.table(("device", "samples", "mean use", "most memory", "mean power", "most heat", "energy"), rows)


def _or_na(value: float | None, unit: str) -> str:
    return "n/a" if value is None else f"{value:.0f}{unit}"


def _gpu_lines(item: GpuView) -> None:
    if item.lost:
        render.line(f"GPU {item.index}  {item.name}  LOST: the driver does not reach it any more")
        return
    use = "n/a" if item.utilisation is None else f"{item.utilisation:.0f}%"
    heat = "" if item.temperature is None else f"  {item.temperature:.0f} C"
    power = "" if item.power_watts is None else f"  {item.power_watts:.0f} W"
    memory = f"{size(item.memory_used)} of {size(item.memory_total)}"
    if item.mig:
        render.line(f"GPU {item.index}  {item.name}  split into MIG devices  memory {memory}{power}{heat}")
        return
    what = f"  MIG device {item.uuid[:12]} of GPU {item.index}" if item.parent else f"GPU {item.index}"
    render.line(f"{what}  {item.name}  use {use}  memory {memory}{power}{heat}")
    for process in item.processes:
        whose = f"run {process.run}" if process.run else process.user
        render.line(f"         pid {process.pid}  {whose}  {size(process.memory)}")


def doctor(
    rebuild: Annotated[bool, option("--rebuild", help="make lost rows again from the folders of runs")] = False,
    fix: Annotated[bool, option("--fix", help="mend what can be mended without losing anything")] = False,
    as_json: JsonOption = False,
) -> int:
    """Check everything and say what to do; exit 1 if something is (with --fix: still) wrong."""
    from mmtui.services import doctor as service

    if rebuild and fix:
        raise UsageError("--rebuild and --fix are two deeds", "ask for one after the other")
    if rebuild:
        return _rebuild(as_json)
    if fix:
        from mmtui.services import mending

        for deed in mending.fix(Home.from_environment()):
            say(deed)
    render.use_default_settings_if_broken()  # doctor says what is wrong with the file
    found = service.checks(Home.from_environment())
    if as_json:
        body = [{"name": c.name, "ok": c.ok, "text": c.text, "fix": c.fix if c.ok is False else ""} for c in found]
        render.document({"checks": body})
    else:
        words = {True: "ok", None: "note", False: "FAULT"}
        colors = {True: "green", None: "yellow", False: "red"}
        for check in found:
            render.line((f"{words[check.ok]:6}", colors[check.ok]), f"{check.name:13}{check.text}")
            if check.ok is False and check.fix:
                render.line(f"{'':19}-> {check.fix}")
    return int(ExitCode.FAILED if any(check.ok is False for check in found) else ExitCode.OK)


def _rebuild(as_json: bool) -> int:
    """Rows of every run folder that the database does not know."""
    from mmtui.services.register import rebuild

    code, count, body = ExitCode.OK, 0, list[dict[str, str]]()
    for found in rebuild(Home.from_environment()):
        if found.problem:
            code = ExitCode.FAILED
            say(f"error: {found.folder}: {found.problem}")
        else:
            count += 1
        if as_json:
            told_of = {"id": found.run_id, "state": found.state, "problem": found.problem}
            body.append({"folder": as_text(str(found.folder)), **told_of})
        elif not found.problem:
            render.line(f"{found.run_id} {found.state}")
    if as_json:
        render.document({"folders": body})
    told = f"{count} run{'' if count == 1 else 's'} made again"
    say(told if count or code else "the database knows every run folder")
    return int(code)
