"""Losses of steps come to the host some at a time, each once, in order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sciml_hpc.training.losses import LAG_STEPS, StepLosses

CPU = torch.device("cpu")


def scalar(value: float, device: torch.device = CPU) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float32, device=device)


@pytest.mark.parametrize("every", [1, 2, 3, 7])
@pytest.mark.parametrize("before", [[], [9.5, 8.25]])
def test_each_comes_once_in_order(every: int, before: list[float]):
    steps = 7 + len(before)
    losses = StepLosses(steps, before, CPU)
    assert losses.news() == []
    told = []
    for number in range(1, 8):
        losses.add(scalar(number / 3), send=number % every == 0 or number == 7)
        assert losses.given == len(before) + number
        told.append(losses.news())
    expected = [float(np.float32(number / 3)) for number in range(1, 8)]
    assert [value for part in told for value in part] == expected
    assert [len(part) for part in told[: 7 // every * every]] == ([0] * (every - 1) + [every]) * (7 // every)
    assert losses.values.tolist() == before + expected
    assert losses.values.dtype == np.float64


def test_what_is_not_finite_comes_as_it_is():
    losses = StepLosses(2, [], CPU)
    losses.add(scalar(float("nan")), send=False)
    losses.add(scalar(float("-inf")), send=True)
    np.testing.assert_array_equal(losses.news(), [np.nan, -np.inf])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("every", [1, 3])
def test_a_gpu_is_some_steps_ahead(every: int):
    gpu = torch.device("cuda")
    losses = StepLosses(12, [], gpu)
    come = 0
    for number in range(1, 13):
        losses.add(scalar(number, gpu), send=number % every == 0)
        come += len(losses.news())
        assert come == max(0, number - LAG_STEPS) // every * every
    torch.cuda.synchronize()
    assert losses.values.tolist() == [*range(1, 13)]
