"""The whole training step against a bare PyTorch loop, for every benchmark; what metering adds; and, where there is a
GPU, the full-size networks there, with the share of the device's arithmetic they reach and the energy they take.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from bench.rows import Row

from sciml_hpc import benchmarks
from sciml_hpc.console import Console
from sciml_hpc.data import staging
from sciml_hpc.data.prepare import dataset_directory
from sciml_hpc.job import energy_meter
from sciml_hpc.manifest import load_manifest
from sciml_hpc.parallel import device as devices
from sciml_hpc.parallel.engine import Engine
from sciml_hpc.parallel.world import World
from sciml_hpc.plan import Request, settle
from sciml_hpc.preparation import ready
from sciml_hpc.training import arithmetic, optimizer
from sciml_hpc.training.forward import forward
from sciml_hpc.training.loop import Training

LEAST_STEPS, ROUND_S = 16, 2.0
"""A round has so many steps that the bare loop takes two seconds, if an epoch has: they share what its ends cost."""
FULL_SIZE: Mapping[str, tuple[str, int]] = {"cloudmask": ("cloudmask-node", 1280), "stemdl": ("stemdl-node", 2560)}
"""Data set whose samples, so many of them, a full-size network is timed on."""


class Quiet:
    """An observer that does nothing."""

    def __getattr__(self, name: str):
        return lambda *arguments, **named: None


class Turns:
    """The steps of a training loop and the bare loop's in turn, these timed.

    On a CPU step by step: the machine is then the same for both, however it drifts. A GPU is given whole epochs, since
    a host that waited for it at every step would be another loop. What is read ahead is asked for as a step of the
    training loop begins; of small samples, some of a read may fall into the bare loop's step after it.
    """

    def __init__(self, loop: Training, bare: Callable[[int, int], None], steps: int) -> None:
        self._loop, self._bare, self._steps = loop, bare, steps
        self._done, self.bare_s = 0, 0.0

    def epoch(self, epoch: int) -> float:
        """Seconds that an epoch of the training loop takes, the bare loop's left out."""
        in_turn = self._loop.device.type == "cpu"
        self._done, self.bare_s = 0, 0.0
        if in_turn:
            self._loop.step = self._step
        begin = time.perf_counter()
        self._loop.train_epoch(epoch, Quiet(), None)
        self._loop.synchronize()
        seconds = time.perf_counter() - begin - self.bare_s
        if not in_turn:
            self._follow(self._steps)
        return seconds

    def _step(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        loss = Training.step(self._loop, batch)
        self._follow(1)
        return loss

    def _follow(self, steps: int) -> None:
        begin = time.perf_counter()
        self._bare(self._done, self._done + steps)
        self._loop.synchronize()
        self.bare_s += time.perf_counter() - begin
        self._done += steps


@dataclass
class Timed:
    """Seconds of a step in each round, in loops of the same model and optimiser that took turns."""

    off: list[float]
    """The training loop with metering off, what an epoch costs at its ends included."""
    beside_off: list[float]
    """In turn with it the bare loop: data in the device's memory, no loader, no engine, no meter."""
    on: list[float]
    """The training loop as in a run."""
    beside_on: list[float]
    """In turn with that the bare loop."""
    loader: list[float]
    """The loader alone, up to the device."""
    batch: int
    energy: Mapping[str, float]
    """Of the GPUs per sample, the training loop alone, with its uncertainty (a counter may be a period old at both ends
    of an epoch); empty where none is metered.
    """
    operations: arithmetic.Arithmetic | None


def overhead(world: World, engine: Engine, rounds: int, names: list[str], data: Path) -> list[Row]:
    """Rows of every benchmark and task at `tiny`, one process: a run's step, metering on, against the bare loop's."""
    rows = []
    for name in names:
        for kind in benchmarks.classes(name):
            request = Request(kind.name, task=kind.task or None, preset="tiny", data=data)
            timed = measure(world, engine, rounds, request)
            label = f"{kind.name} {kind.task}".strip()
            on, off = ratios(timed.on, timed.beside_on), ratios(timed.off, timed.beside_off)
            bare = statistics.median(timed.beside_on)
            rows += [
                Row(f"training step, {label}", "bare PyTorch loop", on, ("≤", 1.01),
                    figures={"bare_step_s": bare, "more_s": (statistics.median(on) - 1) * bare,
                             "reading_alone_s": statistics.median(timed.loader)}),
                Row(f"metering, {label}", "the same without metering", ratios(on, off), ("≤", 1.01)),
            ]  # fmt: skip
    return rows


def full_size(world: World, engine: Engine, rounds: int, data: Path) -> list[Row]:
    """Rows of the full-size networks on a GPU, from the first samples of their `node` data sets."""
    rows = []
    for name, (dataset, samples) in FULL_SIZE.items():
        entry = load_manifest()[dataset].model_dump(mode="json", exclude_none=True)
        entry |= {"samples": {"train": samples, "validation": 64}}
        entry.pop("bytes", None)
        manifest = data / f"{name}.yaml"
        manifest.write_text(yaml.safe_dump({"datasets": {f"{dataset}-first": entry}}))
        request = Request(name, preset="node", dataset=f"{dataset}-first", manifest=manifest, data=data)
        timed = measure(world, engine, rounds, request, ceiling_s=1.0)
        operations, step_s = timed.operations, statistics.median(timed.on)
        rate = operations.flops_per_sample * timed.batch / operations.ceiling_flop_per_s
        rows += [
            Row(f"full-size step, {name}", "bare loop, data on the device", ratios(timed.on, timed.beside_on),
                ("≤", 1.01), figures={"samples_per_s": timed.batch / step_s, "batch": timed.batch, **timed.energy}),
            Row(f"full-size arithmetic, {name}", f"its matrix products in {operations.arithmetic}",
                [rate / s for s in timed.on], None,
                figures={"ceiling_flop_per_s": operations.ceiling_flop_per_s,
                         "flops_per_sample": operations.flops_per_sample}),
            Row(f"full-size loader, {name}", "what the step consumes", ratios(timed.on, timed.loader), ("≥", 1.0),
                figures={"loader_samples_per_s": timed.batch / statistics.median(timed.loader)}),
        ]  # fmt: skip
    return rows


def ratios(ours: list[float], theirs: list[float]) -> list[float]:
    """Of neighbours."""
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def measure(world: World, engine: Engine, rounds: int, request: Request, ceiling_s: float = 0.0) -> Timed:
    """Time the loops on the data set of a request, in rounds; a first round warms up and is not counted."""
    plan = settle(request, world.size)
    kind, place = plan.benchmark(), request.data
    index = ready(plan, place, world, Console(False))
    directory = dataset_directory(place, plan.dataset_name)
    with tempfile.TemporaryDirectory() as scratch:
        staged = staging.stage(index, directory, world, "partition", Path(scratch), keep=False)
        device = devices.choose(world)

        def harness(metered: bool) -> Training:
            config = plan.config.model_copy(
                update={
                    "measure": plan.config.measure.model_copy(update={"enabled": metered}),
                    "train": plan.config.train.model_copy(update={"epochs": 2 * rounds + 2}),
                }
            )
            return Training(
                kind(config.train, index.fields), config, world, engine, device.torch, index, staged, plan.local_batch
            )

        loops = {"off": harness(False), "on": harness(True)}
        training = loops["off"]
        sampler, recipe = training.sampler, plan.config.train
        held = [
            {name: tensor.clone() for name, tensor in batch.items()}
            for batch in training.train_loader.batches(sampler.epoch(1))
        ]
        benchmark = kind(recipe, index.fields)
        model = benchmark.model().to(device.torch)
        update = optimizer.build(recipe, model)

        def bare(first: int, end: int) -> None:
            for batch in held[first:end]:
                changed = benchmark.augment(batch)
                update.zero_grad()
                with training.autocast:
                    loss = benchmark.loss(forward(benchmark, model, changed), changed)
                loss.backward()
                update.step()

        bare(0, 3)
        begin = time.perf_counter()
        bare(0, 3)
        training.synchronize()
        fitting = int(ROUND_S * 3 / (time.perf_counter() - begin))
        steps = min(len(held), max(LEAST_STEPS, fitting))
        for loop in loops.values():
            loop.sampler = _Shorter(loop.sampler, steps)
            loop.join()
        times: dict[str, list[float]] = {name: [] for name in ("off", "beside_off", "on", "beside_on")}
        turns = {name: Turns(loop, bare, steps) for name, loop in loops.items()}
        for turn in range(rounds + 1):
            for name, both in turns.items():
                meter = energy_meter(world, name == "on")
                meter.start("training")
                seconds = both.epoch(turn + 1)
                meter.stop()
                time.sleep(0.05)  # where a run evaluates, the next epoch's first batches are read
                if turn:
                    times[name].append(seconds / steps)
                    times[f"beside_{name}"].append(both.bare_s / steps)
        loader = list(_loader_alone(training, steps, rounds))
        energy = _energy(loops["on"], world, range(rounds + 2, 2 * rounds + 2), steps * plan.local_batch)
        operations = arithmetic.measure(training, ceiling_s) if ceiling_s else None
        for loop in loops.values():
            loop.close()
        staged.remove()
    return Timed(**times, loader=loader, batch=plan.local_batch, energy=energy, operations=operations)


def _energy(training: Training, world: World, epochs: range, samples: int) -> dict[str, float]:
    """Of the GPUs per sample, over epochs of so many samples without anything in between."""
    if training.device.type != "cuda":
        return {}
    spent = []
    for epoch in epochs:
        meter = energy_meter(world, True)
        meter.start("training")
        training.train_epoch(epoch, Quiet(), None)
        training.synchronize()
        spent += [d for d in meter.stop().devices if d.kind == "gpu" and d.energy_J is not None]
    if not spent:
        return {}
    return {
        "energy_J_per_sample": sum(d.energy_J for d in spent) / (len(epochs) * samples),
        "energy_uncertainty_J_per_sample": sum(d.uncertainty_J for d in spent) / (len(epochs) * samples),
    }


def _loader_alone(training: Training, steps: int, rounds: int) -> Iterator[float]:
    """Seconds of a batch, epoch by epoch."""
    for turn in range(rounds + 1):
        begin = time.perf_counter()
        for _ in training.train_loader.batches(training.sampler.epoch(turn + 1)):
            pass
        training.synchronize()
        if turn:
            yield (time.perf_counter() - begin) / steps


class _Shorter:
    """A sampler of the first steps of each epoch."""

    def __init__(self, sampler: Any, steps: int) -> None:
        self._sampler, self.steps = sampler, steps

    def epoch(self, epoch: int, first_step: int = 0):
        return self._sampler.epoch(epoch, first_step)[: self.steps]
