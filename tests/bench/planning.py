"""What planning costs one rank of 16,384 on 4,096 nodes, with 100,000 shards; nothing of it is O(ranks) on storage."""

from __future__ import annotations

import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from bench.rows import Row

from sciml_hpc.benchmarks.base import SampleField
from sciml_hpc.data import staging
from sciml_hpc.data.sampler import Sampler
from sciml_hpc.data.shards import Index, Shard

NODES, PER_NODE, SHARDS, PER_SHARD = 4096, 4, 100_000, 128


def at_scale(rounds: int) -> list[Row]:
    """Seconds to read the index, plan the staging in both modes and lay out an epoch, for one node and rank."""
    field = SampleField("x", (256, 256), "float32", "1", "")
    split = [("train", int(SHARDS * 0.9)), ("validation", SHARDS - int(SHARDS * 0.9))]
    made = [
        Shard(f"{name}-{k:06d}.h5", name, k * PER_SHARD, PER_SHARD, PER_SHARD << 18, "0" * 64, {"x": 4096})
        for name, count in split
        for k in range(count)
    ]
    places = tuple(range(0, NODES * PER_NODE + 1, PER_NODE))
    seconds: dict[str, list[float]] = {"index": [], "partition": [], "replicate": [], "sampler": []}
    with tempfile.TemporaryDirectory() as folder:
        Index("big", "big", "0" * 64, {}, (field,), tuple(made)).write(Path(folder))
        size = Path(folder, "index.json").stat().st_size
        del made
        for turn in range(rounds):
            node = int(np.random.default_rng(turn).integers(NODES))
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            begin = time.perf_counter()
            index = Index.load(Path(folder))
            seconds["index"].append(time.perf_counter() - begin)
            for mode in ("partition", "replicate"):
                begin = time.perf_counter()
                staging.plan(index, places, mode, node)
                seconds[mode].append(time.perf_counter() - begin)
            begin = time.perf_counter()
            samples = index.samples("train")
            low, high = samples * node // NODES, samples * (node + 1) // NODES
            Sampler(samples, 8, NODES * PER_NODE, low, high, 0, PER_NODE, 1, True).epoch(1)
            seconds["sampler"].append(time.perf_counter() - begin)
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
    total = [sum(parts) for parts in zip(*seconds.values(), strict=True)]
    figures = {f"{k}_s": float(np.median(v)) for k, v in seconds.items()} | {
        "index_bytes": size,
        "grown_MiB": round(grown, 1),
    }
    return [Row("planning at 16,384 ranks", "100,000 shards, one rank", total, ("≤", 1.0), "s", figures)]
