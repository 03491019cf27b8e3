"""The metrics of a regression as eight sums, exact over any batches and ranks."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch


class Regression:
    """Mean squared error (the benchmark's `eval_error`), MAE, R² and Pearson's r over all samples at once.

    The reference averages R² over batches and drops the last, partial batch; these are neither.
    """

    def update(self, output: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """(count, Σ|e|, Σe², Σy, Σy², Σp, Σp², Σyp) of predictions p (batch,), truths y, errors e = p - y: float64."""
        p, y = output.double(), batch["response"].double()
        e = p - y
        sums = (torch.ones_like(e), e.abs(), e * e, y, y * y, p, p * p, y * p)
        return torch.stack([s.sum() for s in sums])

    def compute(self, total: np.ndarray) -> dict[str, float]:
        """The metrics, and the error of the best constant (the mean of the truths); NaN where undefined."""
        n, absolute, squared, y, yy, p, pp, yp = (float(t) for t in total)
        if not n > 0:
            return dict.fromkeys(("eval_error", "mae", "r2", "pearson_r", "mean_predictor_mse"), math.nan)
        # Responses are of order one with a spread of at least 1e-2, so the differences keep ten digits.
        variance, spread = max(0.0, yy / n - (y / n) ** 2), max(0.0, pp / n - (p / n) ** 2)
        covariance = yp / n - (y / n) * (p / n)
        return {
            "eval_error": squared / n,
            "mae": absolute / n,
            "r2": 1.0 - squared / n / variance if variance > 0 else math.nan,
            "pearson_r": covariance / math.sqrt(variance * spread) if variance * spread > 0 else math.nan,
            "mean_predictor_mse": variance,
        }
