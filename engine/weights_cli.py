"""``python -m engine weights``: look into weight files, take networks out of runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TypeVar

from engine.config.best import split
from engine.errors import EngineError
from engine.outputs import error_text
from engine.streams import complain

LARGEST_SIDE = 65_536
"""Of an exported network's input, pixels."""

Parser = TypeVar("Parser", bound=argparse.ArgumentParser)


def add_parser(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add the verb and its two actions."""
    text = "look into a weight file, or export the network of a run"
    actions = commands.add_parser("weights", help=text, description=text).add_subparsers(required=True)
    inspect = actions.add_parser("inspect", help="which keys of a file would fill which of a backbone")
    inspect.add_argument("file", type=Path)
    inspect.add_argument("--backbone", default="vgg16", help="our name of the network (model.backbone)")
    inspect.add_argument("--input", default="rgb", choices=["rgb", "rgb255", "gray"], help="model.input")
    inspect.add_argument("--width", type=float, default=1.0, help="model.width, the channel multiplier")
    inspect.add_argument("--dilated", action="store_true", help="model.dilated: ResNets of output stride 8")
    inspect.add_argument("--partial", action="store_true", help="model.weights_partial: a part is enough")
    inspect.set_defaults(command=inspect_command)
    export = actions.add_parser("export", help="write a run's backbone or its whole segmenter to a file")
    export.add_argument(
        "--run-dir", required=True, metavar="RUN_DIR[@best]", help="the run; RUN_DIR@best: its best checkpoint"
    )
    export.add_argument("--out", type=Path, required=True, help="the file; its card is FILE.json")
    export.add_argument("--format", default="safetensors", choices=["safetensors", "torch-export"])
    export.add_argument("--side", type=int, default=256, help="torch-export: side of the input, pixels")
    export.add_argument("--force", action="store_true", help="write over files that no export has made")
    export.set_defaults(command=export_command)


def inspect_command(options: argparse.Namespace) -> int:
    """Print the report of every key; 1 if training would refuse the file, 2 if there is no such network."""
    from pydantic import ValidationError

    from engine.config.backbones import OWN, is_timm, unknown_timm_name
    from engine.config.schema import ModelConfig
    from engine.models import build_backbone
    from engine.models.weights import match_weights

    if not 0 < options.width <= 4:
        return _refused(f"--width {options.width:g}: write a number above 0, at most 4", 2)
    names = ("backbone", "input", "width", "dilated")
    try:
        config = ModelConfig(**{name: getattr(options, name) for name in names})
    except ValidationError:
        near = unknown_timm_name(options.backbone) if is_timm(options.backbone) else ""
        return _refused(near or f"no backbone '{options.backbone}'; write one of {', '.join(OWN)}, or timm/NAME", 2)
    try:
        backbone = build_backbone(config)
        report, _ = match_weights(backbone, options.backbone, options.file, options.input)
    except EngineError as error:
        return _refused(str(error), error.exit_code)
    sys.stdout.write("\n".join(report.lines()) + "\n")
    if report.fits(partial=options.partial):
        return 0
    some = ": --partial and model.weights_partial=true take what fits" if report.fits(partial=True) else ""
    return _refused(f"training would refuse {options.file}{some}", 1)


def _refused(text: str, code: int) -> int:
    complain(text)
    return code


def export_command(options: argparse.Namespace) -> int:
    """Write the file and say what it holds; 2 if there is no such folder or side, 5 if another's file is there."""
    problem = _problem(options.out, options.side)
    if problem:
        return _refused(problem, 2)
    from engine.models.export import export_backbone, export_segmenter, refuse_others

    run_dir, best = split(options.run_dir)
    try:
        refuse_others(options.out, force=options.force)
        if options.format == "torch-export":
            card = export_segmenter(run_dir, options.out, options.side, best=best, force=options.force)
        else:
            card = export_backbone(run_dir, options.out, best=best, force=options.force)
    except EngineError as error:
        return _refused(str(error), error.exit_code)
    except OSError as error:
        return _refused(error_text(error, options.out), 1)
    where = f" {card['checkpoint_step']}, the best" if best else ""
    sys.stdout.write(
        f"{options.out}  {card['backbone']} after {card['stage']}{where}  sha256 {str(card['sha256'])[:16]}\n"
    )
    return 0


def _problem(out: Path, side: int) -> str:
    """What is wrong with the options before anything has been computed; "" if nothing is."""
    if str(out) == "-" or (out.exists() and not out.is_file() and not out.is_dir()):
        return f"--out {out}: write the name of a file, beside which the card can lie"
    if not out.parent.is_dir():
        return f"--out {out}: there is no folder {out.parent}; make it, or write another"
    if out.is_dir():
        return f"--out {out} is a folder: write the name of a file"
    if not 1 <= side <= LARGEST_SIDE:
        return f"--side {side}: write how many pixels the side of the input has, from 1 to {LARGEST_SIDE}"
    return ""
