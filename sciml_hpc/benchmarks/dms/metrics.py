"""Validation metrics as sums: exact over any number of ranks and any cut into batches."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from sciml_hpc.benchmarks.dms.settings import PERIOD_DEG

WITHIN_DEG = 6.5
"""The accuracy that the SciML suite states."""
CONSTANTS_DEG = np.arange(0.0, PERIOD_DEG)
"""Constant answers that are tried as a baseline: every whole degree."""


class AzimuthMetrics:
    """Errors of an angle that has a period of 90°: the shorter way round, so at most 45°.

    Sums: samples, absolute errors, squared errors, errors of at most 6.5°; then for every whole degree as a constant
    answer, absolute errors and hits within 6.5°.
    """

    def update(self, output: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """`output` (batch,) in periods; (4 + 2 · 90,) float64."""
        truth = batch["azimuth"].double()
        error = _distance_deg(output.double() * PERIOD_DEG - truth)
        constants = torch.from_numpy(CONSTANTS_DEG).to(truth.device)
        missed = _distance_deg(constants - truth[:, None])
        sums = (torch.ones_like(error), error, error.square(), (error <= WITHIN_DEG).double())
        return torch.cat([torch.stack([s.sum() for s in sums]), missed.sum(0), (missed <= WITHIN_DEG).double().sum(0)])

    def compute(self, total: np.ndarray) -> dict[str, float]:
        """mae_deg, rmse_deg, within_6p5_deg; the same of the best constant answer."""
        samples, absolute, squared, within = total[:4]
        missed, hits = total[4:].reshape(2, len(CONSTANTS_DEG))
        return {
            "mae_deg": float(absolute / samples),
            "rmse_deg": float(np.sqrt(squared / samples)),
            "within_6p5_deg": float(within / samples),
            "constant_mae_deg": float(missed.min() / samples),
            "constant_within_6p5_deg": float(hits.max() / samples),
        }


def _distance_deg(angle: torch.Tensor) -> torch.Tensor:
    """Least absolute value of an angle, whole periods added or taken away; NaN stays NaN."""
    return ((angle + PERIOD_DEG / 2) % PERIOD_DEG - PERIOD_DEG / 2).abs()


class StructureMetrics:
    """Accuracy, cross-entropy and macro-F1 from five sums: the confusion matrix (truth, answer) and the loss.

    Macro-F1 is the mean over the classes that occur among truths or answers, as scikit-learn has it. The baseline is
    what always naming the more frequent class scores. NaN among the logits is an answer of class 0 and a loss of NaN.
    """

    def update(self, output: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """`output` (batch, 2) logits; (5,) float64."""
        truth = batch["phase"]
        answer = (output[:, 1] > output[:, 0]).long()
        counts = torch.bincount(2 * truth + answer, minlength=4).double()
        loss = cross_entropy(output.float(), truth, reduction="none").double().sum()
        return torch.cat([counts, loss[None]])

    def compute(self, total: np.ndarray) -> dict[str, float]:
        """eval_accuracy, eval_loss, f1_score; majority_accuracy, majority_f1_score."""
        confusion, loss = total[:4].reshape(2, 2), total[4]
        samples, most = confusion.sum(), confusion.sum(1).max()
        answered = confusion.sum(0) + confusion.sum(1)
        f1 = 2 * confusion.diagonal()[answered > 0] / answered[answered > 0]
        return {
            "eval_accuracy": float(confusion.trace() / samples),
            "eval_loss": float(loss / samples),
            "f1_score": float(f1.mean()),
            "majority_accuracy": float(most / samples),
            "majority_f1_score": float(2 * most / (most + samples) / (confusion.sum(1) > 0).sum()),
        }
