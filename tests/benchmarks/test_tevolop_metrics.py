"""NNSE, against scikit-learn's R² and sums written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score

from sciml_hpc.benchmarks.tevolop.metrics import FUTURE, HORIZONS, NNSE, label
from sciml_hpc.benchmarks.tevolop.windows import AHEAD, DYNAMIC, SCALED, TARGET_STEPS, scaled_index

WINDOWS, LOCATIONS = 57, 4
SCALE = np.stack([np.linspace(0.5, 1.5, len(SCALED)), np.linspace(3, 6, len(SCALED))])


def some_batch(seed: int = 0) -> dict[str, torch.Tensor]:
    random = np.random.default_rng(seed)
    arrays = {
        "history": random.uniform(1, 5, (WINDOWS, LOCATIONS, 26, len(DYNAMIC))),
        "future": random.uniform(1, 5, (WINDOWS, LOCATIONS, 26, 4)),
        "ahead": random.uniform(1, 5, (WINDOWS, LOCATIONS, 10)),
        "scale": np.broadcast_to(SCALE, (WINDOWS, *SCALE.shape)).copy(),
    }
    arrays["future"][:, :, 0, 0] = arrays["ahead"][:, :, 0]  # both are the next step
    return {k: torch.from_numpy(v.astype(np.float32)) for k, v in arrays.items()}


def scores(metric: NNSE, output: torch.Tensor, batch: dict[str, torch.Tensor], cuts: list[int]) -> dict[str, float]:
    parts = [
        metric.update(output[a:b], {k: v[a:b] for k, v in batch.items()})
        for a, b in zip([0, *cuts], [*cuts, len(output)], strict=True)
    ]
    assert all(p.dtype == torch.float64 and p.shape == parts[0].shape for p in parts)
    return metric.compute(torch.stack(parts).sum(0).numpy())


def nnse(observed: np.ndarray, forecast: np.ndarray) -> float:
    """1 / (2 − NSE); the NSE is scikit-learn's R²."""
    return 1 / (2 - r2_score(observed, forecast))


def unscaled(output: torch.Tensor, steps: int) -> np.ndarray:
    k = scaled_index(steps)
    low, span = SCALE.astype(np.float32).astype(float)[:, k]
    return output.double().numpy() * span + low


@pytest.mark.parametrize("cuts", [[], [1, 2, 50], [0, 13, 13, 57], list(range(57))])
def test_tft_scores(cuts: list[int]) -> None:
    batch = some_batch()
    output = torch.rand(WINDOWS, LOCATIONS, 26, 4, generator=torch.Generator().manual_seed(1))
    found = scores(NNSE("tft", LOCATIONS), output, batch, cuts)
    averages = {}
    for target, steps in enumerate(TARGET_STEPS):
        last = batch["history"][:, :, -1, scaled_index(steps)].double().numpy()
        for horizon in HORIZONS:
            name = label((steps, horizon))
            observed = batch["future"][:, :, horizon, target].double().numpy()
            forecast = unscaled(output[:, :, horizon, target], steps)
            averages[steps, horizon] = np.mean([nnse(observed[:, k], forecast[:, k]) for k in range(LOCATIONS)])
            persistence = np.mean([nnse(observed[:, k], last[:, k]) for k in range(LOCATIONS)])
            assert found[f"average_nnse_{name}"] == pytest.approx(averages[steps, horizon], rel=1e-9)
            assert found[f"summed_nnse_{name}"] == pytest.approx(nnse(observed.sum(1), forecast.sum(1)), rel=1e-9)
            assert found[f"persistence_average_nnse_{name}"] == pytest.approx(persistence, rel=1e-9)
            summed = nnse(observed.sum(1), last.sum(1))
            assert found[f"persistence_summed_nnse_{name}"] == pytest.approx(summed, rel=1e-9)
    assert found["eval_accuracy"] == pytest.approx(np.mean([averages[q] for q in FUTURE]), rel=1e-9)
    assert found["mean_predictor_accuracy"] == 0.5
    assert found["locations_scored"] == LOCATIONS


@pytest.mark.parametrize("model", ["lstm", "science-transformer"])
def test_scores_of_the_ten_magnitudes(model: str) -> None:
    batch = some_batch()
    output = torch.rand(WINDOWS, LOCATIONS, 24, generator=torch.Generator().manual_seed(1))
    found = scores(NNSE(model, LOCATIONS), output, batch, [5, 6, 40])
    for k, (steps, last) in enumerate(AHEAD):
        observed, forecast = batch["ahead"][:, :, k].double().numpy(), unscaled(output[..., k], steps)
        expected = np.mean([nnse(observed[:, j], forecast[:, j]) for j in range(LOCATIONS)])
        assert found[f"average_nnse_{label((steps, last))}"] == pytest.approx(expected, rel=1e-9)
    # The year back, one step ahead: 25 steps seen and the forecast of the next one.
    seen = batch["history"][:, :, 1:, 0].double().numpy()
    year = np.log10((10 ** (1.5 * seen)).sum(-1) + 10 ** (1.5 * unscaled(output[..., 0], 1))) / 1.5
    observed = batch["future"][:, :, 0, 3].double().numpy()
    expected = np.mean([nnse(observed[:, j], year[:, j]) for j in range(LOCATIONS)])
    assert found["average_nnse_1year_h0"] == pytest.approx(expected, rel=1e-9)
    # Beyond a year, persistence is the last year's rate going on.
    rate = batch["history"][:, :, -1, scaled_index(26)].double().numpy() + np.log10(2) / 1.5
    observed = batch["ahead"][:, :, 6].double().numpy()
    expected = np.mean([nnse(observed[:, j], rate[:, j]) for j in range(LOCATIONS)])
    assert found["persistence_average_nnse_2years_h51"] == pytest.approx(expected, rel=1e-9)


def test_all_models_gate_on_the_same_quantity() -> None:
    """The forecasts of `eval_accuracy` are the same windows of the future, scored the same, whoever made them."""
    batch = some_batch()
    columns = {q: AHEAD.index(q) for q in FUTURE}
    for target, (quantity, column) in enumerate(columns.items()):
        batch["future"][:, :, quantity[1], target] = batch["ahead"][:, :, column]
    ten = torch.rand(WINDOWS, LOCATIONS, 24, generator=torch.Generator().manual_seed(2))
    all_steps = torch.zeros(WINDOWS, LOCATIONS, 26, 4)
    for target, (quantity, column) in enumerate(columns.items()):
        all_steps[:, :, quantity[1], target] = ten[..., column]
    by_lstm = scores(NNSE("lstm", LOCATIONS), ten, batch, [])
    by_tft = scores(NNSE("tft", LOCATIONS), all_steps, batch, [])
    for name in ("eval_accuracy", "persistence_accuracy", "summed_accuracy", "persistence_summed_accuracy"):
        assert by_lstm[name] == pytest.approx(by_tft[name], rel=1e-9)


def test_a_perfect_forecast_and_the_mean() -> None:
    batch = some_batch()
    low, span = torch.from_numpy(SCALE.astype(np.float32))[:, [scaled_index(n) for n in TARGET_STEPS]]
    perfect = scores(NNSE("tft", LOCATIONS), (batch["future"] - low) / span, batch, [9])
    mean = batch["future"].double().mean(0, keepdim=True).expand_as(batch["future"])
    average = scores(NNSE("tft", LOCATIONS), (mean - low) / span, batch, [9])
    for name, value in perfect.items():
        if name.startswith(("average", "summed", "eval")):
            assert value == pytest.approx(1, abs=1e-9)
            assert average[name] == pytest.approx(0.5, abs=1e-6)


def test_what_was_not_observed_counts_for_nothing() -> None:
    """Windows without an observation change no score, whatever is forecast for them."""
    batch = some_batch()
    output = torch.rand(WINDOWS, LOCATIONS, 24, generator=torch.Generator().manual_seed(1))
    metric = NNSE("lstm", LOCATIONS)
    without = scores(metric, output[:50], {k: v[:50] for k, v in batch.items()}, [])
    batch["ahead"][50:] = float("nan")
    batch["future"][50:] = float("nan")
    output[50:] = 1e3
    assert scores(metric, output, batch, [30]) == pytest.approx(without, rel=1e-12)
    one = some_batch()
    one["ahead"][3, 2, 0] = float("nan")  # one location of one window: the others of that window still count
    found = scores(metric, output, one, [])
    observed = np.delete(one["ahead"][:, 2, 0].double().numpy(), 3)
    forecast = np.delete(unscaled(output[:, 2, 0], 1), 3)
    by_location = [
        nnse(observed, forecast)
        if k == 2
        else nnse(one["ahead"][:, k, 0].double().numpy(), unscaled(output[:, k, 0], 1))
        for k in range(LOCATIONS)
    ]
    assert found["average_nnse_2weeks_h0"] == pytest.approx(np.mean(by_location), rel=1e-9)
    whole = [np.delete(a.sum(1), 3) for a in (one["ahead"][:, :, 0].double().numpy(), unscaled(output[..., 0], 1))]
    assert found["summed_nnse_2weeks_h0"] == pytest.approx(nnse(*whole), rel=1e-9)


def test_a_location_where_nothing_changes_has_no_score() -> None:
    batch = some_batch()
    batch["future"][:, 1] = 0.764
    found = scores(NNSE("tft", LOCATIONS), torch.rand(WINDOWS, LOCATIONS, 26, 4), batch, [])
    assert found["locations_scored"] == LOCATIONS - 1
    assert np.isfinite(found["eval_accuracy"])
