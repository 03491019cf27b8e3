"""Validation metrics: those of CloudMask's pixels, precision and recall, beside trivial answers."""

from __future__ import annotations

import math

import numpy as np

from sciml_hpc.benchmarks.cloudmask import PixelMetrics


class CloudMetrics(PixelMetrics):
    """`cloudmask.PixelMetrics` (the sums are the same five), and precision and recall of the class cloud.

    `majority_accuracy` is what always giving the more frequent answer scores, `all_cloud_f1` the F1 of saying cloud
    everywhere, `prior_loss` the cross-entropy of always giving the share of clouds as probability.
    """

    def __init__(self) -> None:
        super().__init__(cloud_weight=1.0)

    def compute(self, total: np.ndarray) -> dict[str, float]:
        """By name; not a number where undefined."""
        tp, fp, fn, tn = (float(x) for x in total[:4])
        pixels, cloudy = tp + fp + fn + tn, tp + fn
        share = cloudy / pixels if pixels else math.nan
        return super().compute(total) | {
            "precision": tp / (tp + fp) if tp + fp else math.nan,
            "recall": tp / cloudy if cloudy else math.nan,
            "majority_accuracy": max(share, 1 - share),
            "all_cloud_f1": 2 * cloudy / (cloudy + pixels) if pixels else math.nan,
            "prior_loss": -sum(p * math.log(p) if p else 0.0 for p in (share, 1 - share)),
        }
