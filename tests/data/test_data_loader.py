"""Batches: what h5py reads, in the order asked for, ahead of time, and never overwritten while in use."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from toy import dataset
from worlds import alone

from sciml_hpc.benchmarks.base import SampleField
from sciml_hpc.data.loader import CALL_BYTES, LOCAL_CALL_BYTES, MADV_POPULATE_READ, Loader, ShardReader
from sciml_hpc.data.prepare import prepare
from sciml_hpc.data.shards import Index
from sciml_hpc.metering.io import drop_cache

CPU = torch.device("cpu")
FIELDS = (
    SampleField("picture", (3, 128, 96), "float32", "1", "144 KiB: read by calls of its own"),
    SampleField("rare", (33, 1000), "uint8", "1", "just over 32 KiB: on shared storage read by its own calls"),
    SampleField("row", (7,), "float64", "1", "small: gathered from a memory map everywhere"),
    SampleField("label", (), "int64", "1", "the number itself"),
    SampleField("flag", (2,), "bool", "1", "odd or even"),
)
TRAIN = 103


class Numbers:
    """Samples that say which they are, in all bytes."""

    fields = FIELDS

    def read(self, split: str, first: int, count: int) -> dict[str, np.ndarray]:
        number = np.arange(first, first + count)
        random = [np.random.default_rng([n, len(split)]) for n in number]
        return {
            "picture": np.stack([r.random((3, 128, 96), np.float32) for r in random]),
            "rare": np.stack([r.integers(0, 255, (33, 1000), np.uint8) for r in random]),
            "row": np.stack([r.random(7) for r in random]),
            "label": number.astype(np.int64),
            "flag": np.stack([number % 2 == 0, number % 2 == 1], axis=1),
        }


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> tuple[Index, Path]:
    data = tmp_path_factory.mktemp("data")
    entry = dataset(samples={"train": TRAIN, "validation": 9}, shard_bytes=4_500_000)
    index = prepare(Numbers(), "numbers", entry, data, alone(), lambda done, total: None)
    assert len(index.of("train")) == 5
    assert CALL_BYTES < 33_000 < LOCAL_CALL_BYTES < 144 << 10
    return index, data / "numbers"


@pytest.fixture(scope="module")
def truth(shards) -> dict[str, np.ndarray]:
    """The training samples, read by h5py."""
    index, directory = shards
    files = [h5py.File(directory / s.file) for s in index.of("train")]
    return {f.name: np.concatenate([file[f.name][()] for file in files]) for f in FIELDS}


@pytest.fixture(params=[True, False], ids=["node-local storage", "shared storage"])
def reader(shards, request) -> Iterator[ShardReader]:
    index, directory = shards
    made = ShardReader(index, "train", directory, 0, TRAIN, request.param)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def batch_by_batch(monkeypatch):
    """So that these samples, small as they are, show what large ones do."""
    monkeypatch.setattr("sciml_hpc.data.loader.GROUP_BYTES", 1)


def empty(count: int) -> dict[str, np.ndarray]:
    return {f.name: np.zeros((count, *f.shape), f.dtype) for f in FIELDS}


NUMBERS = {
    "all": np.arange(TRAIN),
    "one": np.array([77]),
    "last": np.array([TRAIN - 1]),
    "runs within and over shards": np.array([0, 1, 2, 19, 20, 21, 22, 40, 60, 61, 102]),
    "every other": np.arange(1, TRAIN, 2),
    "random": np.sort(np.random.default_rng(3).choice(TRAIN, 41, replace=False)),
    "in any order": np.random.default_rng(4).permutation(TRAIN)[:50],
    "twice": np.array([5, 90, 5, 4]),
}


@pytest.mark.parametrize("numbers", NUMBERS.values(), ids=NUMBERS)
def test_samples_are_those_that_h5py_reads(reader, truth, numbers: np.ndarray):
    out = empty(len(numbers))
    asked = reader.read(numbers, out)
    for name, array in out.items():
        assert np.array_equal(array, truth[name][numbers]), name
    assert asked == sum(array.nbytes for array in out.values())


def test_a_reader_of_a_part_opens_only_the_shards_of_that_part(shards, truth):
    index, directory = shards
    before = len(os.listdir("/proc/self/fd"))
    part = ShardReader(index, "train", directory, 25, 60, local=True)
    overlapping = [s for s in index.of("train") if s.first < 60 and s.first + s.count > 25]
    assert len(os.listdir("/proc/self/fd")) - before == len(overlapping) < 5
    out = empty(35)
    part.read(np.arange(25, 60), out)
    assert np.array_equal(out["picture"], truth["picture"][25:60])
    part.close()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("number", [-1, TRAIN, TRAIN + 5, 10**9])
def test_a_sample_that_is_not_there_is_never_some_other_one(reader, number: int):
    with pytest.raises(IndexError, match=f"sample {number} of train is not here"):
        reader.read(np.array([number]), empty(1))
    with pytest.raises(IndexError, match="is not here"):
        reader.read(np.sort(np.array([3, number])), empty(2))


def test_a_sample_of_another_node_is_not_there(shards):
    index, directory = shards
    part = ShardReader(index, "train", directory, 0, 20, local=True)
    with pytest.raises(IndexError, match="sample 90 of train is not here"):
        part.read(np.array([2, 90]), empty(2))
    part.close()


@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize("field", ["picture", "flag"])  # the first and the last of a shard
def test_a_shard_that_is_too_short_is_an_error_not_a_crash(shards, tmp_path, local: bool, field: str):
    index, directory = shards
    for file in directory.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    last = index.of("train")[-1]
    with (tmp_path / last.file).open("rb+") as file:
        file.truncate(last.offsets[field] + 7)
    broken = ShardReader(index, "train", tmp_path, 0, TRAIN, local)
    with pytest.raises(OSError, match=f"shard {last.file} ends before its last sample"):
        broken.read(np.array([TRAIN - 1]), empty(1))
    broken.close()


@pytest.mark.parametrize("local", [True, False])
def test_a_shard_that_shrinks_while_it_is_read_is_an_error_not_a_crash(shards, tmp_path, local: bool):
    """As a device that fails is: what is mapped would end the process by SIGBUS."""
    index, directory = shards
    for file in directory.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    first = index.of("train")[0]
    broken = ShardReader(index, "train", tmp_path, 0, TRAIN, local)
    broken.read(np.array([1]), empty(1))
    os.truncate(tmp_path / first.file, first.offsets["picture"] + 3 * (144 << 10))
    with pytest.raises(OSError, match=first.file):
        broken.read(np.array([5]), empty(1))
    broken.close()


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("numbers", [[3, 4, 9], [3, 4, 5]], ids=["scattered", "neighbours"])
def test_what_is_cold_scattered_and_on_node_local_storage_is_brought_first(
    reader, truth, monkeypatch, numbers, resident
):
    brought = []

    def mincore(start: Any, length: Any, there: Any) -> int:
        there._obj.value = resident
        return 0

    def madvise(start: Any, length: Any, advice: int) -> int:
        _, address = reader._maps[0]
        brought.append((start.value - address, length.value, advice))
        return -1  # an older kernel

    monkeypatch.setattr("sciml_hpc.data.loader._libc", SimpleNamespace(mincore=mincore, madvise=madvise))
    out = empty(3)
    reader.read(np.array(numbers), out)
    assert np.array_equal(out["picture"], truth["picture"][numbers])
    size, offset = 144 << 10, reader._shards[0].offsets["picture"]  # whole pages
    runs = [(offset + 3 * size, 2 * size, MADV_POPULATE_READ), (offset + 9 * size, size, MADV_POPULATE_READ)]
    assert brought == (runs if numbers[-1] == 9 and not resident and reader._local else [])


def test_what_is_warm_is_not_asked_for_again_and_again(shards, monkeypatch):
    index, directory = shards
    reader = ShardReader(index, "train", directory, 0, TRAIN, local=True)
    asked, cold = [], set()

    def mincore(start: Any, length: Any, there: Any) -> int:
        number = (start.value - reader._maps[0][1] - reader._shards[0].offsets["picture"]) // (144 << 10)
        asked.append(number)
        there._obj.value = number not in cold
        return 0

    monkeypatch.setattr("sciml_hpc.data.loader._libc", SimpleNamespace(mincore=mincore, madvise=lambda *_: 0))

    def ask(*numbers: int) -> list[int]:
        asked.clear()
        reader.read(np.array(numbers), empty(len(numbers)))
        return asked

    assert ask(1, 3, 5) == [1, 3, 5]  # of the first samples nothing is known
    assert ask(0, 2, 4) == [0]
    cold.add(7)
    assert ask(7, 9, 11) == [7, 9, 11]
    assert ask(6, 8, 10) == [6, 8, 10]  # some were cold, just before
    assert ask(6, 8, 10) == [6]
    reader.close()


class SmallNumbers(Numbers):
    """Without the pictures."""

    fields = FIELDS[2:]

    def read(self, split: str, first: int, count: int) -> dict[str, np.ndarray]:
        samples = super().read(split, first, count)
        return {field.name: samples[field.name] for field in self.fields}


# --- the loader ----------------------------------------------------------------------------------------------------


def loader(shards: tuple[Index, Path], batch: int, prefetch: int = 2, threads: int = 1) -> Loader:
    index, directory = shards
    return Loader(ShardReader(index, "train", directory, 0, TRAIN, local=True), batch, CPU, prefetch, threads)


@pytest.mark.parametrize(("prefetch", "threads"), [(1, 1), (2, 1), (3, 4), (64, 2)])
def test_batches_come_in_order_and_the_last_may_be_short(shards, truth, prefetch: int, threads: int):
    made = loader(shards, 10, prefetch, threads)
    asked = [np.arange(first, min(first + 10, TRAIN)) for first in range(0, TRAIN, 10)]
    for round_ in range(2):  # a loader serves epoch after epoch
        count = 0
        for numbers, batch in zip(asked, made.batches(asked), strict=True):
            count += 1
            for field in FIELDS:
                assert tuple(batch[field.name].shape) == (len(numbers), *field.shape)
                assert batch[field.name].dtype == getattr(torch, field.dtype)
                assert np.array_equal(batch[field.name].numpy(), truth[field.name][numbers])
        assert count == 11
        assert made.read_bytes == (round_ + 1) * sum(array.nbytes for array in truth.values())
    made.close()


def test_small_samples_are_read_for_many_batches_at_once(tmp_path, truth, monkeypatch):
    """66 bytes each: 3,971 batches of 4 to a mebibyte; here 7. Every batch is as if it had been read alone."""
    entry = dataset(samples={"train": TRAIN, "validation": 9}, shard_bytes=4096)
    index = prepare(SmallNumbers(), "numbers", entry, tmp_path, alone(), lambda done, total: None)
    reader = ShardReader(index, "train", tmp_path / "numbers", 0, TRAIN, local=True)
    monkeypatch.setattr("sciml_hpc.data.loader.GROUP_BYTES", 1 << 20)
    assert reader.together(4) == 3971
    monkeypatch.setattr("sciml_hpc.data.loader.GROUP_BYTES", 7 * 4 * 66)
    calls = []
    real = reader.read
    monkeypatch.setattr(reader, "read", lambda numbers, out: calls.append(len(numbers)) or real(numbers, out))
    made = Loader(reader, 4, CPU, 2, 2)
    shuffled = np.random.default_rng(1).permutation(TRAIN)
    asked = [np.sort(shuffled[first : first + 4]) for first in range(0, TRAIN, 4)]
    for sizes in ([4, 16, 27, 28, 28], [19, 28, 28, 28]):  # the first groups are short, but in no further epoch
        calls.clear()
        for numbers, batch in zip(asked, made.batches(asked), strict=True):
            for name in ("row", "label", "flag"):
                assert np.array_equal(batch[name].numpy(), truth[name][numbers])
            batch["row"].zero_()
        assert sorted(calls) == sizes
    assert made.read_bytes == 2 * TRAIN * 66
    made.close()


def test_large_samples_are_read_batch_by_batch(reader, truth, monkeypatch):
    """Though several batches at a time: in each the samples rise, so that none is copied once more."""
    assert reader.together(1) == 1
    monkeypatch.setattr("sciml_hpc.data.loader.GROUP_BYTES", 1 << 20)
    assert (reader.together(2), reader.together(3), reader.together(64)) == (2, 1, 1)
    assert not reader.gathers
    calls = []
    real = reader.read
    monkeypatch.setattr(reader, "read", lambda numbers, out: calls.append(numbers.tolist()) or real(numbers, out))
    made = Loader(reader, 2, CPU, 2, 1)
    asked = [np.array(numbers) for numbers in ([70, 71], [3, 90], [4, 5], [0, 1], [102])]
    for numbers, batch in zip(asked, made.batches(asked), strict=True):
        for name, tensor in batch.items():
            assert np.array_equal(tensor.numpy(), truth[name][numbers]), name
    assert calls == [numbers.tolist() for numbers in asked]
    assert made.read_bytes == sum(array[:9].nbytes for array in truth.values())
    made._pool.shutdown()


def test_no_batches(shards):
    made = loader(shards, 4)
    assert list(made.batches([])) == []
    made.close()


def test_a_batch_stays_as_it_is_until_the_next_is_taken(shards, truth):
    made = loader(shards, 8, prefetch=2, threads=4)
    asked = [np.arange(first, first + 8) for first in range(0, 96, 8)]
    for numbers, batch in zip(asked, made.batches(asked), strict=True):
        time.sleep(0.01)  # the threads read on as far as they may
        assert np.array_equal(batch["picture"].numpy(), truth["picture"][numbers])
        batch["picture"].zero_()  # a step may do what it likes with its batch
    made.close()


def test_it_reads_ahead_but_no_further_than_asked(shards):
    made = loader(shards, 4, prefetch=3)
    taken = []

    def numbers() -> Iterator[np.ndarray]:
        for k in range(20):
            taken.append(k)
            yield np.arange(4 * k, 4 * k + 4)

    batches = made.batches(numbers())
    next(batches)
    assert len(taken) == 3
    next(batches)
    assert len(taken) == 4
    batches.close()
    made.close()


def test_reading_goes_on_while_a_step_computes(shards):
    made = loader(shards, 4, prefetch=2)
    batches = made.batches([np.arange(4 * k, 4 * k + 4) for k in range(20)])
    next(batches)
    time.sleep(0.3)
    begin = time.perf_counter()
    next(batches)
    assert time.perf_counter() - begin < 0.1
    batches.close()
    made.close()


def test_reading_begins_before_the_first_batch_is_taken(shards, truth, monkeypatch):
    """And a pass that is begun and not used gives way to the next, whose batches are right."""
    made = loader(shards, 4, prefetch=3)
    calls = []
    real = made._reader.read
    monkeypatch.setattr(made._reader, "read", lambda numbers, out: calls.append(numbers[0]) or real(numbers, out))
    unused = made.batches([np.arange(4 * k, 4 * k + 4) for k in range(20)])
    until = time.monotonic() + 10
    while len(calls) < 3 and time.monotonic() < until:
        time.sleep(0.005)
    assert calls == [0, 4, 8]
    assert made.read_bytes == 0  # nobody has had them
    asked = [np.arange(first, first + 4) for first in range(40, 80, 4)]
    for numbers, batch in zip(asked, made.batches(asked), strict=True):
        assert np.array_equal(batch["picture"].numpy(), truth["picture"][numbers])
        unused.close()
    made.close()


def test_what_the_device_delivered_is_counted_for_the_threads_that_read(shards):
    """Cold, it is what was asked for, in whole pages and with what the kernel reads ahead; warm, nothing."""
    index, directory = shards
    state = drop_cache([directory / s.file for s in index.of("train")])
    made = loader(shards, 10, threads=2)
    asked = [np.arange(first, first + 10) for first in range(0, 100, 10)]
    counts = [made.device_read_bytes()]
    for _ in range(2):
        for _ in made.batches(asked):
            pass
        counts.append(made.device_read_bytes())
    made.close()
    if counts[0] is None or state.state != "cold":
        pytest.skip(f"the kernel does not count reads here, or the files cannot be cold: {state}")
    assert counts[0] == 0
    whole_files = sum((directory / s.file).stat().st_size + 4096 for s in index.of("train"))
    assert made.read_bytes / 2 <= counts[1] <= whole_files
    assert counts[2] == counts[1]


def test_stopping_early_leaves_the_loader_fit_for_use(shards, truth):
    made = loader(shards, 5, prefetch=4, threads=2)
    for _ in range(5):
        batches = made.batches([np.arange(5 * k, 5 * k + 5) for k in range(20)])
        next(batches)
        batches.close()
    again = list(made.batches([np.array([99, 101])]))
    assert np.array_equal(again[0]["label"].numpy(), [99, 101])
    made.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("loader")]


def test_an_error_in_a_thread_reaches_the_step_and_closing_still_works(shards, monkeypatch):
    made = loader(shards, 4, prefetch=2, threads=2)
    real = made._reader.read

    def fails(numbers: np.ndarray, out: dict[str, np.ndarray]) -> int:
        if 8 in numbers:
            raise OSError(5, "Input/output error")
        return real(numbers, out)

    monkeypatch.setattr(made._reader, "read", fails)
    batches = made.batches([np.arange(4 * k, 4 * k + 4) for k in range(20)])
    assert next(batches)["label"].tolist() == [0, 1, 2, 3]
    assert next(batches)["label"].tolist() == [4, 5, 6, 7]
    with pytest.raises(OSError, match="Input/output error"):
        next(batches)
    made.close()


def test_closing_after_an_error_in_a_memory_map(shards):
    made = loader(shards, 4)
    with pytest.raises(IndexError):
        next(made.batches([np.array([1, 2, 3, 5000])]))
    made.close()
    made = loader(shards, 4)
    with pytest.raises(Exception):  # noqa: B017,PT011 - a batch that does not fit its buffer, of whatever kind
        next(made.batches([np.arange(5)]))
    made.close()
