"""Validation metrics as sums: exact over any number of ranks and any cut into batches."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from sciml_hpc.benchmarks.stemdl.settings import CLASSES


class SpaceGroupMetrics:
    """Macro-F1, top-1 and top-5 accuracy of the whole validation set.

    The sum holds the row sums, the column sums and the diagonal of the global confusion matrix, all that macro-F1
    depends on, and the number of samples whose class is among the five highest logits (ties count against the model).

    Absent classes: macro-F1 is the mean over the classes that occur among the labels or the predictions, as
    scikit-learn has it; a class that is only predicted counts with F1 = 0, one that never occurs does not count.
    """

    def update(self, output: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """`output` (batch, CLASSES) logits; (3 CLASSES + 1,) float64."""
        label = batch["space_group"]
        predicted = output.argmax(1)
        own = output.gather(1, label[:, None])
        others_above = (~(output < own)).sum(1) - 1  # so NaN is above everything
        counts = [torch.bincount(c, minlength=CLASSES) for c in (label, predicted, label[predicted == label])]
        return torch.cat([*counts, (others_above < 5).sum()[None]]).double()

    def compute(self, total: np.ndarray) -> dict[str, float]:
        """f1_score, eval_accuracy, top5_accuracy; accuracy and F1 of always naming the most frequent class."""
        labels, predictions, hits = total[:-1].reshape(3, CLASSES)
        samples = labels.sum()
        occurs = (labels + predictions) > 0
        f1 = 2 * hits[occurs] / (labels + predictions)[occurs]
        most = labels.max()
        return {
            "f1_score": float(f1.mean()),
            "eval_accuracy": float(hits.sum() / samples),
            "top5_accuracy": float(total[-1] / samples),
            "most_frequent_class_accuracy": float(most / samples),
            "most_frequent_class_f1_score": float(2 * most / (most + samples) / (labels > 0).sum()),
        }


class PotentialMetrics:
    """How much of the potential's structure is missed.

    `eval_error` = Σ var(prediction − truth) / Σ var(truth), variances over the pixels of a sample, sums over samples:
    0 is perfect, 1 is what a constant image reaches. A constant offset of a sample does not count, as it does not in
    the reference's loss. There is no published metric; this one is ours. `correlation` is the mean over samples of
    Pearson's r over pixels, 0 where an image is constant. Baseline: the error of the validation set's own mean image.
    """

    def __init__(self, unit_V_nm: float) -> None:
        self.unit_V_nm = unit_V_nm

    def update(self, output: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """`output` (batch, 1, size, size) in `unit_V_nm`; (4 + size²,) float64."""
        predicted, truth = centred(output.double() * self.unit_V_nm), centred(batch["potential"].double())
        error = (predicted - truth).square().mean(1)
        variance, own = truth.square().mean(1), predicted.square().mean(1)
        scale = (variance * own).sqrt()
        r = torch.where(scale > 0, (predicted * truth).mean(1) / scale, 0.0)
        sums = torch.stack([error.sum(), variance.sum(), r.sum(), r.new_tensor(len(r))])
        return torch.cat([sums, truth.sum(0)])

    def compute(self, total: np.ndarray) -> dict[str, float]:
        """eval_error, correlation, mean_image_error."""
        error, variance, r, samples = total[:4]
        mean_image = total[4:] / samples
        return {
            "eval_error": float(error / variance),
            "correlation": float(r / samples),
            "mean_image_error": float(1 - samples * np.square(mean_image).mean() / variance),
        }


def centred(images: torch.Tensor) -> torch.Tensor:
    """Images less their mean, pixels in a row: (batch, …) → (batch, pixels)."""
    flat = images.flatten(1)
    return flat - flat.mean(1, keepdim=True)
