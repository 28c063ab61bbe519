"""SQL is written in ``mmtui/store`` alone: told from the syntax trees of all modules of mmtui and of the engine.

Keywords count in capitals, as they are written here: in small letters they would be found in prose.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

STORE = "mmtui/store/"
LIBRARIES = frozenset({"sqlite3", "sqlalchemy", "sqlmodel", "alembic"})
ALLOWED = {
    ("mmtui/services/exchange/mlflow.py", "sqlalchemy"): "MLflow's client lets its own SQLAlchemy's errors through",
}
"""{(file, library that it imports): why}. What stands under ``TYPE_CHECKING`` is an annotation and needs no entry."""

_NAME = r"[\w\"'`§.]+"
_STATEMENT = re.compile(
    rf"""\s*(?:
        SELECT\s+\S | VALUES\s*\( | EXPLAIN\s+(?:QUERY\s+PLAN\s+)?[A-Z] |
        (?:INSERT|REPLACE)\s+(?:OR\s+\w+\s+)?INTO\s | UPDATE\s+(?:OR\s+\w+\s+)?{_NAME}\s+SET\s | DELETE\s+FROM\s |
        WITH\s+(?:RECURSIVE\s+)?{_NAME}\s*(?:\(.*?\)\s*)?AS\s*\( |
        PRAGMA\s+{_NAME} |
        (?:CREATE|ALTER|DROP)\s+(?:TEMP\s+|TEMPORARY\s+|UNIQUE\s+|VIRTUAL\s+)*(?:TABLE|INDEX|VIEW|TRIGGER)\s |
        (?:BEGIN|COMMIT|ROLLBACK)(?:\s+(?:IMMEDIATE|DEFERRED|EXCLUSIVE|TRANSACTION|TO)\b.*)?\s*;?\s*$ |
        (?:RELEASE\s+)?SAVEPOINT\s+{_NAME}\s*;?\s*$ | END\s+TRANSACTION\b |
        ATTACH\s+(?:DATABASE\s+)?\S+\s+AS\s | DETACH\s+(?:DATABASE\s+)?{_NAME}\s*;?\s*$ |
        (?:VACUUM|REINDEX|ANALYZE)(?:\s+(?:INTO\s.*|{_NAME}))?\s*;?\s*$ |
        (?:SELECT|INSERT|UPDATE|DELETE|WITH|PRAGMA|CREATE|ATTACH)\s+$  # the rest is added to it
    )""",
    re.VERBOSE | re.DOTALL,
)
_CLAUSE = re.compile(
    rf"\b(?:ORDER\s+BY|GROUP\s+BY|INDEXED\s+BY)\s+{_NAME}|\b(?:FROM|JOIN)\s+{_NAME}\s+(?:\w+\s+)?(?:WHERE|JOIN|ON)\s"
    rf"|\b(?:WHERE|AND)\s+{_NAME}\s+(?:=|!=|<|>|IN|IS|LIKE|BETWEEN)\s"
)
"""Part of a statement whose beginning comes from elsewhere."""
_OF_CONNECTIONS = frozenset({"execute", "executemany", "executescript", "exec_driver_sql", "exec"})
_OF_READERS = frozenset({"query", "stream"})


def parts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, text) of every string of a module but its docstrings; § is in the place of what an f-string puts in."""
    nodes = list(ast.walk(tree))
    inside = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    inside |= {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            yield node.lineno, "".join(str(p.value) if isinstance(p, ast.Constant) else "§" for p in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.lineno, node.value


def statements(source: str) -> list[tuple[int, str]]:
    """(line, text) of the strings of a module that are SQL, or part of it."""
    found = parts(ast.parse(source))
    return sorted((line, text) for line, text in found if _STATEMENT.match(text) or _CLAUSE.search(text))


def questions(source: str) -> list[int]:
    """Lines in which a module has a statement carried out, wherever its text comes from."""
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return sorted(call.lineno for call in calls if isinstance(call.func, ast.Attribute) and _asks(call.func))


def _asks(method: ast.Attribute) -> bool:
    of_reader = method.attr in _OF_READERS and ast.unparse(method.value).endswith("reader")
    return of_reader or method.attr in _OF_CONNECTIONS


def libraries(source: str) -> set[str]:
    """Libraries for databases that a module loads, wherever in it, other than for its annotations."""
    tree = ast.parse(source)
    typing = {id(part) for node in ast.walk(tree) if _is_for_types(node) for part in ast.walk(node)}
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in typing:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
    return {name.partition(".")[0] for name in found} & LIBRARIES


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING") and not node.orelse


def sources(repository: Path) -> dict[str, str]:
    """{path: text} of every module that is not the store's."""
    files = [file for package in ("mmtui", "engine") for file in sorted((repository / package).rglob("*.py"))]
    texts = {file.relative_to(repository).as_posix(): file.read_text(encoding="utf-8") for file in files}
    return {name: text for name, text in texts.items() if not name.startswith(STORE)}


def test_no_statement_stands_outside_the_store(repository: Path) -> None:
    modules = sources(repository)
    assert len(modules) > 200
    found = [f"{name}:{line}: {text!r}" for name, source in modules.items() for line, text in statements(source)]
    assert not found, "SQL outside mmtui/store:\n" + "\n".join(found)


def test_no_statement_is_carried_out_outside_the_store(repository: Path) -> None:
    found = [f"{name}:{line}" for name, source in sources(repository).items() for line in questions(source)]
    assert not found, "statements carried out outside mmtui/store: " + ", ".join(found)


def test_nothing_outside_the_store_loads_a_library_for_databases(repository: Path) -> None:
    found = {(name, library) for name, source in sources(repository).items() for library in libraries(source)}
    assert found - ALLOWED.keys() == set(), "loaded outside mmtui/store"
    assert ALLOWED.keys() - found == set(), "allowed, and not needed any more"


PLANTED = (
    "SELECT id FROM runs",
    "\\n    SELECT 1",
    "INSERT INTO runs (id) VALUES (?)",
    "INSERT OR REPLACE INTO settings VALUES (?, ?)",
    "REPLACE INTO settings VALUES (?, ?)",
    "UPDATE runs SET note = ?",
    "DELETE FROM runs",
    "WITH far AS (SELECT 1) SELECT * FROM far",
    "WITH RECURSIVE up(id, parent) AS (SELECT 1, 2) SELECT id FROM up",
    "PRAGMA quick_check(1)",
    "PRAGMA journal_mode=WAL",
    "CREATE TABLE runs (id INTEGER)",
    "CREATE UNIQUE INDEX one ON runs (id)",
    "CREATE TEMP VIEW live AS SELECT 1",
    "ALTER TABLE runs ADD COLUMN note TEXT",
    "DROP TABLE runs",
    "BEGIN",
    "BEGIN IMMEDIATE",
    "COMMIT",
    "ROLLBACK;",
    "SAVEPOINT one",
    "RELEASE SAVEPOINT one",
    "END TRANSACTION",
    "ATTACH ? AS other",
    "ATTACH DATABASE 'file' AS other",
    "DETACH other",
    "VACUUM INTO 'file'",
    "EXPLAIN QUERY PLAN SELECT 1",
    "VALUES (1, 2)",
    "SELECT ",
    "PRAGMA ",
    " ORDER BY id DESC",
    "state = 'queued' AND deleted_at IS NULL",
)
PLANTED_F = (
    "SELECT {columns} FROM runs",
    "UPDATE {table} SET note = ?",
    "UPDATE runs SET {column} = ?",
    "DELETE FROM {table}",
    "PRAGMA busy_timeout={milliseconds}",
    "{beginning} ORDER BY id",
    "{beginning} FROM runs WHERE id = ?",
    "{beginning} AND name = ?",
)


@pytest.mark.parametrize("sql", PLANTED)
def test_rule_finds_every_kind_of_statement(sql: str) -> None:
    for quoted in (f'"{sql}"', f'f"{sql}"', f'("{sql[:9]}" "{sql[9:]}")', f'"""{sql}"""'):
        assert len(statements(f"def ask(reader):\n    return reader.query({quoted})\n")) == 1, quoted


@pytest.mark.parametrize("sql", PLANTED_F)
def test_rule_finds_statements_with_parts_put_in(sql: str) -> None:
    assert statements(f'rows = query(f"{sql}")') != []


@pytest.mark.parametrize(
    "text",
    [
        "a query may read and nothing else: give one SELECT, WITH, VALUES or EXPLAIN, or PRAGMA table_info(runs)",
        "SELECT, WITH or PRAGMA",
        "SELECT",
        "UPDATE the recipe, then queue it again",
        "DELETE",
        "BEGIN with a recipe",
        "WITH a note",
        "END of the line",
        "END",
        "ATTACH a note",
        "RELEASE notes",
        "Select runs from the list where state is queued",
        "mmtui query 'SELECT id FROM runs'",
        "CREATE a run",
        "Order by a column",
    ],
)
def test_rule_takes_prose_for_prose(text: str) -> None:
    assert statements(f'text = "{text}"') == []


def test_rule_leaves_examples_in_docstrings_alone() -> None:
    assert statements('def query():\n    """mmtui query \'SELECT state FROM runs GROUP BY state\'"""\n') == []


@pytest.mark.parametrize(
    "call",
    [
        "reader.query(TEXT)",
        "self.reader.query(TEXT, [1])",
        "self.supervisor.reader.stream(TEXT)",
        "connection.execute(TEXT)",
        "session.connection().exec_driver_sql(TEXT)",
        "session.exec(select(Run))",
        "connection.executemany(TEXT, rows)",
        "connection.executescript(TEXT)",
    ],
)
def test_rule_finds_every_way_to_carry_a_statement_out(call: str) -> None:
    assert questions(f"def ask():\n    return {call}\n") == [2]


def test_rule_leaves_other_queries_alone() -> None:
    source = "self.screen.query('#header')\nloader.exec_module(module)\nreader.runs()\nqueue.waiting(reader)"
    assert questions(source) == []


@pytest.mark.parametrize(
    "source",
    [
        "import sqlite3",
        "import sqlalchemy.exc as exc",
        "from sqlalchemy import text",
        "from sqlmodel import Session",
        "from sqlalchemy.exc import SQLAlchemyError",
        "def late():\n    import sqlite3",
        "try:\n    from alembic import command\nexcept ImportError:\n    command = None",
        "if TYPE_CHECKING:\n    from pathlib import Path\nelse:\n    import sqlite3",
    ],
)
def test_rule_finds_every_kind_of_import(source: str) -> None:
    assert len(libraries(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "if TYPE_CHECKING:\n    from sqlmodel import Session",
        "import typing\nif typing.TYPE_CHECKING:\n    import sqlite3",
        "from mmtui.store import sqlite3_files",
        "from . import sqlite3",
        "import sqlite3_of_another",
    ],
)
def test_rule_leaves_other_imports_alone(source: str) -> None:
    assert libraries(source) == set()
