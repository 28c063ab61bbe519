"""Arithmetic that stays finite, against exact arithmetic."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.events.numbers import LARGEST_INTEGER
from mmtui.domain.numbers import LARGEST, between, bounded, floored, mean

FINITE = st.floats(allow_nan=False, allow_infinity=False)
MOST = 1.7976931348623157e308


@given(st.floats(allow_nan=False))
def test_bounded_keeps_what_is_within_and_its_differences_are_finite(value: float) -> None:
    found = bounded(value)
    assert found == value if abs(value) <= LARGEST else found == math.copysign(LARGEST, value)
    assert math.isfinite(8 * (found - bounded(-value)))


@given(FINITE, FINITE, st.floats(0, 1), st.floats(min_value=0, allow_infinity=False, exclude_min=True))
@example(MOST, -MOST, 0.5, 1.0)
@example(1e307, -1e307, 1.0, 1e307)
@example(0.0, 0.75, 1.0, 5e-324)
def test_between_lies_between(first: float, second: float, share: float, whole: float) -> None:
    found = between(first, second, share * whole, whole)
    slack = Fraction(max(abs(first), abs(second))) / 2**48
    assert min(first, second) - slack <= Fraction(found) <= max(first, second) + slack


@given(FINITE, FINITE, st.floats(), st.floats())
def test_between_of_anything_is_a_number(first: float, second: float, part: float, whole: float) -> None:
    assert math.isfinite(between(first, second, part, whole))


def test_between_is_the_plain_formula_where_that_is_finite() -> None:
    assert between(3.0, 10.0, 1.0, 3.0) == 3.0 + (10.0 - 3.0) * 1.0 / 3.0
    assert between(3.0, 10.0, 0.0, 0.0) == 3.0


@given(st.floats())
def test_floored_can_be_asked_of_a_database(value: float) -> None:
    found = floored(value)
    assert -LARGEST_INTEGER <= found < LARGEST_INTEGER
    if abs(value) < 2**62:
        assert found == math.floor(value)


@given(st.lists(FINITE, min_size=1))
@example([MOST, MOST])
@example([MOST] * 3 + [-MOST])
def test_mean_is_the_exact_mean(values: list[float]) -> None:
    found, exact = mean(values), sum(map(Fraction, values)) / len(values)
    slack = Fraction(max(map(abs, values))) / 2**40
    assert abs(Fraction(found) - exact) <= slack


@pytest.mark.parametrize(("values", "wanted"), [([math.inf, 1.0], math.inf), ([-math.inf], -math.inf)])
def test_mean_with_infinities_is_infinite(values: list[float], wanted: float) -> None:
    assert mean(values) == wanted
    assert math.isnan(mean([math.nan, 1.0]))
