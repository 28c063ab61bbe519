"""The whole command line, built with Typer from the table of verbs: help, error messages and shell completion."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from engine.text import curtailed
from mmtui import __version__
from mmtui.cli import screen, verbs
from mmtui.domain.options import Argument, Option, taken
from mmtui.domain.text import printable


@contextmanager
def _spelled_out() -> Iterator[None]:
    """Errors repeat what was typed, which may be a name that was copied from elsewhere: no terminal may act on it.

    Of a word that nobody could read they repeat the beginning.
    """
    try:
        yield
    except Exception as error:
        if hasattr(error, "format_message") and hasattr(error, "message"):  # Typer's, whose classes have moved
            error.message = printable(curtailed(error.message))
        raise


class _Verbs(TyperGroup):
    """Verbs whose errors are safe to show."""

    def make_context(self, *arguments: Any, **more: Any) -> Any:
        with _spelled_out():
            return super().make_context(*arguments, **more)

    def invoke(self, ctx: Any) -> Any:
        with _spelled_out():
            return super().invoke(ctx)


app = typer.Typer(
    name="mmtui",
    cls=_Verbs,
    help="Queue, train, watch and compare Mix-and-Match tuned segmentation networks, in the terminal.",
    no_args_is_help=False,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    # Rich would take a tenth of a second to draw boxes around the help.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Without a verb: the screen, on a terminal; a short status otherwise. Data live in MMTUI_HOME.",
)


def _version(wanted: bool) -> None:
    if wanted:
        from mmtui.cli import render

        render.line(f"mmtui {__version__}")
        raise typer.Exit


@app.callback()
def main_callback(
    context: typer.Context,
    color: Annotated[str, typer.Option(help="auto, always or never (NO_COLOR is honoured)", show_default=False)] = "",
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version and leave")
    ] = False,
) -> None:
    from mmtui.cli import render

    render.set_color(color)
    if context.invoked_subcommand is None:
        raise typer.Exit(screen.open_screen_or_status())


def command(verb: verbs.Verb) -> Callable[..., None]:
    """A verb as a function that Typer can read: the same parameters, declared in Typer's terms."""

    @wraps(verb)
    def typed(**values: Any) -> None:
        raise typer.Exit(verb(**taken(verb, values)) or 0)

    del typed.__wrapped__  # Typer would read the verb's own signature through it
    parameters = [_typed(parameter) for parameter in inspect.signature(verb, eval_str=True).parameters.values()]
    typed.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    typed.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return typed


def _typed(parameter: inspect.Parameter) -> inspect.Parameter:
    """The parameter with Typer's declaration in place of ours."""
    declared: Argument | Option = parameter.annotation.__metadata__[0]
    completion = _COMPLETIONS.get(declared.complete)
    info: Any
    if isinstance(declared, Argument):
        info = typer.Argument(help=declared.help, autocompletion=completion)
    else:
        shown = parameter.default not in (None, "", False)
        info = typer.Option(
            *declared.flags,
            help=declared.help,
            metavar=_metavar(parameter, declared),
            min=declared.minimum,
            show_default=shown,
            autocompletion=completion,
        )
    return parameter.replace(annotation=Annotated[parameter.annotation.__origin__, info])


def _metavar(parameter: inspect.Parameter, declared: Option) -> str | None:
    """What stands for the value in the help; None for a flag."""
    kind = str(parameter.annotation.__origin__)
    if "bool" in kind:
        return None
    return (
        "N"
        if "int" in kind
        else ("SECONDS" if declared.flags[0] == "--timeout" else "NUMBER")
        if "float" in kind
        else declared.flags[0].strip("-").upper()
    )


def _complete_runs(incomplete: str) -> list[tuple[str, str]]:
    from mmtui.cli.quick_completion import run_choices

    return run_choices(incomplete)


def _complete_places(incomplete: str) -> list[tuple[str, str]]:
    from mmtui.cli.quick_completion import place_choices

    return place_choices(incomplete)


def _complete_recipes(incomplete: str) -> list[tuple[str, str]]:
    from mmtui.cli.quick_completion import recipe_choices

    return recipe_choices(incomplete)


def _complete_keys(incomplete: str) -> list[tuple[str, str]]:
    from mmtui.services.recipes import keys

    return [(f"{key.key}=", key.description) for key in keys() if key.key.startswith(incomplete)]


_COMPLETIONS: dict[str, Callable[[str], list[tuple[str, str]]]] = {
    "runs": _complete_runs,
    "places": _complete_places,
    "recipes": _complete_recipes,
    "keys": _complete_keys,
}


def build() -> None:
    """Register every verb and alias."""
    groups = {name: typer.Typer(help=text, no_args_is_help=True) for name, text in verbs.GROUPS.items()}
    for name in verbs.VERBS:
        group, _, verb = name.rpartition(" ")
        target = groups[group] if group else app
        function = verbs.load(name)
        # Given as it is, Typer does not cut it off in the list of verbs.
        short = (inspect.getdoc(function) or "").partition("\n")[0]
        target.command(verb, short_help=short)(command(function))
    for name, group_app in groups.items():
        app.add_typer(group_app, name=name)
    for alias, name in verbs.ALIASES.items():
        app.command(alias, hidden=True)(command(verbs.load(name)))


build()
