"""Metrics of validation sets over 1, 2, … ranks, as evaluation adds them up, against scikit-learn on all samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, mean_absolute_error, mean_squared_error, r2_score
from worlds import world_of

from sciml_hpc.benchmarks.base import Metrics
from sciml_hpc.benchmarks.cloudmask import PixelMetrics
from sciml_hpc.benchmarks.stemdl.metrics import PotentialMetrics, SpaceGroupMetrics
from sciml_hpc.benchmarks.stemdl.settings import CLASSES
from sciml_hpc.benchmarks.tevolop.metrics import FUTURE, NNSE
from sciml_hpc.benchmarks.tevolop.windows import AHEAD, DYNAMIC, SCALED, TARGET_STEPS
from sciml_hpc.benchmarks.uno.metrics import Regression
from sciml_hpc.training.evaluate import evaluate, own_batches

pytest_plugins = ["mpi_fixtures"]

SAMPLES = 61
"""A prime, so that ranks and batches are of different lengths."""


@dataclass(frozen=True)
class Case:
    """What a network said of a validation set, and what scikit-learn makes of it."""

    metrics: Metrics
    batch: dict[str, np.ndarray]
    """The network's answers, "output", among them."""
    expected: dict[str, float]


def space_groups(random: np.random.Generator) -> Case:
    label = random.choice([2, 14, 62, 225], SAMPLES)
    logits = random.normal(size=(SAMPLES, CLASSES)).astype(np.float32)
    logits[np.arange(SAMPLES), label] += 3
    said = logits.argmax(1)
    expected = {"f1_score": f1_score(label, said, average="macro"), "eval_accuracy": accuracy_score(label, said)}
    return Case(SpaceGroupMetrics(), {"output": logits, "space_group": label}, expected)


def potentials(random: np.random.Generator) -> Case:
    truth = random.normal(100, 50, (SAMPLES, 1, 8, 8)).astype(np.float16)
    said = (truth / 100 + random.normal(0, 0.2, truth.shape)).astype(np.float32)
    t, p = (a.reshape(SAMPLES, -1).astype(float) for a in (truth, said * np.float64(100)))
    t, p = (a - a.mean(1, keepdims=True) for a in (t, p))
    error = mean_squared_error(t, p) / mean_squared_error(t, np.zeros_like(t))
    return Case(PotentialMetrics(100.0), {"output": said, "potential": truth}, {"eval_error": error})


def responses(random: np.random.Generator) -> Case:
    truth = random.beta(5, 1.5, SAMPLES).astype(np.float32)
    said = (truth + random.normal(0, 0.1, SAMPLES)).astype(np.float32)
    t, p = truth.astype(float), said.astype(float)
    expected = {"eval_error": mean_squared_error(t, p), "mae": mean_absolute_error(t, p), "r2": r2_score(t, p)}
    return Case(Regression(), {"output": said, "response": truth}, expected)


def cloud_masks(random: np.random.Generator) -> Case:
    mask = (random.random((SAMPLES, 8, 8)) < 0.4).astype(np.uint8)
    logits = (random.normal(size=mask.shape) + mask - 0.5).astype(np.float32)
    y, said = mask.ravel(), logits.ravel() >= 0
    expected = {"eval_accuracy": accuracy_score(y, said), "f1": f1_score(y, said)}
    return Case(PixelMetrics(1.0), {"output": logits, "mask": mask}, expected)


def earthquakes(model: str) -> Callable[[np.random.Generator], Case]:
    def case(random: np.random.Generator) -> Case:
        places = 3
        batch = {
            "history": random.uniform(1, 5, (SAMPLES, places, 26, len(DYNAMIC))),
            "future": random.uniform(1, 5, (SAMPLES, places, 26, len(TARGET_STEPS))),
            "ahead": random.uniform(1, 5, (SAMPLES, places, len(AHEAD))),
            "scale": np.broadcast_to([[0.0], [1.0]], (SAMPLES, 2, len(SCALED))),  # so that the output is a magnitude
            "output": random.uniform(1, 5, (SAMPLES, places, *((26, len(TARGET_STEPS)) if model == "tft" else (24,)))),
        }
        batch = {name: value.astype(np.float32) for name, value in batch.items()}
        scores = []
        for target, (steps, last) in enumerate(FUTURE):
            if model == "tft":
                observed, said = batch["future"][:, :, last, target], batch["output"][:, :, last, target]
            else:
                column = AHEAD.index((steps, last))
                observed, said = batch["ahead"][..., column], batch["output"][..., column]
            nse = r2_score(observed.astype(float), said.astype(float), multioutput="raw_values")
            scores.append(np.mean(1 / (2 - nse)))
        return Case(NNSE(model, places), batch, {"eval_accuracy": np.mean(scores)})

    return case


CASES: dict[str, Callable[[np.random.Generator], Case]] = {
    "cloudmask": cloud_masks,
    "stemdl classification": space_groups,
    "stemdl reconstruction": potentials,
    "uno": responses,
    **{f"tevolop {model}": earthquakes(model) for model in ("lstm", "science-transformer", "tft")},
}


class Slices:
    """A loader of arrays."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self.arrays = arrays

    def batches(self, batches: list[np.ndarray]) -> Iterator[dict[str, torch.Tensor]]:
        return ({name: torch.from_numpy(array[chosen]) for name, array in self.arrays.items()} for chosen in batches)


@pytest.mark.mpi
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("size", [1, 7, 64])
def test_metrics_are_those_of_scikit_learn_on_any_number_of_ranks(world, name: str, size: int) -> None:
    case = CASES[name](np.random.default_rng(5))
    answering = SimpleNamespace(inputs=lambda batch: (batch["output"],), metrics=lambda: case.metrics)
    for ranks in range(1, world.size + 1):
        part = world_of(world.comm, [ranks])
        if part is None:
            continue
        batches = own_batches(SAMPLES, part, size)
        found = evaluate(answering, torch.nn.Identity(), Slices(case.batch), batches, part, nullcontext())
        for key, value in case.expected.items():
            assert found[key] == pytest.approx(value, rel=1e-9), f"{key} on {ranks} ranks"
