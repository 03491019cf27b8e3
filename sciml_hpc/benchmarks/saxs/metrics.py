"""Validation metrics as five sums: exact over any number of ranks and any cut into batches."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from sciml_hpc.benchmarks.saxs.native import PARALLELEPIPED


class ShapeMetrics:
    """Accuracy at p ≥ ½, cross-entropy, and precision, recall and F1 of the parallelepipeds, beside trivial answers.

    `majority_accuracy` is what always naming the more frequent shape scores, `majority_f1` the F1 of always naming
    parallelepipeds (2/3 when classes are even, which no other constant answer exceeds), `prior_loss` the cross-entropy
    of always giving the share of parallelepipeds as probability (ln 2 when even). Not a number where undefined.
    """

    def update(self, output: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """(true, false parallelepipeds, false, true spheres, Σ cross-entropy) of logits `output` (batch,): float64."""
        said, true = output >= 0, batch["shape"] == PARALLELEPIPED
        entropy = binary_cross_entropy_with_logits(output.float(), true.float(), reduction="none")
        counts = [said & true, said & ~true, ~said & true, ~said & ~true]
        return torch.stack([x.sum(dtype=torch.float64) for x in (*counts, entropy)])

    def compute(self, total: np.ndarray) -> dict[str, float]:
        """By name."""
        tp, fp, fn, tn, entropy = (float(x) for x in total)
        n, positive = tp + fp + fn + tn, tp + fn
        share = _ratio(positive, n)
        return {
            "eval_accuracy": _ratio(tp + tn, n),
            "eval_loss": _ratio(entropy, n),
            "f1": _ratio(2 * tp, 2 * tp + fp + fn),
            "precision": _ratio(tp, tp + fp),
            "recall": _ratio(tp, positive),
            "majority_accuracy": max(share, 1 - share),
            "majority_f1": _ratio(2 * positive, positive + n),
            "prior_loss": -sum(p * math.log(p) if p else 0.0 for p in (share, 1 - share)),
        }


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
