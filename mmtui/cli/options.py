"""Arguments and options that several verbs share."""

from __future__ import annotations

from typing import Annotated

import typer

RunArgument = Annotated[str, typer.Argument(help="run: an id, a unique prefix of one, @ (the last), @~1 (before it)")]
RunsArgument = Annotated[list[str], typer.Argument(help="runs: ids, unique prefixes, @ (the last), @~1 (before it)")]
JsonOption = Annotated[bool, typer.Option("--json", help="one JSON document on stdout")]
QuietOption = Annotated[bool, typer.Option("-q", "--quiet", help="print only what a script needs")]
