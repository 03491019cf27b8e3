"""Loss and metrics against scikit-learn and hand-made cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.dummy import DummyClassifier
from sklearn.metrics import accuracy_score, f1_score, log_loss, precision_score, recall_score

from sciml_hpc.benchmarks.saxs import Recipe, Saxs
from sciml_hpc.benchmarks.saxs.metrics import ShapeMetrics
from sciml_hpc.benchmarks.saxs.native import FIELDS


def drawn(seed: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Shapes and logits that know something of them."""
    rng = np.random.default_rng(seed)
    shape = (rng.random(1003) < share).astype(np.uint8)
    return shape, (rng.normal(size=shape.shape) + 1.5 * shape - 0.5).astype(np.float32)


@pytest.mark.parametrize(("seed", "share"), [(0, 0.5), (1, 0.2), (2, 0.8)])
def test_metrics_equal_scikit_learn_over_any_cuts(seed: int, share: float) -> None:
    shape, logit = drawn(seed, share)
    metrics, total = Saxs(Recipe(), FIELDS).metrics(), np.zeros(5)
    for part in np.split(np.arange(len(shape)), [0, 7, 7, 500]):
        sums = metrics.update(torch.from_numpy(logit[part]), {"shape": torch.from_numpy(shape[part])})
        assert (sums.dtype, sums.shape) == (torch.float64, (5,))
        total += sums.numpy()
    result, said = metrics.compute(total), logit >= 0
    assert result["eval_accuracy"] == pytest.approx(accuracy_score(shape, said), rel=1e-12)
    assert result["f1"] == pytest.approx(f1_score(shape, said), rel=1e-12)
    assert result["precision"] == pytest.approx(precision_score(shape, said), rel=1e-12)
    assert result["recall"] == pytest.approx(recall_score(shape, said), rel=1e-12)
    assert result["eval_loss"] == pytest.approx(log_loss(shape, 1 / (1 + np.exp(-logit.astype(float)))), rel=1e-6)
    blind = np.zeros((len(shape), 1))
    prior = DummyClassifier(strategy="prior").fit(blind, shape)
    assert result["majority_accuracy"] == pytest.approx(prior.score(blind, shape), rel=1e-12)
    assert result["prior_loss"] == pytest.approx(log_loss(shape, prior.predict_proba(blind)), rel=1e-12)
    assert result["majority_f1"] == pytest.approx(f1_score(shape, np.ones_like(shape)), rel=1e-12)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [  # true, false parallelepipeds, false, true spheres
        ((0, 0, 0, 10), {"eval_accuracy": 1.0, "f1": math.nan, "recall": math.nan, "prior_loss": 0.0}),
        ((0, 4, 0, 6), {"eval_accuracy": 0.6, "f1": 0.0, "precision": 0.0, "majority_accuracy": 1.0}),
        ((7, 0, 3, 0), {"eval_accuracy": 0.7, "f1": 14 / 17, "precision": 1.0, "recall": 0.7}),
        ((4, 1, 1, 4), {"eval_accuracy": 0.8, "f1": 0.8, "majority_f1": 2 / 3, "prior_loss": math.log(2)}),
        ((0, 0, 0, 0), {"eval_accuracy": math.nan, "eval_loss": math.nan, "f1": math.nan, "prior_loss": math.nan}),
    ],
)
def test_small_cases(counts: tuple[int, ...], expected: dict[str, float]) -> None:
    result = ShapeMetrics().compute(np.array([*counts, 0.0]))
    for name, value in expected.items():
        assert result[name] == pytest.approx(value, nan_ok=True), name


def test_loss_is_the_cross_entropy_of_the_sigmoid() -> None:
    shape, logit = drawn(3, 0.5)
    loss = Saxs(Recipe(), FIELDS).loss(torch.from_numpy(logit), {"shape": torch.from_numpy(shape)})
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(log_loss(shape, 1 / (1 + np.exp(-logit.astype(float)))), rel=1e-6)
    far = Saxs(Recipe(), FIELDS).loss(torch.tensor([200.0, -200.0]), {"shape": torch.tensor([0, 0], dtype=torch.uint8)})
    assert float(far) == 100.0
