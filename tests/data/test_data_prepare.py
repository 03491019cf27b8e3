"""Preparation: the same data set whatever the ranks, resumed where it stopped, never blessing a damaged shard."""

from __future__ import annotations

import hashlib
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from toy import dataset
from worlds import alone, world_of

from sciml_hpc.data import prepare as preparing
from sciml_hpc.data.prepare import load_prepared, prepare, verify
from sciml_hpc.data.shards import Index
from sciml_hpc.errors import UserError
from sciml_hpc.manifest import Dataset
from sciml_hpc.parallel.world import World

pytest_plugins = ["toy_fixtures"]


def make(toy: Any, data: Path, world: World, entry: Dataset, progress: Any = lambda done, total: None) -> Index:
    source = toy.simulator(toy.Generator(), entry.samples, entry.origin.seed)
    return prepare(source, "toy-tiny", entry, data, world, progress)


def files(directory: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(directory.iterdir())}


def test_the_samples_of_the_source_are_in_the_shards(toy, tmp_path):
    entry = dataset()
    seen = []
    index = make(toy, tmp_path, alone(), entry, lambda done, total: seen.append((done, total)))
    source = toy.simulator(toy.Generator(), entry.samples, entry.origin.seed)
    for split, total in entry.samples.items():
        whole = source.read(split, 0, total)
        parts = [h5py.File(tmp_path / "toy-tiny" / s.file) for s in index.of(split)]
        for name in ("x", "y", "number"):
            assert np.array_equal(np.concatenate([p[name][()] for p in parts]), whole[name])
        assert index.samples(split) == total
    assert len(index.of("train")) == 3
    assert seen == [(k, len(index.shards)) for k in range(1, len(index.shards) + 1)]
    assert files(tmp_path / "toy-tiny") == {
        "index.json": hashlib.sha256((tmp_path / "toy-tiny" / "index.json").read_bytes()).hexdigest(),
        **{s.file: s.sha256 for s in index.shards},
    }
    assert load_prepared(tmp_path, "toy-tiny", entry) == index


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_the_same_bytes_whatever_the_number_of_ranks(toy, mpi_tmp_path, ranks: int):
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    if comm.size < ranks:
        pytest.skip(f"needs {ranks} ranks")
    world = world_of(comm, [ranks])
    if world is not None:
        index = make(toy, mpi_tmp_path / "shared", world, dataset())
        assert world.comm.allgather(index.sha256) == [index.sha256] * ranks
        if world.is_root:
            lone = make(toy, mpi_tmp_path / "alone", alone(), dataset())
            assert lone == index
            assert files(mpi_tmp_path / "shared" / "toy-tiny") == files(mpi_tmp_path / "alone" / "toy-tiny")
    comm.Barrier()


def test_an_interrupted_preparation_goes_on_where_it_stopped(toy, tmp_path, monkeypatch):
    entry = dataset()
    whole = make(toy, tmp_path / "whole", alone(), entry)
    written = []
    before = preparing.write_shard

    def stops(path: Path, *rest: Any) -> Any:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path.name)
        return before(path, *rest)

    monkeypatch.setattr(preparing, "write_shard", stops)
    with pytest.raises(KeyboardInterrupt):
        make(toy, tmp_path, alone(), entry)
    assert set(files(tmp_path / "toy-tiny")) == set(written)
    assert load_prepared(tmp_path, "toy-tiny", entry) is None

    again = []
    monkeypatch.setattr(preparing, "write_shard", lambda path, *rest: again.append(path.name) or before(path, *rest))
    assert make(toy, tmp_path, alone(), entry) == whole
    assert sorted(written + again) == sorted(s.file for s in whole.shards)


def test_a_damaged_shard_is_made_again_never_taken_for_right(toy, tmp_path):
    entry = dataset()
    index = make(toy, tmp_path, alone(), entry)
    path = tmp_path / "toy-tiny" / index.shards[1].file
    good = path.read_bytes()
    bad = bytearray(good)
    bad[index.shards[1].offsets["x"] + 5] ^= 1
    path.write_bytes(bad)
    assert verify(index, tmp_path / "toy-tiny", alone()) == [f"{path}: its SHA-256 is not that of the index"]
    assert make(toy, tmp_path, alone(), entry) == index
    assert path.read_bytes() == good


def test_verify_names_every_fault(toy, tmp_path):
    index = make(toy, tmp_path, alone(), dataset())
    directory = tmp_path / "toy-tiny"
    assert verify(index, directory, alone()) == []
    names = [s.file for s in index.shards]
    (directory / names[0]).unlink()
    with (directory / names[2]).open("rb+") as file:
        file.truncate(100)
    faults = verify(index, directory, alone())
    assert faults == [
        f"{directory / names[0]}: No such file or directory",
        f"{directory / names[2]}: 100 bytes, the index says {index.shards[2].bytes}",
    ]


@pytest.mark.mpi(min_size=2)
def test_verify_over_ranks_finds_the_same(toy, mpi_tmp_path):
    from mpi4py import MPI

    world = world_of(MPI.COMM_WORLD, [MPI.COMM_WORLD.size])
    index = make(toy, mpi_tmp_path, world, dataset())
    path = mpi_tmp_path / "toy-tiny" / index.shards[-1].file
    if world.is_root:
        path.write_bytes(b"x" * index.shards[-1].bytes)
    world.comm.Barrier()
    assert verify(index, mpi_tmp_path / "toy-tiny", world) == [f"{path}: its SHA-256 is not that of the index"]


def test_shards_of_another_entry_are_not_taken(toy, tmp_path):
    make(toy, tmp_path, alone(), dataset())
    with pytest.raises(UserError, match=r"index.json: these shards were made from another entry .*'seed': 7.*toy-tiny"):
        load_prepared(tmp_path, "toy-tiny", dataset(seed=8))
    index = make(toy, tmp_path, alone(), dataset(seed=8))  # prepare makes them anew
    assert index.sha256 == make(toy, tmp_path / "b", alone(), dataset(seed=8)).sha256


def test_the_manifests_checksum_is_compared(toy, tmp_path):
    index = make(toy, tmp_path, alone(), dataset())
    right, wrong = (dataset().model_copy(update={"index_sha256": h}) for h in (index.sha256, "0" * 64))
    assert load_prepared(tmp_path, "toy-tiny", right) == index
    with pytest.raises(UserError, match=f"its SHA-256 is {index.sha256}, the manifest says 000"):
        load_prepared(tmp_path, "toy-tiny", wrong)
    shutil.rmtree(tmp_path / "toy-tiny")
    with pytest.raises(UserError, match=f"toy-tiny: the index of what was made has SHA-256 {index.sha256}"):
        make(toy, tmp_path, alone(), wrong)
    assert load_prepared(tmp_path, "toy-tiny", right) is None


def test_no_room_and_no_permission(toy, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(preparing.shutil, "disk_usage", lambda path: usage(1, 1, 100))
    with pytest.raises(UserError, match=r"toy-tiny has 0.0 GB free; toy-tiny needs 0.0 GB there"):
        make(toy, tmp_path, alone(), dataset())
    assert files(tmp_path / "toy-tiny") == {}
    monkeypatch.undo()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/toy-tiny: cannot be written: Not a directory"):
        preparing.prepare(
            toy.simulator(toy.Generator(), {"train": 1, "validation": 1}, 1),
            "toy-tiny",
            dataset(),
            tmp_path / "file",
            alone(),
            print,
        )


@pytest.mark.mpi(min_size=2)
def test_a_malformed_source_on_one_rank_is_an_error_on_all(toy, mpi_tmp_path):
    from mpi4py import MPI

    world = world_of(MPI.COMM_WORLD, [MPI.COMM_WORLD.size])

    class Broken:
        def __init__(self) -> None:
            self.good = toy.simulator(toy.Generator(), dataset().samples, 7)
            self.fields = self.good.fields

        def read(self, split: str, first: int, count: int) -> dict[str, np.ndarray]:
            if split == "validation":  # the last shard: not rank 0's
                raise ValueError("file S3A.hdf has no field bts")
            return self.good.read(split, first, count)

    with pytest.raises(UserError, match=r"^toy-tiny: file S3A.hdf has no field bts$"):
        prepare(Broken(), "toy-tiny", dataset(), mpi_tmp_path, world, lambda done, total: None)
    assert not (mpi_tmp_path / "toy-tiny" / "index.json").exists()
