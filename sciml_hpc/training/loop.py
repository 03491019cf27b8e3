"""Training: epochs of steps until the target is met, the epochs are spent, or a signal asks to stop.

Every rank does the same number of steps. Within a step nothing waits for the host but the data and the gradients'
all-reduce; losses stay on the device, and every quarter of a second the ranks look at them and agree on going on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sciml_hpc.benchmarks.base import Benchmark, Target
from sciml_hpc.config import RunConfig
from sciml_hpc.data.loader import Loader, ShardReader
from sciml_hpc.data.sampler import Sampler
from sciml_hpc.data.shards import Index
from sciml_hpc.data.staging import Staged
from sciml_hpc.errors import RunFault
from sciml_hpc.metering.stall import StallMeter
from sciml_hpc.parallel.engine import Engine
from sciml_hpc.parallel.world import World
from sciml_hpc.training import checkpoint, evaluate, optimizer, signals
from sciml_hpc.training.forward import forward
from sciml_hpc.training.losses import StepLosses

if TYPE_CHECKING:
    import torch


@dataclass
class Epoch:
    """One epoch, as all ranks saw it together."""

    epoch: int
    steps: int
    samples: int
    train_loss: float
    """Mean over steps and ranks."""
    learning_rate: float
    """Of the last step."""
    train_s: float
    """Wall time of the steps, the slowest rank's."""
    wait_s: float | None = None
    """Of which the step waited for data; mean over ranks. This and what follows is None if metering was off."""
    step_p50_s: float | None = None
    step_p95_s: float | None = None
    step_max_s: float | None = None
    """Step times: medians and percentiles are means over ranks, the maximum is of all ranks."""
    read_bytes: int = 0
    """Bytes that the loaders of all ranks asked for."""
    device_read_bytes: int | None = None
    """Of which block devices delivered (`/proc/self/task/…/io`), all ranks; None where the kernel does not count."""
    eval_s: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass
class Outcome:
    """How training ended."""

    status: str
    """success (target met, or the fixed work done), aborted (epochs spent) or interrupted (by a signal)."""
    epochs: list[Epoch]
    step_losses: list[list[float]]
    """Per epoch, the global mean loss of every step."""
    signal: str = ""
    """What interrupted it."""
    epoch: int = 0
    step: int = 0
    """Where it was interrupted: so many steps of this epoch are done."""


class Observer(Protocol):
    """What wants to know of a run's progress, on every rank. Of steps it hears when the ranks agree on going on."""

    def epoch_start(self, epoch: int, resumed: bool) -> None: ...
    def epoch_stop(self, epoch: int) -> None: ...
    def eval_start(self, epoch: int) -> None: ...
    def eval_stop(self, done: Epoch) -> None: ...
    def step(self, epoch: int, step: int, steps: int, loss: float | None) -> None: ...


class Training:
    """One training run on one rank: model, data and optimiser, joined with the other ranks'."""

    def __init__(
        self,
        benchmark: Benchmark,
        config: RunConfig,
        world: World,
        engine: Engine,
        device: torch.device,
        index: Index,
        staged: Staged,
        local_batch: int,
    ) -> None:
        import torch

        recipe = config.train
        self.benchmark, self.config, self.world, self.engine, self.device = benchmark, config, world, engine, device
        self.local_batch = local_batch
        low, high = staged.ranges["train"]
        self.sampler = Sampler(
            samples=index.samples("train"),
            local_batch=local_batch,
            world_size=world.size,
            low=low,
            high=high,
            position=staged.position,
            sharers=staged.sharers,
            seed=config.seed,
            shuffle=recipe.shuffle,
        )
        self.global_batch = local_batch * world.size
        torch.manual_seed(config.seed)
        self.model = benchmark.model().to(device)
        # Horovod's wrapper is an optimiser of its own: the state lives in it, not in the one that is wrapped.
        self.optimizer = engine.wrap(optimizer.build(recipe, self.model), self.model)
        self.joined = self.called(engine.module(self.model))
        self.schedule = optimizer.LearningRate(recipe, self.sampler.steps, self.global_batch)
        bf16 = recipe.precision == "bf16" or (
            recipe.precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported()
        )
        self.autocast_enabled = bf16
        self.autocast = torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext()

        def loader(split: str, batch: int, low: int, high: int) -> Loader:
            reader = ShardReader(index, split, staged.directory, low, high, staged.local)
            return Loader(reader, batch, device, config.loader.prefetch, config.loader.threads_beside(device.type))

        self.train_loader = loader("train", local_batch, low, high)
        self.eval_batches = evaluate.own_batches(index.samples("validation"), world, recipe.eval_batch)
        self.eval_loader = loader("validation", recipe.eval_batch, *staged.ranges["validation"])
        self.start = checkpoint.State(epoch=1, step=0, history={}, schedule=self.schedule.state())
        self._done: list[Epoch] = []
        self._losses: list[list[float]] = []

    def called(self, module: torch.nn.Module) -> torch.nn.Module:
        """What a training step calls in place of `module`: itself, or compiled, as the recipe has it."""
        import torch

        return torch.compile(module) if self.config.train.compile else module

    def join(self, resume: Any = None) -> None:
        """Make all ranks start from rank 0's weights: fresh ones, or those of the checkpoint `resume`."""
        if resume is not None:
            self.start = self.world.once(lambda: checkpoint.load(resume, self.model, self.optimizer))
            self.schedule.restore(self.start.schedule)
            self._done = [Epoch(**e) for e in self.start.history["epochs"]]
            self._losses = self.start.history["step_losses"]
        self.engine.broadcast(self.model, self.optimizer)
        self._generators = _generators(self.device)
        self._flag = signals.StopFlag(self.world)
        self._read_ahead(self.start.epoch, self.start.step)

    def step(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """One optimiser step; returns the loss of this rank's batch, on the device."""
        self.optimizer.zero_grad()
        with self.autocast:
            loss = self.benchmark.loss(forward(self.benchmark, self.joined, batch), batch)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def run(self, target: Target, observer: Observer, saver: checkpoint.Checkpointer | None) -> Outcome:
        """Train until the target is met or the epochs are spent, evaluating after each.

        `saver` writes checkpoints (rank 0; None elsewhere). Raises RunFault on all ranks if a loss is not finite,
        naming epoch, step, rank and host.
        """
        try:
            for epoch in range(self.start.epoch, self.config.train.epochs + 1):
                done = self.train_epoch(epoch, observer, saver)
                if isinstance(done, int):
                    return self._interrupted(epoch, done)
                self._evaluate(done, observer)
                met = target.met(done.metrics[target.metric]) and not self.config.fixed_epochs
                if met or (self.config.fixed_epochs and epoch == self.config.train.epochs):
                    return self._outcome("success")
                every = self.config.checkpoint.every_epochs
                stop = self._flag.settle() == signals.STOP
                if stop or (every and epoch % every == 0 and epoch < self.config.train.epochs):
                    self._save(saver, epoch + 1, 0, [], wait=stop)
                if stop and epoch < self.config.train.epochs:
                    return self._interrupted(epoch + 1, 0)
            return self._outcome("aborted")
        finally:
            self._flag.close()

    def close(self) -> None:
        """End the loaders."""
        self.train_loader.close()
        self.eval_loader.close()

    def train_epoch(self, epoch: int, observer: Observer, saver: checkpoint.Checkpointer | None) -> Epoch | int:
        """The steps of an epoch; if a signal ended it (a checkpoint was then written), the number of steps done."""
        first = self.start.step if epoch == self.start.epoch else 0
        steps = self.sampler.steps
        losses = StepLosses(steps, self.start.history["partial"] if first else [], self.device)
        last: float | None = None
        meter = StallMeter(self.device, steps, enabled=self.config.measure.enabled)
        batches, read_before, device_before = self._batches, self.train_loader.read_bytes, self._device_read_before
        observer.epoch_start(epoch, resumed=first > 0)
        begin = looked_at = time.perf_counter()
        looked = first
        # Worked out at once: between steps, which empty the processor's caches, either would take ten times as long.
        numbers = range((epoch - 1) * steps + first, epoch * steps)
        seeds, rates = _step_seeds(self.config.seed, self.world.rank, numbers), [*map(self.schedule.at, numbers)]
        for done, seed, rate in zip(range(first + 1, steps + 1), seeds, rates, strict=True):
            with meter.waiting():
                batch = next(batches)
            for generator in self._generators:
                generator.manual_seed(seed)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            loss = self.step(self.benchmark.augment(batch))
            meter.step_done()
            look = done - looked >= self._flag.every or done == steps
            losses.add(loss, send=look)
            if not look:
                continue
            news = losses.news()
            last = news[-1] if news else last
            step_s = (time.perf_counter() - looked_at) / (done - looked)
            agreed = self._flag.agree(not all(map(math.isfinite, news)), step_s)
            observer.step(epoch, done, steps, last)
            if agreed == signals.BROKEN:
                self._fail(epoch, losses.values[:done], first)
            if agreed == signals.STOP and done < steps:
                self.synchronize()
                self._save(saver, epoch, done, self._global(losses.values[:done], first), wait=True)
                return done
            looked, looked_at = done, time.perf_counter()
        self.synchronize()
        if self._flag.settle(not np.isfinite(losses.values).all()) == signals.BROKEN:
            self._fail(epoch, losses.values, first)
        times = meter.epoch_done()
        device_after = self.train_loader.device_read_bytes()
        device = math.nan if None in (device_before, device_after) else device_after - device_before
        wall = self.world.max(time.perf_counter() - begin)
        observer.epoch_stop(epoch)
        global_losses = self._global(losses.values, first)
        self._losses.append(global_losses)
        means = self.world.sum(
            np.array(
                [times.wait_s, times.step_p50_s, times.step_p95_s, self.train_loader.read_bytes - read_before, device]
            )
        )
        means[:3] /= self.world.size
        ended = Epoch(
            epoch=epoch,
            steps=steps - first,
            samples=(steps - first) * self.global_batch,
            train_loss=float(np.mean(global_losses)),
            learning_rate=rates[-1],
            train_s=wall,
            wait_s=_known(means[0]),
            step_p50_s=_known(means[1]),
            step_p95_s=_known(means[2]),
            step_max_s=_known(self.world.max(times.step_max_s)),
            read_bytes=int(means[3]),
            device_read_bytes=None if math.isnan(means[4]) else int(means[4]),
        )
        if epoch < self.config.train.epochs:
            self._read_ahead(epoch + 1)  # last: a thread that sums would wait for one that reads
        return ended

    def _read_ahead(self, epoch: int, step: int = 0) -> None:
        """Begin to read an epoch, while the one before is evaluated: its first step finds its batch there."""
        self._device_read_before = self.train_loader.device_read_bytes()
        self._batches = self.train_loader.batches(self.sampler.epoch(epoch, step))

    def _evaluate(self, done: Epoch, observer: Observer) -> None:
        observer.eval_start(done.epoch)
        begin = time.perf_counter()
        self.engine.broadcast_buffers(self.model)  # so that all ranks evaluate one model, the one a checkpoint holds
        done.metrics = evaluate.evaluate(
            self.benchmark, self.model, self.eval_loader, self.eval_batches, self.world, self.autocast
        )
        done.eval_s = self.world.max(time.perf_counter() - begin)
        self._done.append(done)
        best = self._target_badness(done)
        self.schedule.epoch_done(best)
        observer.eval_stop(done)

    def _target_badness(self, done: Epoch) -> float:
        """The loss on validation, if the benchmark reports one, for schedules that watch it."""
        return done.metrics.get("eval_loss", done.metrics.get("eval_error", done.train_loss))

    def _outcome(self, status: str) -> Outcome:
        return Outcome(status, self._done, self._losses)

    def _interrupted(self, epoch: int, step: int) -> Outcome:
        """Every rank learns which signals there were: one small reduction."""
        names = sorted(set(self.world.sum([self._flag.received] if self._flag.received else [])))
        return Outcome("interrupted", self._done, self._losses, " and ".join(names), epoch, step)

    def _save(
        self, saver: checkpoint.Checkpointer | None, epoch: int, step: int, partial: list[float], wait: bool
    ) -> None:
        if saver is None:
            return
        history = {"epochs": [asdict(e) for e in self._done], "step_losses": self._losses, "partial": partial}
        saver.save(checkpoint.State(epoch, step, history, self.schedule.state()), self.model, self.optimizer)
        if wait:
            saver.wait()

    def _global(self, losses: np.ndarray, first: int) -> list[float]:
        """Mean over ranks of each step's loss: one all-reduce of the epoch's losses (8 bytes a step)."""
        return [*losses[:first].tolist(), *(self.world.sum(losses[first:]) / self.world.size).tolist()]

    def _fail(self, epoch: int, losses: np.ndarray, first: int) -> None:
        """Raise, on all ranks, the first loss since step `first` that is not finite."""
        self.synchronize()

        def look() -> None:
            bad = np.flatnonzero(~np.isfinite(losses[first:]))
            if len(bad):
                step = first + int(bad[0])
                raise RunFault(
                    f"the loss became {losses[step]:.3g} at epoch {epoch}, step {step + 1} of "
                    f"{self.sampler.steps}, rank {self.world.rank} on {self.world.host} (learning rate "
                    f"{self.schedule.at((epoch - 1) * self.sampler.steps + step):.3g}); lower train.base_lr or "
                    "lengthen train.warmup_epochs"
                )

        self.world.together(look)

    def synchronize(self) -> None:
        """Wait until the device has done all it was given."""
        import torch

        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _generators(device: torch.device) -> tuple[torch.Generator, ...]:
    """What draws a step's random choices: torch's own generators of the host and of the device (in use by now).
    `torch.manual_seed` formats a stack trace for every kind of device that is not in use: 0.5 ms a step.
    """
    import torch

    if device.type != "cuda":
        return (torch.default_generator,)
    number = torch.cuda.current_device() if device.index is None else device.index
    return torch.default_generator, torch.cuda.default_generators[number]


def _step_seeds(seed: int, rank: int, steps: range) -> list[int]:
    """Seeds of the random choices of steps on one rank (SplitMix64's finaliser over the three numbers)."""
    x = np.arange(steps.start, steps.stop, dtype=np.uint64) * np.uint64(0x94D049BB133111EB)
    x += np.uint64((seed * 0x9E3779B97F4A7C15 + rank * 0xBF58476D1CE4E5B9) & (2**64 - 1))
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x ^ (x >> np.uint64(31))) >> np.uint64(1)).tolist()
