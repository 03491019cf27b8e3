"""The metrics against scikit-learn and against numpy, whatever the cut into batches."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, log_loss

from sciml_hpc.benchmarks.dms.metrics import AzimuthMetrics, StructureMetrics

CUTS = [[], [1], [0, 0, 299], [37, 111, 112, 290]]


def summed(metrics, output: torch.Tensor, batch: dict[str, torch.Tensor], cuts: list[int]) -> np.ndarray:
    """The sum over the pieces between `cuts`."""
    edges = [0, *cuts, len(output)]
    pieces = (slice(a, b) for a, b in pairwise(edges))
    return np.sum([metrics.update(output[p], {n: v[p] for n, v in batch.items()}).numpy() for p in pieces], axis=0)


def turned(a_deg: np.ndarray, b_deg: np.ndarray) -> np.ndarray:
    """Angle between fourfold directions, from the phases of complex numbers."""
    return np.degrees(np.abs(np.angle(np.exp(4j * np.radians(a_deg - b_deg))))) / 4


@pytest.mark.parametrize("cuts", CUTS)
def test_azimuth_equals_numpy(cuts: list[int]) -> None:
    rng = np.random.default_rng(3)
    truth = rng.beta(2, 3, 300).astype(np.float32) * 90
    answer = truth + rng.normal(0, 8, 300) + 90 * rng.integers(-2, 3, 300)
    output = torch.from_numpy((answer / 90).astype(np.float32))
    metrics = AzimuthMetrics()
    values = metrics.compute(summed(metrics, output, {"azimuth": torch.from_numpy(truth)}, cuts))
    error = turned(output.numpy() * 90.0, truth)
    assert values["mae_deg"] == pytest.approx(error.mean(), abs=1e-5)
    assert values["rmse_deg"] == pytest.approx(np.sqrt((error**2).mean()), abs=1e-5)
    assert values["within_6p5_deg"] == np.mean(error <= 6.5)
    constants = np.stack([turned(truth, np.full(300, c)) for c in range(90)])
    assert values["constant_mae_deg"] == pytest.approx(constants.mean(1).min(), abs=1e-5)
    assert values["constant_within_6p5_deg"] == pytest.approx(np.mean(constants <= 6.5, axis=1).max())
    assert 5 < values["mae_deg"] < values["constant_mae_deg"] < 22


def test_errors_go_the_shorter_way_round() -> None:
    truth = torch.tensor([89.0, 1.0, 45.0, 30.0])
    output = torch.tensor([1.0, 89.0, 0.0, 30.0 + 720.0]) / 90
    metrics = AzimuthMetrics()
    values = metrics.compute(metrics.update(output, {"azimuth": truth}).numpy())
    assert values["mae_deg"] == pytest.approx((2 + 2 + 45 + 0) / 4, abs=1e-4)
    assert values["within_6p5_deg"] == 0.75


def test_no_constant_answer_is_good_for_uniform_azimuths() -> None:
    truth = torch.linspace(0, 90, 9001)[:-1]
    metrics = AzimuthMetrics()
    values = metrics.compute(metrics.update(torch.zeros(9000), {"azimuth": truth}).numpy())
    assert values["constant_mae_deg"] == pytest.approx(22.5, abs=0.01)
    assert values["constant_within_6p5_deg"] == pytest.approx(13 / 90, abs=1e-3)


def test_nan_is_no_angle() -> None:
    metrics = AzimuthMetrics()
    values = metrics.compute(metrics.update(torch.tensor([torch.nan, 0]), {"azimuth": torch.zeros(2)}).numpy())
    assert np.isnan(values["mae_deg"])
    assert values["within_6p5_deg"] == 0.5


@pytest.mark.parametrize("cuts", CUTS)
def test_structure_equals_scikit_learn(cuts: list[int]) -> None:
    rng = np.random.default_rng(3)
    truth = (rng.random(300) < 0.3).astype(np.int64)
    logits = rng.normal(size=(300, 2)).astype(np.float32)
    logits[np.arange(300), truth] += 1
    metrics = StructureMetrics()
    values = metrics.compute(summed(metrics, torch.from_numpy(logits), {"phase": torch.from_numpy(truth)}, cuts))
    answer, most = logits.argmax(1), np.zeros(300, dtype=int)
    shares = torch.from_numpy(logits).double().softmax(1).numpy()
    assert values["eval_accuracy"] == accuracy_score(truth, answer)
    assert values["f1_score"] == pytest.approx(f1_score(truth, answer, average="macro"), abs=1e-14)
    assert values["eval_loss"] == pytest.approx(log_loss(truth, shares), abs=1e-6)
    assert values["majority_accuracy"] == accuracy_score(truth, most)
    assert values["majority_f1_score"] == pytest.approx(f1_score(truth, most, average="macro"), abs=1e-14)


def test_a_class_that_never_occurs_does_not_count() -> None:
    metrics = StructureMetrics()
    logits = torch.tensor([[0.0, 9.0], [0.0, 9.0]])
    values = metrics.compute(metrics.update(logits, {"phase": torch.tensor([1, 1])}).numpy())
    assert values["f1_score"] == values["eval_accuracy"] == values["majority_f1_score"] == 1
