"""What holds here, and where it comes from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from engine.config import Recipe
from mmtui.paths import Home

Invoke = Callable[..., Any]


def test_config_show_names_the_winning_source(home: Home, mmtui_: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    home.create()
    home.config.write_text('rows = 7\non_finish = ["/bin/true", "a b"]\n')
    monkeypatch.setenv("MMTUI_CPU_SLOTS", "3")
    rows = {row["name"]: row for row in mmtui_("config", "show", "--json").json()["settings"]}
    assert (rows["rows"]["value"], rows["rows"]["source"], rows["rows"]["default"]) == (7, str(home.config), 30)
    assert (rows["color"]["value"], rows["color"]["source"]) == ("auto", "default")
    assert (rows["MMTUI_CPU_SLOTS"]["value"], rows["MMTUI_CPU_SLOTS"]["source"]) == ("3", "environment")
    assert (rows["MMTUI_GPUS"]["value"], rows["MMTUI_GPUS"]["source"]) == (None, "not set")
    text = mmtui_("config").out
    assert '["/bin/true", "a b"]' in text


def test_config_path_and_schema(home: Home, mmtui_: Invoke) -> None:
    assert mmtui_("config", "path").out == f"{home.config}\n"
    assert mmtui_("config", "schema").json() == Recipe.model_json_schema()
    assert mmtui_("config", "sho").code == 2


def test_config_show_of_a_wrong_file_says_what_is_wrong(home: Home, mmtui_: Invoke) -> None:
    home.create()
    home.config.write_text("rows = 0\n")
    found = mmtui_("config", "show")
    assert found.code == 2
    assert "at least 1" in found.err
