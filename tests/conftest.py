"""Every test has its own data directory and an environment that does not depend on who runs it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from mmtui.paths import Home
from tests import inputs, last_words, process_state, second_tries, starters, waiting

ROOT = Path(__file__).resolve().parent.parent
GROUPS = ("e2e", "tui", "numerics", "slurm")
"""Folders of tests/ whose tests carry the folder's name as a marker."""

_FOREIGN = ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "COLUMNS", "LINES")
_OURS = (
    "MMTUI_TEST_DATA",
    "MMTUI_TEST_PATIENCE",
    "MMTUI_REQUIRE_GROUPS",
    "MMTUI_SECOND_TRIES",
    "MMTUI_MOST_SECOND_TRIES",
)
"""Variables that are for the tests themselves; every other MMTUI_ variable is taken away."""


@pytest.fixture(autouse=True)
def private_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """``MMTUI_HOME`` of the test: a fresh folder that is not made yet; colours and terminal as in a plain session."""
    root = tmp_path_factory.mktemp("home") / "mmtui"
    for name in (*_FOREIGN, *(name for name in os.environ if name.startswith("MMTUI_") and name not in _OURS)):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MMTUI_HOME", str(root))
    monkeypatch.setenv("TERM", "xterm-256color")
    yield root
    if root.exists():
        _end_processes(Home(root))


def _end_processes(home: Home) -> None:
    """End what a test has left: its supervisors first, which would start trainers again, then recorded trainers.

    Not only the supervisor that holds the lock: one that is still starting would take it as soon as it is free.
    """
    from mmtui.services.launch import identity
    from mmtui.services.supervisors import holder

    serving, _ = holder(home)
    for each in {*_supervisors(home), *([serving] if serving and serving > 0 else [])} - {os.getpid()}:
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)
    for file in home.runs.glob("*/attempts/*/pid"):
        with contextlib.suppress(OSError, ValueError):
            pid, known = int(file.read_text().split()[0]), file.read_text().split()[1]
            if pid > 1 and identity(pid) in (
                known,
                None,
            ):  # None: the leader is dead, and its group keeps the number from others
                os.killpg(pid, signal.SIGKILL)


def _supervisors(home: Home) -> list[int]:
    """Process ids of what serves a data directory or is about to, by command and environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            command = (folder / "cmdline").read_bytes().split(b"\0")
            variables = (folder / "environ").read_bytes().split(b"\0") if b"mmtui.supervisor" in command else []
            if f"MMTUI_HOME={home.root}".encode() in variables:
                found.append(int(folder.name))
    return found


@pytest.fixture
def home(private_home: Path) -> Home:
    """The test's data directory."""
    return Home(private_home)


@pytest.fixture(scope="session")
def seeded_once(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A data directory with the runs of ``seed_store``, which nobody writes to."""
    from tests.tui.seed_store import seed_store

    home = Home(tmp_path_factory.mktemp("seeded") / "home").create()
    seed_store(home, time.time())
    return home


@pytest.fixture
def seeded_copy(seeded_once: Home, private_home: Path) -> Home:
    """The test's data directory, with the same runs."""
    shutil.copytree(seeded_once.root, private_home, dirs_exist_ok=True)
    return Home(private_home)


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the trial data sets: ``MMTUI_TEST_DATA``, else ``shared/data`` beside the checkout; skips without."""
    folder = Path(os.environ.get("MMTUI_TEST_DATA", "") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no trial data sets at {folder}; set MMTUI_TEST_DATA")
    return folder


@pytest.fixture
def populated(home: Home, populated_once: Home) -> Home:
    """A data directory of the test's own with three runs and no supervisor: see ``populated_once``."""
    shutil.copytree(populated_once.root, home.root)
    return home


@pytest.fixture(scope="session")
def populated_once(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Made once and copied for each test that wants it.

    1: succeeded, loss at steps 1 to 4, two evaluations (class "bike" is in neither truth nor prediction)
    2: failed, with control characters in its name and error
    3: held, a real recipe
    """
    # Imported here: most tests need no SQL, and it takes most of a second to load.
    from mmtui.domain.states import RunEvent
    from mmtui.services import queue
    from mmtui.services.ingest import ingest_file
    from mmtui.store.db import Database
    from mmtui.store.runs import NewRun, begin_attempt, insert_run, transition

    home = Home(tmp_path_factory.mktemp("populated") / "mmtui").create()
    stages = (("segment", 4), ("evaluate", 1))
    database = Database(home)
    try:
        for name, events, end, error in (
            ("good", _good_events(), RunEvent.EXIT_OK, ""),
            ("evil\x1b[31m\x07", _started(), RunEvent.EXIT_ERROR, "no\x1b]0;title\x07 memory"),
        ):
            with database.write() as session:
                new = NewRun(name, "shapes_baseline", 7, {"seed": 7}, ("seed=7",), {"digest": "abc"}, stages, ("demo",))
                run_id = insert_run(session, new)
                number = begin_attempt(session, run_id, ["cpu:0"], "here")
            path = home.run(str(run_id)).events(number)
            path.parent.mkdir(parents=True)
            path.write_text("".join(events))
            home.run(str(run_id)).log(number).write_text("first line\nsecond \x1b[2Jline\n")
            ingest_file(database, path, run_id, number, 0)
            with database.write() as session:
                transition(session, run_id, end, error=error, ended_at=1100.0)
    finally:
        database.close()
    queue.enqueue(home, "shapes_baseline", ["segment.steps=20"], name="third", hold=True)
    return home


def _event(seq: int, kind: str, step: int, values: dict[str, object], stage: str = "segment") -> str:
    event = {"v": 1, "seq": seq, "t": 1000.0 + seq, "kind": kind, "stage": stage, "step": step, "global_step": step}
    return json.dumps({**event, "values": values}) + "\n"


def _started() -> list[str]:
    stages = [["segment", 4], ["evaluate", 1]]
    return [_event(1, "run_started", 0, {"stages": stages, "resumed_global_step": 0, "device": "cpu"}, "")]


def _good_events() -> list[str]:
    names = ["road", "car", "bike"]
    return [
        *_started(),
        _event(2, "stage_started", 0, {"total_steps": 4, "offset": 0}),
        *(_event(2 + step, "metrics", step, {"loss": 1 / step, "lr": 0.1}) for step in range(1, 5)),
        _event(7, "confusion", 2, {"matrix": [[5, 5, 0], [5, 5, 0], [0, 0, 0]], "classes": names, "split": "val"}),
        _event(8, "confusion", 4, {"matrix": [[8, 2, 0], [1, 9, 0], [0, 0, 0]], "classes": names, "split": "val"}),
        _event(9, "stage_finished", 4, {"seconds": 4.0}),
        _event(10, "run_finished", 4, {"status": "succeeded"}, ""),
    ]


@pytest.hookimpl(tryfirst=True)  # before pytest-timeout reads its limit
def pytest_configure(config: pytest.Config) -> None:
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        # A shell without job control starts what it leaves in the background deaf to them, and so would be every
        # process that a test starts, and interrupts.
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    settings.register_profile("mmtui", deadline=None)  # no test is about how long something takes
    settings.load_profile("mmtui")
    config.addinivalue_line("markers", "tui: drives the full-screen program")
    config.addinivalue_line("markers", "terminal: runs a program in a pseudo-terminal")
    config.addinivalue_line("markers", "processes: starts processes of its own; the others are make quick")
    config.addinivalue_line("markers", "numerics: checks a formula against an oracle")
    config.addinivalue_line("markers", "xdist_group(name): tests of a group run one after the other")
    if not config.pluginmanager.has_plugin("tests.second_tries"):
        config.pluginmanager.register(second_tries, "tests.second_tries")
        config.pluginmanager.register(inputs, "tests.inputs")
        config.pluginmanager.register(last_words, "tests.last_words")
    if config.getoption("timeout", None) is None:
        config.option.timeout = float(config.getini("timeout")) * waiting.FACTOR


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist looks for groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if waiting.FACTOR != 1 and (limit := item.get_closest_marker("timeout")) is not None:
            item.add_marker(pytest.mark.timeout(limit.args[0] * waiting.FACTOR), append=False)
        for group in GROUPS:
            if (ROOT / "tests" / group) in item.path.parents:
                item.add_marker(group)
        if item.get_closest_marker("e2e") is not None:
            item.add_marker(pytest.mark.xdist_group(_group(item)))
        if starters.run_in_a_terminal(item):
            item.add_marker("terminal")
        if starters.start_processes(item) or any(
            item.get_closest_marker(name) is not None for name in ("e2e", "slurm")
        ):
            item.add_marker("processes")


def _group(item: pytest.Item) -> str:
    """Tests that start supervisors and trainers would slow each other down, all side by side; one after the other they
    would be what everything waits for. Those of SLURM have one cluster."""
    if item.get_closest_marker("slurm") is not None:
        return "slurm"
    return "e2e" if (ROOT / "tests" / "e2e") in item.path.parents else "e2e-units"


def pytest_collection_finish(session: pytest.Session) -> None:
    """Groups are part of the names by which pytest-xdist hands tests out: some releases of pytest lose them."""
    grouped = (item for item in session.items if item.get_closest_marker("xdist_group") is not None)
    if getattr(session.config.option, "loadgroup", False) and not all("@" in item.nodeid for item in grouped):
        raise pytest.UsageError("pytest and pytest-xdist do not go together: groups of tests would be torn apart")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Iterator[None]:
    """The entry points set signal handlers; a test process with another's would be ended by a pipe that breaks."""
    yield
    process_state.restore()


_ran: Counter[str] = Counter()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" and report.outcome != "skipped":
        _ran.update(group for group in GROUPS if report.nodeid.startswith(f"tests/{group}/"))


def _groups_that_ran_nothing(config: pytest.Config) -> list[str]:
    """Of the groups that ``MMTUI_REQUIRE_GROUPS`` names (comma separated), those without a test that ran."""
    required = os.environ.get("MMTUI_REQUIRE_GROUPS", "").split(",")
    return [] if hasattr(config, "workerinput") else [group for group in required if group and not _ran[group]]


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _groups_that_ran_nothing(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for group in _groups_that_ran_nothing(config):
        terminalreporter.write_line(f"FAILED: no test of the group '{group}' ran, so it shows nothing", red=True)
