"""Where a run was evaluated, its epochs, graphs over time, parts of series, and runs it can be compared with."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from mmtui.paths import Home
from mmtui.services import moments, run_history, runs
from mmtui.store.session import snapshot
from tests.sql_trace import traced


def test_evaluations_and_graphs_of_tails_done_again_are_left_out(
    home: Home, add_run: Callable[..., int], new_attempt: Callable[..., Any], end_attempt: Callable[[int], None]
) -> None:
    run_id = add_run()
    for number, (resumed, last) in enumerate([(0, 8), (4, 12)], start=1):
        file = new_attempt(run_id)
        file.start(resumed)
        file.emit("stage_data", resumed, {"images_per_step": 10 * number, "images_per_epoch": 40})
        for step in range(resumed + 1, last + 1):
            file.emit("graph", step, {"attempt": number})
            if step % 2 == 0:
                file.emit("confusion", step, {"matrix": [[step, 0], [0, 1]], "classes": ["a", "b"]})
                file.emit("projection", step, {"label": [number]})
        file.read()
        if number == 1:
            end_attempt(run_id)
    name = str(run_id)
    assert [mark.global_step for mark in run_history.evaluations(home, name)] == [2, 4, 6, 8, 10, 12]
    found = run_history.graphs_over_time(home, name, 5)
    assert [(stats.step, stats.graph.values["attempt"]) for stats in found] == [(4, 1), (9, 2), (12, 2)]
    assert [stats.step for stats in run_history.graphs_over_time(home, name, 5, until=7)] == [4, 7]
    newest = run_history.projection(home, name, until=7)
    assert newest is not None and (newest.step, newest.nodes.label) == (6, [2])
    assert run_history.projection(home, name, until=1) is None
    assert run_history.images(home, name) == {"segment": (20, 40)}, "the newest word counts"


def test_part_of_a_series_has_the_points_of_that_part(
    home: Home, add_run: Callable[..., int], new_attempt: Callable[..., Any]
) -> None:
    run_id = add_run()
    file = new_attempt(run_id)
    file.start(0)
    for step in range(1, 3001):
        file.emit("metrics", step, {"loss": float(step % 17) if step % 100 else None})
    file.read()
    for low, high in ((1, 3000), (1000, 1100), (2990, 9000), (500, 500), (600, 300)):
        wanted = [p for p in runs.points(home, str(run_id), "loss") if low <= p.global_step <= high]
        found = runs.series(home, str(run_id), "loss", max_buckets=200, within=(low, high))
        assert found.total_points == len(wanted)
        if len(wanted) <= 200:
            assert [(b.x, b.last) for b in found.buckets] == [(p.global_step, p.value) for p in wanted]
        else:
            assert max(b.high for b in found.buckets) == max(p.value for p in wanted)


def test_baselines_are_runs_of_the_same_classes(
    home: Home, add_run: Callable[..., int], new_attempt: Callable[..., Any]
) -> None:
    ids = [add_run() for _ in range(4)]
    for run_id, classes in zip(ids, (["a", "b"], ["a", "b"], ["a", "c"], ["a", "b"]), strict=True):
        file = new_attempt(run_id)
        file.start(0)
        file.emit("confusion", 1, {"matrix": [[1, 0], [0, 1]], "classes": classes})
        file.read()
    import sqlite3

    connection = sqlite3.connect(home.database)
    connection.execute("UPDATE runs SET state = 'succeeded' WHERE id != ?", [ids[3]])
    connection.execute("UPDATE runs SET tags = ? WHERE id = ?", [json.dumps(["pinned"]), ids[1]])
    connection.commit()
    connection.close()
    found = [row.id for row in run_history.baselines(home, str(ids[0]))]
    assert found == [str(ids[1])], "another class, and a run that goes on, are none"
    marked = run_history.baselines(home, str(ids[0]), (str(ids[3]), str(ids[0])))
    assert [row.id for row in marked] == [str(ids[3]), str(ids[1])], "what was marked comes first, never itself"
    assert [row.id for row in run_history.baselines(home, str(ids[3]))] == [str(ids[1]), str(ids[0])], "pinned first"


def test_several_series_at_once_are_what_each_is_alone(seeded_once: Home) -> None:
    """Runs that trained once and twice, a series that is not there, whole and between two steps, and of a stage."""
    names = [(run, name) for run in (1, 4, 99) for name in (*runs.metric_names(seeded_once, str(run)), "none")]
    assert len(names) == 15
    for stage, within in ((None, None), (None, (40, 260)), ("segment", None)):
        with traced() as trace, snapshot(seeded_once) as reader:
            found = reader.several_series(names, 60, stage, dict.fromkeys(names, within))
        assert len(trace.statements()) < 15
        for run, name in names:
            alone = runs.series(seeded_once, str(run), name, max_buckets=60, stage=stage, within=within)
            assert found[run, name] == (alone.buckets, alone.total_points)
            points = runs.points(seeded_once, str(run), name, all_attempts=True)
            low, high = within or (0, 10**9)
            inside = [p for p in points if low <= p.global_step <= high and stage in (None, p.stage)]
            assert alone.total_points == len(inside)


def test_points_at_a_step_are_the_last_ones_that_count(seeded_once: Home) -> None:
    names = runs.metric_names(seeded_once, "4")
    for step in (0, 1, 149, 255, 288, 10**6):
        found = run_history.values_at(seeded_once, {"4": step, "1": step}, [*names, "none"])
        wanted = {
            (run, name): [p for p in runs.points(seeded_once, run, name) if p.global_step <= step][-1:]
            for run in ("4", "1")
            for name in names
        }
        assert found == {key: points[0] for key, points in wanted.items() if points}
        times = [p.time for name in names for p in runs.points(seeded_once, "4", name) if p.global_step <= step]
        events = [e.t for e in runs.events(seeded_once, "4") if e.global_step <= step]
        assert moments.time_at(seeded_once, "4", step) == max([*times, *events])
