"""Welch's test against SciPy, which the product itself does not need."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import special, stats

from mmtui.domain.statistics import incomplete_beta, summary, two_sided, welch


@given(st.floats(0.05, 500), st.floats(0.05, 500), st.floats(0, 1))
def test_incomplete_beta_agrees_with_scipy(a: float, b: float, x: float) -> None:
    assert incomplete_beta(a, b, x) == pytest.approx(special.betainc(a, b, x), rel=1e-9, abs=1e-12)


@given(st.floats(-60, 60), st.floats(1, 1000))
@example(5.960464477539063e-08, 32.0)
@example(30.0, 1000.0)
def test_two_sided_agrees_with_scipy(t: float, freedom: float) -> None:
    assert two_sided(t, freedom) == pytest.approx(2 * stats.t.sf(abs(t), freedom), rel=1e-8, abs=1e-14)


groups = st.lists(st.floats(0, 100), min_size=2, max_size=12)


@given(groups, groups)
def test_welch_agrees_with_scipy(first: list[float], second: list[float]) -> None:
    found = welch(first, second)
    assert found.difference == pytest.approx(sum(first) / len(first) - sum(second) / len(second), abs=1e-9)
    spread = (summary(first).sd or 0) + (summary(second).sd or 0)
    if spread > 1e-6:
        wanted = stats.ttest_ind(first, second, equal_var=False).pvalue
        assert found.p == pytest.approx(wanted, rel=1e-6, abs=1e-12)


def test_welch_one_value_gives_no_probability() -> None:
    found = welch([50.0], [40.0, 41.0])
    assert (found.difference, found.p, found.needed, found.significant) == (9.5, None, None, False)


def test_welch_of_equal_values_leaves_nothing_to_chance() -> None:
    assert welch([5.0, 5.0], [5.0, 5.0]).p == 1.0
    assert welch([6.0, 6.0], [5.0, 5.0]).significant


def test_needed_seeds_give_the_power_that_is_promised() -> None:
    """By trial: with so many seeds a true difference of one deviation is found in about 80 % of all studies."""
    draw = random.Random(3)
    # Two groups of which one is better by exactly one standard deviation.
    first, second = [0.0, 1.0, 2.0], [1.0, 2.0, 3.0]
    needed = welch(second, first).needed
    assert needed is not None and 16 <= needed <= 20
    hits = 0
    for _ in range(400):
        one = [draw.gauss(0, 1) for _ in range(needed)]
        other = [draw.gauss(1, 1) for _ in range(needed)]
        hits += stats.ttest_ind(one, other, equal_var=False).pvalue < 0.05
    assert 0.74 < hits / 400 < 0.92


def test_needed_is_not_told_where_it_would_be_absurd() -> None:
    assert welch([50.0, 60.0], [50.0001, 60.0001]).needed is None
    assert math.isclose(welch([50.0, 60.0], [50.0, 60.0]).difference, 0)
    assert welch([50.0, 60.0], [50.0, 60.0]).needed is None


def test_summary_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no values"):
        summary([])


# ---- values of foreign runs ----------------------------------------------------------------------------------------

anything = st.lists(st.one_of(st.floats(), st.floats(allow_nan=False, allow_infinity=False)), min_size=1, max_size=6)


@given(anything, anything)
@example([1.7e308, 1.7e308], [-1.7e308, -1.6e308])
@example([1e200, 2e200], [3e200, 5e200])
@example([0.0, 5e-324], [0.0, 1e-200])
@example([math.inf, -math.inf], [math.nan])
@example([1.7e308, -1.7e308], [1.0, 2.0])
@example([-1e-150, 1e-150], [-1e-150, math.nextafter(1e-150, 1)])
def test_welch_of_anything_answers(first: list[float], second: list[float]) -> None:
    found = welch(first, second)
    assert found.p is None or 0 <= found.p <= 1
    assert found.needed is None or found.needed <= 1000
    for values in (first, second):
        told = summary(values)
        assert told.n == len(values)
        if all(map(math.isfinite, values)):
            slack = 1e-12 * max(map(abs, values))
            assert min(values) - slack <= told.mean <= max(values) + slack
            assert told.sd is None or told.sd >= 0


@given(st.integers(100, 305))
def test_welch_does_not_depend_on_the_unit(power: int) -> None:
    first, second, unit = [1.0, 2.0, 4.0], [2.5, 3.0, 5.5], 10.0**power
    small, large = welch(first, second), welch([v * unit for v in first], [v * unit for v in second])
    assert large.p == pytest.approx(small.p, rel=1e-9)
    assert large.needed == small.needed and large.difference == pytest.approx(small.difference * unit)
