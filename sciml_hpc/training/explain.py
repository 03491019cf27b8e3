"""What a trained network shows of itself: the benchmark's pictures, of rank 0's first validation samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sciml_hpc.benchmarks.base import Benchmark, Picture

if TYPE_CHECKING:
    from sciml_hpc.training.loop import Training


def pictures(training: Training) -> tuple[Picture, ...]:
    """The benchmark's pictures, on rank 0; none elsewhere, or if the benchmark draws none. Not collective."""
    benchmark, model = training.benchmark, training.model
    draws = type(benchmark).pictures is not Benchmark.pictures
    if not (training.world.is_root and draws and training.eval_batches):
        return ()
    drawn: tuple[Picture, ...] = ()
    model.eval()
    for batch in training.eval_loader.batches(training.eval_batches[:1]):
        drawn = benchmark.pictures(model, batch)
    model.zero_grad()
    model.train()
    return drawn
