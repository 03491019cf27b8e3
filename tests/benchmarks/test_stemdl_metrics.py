"""The metrics against scikit-learn and against numpy, whatever the cut into batches."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, top_k_accuracy_score

from sciml_hpc.benchmarks.stemdl.metrics import PotentialMetrics, SpaceGroupMetrics
from sciml_hpc.benchmarks.stemdl.settings import CLASSES

CLASS_NUMBERS = np.arange(CLASSES)


def summed(metrics, output: torch.Tensor, batch: dict[str, torch.Tensor], cuts: list[int]) -> np.ndarray:
    """The sum over the pieces between `cuts`."""
    edges = [0, *sorted(cuts), len(output)]
    pieces = (slice(a, b) for a, b in pairwise(edges))
    return np.sum([metrics.update(output[p], {n: v[p] for n, v in batch.items()}).numpy() for p in pieces], axis=0)


@pytest.fixture
def classified() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Logits that are often right; five classes, unequally frequent, and 31 that may be predicted."""
    rng = np.random.default_rng(3)
    label = rng.choice([2, 14, 62, 225, 230], 400, p=[0.5, 0.2, 0.15, 0.1, 0.05])
    logits = rng.normal(size=(400, CLASSES))
    logits[:, 20:220] -= 9
    logits[np.arange(400), label] += rng.choice([1.0, 3.0, 13.0], 400)
    return torch.from_numpy(logits).float(), {"space_group": torch.from_numpy(label)}


@pytest.mark.parametrize("cuts", [[], [1], [0, 0, 399], [37, 111, 112, 300], list(range(1, 400))])
def test_classification_equals_scikit_learn(classified, cuts: list[int]) -> None:
    logits, batch = classified
    metrics = SpaceGroupMetrics()
    values = metrics.compute(summed(metrics, logits, batch, cuts))
    label, predicted = batch["space_group"].numpy(), logits.argmax(1).numpy()
    assert values["f1_score"] == pytest.approx(f1_score(label, predicted, average="macro"), abs=1e-14)
    assert values["eval_accuracy"] == accuracy_score(label, predicted)
    top5 = top_k_accuracy_score(label, logits.numpy(), k=5, labels=CLASS_NUMBERS)
    assert values["top5_accuracy"] == pytest.approx(top5, abs=1e-14)
    most = np.full_like(label, 2)
    assert values["most_frequent_class_accuracy"] == accuracy_score(label, most)
    assert values["most_frequent_class_f1_score"] == pytest.approx(f1_score(label, most, average="macro"), abs=1e-14)
    assert 0.02 < values["f1_score"] < values["eval_accuracy"] < values["top5_accuracy"] < 0.95


def test_absent_classes_count_only_if_predicted() -> None:
    """Labels 1, 1, 2, 2; predictions 1, 3, 2, 2: F1 of 2/3, 1 and, for class 3, 0."""
    logits = torch.nn.functional.one_hot(torch.tensor([1, 3, 2, 2]), CLASSES).float()
    metrics = SpaceGroupMetrics()
    values = metrics.compute(metrics.update(logits, {"space_group": torch.tensor([1, 1, 2, 2])}).numpy())
    assert values["f1_score"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert values["eval_accuracy"] == 0.75


def test_ties_and_nan_are_no_hits_among_five() -> None:
    metrics = SpaceGroupMetrics()
    for logits in (torch.zeros(4, CLASSES), torch.full((4, CLASSES), torch.nan)):
        values = metrics.compute(metrics.update(logits, {"space_group": torch.tensor([5, 6, 7, 8])}).numpy())
        assert values["top5_accuracy"] == 0
        assert values["eval_accuracy"] == 0


@pytest.fixture
def reconstructed() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    rng = np.random.default_rng(3)
    truth = (200 * rng.random((30, 1, 8, 8)) ** 3 + rng.uniform(0, 100, (30, 1, 1, 1))).astype(np.float16)
    output = (truth.astype(np.float32) + rng.normal(20, 15, truth.shape).astype(np.float32)) / 50
    return torch.from_numpy(output), {"potential": torch.from_numpy(truth)}


@pytest.mark.parametrize("cuts", [[], [1, 2, 2], [7, 29]])
def test_reconstruction_equals_numpy(reconstructed, cuts: list[int]) -> None:
    output, batch = reconstructed
    metrics = PotentialMetrics(unit_V_nm=50.0)
    values = metrics.compute(summed(metrics, output, batch, cuts))
    truth = batch["potential"].numpy().astype(np.float64).reshape(30, -1)
    predicted = output.numpy().astype(np.float64).reshape(30, -1) * 50
    error = (predicted - truth).var(1).sum() / truth.var(1).sum()
    assert values["eval_error"] == pytest.approx(error, rel=1e-12)
    r = [np.corrcoef(p, t)[0, 1] for p, t in zip(predicted, truth, strict=True)]
    assert values["correlation"] == pytest.approx(np.mean(r), rel=1e-12)
    structure = truth - truth.mean(1, keepdims=True)
    mean_image = (structure - structure.mean(0)).var(1).sum() / structure.var(1).sum()
    assert values["mean_image_error"] == pytest.approx(mean_image, rel=1e-12)
    assert 0 < error < mean_image < 1


def test_constant_images_are_the_worst_useful_answer(reconstructed) -> None:
    output, batch = reconstructed
    metrics = PotentialMetrics(unit_V_nm=50.0)
    values = metrics.compute(metrics.update(torch.full_like(output, 7.0), batch).numpy())
    assert values["eval_error"] == pytest.approx(1)
    assert values["correlation"] == 0
