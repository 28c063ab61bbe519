"""The filter language: what it means, against an evaluator written run by run; and what is wrong, at which column."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmtui.domain import filters
from mmtui.domain.filters import Both, Compare, In, IsNull, Node, Not, Operand, parse, parse_operand
from mmtui.errors import NotFoundError, UsageError
from mmtui.paths import Home
from mmtui.services import comparing, keeping, queue, runs, seeds, trash
from mmtui.store import pyramid
from mmtui.store.db import Database
from mmtui.store.filters import key_name
from mmtui.store.runs import NewRun, insert_run
from tests.unit.store.conftest import asked

NOW = 1_800_000_000.0
MODELS: list[dict[str, Any]] = [
    {
        "name": f"run{i}",
        "state": ("queued", "failed", "succeeded")[i % 3],
        "seed": i % 4,
        "created": NOW - 86_400 * i,
        "miou": None if i % 5 == 0 else 10.0 * i,
        "tags": ["keep"] if i % 2 else [],
        "config": {"model": {"backbone": ("vgg16", "alexnet")[i % 2]}, "segment": {"optim": {"lr": 0.1 / (i + 1)}}}
        | ({"match": {"optim": {"lr": 0.5}}} if i % 3 == 0 else {}),
        "loss": [5.0 - i, 3.0, float(i)],
    }
    for i in range(12)
]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A database with the runs of MODELS; run i + 1 is MODELS[i]."""
    home = Home(tmp_path_factory.mktemp("filters") / "h").create()
    database = Database(home)
    for model in MODELS:
        new = NewRun(model["name"], "r", model["seed"], model["config"], (), {}, [("segment", 3)], model["tags"])
        with database.write() as session:
            run_id = insert_run(session, new, model["created"])
        connection = sqlite3.connect(home.database)
        connection.execute("UPDATE runs SET state = ?, miou = ? WHERE id = ?", [model["state"], model["miou"], run_id])
        for step, value in enumerate(model["loss"], 1):
            row = [run_id, "loss", step, 1, "segment", step, 0.0, value]
            connection.execute("INSERT INTO metrics VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        pyramid.fill(connection)  # as ingest would have
        connection.commit()
        connection.close()
    database.close()
    return home


def ids(home: Home, text: str) -> list[int]:
    found, total = runs.find(home, text)
    assert len(found) == total
    return sorted(int(row.id) for row, _ in found)


# --- The naive evaluator.


def leaves(config: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            found |= leaves(value, f"{above}{key}.")
        else:
            found[above + key] = value
    return found


def candidates(model: dict[str, Any], operand: Operand) -> list[Any]:
    """Values of which one has to fit; none where the run has no such thing."""
    if operand.take:
        losses = model["loss"] if operand.name == "loss" else []
        if operand.take.startswith("@"):
            step = int(operand.take[1:])
            return losses[step - 1 : step] if step else []
        picks = {"max": max, "min": min, "last": lambda v: v[-1], "first": lambda v: v[0]}
        return [picks[operand.take](losses)] if losses else []
    if operand.name == "tag":
        return list(model["tags"])
    if operand.kind == "key":
        return [v for k, v in leaves(model["config"]).items() if k == operand.name or k.endswith("." + operand.name)]
    value = model[operand.name]
    return [] if value is None else [value]


def fits(value: Any, op: str, wanted: Any) -> bool:
    if op in ("~", "!~"):
        return (str(wanted).lower() in str(value).lower()) == (op == "~")
    if op in ("~/", "!~/"):
        return (re.search(wanted, str(value)) is not None) == (op == "~/")
    if isinstance(wanted, float) != isinstance(value, int | float):
        return False
    return {
        "=": value == wanted, "!=": value != wanted, "<": value < wanted,
        "<=": value <= wanted, ">": value > wanted, ">=": value >= wanted,
    }[op]  # fmt: skip


def holds(model: dict[str, Any], node: Node) -> bool:
    if isinstance(node, Both):
        return (all if node.word == "and" else any)(holds(model, part) for part in node.parts)
    if isinstance(node, Not):
        return not holds(model, node.inner)
    if isinstance(node, IsNull):
        return (not candidates(model, node.operand)) != node.negated
    if isinstance(node, In):
        return any(holds(model, Compare(node.operand, "=", value)) for value in node.values) != node.negated
    values = candidates(model, node.operand)
    if node.operand.name == "tag" and node.op.startswith("!"):
        return not any(fits(value, node.op.removeprefix("!"), node.value) for value in values)
    return any(fits(value, node.op, node.value) for value in values)


NUMBERS = [Operand("seed"), Operand("miou"), Operand("lr"), Operand("segment.optim.lr"), Operand("match.optim.lr")]
NUMBERS += [Operand("loss", take) for take in ("max", "min", "last", "first", "@2", "@9")]
WORDS = [Operand("state"), Operand("name"), Operand("tag"), Operand("backbone"), Operand("model.backbone")]
numeric = st.builds(
    Compare,
    st.sampled_from(NUMBERS),
    st.sampled_from(["=", "!=", "<", "<=", ">", ">="]),
    st.sampled_from([0.0, 1.0, 3.0, 5.0, 0.05, 0.5, 40.0]),
)
textual = st.builds(
    Compare,
    st.sampled_from(WORDS),
    st.sampled_from(["=", "~", "!~", "~/", "!~/"]),
    st.sampled_from(["run1", "queued", "keep", "VGG", "vgg16", "e"]),
)
atoms = (
    numeric
    | textual
    | st.builds(IsNull, st.sampled_from([*NUMBERS, *WORDS]), st.booleans())
    | st.builds(In, st.sampled_from(NUMBERS[:2]), st.tuples(st.sampled_from([1.0, 2.0]), st.just(30.0)), st.booleans())
)
nodes = st.recursive(
    atoms,
    lambda inner: (
        st.builds(Not, inner) | st.builds(Both, st.sampled_from(["and", "or"]), st.tuples(inner, inner, inner))
    ),
    max_leaves=8,
)


def written(node: Node) -> str:
    """A filter as text again."""
    if isinstance(node, Both):
        return "(" + f" {node.word} ".join(written(part) for part in node.parts) + ")"
    if isinstance(node, Not):
        return f"not {written(node.inner)}"
    operand = node.operand
    name = f"{operand.name}{operand.take}" if operand.take.startswith("@") else f"{operand.take} {operand.name}".strip()
    if isinstance(node, IsNull):
        return f"{name} is {'not ' if node.negated else ''}null"
    if isinstance(node, In):
        return f"{name} {'not ' if node.negated else ''}in ({', '.join(map(str, node.values))})"
    if node.op.endswith("/"):
        return f"{name} {node.op[:-1]} /{node.value}/"
    return f"{name} {node.op} {json.dumps(node.value) if isinstance(node.value, str) else node.value}"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(node=nodes)
def test_filter_lets_pass_what_the_naive_evaluator_does(filled: Home, node: Node) -> None:
    expected = [i + 1 for i, model in enumerate(MODELS) if holds(model, node)]
    assert ids(filled, written(node)) == expected


def test_filter_that_is_written_and_read_again_is_the_same() -> None:
    text = 'state = failed and created > 2d and (lr < 0.01 or tag ~ "ab\\"l") and not max miou in (1, 2)'
    node = parse(text, NOW)
    assert isinstance(node, Both) and len(node.parts) == 4
    assert node.parts[1] == Compare(Operand("created", "", 20), ">", NOW - 2 * 86_400)
    assert node.parts[2] == Both(
        "or", (Compare(Operand("lr", "", 38), "<", 0.01), Compare(Operand("tag", "", 51), "~", 'ab"l'))
    )
    assert parse_operand("loss@1000") == Operand("loss", "@1000")
    assert parse_operand("max miou") == Operand("miou", "max")
    assert parse_operand("max") == Operand("max")


def test_filter_moments_are_lengths_of_time_ago_or_dates(filled: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: NOW)
    assert ids(filled, "created > 2.5d") == [1, 2, 3]
    assert ids(filled, "created <= 10d") == [11, 12]
    assert ids(filled, "created > 1990-01-01") == list(range(1, 13))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("state =", "column 8: the end where a value"),
        ("state = a b", "column 11: 'b' where and, or, or the end"),
        ("(state = a", "column 11: the end where a closing )"),
        ("state ? a", "column 7: '?' where a comparison"),
        ("miou > > 3", "column 8: '>' where a value"),
        ("seed in 1, 2", r"column 9: '1' where \( before"),
        ("seed not = 3", "column 10: '=' where in"),
        ("reason is empty", "column 11: 'empty' where null"),
        ("name ~ /(/", "column 8: /(/ is no regular expression"),
        ("created > yesterday", "column 11: 'yesterday' is no time"),
        ("'a", "column 1"),
        ("and", "column 4: the end where a comparison"),
    ],
)
def test_filter_mistakes_are_told_with_their_column(text: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text, NOW)
    assert told.replace("\\", "") in caught.value.message


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="abc miou=<>~!()\"'/,.0123 andornotisinnull@", max_size=40))
def test_filter_of_random_characters_is_read_or_refused_in_words(text: str) -> None:
    try:
        parse(text, NOW)
    except UsageError as error:
        assert "column" in error.message


def test_unknown_names_are_refused_with_the_nearest(filled: Home) -> None:
    with pytest.raises(UsageError, match="column 1: no run has 'bakbone', did you mean backbone"):
        runs.find(filled, "bakbone = x")
    with pytest.raises(UsageError, match="no run has 'stat', did you mean state"):
        runs.find(filled, sort=["-stat"])


def test_keys_of_any_spelling_can_be_asked_for(home: Home) -> None:
    """With underscores, and those that users name: values of masks, and classes of several words."""
    classes = {"traffic light": 5, "a.b": 6, 'say "x"': 7, "Stra\u00dfe": 8}
    config = {
        "data": {"label_map": {"255": "thing", "0": 3}},
        "segment": {"batch_size": 4, "scale_jitter": [0.5, 2.0]},
        "reference": {"per_class": classes},
    }
    database = Database(home)
    for found in (config, {"segment": {"batch_size": 8}}):
        with database.write() as session:
            insert_run(session, NewRun("r", "r", 0, found, (), {}, [("segment", 3)], []), NOW)
    database.close()
    assert ids(home, "batch_size = 4") == ids(home, "segment.batch_size < 5") == [1]
    assert ids(home, "data.label_map.255 = thing") == ids(home, "label_map.255 = thing") == [1]
    assert ids(home, "data.label_map.255 is null") == [2] and ids(home, "data.label_map.0 = 3") == [1]
    assert ids(home, '"reference.per_class.traffic light" = 5') == ids(home, '"traffic light" > 4') == [1]
    assert ids(home, "a.b = 6") == ids(home, "'say \"x\"' = 7") == ids(home, "Stra\u00dfe = 8") == [1]
    assert ids(home, '"segment.scale_jitter[1]" = 2') == [1]
    found, _ = runs.find(home, sort=["-batch_size"], columns=["data.label_map.255", "batch_size"])
    assert [values for _, values in found] == [(None, 8), ("thing", 4)]
    with pytest.raises(UsageError, match="no run has 'batch_sise', did you mean batch_size"):
        runs.find(home, "batch_sise = 4")


NAMES = st.dictionaries(st.text('ab_. "\\\\\u00fc0[]', min_size=1, max_size=4), st.integers(0, 3), max_size=4)


@settings(max_examples=60, deadline=None)
@given(NAMES, st.sampled_from([True, False]))
def test_names_of_keys_are_those_that_were_stored(names: dict[str, int], plain_ascii: bool) -> None:
    config = json.dumps({"data": {"label_map": names}, "a_b": {"c": [1, 2]}}, ensure_ascii=plain_ascii)
    connection = sqlite3.connect(":memory:")
    rows = connection.execute(
        "SELECT fullkey FROM json_tree(?) WHERE type NOT IN ('object', 'array')", [config]
    ).fetchall()
    connection.close()
    expected = [*(f"data.label_map.{name}" for name in names), "a_b.c[0]", "a_b.c[1]"]
    assert [key_name(row[0]) for row in rows] == expected


def test_values_of_users_never_become_sql(filled: Home) -> None:
    hostile = "x' OR 1=1; DROP TABLE runs; --"
    assert ids(filled, f"name = {json.dumps(hostile)}") == []
    assert ids(filled, f"tag ~ {json.dumps(hostile)}") == []
    assert len(runs.list_runs(filled)) == 12


def test_sort_puts_runs_without_a_value_last_and_limits_count_all(filled: Home) -> None:
    found, total = runs.find(filled, sort=["-miou"], columns=["miou", "max loss", "lr"], limit=3)
    assert total == 12
    assert [row.id for row, _ in found] == ["12", "10", "9"]
    assert found[0][1] == (110.0, 11.0, pytest.approx(0.1 / 12))
    ascending, _ = runs.find(filled, sort=["miou", "-seed"])
    assert [row.metrics["miou"] for row, _ in ascending][-3:] == [None, None, None]
    assert filters.suggestion("statee", ["state"]) == ", did you mean state?"


def test_sql_reads_and_cannot_write(filled: Home, home: Home) -> None:
    header, rows = asked(filled, "SELECT count(*) AS n FROM runs")
    assert (header, rows) == (["n"], [(12,)])
    for text in (
        "DELETE FROM runs",
        "SELECT * FROM nothing",
        "SELECT 1; SELECT 2",
        "ATTACH '/tmp/x.db' AS x; SELECT 1",
    ):
        with pytest.raises(UsageError, match=r"the query (is refused|fails)"):
            asked(filled, text)
    with pytest.raises(NotFoundError):
        asked(home, "SELECT 1")


# --- Comparing and keeping.


def test_compare_and_diff_show_what_differs_and_nothing_else(home: Home) -> None:
    a = queue.enqueue(home, "shapes_smoke", ["segment.steps=5"], hold=True)
    b = queue.enqueue(home, "shapes_smoke", ["segment.steps=6", "seed=3"], hold=True)
    table = dict(comparing.table(home, [a, b], ["segment.optim.lr"]))
    assert table["segment.steps"] == (5, 6) and table["seed"] == (0, 3)
    assert table["segment.optim.lr"][0] == table["segment.optim.lr"][1] is not None
    assert "match.steps" not in table
    found = [(d.area, d.name, d.first, d.second) for d in comparing.differences(home, a, b)]
    assert found == [("recipe", "segment.steps", 5, 6), ("seed", "seed", 0, 3)]


def test_diff_of_an_older_recipe_takes_new_keys_as_their_defaults(home: Home) -> None:
    a, b = (queue.enqueue(home, "shapes_smoke", hold=True) for _ in range(2))
    connection = sqlite3.connect(home.database)
    connection.execute("UPDATE runs SET config = json_remove(config, '$.runtime.halve_on_oom') WHERE id = ?", [a])
    connection.commit()
    connection.close()
    assert comparing.differences(home, a, b) == []


def test_runs_by_the_former_and_todays_name_of_a_loss_are_of_one_recipe(home: Home) -> None:
    """Each keeps its own word, and the queue lets one train the stages of both."""
    overrides = ("match.strategy=graph", "match.loss=supcon"), ("match.strategy=graph", "match.loss=info_nce")
    a, b = (queue.enqueue(home, "shapes_smoke", texts, hold=True) for texts in overrides)
    c = queue.enqueue(home, "shapes_smoke", hold=True)
    words = [runs.get_run(home, run_id).config["match"]["loss"] for run_id in (a, b, c)]
    assert words == ["supcon", "info_nce", "triplet"]
    assert comparing.differences(home, a, b) == []
    assert [(d.name, d.first, d.second) for d in comparing.differences(home, a, c)] == [
        ("match.loss", "info_nce", "triplet")
    ]
    assert [fold.ids for fold in seeds.fold(home, [a, b, c])] == [(a, b), (c,)]
    connection = sqlite3.connect(home.database)
    rows = connection.execute("SELECT shared_stages, work FROM runs ORDER BY id").fetchall()
    connection.close()
    assert rows[0] == rows[1] != rows[2] and "match" in rows[0][0]


def test_trash_hides_keeps_and_frees(home: Home) -> None:
    a, b = (queue.enqueue(home, "shapes_smoke", hold=True) for _ in range(2))
    trash.remove(home, a)
    assert [row.id for row in runs.list_runs(home)] == [b]
    assert (home.trash / a / "recipe.yaml").is_file() and not home.run(a).root.exists()
    with pytest.raises(NotFoundError):
        trash.restore(home, b)
    trash.restore(home, a)
    assert [row.id for row in runs.list_runs(home)] == [b, a] and home.run(a).recipe.is_file()
    trash.remove(home, a)
    told = trash.purge(home, really=False)
    assert [name for name, _ in told] == [f"run {a}"] and told[0][1] > 0
    assert trash.purge(home, really=True) == told
    assert not (home.trash / a).exists() and trash.purge(home, really=True) == []
    with pytest.raises(NotFoundError):
        trash.restore(home, a)
    assert queue.enqueue(home, "shapes_smoke", hold=True) == "3", "ids are not given again"
    trash.remove(home, b)
    trash.remove(home, "3")
    assert any(name.startswith("code ") for name, _ in trash.purge(home, really=True))


def test_running_runs_do_not_go_to_the_trash(home: Home) -> None:
    run_id = queue.enqueue(home, "shapes_smoke")
    with pytest.raises(Exception, match=f"run {run_id} is queued"):
        trash.remove(home, run_id)
    assert home.run(run_id).root.is_dir()


def test_tags_notes_and_backup(home: Home) -> None:
    run_id = queue.enqueue(home, "shapes_smoke", hold=True)
    assert keeping.change_tags(home, run_id, ["a", "b", "a"], []) == ("a", "b")
    assert keeping.change_tags(home, run_id, ["c"], ["a"]) == ("b", "c")
    keeping.set_note(home, run_id, "margin too small")
    assert [row.id for row, _ in runs.find(home, 'tag = c and note ~ "MARGIN"')[0]] == [run_id]
    copy = keeping.backup(home)
    assert sqlite3.connect(copy).execute("SELECT note FROM runs").fetchall() == [("margin too small",)]
    assert copy.stat().st_mode & 0o777 == 0o600
