"""Work is counted alike wherever and whenever it is done."""

from __future__ import annotations

import gc
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.work import GRAIN, python_steps, work


def test_count_grows_with_what_is_done() -> None:
    few, many = (python_steps(lambda n=n: [i * i for i in range(n)]) for n in (100, 200))
    assert many - few == python_steps(lambda: [i * i for i in range(300)]) - many > 100


def test_what_is_done_at_first_use_is_not_counted() -> None:
    kept: list[int] = []

    def fill() -> None:
        kept.extend(i for i in range(500 if not kept else 0))

    assert python_steps(fill) == python_steps(fill)


def test_garbage_of_others_is_not_counted() -> None:
    """Also what runs when garbage is collected: a callback, as hypothesis has one, or a finaliser."""

    def callback(*_: object) -> None:
        sum(i for i in range(50))

    def much() -> list[list[object]]:
        return [[] for _ in range(3000)]

    alone = python_steps(much)
    gc.callbacks.append(callback)
    try:
        assert python_steps(much) == alone
    finally:
        gc.callbacks.remove(callback)
    assert gc.isenabled()


def test_statements_of_sqlite_are_counted(tmp_path: Path) -> None:
    file = str(tmp_path / "a.db")

    def count(most: int) -> None:
        with closing(sqlite3.connect(file)) as connection:
            numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
            connection.execute(f"{numbers} SELECT sum(i) FROM n", [most]).fetchall()

    few, many = work(lambda: count(100)), work(lambda: count(200))
    assert few.python == many.python
    assert many.sqlite - few.sqlite >= 100 - 2 * GRAIN
