"""The errors against scikit-learn, whatever the cuts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import mean_absolute_error, r2_score

from sciml_hpc.benchmarks.magnon.metrics import Exchange


def in_cuts(truth: np.ndarray, guess: np.ndarray, cuts: np.ndarray) -> dict[str, float]:
    """Metrics of samples dealt out in pieces, some of them empty, as ranks and batches would."""
    metrics, total = Exchange(), np.zeros(11)
    for t, g in zip(np.split(truth, cuts), np.split(guess, cuts), strict=True):
        part = metrics.update(torch.from_numpy(g), {"exchange": torch.from_numpy(t)})
        assert part.dtype == torch.float64
        assert part.shape == (11,)
        total += part.numpy()
    return metrics.compute(total)


@pytest.mark.parametrize("seed", range(3))
def test_equal_to_scikit_learn_over_any_cuts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 1009
    truth = rng.uniform([0.4, -0.1], [1.0, 0.1], (n, 2)).astype(np.float32)
    guess = (truth + rng.normal(0.001, [0.01, 0.02], (n, 2))).astype(np.float32)
    result = in_cuts(truth, guess, np.sort(rng.integers(0, n, 12)))
    for i, (name, middle, published) in enumerate((("J", 0.7, 0.0055), ("J2", 0.0, 0.0036))):
        t, g = truth[:, i].astype(float), guess[:, i].astype(float)
        assert result[f"mae_{name}_meV"] == pytest.approx(mean_absolute_error(t, g), rel=1e-12)
        assert result[f"r2_{name}"] == pytest.approx(r2_score(t, g), rel=1e-10)
        always = mean_absolute_error(t, np.full(n, middle))
        assert result[f"mean_predictor_mae_{name}_meV"] == pytest.approx(always, rel=1e-12)
        assert result["mae_ratio"] >= mean_absolute_error(t, g) / published * (1 - 1e-12)
    assert result["mae_ratio"] == pytest.approx(result["mae_J2_meV"] / 0.0036)


def test_the_worse_of_the_two_constants_decides() -> None:
    truth = np.float32([[0.5, 0.0], [0.75, 0.0625]])
    good_j = in_cuts(truth, truth + np.float32([0.0, 0.036]), np.array([1]))
    assert good_j["mae_ratio"] == pytest.approx(10, rel=1e-5)
    good_j2 = in_cuts(truth, truth + np.float32([0.11, 0.0]), np.array([1]))
    assert good_j2["mae_ratio"] == pytest.approx(20, rel=1e-5)


def test_undefined_values_are_nan() -> None:
    assert all(math.isnan(v) for v in Exchange().compute(np.zeros(11)).values())
    truth = np.float32([[0.5, 0.0], [0.5, 0.05]])
    constant = in_cuts(truth, truth, np.array([1]))
    assert math.isnan(constant["r2_J"])
    assert constant["r2_J2"] == 1
    broken = in_cuts(truth, np.float32([[0.5, math.nan], [0.5, 0.0]]), np.array([1]))
    assert math.isnan(broken["mae_ratio"])
