"""Parts of a run on their own: the loader without a model (`io`), the all-reduce without training (`comm`)."""

from __future__ import annotations

import time
from dataclasses import asdict
from statistics import median
from typing import Any

import numpy as np

from sciml_hpc.console import Console
from sciml_hpc.data import staging
from sciml_hpc.data.loader import Loader, ShardReader
from sciml_hpc.data.prepare import dataset_directory
from sciml_hpc.data.sampler import Sampler
from sciml_hpc.metering import comm, io
from sciml_hpc.parallel import device as devices
from sciml_hpc.parallel import engine as engines
from sciml_hpc.parallel.world import World
from sciml_hpc.plan import Request, settle
from sciml_hpc.preparation import ready

TURNS = 3
"""Loader and raw read alternate so often, cold and warm: medians of them are compared."""


def probe_io(request: Request, world: World, console: Console) -> dict[str, Any]:
    """The real loader with no model, cold and warm, against a sequential read of the same files; collective.

    The data set is staged as in a run (`staging.mode`). Every rank loads an epoch of its batches; a node's leader reads
    the files raw while the other ranks wait. Rates are of the whole job: bytes of all ÷ the slowest's time.
    """
    import torch

    plan = world.once(lambda: settle(request, world.size))
    config = plan.config
    index = ready(plan, request.data, world, console)
    data = dataset_directory(request.data, plan.dataset_name)
    staging.check(index, data, world, config.staging.mode, request.scratch)
    device = devices.choose(world)
    staged = staging.stage(index, data, world, config.staging.mode, request.scratch, config.staging.keep)
    low, high = staged.ranges["train"]
    files = [staged.directory / s.file for s in index.of("train") if s.first < high and s.first + s.count > low]
    sampler = Sampler(
        index.samples("train"), plan.local_batch, world.size, low, high, staged.position, staged.sharers, config.seed,
        config.train.shuffle,
    )  # fmt: skip
    threads = config.loader.threads_beside(device.torch.type)

    def drop() -> io.CacheState:
        state = io.drop_cache(files) if world.is_leader else None
        return world.local.bcast(state)

    def load(epoch: int) -> tuple[float, float, float]:
        # A new one each time: what is mapped cannot be dropped.
        reader = ShardReader(index, "train", staged.directory, low, high, staged.local)
        loader = Loader(reader, plan.local_batch, device.torch, config.loader.prefetch, threads)
        device_before = io.io_counters()
        world.comm.Barrier()
        begin = time.perf_counter()
        for _ in loader.batches(sampler.epoch(epoch)):
            pass
        if device.torch.type == "cuda":
            torch.cuda.synchronize(device.torch)  # the last copies
        seconds = world.max(time.perf_counter() - begin)
        after = io.io_counters()
        fetched = after.read_bytes - device_before.read_bytes if after and device_before else np.nan
        total, fetched = world.sum(np.array([loader.read_bytes, fetched]))
        loader.close()
        return total / seconds, total, fetched

    def raw() -> float:
        world.comm.Barrier()
        read = io.raw_read(files, threads=threads) if world.is_leader else None
        seconds = world.max(read.wall_s if read else 0.0)
        return world.sum(read.bytes if read else 0) / seconds

    rows: dict[str, Any] = {}
    for state in ("cold", "warm"):
        loads, raws = [], []
        for turn in range(TURNS):
            found = drop() if state == "cold" else None
            loads.append(load(turn + 1))
            if state == "cold":
                drop()
            raws.append(raw())
        rates = [rate for rate, _, _ in loads]
        rows[state] = {
            "cache_state": found.state if found else "warm",
            "loader_bytes_per_s": median(rates),
            "loader_samples_per_s": median(rates) / loads[0][1] * sampler.steps * plan.global_batch,
            "raw_bytes_per_s": median(raws),
            "loader_to_raw": median(a / b for a, b in zip(rates, raws, strict=True)),
            "app_read_bytes": int(loads[-1][1]),
            "device_read_bytes": None if np.isnan(loads[-1][2]) else int(loads[-1][2]),
        }
    if world.is_leader:
        staged.remove()
    console.line(
        f"loader of {plan.dataset_name} on {world.size} ranks, {world.nodes} nodes; {staged.scratch}; n = {TURNS}"
    )
    for state, row in rows.items():
        fetched = "not counted" if row["device_read_bytes"] is None else f"{row['device_read_bytes'] / 1e6:,.1f} MB"
        console.line(
            f"  {state} ({row['cache_state']}): loader {row['loader_bytes_per_s'] / 1e6:,.1f} MB/s "
            f"({row['loader_samples_per_s']:,.0f} samples/s), raw read {row['raw_bytes_per_s'] / 1e6:,.1f} MB/s, "
            f"ratio {row['loader_to_raw']:.2f}; asked for {row['app_read_bytes'] / 1e6:,.1f} MB, device gave {fetched}"
        )
    return rows


def probe_comm(request: Request, world: World, console: Console) -> list[dict[str, Any]]:
    """All-reduce times at the benchmark's gradient size and in a sweep, by the engine and by plain MPI; collective.

    Bus bandwidth as nccl-tests defines it; every result is compared with the exact sum.
    """
    import torch
    from mpi4py import MPI

    plan = world.once(lambda: settle(request, world.size))
    device = devices.choose(world)
    engine = world.together(lambda: engines.start(plan.config.communication, world, device))
    source_fields = (
        plan.benchmark()
        .simulator(_generator(plan), plan.dataset.samples, getattr(plan.dataset.origin, "seed", 0))
        .fields
    )
    model = plan.benchmark()(plan.config.train, source_fields).model()
    gradient = comm.gradient_bytes(model)

    def by_mpi(tensor: torch.Tensor) -> torch.Tensor:
        host = tensor.cpu().numpy()
        total = np.empty_like(host)
        world.comm.Allreduce(host, total)
        return torch.from_numpy(total).to(tensor.device)

    def largest(values: np.ndarray) -> np.ndarray:
        result = np.empty_like(values)
        world.comm.Allreduce(values, result, MPI.MAX)
        return result

    rows = []
    sizes = comm.sweep_sizes(max(gradient, 1 << 20), gradient, smallest=4096)
    for name, allreduce in ((f"{engine.name} ({engine.operations})", engine.allreduce), ("plain MPI", by_mpi)):
        swept = comm.allreduce_sweep(
            allreduce, sizes, world.size, world.rank, device.torch, world.comm.Barrier, largest
        )
        rows += [{"by": name, "gradient": row.bytes == gradient // 4 * 4, **asdict(row)} for row in swept]
    engine.close()
    console.line(
        f"all-reduce on {world.size} ranks, {world.nodes} nodes ({device.name}); gradients of {gradient:,} bytes"
    )
    console.line(f"  {'by':18} {'bytes':>12} {'median s':>11} {'min s':>11} {'max s':>11} {'busbw MB/s':>11}  correct")
    for row in rows:
        console.line(
            f"  {row['by']:18} {row['bytes']:>12,} {row['time_median_s']:>11.3g} {row['time_min_s']:>11.3g} "
            f"{row['time_max_s']:>11.3g} {row['busbw_bytes_per_s'] / 1e6:>11,.1f}  {'yes' if row['correct'] else 'NO'}"
            f"{'  ← gradients' if row['gradient'] else ''}"
        )
    return rows


def _generator(plan: Any) -> Any:
    from sciml_hpc.plan import generator_of

    return generator_of(plan.benchmark(), plan.dataset_name, plan.dataset)
