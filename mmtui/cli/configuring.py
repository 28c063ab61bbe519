"""The verb config: what holds here and where it comes from; the recipe schema for editors."""

from __future__ import annotations

import json
import os
from dataclasses import fields
from pathlib import Path
from typing import Annotated, TypedDict

from mmtui.cli import render
from mmtui.domain.options import Argument, JsonOption
from mmtui.errors import UsageError
from mmtui.paths import Home
from mmtui.settings import Settings, SettingsError, load

ACTIONS = ("show", "path", "schema")
VARIABLES = {
    "MMTUI_HOME": "the data directory",
    "MMTUI_CPU_SLOTS": "runs at once without a GPU (1)",
    "MMTUI_GPUS": "GPUs that may be used, by index or UUID (all)",
    "NO_COLOR": "no colours",
}


def config(
    action: Annotated[str, Argument("show, path (of the settings file) or schema (JSON Schema of recipes)")] = "show",
    as_json: JsonOption = False,
) -> None:
    """Every setting with its value and where that comes from: mmtui config show"""
    home = Home.from_environment()
    if action not in ACTIONS:
        raise UsageError(f"mmtui config {action}: write one of {', '.join(ACTIONS)}")
    if action == "path":
        render.line(str(home.config))
        return
    if action == "schema":
        from engine.config import Recipe

        render.block(json.dumps(Recipe.model_json_schema(), indent=1))
        return
    rows = _rows(home)
    if as_json:
        render.document({"settings": rows})
        return
    render.table(("setting", "value", "from"), [(row["name"], _text(row["value"]), str(row["source"])) for row in rows])


class SettingRow(TypedDict):
    """A setting or a variable: its value, where that is from, and its default."""

    name: str
    value: object
    source: str
    default: object


def _rows(home: Home) -> list[SettingRow]:
    """Settings of the file and variables of the environment; what is not set has its default."""
    try:
        found, defaults = load(home.config), Settings()
    except SettingsError as error:
        raise UsageError(str(error)) from None
    given = _given(home.config)
    rows: list[SettingRow] = []
    for item in fields(Settings):
        value = getattr(found, item.name)
        source = str(home.config) if item.name in given else "default"
        rows.append({"name": item.name, "value": value, "source": source, "default": getattr(defaults, item.name)})
    for name, meaning in VARIABLES.items():
        value = os.environ.get(name)
        source = "not set" if value is None else "environment"
        shown = str(home.root) if name == "MMTUI_HOME" and value is None else value
        rows.append({"name": name, "value": shown, "source": source, "default": meaning})
    return rows


def _given(file: Path) -> set[str]:
    """Keys that the settings file has; ``load`` has checked it."""
    import tomllib

    try:
        return set(tomllib.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return set()


def _text(value: object) -> str:
    if value is None:
        return "-"
    return json.dumps(list(value)) if isinstance(value, tuple) else str(value)
