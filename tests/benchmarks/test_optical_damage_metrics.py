"""The area under the ROC curve and what goes with it, against scikit-learn and hand-made cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, recall_score, roc_auc_score

from sciml_hpc.benchmarks.optical_damage.metrics import BINS, HIGHEST, LOWEST, STEPS, Detection, area, bin_of


def scored(errors: np.ndarray, kinds: np.ndarray) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Outputs off by a given mean square, a fourth of it in every second pixel."""
    rng = np.random.default_rng(9)
    image = torch.from_numpy(rng.random((len(errors), 8, 8)).astype(np.float32))
    shape = torch.sqrt(torch.tensor([0.5, 1.5], dtype=torch.float64)).repeat(8, 4)
    output = image.double() + shape * torch.from_numpy(np.sqrt(errors))[:, None, None]
    return output.float().unsqueeze(1), {"image": image, "damaged": torch.from_numpy(kinds.astype(np.uint8))}


def in_cuts(output: torch.Tensor, batch: dict[str, torch.Tensor], cuts: list[int]) -> dict[str, float]:
    metrics, total = Detection(), np.zeros(8 * BINS + 4)
    for o, i, k in zip(*(torch.tensor_split(x, cuts) for x in (output, *batch.values())), strict=True):
        part = metrics.update(o, {"image": i, "damaged": k})
        assert part.dtype == torch.float64
        total += part.numpy()
    return metrics.compute(total)


@pytest.fixture(scope="module")
def case() -> tuple[np.ndarray, torch.Tensor, dict[str, torch.Tensor]]:
    rng = np.random.default_rng(0)
    kinds = (rng.random(400) < 0.4).astype(int)
    return kinds, *scored(np.exp(rng.normal(-6 + 0.8 * kinds, 0.6)), kinds)


def test_areas_are_scikit_learns_within_their_bound_over_any_cuts(case: tuple) -> None:
    kinds, output, batch = case
    result = in_cuts(output, batch, [0, 7, 7, 300])
    assert result == in_cuts(output, batch, [])
    square = (output[:, 0] - batch["image"]).square()
    expected = roc_auc_score(kinds, square.mean((1, 2)))
    assert 0.75 < expected < 0.9
    assert 0 < result["auc_bound"] < 1e-3
    assert abs(result["auc"] - expected) <= result["auc_bound"] + 1e-12
    assert result["auc_peak"] == pytest.approx(roc_auc_score(kinds, square.amax((1, 2))), abs=2e-3)
    for name, values in (("brightness", batch["image"].mean((1, 2))), ("variance", batch["image"].var((1, 2)))):
        trivial = roc_auc_score(kinds, values)
        assert result[f"auc_{name}"] == pytest.approx(max(trivial, 1 - trivial), abs=2e-3)


def test_threshold_leaves_few_false_alarms(case: tuple) -> None:
    kinds, output, batch = case
    result = in_cuts(output, batch, [])
    error = (output[:, 0] - batch["image"]).square().mean((1, 2)).numpy()
    undamaged = np.sort(error[kinds == 0])
    said = error > undamaged[-1 - int(0.05 * len(undamaged))]
    assert result["accuracy"] == pytest.approx(accuracy_score(kinds, said), abs=0.01)
    assert result["f1"] == pytest.approx(f1_score(kinds, said), abs=0.01)
    assert result["recall"] == pytest.approx(recall_score(kinds, said), abs=0.01)
    assert result["eval_loss"] == pytest.approx(error[kinds == 0].mean(), rel=1e-5)
    assert result["damaged_loss"] == pytest.approx(error[kinds == 1].mean(), rel=1e-5)


def test_area_by_hand() -> None:
    """Undamaged in bins 1, 2, 2; damaged in 2, 3: of six pairs four are right and two tied."""
    undamaged, damaged = np.zeros(5), np.zeros(5)
    undamaged[[1, 2]] = 1, 2
    damaged[[2, 3]] = 1, 1
    assert area(undamaged, damaged) == pytest.approx((5 / 6, 1 / 6))
    assert area(damaged, undamaged) == pytest.approx((1 / 6, 1 / 6))


def test_bins_keep_the_order_and_are_a_thousandth_wide() -> None:
    scores = np.geomspace(2.0**LOWEST, 2.0**HIGHEST * 0.9999, 200_000).astype(np.float32)
    bins = bin_of(torch.from_numpy(scores)).numpy()
    assert bins[0] == 0
    assert bins[-1] == BINS - 1
    assert (np.diff(bins) >= 0).all()
    octave = np.floor(np.log2(scores.astype(float)))
    within = np.floor((scores / 2**octave - 1) * STEPS)
    np.testing.assert_array_equal(bins, (octave - LOWEST) * STEPS + within)
    outside = torch.tensor([0.0, -1.0, 1e-12, 1e9, math.inf])
    assert bin_of(outside).tolist() == [0, 0, 0, BINS - 1, BINS - 1]


def test_perfect_and_hopeless_and_without_a_kind() -> None:
    kinds = np.array([0, 0, 1, 1])
    assert in_cuts(*scored(np.array([1e-4, 2e-4, 3e-3, 4e-3]), kinds), [])["auc"] == 1
    assert in_cuts(*scored(np.array([3e-3, 4e-3, 1e-4, 2e-4]), kinds), [])["auc"] == 0
    alike = in_cuts(*scored(np.full(4, 1e-3), kinds), [])
    assert alike["auc_bound"] in (0.5, pytest.approx(0.25), pytest.approx(0.125))
    assert abs(alike["auc"] - 0.5) <= 0.5
    only = in_cuts(*scored(np.array([1e-3, 2e-3]), np.array([0, 0])), [])
    assert math.isnan(only["auc"])
    assert math.isnan(only["damaged_loss"])
    assert math.isnan(only["f1"])
    assert only["eval_loss"] == pytest.approx(1.5e-3, rel=1e-3)
