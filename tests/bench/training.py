"""The whole training step against a bare PyTorch loop, for every benchmark; and what metering adds."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch
from bench.rows import Row

from sciml_hpc import benchmarks
from sciml_hpc.config import resolve
from sciml_hpc.console import Console
from sciml_hpc.data import staging
from sciml_hpc.data.prepare import dataset_directory
from sciml_hpc.job import energy_meter
from sciml_hpc.parallel import device as devices
from sciml_hpc.parallel.engine import Engine
from sciml_hpc.parallel.world import World
from sciml_hpc.plan import Request, settle
from sciml_hpc.preparation import ready
from sciml_hpc.training import optimizer
from sciml_hpc.training.loop import Training

MOST_STEPS = 40


class Quiet:
    """An observer that does nothing."""

    def __getattr__(self, name: str):
        return lambda *arguments, **named: None


def overhead(world: World, engine: Engine, rounds: int, names: list[str], data: Path) -> list[Row]:
    """Rows of every benchmark and task at `tiny`, one process: a run's step, metering on, against the bare loop's."""
    rows = []
    for name in names:
        for kind in benchmarks.classes(name):
            rows += _overhead(world, engine, rounds, kind, data)
    return rows


def _overhead(world: World, engine: Engine, rounds: int, kind: type, place: Path) -> list[Row]:
    """Three loops of the same model and optimiser take turns: a bare loop on data held in memory; the training loop
    (loader, engine, stop flag, learning rate, seeds) with metering off; and with all metering on.
    """
    request = Request(kind.name, task=kind.task or None, preset="tiny", data=place)
    plan = settle(request, world.size)
    index = ready(plan, place, world, Console(False))
    directory = dataset_directory(place, plan.dataset_name)
    with tempfile.TemporaryDirectory() as scratch:
        staged = staging.stage(index, directory, world, "partition", Path(scratch), keep=False)
        device = devices.choose(world)

        def harness(metered: bool) -> Training:
            given = [f"measure.enabled={str(metered).lower()}", f"train.epochs={rounds + 1}"]
            config, _ = resolve(kind, preset="tiny", assignments=given)
            return Training(
                kind(config.train, index.fields), config, world, engine, device.torch, index, staged, plan.local_batch
            )

        loops = {"off": harness(False), "on": harness(True)}
        sampler, recipe = loops["off"].sampler, plan.config.train
        steps = min(sampler.steps, MOST_STEPS)
        held = [
            {name: tensor.clone() for name, tensor in batch.items()}
            for batch in loops["off"].train_loader.batches(sampler.epoch(1)[:steps])
        ]
        for training in loops.values():
            training.sampler = _Shorter(training.sampler, steps)
            training.join()
        benchmark = kind(recipe, index.fields)
        model = benchmark.model()
        update = optimizer.build(recipe, model)

        def bare() -> float:
            begin = time.perf_counter()
            for batch in held:
                changed = benchmark.augment(batch)
                update.zero_grad()
                inputs = benchmark.inputs(changed)
                inputs = (x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x for x in inputs)
                benchmark.loss(model(*inputs), changed).backward()
                update.step()
            return (time.perf_counter() - begin) / steps

        times: dict[str, list[float]] = {"bare": [], "off": [], "on": []}
        for turn in range(rounds + 1):
            row = {"bare": bare()}
            for name, training in loops.items():
                meter = energy_meter(world, name == "on")
                meter.start("training")
                begin = time.perf_counter()
                training.train_epoch(turn + 1, Quiet(), None)
                row[name] = (time.perf_counter() - begin) / steps
                meter.stop()
            if turn:
                for name, value in row.items():
                    times[name].append(value)
        for training in loops.values():
            training.close()
        staged.remove()
    label = f"{kind.name} {kind.task}".strip()
    return [
        Row(f"training step, {label}", "bare PyTorch loop, metering off",
            [a / b for a, b in zip(times["on"], times["bare"], strict=True)], ("≤", 1.01),
            figures={"bare_step_s": sorted(times["bare"])[len(times["bare"]) // 2]}),
        Row(f"metering, {label}", "the same without metering",
            [a / b for a, b in zip(times["on"], times["off"], strict=True)], ("≤", 1.01)),
    ]  # fmt: skip


class _Shorter:
    """A sampler of the first steps of each epoch."""

    def __init__(self, sampler, steps: int) -> None:
        self._sampler, self.steps = sampler, steps

    def epoch(self, epoch: int, first_step: int = 0):
        return self._sampler.epoch(epoch, first_step)[: self.steps]
