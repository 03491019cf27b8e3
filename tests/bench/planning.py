"""What planning costs one rank of 16,384 on 4,096 nodes, with 100,000 shards; nothing of it is O(ranks) on storage.

python -m bench.planning DIRECTORY NODE     (a process of its own, for its memory; prints seconds and bytes as JSON)
"""

from __future__ import annotations

import json
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from bench.rows import Row

from sciml_hpc.benchmarks.base import SampleField
from sciml_hpc.data import staging
from sciml_hpc.data.sampler import Sampler
from sciml_hpc.data.shards import Index, Shard, collector_resting
from sciml_hpc.metering.system import peak_memory

NODES, PER_NODE, SHARDS, PER_SHARD = 4096, 4, 100_000, 128


def at_scale(rounds: int) -> list[Row]:
    """Seconds to read the index (or to take it from the rank that did), plan the staging in both modes and lay out an
    epoch, for one node and rank.
    """
    field = SampleField("x", (256, 256), "float32", "1", "")
    split = [("train", int(SHARDS * 0.9)), ("validation", SHARDS - int(SHARDS * 0.9))]
    random = np.random.default_rng(1)
    made = [
        Shard(f"{name}-{k:06d}.h5", name, k * PER_SHARD, PER_SHARD, 1 << 25, random.bytes(32).hex(), {"x": 4096})
        for name, count in split
        for k in range(count)
    ]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        Index("big", "big", "0" * 64, {}, (field,), tuple(made)).write(Path(folder))
        size = Path(folder, "index.json").stat().st_size
        for _ in range(rounds):
            command = [sys.executable, "-m", "bench.planning", folder, str(random.integers(NODES))]
            done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
            found.append(json.loads(done.stdout))
    medians = {k: statistics.median(f[k] for f in found) for k in found[0]}
    total = [sum(v for k, v in f.items() if k.endswith("_s")) for f in found]
    grown = [f["grown_bytes"] / 1e6 for f in found]
    return [
        Row("planning at 16,384 ranks", "100,000 shards, one rank", total, ("≤", 1.0), "s",
            figures={**{k: v for k, v in medians.items() if k.endswith("_s")}, "index_bytes": size}),
        Row("planning at 16,384 ranks", "memory it takes", grown, ("≤", 100.0), "MB"),
    ]  # fmt: skip


def one_rank(directory: Path, node: int) -> dict[str, float]:
    """Seconds of each part, and by how much the process has grown."""
    places = tuple(range(0, NODES * PER_NODE + 1, PER_NODE))
    memory = peak_memory()["host_peak_bytes"]
    seconds = {}
    begin = time.perf_counter()
    index = Index.load(directory)
    seconds["index_s"] = time.perf_counter() - begin
    for mode in ("partition", "replicate"):
        begin = time.perf_counter()
        staging.plan(index, places, mode, node)
        seconds[f"{mode}_s"] = time.perf_counter() - begin
    begin = time.perf_counter()
    samples = index.samples("train")
    low, high = samples * node // NODES, samples * (node + 1) // NODES
    Sampler(samples, 8, NODES * PER_NODE, low, high, 0, PER_NODE, 1, True).epoch(1)
    seconds["sampler_s"] = time.perf_counter() - begin
    grown = peak_memory()["host_peak_bytes"] - memory
    sent = pickle.dumps(index)
    begin = time.perf_counter()
    with collector_resting():
        pickle.loads(sent)
    seconds["received_s"] = time.perf_counter() - begin
    return {**seconds, "grown_bytes": grown}


if __name__ == "__main__":
    print(json.dumps(one_rank(Path(sys.argv[1]), int(sys.argv[2]))))
