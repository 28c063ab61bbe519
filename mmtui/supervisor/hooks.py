"""The user's own commands, run when a run has ended. No shell: the words are what the settings file says."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Mapping, Sequence

from mmtui.domain.states import RunState
from mmtui.paths import Home
from mmtui.settings import SettingsError, load
from mmtui.store.reader import Reader

SECONDS = 60.0
"""A hook that takes longer is killed."""

logger = logging.getLogger(__name__)


class Hooks:
    """Starts hooks and looks after them; one that fails is told in the supervisor's log, and changes nothing else."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.running: list[tuple[subprocess.Popen[bytes], float]] = []

    def ended(self, reader: Reader, run_id: int, now: float) -> None:
        """Run the command for what became of a run, if there is one."""
        found = reader.run(run_id)
        if found is None or found.row.state not in (RunState.SUCCEEDED, RunState.FAILED, RunState.INTERRUPTED):
            return
        try:
            settings = load(self.home.config)
        except SettingsError as error:
            logger.error("no hook is run: %s", error)
            return
        command = settings.on_finish if found.row.state == RunState.SUCCEEDED else settings.on_failure
        if not command:
            return
        row = found.row
        values = {
            "MMTUI_HOME": str(self.home.root),
            "MMTUI_RUN_ID": row.id,
            "MMTUI_NAME": row.name,
            "MMTUI_RECIPE": row.recipe,
            "MMTUI_STATE": row.state,
            "MMTUI_REASON": row.reason,
            "MMTUI_STAGE": row.stage,
            "MMTUI_RUN_DIR": found.paths["run"],
            **{f"MMTUI_{name.upper()}": "" if value is None else f"{value:.6g}" for name, value in row.metrics.items()},
        }
        self._start(run_id, command, values, now)

    def _start(self, run_id: int, command: Sequence[str], values: Mapping[str, str], now: float) -> None:
        paths = self.home.run(str(run_id))
        # A null byte cannot be handed to a process, and a name may hold one.
        environment = {**os.environ, **{key: value.replace("\0", "") for key, value in values.items()}}
        # It starts in the run's folder, where files of a capsule may lie: Python must not look there for modules.
        environment["PYTHONSAFEPATH"] = "1"
        try:
            with (paths.root / "hook.log").open("ab") as log:
                child = subprocess.Popen(
                    list(command),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment,
                    cwd=paths.root,
                    start_new_session=True,
                )
        except OSError as error:
            logger.error("run %d: the hook %s cannot be run: %s", run_id, command[0], error.strerror or error)
            return
        self.running.append((child, now))

    def look_after(self, now: float) -> None:
        """Collect hooks that have ended and kill those that hang."""
        left = []
        for child, began in self.running:
            code = child.poll()
            if code is None and now - began > SECONDS:
                child.kill()
                logger.error("a hook (pid %d) was killed after %.0f s", child.pid, SECONDS)
            if code is None:
                left.append((child, began))
            elif code:
                logger.error("a hook (pid %d) left with code %d; see hook.log of its run", child.pid, code)
        self.running = left
