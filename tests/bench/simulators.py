"""Samples per second of every simulator on one core, against what its benchmark trains on one core at `tiny`."""

from __future__ import annotations

import time

from bench.rows import Row

from sciml_hpc import benchmarks
from sciml_hpc.manifest import load_manifest
from sciml_hpc.plan import generator_of

LEAST_S = 2.0
"""A simulator is timed until so much time has passed."""


def rates() -> list[Row]:
    """One row a simulator: samples per second and core, in pieces as `prepare` asks for them."""
    manifest, rows = load_manifest(), []
    for name in benchmarks.names():
        for kind in benchmarks.classes(name):
            dataset = kind.presets["tiny"].dataset
            entry = manifest[dataset]
            source = kind.simulator(generator_of(kind, dataset, entry), entry.samples, entry.origin.seed)
            piece = max(1, min(64, entry.samples["train"] // 4))
            source.read("train", 0, piece)  # tables are made on the way
            done, begin = 0, time.perf_counter()
            while (spent := time.perf_counter() - begin) < LEAST_S and done + piece < entry.samples["train"]:
                source.read("train", done, piece)
                done += piece
            spent = time.perf_counter() - begin
            label = f"{kind.name} {kind.task}".strip()
            prepared_s = sum(entry.samples.values()) * spent / done
            rows.append(
                Row(
                    f"simulator, {label}",
                    dataset,
                    [done / spent],
                    None,
                    "1/s",
                    {"whole_data_set_on_one_core_s": prepared_s},
                )
            )
    return rows
