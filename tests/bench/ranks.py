"""Run by mpirun on two ranks: Horovod against DDP, and against ranks that do not communicate; rank 0 prints rows."""

from __future__ import annotations

import copy
import json
import sys
import time

import numpy as np
import torch
from bench.rows import Row

from sciml_hpc.benchmarks import find
from sciml_hpc.config import Communication, resolve
from sciml_hpc.parallel import device as devices
from sciml_hpc.parallel import engine as engines
from sciml_hpc.parallel.world import join
from sciml_hpc.training import optimizer
from sciml_hpc.training.forward import forward

STEPS = 5
"""In each block; blocks of the engines take turns."""


def main(rounds: int) -> None:
    """Steps of CloudMask's U-Net at `small`, eight patches a rank, on data held in memory."""
    world = join()
    device = devices.choose(world)
    made = {name: engines.start(Communication(engine=name), world, device) for name in ("horovod", "ddp")}
    kind = find("cloudmask")
    config, _ = resolve(kind, preset="small")
    source = kind.simulator(kind.Generator(patch=64), {"train": 8, "validation": 8}, 1)
    benchmark = kind(config.train, source.fields)
    batch = {name: torch.from_numpy(values) for name, values in source.read("train", 0, 8).items()}
    torch.manual_seed(1)
    first = benchmark.model()

    def stepper(engine):
        model = copy.deepcopy(first)
        base = optimizer.build(config.train, model)
        update = engine.wrap(base, model) if engine else base
        called = engine.module(model) if engine else model

        def step() -> None:
            update.zero_grad()
            benchmark.loss(forward(benchmark, called, batch), batch).backward()
            update.step()

        return step

    kinds = {name: stepper(engine) for name, engine in made.items()} | {"alone": stepper(None)}
    times: dict[str, list[float]] = {name: [] for name in kinds}
    for turn in range(rounds + 1):
        for name, step in kinds.items():
            world.comm.Barrier()
            begin = time.perf_counter()
            for _ in range(STEPS):
                step()
            spent = world.max(time.perf_counter() - begin) / STEPS
            if turn:
                times[name].append(spent)
    for engine in made.values():
        engine.close()
    if world.is_root:
        pairs = {name: np.array(values) for name, values in times.items()}
        step_s = {f"{name}_step_s": float(np.median(values)) for name, values in pairs.items()}
        rows = [
            Row("weak scaling, 1 to 2 ranks", "two processes that do not communicate",
                (pairs["alone"] / pairs["horovod"]).tolist(), ("≥", 0.97), figures=step_s),
            Row("Horovod's step", "DDP's (gloo)", (pairs["horovod"] / pairs["ddp"]).tolist(), ("≤", 1.0)),
        ]  # fmt: skip
        print("ROWS " + json.dumps([vars(row) for row in rows]), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
