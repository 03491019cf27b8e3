"""Inference with the trained model: latency and throughput, one rank alone and all ranks at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from sciml_hpc.parallel.world import World
from sciml_hpc.training.forward import forward

if TYPE_CHECKING:
    from sciml_hpc.training.loop import Training

T = TypeVar("T")

WARM_UP_BATCHES = 3


@dataclass(frozen=True)
class Inference:
    """What inference costs; data in memory, results on the device, no loading."""

    batch: int
    batches: int
    latency_p50_s: float
    """One sample at a time on one rank, the others idle: median, and below, the 99th percentile."""
    latency_p99_s: float
    single_rank_samples_per_s: float
    """Batches of `batch` samples on one rank, the others idle."""
    all_ranks_samples_per_s: float
    """Batches of `batch` samples on every rank at once, by the slowest rank's time."""

    def record(self) -> dict[str, Any]:
        """All of it, with `inference_s_per_sample`: the inverse of the rate of all ranks, as the SciML suite asks."""
        return asdict(self) | {"inference_s_per_sample": 1 / self.all_ranks_samples_per_s}


def measure(training: Training, batches: int) -> Inference:
    """Time the model's forward pass; collective. The first validation samples of each rank are the input."""
    import torch

    world, model, benchmark = training.world, training.model, training.benchmark
    numbers = training.eval_batches[0] if training.eval_batches else np.zeros(1, dtype=np.int64)
    held = {}
    for batch in training.eval_loader.batches([numbers]):
        held = {name: tensor.clone() for name, tensor in batch.items()}
    size = len(numbers)

    def run(count: int, samples: int) -> np.ndarray:
        batch = {name: tensor[:samples] for name, tensor in held.items()}
        times = np.empty(count)
        with torch.inference_mode(), training.autocast:
            for k in range(-WARM_UP_BATCHES, count):
                begin = time.perf_counter()
                forward(benchmark, model, batch)
                training.synchronize()
                if k >= 0:
                    times[k] = time.perf_counter() - begin
        return times

    model.eval()
    single = alone(world, lambda: (run(batches, 1), run(batches, size)))
    world.comm.Barrier()
    everyone = run(batches, size).sum()
    total = world.sum(size * batches)
    model.train()
    latency, bulk = single
    return Inference(
        batch=size,
        batches=batches,
        latency_p50_s=float(np.percentile(latency, 50)),
        latency_p99_s=float(np.percentile(latency, 99)),
        single_rank_samples_per_s=size * batches / float(bulk.sum()),
        all_ranks_samples_per_s=total / world.max(float(everyone)),
    )


def alone(world: World, work: Callable[[], T]) -> T:
    """Do `work` on rank 0 while the others sleep (not spin: they may share its cores); its result on all."""
    result = work() if world.is_root else None
    ready = world.comm.Ibarrier()
    while not ready.Test():
        time.sleep(0.005)
    return world.comm.bcast(result)
