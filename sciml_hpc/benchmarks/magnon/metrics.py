"""Errors of J and J' as sums, exact over any batches and ranks."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch

from sciml_hpc.benchmarks.magnon import J2_RANGE_meV, J_RANGE_meV, PUBLISHED_MAE_meV

_NAMES = ("J", "J2")


class Exchange:
    """Mean absolute error and R² of both constants, and what always saying the middle of the drawn range scores.

    `mae_ratio`, the larger of the two errors in units of the published ones, is one number for both: 1 or less means
    as good as the paper in each.
    """

    def update(self, output: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Predictions (batch, 2) in meV: (count, then Σ|e|, Σe², Σd, Σd², Σ|d| of J and of J'), float64 (11,); e are
        the errors, d the truths less the middle of their range."""
        truth = batch["exchange"].double()
        e = output.double() - truth
        d = truth - truth.new_tensor([sum(J_RANGE_meV) / 2, sum(J2_RANGE_meV) / 2])
        sums = torch.stack([s.sum(0) for s in (e.abs(), e * e, d, d * d, d.abs())])
        return torch.cat([sums.new_tensor([len(e)]), sums.flatten()])

    def compute(self, total: np.ndarray) -> dict[str, float]:
        """By name; J2 stands for J', everything is in meV or a ratio. NaN where undefined."""
        n = float(total[0])
        result: dict[str, float] = {}
        ratios = []
        for i, (name, published) in enumerate(zip(_NAMES, PUBLISHED_MAE_meV, strict=True)):
            absolute, squared, d, dd, away = (float(t) / n if n else math.nan for t in total[1 + i :: 2])
            variance = dd - d * d
            ratios.append(absolute / published)
            result[f"mae_{name}_meV"] = absolute
            result[f"r2_{name}"] = 1 - squared / variance if variance > 0 else math.nan
            result[f"mean_predictor_mae_{name}_meV"] = away
        # max() would drop a NaN that comes second
        return {"mae_ratio": float(np.max(ratios)), **result}
