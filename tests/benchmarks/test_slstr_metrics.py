"""Loss and metrics against scikit-learn, torch's own functions and hand-made cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.dummy import DummyClassifier
from sklearn.metrics import accuracy_score, f1_score, jaccard_score, log_loss, precision_score, recall_score

from sciml_hpc.benchmarks.cloudmask.native import UNKNOWN
from sciml_hpc.benchmarks.slstr import Recipe, Slstr
from sciml_hpc.benchmarks.slstr.metrics import CloudMetrics
from sciml_hpc.benchmarks.slstr.native import sample_fields


def drawn(seed: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Masks with some pixels unknown, and logits that know something of them."""
    rng = np.random.default_rng(seed)
    mask = (rng.random((11, 16, 16)) < share).astype(np.uint8)
    logit = (rng.normal(size=mask.shape) + 1.5 * mask - 0.5).astype(np.float32)
    mask[rng.random(mask.shape) < 0.1] = UNKNOWN
    return mask, logit


def benchmark() -> Slstr:
    return Slstr(Recipe(), sample_fields(16))


@pytest.mark.parametrize(("seed", "share"), [(0, 0.5), (1, 0.2), (2, 0.8)])
def test_metrics_equal_scikit_learn_over_any_cuts(seed: int, share: float) -> None:
    mask, logit = drawn(seed, share)
    metrics, total = benchmark().metrics(), np.zeros(5)
    for part in np.split(np.arange(11), [0, 2, 2, 9]):
        sums = metrics.update(torch.from_numpy(logit[part]), {"mask": torch.from_numpy(mask[part])})
        assert sums.dtype == torch.float64
        total += sums.numpy()
    result = metrics.compute(total)
    y, z = mask[mask != UNKNOWN], logit[mask != UNKNOWN].astype(float)
    blind = np.zeros((len(y), 1))
    prior = DummyClassifier(strategy="prior").fit(blind, y)
    expected = {
        "eval_accuracy": accuracy_score(y, z >= 0),
        "f1": f1_score(y, z >= 0),
        "iou": jaccard_score(y, z >= 0),
        "precision": precision_score(y, z >= 0),
        "recall": recall_score(y, z >= 0),
        "majority_accuracy": prior.score(blind, y),
        "all_cloud_accuracy": y.mean(),
        "all_cloud_f1": f1_score(y, np.ones_like(y)),
        "prior_loss": log_loss(y, prior.predict_proba(blind)),
    }
    for name, value in expected.items():
        assert result[name] == pytest.approx(value, rel=1e-12), name
    assert result["eval_loss"] == pytest.approx(log_loss(y, 1 / (1 + np.exp(-z))), rel=1e-6)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [  # true cloud, false cloud, false clear, true clear
        ((0, 0, 0, 10), {"precision": math.nan, "recall": math.nan, "majority_accuracy": 1.0, "prior_loss": 0.0}),
        ((3, 1, 2, 4), {"precision": 0.75, "recall": 0.6, "f1": 2 / 3, "majority_accuracy": 0.5, "iou": 0.5}),
        ((0, 0, 0, 0), dict.fromkeys(("precision", "majority_accuracy", "all_cloud_f1", "prior_loss"), math.nan)),
    ],
)
def test_small_cases(counts: tuple[int, ...], expected: dict[str, float]) -> None:
    result = CloudMetrics().compute(np.array([*counts, 0.0]))
    for name, value in expected.items():
        assert result[name] == pytest.approx(value, nan_ok=True), name


def test_loss_passes_over_unknown_pixels_and_stays_a_mean_over_ranks() -> None:
    mask, logit = (torch.from_numpy(a[:10]) for a in drawn(3, 0.5))
    logit.requires_grad_()
    loss = benchmark().loss(logit, {"mask": mask})
    assert loss.dtype == torch.float32
    known = mask != UNKNOWN
    p = torch.sigmoid(logit.detach().double())
    expected = -torch.where(mask == 1, p.log(), (1 - p).log())[known].sum() / mask.numel()
    assert loss.item() == pytest.approx(float(expected), rel=1e-6)
    loss.backward()
    assert not logit.grad[~known].any()
    assert logit.grad[known].all()
    halves = [benchmark().loss(z, {"mask": y}) for z, y in zip(logit.chunk(2), mask.chunk(2), strict=True)]
    torch.testing.assert_close((halves[0] + halves[1]) / 2, loss)
