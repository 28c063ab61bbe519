"""``python -m engine``: train a recipe, check a recipe or a data set, draw pictures of runs. Works without mmtui."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from engine import pictures_cli, weights_cli
from engine.config import Recipe, RecipeFileError, load_recipe
from engine.config.forking import Place, parse_place
from engine.config.needs import unnamed
from engine.config.schema import stored_recipe
from engine.config.smoke import smoke_overrides
from engine.errors import EngineError, RecipeError, disk_full_text
from engine.events import EventWriter, Heartbeat, SilentWriter, attempt_numbers
from engine.paths import expanded, is_folder
from engine.run_folder import claimed
from engine.streams import complain, spell_out, wait_for_room
from engine.text import curtailed
from engine.utf8_mode import begin_in_utf8_mode

EXIT_STOPPED = 143
PR_SET_PDEATHSIG = 1
_SHIPPED = Path(__file__).resolve().parent.parent / "recipes"
FOLDERS = [Path("recipes"), _SHIPPED, _SHIPPED / "studies"]
"""Where recipe names are looked up."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and do what it says; returns the exit code."""
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # else trainers that share cores spin in each other's way
    wait_for_room()
    spell_out()
    parser = _parser()
    options = parser.parse_args(arguments)
    if not hasattr(options, "recipe"):
        return int(options.command(options))
    name = options.recipe or options.name
    if not name:
        parser.error("give a recipe: a YAML file, or the name of a recipe")
    try:
        overrides = list(options.set)
        if getattr(options, "smoke", False):
            overrides = [*smoke_overrides(load_recipe(name, overrides, FOLDERS)), *overrides]
        recipe = _load(name, overrides, getattr(options, "run_dir", None))
    except RecipeFileError as error:
        complain(str(error))
        return RecipeError.exit_code
    command: Callable[[Recipe, argparse.Namespace], int] = options.command
    return command(recipe, options)


def _load(name: str, overrides: list[str], run_dir: Path | None) -> Recipe:
    """A recipe; one that a run has begun with is not held to rules that are younger than the run."""
    try:
        return load_recipe(name, overrides, FOLDERS)
    except RecipeFileError:
        kept = _kept(run_dir) if run_dir is not None else []
        if kept and (found := load_recipe(name, overrides, FOLDERS, stored=True)) in kept:
            return found
        raise


def _kept(run_dir: Path) -> list[Recipe]:
    """The recipes that a run's checkpoints were made with."""
    found = []
    for file in run_dir.glob("checkpoints/*/*/meta.json"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            found.append(stored_recipe(json.loads(file.read_text())["recipe"]))
    return found


class _Parser(argparse.ArgumentParser):
    """Errors repeat what was typed, which may be a number of thousands of digits."""

    def error(self, message: str) -> NoReturn:
        super().error(curtailed(message))


def _attempt(text: str) -> int:
    """The number of an attempt; 0 = the next."""
    if not re.fullmatch("[0-9]{1,15}", text):
        raise argparse.ArgumentTypeError(f"write a whole number from 1 on, not {text}")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m engine", description="Mix-and-Match training engine")
    commands = parser.add_subparsers(required=True)
    for name, command, text in (
        ("train", train_command, "train a recipe in a run directory, going on from its checkpoints"),
        ("check-recipe", check_recipe_command, "resolve a recipe and print it as JSON"),
        ("probe", probe_command, "take a few steps of each stage and tell the time and memory they need"),
        ("check-data", check_data_command, "read every file of the recipe's data set and report"),
    ):
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=command)
        sub.add_argument("name", nargs="?", metavar="RECIPE", help="YAML file or recipe name")
        sub.add_argument("--recipe", help="the same, as an option")
        sub.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one key")
        if name == "probe":
            sub.add_argument("--json", action="store_true", help="print one JSON object")
        if name == "train":
            sub.add_argument("--run-dir", required=True, type=Path, help="folder of the run")
            sub.add_argument("--attempt", type=_attempt, default=0, help="number of this attempt (default: the next)")
            sub.add_argument("--smoke", action="store_true", help="two steps of each stage, few images, a thin network")
            sub.add_argument("--stage-cache", type=Path, help="folder of outputs that runs share (default: none)")
            sub.add_argument(
                "--from",
                dest="origin",
                metavar="RUN_DIR[@STEP]",
                help="begin at the newest checkpoint of another run, at or before that step of the whole run; or at its"
                " best one: RUN_DIR@best",
            )
            sub.add_argument("--probe", action="store_true", help="measure first what the recipe needs")
            sub.add_argument("--quiet", action="store_true", help="no progress lines")
    pictures_cli.add_parser(commands)
    weights_cli.add_parser(commands)
    return parser


def train_command(recipe: Recipe, options: argparse.Namespace) -> int:
    """Train, with every outcome written to the event file before the process leaves."""
    run_dir: Path = options.run_dir.absolute()
    end_with_parent()
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        stop = StopSignal()
        if int(os.environ.get("RANK", "0")) > 0:
            # One of several processes that torchrun has started: rank 0 alone writes.
            return _train(recipe, run_dir, SilentWriter(), 1, stop, lambda _line: None, options)
        if not _lock(run_dir):
            complain(f"another process is training in {run_dir}: wait for it, or use another --run-dir")
            return 1
        numbers = attempt_numbers(run_dir)
        attempt = options.attempt or (numbers[-1] + 1 if numbers else 1)
        writer = EventWriter.open_for_attempt(run_dir, attempt)
    except OSError as error:
        complain(disk_full_text(error, Path(error.filename or run_dir), "the file"))
        return 1
    echo = (lambda _line: None) if options.quiet else _print
    with Heartbeat(writer), claimed(run_dir):
        if options.probe:
            _probe(writer, Path(options.recipe or options.name))
        return _train(recipe, run_dir, writer, attempt, stop, echo, options)


def _probe(writer: EventWriter, recipe_file: Path) -> None:
    """Measure what the recipe needs, for the queue; a measurement that fails costs the run nothing."""
    from engine.probe import probe_in_child

    writer.emit("progress", {"text": "measuring time and memory", "done": 0, "total": 1})
    try:
        writer.emit("probe", probe_in_child(recipe_file))
    except EngineError as error:
        writer.emit("warning", {"text": str(error)})
    writer.emit("progress", {"text": "measuring time and memory", "done": 1, "total": 1})


def end_with_parent() -> None:
    """A worker of torchrun ends when torchrun is killed: it has a session of its own, which no signal reaches."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == 1:
        os._exit(1)  # it died before the kernel was told


def _lock(run_dir: Path) -> bool:
    """Keep every other trainer out of the run directory until this process ends; False if one is at work there."""
    descriptor = os.open(run_dir / "engine.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    # The descriptor stays open on purpose: the lock lives as long as it does.
    return True


def _train(
    recipe: Recipe,
    run_dir: Path,
    writer: EventWriter,
    attempt: int,
    stop: StopSignal,
    echo: Callable[[str], None],
    options: argparse.Namespace,
) -> int:
    try:
        fork = _fork(options.origin)
        # torch takes seconds to import: a bad recipe or option must be told before that.
        from engine import dist
        from engine.loop import train

        status = train(recipe, run_dir, writer, attempt, stop.requested, echo, options.stage_cache, fork)
        # Only after a success: a process that has failed must not wait for the others.
        dist.finish()
    except EngineError as error:
        _fail(writer, str(error), type(error).__name__)
        return error.exit_code
    except OSError as error:
        _fail(writer, disk_full_text(error, Path(error.filename or run_dir), "the file"), type(error).__name__)
        return 1
    except Exception as error:
        _say(traceback.format_exc())
        _fail(writer, f"{type(error).__name__}: {error}", type(error).__name__)
        return 1
    writer.emit("run_finished", {"status": status})
    return 0 if status == "succeeded" else EXIT_STOPPED


def _fork(text: str | None) -> tuple[Path, Place] | None:
    """Folder and step of ``--from``.

    Raises:
        RecipeError: there is no such folder.
    """
    if not text:
        return None
    name, step = (text, None) if is_folder(expanded(text)) else parse_place(text)
    folder = expanded(name).absolute()
    if not is_folder(folder):
        raise RecipeError(
            f"--from {text}: there is no run directory {folder}; write RUN_DIR, RUN_DIR@STEP or RUN_DIR@best"
        )
    return folder, step


def _fail(writer: EventWriter, text: str, kind: str) -> None:
    """Tell the reason on stderr and in the event file; a full disk may refuse the latter."""
    complain(text)
    try:
        writer.emit("error", {"text": text, "type": kind})
        writer.emit("run_finished", {"status": "failed"})
    except OSError as error:
        complain(f"the event file could not be written: {error.strerror or error}")


class StopSignal:
    """SIGTERM or SIGINT: finish the step, checkpoint, leave. A second one ends the process at once.

    Under torchrun a worker hears of one wish twice: from whoever signals all processes, and from torchrun.
    """

    _patience = 5.0 if "TORCHELASTIC_RUN_ID" in os.environ else 0.0

    def __init__(self) -> None:
        self._requested = False
        self._first = 0.0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self._requested and time.monotonic() - self._first < self._patience:
            return
        if self._requested:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._requested, self._first = True, time.monotonic()

    def requested(self) -> bool:
        """Whether the run was asked to leave."""
        return self._requested


def check_recipe_command(recipe: Recipe, _options: argparse.Namespace) -> int:
    """Print the resolved recipe; on stderr, which folders it still has to be told."""
    _print(json.dumps(recipe.model_dump(mode="json"), indent=2))
    for key, meaning in unnamed(recipe):
        _say(f"not ready: {key} is empty: add --set {key}=FOLDER, {meaning}")
    return 0


def probe_command(recipe: Recipe, options: argparse.Namespace) -> int:
    """Print what a few real steps need."""
    try:
        from engine.loop import choose_device
        from engine.probe import probe
        from engine.saving import device_words

        device = choose_device(recipe)
        found = probe(recipe, device)
    except EngineError as error:
        complain(str(error))
        return error.exit_code
    if options.json:
        _print(json.dumps({**found, "device": device_words(device)}))
        return 0
    for stage, values in found["stages"].items():
        rate = values.get("seconds_per_step")
        words = f"{values['seconds']:.2f} s in all" if rate is None else f"{rate * 1000:.1f} ms a step"
        _print(f"{stage:10} {words}")
    _print(f"memory     {found['peak_bytes'] / 2**30:.2f} GiB at most on {device_words(device)}")
    return 0


def check_data_command(recipe: Recipe, _options: argparse.Namespace) -> int:
    """Print what is in the data set and in the proxy task's folder; 1 if something is wrong with them."""
    from engine.data import pictures
    from engine.data.check import format_report, summarise
    from engine.data.progress import Paced, terminal_line

    try:
        progress = Paced(terminal_line) if sys.stderr.isatty() else None
        pictures.allow(recipe.runtime.max_megapixels)
        report = summarise(recipe.data, progress, recipe.proxy, recipe.seed)
    except EngineError as error:
        complain(str(error))
        return error.exit_code
    _print(format_report(report))
    return 1 if report.problems else 0


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _leave(code: int) -> NoReturn:
    """End this process; one of several without Python's own farewell.

    DistributedDataParallel keeps the threads of a group alive beyond ``destroy_process_group`` (torch 2.13). One that
    is only then given its next turn drops a tensor of Python's, for which it needs the interpreter that is being taken
    down: C++ aborts the process, and torchrun calls a training failed that has ended well.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        sys.exit(code)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # its reader is gone, closed, or none at all
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    begin_in_utf8_mode()
    _leave(main())
