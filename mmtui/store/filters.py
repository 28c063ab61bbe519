"""Filters, sort keys and chosen columns as SQL with parameters. No text of a user ever becomes SQL."""

from __future__ import annotations

import json
import re
import sqlite3

from mmtui.domain.filters import PINNED, Both, Compare, In, IsNull, Node, Not, Operand, Value

Sql = tuple[str, list[object]]
_EXPRESSIONS = {
    "group": "runs.run_group",
    "progress": "CASE WHEN runs.total_steps THEN 1.0 * runs.global_step / runs.total_steps ELSE 0 END",
    "created": "runs.created_at",
    "started": "runs.started_at",
    "ended": "runs.ended_at",
    "took": "runs.ended_at - runs.started_at",
}
_BESTS = {"best": "value", "best_step": "step"}
_EMPTY_IS_NULL = frozenset({"reason", "stage", "group", "note", "error", "name", "recipe"})
# A point is superseded when a later attempt began at or before it and so did, or will do, its step again.
KEPT = (
    " NOT EXISTS (SELECT 1 FROM attempts a WHERE a.run_id = {t}.run_id AND a.number > {t}.attempt"
    " AND a.resumed_global_step >= 0 AND a.resumed_global_step < {t}.global_step)"
)
# One damaged row must not fail the query for all.
CONFIG = "json_tree(iif(json_valid(runs.config), runs.config, '{}'))"
_TAGS = "json_each(iif(json_valid(runs.tags), runs.tags, '[]'))"
_KEPT = f" AND{KEPT.format(t='m')}"
_BEST = (
    """SELECT json_extract(iif(json_valid(e."values"), e."values", '{{}}'), '$.{name}') FROM events e"""
    f" WHERE e.run_id = runs.id AND e.kind = 'best' AND{KEPT.format(t='e')} ORDER BY e.id DESC LIMIT 1"
)
# SQLite quotes keys in its paths (batch_size, 255, traffic light); people name them without.
_END = "iif(typeof(t.key) = 'integer', '[' || t.key || ']', '.' || coalesce(t.key, ''))"
_NAME = f"substr(replace(t.path, '\"', '') || {_END}, 3)"
# A key is named by its whole path or by its end; nested values that are no scalars have no atom.
_NAMED = f"({_NAME} = ? OR substr({_NAME}, -length(?) - 1) = '.' || ?) AND t.type NOT IN ('object', 'array')"
_PART = re.compile(r'\.(?:"((?:[^"\\]|\\.)*)"|([^."\[]+))|(\[\d+\])')


def key_name(path: str) -> str:
    """The dotted name of a key by the path that SQLite gives it, such as ``$.segment."batch_size"``."""
    parts = (_unquoted(quoted) if quoted else plain for quoted, plain, _ in _PART.findall(path))
    items = "".join(item for _, _, item in _PART.findall(path))
    return ".".join(part for part in parts if part) + items  # items stand in lists alone, which hold no keys


def _unquoted(key: str) -> str:
    try:
        return str(json.loads(f'"{key}"'))
    except ValueError:
        return key  # SQLite may write it as it is


def _named(name: str) -> Sql:
    """Whether a row of ``CONFIG`` is a key of this name or end; the last word is looked at first, as it costs least."""
    if name.endswith("]"):
        return _NAMED, [name] * 3
    return f"(t.key = ? OR instr(t.key, '.') > 0) AND {_NAMED}", [name.rpartition(".")[2], *[name] * 3]


def add_functions(connection: sqlite3.Connection) -> None:
    """Give a connection the functions that filters use."""
    connection.create_function("mm_regex", 2, _regex, deterministic=True)
    connection.create_function("mm_contains", 2, _contains, deterministic=True)


def _regex(pattern: str, value: object) -> bool:
    return value is not None and re.search(pattern, str(value)) is not None


def _contains(part: str, value: object) -> bool:
    return value is not None and part.lower() in str(value).lower()


def where(node: Node) -> Sql:
    """A condition on the table ``runs``: true or false, never null."""
    if isinstance(node, Both):
        parts = [where(part) for part in node.parts]
        text = f" {node.word.upper()} ".join(sql for sql, _ in parts)
        return f"({text})", [value for _, values in parts for value in values]
    if isinstance(node, Not):
        sql, values = where(node.inner)
        return f"NOT {sql}", values
    if isinstance(node, IsNull):
        sql, values = expression(node.operand)
        return f"(({sql}) IS {'NOT ' if node.negated else ''}NULL)", values
    if isinstance(node, In):
        options = [where(Compare(node.operand, "=", value)) for value in node.values]
        text = " OR ".join(sql for sql, _ in options)
        return f"({'NOT ' if node.negated else ''}({text}))", [value for _, values in options for value in values]
    return _comparison(node)


def _comparison(node: Compare) -> Sql:
    operand = node.operand
    if operand.kind == "column" and operand.name == "tag":
        test, values = _test("t.value", node.op.removeprefix("!"), node.value)
        sql = f"EXISTS (SELECT 1 FROM {_TAGS} t WHERE {test})"
        return f"({'NOT ' if node.op.startswith('!') else ''}{sql})", values
    if operand.kind == "key":
        test, values = _test("t.atom", node.op, node.value)
        named, names = _named(operand.name)
        return f"EXISTS (SELECT 1 FROM {CONFIG} t WHERE {named} AND {test})", [*names, *values]
    sql, before = expression(operand)
    # Evaluated once under a name: a test may look at its value more than once.
    test, values = _test("v", node.op, node.value)
    return f"(SELECT {test} FROM (SELECT ({sql}) AS v))", [*values, *before]


def _test(sql: str, op: str, value: Value) -> Sql:
    """Compare an expression with a value; null compares as false."""
    if op in ("~", "!~", "~/", "!~/"):
        function = "mm_regex" if op.endswith("/") else "mm_contains"
        text = f"{function}(?, {sql})"
        parameter = str(_plain(value))
        return (f"({sql} IS NOT NULL AND NOT {text})" if op.startswith("!") else text), [parameter]
    if isinstance(value, bool):
        return f"COALESCE({sql} {op} ?, 0)", [int(value)]
    if isinstance(value, float):
        # Numbers are compared as numbers even where they are stored as text; text is never below a number.
        return f"COALESCE(typeof({sql}) IN ('integer', 'real') AND {sql} {op} ?, 0)", [value]
    return f"COALESCE(CAST({sql} AS TEXT) {op} ?, 0)", [value]


def _plain(value: Value) -> Value:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def expression(operand: Operand) -> Sql:
    """The value of an operand for each run, null where there is none."""
    if operand.kind == "metric":
        return _metric(operand)
    if operand.kind == "key":
        named, names = _named(operand.name)
        return f"SELECT t.atom FROM {CONFIG} t WHERE {named} LIMIT 1", names
    if operand.name == "tag":
        return f"SELECT group_concat(t.value, ' ') FROM {_TAGS} t", []
    if operand.name == "pinned":
        return f"EXISTS (SELECT 1 FROM {_TAGS} t WHERE t.value = ?)", [PINNED]
    if operand.name in _BESTS:
        return _BEST.format(name=_BESTS[operand.name]), []
    sql = _EXPRESSIONS.get(operand.name, f"runs.{operand.name}")
    return (f"NULLIF({sql}, '')" if operand.name in _EMPTY_IS_NULL else sql), []


def _metric(operand: Operand) -> Sql:
    base = f"FROM metrics m WHERE m.run_id = runs.id AND m.name = ? AND m.value IS NOT NULL{_KEPT}"
    if operand.take in ("max", "min"):
        # Of a run that was never resumed no point is superseded: its pyramid has the extremes in a few rows.
        resumed = "SELECT 1 FROM attempts a WHERE a.run_id = runs.id AND a.number > 1 AND a.resumed_global_step >= 0"
        buckets = "metric_buckets b WHERE b.run_id = runs.id AND b.name = ? AND b.level = 4"
        whole = f"SELECT {operand.take}(b.{'high' if operand.take == 'max' else 'low'}) FROM {buckets}"
        points = f"SELECT {operand.take}(m.value) {base}"
        return f"SELECT CASE WHEN EXISTS ({resumed}) THEN ({points}) ELSE ({whole}) END", [operand.name] * 2
    if operand.take.startswith("@"):
        return f"SELECT m.value {base} AND m.global_step = ? LIMIT 1", [operand.name, int(operand.take[1:])]
    order = "DESC" if operand.take == "last" else "ASC"
    return f"SELECT m.value {base} ORDER BY m.global_step {order} LIMIT 1", [operand.name]


def keys_of(node: Node) -> list[Operand]:
    """Operands that should be keys of a recipe."""
    if isinstance(node, Both):
        return [operand for part in node.parts for operand in keys_of(part)]
    if isinstance(node, Not):
        return keys_of(node.inner)
    return [node.operand] if node.operand.kind == "key" else []
