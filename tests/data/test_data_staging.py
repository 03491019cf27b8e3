"""Staging: shards come whole, once from shared storage whatever the nodes, and what fails stops all of them."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from toy import dataset
from worlds import alone, world_of

from sciml_hpc.data import scratch, staging, transfer
from sciml_hpc.data.prepare import prepare
from sciml_hpc.data.shards import Index
from sciml_hpc.errors import RunFault, UserError
from sciml_hpc.parallel.world import World

pytest_plugins = ["toy_fixtures"]


# --- one process ---------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Prepared:
    index: Index
    data: Path
    root: Path

    def stage(self, world: World | None = None, mode: str = "partition", keep: bool = False) -> staging.Staged:
        world = world or alone()
        scratch = self.root / f"node{world.node}"
        staging.check(self.index, self.data, world, mode, scratch)
        return staging.stage(self.index, self.data, world, mode, scratch, keep)

    def left(self, node: int = 0) -> list[Path]:
        return sorted(p for p in (self.root / f"node{node}").rglob("*") if p.is_file())

    def kept(self, node: int = 0) -> Path:
        return scratch.base(self.root / f"node{node}", f"n{node}") / f"toy-tiny-{self.index.sha256[:12]}"


def prepared_in(toy: Any, root: Path, nodes: int = 1, shard_bytes: int = 4096) -> Prepared:
    entry = dataset(shard_bytes=shard_bytes)
    source = toy.simulator(toy.Generator(), entry.samples, entry.origin.seed)
    index = prepare(source, "toy-tiny", entry, root / "data", alone(), lambda done, total: None)
    for node in range(nodes):
        (root / f"node{node}").mkdir()
    return Prepared(index, root / "data" / "toy-tiny", root)


@pytest.fixture
def prepared(toy, tmp_path) -> Prepared:
    return prepared_in(toy, tmp_path)


def flip(path: Path, position: int) -> None:
    with path.open("rb+") as file:
        file.seek(position)
        byte = file.read(1)
        file.seek(position)
        file.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize("mode", ["partition", "replicate"])
def test_staged_shards_are_the_originals_and_go_with_the_run(prepared, mode):
    staged = prepared.stage(mode=mode)
    assert staged.directory != prepared.data
    for shard in prepared.index.shards:
        assert (staged.directory / shard.file).read_bytes() == (prepared.data / shard.file).read_bytes()
    assert staged.ranges == {"train": (0, 203), "validation": (0, 37)}
    assert (staged.position, staged.sharers) == (0, 1)
    total = prepared.index.bytes
    report = staged.report
    assert (report.shared_read_bytes, report.received_bytes, report.written_bytes) == (total, 0, total)
    assert report.reused_bytes == 0
    assert report.seconds > 0
    staged.remove()
    assert prepared.left() == []
    assert list((prepared.root / "node0").iterdir()) == []


@pytest.mark.parametrize(("mode", "kind", "local"), [
    ("partition", "xfs", True), ("replicate", "tmpfs", True), ("none", "xfs", False), ("partition", "lustre", False),
])  # fmt: skip
def test_whether_the_samples_are_on_node_local_storage(prepared, monkeypatch, mode: str, kind: str, local: bool):
    monkeypatch.setattr(scratch, "file_system", lambda path: kind)
    staged = prepared.stage(mode=mode)
    assert staged.local == local
    staged.remove()


def test_without_staging_the_data_directory_is_read(prepared):
    staged = prepared.stage(mode="none")
    assert staged.directory == prepared.data
    assert staged.scratch == "none: read in place"
    assert staged.report == staging.StagingReport()
    staged.remove()
    assert len(list(prepared.data.iterdir())) == len(prepared.index.shards) + 1


def test_kept_shards_are_used_again_and_a_damaged_one_is_replaced(prepared):
    total = prepared.index.bytes
    first = prepared.stage(keep=True)
    assert first.directory == prepared.kept()
    first.remove()
    assert len(prepared.left()) == len(prepared.index.shards)

    again = prepared.stage(keep=True)
    assert (again.report.shared_read_bytes, again.report.written_bytes, again.report.reused_bytes) == (0, 0, total)

    for keep in (True, False):
        damaged = prepared.index.shards[1]
        flip(prepared.kept() / damaged.file, damaged.offsets["x"] + 3)
        third = prepared.stage(keep=keep)
        assert third.report.shared_read_bytes == third.report.written_bytes == damaged.bytes
        assert third.report.reused_bytes == total - damaged.bytes
        for shard in prepared.index.shards:
            assert (third.directory / shard.file).read_bytes() == (prepared.data / shard.file).read_bytes()
        third.remove()


def test_a_missing_or_truncated_shard_is_found_before_any_copying(prepared):
    shard = prepared.index.shards[2]
    path = prepared.data / shard.file
    with path.open("rb+") as file:
        file.truncate(shard.bytes - 1)
    for mode in ("partition", "replicate", "none"):
        with pytest.raises(UserError, match=f"{shard.file} has {shard.bytes - 1} bytes, the index says {shard.bytes}"):
            staging.check(prepared.index, prepared.data, alone(), mode, prepared.root / "node0")
        assert prepared.left() == []
    path.unlink()
    with pytest.raises(UserError, match=f"{shard.file} cannot be read: No such file or directory; prepare"):
        staging.check(prepared.index, prepared.data, alone(), "partition", prepared.root / "node0")


def test_too_little_space_is_found_before_any_copying(prepared, monkeypatch):
    usage = namedtuple("usage", "total used free")
    free = prepared.index.bytes + staging.MARGIN_BYTES
    monkeypatch.setattr(staging.shutil, "disk_usage", lambda path: usage(1, 1, free))
    staging.check(prepared.index, prepared.data, alone(), "partition", prepared.root / "node0")
    free -= 1
    with pytest.raises(
        UserError, match=r"node0 on n0 has 0\.07 GB free; staging needs 0\.00 GB .* and 0\.07 GB to spare"
    ):
        staging.check(prepared.index, prepared.data, alone(), "partition", prepared.root / "node0")
    free = staging.MARGIN_BYTES  # enough once the shards are there
    monkeypatch.undo()
    prepared.stage(keep=True)
    monkeypatch.setattr(staging.shutil, "disk_usage", lambda path: usage(1, 1, free))
    staging.check(prepared.index, prepared.data, alone(), "partition", prepared.root / "node0")


@pytest.mark.parametrize("keep", [False, True])
def test_a_flipped_bit_is_found_and_nothing_of_that_shard_is_left(prepared, keep):
    shard = prepared.index.shards[0]
    flip(prepared.data / shard.file, shard.bytes - 1)
    with pytest.raises(UserError, match=rf"shard {prepared.data / shard.file}: SHA-256 is .*{shard.sha256}.*corrupt"):
        prepared.stage(keep=keep)
    assert shard.file not in "".join(map(str, prepared.left()))
    assert len(prepared.left()) == (len(prepared.index.shards) - 1 if keep else 0)


def test_storage_that_fills_up_is_a_fault_that_names_the_file(prepared, monkeypatch):
    real = transfer.Path.open

    class Full:
        def __init__(self, file: Any) -> None:
            self.file = file

        def write(self, block: Any) -> int:
            raise OSError(28, "No space left on device")

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    def opening(path: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        file = real(path, mode, *rest, **more)
        return Full(file) if mode == "wb" else file

    monkeypatch.setattr(transfer.Path, "open", opening)
    with pytest.raises(RunFault, match=r"rank 0 on n0: \[Errno 28\] No space left on device: '.*node0.*train"):
        prepared.stage()
    assert prepared.left() == []


@pytest.mark.parametrize(("kind", "reserved"), [("ext4", True), ("tmpfs", False)])
def test_room_is_reserved_before_a_shard_is_written_but_not_in_memory(prepared, monkeypatch, kind, reserved):
    sizes = []

    def full(file: int, offset: int, size: int) -> None:
        sizes.append(size)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(transfer.os, "posix_fallocate", full)
    monkeypatch.setattr(scratch, "file_system", lambda path: kind)
    if reserved:
        with pytest.raises(RunFault, match=r"\[Errno 28\] No space left on device: '.*node0.*train"):
            prepared.stage()
        assert set(sizes) <= {s.bytes for s in prepared.index.shards}
        assert prepared.left() == []
    else:
        prepared.stage().remove()
        assert sizes == []


def test_a_write_that_takes_only_a_part_is_gone_on_with(prepared, monkeypatch):
    real = transfer.Path.open

    class Slow:
        def __init__(self, file: Any) -> None:
            self.file = file

        def write(self, block: Any) -> int:
            return self.file.write(block[: max(1, min(1000, len(block)))])

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    def opening(path: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        file = real(path, mode, *rest, **more)
        return Slow(file) if mode == "wb" else file

    monkeypatch.setattr(transfer.Path, "open", opening)
    staged = prepared.stage()
    for shard in prepared.index.shards:
        assert (staged.directory / shard.file).read_bytes() == (prepared.data / shard.file).read_bytes()
    staged.remove()


# --- several nodes -------------------------------------------------------------------------------------------------

NODES = [[1, 1], [2], [1, 2], [2, 2], [1, 1, 1, 1]]


@pytest.fixture(params=NODES, ids=str)
def job(request, toy, mpi_tmp_path) -> Iterator[tuple[World, Prepared]]:
    """A world of so many ranks on each node, and a data set that rank 0 prepared; ranks left over skip."""
    from mpi4py import MPI

    comm, layout = MPI.COMM_WORLD, request.param
    if comm.size < sum(layout):
        pytest.skip(f"needs {sum(layout)} ranks")
    world = world_of(comm, layout)
    made = prepared_in(toy, mpi_tmp_path, len(layout)) if comm.rank == 0 else None
    made = comm.bcast(made)
    if world is not None:
        yield world, made
    comm.Barrier()
    if world is None:
        pytest.skip("not of this world")


def contents(directory: Path, index: Index, split: str, low: int, high: int) -> np.ndarray:
    """The numbers of the samples low … high − 1, as h5py reads them."""
    found = []
    for shard in index.of(split):
        if shard.first < high and low < shard.first + shard.count:
            with h5py.File(directory / shard.file) as file:
                part = file["number"][()]
            found += [n for n in part.tolist() if low <= n < high]
    return np.array(found)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("block", [1 << 20, 1000])
@pytest.mark.parametrize("mode", ["partition", "replicate"])
def test_every_byte_is_read_once_whatever_the_nodes(job, mode: str, block: int, monkeypatch):
    world, prepared = job
    monkeypatch.setattr(transfer, "BLOCK_BYTES", block)
    staged = prepared.stage(world, mode)
    total = world.sum(staged.report)
    written = sum(
        s.shard.bytes
        for n in range(world.nodes)
        for s in staging.plan(prepared.index, world.places, mode, n)
    )  # fmt: skip
    low, high = staged.ranges["train"]
    right = all(
        np.array_equal(contents(staged.directory, prepared.index, split, *r), np.arange(*r))
        for split, r in staged.ranges.items()
    )
    there = {p.name for p in staged.directory.iterdir()}
    ranges = world.comm.allgather((low, high))
    world.comm.Barrier()
    if world.is_leader:
        staged.remove()
    world.comm.Barrier()
    left = world.sum([str(p) for p in prepared.left(world.node)])

    assert total.shared_read_bytes == prepared.index.bytes  # read amplification 1.0
    assert total.written_bytes == total.shared_read_bytes + total.received_bytes == written
    assert right
    assert there == {s.shard.file for s in staging.plan(prepared.index, world.places, mode, world.node)}
    if mode == "replicate":
        assert written == prepared.index.bytes * world.nodes
        assert (low, high, staged.position, staged.sharers) == (0, 203, world.place, world.size)
    else:
        assert (staged.position, staged.sharers) == (world.local_rank, world.local_size)
        parts = sorted(set(ranges))
        assert parts[0][0] == 0
        assert parts[-1][1] == 203
        assert all(a[1] == b[0] for a, b in itertools.pairwise(parts))
    assert left == []


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("mode", ["partition", "replicate"])
def test_a_flipped_bit_is_an_error_on_all_ranks(job, mode: str):
    world, prepared = job
    shard = prepared.index.of("train")[1]  # in the middle: more than one node needs it
    if world.is_root:
        flip(prepared.data / shard.file, shard.offsets["y"] + 2)
    world.comm.Barrier()
    with pytest.raises(UserError, match=rf"shard {prepared.data / shard.file}: SHA-256 is .*corrupt"):
        prepared.stage(world, mode)
    world.comm.Barrier()
    assert prepared.left(world.node) == []


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("mode", ["partition", "replicate"])
def test_what_stops_one_node_is_known_to_all_before_copying(job, mode: str, monkeypatch):
    world, prepared = job
    last = world.nodes - 1
    usage = namedtuple("usage", "total used free")
    if world.node == last:
        monkeypatch.setattr(staging.shutil, "disk_usage", lambda path: usage(1, 1, 5))
    with pytest.raises(UserError, match=f"node{last} on n{last} has 0.00 GB free; staging needs "):
        prepared.stage(world, mode)
    monkeypatch.undo()
    shard = prepared.index.shards[-1]
    if world.is_root:
        (prepared.data / shard.file).unlink()
    world.comm.Barrier()
    with pytest.raises(UserError, match=f"{shard.file} cannot be read: No such file"):
        prepared.stage(world, mode)
    if world.is_leader:
        shutil.rmtree(prepared.root / f"node{world.node}")
    world.comm.Barrier()
    with pytest.raises(UserError, match=r"no writable node-local directory|cannot be read"):
        prepared.stage(world, mode)
    world.comm.Barrier()
    assert prepared.left(world.node) == []


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("mode", ["partition", "replicate"])
def test_one_nodes_failing_storage_is_a_fault_on_all_and_nobody_waits_for_ever(job, mode: str, monkeypatch):
    world, prepared = job
    bad = world.nodes - 1
    if world.node == bad:  # neither the files of the run nor those of the data set can be opened
        real = transfer.Path.open

        def opening(path: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
            if (mode in ("wb", "rb") and path.name.endswith(".h5")) or f"node{bad}" in str(path):
                raise OSError(5, "Input/output error", str(path))
            return real(path, mode, *rest, **more)

        monkeypatch.setattr(transfer.Path, "open", opening)
    with pytest.raises(RunFault, match=rf"rank {world.places[bad]} on n{bad}: \[Errno 5\] Input/output error: '"):
        prepared.stage(world, mode)
    monkeypatch.undo()
    world.comm.Barrier()
    assert prepared.left(world.node) == []


@pytest.mark.mpi(min_size=2)
def test_a_directory_that_cannot_be_made_on_one_node_stops_all(job, monkeypatch):
    world, prepared = job
    if world.node == world.nodes - 1:

        def refuses(below: Path) -> None:
            raise OSError(30, "Read-only file system", str(below))

        monkeypatch.setattr(scratch, "enter", refuses)
    with pytest.raises(RunFault, match=rf"on n{world.nodes - 1}: .*Read-only file system"):
        prepared.stage(world, "replicate")
    world.comm.Barrier()
    assert prepared.left(world.node) == []


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("mode", ["partition", "replicate"])
def test_what_one_node_lost_is_sent_to_it_again(job, mode: str):
    world, prepared = job
    prepared.stage(world, mode, keep=True)
    full = world.sum(prepared.stage(world, mode, keep=True).report)
    lost = prepared.index.of("train")[1]
    needing = [
        n for n in range(world.nodes) if lost in [s.shard for s in staging.plan(prepared.index, world.places, mode, n)]
    ]
    if world.is_leader and world.node == needing[-1]:
        flip(prepared.kept(world.node) / lost.file, lost.offsets["number"])
    world.comm.Barrier()
    again = prepared.stage(world, mode, keep=True)
    total = world.sum(again.report)
    same = all(
        (again.directory / p.name).read_bytes() == (prepared.data / p.name).read_bytes()
        for p in again.directory.iterdir()
    )
    assert (full.shared_read_bytes, full.written_bytes) == (0, 0)
    assert total.shared_read_bytes == lost.bytes
    assert total.written_bytes == lost.bytes * len(needing)
    assert total.reused_bytes == full.reused_bytes - total.written_bytes
    assert same
