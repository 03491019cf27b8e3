"""Staging: each shard is read once from shared storage over the whole job, verified, and put on node-local storage.

Every shard goes along the nodes that need it. The first reads it and sends it on, block by block, while the others
write and send on in turn; everyone verifies the checksum of what it wrote (`data/transfer.py`). With `replicate` these
are all nodes, beginning with another one for each shard; with `partition` the nodes whose ranks' samples lie in the
shard, mostly a single one. So bytes read from shared storage are those of the data set whatever the number of nodes.

A node opens only the shards it reads. The plan is arithmetic, O(shards + nodes) on each node without any message; what
is already there is agreed on with one reduction of a byte per shard.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sciml_hpc.data import scratch as scratches
from sciml_hpc.data.sampler import share
from sciml_hpc.data.shards import Index, Shard, collector_resting, sha256_of
from sciml_hpc.data.transfer import copy, read_ahead, relay
from sciml_hpc.errors import UserError
from sciml_hpc.parallel.world import World

MARGIN_BYTES = 64 << 20
"""Room left free on node-local storage besides the shards."""
COPY_THREADS = 4


@dataclass
class StagingReport:
    """What staging did on one node; the counts add up over nodes."""

    shared_read_bytes: int = 0
    """Read from the data directory."""
    received_bytes: int = 0
    """Received from other nodes."""
    written_bytes: int = 0
    """Written to node-local storage."""
    reused_bytes: int = 0
    """Found intact on node-local storage."""
    seconds: float = 0.0
    """Wall time of a node; the longest, when reports of nodes are added."""

    def __add__(self, other: StagingReport) -> StagingReport:
        return StagingReport(
            self.shared_read_bytes + other.shared_read_bytes,
            self.received_bytes + other.received_bytes,
            self.written_bytes + other.written_bytes,
            self.reused_bytes + other.reused_bytes,
            max(self.seconds, other.seconds),
        )


@dataclass
class Staged:
    """A data set where this node's ranks read it."""

    directory: Path
    local: bool
    """Whether that is node-local storage."""
    scratch: str
    """Node-local directory, where it came from and its file system; or why there is none."""
    ranges: Mapping[str, tuple[int, int]]
    """Per split, the samples (first, one past the last) that this node holds."""
    position: int
    """Place of this rank among those that share `ranges`, for training."""
    sharers: int
    report: StagingReport = field(default_factory=StagingReport)
    _own: scratches.RunDirectory | None = None

    def remove(self) -> None:
        """Remove what was staged for this run alone (by the node's leader, at the end)."""
        if self._own is not None:
            self._own.remove()
            self._own = None


class Step(NamedTuple):
    """One shard's way: from node `head` along `length` nodes in order, counted round the end."""

    number: int
    shard: Shard
    head: int
    length: int
    nodes: int

    def neighbours(self, node: int) -> tuple[int | None, int | None]:
        """The nodes before and after `node` on the way."""
        here = (node - self.head) % self.nodes
        before = (node - 1) % self.nodes if here else None
        return before, (node + 1) % self.nodes if here + 1 < self.length else None


def node_ranges(index: Index, world: World, mode: str, node: int) -> dict[str, tuple[int, int]]:
    """Per split, the samples that a node holds: those of its ranks with `partition`, else all."""
    if mode != "partition":
        return {split: (0, index.samples(split)) for split in index.splits}
    cut = (world.size, world.places[node], world.places[node + 1])
    return {split: share(index.samples(split), *cut) for split in index.splits}


@collector_resting()
def plan(index: Index, places: tuple[int, ...], mode: str, node: int) -> list[Step]:
    """The shards that `node` needs and the way each takes; the same order on every node.

    `places` is World.places. O(shards + nodes) time and memory, no communication.
    """
    nodes, number = len(places) - 1, 0
    steps: list[Step] = []
    for split in index.splits:
        shards = index.of(split)
        if mode == "replicate":
            steps += [Step(k, s, k % nodes, nodes, nodes) for k, s in enumerate(shards, number)]
        else:
            firsts = np.array([s.first for s in shards])
            lasts = firsts + [s.count - 1 for s in shards]
            bounds = index.samples(split) * np.array(places) // places[-1]
            heads, ends = (np.searchsorted(bounds, samples, "right") - 1 for samples in (firsts, lasts))
            for k in np.flatnonzero((heads <= node) & (node <= ends)).tolist():
                head, end = int(heads[k]), int(ends[k])
                steps.append(Step(number + k, shards[k], head, end - head + 1, nodes))
        number += len(shards)
    return steps


def check(index: Index, data: Path, world: World, mode: str, scratch: Path | None) -> None:
    """Find what would stop staging before any of it is done; collective.

    Every node looks at the sizes of the shards it will read from shared storage and at the space it has. Raises
    UserError on all ranks: a shard missing or truncated, no node-local directory, too little space in it.
    """

    def look() -> None:
        if mode == "none":
            _check_sizes(data, index.shards if world.is_root else [])
        elif world.is_leader:
            steps = plan(index, world.places, mode, world.node)
            _check_sizes(data, [s.shard for s in steps if s.head == world.node])
            root, _ = scratches.find(scratch)
            kept = _kept(root, index, world)
            needed = sum(s.shard.bytes for s in steps if not (kept / s.shard.file).exists())
            if (free := shutil.disk_usage(root).free) < needed + MARGIN_BYTES:
                raise UserError(
                    f"{root} on {world.host} has {free / 1e9:.2f} GB free; staging needs {needed / 1e9:.2f} GB there "
                    f"and {MARGIN_BYTES / 1e9:.2f} GB to spare: give another directory with --scratch, use more nodes"
                    f"{' or staging.mode=partition' if mode == 'replicate' else ''}"
                )

    world.together(look)


def stage(index: Index, data: Path, world: World, mode: str, scratch: Path | None, keep: bool) -> Staged:
    """Bring the shards this node needs to node-local storage; collective over all ranks, after `check`.

    The node's leader works, the other ranks wait. Raises on all ranks the first error of any node: UserError for a
    corrupted shard; RunFault for storage that fails.
    """
    ranges = node_ranges(index, world, mode, world.node)
    if mode == "none":
        return Staged(data, False, "none: read in place", ranges, world.place, world.size)
    start = time.perf_counter()
    report = StagingReport()
    described, kept, own, remove = "", Path(), Path(), None

    def begin() -> None:
        nonlocal described, kept, own, remove
        if world.is_leader:
            root, described = scratches.find(scratch)
            own = kept = _kept(root, index, world)
            scratches.enter(kept.parent)
            if keep:
                kept.mkdir(parents=True, exist_ok=True)
            else:
                remove = scratches.RunDirectory(kept.parent)
                own = remove.path

    def move() -> None:
        if world.is_leader:
            _run_steps(index, plan(index, world.places, mode, world.node), kept, data, own, world, report)

    try:
        world.together(begin)  # before anybody waits for blocks
        world.together(move)
    except Exception:
        if remove is not None:
            remove.remove()
        raise
    own, described = world.local.bcast((own, described))
    if world.is_leader:
        report.seconds = time.perf_counter() - start
    sharing = (world.local_rank, world.local_size) if mode == "partition" else (world.place, world.size)
    local = scratches.file_system(own) not in scratches.SHARED_FILE_SYSTEMS
    return Staged(own, local, described, ranges, *sharing, report, remove)


def _kept(root: Path, index: Index, world: World) -> Path:
    """Where a data set is kept on a node between runs."""
    return scratches.base(root, world.host) / f"{index.dataset}-{index.sha256[:12]}"


def _run_steps(
    index: Index, steps: list[Step], kept: Path, data: Path, own: Path, world: World, report: StagingReport
) -> None:
    """Copy a leader's shards: those that only this node needs in threads, those that travel along nodes meanwhile."""
    from mpi4py import MPI

    errors: list[Exception] = []
    reserve = scratches.file_system(own) != "tmpfs"
    with ThreadPoolExecutor(COPY_THREADS) as pool:
        intact = list(pool.map(lambda s: _reuse(kept, own, s.shard), steps))
        there = np.ones(len(index.shards), dtype=np.uint8)
        for step, whole in zip(steps, intact, strict=True):
            there[step.number] = whole
        if world.nodes > 1:
            world.leaders.Allreduce(MPI.IN_PLACE, there, MPI.MIN)
        missing = [s for s in steps if not there[s.number]]
        moving = [s for s in missing if s.length > 1]
        alone = [s for s in missing if s.length == 1]
        reading = [s.shard for s in missing if s.head == world.node]
        report.reused_bytes = sum(s.shard.bytes for s in steps if there[s.number])
        report.written_bytes = sum(s.shard.bytes for s in missing)
        report.shared_read_bytes = sum(s.bytes for s in reading)
        report.received_bytes = report.written_bytes - report.shared_read_bytes
        copies = [pool.submit(copy, s.shard, data / s.shard.file, own, reserve) for s in alone]
        heads = iter([data / s.shard.file for s in moving if s.head == world.node][1:])
        for step in moving:
            path, (before, after) = data / step.shard.file, step.neighbours(world.node)
            if before is None and (following := next(heads, None)) is not None:
                read_ahead(following)
            try:
                relay(step.shard, path, own, reserve, world.leaders, before, after, tag=step.number % 32768)
            except (UserError, OSError) as error:
                errors.append(error)
        errors += [e for e in (c.exception() for c in copies) if isinstance(e, Exception)]
    if errors:
        raise next((e for e in errors if isinstance(e, OSError)), errors[0])


def _reuse(kept: Path, own: Path, shard: Shard) -> bool:
    """Whether the shard is on this node already, intact by its checksum; if so it is made visible in `own`."""
    path = kept / shard.file
    try:
        if path.stat().st_size != shard.bytes or sha256_of(path) != shard.sha256:
            return False
        if own != kept:
            os.link(path, own / shard.file)
        return True
    except OSError:
        return False


def _check_sizes(data: Path, shards: Iterable[Shard]) -> None:
    for shard in shards:
        path = data / shard.file
        try:
            size = path.stat().st_size
        except OSError as error:
            raise UserError(f"shard {path} cannot be read: {error.strerror}; prepare the data set again") from None
        if size != shard.bytes:
            raise UserError(
                f"shard {path} has {size} bytes, the index says {shard.bytes}: it is truncated or not the same file; "
                "remove it and prepare the data set again"
            )
