"""``python -m engine weights``: look into weight files, take networks out of runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from engine.errors import EngineError


def add_parser(commands: Any) -> None:
    """Add the verb and its two actions."""
    text = "look into a weight file, or export the network of a run"
    actions = commands.add_parser("weights", help=text, description=text).add_subparsers(required=True)
    inspect = actions.add_parser("inspect", help="which keys of a file would fill which of a backbone")
    inspect.add_argument("file", type=Path)
    inspect.add_argument("--backbone", default="vgg16", help="our name of the network (model.backbone)")
    inspect.add_argument("--input", default="rgb", choices=["rgb", "gray"])
    inspect.set_defaults(command=inspect_command)
    export = actions.add_parser("export", help="write a run's backbone or its whole segmenter to a file")
    export.add_argument("--run-dir", type=Path, required=True)
    export.add_argument("--out", type=Path, required=True)
    export.add_argument("--format", default="safetensors", choices=["safetensors", "torch-export"])
    export.add_argument("--side", type=int, default=256, help="torch-export: side of the input, pixels")
    export.set_defaults(command=export_command)


def inspect_command(options: argparse.Namespace) -> int:
    """Print the report of every key; 1 if the file does not fit."""
    from engine.config.schema import ModelConfig
    from engine.models import BUILDERS, build_backbone
    from engine.models.weights import compare, read_foreign

    if options.backbone not in BUILDERS:
        sys.stderr.write(f"error: no backbone '{options.backbone}'; write one of {', '.join(BUILDERS)}\n")
        return 2
    backbone = build_backbone(ModelConfig(backbone=options.backbone, input=options.input))
    try:
        renamed = read_foreign(backbone, options.backbone, options.file)
    except EngineError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    report = compare(backbone, renamed.tensors, tuple(renamed.left_out), tuple(renamed.notes))
    sys.stdout.write("\n".join(report.lines()) + "\n")
    return 0 if not report.mismatched and not report.unexpected and report.loaded else 1


def export_command(options: argparse.Namespace) -> int:
    """Write the file and say what it holds."""
    from engine.models.export import export_backbone, export_segmenter

    try:
        if options.format == "torch-export":
            export_segmenter(options.run_dir, options.out, options.side)
            sys.stdout.write(f"{options.out}\n")
            return 0
        card = export_backbone(options.run_dir, options.out)
    except EngineError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except OSError as error:
        sys.stderr.write(f"error: {options.out} cannot be written: {error.strerror or error}\n")
        return 1
    sys.stdout.write(f"{options.out}  {card['backbone']} after {card['stage']}  sha256 {card['sha256'][:16]}\n")
    return 0
