"""Evaluation: each sample once, and the same value whatever the ranks, against numpy in float64."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy import SAMPLES
from trainings import prepare_toy, training_of
from worlds import alone, world_of

from sciml_hpc.training import evaluate

pytest_plugins = ["toy_fixtures", "mpi_fixtures"]


@pytest.mark.parametrize("samples", [1, 7, 37, 1000])
@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("batch", [1, 8, 5000])
def test_every_sample_is_some_ranks_once(samples: int, ranks: int, batch: int):
    class Rank:
        def __init__(self, place: int) -> None:
            self.size, self.place = ranks, place

    parts = [evaluate.own_batches(samples, Rank(place), batch) for place in range(ranks)]
    seen = [n for part in parts for b in part for n in b.tolist()]
    assert seen == list(range(samples))
    assert all(0 < len(b) <= batch for part in parts for b in part)
    sizes = [sum(map(len, part)) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def truth(toy: Any, weights: dict[str, torch.Tensor], count: int) -> dict[str, float]:
    """The metrics of the linear model over the whole validation split, by numpy in float64."""
    batch = toy.simulator(toy.Generator(), SAMPLES, 7).read("validation", 0, count)
    w, b = (weights[name].double().numpy() for name in ("1.weight", "1.bias"))
    error = batch["x"].astype(np.float64) @ w[0] + b - batch["y"]
    return {"eval_loss": float(np.mean(error**2)), "seen": count, "numbers": float(np.arange(count).sum())}


def test_the_value_is_numpys(toy, tmp_path):
    training = training_of(toy, prepare_toy(toy, tmp_path), "train.eval_batch=5")
    found = evaluate.evaluate(
        training.benchmark,
        training.model,
        training.eval_loader,
        training.eval_batches,
        alone(),
        training.autocast,
    )
    expected = truth(toy, training.model.state_dict(), 37)
    assert found == pytest.approx(expected, rel=1e-5)  # the model computes in float32
    assert training.model.training
    training.close()


def on(part: Any, toy: Any, data: Any, model: str, batch: int) -> Any:
    """A run on those ranks without Horovod: evaluation does not use the engine. Dropout is off in evaluation."""
    assignments = (f"train.model={model}", "train.dropout=0.5", f"train.eval_batch={batch}")
    return training_of(toy, data, *assignments, f"train.global_batch={part.size}", world=part)


@pytest.mark.mpi
@pytest.mark.parametrize("model", ["linear", "conv"])
@pytest.mark.parametrize("batch", [1, 5, 64])
def test_the_value_does_not_depend_on_the_ranks(toy, mpi_tmp_path, world, model: str, batch: int):
    data = world.once(lambda: prepare_toy(toy, mpi_tmp_path))
    found = {}
    layouts = [[n] for n in range(1, world.size + 1)] + ([[1, world.size - 1]] if world.size > 2 else [])
    for layout in layouts:
        part = world_of(world.comm, layout)
        if part is not None:
            training = on(part, toy, data, model, batch)
            found[tuple(layout)] = evaluate.evaluate(
                training.benchmark,
                training.model,
                training.eval_loader,
                training.eval_batches,
                part,
                training.autocast,
            )
            training.close()
    gathered = world.comm.allgather(found)
    values = [value for part in gathered for value in part.values()]
    assert len(values) >= world.size
    # Ranks cut the samples into other batches, and a float32 product's rounding depends on the batch's size.
    exact = 1e-12 if batch == 1 else 1e-7
    for value in values:
        assert value["eval_loss"] == pytest.approx(values[0]["eval_loss"], rel=exact, abs=0)
        assert (value["seen"], value["numbers"]) == (37, 36 * 37 / 2)


@pytest.mark.mpi(min_size=2)
def test_more_ranks_than_samples(toy, mpi_tmp_path: Path, world):
    samples = {"train": 8 * world.size, "validation": world.size - 1}
    data = world.once(lambda: prepare_toy(toy, mpi_tmp_path, samples=samples))
    training = on(world, toy, data, "linear", 4)
    empty = world.sum(int(not training.eval_batches))
    found = evaluate.evaluate(
        training.benchmark, training.model, training.eval_loader, training.eval_batches, world, training.autocast
    )
    expected = truth(toy, training.model.state_dict(), world.size - 1)
    training.close()
    assert empty == 1
    assert found == pytest.approx(expected, rel=1e-5)
    assert len(set(itertools.chain.from_iterable(world.comm.allgather([found["eval_loss"]])))) == 1
