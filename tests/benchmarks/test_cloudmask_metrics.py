"""Loss and metrics against scikit-learn, torch's own functions and hand-made cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, jaccard_score, log_loss

from sciml_hpc.benchmarks.cloudmask import CloudMask, PixelMetrics, Recipe
from sciml_hpc.benchmarks.cloudmask.native import UNKNOWN, sample_fields


def benchmark(cloud_weight: float = 1.0) -> CloudMask:
    return CloudMask(Recipe(cloud_weight=cloud_weight), sample_fields(32))


def in_cuts(metrics: PixelMetrics, logit: torch.Tensor, mask: torch.Tensor, cuts: list[int]) -> dict[str, float]:
    """The metrics, the samples dealt out in pieces (some empty) as batches and ranks would."""
    total = np.zeros(5)
    for z, y in zip(torch.tensor_split(logit, cuts), torch.tensor_split(mask, cuts), strict=True):
        part = metrics.update(z, {"mask": y})
        assert part.dtype == torch.float64
        assert part.shape == (5,)
        total += part.numpy()
    return metrics.compute(total)


@pytest.mark.parametrize("seed", range(3))
def test_metrics_equal_scikit_learn_over_any_cuts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = (rng.random((17, 32, 32)) < 0.3).astype(np.uint8)
    logit = (rng.normal(size=mask.shape) + 1.5 * mask - 0.5).astype(np.float32)
    result = in_cuts(PixelMetrics(1.0), torch.from_numpy(logit), torch.from_numpy(mask), [0, 3, 3, 11])
    y, z = mask.ravel(), logit.ravel().astype(float)
    said = z >= 0
    assert result["eval_accuracy"] == pytest.approx(accuracy_score(y, said), rel=1e-12)
    assert result["iou"] == pytest.approx(jaccard_score(y, said), rel=1e-12)
    assert result["f1"] == pytest.approx(f1_score(y, said), rel=1e-12)
    assert result["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(y, said), rel=1e-12)
    assert result["all_cloud_accuracy"] == pytest.approx(accuracy_score(y, np.ones_like(y)), rel=1e-12)
    assert result["predicted_cloud_fraction"] == pytest.approx(said.mean(), rel=1e-12)
    assert result["eval_loss"] == pytest.approx(log_loss(y, 1 / (1 + np.exp(-z))), rel=1e-6)


@pytest.mark.parametrize("weight", [1.0, 0.5, 3.0])
def test_loss_is_the_weighted_cross_entropy_of_the_reference(weight: float) -> None:
    rng = np.random.default_rng(1)
    mask = (rng.random((3, 32, 32)) < 0.5).astype(np.uint8)
    logit = rng.normal(scale=2, size=mask.shape).astype(np.float32)
    p = 1 / (1 + np.exp(-logit.astype(float)))
    expected = np.mean(-(weight * mask * np.log(p) + (1 - mask) * np.log(1 - p)))
    batch = {"mask": torch.from_numpy(mask)}
    loss = benchmark(weight).loss(torch.from_numpy(logit), batch)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(expected, rel=1e-6)
    metrics = benchmark(weight).metrics()
    total = metrics.update(torch.from_numpy(logit), batch).numpy()
    assert metrics.compute(total)["eval_loss"] == pytest.approx(expected, rel=1e-6)


def test_default_loss_is_plain_cross_entropy_with_its_gradient() -> None:
    torch.manual_seed(0)
    mask = torch.randint(0, 2, (2, 32, 32), dtype=torch.uint8)
    ours, theirs = (torch.randn(2, 32, 32, requires_grad=True) for _ in range(2))
    theirs.data.copy_(ours.data)
    loss = benchmark().loss(ours, {"mask": mask})
    expected = torch.nn.functional.binary_cross_entropy(torch.sigmoid(theirs), mask.float())
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_loss_is_float32_and_finite_where_probabilities_are_not() -> None:
    mask = torch.tensor([[[1, 0], [1, 0]]], dtype=torch.uint8)
    logit = torch.tensor([[[-200.0, 200.0], [200.0, -200.0]]], dtype=torch.bfloat16)
    loss = benchmark().loss(logit, {"mask": mask})
    assert loss.dtype == torch.float32
    assert float(loss) == 100.0  # two of four pixels are wrong by 200


def test_mean_of_ranks_is_the_loss_of_the_whole_batch_even_with_unknown_truth() -> None:
    torch.manual_seed(0)
    mask = torch.randint(0, 2, (4, 32, 32), dtype=torch.uint8)
    mask[0, :20] = UNKNOWN
    logit = torch.randn(4, 32, 32)
    halves = [benchmark().loss(z, {"mask": y}) for z, y in zip(logit.chunk(2), mask.chunk(2), strict=True)]
    torch.testing.assert_close((halves[0] + halves[1]) / 2, benchmark().loss(logit, {"mask": mask}))


def test_unknown_pixels_do_not_count() -> None:
    logit = torch.tensor([[[3.0, -3.0, 3.0, -3.0, 5.0]]], requires_grad=True)
    mask = torch.tensor([[[1, 1, 0, 0, UNKNOWN]]], dtype=torch.uint8)
    metrics = PixelMetrics(1.0)
    with_it = metrics.compute(metrics.update(logit.detach(), {"mask": mask}).numpy())
    without = metrics.compute(metrics.update(logit.detach()[..., :4], {"mask": mask[..., :4]}).numpy())
    assert with_it == without
    assert with_it["eval_accuracy"] == 0.5
    benchmark().loss(logit, {"mask": mask}).backward()
    assert logit.grad[0, 0, 4] == 0
    assert logit.grad[0, 0, :4].all()


@pytest.mark.parametrize(
    ("counts", "expected"),
    [  # true cloud, false cloud, false clear, true clear
        ((0, 0, 0, 10), {"eval_accuracy": 1.0, "iou": math.nan, "f1": math.nan, "balanced_accuracy": 1.0}),
        ((0, 4, 0, 6), {"eval_accuracy": 0.6, "iou": 0.0, "f1": 0.0, "balanced_accuracy": 0.6}),
        ((7, 0, 3, 0), {"eval_accuracy": 0.7, "iou": 0.7, "f1": 14 / 17, "balanced_accuracy": 0.7}),
        ((0, 0, 0, 0), {"eval_accuracy": math.nan, "eval_loss": math.nan, "balanced_accuracy": math.nan}),
    ],
)
def test_absent_classes(counts: tuple[int, ...], expected: dict[str, float]) -> None:
    result = PixelMetrics(1.0).compute(np.array([*counts, 0.0]))
    for name, value in expected.items():
        assert result[name] == pytest.approx(value, nan_ok=True), name


def test_counts_of_a_large_set_stay_exact() -> None:
    logit = torch.ones(1, 4096, 4100)  # more pixels than float32 can count
    total = PixelMetrics(1.0).update(logit, {"mask": torch.ones_like(logit, dtype=torch.uint8)})
    assert total[0] == 4096 * 4100
    assert total[0] > 2**24
