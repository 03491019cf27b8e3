"""The loader against a plain read of the same bytes, and against what peers read small samples with."""

from __future__ import annotations

import importlib.util
import math
import os
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
import torch
from bench.rows import Row, alternate, faster

from sciml_hpc.benchmarks.base import SampleField
from sciml_hpc.data.loader import Loader, ShardReader
from sciml_hpc.data.sampler import Sampler
from sciml_hpc.data.shards import Index, plan, write_shard
from sciml_hpc.metering import io

LARGE = (SampleField("image", (9, 256, 256), "float32", "1", ""), SampleField("mask", (256, 256), "uint8", "1", ""))
SMALL: Mapping[str, tuple[SampleField, ...]] = {
    "UNO rows": (
        SampleField("rna", (942,), "float32", "1", ""),
        SampleField("drug", (5270,), "float32", "1", ""),
        SampleField("response", (), "float32", "1", ""),
    ),
    "TEvolOp windows": (
        SampleField("inputs", (26, 27), "float32", "1", ""),
        SampleField("targets", (26, 24), "float32", "1", ""),
    ),
    "SAXS profiles": (SampleField("profile", (300,), "float32", "1", ""), SampleField("label", (), "int64", "1", "")),
}


def shards(directory: Path, fields: tuple[SampleField, ...], samples: int, shard_bytes: int) -> Index:
    """A data set of random bytes: reading does not depend on them."""
    random = np.random.default_rng(1)

    def read(split: str, first: int, count: int) -> dict[str, np.ndarray]:
        return {f.name: random.integers(0, 100, (count, *f.shape)).astype(f.dtype) for f in fields}

    made = [write_shard(directory / s.file, s, fields, read, {}) for s in plan({"train": samples}, fields, shard_bytes)]
    return Index("bench", "bench", "0" * 64, {}, fields, tuple(made))


def loader_of(index: Index, directory: Path, batch: int) -> tuple[Loader, Sampler]:
    """The loader of a run on one rank, and its order of samples."""
    samples = index.samples("train")
    reader = ShardReader(index, "train", directory, 0, samples, local=True)
    sampler = Sampler(samples, batch, 1, 0, samples, 0, 1, seed=1, shuffle=True)
    return Loader(reader, batch, torch.device("cpu"), prefetch=2, threads=1), sampler


def large(rounds: int) -> list[Row]:
    """CloudMask's samples in batches of 8, warm: `preadv` of the same bytes in the same order into one buffer.

    One buffer of 19 MB may stay in the processor's cache; batches read ahead do not fit there. So a second row compares
    with `preadv` into as many buffers as the loader has.
    """
    with tempfile.TemporaryDirectory() as place:
        index = shards(Path(place), LARGE, 192, 64 << 20)
        loader, sampler = loader_of(index, Path(place), 8)
        files = {s.file: os.open(Path(place, s.file), os.O_RDONLY) for s in index.shards}
        order = sampler.epoch(1)
        sizes = {f.name: np.dtype(f.dtype).itemsize * math.prod(f.shape) for f in LARGE}
        batch_bytes = 8 * sum(sizes.values())
        # Of torch, aligned: into an address that is no multiple of 32, some processors copy at a third of the rate.
        tensors = [torch.empty(batch_bytes, dtype=torch.uint8) for _ in range(len(loader._buffers))]
        buffers = [memoryview(tensor.numpy()) for tensor in tensors]
        reads = []
        for turn, numbers in enumerate(order):
            place_in_buffer = 0
            for number in numbers:
                shard = next(s for s in index.shards if s.first <= number < s.first + s.count)
                for name, size in sizes.items():
                    offset = shard.offsets[name] + (int(number) - shard.first) * size
                    part = slice(place_in_buffer, place_in_buffer + size)
                    reads.append((files[shard.file], turn % len(buffers), part, offset))
                    place_in_buffer += size

        def ours() -> None:
            for _ in loader.batches(order):
                pass

        def preadv() -> None:
            for file, _, part, offset in reads:
                os.preadv(file, [buffers[0][part]], offset)

        def preadv_in_turn() -> None:
            for file, turn, part, offset in reads:
                os.preadv(file, [buffers[turn][part]], offset)

        seconds = alternate(rounds, ours=ours, preadv=preadv, in_turn=preadv_in_turn)
        loader.close()
        total = len(order) * batch_bytes
        rate = total / statistics.median(seconds["ours"])
        return [
            Row("loader, large samples, warm", "preadv of the same bytes", faster(seconds["ours"], seconds["preadv"]),
                ("≥", 0.90), figures={"loader_bytes_per_s": rate}),
            Row("loader, large samples, warm", f"preadv into {len(buffers)} buffers in turn",
                faster(seconds["ours"], seconds["in_turn"]), ("≥", 0.90)),
        ]  # fmt: skip


def cold(rounds: int) -> list[Row]:
    """The same samples cold, in order and shuffled: a sequential read of the same files, cold."""
    with tempfile.TemporaryDirectory() as place:
        index = shards(Path(place), LARGE, 192, 64 << 20)
        samples = index.samples("train")
        reader = ShardReader(index, "train", Path(place), 0, samples, local=True)
        loader = Loader(reader, 8, torch.device("cpu"), prefetch=2, threads=1)
        shuffled = np.random.default_rng(1).permutation(samples)
        orders = {"in order": np.arange(samples).reshape(-1, 8), "shuffled": np.sort(shuffled.reshape(-1, 8), axis=1)}
        files = [Path(place, s.file) for s in index.shards]
        times: dict[str, list[float]] = {name: [] for name in (*orders, "raw")}
        states = set()
        for _ in range(rounds):
            for name, order in orders.items():
                reader._maps = [None] * len(files)  # what is mapped cannot be dropped
                states.add(io.drop_cache(files).state)
                begin = time.perf_counter()
                for _ in loader.batches(order):
                    pass
                times[name].append(time.perf_counter() - begin)
            reader._maps = [None] * len(files)
            states.add(io.drop_cache(files).state)
            times["raw"].append(io.raw_read(files, threads=1).wall_s)
        loader.close()
        return [
            Row(f"loader, cold, {name}", "sequential read of the same files", faster(times[name], times["raw"]),
                ("≥", 0.95), figures={"loader_bytes_per_s": index.bytes / statistics.median(times[name]),
                                      "cache_state": "/".join(sorted(states))})
            for name in orders
        ]  # fmt: skip


class Rows(torch.utils.data.Dataset):
    """Shards as a torch data set over h5py, opened in the worker: what users write first."""

    def __init__(self, index: Index, directory: Path) -> None:
        self._index, self._directory = index, directory
        self._files: list[h5py.File] | None = None
        self._firsts = [s.first for s in index.shards]

    def __len__(self) -> int:
        return self._index.samples("train")

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        if self._files is None:
            self._files = [h5py.File(self._directory / s.file, "r") for s in self._index.shards]
        k = int(np.searchsorted(self._firsts, number, "right")) - 1
        local = number - self._firsts[k]
        return {f.name: self._files[k][f.name][local] for f in self._index.fields}


def small(rounds: int) -> list[Row]:
    """Small samples, shuffled, batches of 64: DataLoader over h5py, WebDataset, and an index of a tensor in memory."""
    rows = []
    for name, fields in SMALL.items():
        with tempfile.TemporaryDirectory() as place:
            index = shards(Path(place), fields, 8192, 32 << 20)
            loader, sampler = loader_of(index, Path(place), 64)
            order = sampler.epoch(1)
            held = {
                f.name: torch.cat([
                    torch.from_numpy(h5py.File(Path(place, s.file))[f.name][:]) for s in index.shards
                ]) for f in fields
            }  # fmt: skip
            part = order[:16]  # of the slow ones; scaled to a batch below
            peer = torch.utils.data.DataLoader(
                Rows(index, Path(place)),
                batch_sampler=[b.tolist() for b in part],
                num_workers=2,
                persistent_workers=True,
            )

            def ours() -> None:
                for _ in loader.batches(order):  # noqa: B023 (called before the loop goes on)
                    pass

            def tensor() -> None:
                for numbers in order:  # noqa: B023
                    for values in held.values():  # noqa: B023
                        values[torch.from_numpy(numbers)]

            def dataloader() -> None:
                for _ in peer:  # noqa: B023
                    pass

            works = {"ours": ours, "tensor": tensor, "dataloader": dataloader}
            if importlib.util.find_spec("webdataset"):
                works["webdataset"] = webdataset(Path(place), held, len(part) * 64)
            seconds = alternate(rounds, **works)
            loader.close()
            each = {
                k: [s / (len(order) if k in ("ours", "tensor") else len(part)) for s in v] for k, v in seconds.items()
            }
            rate = 64 / statistics.median(each["ours"])
            what = f"loader, {name}, shuffled"
            rows.append(
                Row(what, "DataLoader over h5py, 2 workers", faster(each["ours"], each["dataloader"]), ("≥", 10.0),
                    figures={"samples_per_s": rate})
            )  # fmt: skip
            if "webdataset" in each:
                rows.append(Row(what, "WebDataset", faster(each["ours"], each["webdataset"]), ("≥", 3.0)))
            rows.append(Row(what, "index of a tensor in memory", faster(each["ours"], each["tensor"]), ("≥", 0.5)))
    return rows


def webdataset(place: Path, held: Mapping[str, torch.Tensor], samples: int):
    """A reader of the same samples from a tar, shuffled in a buffer, as WebDataset's documentation has it."""
    import webdataset as wds

    tar = place / "samples.tar"
    with wds.TarWriter(str(tar)) as sink:
        for k in range(samples):
            sink.write({"__key__": f"{k:08d}", **{f"{n}.npy": v[k].numpy() for n, v in held.items()}})

    def read() -> None:
        data = wds.WebDataset(str(tar), shardshuffle=False, empty_check=False).shuffle(1000).decode()
        for _ in wds.WebLoader(data, batch_size=64, num_workers=0):
            pass

    return read
