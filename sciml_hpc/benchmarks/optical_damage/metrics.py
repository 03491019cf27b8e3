"""Area under the ROC curve as additive sums: histograms of the scores of either kind."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch

LOWEST, HIGHEST, STEPS = -24, 8, 1024
"""Bins of scores: from 2⁻²⁴ to 2⁸, each octave in 1024 equal steps, so that a bin is at most 0.1 % wide."""
BINS = (HIGHEST - LOWEST) * STEPS
FALSE_ALARMS = 0.05
"""Share of undamaged optics that may be reported, which sets the threshold of `accuracy`, `f1` and `recall`."""

_SCORES = ("auc", "auc_peak", "auc_brightness", "auc_variance")


class Detection:
    """How well scores tell damaged from undamaged images.

    `auc` is the probability that the reconstruction error (mean square over the image) of a damaged image is larger
    than that of an undamaged one; `auc_peak` the same of the largest squared error of a pixel, the reference's score.
    Pairs of images whose scores share a bin count one half, so that each is exact but for the order within bins; `auc`
    is off by `auc_bound` at most. `auc_brightness` and `auc_variance` are those of the image's mean and variance, which
    need no network, in whichever direction they serve better.

    `accuracy`, `f1` and `recall` (of the damaged) are at the least threshold on the reconstruction error that at most
    5 % of the undamaged images exceed. `eval_loss` is the mean reconstruction error of the undamaged, as in training,
    `damaged_loss` that of the damaged. What needs a kind of which there is none is not a number.
    """

    def update(self, output: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Counts by score, kind and bin, flattened, then images and Σ error of the undamaged and of the damaged."""
        image, kind = batch["image"], batch["damaged"].long()
        square = (output[:, 0].float() - image).square().flatten(1)
        error = square.mean(1)
        scores = torch.stack([error, square.amax(1), image.mean((1, 2)), image.var((1, 2), correction=0)])
        each = 2 * torch.arange(len(scores), device=kind.device)[:, None] + kind
        counts = torch.bincount((each * BINS + bin_of(scores)).flatten(), minlength=2 * len(scores) * BINS)
        kinds = torch.stack([kind == 0, kind == 1]).double()
        return torch.cat([counts.double(), kinds.sum(1), (kinds * error.double()).sum(1)])

    def compute(self, total: np.ndarray) -> dict[str, float]:
        images, errors = total[-4:-2], total[-2:]
        histograms = total[:-4].reshape(len(_SCORES), 2, BINS)
        areas = [area(undamaged, damaged) for undamaged, damaged in histograms]
        values = dict(zip(_SCORES, (value for value, _ in areas), strict=True))
        for trivial in _SCORES[2:]:
            values[trivial] = max(values[trivial], 1 - values[trivial])
        values["auc_bound"] = areas[0][1]
        with np.errstate(invalid="ignore", divide="ignore"):
            values["eval_loss"], values["damaged_loss"] = (errors / images).tolist()
        return values | _at_threshold(*histograms[0])


def bin_of(scores: torch.Tensor) -> torch.Tensor:
    """Bins (int64) of float32 scores; those outside all bins count in the first or the last.

    A positive float32 is read as an integer: exponent and first ten bits of the fraction number the bins.
    """
    inside = scores.float().clamp(2.0**LOWEST, 2.0**HIGHEST * (1 - 2.0**-24)).contiguous()
    return (inside.view(torch.int32).long() >> 13) - ((127 + LOWEST) << 10)


def area(undamaged: np.ndarray, damaged: np.ndarray) -> tuple[float, float]:
    """Area under the ROC curve from two histograms, and the largest error that sharing bins can make."""
    pairs = undamaged.sum() * damaged.sum()
    if not pairs:
        return math.nan, math.nan
    tied = float(undamaged @ damaged) / pairs
    below = np.cumsum(undamaged) - undamaged
    return float(below @ damaged) / pairs + tied / 2, tied / 2


def _at_threshold(undamaged: np.ndarray, damaged: np.ndarray) -> dict[str, float]:
    """Accuracy, F1 and recall where images in the highest bins are reported, as many bins as false alarms allow."""
    names = ("accuracy", "f1", "recall")
    if not undamaged.sum() or not damaged.sum():
        return dict.fromkeys(names, math.nan)
    false, true = (np.append(np.cumsum(h[::-1])[::-1], 0) for h in (undamaged, damaged))
    first = int(np.argmax(false <= FALSE_ALARMS * undamaged.sum()))
    found, alarms = float(true[first]), float(false[first])
    right = found + undamaged.sum() - alarms
    values = (
        right / (undamaged.sum() + damaged.sum()),
        2 * found / (found + alarms + damaged.sum()),
        found / damaged.sum(),
    )
    return dict(zip(names, map(float, values), strict=True))
