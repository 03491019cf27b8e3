"""Learning rates against hand values and torch's own schedulers; optimisers as a recipe names them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sciml_hpc.benchmarks.base import Recipe
from sciml_hpc.training.optimizer import LearningRate, build


def rates(steps_per_epoch: int = 10, global_batch: int = 32, **recipe: object) -> LearningRate:
    return LearningRate(Recipe(**({"base_lr": 0.1, "lr_reference_batch": 32} | recipe)), steps_per_epoch, global_batch)


@pytest.mark.parametrize(
    ("scaling", "batch", "peak"),
    [
        ("none", 32, 0.1), ("none", 128, 0.1), ("sqrt", 32, 0.1), ("sqrt", 128, 0.2), ("sqrt", 3200, 1.0),
        ("linear", 128, 0.4), ("linear", 48, 0.15),
        # never below base_lr's own
        ("sqrt", 8, 0.1), ("linear", 8, 0.1),
    ],
)  # fmt: skip
def test_scaling_with_the_global_batch(scaling: str, batch: int, peak: float):
    rate = rates(global_batch=batch, lr_scaling=scaling)
    assert rate.peak == pytest.approx(peak, rel=1e-12)
    assert [rate.at(step) for step in (0, 1, 99, 10**6)] == [rate.peak] * 4


def test_warm_up_is_linear_from_the_unscaled_rate():
    rate = rates(global_batch=128, lr_scaling="linear", warmup_epochs=2.0)  # 20 steps from 0.1 to 0.4
    assert [rate.at(s) for s in (0, 5, 10, 19, 20, 50)] == pytest.approx([0.1, 0.175, 0.25, 0.385, 0.4, 0.4])
    rate = rates(warmup_epochs=0.5, warmup_from=1.0)  # from above, too: 5 steps from 1 to 0.1
    assert [rate.at(s) for s in range(6)] == pytest.approx([1, 0.82, 0.64, 0.46, 0.28, 0.1])


def test_cosine_by_hand():
    rate = rates(epochs=4, schedule="cosine", min_lr=0.02, warmup_epochs=1.0)
    # After 10 steps of warm-up, 30 steps from 0.1 to 0.02: a half cosine.
    assert rate.at(10) == pytest.approx(0.1)
    assert rate.at(20) == pytest.approx(0.02 + 0.08 * 0.75)
    assert rate.at(25) == pytest.approx(0.06)
    assert rate.at(40) == rate.at(99) == pytest.approx(0.02)


def test_cosine_is_torchs():
    parameter = torch.nn.Parameter(torch.zeros(1))
    theirs = torch.optim.SGD([parameter], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(theirs, T_max=50, eta_min=0.003)
    ours = rates(epochs=5, schedule="cosine", min_lr=0.003)
    for step in range(50):
        assert ours.at(step) == pytest.approx(schedule.get_last_lr()[0], rel=1e-9)
        theirs.step()
        schedule.step()


@pytest.mark.parametrize("seed", range(5))
def test_plateau_is_torchs(seed: int):
    values = np.random.default_rng(seed).normal(size=60).cumsum()
    parameter = torch.nn.Parameter(torch.zeros(1))
    theirs = torch.optim.SGD([parameter], lr=0.1)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
        theirs, factor=0.3, patience=2, threshold=0.0, min_lr=1e-4, eps=0.0
    )
    ours = rates(schedule="plateau", plateau_factor=0.3, plateau_patience=2, min_lr=1e-4)
    for epoch, value in enumerate(values):
        assert ours.at(epoch * 10) == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-9)
        ours.epoch_done(value)
        schedule.step(value)
    assert ours.at(0) < 0.1


def test_a_nan_counts_as_no_better():
    ours = rates(schedule="plateau", plateau_factor=0.5, plateau_patience=1)
    for value in (1.0, math.nan, math.nan):
        ours.epoch_done(value)
    assert ours.at(100) == pytest.approx(0.05)


def test_the_state_restores_a_plateau():
    ours = rates(schedule="plateau", plateau_patience=2)
    values = [3.0, 2.0, 2.5, 2.5, 2.5, 2.2, 2.2]
    for value in values[:4]:
        ours.epoch_done(value)
    again = rates(schedule="plateau", plateau_patience=2)
    again.restore(ours.state())
    for value in values[4:]:
        ours.epoch_done(value)
        again.epoch_done(value)
        assert again.at(10) == ours.at(10)
    assert ours.at(10) == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [
        ("adam", torch.optim.Adam, {}),
        ("adamw", torch.optim.AdamW, {}),
        ("adamax", torch.optim.Adamax, {}),
        ("sgd", torch.optim.SGD, {"momentum": 0.9}),
    ],
)
def test_optimisers_are_torchs(name: str, kind: type, options: dict[str, float]):
    models = [torch.nn.Linear(3, 2) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    ours = build(Recipe(optimizer=name, base_lr=0.03, weight_decay=0.1), models[0])
    theirs = kind(models[1].parameters(), lr=0.03, weight_decay=0.1, **options)
    for step in range(4):
        for model, optimizer in zip(models, (ours, theirs), strict=True):
            optimizer.zero_grad()
            model(torch.full((2, 3), float(step))).square().sum().backward()
            optimizer.step()
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(a, b)
