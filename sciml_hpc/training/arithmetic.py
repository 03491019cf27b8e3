"""What the training step computes, and what the device could: operations per sample, and a ceiling measured here."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sciml_hpc.metering import compute
from sciml_hpc.training.forward import forward
from sciml_hpc.training.infer import alone

if TYPE_CHECKING:
    from sciml_hpc.training.loop import Training


@dataclass(frozen=True)
class Arithmetic:
    """Operations of the model and the rate of matrix products, on rank 0's device while the other ranks sleep."""

    flops_per_sample: float
    """Forward and backward, two per multiply-add, by torch's FlopCounterMode."""
    uncounted_operators: tuple[str, ...]
    """Operators with multiplications that the counter does not know."""
    arithmetic: str
    """What the products are computed in: fp32, tf32, bf16, …"""
    ceiling_flop_per_s: float
    """Best square matrix product in that arithmetic, measured; of one rank's share of the device's threads on a CPU."""
    ceiling_size: int


def measure(training: Training, seconds: float) -> Arithmetic:
    """Count one sample's operations and measure the ceiling for `seconds`; collective, the weights stay as they are."""

    def work() -> Arithmetic:
        benchmark, model = training.benchmark, copy.deepcopy(training.model)
        held = {}
        for batch in training.train_loader.batches([training.sampler.epoch(1)[0][:1]]):
            held = {name: tensor.clone() for name, tensor in batch.items()}

        def forward_backward() -> None:
            with training.autocast:
                loss = benchmark.loss(forward(benchmark, model, held), held)
            loss.backward()

        counted = compute.flops_per_sample(forward_backward, 1)
        kind = compute.arithmetic("bf16" if training.autocast_enabled else "fp32", training.device)
        ceiling = compute.matmul_ceiling(training.device, kind, seconds)
        return Arithmetic(counted.per_sample, counted.uncounted, kind, ceiling.flop_per_s, ceiling.size)

    return alone(training.world, work)
