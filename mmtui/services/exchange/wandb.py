"""Offline runs of Weights & Biases, written through its own client; nothing is sent anywhere.

Look at them with ``wandb leet FOLDER/wandb``; send them with ``wandb sync``.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

from engine.outputs import left_behind, remove
from mmtui.domain.states import RunState
from mmtui.domain.views import RunDetail
from mmtui.errors import UsageError
from mmtui.paths import Home
from mmtui.services import runs
from mmtui.services.exchange.naming import WANDB
from mmtui.services.exchange.points import Account, points
from mmtui.services.exchange.wandb_check import check
from mmtui.services.output_files import unwritable

PROJECT = "mmtui"
_LEFT_BEHIND = re.compile(r"(\.mmtui-export)-([0-9]{1,10})-[0-9a-f]{8}")
SAME_STEP = "of a step at which the metric has a point of a later stage: W&B keeps one a step"


def _library() -> ModuleType:
    try:
        import wandb
    except ImportError:
        raise UsageError("this needs wandb", "install it: pip install 'mmtui[wandb]'") from None
    return wandb


def write(home: Home, ids: Sequence[str], target: Path) -> Account:
    """Write one offline run each below ``target/wandb``, all of them or none.

    The run's name in W&B comes from the id and the moment of queueing, so two exports of a run are one run there; here
    the later export takes the place of the earlier one. What else lies below ``target`` stays. Names that W&B keeps
    for itself are written as ``mmtui.services.exchange.naming`` says, and stand in the run's configuration under
    ``mmtui.metrics``.

    Raises:
        UsageError: W&B is not installed.
        UnreachableError: it cannot be written.
    """
    wandb = _library()
    settings = {"silent": True, "console": "off", "disable_git": True, "disable_code": True, "save_code": False}
    settings |= {"x_disable_stats": True, "x_disable_meta": True, "x_save_requirements": False}
    account = Account()
    with _beside(target) as folder:
        written = [_write_run(home, wandb, wandb.Settings(**settings), run_id, folder, account) for run_id in ids]
        for name, steps in written:
            check(_fresh(folder / "wandb", name), target, steps)
        for name, _ in written:
            _put_in_place(folder / "wandb", target / "wandb", name)
    return account


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A hidden folder within ``target`` to write into; it is gone at the end, and so is what was made for it."""
    made = [folder for folder in (target, *target.parents) if not folder.exists()]
    folder = target / f".mmtui-export-{os.getpid()}-{secrets.token_hex(4)}"
    for _, old in left_behind(target, _LEFT_BEHIND):
        remove(old)
    try:  # from before it is there: ctrl-C may come at any moment
        (target / "wandb").mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
        yield folder
    except OSError as error:
        raise unwritable(error, target) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # there is something in it: it stays
            for empty in [target / "wandb", *made]:
                empty.rmdir()


def _fresh(folder: Path, name: str) -> Path:
    """The offline run of a name, of which there is one."""
    (found,) = folder.glob(f"offline-run-*-{name}")
    return found


def _put_in_place(source: Path, target: Path, name: str) -> None:
    """Move the offline run of a name, then remove those of the same name that earlier exports have made."""
    fresh = _fresh(source, name)
    earlier = [folder for folder in target.glob(f"offline-run-*-{name}") if folder.name != fresh.name]
    if (target / fresh.name).exists():  # of the same second
        (target / fresh.name).rename(source / "earlier")
    fresh.rename(target / fresh.name)
    for folder in earlier:
        shutil.rmtree(folder)


def _write_run(
    home: Home, wandb: ModuleType, settings: object, run_id: str, folder: Path, account: Account
) -> tuple[str, int]:
    """Write one run; returns its name in W&B and the number of its steps."""
    detail = runs.get_run(home, run_id)
    row = detail.row
    name = f"mmtui-{run_id}-{round(row.created_at or 0)}"
    rows, names = _rows(home, run_id, account)
    theirs = wandb.init(
        project=PROJECT,
        name=row.name,
        id=name,
        tags=list(row.tags),
        config=_configuration(detail, names),
        mode="offline",
        dir=str(folder),
        settings=settings,
    )
    try:
        for step, time, values in rows:
            theirs.log({**values, "_timestamp": time}, step=step)
    finally:
        theirs.finish(exit_code=int(row.state == RunState.FAILED))
    return name, len(rows)


def _configuration(detail: RunDetail, names: dict[str, str]) -> dict[str, object]:
    row = detail.row
    ours = {"run": row.id, "recipe": row.recipe, "state": row.state, "metrics": names}
    return {"recipe": row.recipe, **detail.config, "mmtui": ours}


def _rows(
    home: Home, run_id: str, account: Account
) -> tuple[list[tuple[int, float, dict[str, float]]], dict[str, str]]:
    """What is logged at each step of the whole run, and {name in W&B: metric} where the two differ.

    W&B keeps together what was logged at one step, under one time: the latest.

    Returns:
        ([(step, Unix time, {name: value}), ...] by step, names)
    """
    values: dict[int, dict[str, float]] = defaultdict(dict)
    times: dict[int, float] = {}
    names: dict[str, str] = {}
    for point in points(home, run_id, account):
        name = WANDB.safe(point.metric)
        if name != point.metric:
            names[name] = point.metric
        if name in values[point.global_step]:
            account.points -= 1
            account.left_out[SAME_STEP] += 1
        values[point.global_step][name] = point.value
        times[point.global_step] = max(point.time, times.get(point.global_step, 0.0))
    return [(step, times[step], values[step]) for step in sorted(values)], names
