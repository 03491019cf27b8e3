"""Statistics of repeated runs: n is always given, and nothing is said that n does not allow."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Summary:
    """Repeats of one figure, in its unit but for `cv`. None where n is too small: below 3 for the olympic mean, below 2
    for the spread.
    """

    n: int
    median: float
    min: float
    max: float
    mean: float
    olympic_mean: float | None
    """Mean without the smallest and the largest value: MLPerf's score of a set of runs."""
    cv: float | None
    """Coefficient of variation: sample standard deviation (n − 1) ÷ |mean|; None also if the mean is 0."""
    ci95_low: float | None
    """95 % confidence interval of the mean, by Student's t: the values are taken as independent and normal."""
    ci95_high: float | None


def summarise(values: Sequence[float]) -> Summary:
    """The statistics of `values`; ValueError if there are none or one is not finite."""
    if not values or not all(math.isfinite(value) for value in values):
        raise ValueError(f"statistics need finite values; found {list(values)}")
    n, mean = len(values), statistics.fmean(values)
    spread = statistics.stdev(values) if n > 1 else None
    half = None if spread is None else t_quantile(0.95, n - 1) * spread / math.sqrt(n)
    return Summary(
        n=n,
        median=statistics.median(values),
        min=min(values),
        max=max(values),
        mean=mean,
        olympic_mean=statistics.fmean(sorted(values)[1:-1]) if n > 2 else None,
        cv=None if spread is None or mean == 0 else spread / abs(mean),
        ci95_low=None if half is None else mean - half,
        ci95_high=None if half is None else mean + half,
    )


def t_quantile(probability: float, df: int) -> float:
    """The t for which |T| ≤ t has this probability, T having Student's distribution with `df` ≥ 1 degrees of freedom.

    Bisection on θ = atan(t/√df), in which the probability is a finite sum (Abramowitz and Stegun, 26.7.3 and 26.7.4).
    """
    low, high = 0.0, math.pi / 2
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if _probability(middle, df) < probability else (low, middle)
    return math.sqrt(df) * math.tan(middle)


def _probability(theta: float, df: int) -> float:
    """P(|T| ≤ √df · tan θ)."""
    odd = df % 2
    term = math.cos(theta) if odd else 1.0
    total = term if df > 1 else 0.0
    for k in range(2 + odd, df, 2):
        term *= math.cos(theta) ** 2 * (k - 1) / k
        total += term
    if not odd:
        return math.sin(theta) * total
    return (theta + math.sin(theta) * total) * 2 / math.pi
