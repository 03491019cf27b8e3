"""Shards: written by us, read by h5py, by hashlib and as raw bytes."""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import json
import os
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from sciml_hpc.benchmarks.base import SampleField
from sciml_hpc.data import shards
from sciml_hpc.data.shards import (
    Index,
    Shard,
    blocks,
    collector_resting,
    existing_shard,
    plan,
    sample_bytes,
    sha256_of,
    write_shard,
)
from sciml_hpc.errors import UserError

FIELDS = (
    SampleField("image", (3, 5, 7), "float32", "K", "brightness temperature"),
    SampleField("mask", (5, 7), "uint8", "1", "cloud or not"),
    SampleField("label", (), "int64", "1", "class"),
)
ATTRIBUTES = {"dataset": "d", "benchmark": "b", "fingerprint": "f"}


def samples(split: str, first: int, count: int) -> dict[str, np.ndarray]:
    """Every value says which sample it belongs to."""
    number = np.arange(first, first + count)
    image = np.arange(105, dtype=np.float32).reshape(3, 5, 7) + 1000 * number[:, None, None, None].astype(np.float32)
    mask = np.broadcast_to((number % 251).astype(np.uint8)[:, None, None], (count, 5, 7))
    return {"image": image, "mask": np.ascontiguousarray(mask), "label": number + (10**12 if split == "train" else 0)}


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Shard]:
    path = tmp_path / "train-000001.h5"
    return path, write_shard(path, Shard(path.name, "train", 40, 25), FIELDS, samples, ATTRIBUTES)


def test_h5py_reads_what_was_written(made):
    path, shard = made
    expected = samples("train", 40, 25)
    with h5py.File(path, "r") as file:
        assert set(file) == {"image", "mask", "label"}
        for field in FIELDS:
            data = file[field.name]
            assert np.array_equal(data[()], expected[field.name])
            assert (data.dtype, data.shape) == (np.dtype(field.dtype), (25, *field.shape))
            assert data.chunks is None
            assert data.id.get_create_plist().get_layout() == h5py.h5d.CONTIGUOUS
            assert data.id.get_create_plist().get_nfilters() == 0
            assert data.attrs["units"] == field.units
        assert dict(file.attrs) == {
            **ATTRIBUTES, "format": "sciml_hpc.shards/1", "split": "train", "first": 40, "count": 25
        }  # fmt: skip
    assert (shard.file, shard.split, shard.first, shard.count) == ("train-000001.h5", "train", 40, 25)


def test_a_fields_bytes_lie_where_the_index_says_aligned_to_4_kib(made):
    path, shard = made
    raw = path.read_bytes()
    expected = samples("train", 40, 25)
    for field in FIELDS:
        assert shard.offsets[field.name] % 4096 == 0, field.name
        found = np.frombuffer(raw, field.dtype, expected[field.name].size, shard.offsets[field.name])
        assert np.array_equal(found, expected[field.name].ravel())


def test_size_and_hash_are_the_files(made):
    path, shard = made
    assert shard.bytes == os.path.getsize(path)
    assert shard.sha256 == hashlib.sha256(path.read_bytes()).hexdigest() == sha256_of(path)


def test_the_same_samples_make_the_same_bytes_however_and_whenever_they_are_read(made, tmp_path, monkeypatch):
    time.sleep(1.01)  # HDF5 counts seconds
    path, shard = made
    monkeypatch.setattr(shards, "BLOCK_BYTES", 3 * sample_bytes(FIELDS))
    asked = []

    def read(split: str, first: int, count: int) -> dict[str, np.ndarray]:
        asked.append((first, count))
        return samples(split, first, count)

    (tmp_path / "again").mkdir()
    again = write_shard(tmp_path / "again" / path.name, shard, FIELDS, read, ATTRIBUTES)
    assert again == shard
    assert asked == [(40 + k, min(3, 25 - k)) for k in range(0, 25, 3)]


def test_hashing_a_file_of_many_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "BLOCK_BYTES", 1000)
    path = tmp_path / "file"
    path.write_bytes(os.urandom(10_500))
    assert sha256_of(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert b"".join(bytes(b) for b in blocks(path)) == path.read_bytes()
    assert [len(b) for b in blocks(path)] == [1000] * 10 + [500]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, ValueError])
def test_an_interrupted_shard_leaves_nothing(tmp_path, monkeypatch, error):
    monkeypatch.setattr(shards, "BLOCK_BYTES", sample_bytes(FIELDS))

    def breaks(split: str, first: int, count: int) -> dict[str, np.ndarray]:
        if first == 5:
            raise error("stop")
        return samples(split, first, count)

    with pytest.raises(error):
        write_shard(tmp_path / "train-000000.h5", Shard("train-000000.h5", "train", 0, 9), FIELDS, breaks, ATTRIBUTES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"label": np.zeros(4, np.int32)}, r"label of train 0: int32\(4,\), not int64\(4,\)"),
        ({"mask": np.zeros((4, 7, 5), np.uint8)}, r"mask of train 0: uint8\(4, 7, 5\), not uint8\(4, 5, 7\)"),
        ({"label": np.zeros(3, np.int64)}, r"label of train 0: int64\(3,\), not int64\(4,\)"),
    ],
)
def test_a_source_that_gives_something_else_is_refused(tmp_path, wrong, said):
    with pytest.raises(ValueError, match=said):
        write_shard(tmp_path / "s.h5", Shard("s.h5", "train", 0, 4), FIELDS, lambda *a: samples(*a) | wrong, ATTRIBUTES)
    assert list(tmp_path.iterdir()) == []


def test_a_shard_that_is_there_is_recognised(made):
    path, shard = made
    asked = Shard(shard.file, shard.split, shard.first, shard.count)
    assert existing_shard(path, asked, FIELDS, ATTRIBUTES) == shard
    assert existing_shard(path, asked._replace(count=24), FIELDS, ATTRIBUTES) is None
    assert existing_shard(path, asked._replace(first=0), FIELDS, ATTRIBUTES) is None
    assert existing_shard(path, asked, FIELDS, {**ATTRIBUTES, "fingerprint": "other"}) is None
    other_fields = (dataclasses.replace(FIELDS[0], name="picture"), *FIELDS[1:])
    assert existing_shard(path, asked, other_fields, ATTRIBUTES) is None
    assert existing_shard(path.with_name("none"), asked, FIELDS, ATTRIBUTES) is None
    with path.open("rb+") as file:
        file.truncate(shard.bytes // 2)
    assert existing_shard(path, asked, FIELDS, ATTRIBUTES) is None
    path.write_bytes(b"not HDF5")
    assert existing_shard(path, asked, FIELDS, ATTRIBUTES) is None


# --- the plan of shards --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shard_bytes", [1, 700, 463, 462, 4096, 10**9])
@pytest.mark.parametrize("total", [1, 2, 7, 100, 1001])
def test_shards_hold_every_sample_once_and_none_is_too_large(total: int, shard_bytes: int):
    size = 3 * 5 * 7 * 4 + 5 * 7 + 8
    assert sample_bytes(FIELDS) == size
    made = plan({"train": total, "validation": 3}, FIELDS, shard_bytes)
    train = [s for s in made if s.split == "train"]
    assert [s.first for s in train] == np.cumsum([0, *(s.count for s in train)])[:-1].tolist()
    assert sum(s.count for s in train) == total
    assert all(s.count == 1 or s.count * size <= shard_bytes for s in train)
    assert max(s.count for s in train) - min(s.count for s in train) <= 1
    assert len({s.file for s in made}) == len(made)
    assert [s.file for s in train] == sorted(s.file for s in train)


# --- the index -----------------------------------------------------------------------------------------------------


@pytest.fixture
def index(made) -> Index:
    _, shard = made
    validation = Shard("validation-000000.h5", "validation", 0, 3, 99, "0" * 64, {"image": 1, "mask": 2, "label": 3})
    first = shard._replace(file="train-000000.h5", first=0, count=40)
    return Index("d", "b", "f", {"seed": 1}, FIELDS, (shard, validation, first))


def test_the_index_comes_back_as_it_was(index, tmp_path):
    index.write(tmp_path)
    assert Index.load(tmp_path) == index
    assert Index.load(tmp_path).sha256 == index.sha256 == sha256_of(tmp_path / "index.json")
    assert [p.name for p in tmp_path.iterdir() if "index" in p.name] == ["index.json"]


def test_the_hash_is_of_the_file_as_it_is(index, tmp_path):
    index.write(tmp_path)
    file = tmp_path / "index.json"
    file.write_text(json.dumps(json.loads(file.read_text()), indent=1))
    assert Index.load(tmp_path) == index
    assert Index.load(tmp_path).sha256 == sha256_of(file) != index.sha256


@pytest.mark.parametrize("before", [True, False])
def test_the_collector_of_cycles_rests_and_goes_on_as_before(before: bool):
    @collector_resting()
    def fail() -> None:
        assert not gc.isenabled()
        raise ZeroDivisionError

    (gc.enable if before else gc.disable)()
    try:
        with pytest.raises(ZeroDivisionError):
            fail()
        assert gc.isenabled() == before
    finally:
        gc.enable()


def test_sums_of_the_index(index):
    assert index.splits == ("train", "validation")
    assert [s.first for s in index.of("train")] == [0, 40]
    assert (index.samples("train"), index.samples("validation"), index.samples("test")) == (65, 3, 0)
    assert index.bytes == sum(s.bytes for s in index.shards)


def test_the_hash_of_the_index_stands_for_every_byte(index):
    hashes, offsets = {index.sha256}, index.shards[0].offsets
    for change in ({"sha256": "1" * 64}, {"bytes": 1}, {"count": 24}, {"offsets": offsets | {"image": 0}}):
        changed = (index.shards[0]._replace(**change), *index.shards[1:])
        hashes.add(dataclasses.replace(index, shards=changed).sha256)
    hashes.add(dataclasses.replace(index, fingerprint="g").sha256)
    assert len(hashes) == 6


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: "{", "not an index of shards"),
        (lambda c: "[]", "not an index of shards"),
        (lambda c: json.dumps({k: v for k, v in c.items() if k != "format"}), "not an index of shards"),
        (
            lambda c: json.dumps(c | {"format": "sciml_hpc.shards/1"}),
            "its format is 'sciml_hpc.shards/1'.*remove that file and prepare",
        ),
        (lambda c: json.dumps(c | {"more": 1}), "not an index of shards"),
        (lambda c: json.dumps(c | {"shards": [{"name": 1}]}), "not an index of shards"),
        (lambda c: json.dumps(c | {"shards": c["shards"] | {"count": [1]}}), "not an index of shards"),
        (lambda c: json.dumps(c | {"shards": c["shards"] | {"offsets": {"image": [1]}}}), "not an index of shards"),
        (lambda c: "\udcff", "not an index of shards"),
        (lambda c: json.dumps(c | {"fields": 3}), "not an index of shards"),
    ],
)
def test_a_damaged_index_is_named(index, tmp_path, change, said):
    index.write(tmp_path)
    path = tmp_path / "index.json"
    path.write_text(change(json.loads(path.read_text())), errors="surrogateescape")
    with pytest.raises(UserError, match=f"index.json: .*{said}"):
        Index.load(tmp_path)
    path.unlink()
    with pytest.raises(UserError, match=r"index.json: cannot be read"):
        Index.load(tmp_path)


@pytest.mark.parametrize("name", ["../x.h5", "/etc/passwd", "a/b.h5", ".h5"])
def test_an_index_cannot_point_out_of_its_directory(index, tmp_path, name: str):
    index.write(tmp_path)
    path = tmp_path / "index.json"
    content = json.loads(path.read_text())
    content["shards"]["file"][0] = name
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"index.json: not an index of shards: .*plain"):
        Index.load(tmp_path)


def test_an_index_with_a_gap_is_refused(index, tmp_path):
    index.write(tmp_path)
    path = tmp_path / "index.json"
    content = json.loads(path.read_text())
    columns = content["shards"]
    content["shards"] = {k: v[:2] for k, v in columns.items() if k != "offsets"}
    content["shards"]["offsets"] = {k: v[:2] for k, v in columns["offsets"].items()}
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"train-000001.h5 begins with sample 40, the one before ends at 0"):
        Index.load(tmp_path)


def test_writing_atomically_keeps_what_was_there_if_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "file"
    shards.write_atomically(path, "old")

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        shards.write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
