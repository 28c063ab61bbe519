"""Verbs that take runs elsewhere and bring them back: export, import."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from engine.paths import expanded
from mmtui.cli import render
from mmtui.cli.diagnostics import say
from mmtui.cli.outputs import ForceOption, allowed, announce, output_path
from mmtui.domain.options import Argument, QuietOption, RunsArgument, option
from mmtui.domain.text import size
from mmtui.errors import UsageError
from mmtui.paths import Home

if TYPE_CHECKING:
    from mmtui.services.exchange.capsule import Contents

FORMATS = ("csv", "jsonl", "parquet", "tensorboard", "mlflow", "wandb", "capsule")


def export(
    runs: RunsArgument,
    to: Annotated[str, option("--to", "-t", help="csv, jsonl, parquet, tensorboard, mlflow, wandb or capsule")],
    output: Annotated[
        str,
        option(
            "--output",
            "-o",
            help="file (tensorboard, wandb: a folder; mlflow: an SQLite file; csv, jsonl: - for stdout)",
        ),
    ],
    force: ForceOption = False,
) -> None:
    """Write runs for other tools, or one finished run whole: mmtui export @ --to capsule -o best.tar"""
    from mmtui.services import runs as lookup

    if to not in FORMATS:
        raise UsageError(f"--to {to}: write one of {', '.join(FORMATS)}")
    home, target = Home.from_environment(), output_path(output, stdout=to in ("csv", "jsonl"))
    ids = list(dict.fromkeys(lookup.resolve(home, selector) for selector in runs))
    if to == "capsule" and len(ids) > 1:
        raise UsageError("a capsule holds one run", "export them one by one")
    text = _write(home, ids, to, target, _agreed(home, to, target, force))
    announce(target)
    say(text)


def _agreed(home: Home, to: str, target: Path, force: bool) -> bool:
    """Whether what is there may be written over, asked before anything is computed. Folders of runs are looked at one
    by one as they are written, and a store of MLflow is added to."""
    from mmtui.services.exchange import capsule, mlflow, places, tables
    from mmtui.services.written import unchanged

    places.check(to, target)
    if to == "mlflow":
        mlflow.check(target, force=force)
    looks_ours = capsule.is_capsule if to == "capsule" else tables.IS_OURS.get(to)
    return force if looks_ours is None else allowed(target, force=force, is_ours=unchanged(home, looks_ours))


def _write(home: Home, ids: list[str], to: str, target: Path, force: bool) -> str:
    """Write the runs; returns what is said of it."""
    from mmtui.services.exchange import capsule, mlflow, tables, tensorboard, wandb

    if to == "capsule":
        written = size(capsule.export(home, ids[0], target, force=force))
        return f"run {ids[0]}, {written}; take it in elsewhere with: mmtui import FILE"
    if to == "tensorboard":
        account, after = tensorboard.write(home, ids, target, force=force), f"tensorboard --logdir {target}"
    elif to == "mlflow":
        account = mlflow.write(home, ids, target, force=force)
        after = f"mlflow server --backend-store-uri sqlite:///{target}"
    elif to == "wandb":
        account, after = wandb.write(home, ids, target), f"wandb leet {target / 'wandb'}"
    else:
        write = {"csv": tables.to_csv, "jsonl": tables.to_jsonl, "parquet": tables.to_parquet}[to]
        account, after = write(home, ids, target, force=force), ""
    told = f"; look at them with: {after}" if after else f" of {len(ids)} run{'' if len(ids) == 1 else 's'}"
    return "\n".join([f"{account.points} points{told}", *account.lines()])


def import_(
    source: Annotated[str, Argument("a capsule, an events.jsonl, or a folder of TensorBoard event files")],
    name: Annotated[str, option("--name", help="name of the run (events and TensorBoard; default: the folder's)")] = "",
    quiet: QuietOption = False,
) -> None:
    """Take in a run from elsewhere, or one for each folder of TensorBoard's; a capsule that is here already changes
    nothing."""
    from mmtui.services import run_history
    from mmtui.services.exchange import capsule

    home, path = Home.from_environment(), expanded(source).absolute()
    if path.suffix == ".jsonl" or path.is_dir() or "tfevents" in path.name:
        _import_logs(home, path, name, quiet)
        return
    if not quiet:
        say(_holds(capsule.look(path)))
    run_id, new = capsule.take_in(home, path)
    render.line(run_id)
    for text in run_history.line_warnings(home, run_id) if new else ():
        say(f"warning: {text}")
    if not quiet:
        say(f"{'taken in as' if new else 'it is here already:'} run {run_id}; see: mmtui show {run_id}")


def _import_logs(home: Home, path: Path, name: str, quiet: bool) -> None:
    """Take in what another trainer logged. What was left out is told even if nothing else is to be."""
    from mmtui.cli.progress import work_bar
    from mmtui.services.exchange import importing

    with work_bar(f"importing {path.name}", quiet=quiet) as progress:
        imports = importing.take_in(home, path, name, progress)
    found = imports.runs
    for run in found:
        render.line(run.run_id)
    several = len(found) > 1
    for run in found:
        for note in run.notes:
            say(f"warning: {f'run {run.run_id} ({run.name}): ' if several else ''}{note}")
    for text in imports.empty:
        say(f"warning: {text}")
    if not quiet:
        ids = [run.run_id for run in found]
        say(f"taken in as run{'s' if several else ''} {', '.join(ids)}; see: mmtui show {ids[0]}")


def _holds(found: Contents) -> str:
    """What a capsule holds, before anything of it is placed."""
    code = "no code"
    if found.code:
        code = "the code of this installation" if found.is_own_code else f"code of its own (SHA-256 {found.code})"
    kept = "" if found.is_own_code or not found.code else "\n  its code is kept apart and runs only if you ask for it"
    return f"a capsule of run '{found.name}', {found.state}: {found.files} files, {size(found.size)}, {code}{kept}"
