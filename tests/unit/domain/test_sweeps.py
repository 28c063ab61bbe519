"""Sweeps: what one command line means."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtui.domain.sweeps import MOST, differences, every_value, expand, swept_keys
from mmtui.errors import UsageError

TEXTS = {"data.root"}


def is_text(key: str) -> bool:
    return key in TEXTS


def test_expand_without_several_values_is_one_run_of_the_texts_as_typed() -> None:
    texts = ["seed=1", "match.patch_size=[8,16]", "data.root=/a,b", "name='x,y'", "broken"]
    assert expand(texts, is_text) == [tuple(texts)]
    assert expand([], is_text) == [()]


def test_expand_product_last_key_changes_fastest() -> None:
    runs = expand(["lr=0.1,0.01", "a=x", "seed=0..2"], is_text)
    assert runs == [(f"lr={lr}", "a=x", f"seed={seed}") for lr in ("0.1", "0.01") for seed in range(3)]


def test_expand_lists_are_values_and_can_be_swept_themselves() -> None:
    assert expand(["p=[8,16],[4,8]"], is_text) == [("p=[8,16]",), ("p=[4,8]",)]


def test_expand_ranges_hold_both_ends() -> None:
    assert expand(["s=0..10..5,99"], is_text) == [("s=0",), ("s=5",), ("s=10",), ("s=99",)]
    assert expand(["s=-1..1"], is_text) == [("s=-1",), ("s=0",), ("s=1",)]


def test_expand_zip_takes_the_nth_values_together() -> None:
    runs = expand(["lr=0.1,0.01", "seed=3..4", "x=1"], is_text, zipped=True)
    assert runs == [("lr=0.1", "seed=3", "x=1"), ("lr=0.01", "seed=4", "x=1")]


def test_expand_zip_of_different_lengths_names_them() -> None:
    with pytest.raises(UsageError, match=r"lr has 2, seed has 3"):
        expand(["lr=1,2", "seed=0..2"], is_text, zipped=True)


@pytest.mark.parametrize("text", ["s=4..0", "s=0..4..0"])
def test_expand_ranges_that_go_nowhere_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="a range goes up"):
        expand([text], is_text)


def test_expand_too_many_runs_are_refused_before_they_are_listed() -> None:
    with pytest.raises(UsageError, match="values; give fewer"):
        expand(["seed=0..99999999999"], is_text)
    with pytest.raises(UsageError, match="has 1,000,000 runs"):
        expand(["a=0..999", "b=0..999"], is_text)
    assert MOST == 10_000


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True), max_size=4))
def test_expand_is_the_product_of_the_values(values: list[list[int]]) -> None:
    texts = [f"k{i}={','.join(map(str, several))}" for i, several in enumerate(values)]
    expected = [tuple(f"k{i}={v}" for i, v in enumerate(chosen)) for chosen in itertools.product(*values)]
    assert expand(texts, is_text) == expected
    assert swept_keys(texts, is_text) == [f"k{i}" for i, several in enumerate(values) if len(several) > 1]


@given(
    st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=5, unique=True), max_size=4),
    st.integers(1, 60),
)
def test_every_value_is_tried_as_far_as_so_many_runs_can(choices: list[list[int]], most: int) -> None:
    members = expand([f"k{n}={','.join(map(str, several))}" for n, several in enumerate(choices)], is_text)
    chosen = every_value(members, most)
    assert 1 <= len(chosen) <= min(most, len(members))
    assert len(set(chosen)) == len(chosen) and set(chosen) <= set(members)
    assert chosen[0] == members[0]
    if most > 1:
        assert members[-1] in chosen
    # Every run beyond the first has a value that is new, so this many are enough.
    if most >= 2 + sum(len(several) for several in choices):
        assert {text for texts in chosen for text in texts} == {text for texts in members for text in texts}


@pytest.mark.parametrize(
    ("texts", "zipped", "expected"),
    [
        (["segment.steps=5", "seed=0..1"], False, ["seed=0", "seed=1"]),
        (["segment.optim.lr=1,2", "seed=3,4"], True, ["lr=1 seed=3", "lr=2 seed=4"]),
        (
            ["segment.optim.lr=1,2", "match.optim.lr=3,4"],
            True,
            ["segment.optim.lr=1 match.optim.lr=3", "segment.optim.lr=2 match.optim.lr=4"],
        ),
        (["segment.steps=5"], False, [""]),
        ([], False, [""]),
    ],
)
def test_differences_name_what_sets_runs_apart(texts: list[str], zipped: bool, expected: list[str]) -> None:
    assert differences(expand(texts, is_text, zipped=zipped)) == expected


def test_differences_of_nothing_are_none_and_the_last_of_two_values_counts() -> None:
    assert differences([]) == []
    assert differences([["seed=1", "seed=1"], ["seed=1", "seed=2"]]) == ["seed=1", "seed=2"]
