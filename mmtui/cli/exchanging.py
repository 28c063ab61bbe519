"""Verbs that take runs elsewhere and bring them back: export, import."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from mmtui.cli import render
from mmtui.cli.diagnostics import say
from mmtui.cli.options import Argument, QuietOption, RunsArgument, option
from mmtui.domain.text import size
from mmtui.errors import UnreachableError, UsageError
from mmtui.paths import Home

if TYPE_CHECKING:
    from mmtui.services.exchange.capsule import Contents

FORMATS = ("csv", "jsonl", "parquet", "tensorboard", "mlflow", "wandb", "capsule")


def export(
    runs: RunsArgument,
    to: Annotated[str, option("--to", "-t", help="csv, jsonl, parquet, tensorboard, mlflow, wandb or capsule")],
    output: Annotated[
        str, option("--output", "-o", help="file (tensorboard, wandb: a folder; mlflow: an SQLite file)")
    ],
) -> None:
    """Write runs for other tools, or one finished run whole: mmtui export @ --to capsule -o best.tar"""
    from mmtui.services import runs as lookup

    if to not in FORMATS:
        raise UsageError(f"--to {to}: write one of {', '.join(FORMATS)}")
    home, target = Home.from_environment(), Path(output).expanduser().absolute()
    ids = list(dict.fromkeys(lookup.resolve(home, selector) for selector in runs))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        text = _write(home, ids, to, target)
    except OSError as error:
        raise UnreachableError(f"{target} cannot be written: {error.strerror or error}") from None
    render.line(str(target))
    say(text)


def _write(home: Home, ids: list[str], to: str, target: Path) -> str:
    from mmtui.services.exchange import capsule, mlflow, tables, tensorboard, wandb

    if to == "capsule":
        if len(ids) > 1:
            raise UsageError("a capsule holds one run", "export them one by one")
        return (
            f"run {ids[0]}, {size(capsule.export(home, ids[0], target))}; take it in elsewhere with: mmtui import FILE"
        )
    if to == "tensorboard":
        return f"{tensorboard.write(home, ids, target)} points; look at them with: tensorboard --logdir {target}"
    if to == "mlflow":
        look = f"mlflow server --backend-store-uri sqlite:///{target}"
        return f"{mlflow.write(home, ids, target)} points; look at them with: {look}"
    if to == "wandb":
        return f"{wandb.write(home, ids, target)} points; look at them with: wandb leet {target / 'wandb'}"
    write = {"csv": tables.to_csv, "jsonl": tables.to_jsonl, "parquet": tables.to_parquet}[to]
    return f"{write(home, ids, target)} points of {len(ids)} run{'' if len(ids) == 1 else 's'}"


def import_(
    source: Annotated[str, Argument("a capsule, an events.jsonl, or a folder of TensorBoard event files")],
    name: Annotated[str, option("--name", help="name of the run (events and TensorBoard; default: the folder's)")] = "",
    quiet: QuietOption = False,
) -> None:
    """Take in a run from elsewhere; a capsule that is here already changes nothing."""
    from mmtui.services.exchange import capsule, foreign

    home, path = Home.from_environment(), Path(source).expanduser().absolute()
    if path.suffix == ".jsonl" or path.is_dir() or "tfevents" in path.name:
        run_id, new = foreign.take_in(home, path, name), True
    else:
        if not quiet:
            say(_holds(capsule.look(path)))
        run_id, new = capsule.take_in(home, path)
    render.line(run_id)
    if not quiet:
        say(f"{'taken in as' if new else 'it is here already:'} run {run_id}; see: mmtui show {run_id}")


def _holds(found: Contents) -> str:
    """What a capsule holds, before anything of it is placed."""
    code = "no code"
    if found.code:
        code = "the code of this installation" if found.is_own_code else f"code of its own (SHA-256 {found.code})"
    kept = "" if found.is_own_code or not found.code else "\n  its code is kept apart and runs only if you ask for it"
    return f"a capsule of run '{found.name}', {found.state}: {found.files} files, {size(found.size)}, {code}{kept}"
