"""Whether two groups of runs differ by more than their seeds do: Welch's t test, and how many seeds it would take.

Welch, B. L. (1947): The generalization of "Student's" problem when several different population variances are involved.
The distribution function of t follows from the regularised incomplete beta function (continued fraction, modified
Lentz). Pure Python: reading verbs must not import SciPy.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

from mmtui.domain.numbers import mean

ALPHA, POWER = 0.05, 0.8
MOST_SEEDS = 1000
_TINY, _PRECISION, _MOST_TERMS = 1e-300, 1e-15, 10_000
_SQUARES = 1e100
"""The squares of numbers beyond this, and their sums, may be no floats any more."""


@dataclass(frozen=True)
class Summary:
    """Values of a group of runs that differ in their seeds alone."""

    n: int
    mean: float
    sd: float | None  # None with fewer than two values


@dataclass(frozen=True)
class Comparison:
    """Of a group with another.

    Attributes:
        difference: mean of the first minus mean of the second.
        p: probability of a difference at least so large if there is none; None if a group has fewer than two values.
        needed: seeds that each group would need to show a difference of this size, at 5 % with a power of 80 %; None
            if that cannot be told or would be more than ``MOST_SEEDS``.
    """

    difference: float
    p: float | None
    needed: int | None

    @property
    def significant(self) -> bool:
        """Whether the difference is beyond seed noise."""
        return self.p is not None and self.p < ALPHA


def summary(values: Sequence[float]) -> Summary:
    """Mean and sample standard deviation; the latter is infinite where no float is so large.

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("no values")
    if not all(map(math.isfinite, values)):
        return Summary(len(values), sum(values) / len(values), None)
    return Summary(len(values), _mean(values), _deviation(values) if len(values) > 1 else None)


def _mean(values: Sequence[float]) -> float:
    try:
        return statistics.fmean(values)
    except OverflowError:
        return mean(values)


def _deviation(values: Sequence[float]) -> float:
    try:
        return statistics.stdev(values)
    except OverflowError:
        return math.inf


def welch(first: Sequence[float], second: Sequence[float]) -> Comparison:
    """Compare two groups whose variances may differ.

    Raises:
        ValueError: a group is empty.
    """
    a, b = summary(first), summary(second)
    difference = a.mean - b.mean
    if a.sd is None or b.sd is None:
        return Comparison(difference, None, None)
    largest = max(map(abs, (*first, *second)))
    if largest > _SQUARES:  # all that is asked is a matter of shares
        shares = welch([value / largest for value in first], [value / largest for value in second])
        return replace(shares, difference=difference)
    of_a, of_b = a.sd**2 / a.n, b.sd**2 / b.n
    if of_a + of_b == 0:
        # Runs of several seeds that all give the very same value: nothing is left to chance.
        return Comparison(difference, 1.0 if difference == 0 else 0.0, None)
    t = difference / math.sqrt(of_a + of_b)
    # Of shares, not of the variances themselves, whose squares may be too small to be told from 0.
    share = of_a / (of_a + of_b)
    freedom = 1 / (share**2 / (a.n - 1) + (1 - share) ** 2 / (b.n - 1))
    return Comparison(difference, two_sided(t, freedom), _needed(difference, a.sd, b.sd))


def _needed(difference: float, sd_a: float, sd_b: float) -> int | None:
    """Seeds of each group, by the normal approximation and two more for the estimated variances."""
    if difference == 0:
        return None
    normal = NormalDist()
    factor = (normal.inv_cdf(1 - ALPHA / 2) + normal.inv_cdf(POWER)) ** 2
    # The square of a difference may be too small to be told from 0.
    wanted = factor * (sd_a**2 + sd_b**2) / (difference**2 or _TINY)
    return math.ceil(wanted) + 2 if wanted <= MOST_SEEDS - 2 else None


def two_sided(t: float, freedom: float) -> float:
    """P(|T| >= |t|) of Student's t with so many degrees of freedom."""
    if t * t < 0.1:
        # Of a small t the other form keeps every digit: freedom / (freedom + t * t) is 1 to the last bit.
        return 1.0 - incomplete_beta(0.5, freedom / 2, t * t / (freedom + t * t))
    return incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b), a and b positive, x in 0-1."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    # The fraction converges quickly on one side of the mean; the other side follows by symmetry.
    if x > (a + 1) / (a + b + 2):
        return 1.0 - incomplete_beta(b, a, 1 - x)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_front) * _fraction(a, b, x) / a


def _fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of the incomplete beta function."""
    c, d = 1.0, 1.0 / _away_from_zero(1.0 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, _MOST_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1.0 / _away_from_zero(1.0 + term * d)
            c = _away_from_zero(1.0 + term / c)
            value *= c * d
        if abs(c * d - 1.0) < _PRECISION:
            break
    return value


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
