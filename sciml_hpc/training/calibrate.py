"""Calibration: the step with and without the all-reduce, to find the communication that is not hidden."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sciml_hpc.training import optimizer
from sciml_hpc.training.forward import forward

if TYPE_CHECKING:
    from sciml_hpc.training.loop import Training

WARM_UP_STEPS = 2
BLOCKS = 4
"""Steps with and without communication alternate in so many blocks, so that a drift of the machine meets both."""


@dataclass(frozen=True)
class Calibration:
    """Steps on one batch held in memory: same model, same optimiser, with and without joining the gradients."""

    steps: int
    step_s: float
    """Median step, the slowest rank's."""
    step_without_allreduce_s: float
    own_step_without_allreduce_s: float
    """Of this rank alone."""
    samples_per_step: int
    """Of one rank."""
    gradient_bytes_per_step: int

    @property
    def exposed_comm_fraction(self) -> float:
        """Share of the step that is communication not hidden behind the backward pass; 0 if noise makes it negative."""
        return max(0.0, (self.step_s - self.step_without_allreduce_s) / self.step_s)


def calibrate(training: Training, steps: int) -> Calibration:
    """Time `steps` steps of each kind, on copies of the model; the trained weights stay as they are. Collective."""
    held = {}
    for batch in training.train_loader.batches(training.sampler.epoch(1)[:1]):
        held = {name: tensor.clone() for name, tensor in batch.items()}

    def stepper(joined: bool):
        model = copy.deepcopy(training.model)
        base = optimizer.build(training.config.train, model)
        update = training.engine.wrap(base, model) if joined else base
        called = training.called(training.engine.module(model) if joined else model)

        def step() -> float:
            begin = time.perf_counter()
            update.zero_grad()
            with training.autocast:
                loss = training.benchmark.loss(forward(training.benchmark, called, held), held)
            loss.backward()
            update.step()
            training.synchronize()
            return time.perf_counter() - begin

        return step

    kinds = {True: stepper(True), False: stepper(False)}
    times: dict[bool, list[float]] = {True: [], False: []}
    for step in kinds.values():
        for _ in range(WARM_UP_STEPS):
            step()
    for _ in range(BLOCKS):
        for joined, step in kinds.items():
            training.world.comm.Barrier()
            times[joined] += [step() for _ in range(max(1, -(-steps // BLOCKS)))]
    gradient = sum(p.numel() * p.element_size() for p in training.model.parameters() if p.requires_grad)
    return Calibration(
        steps=len(times[True]),
        step_s=training.world.max(float(np.median(times[True]))),
        step_without_allreduce_s=training.world.max(float(np.median(times[False]))),
        own_step_without_allreduce_s=float(np.median(times[False])),
        samples_per_step=training.local_batch,
        gradient_bytes_per_step=gradient,
    )
