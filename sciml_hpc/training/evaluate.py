"""Evaluation: every validation sample exactly once over all ranks, and the exact global metric."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import numpy as np

from sciml_hpc.benchmarks.base import Benchmark
from sciml_hpc.data.loader import Loader
from sciml_hpc.data.sampler import share
from sciml_hpc.parallel.world import World
from sciml_hpc.training.forward import forward

if TYPE_CHECKING:
    import torch


def own_batches(samples: int, world: World, batch: int) -> list[np.ndarray]:
    """The validation samples of this rank, in batches; ranks may have one sample more or less, none is left out."""
    low, high = share(samples, world.size, world.place, world.place + 1)
    return [np.arange(first, min(first + batch, high)) for first in range(low, high, batch)]


def evaluate(
    benchmark: Benchmark,
    model: torch.nn.Module,
    loader: Loader,
    batches: list[np.ndarray],
    world: World,
    autocast: AbstractContextManager,
) -> dict[str, float]:
    """The benchmark's metrics over the samples of all ranks' `batches`; the same values on every rank.

    One all-reduce of the metric's sums (float64) at the end: O(log ranks). A rank without samples adds zeros.
    """
    import torch

    metrics = benchmark.metrics()
    total = None
    model.eval()
    with torch.inference_mode(), autocast:
        for batch in loader.batches(batches):
            part = metrics.update(forward(benchmark, model, batch), batch)
            total = part if total is None else total + part
    model.train()
    mine = np.zeros(0) if total is None else total.cpu().numpy()
    summed = np.zeros(int(world.max(len(mine))))
    if len(mine) == 0:
        mine = np.zeros_like(summed)
    world.comm.Allreduce(mine, summed)
    return metrics.compute(summed)
