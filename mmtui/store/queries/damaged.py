"""Rows of runs with cells that are not what they should be, and what SQLite says of the whole file."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mmtui.domain.states import ACTIVE_STATES, RunState

if TYPE_CHECKING:
    from mmtui.store.reader import Reader

JSON_COLUMNS = ("tags", "config", "overrides", "gpus", "code", "after", "shared_stages", "launcher", "origin", "doubts")
NUMBER_COLUMNS = (
    "created_at",
    "started_at",
    "ended_at",
    "miou",
    "loss",
    "seed",
    "position",
    "priority",
    "wanted",
    "not_before",
)
TEXT_COLUMNS = ("name", "recipe", "reason", "error", "stage", "run_group", "note")
_DAMAGED = (
    "SELECT id, "
    + " || ".join(
        [
            *(f"CASE WHEN json_valid({name}) THEN '' ELSE '{name} ' END" for name in JSON_COLUMNS),
            *(
                f"CASE WHEN typeof({name}) IN ('real', 'integer', 'null') THEN '' ELSE '{name} ' END"
                for name in NUMBER_COLUMNS
            ),
            *(f"CASE WHEN typeof({name}) = 'text' THEN '' ELSE '{name} ' END" for name in TEXT_COLUMNS),
            f"CASE WHEN state IN ({', '.join(repr(state.value) for state in RunState)}) THEN '' ELSE 'state ' END",
        ]
    )
    + " AS damaged FROM runs WHERE damaged != '' AND deleted_at IS NULL"
)
_PENDING = ", ".join(repr(state.value) for state in (RunState.QUEUED, *ACTIVE_STATES))


class DamagedRun(NamedTuple):
    """A run and the names of its damaged cells, in the order in which they are looked at."""

    run_id: int
    columns: tuple[str, ...]


def runs(reader: Reader) -> list[DamagedRun]:
    """Every listed run with a damaged cell, by run."""
    return [DamagedRun(run_id, tuple(names.split())) for run_id, names in reader.query(f"{_DAMAGED} ORDER BY id")]


def in_queue(reader: Reader) -> set[int]:
    """Active and queued runs with a damaged cell."""
    return {row[0] for row in reader.query(f"{_DAMAGED} AND state IN ({_PENDING})")}


def quick_check(reader: Reader) -> str:
    """What SQLite finds wrong with the file first; "ok" if nothing."""
    return str(reader.query("PRAGMA quick_check(1)")[0][0])
