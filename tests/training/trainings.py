"""Training runs of the toy benchmark in a test: prepared data, a world, an engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from toy import dataset
from worlds import alone

from sciml_hpc.benchmarks.base import Target
from sciml_hpc.config import RunConfig, resolve
from sciml_hpc.data import staging
from sciml_hpc.data.prepare import prepare
from sciml_hpc.data.shards import Index
from sciml_hpc.parallel.engine import Engine, Single
from sciml_hpc.parallel.world import World
from sciml_hpc.training.loop import Epoch, Training

CPU = torch.device("cpu")
NEVER = Target("eval_loss", "min", 0.0, "a target that noise forbids")
REACHED = Target("eval_loss", "min", 0.3, "met after a few epochs")


@dataclass
class Data:
    """Prepared samples."""

    index: Index
    directory: Path


def prepare_toy(toy: Any, folder: Path, **more: Any) -> Data:
    """Prepare samples of the toy on this process alone."""
    entry = dataset(**more)
    generator = toy.Generator.model_validate(entry.origin.parameters)
    source = toy.simulator(generator, entry.samples, entry.origin.seed)
    index = prepare(source, "toy-tiny", entry, folder, alone(), lambda done, total: None)
    return Data(index, folder / "toy-tiny")


def config_of(toy: Any, *assignments: str) -> RunConfig:
    """The tiny preset with changes."""
    return resolve(toy, assignments=["staging.mode=none", *assignments])[0]


def training_of(
    toy: Any,
    data: Data,
    *assignments: str,
    world: World | None = None,
    engine: Engine | None = None,
    device: torch.device = CPU,
) -> Training:
    """A run of the tiny preset with changes; its global batch is shared by the ranks of `world`."""
    world, config = world or alone(), config_of(toy, *assignments)
    staged = staging.stage(data.index, data.directory, world, config.staging.mode, None, keep=False)
    local_batch = config.train.global_batch // world.size
    made = toy(config.train, data.index.fields)
    return Training(made, config, world, engine or Single(), device, data.index, staged, local_batch)


@dataclass
class Events:
    """An observer that remembers."""

    names: list[str] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    epochs: list[Epoch] = field(default_factory=list)
    at_step: Any = None
    """Called with (epoch, step) after each step."""

    def epoch_start(self, epoch: int, resumed: bool) -> None:
        self.names.append(f"start {epoch}{' resumed' if resumed else ''}")

    def epoch_stop(self, epoch: int) -> None:
        self.names.append(f"stop {epoch}")

    def eval_start(self, epoch: int) -> None:
        self.names.append(f"eval {epoch}")

    def eval_stop(self, done: Epoch) -> None:
        self.names.append(f"evaluated {done.epoch}")
        self.epochs.append(done)

    def step(self, epoch: int, step: int, steps: int, loss: float | None) -> None:
        self.losses.append(loss)
        if self.at_step is not None:
            self.at_step(epoch, step)
