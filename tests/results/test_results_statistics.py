"""Statistics against scipy and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from sciml_hpc.results.statistics import summarise, t_quantile


@pytest.mark.parametrize("df", [1, 2, 3, 4, 5, 9, 10, 29, 30, 99, 1000])
@pytest.mark.parametrize("probability", [0.5, 0.9, 0.95, 0.99])
def test_quantiles_are_scipys(df, probability):
    assert t_quantile(probability, df) == pytest.approx(scipy.stats.t.ppf((1 + probability) / 2, df), rel=1e-11)


@pytest.mark.parametrize("n", [2, 3, 5, 10, 40])
def test_summary_is_scipys(n):
    values = np.random.default_rng(n).normal(100, 5, n)
    summary = summarise(values.tolist())
    interval = scipy.stats.t.interval(0.95, n - 1, loc=values.mean(), scale=scipy.stats.sem(values))
    assert (summary.ci95_low, summary.ci95_high) == pytest.approx(interval, rel=1e-12)
    assert summary.cv == pytest.approx(scipy.stats.variation(values, ddof=1), rel=1e-12)
    assert (summary.n, summary.median, summary.min, summary.max) == (n, np.median(values), values.min(), values.max())
    assert summary.mean == pytest.approx(values.mean(), rel=1e-15)
    if n > 2:
        assert summary.olympic_mean == pytest.approx(scipy.stats.trim_mean(values, 1 / n), rel=1e-14)


def test_by_hand():
    summary = summarise([10.0, 12.0, 11.0, 50.0, 1.0])
    assert summary.olympic_mean == 11.0
    assert summary.median == 11.0
    assert summary.mean == pytest.approx(16.8)


def test_nothing_is_said_that_n_does_not_allow():
    one = summarise([3.0])
    assert (one.n, one.mean, one.olympic_mean, one.cv, one.ci95_low, one.ci95_high) == (1, 3.0, None, None, None, None)
    two = summarise([3.0, 5.0])
    assert two.olympic_mean is None
    assert two.cv == pytest.approx(2**0.5 / 4)
    assert summarise([-1.0, 1.0]).cv is None


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [float("inf")]])
def test_what_has_no_statistics_is_refused(values):
    with pytest.raises(ValueError, match="finite"):
        summarise(values)
