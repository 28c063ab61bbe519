"""Outputs of stages that runs share: listing, verification, eviction. The entries are made by the real engine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.config import load_recipe
from engine.config.smoke import smoke_overrides
from engine.events import EventWriter
from mmtui.paths import Home

Invoke = Callable[..., Any]


@pytest.fixture
def trained(home: Home, tmp_path: Path) -> Home:
    """A home whose cache holds the match stage of one run."""
    from engine.loop import train

    home.create()
    folders = [Path(__file__).resolve().parents[3] / "recipes"]
    overrides = [*smoke_overrides(load_recipe("shapes_mixmatch", [], folders)), "runtime.threads=1"]
    recipe = load_recipe("shapes_mixmatch", overrides, folders)
    writer = EventWriter.open_for_attempt(tmp_path / "run", 1)
    train(recipe, tmp_path / "run", writer, 1, lambda: False, lambda _line: None, home.stage_cache)
    writer.close()
    return home


def entry(home: Home) -> Path:
    (found,) = (meta.parent for meta in home.stage_cache.glob("*/meta.json"))
    return found


def test_cache_lists_what_is_stored(trained: Home, mmtui_: Invoke) -> None:
    found = mmtui_("cache")
    assert (found.code, "match" in found.out, "shapes_mixmatch" in found.out) == (0, True, True)
    (only,) = mmtui_("cache", "--json").json()["entries"]
    assert (only["key"], only["stage"]) == (entry(trained).name, "match")
    assert only["bytes"] == sum(file.stat().st_size for file in entry(trained).iterdir())


def test_cache_of_a_new_home_is_empty(home: Home, mmtui_: Invoke) -> None:
    found = mmtui_("cache")
    assert (found.code, found.out) == (0, "")
    assert "no stage" in found.err
    assert mmtui_("cache", "--json").json()["entries"] == []
    assert mmtui_("cache", "lst").code == 2


def test_cache_verify_finds_a_changed_file(trained: Home, mmtui_: Invoke) -> None:
    assert mmtui_("cache", "verify").code == 0
    weights = entry(trained) / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[100] ^= 1
    weights.write_bytes(content)
    found = mmtui_("cache", "verify")
    assert found.code == 1
    assert "is not what was written" in found.err


def test_purge_leaves_stages_alone_unless_told_and_keeps_those_used_lately(trained: Home, mmtui_: Invoke) -> None:
    folder = entry(trained)
    (trained.stage_cache / "digests.json").write_text("{}")
    mmtui_("purge", "--yes")
    assert folder.exists()
    assert "match" in mmtui_("purge", "--stages").out
    assert folder.exists(), "without --yes nothing is deleted"
    mmtui_("purge", "--stages", "--unused", "1d", "--yes")
    assert folder.exists()
    os.utime(folder, (time.time() - 90_000,) * 2)
    assert mmtui_("purge", "--stages", "--unused", "1d", "--yes").code == 0
    assert [path.name for path in trained.stage_cache.iterdir()] == ["digests.json"]


def test_cache_leaves_out_what_is_no_entry(trained: Home, mmtui_: Invoke) -> None:
    for name, text in (("abc", "{"), ("def", "[]"), ("012", '{"stage": 1, "recipe": 7}')):
        (trained.stage_cache / name).mkdir()
        (trained.stage_cache / name / "meta.json").write_text(text)
    assert len(mmtui_("cache", "--json").json()["entries"]) == 1
