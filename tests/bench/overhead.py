"""What the harness and its metering cost: `python tests/bench/overhead.py [ROUNDS]`, one process, on a quiet machine.

Three loops of the same model and optimiser take turns, so that a drift of the machine meets all: a bare PyTorch loop on
data held in memory; the whole training loop (loader, Horovod, stop flag, learning rate, seeds) with metering off; and
the same with all metering on, the energy meter's thread included. Printed: median step of each over the rounds, and the
ratios of neighbours in a round, with their spread.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from sciml_hpc.benchmarks import find
from sciml_hpc.config import resolve
from sciml_hpc.console import Console
from sciml_hpc.data import staging
from sciml_hpc.data.prepare import dataset_directory
from sciml_hpc.job import energy_meter
from sciml_hpc.parallel import device as devices
from sciml_hpc.parallel import engine as engines
from sciml_hpc.parallel.world import join
from sciml_hpc.plan import Request, settle
from sciml_hpc.preparation import ready
from sciml_hpc.training import optimizer
from sciml_hpc.training.loop import Training


class Quiet:
    """An observer that does nothing."""

    def __getattr__(self, name: str):
        return lambda *arguments, **named: None


def main(rounds: int) -> None:
    world, console = join(), Console(True)
    place = Path(tempfile.mkdtemp())
    request = Request("cloudmask", preset="tiny", data=place)
    plan = settle(request, world.size)
    index = ready(plan, place, world, console)
    data = dataset_directory(place, plan.dataset_name)
    staged = staging.stage(index, data, world, "partition", None, keep=False)
    device = devices.choose(world)
    engine = engines.start(plan.config.communication, world)
    kind = find("cloudmask")

    def harness(metered: bool) -> Training:
        given = [f"measure.enabled={str(metered).lower()}"]
        config, _ = resolve(kind, preset="tiny", assignments=given)
        training = Training(
            kind(config.train, index.fields), config, world, engine, device.torch, index, staged, plan.local_batch
        )
        training.join()
        return training

    loops = {"metering off": harness(False), "metering on": harness(True)}
    sampler, recipe = loops["metering off"].sampler, plan.config.train
    held = [
        {name: tensor.clone() for name, tensor in batch.items()}
        for batch in loops["metering off"].train_loader.batches(sampler.epoch(1))
    ]
    benchmark = kind(recipe, index.fields)
    model = benchmark.model()
    update = optimizer.build(recipe, model)

    def bare() -> float:
        begin = time.perf_counter()
        for batch in held:
            update.zero_grad()
            images = (x.contiguous(memory_format=torch.channels_last) for x in benchmark.inputs(batch))
            benchmark.loss(model(*images), batch).backward()
            update.step()
        return (time.perf_counter() - begin) / len(held)

    times: dict[str, list[float]] = {"bare": [], "metering off": [], "metering on": []}
    for turn in range(rounds + 1):
        row = {"bare": bare()}
        for name, training in loops.items():
            meter = energy_meter(world, name == "metering on")
            meter.start("training")
            begin = time.perf_counter()
            training.train_epoch(turn + 1, Quiet(), None)
            row[name] = (time.perf_counter() - begin) / sampler.steps
            meter.stop()
        if turn:  # the first round warms up
            for name, value in row.items():
                times[name].append(value)
    print(f"{rounds} rounds of {sampler.steps} steps, batch {plan.local_batch}, {device.threads} threads")
    for name, values in times.items():
        print(f"  {name:13} median step {1e3 * statistics.median(values):8.3f} ms")
    for name, base in (("metering off", "bare"), ("metering on", "bare"), ("metering on", "metering off")):
        ratios = sorted(a / b for a, b in zip(times[name], times[base], strict=True))
        print(f"  {name} / {base}: median {statistics.median(ratios):.4f}, from {ratios[0]:.4f} to {ratios[-1]:.4f}")
    for training in loops.values():
        training.close()
    staged.remove()
    engine.close()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
