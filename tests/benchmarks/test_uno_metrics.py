"""The metrics against scikit-learn and SciPy, whatever the cuts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from sciml_hpc.benchmarks.uno.metrics import Regression


def in_cuts(truth: np.ndarray, guess: np.ndarray, cuts: np.ndarray) -> dict[str, float]:
    """Metrics of the samples dealt out in pieces, some of them empty, as ranks and batches would."""
    metrics, total = Regression(), np.zeros(8)
    for t, g in zip(np.split(truth, cuts), np.split(guess, cuts), strict=True):
        part = metrics.update(torch.from_numpy(g), {"response": torch.from_numpy(t)})
        assert part.dtype == torch.float64
        total += part.numpy()
    return metrics.compute(total)


@pytest.mark.parametrize("seed", range(4))
def test_equal_to_scikit_learn_over_any_cuts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 1013
    truth = rng.beta(5, 1.5, n).astype(np.float32)
    guess = (0.7 * truth + 0.2 + 0.05 * rng.normal(size=n)).astype(np.float32)
    result = in_cuts(truth, guess, np.sort(rng.integers(0, n, 12)))
    t, g = truth.astype(float), guess.astype(float)
    assert result["eval_error"] == pytest.approx(mean_squared_error(t, g), rel=1e-12)
    assert result["mae"] == pytest.approx(mean_absolute_error(t, g), rel=1e-12)
    assert result["r2"] == pytest.approx(r2_score(t, g), rel=1e-10)
    assert result["pearson_r"] == pytest.approx(pearsonr(t, g).statistic, rel=1e-10)
    assert result["mean_predictor_mse"] == pytest.approx(mean_squared_error(t, np.full(n, t.mean())), rel=1e-10)


def test_is_not_the_mean_of_batch_values() -> None:
    """Two batches, each perfectly predicted up to a constant: R² of the whole is not the mean of theirs."""
    truth, guess = np.float32([0, 1, 10, 11]), np.float32([1, 2, 9, 10])
    assert in_cuts(truth, guess, np.array([2]))["r2"] == pytest.approx(1 - 4 / 101)


def test_undefined_values_are_nan() -> None:
    empty = Regression().compute(np.zeros(8))
    assert all(math.isnan(v) for v in empty.values())
    constant = in_cuts(np.float32([0.5, 0.5]), np.float32([0.25, 0.75]), np.array([1]))
    assert constant["eval_error"] == 0.0625
    assert math.isnan(constant["r2"])
    assert math.isnan(constant["pearson_r"])
    broken = in_cuts(np.float32([0.5, 1.0]), np.float32([0.5, math.nan]), np.array([1]))
    assert math.isnan(broken["eval_error"])
