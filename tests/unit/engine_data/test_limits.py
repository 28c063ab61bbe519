"""How much of the machine's memory decoded data may take."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.config.schema import Recipe
from engine.data import limits
from engine.data.limits import GIB, data_budget, machine_memory
from engine.stages.base import Context
from tests.unit.engine_run.conftest import tiny_recipe

MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def groups(root: Path, monkeypatch: pytest.MonkeyPatch, own: str, files: dict[str, str]) -> None:
    """Control groups as the kernel shows them."""
    (root / "self").write_text(own)
    for name, text in files.items():
        (root / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "fs" / name).write_text(text)
    monkeypatch.setattr(limits, "_OWN_GROUPS", root / "self")
    monkeypatch.setattr(limits, "_GROUPS", root / "fs")


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/a/b\n", {"a/b/memory.max": "max\n", "a/memory.max": "4096\n"}, 4096),
        ("0::/a/b\n", {"a/b/memory.max": "2048\n", "a/memory.max": "4096\n"}, 2048),
        ("0::/of/the/host\n", {"memory.max": "8192\n"}, 8192),
        ("0::/\n", {}, MACHINE),
        ("4:memory:/job\n0::/\n", {"memory/job/memory.limit_in_bytes": "4096\n"}, 4096),
        ("4:cpu,memory:/job\n", {"memory/job/memory.limit_in_bytes": "9223372036854771712\n"}, MACHINE),
        ("5:cpu:/job\n", {"memory/job/memory.limit_in_bytes": "4096\n"}, MACHINE),
        ("nonsense\n", {"memory.max": "4096\n"}, MACHINE),
        ("0::/\n", {"memory.max": "nonsense\n"}, MACHINE),
    ],
)
def test_memory_is_the_least_that_the_machine_and_groups_allow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str, files: dict[str, str], expected: int
) -> None:
    groups(tmp_path, monkeypatch, own, files)
    assert machine_memory() == expected


def test_memory_of_this_machine_is_read() -> None:
    assert 2**28 < machine_memory() <= MACHINE


def test_budget_is_the_recipes_and_at_most_half_of_the_memory_less_what_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups(tmp_path, monkeypatch, "0::/\n", {"memory.max": str(16 * GIB)})
    if MACHINE < 16 * GIB:
        pytest.skip("this machine has less than 16 GiB")
    assert data_budget(8.0) == 8 * GIB == data_budget(100.0)
    assert data_budget(3.0) == 3 * GIB
    assert data_budget(8.0, held=5 * GIB) == 3 * GIB
    assert data_budget(8.0, held=9 * GIB) == 0
    assert data_budget(8.0, processes=4) == 2 * GIB


def context(recipe: Recipe, run_dir: Path) -> Context:
    import torch

    from engine.events import EventWriter

    writer = EventWriter.open_for_attempt(run_dir, 1)
    return Context(recipe, run_dir, torch.device("cpu"), writer, lambda: False)


def test_second_split_is_mapped_where_both_do_not_fit_and_said_so_in_a_line(tmp_path: Path) -> None:
    """16 images of 32 x 32 take 64 KiB, and so do those of val."""
    recipe = tiny_recipe(
        data={"kind": "shapes", "height": 32, "width": 32, "train": 16, "val": 16},
        runtime__memory_budget_gib=100 * 1024 / GIB,
        runtime__data_cache=str(tmp_path / "cache"),
    )
    found, lines = context(recipe, tmp_path / "run"), list[str]()
    found.echo = lines.append
    assert not found.data("train").mapped and not lines
    assert found.data("val").mapped
    assert len(lines) == 1 and "val images: 0.00 GiB, over the 0.00 GiB left for data" in lines[0]
