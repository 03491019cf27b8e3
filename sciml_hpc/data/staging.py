"""Staging: each shard is read once from shared storage over the whole job, verified, and put on node-local storage.

Every shard goes along a chain of the nodes that need it. The first reads it and sends it on, block by block, while the
others write and send on in turn; everyone verifies the checksum of what it wrote. With `replicate` the chain is all
nodes, starting at another one for each shard; with `partition` it is the nodes whose ranks' samples lie in the shard,
mostly a single one. So bytes read from shared storage are those of the data set whatever the number of nodes.

A node opens only the shards it reads. The plan is arithmetic, O(shards + nodes) on each node without any message; what is
already there is agreed on with one reduction of a byte per shard.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from sciml_hpc.data.sampler import share
from sciml_hpc.data.shards import BLOCK_BYTES, Index, Shard, blocks, sha256_of
from sciml_hpc.errors import UserError
from sciml_hpc.parallel.world import World

SCRATCH_VARIABLES = ("SLURM_TMPDIR", "PBS_JOBFS", "JOBFS", "LOCALSCRATCH", "LOCAL_SCRATCH", "TMPDIR")
SHARED_FILE_SYSTEMS = {
    "lustre",
    "gpfs",
    "nfs",
    "nfs4",
    "beegfs",
    "ceph",
    "fuse.ceph",
    "cifs",
    "smb3",
    "panfs",
    "orangefs",
    "daos",
}
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
    scratch: str
    """Node-local directory, where it came from and its file system; or why there is none."""
    ranges: Mapping[str, tuple[int, int]]
    """Per split, the samples (first, one past the last) that this node holds."""
    position: int
    """Place of this rank among those that share `ranges`, for training."""
    sharers: int
    report: StagingReport = field(default_factory=StagingReport)
    _remove: Path | None = None

    def remove(self) -> None:
        """Remove what was staged for this run alone (by the node's leader, at the end)."""
        if self._remove is not None:
            shutil.rmtree(self._remove, ignore_errors=True)
            with contextlib.suppress(OSError):
                self._remove.parent.rmdir()


@dataclass(frozen=True)
class Step:
    """One shard's way: the nodes that need it, in the order in which it travels."""

    number: int
    shard: Shard
    chain: tuple[int, ...] | range


def node_ranges(index: Index, world: World, mode: str, node: int) -> dict[str, tuple[int, int]]:
    """Per split, the samples that a node holds: those of its ranks with `partition`, else all."""
    if mode != "partition":
        return {split: (0, index.samples(split)) for split in index.splits}
    cut = (world.size, world.places[node], world.places[node + 1])
    return {split: share(index.samples(split), *cut) for split in index.splits}


def plan(index: Index, places: tuple[int, ...], mode: str, node: int) -> list[Step]:
    """The shards that `node` needs and the chain each takes; the same order on every node.

    `places` is World.places. O(shards + nodes) time and memory, no communication.
    """
    nodes = len(places) - 1
    steps = []
    for split in index.splits:
        bounds = np.array([index.samples(split) * p // places[-1] for p in places])
        for shard in index.of(split):
            if mode == "replicate":
                head = len(steps) % nodes
                chain: tuple[int, ...] | range = (*range(head, nodes), *range(head))
            else:
                first = int(np.searchsorted(bounds, shard.first, "right")) - 1
                last = int(np.searchsorted(bounds, shard.first + shard.count - 1, "right")) - 1
                chain = range(first, last + 1)
            steps.append(Step(len(steps), shard, chain))
    return [s for s in steps if node in s.chain]


def find_scratch(asked: Path | None, environment: Mapping[str, str] = os.environ) -> tuple[Path, str]:
    """Node-local storage and how it was found: `--scratch`, else the first usable variable, else /tmp.

    A directory on a shared file system is passed over unless it was asked for. Raises UserError if what was asked for
    cannot be used.
    """
    candidates = [(asked, "--scratch")] if asked else []
    if not asked:
        candidates = [(Path(environment[v]), f"${v}") for v in SCRATCH_VARIABLES if environment.get(v)]
        candidates.append((Path("/tmp"), "default"))
    for path, how in candidates:
        kind = file_system(path)
        if path.is_dir() and os.access(path, os.W_OK | os.X_OK) and (asked or kind not in SHARED_FILE_SYSTEMS):
            return (
                path,
                f"{path} ({how}, {kind}{', a shared file system' if kind in SHARED_FILE_SYSTEMS else ''})",
            )
    tried = ", ".join(f"{path} ({how})" for path, how in candidates)
    raise UserError(f"no writable node-local directory: tried {tried}; give one with --scratch DIR")


def file_system(path: Path) -> str:
    """Type of the file system that holds `path` ("ext4", "tmpfs", "lustre", …); "unknown" if it cannot be told."""
    best, kind = "", "unknown"
    real = str(path.resolve())
    for part in psutil.disk_partitions(all=True):
        mount = part.mountpoint
        if (real == mount or real.startswith(mount.rstrip("/") + "/")) and len(mount) >= len(best):
            best, kind = mount, part.fstype
    return kind


def check(index: Index, data: Path, world: World, mode: str, scratch: Path | None) -> None:
    """Find what would stop staging before any of it is done; collective.

    Every node looks at the sizes of the shards it will read from shared storage and at the space it has. Raises
    UserError on all ranks: a shard missing or truncated, no node-local directory, too little space in it.
    """

    def look() -> None:
        if mode == "none":
            _check_sizes(data, index.shards if world.is_root else ())
        elif world.is_leader:
            steps = plan(index, world.places, mode, world.node)
            _check_sizes(data, [s.shard for s in steps if s.chain[0] == world.node])
            root, _ = find_scratch(scratch)
            kept = _kept(root, index, world)
            needed = sum(s.shard.bytes for s in steps if not (kept / s.shard.file).exists())
            if (free := shutil.disk_usage(root).free) < needed + MARGIN_BYTES:
                raise UserError(
                    f"{root} on {world.host} has {free / 1e9:.2f} GB free; staging needs {needed / 1e9:.2f} GB there and "
                    f"{MARGIN_BYTES / 1e9:.2f} GB to spare: give another directory with --scratch, use more nodes"
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
        return Staged(data, "none: read in place", ranges, world.place, world.size)
    report = StagingReport()
    start = time.perf_counter()
    own, facts = None, None

    def work() -> None:
        nonlocal own, facts
        if not world.is_leader:
            return
        root, described = find_scratch(scratch)
        kept = _kept(root, index, world)
        _remove_stale(kept.parent)
        own = kept if keep else kept.parent / f"run-{os.getpid()}"
        own.mkdir(parents=True, exist_ok=True)
        facts = (str(own), described)
        _run_steps(index, plan(index, world.places, mode, world.node), kept, data, own, world, report)

    try:
        world.together(work)
    except Exception:
        if own is not None and not keep:
            shutil.rmtree(own, ignore_errors=True)
        raise
    directory, described = world.local.bcast(facts)
    if world.is_leader:
        report.seconds = time.perf_counter() - start
    remove = own if not keep else None
    sharing = (world.local_rank, world.local_size) if mode == "partition" else (world.place, world.size)
    return Staged(Path(directory), described, ranges, *sharing, report, remove)


def _kept(root: Path, index: Index, world: World) -> Path:
    """Where a data set is kept on a node between runs."""
    return root / f"sciml_hpc-{os.getuid()}-{world.host}" / f"{index.dataset}-{index.sha256[:12]}"


def _run_steps(
    index: Index, steps: list[Step], kept: Path, data: Path, own: Path, world: World, report: StagingReport
) -> None:
    """Copy a leader's shards: those that only this node needs in threads, those that travel along chains meanwhile."""
    from mpi4py import MPI

    intact = [_reuse(kept, own, s.shard) for s in steps]
    there = np.ones(len(index.shards), dtype=np.uint8)
    for step, whole in zip(steps, intact, strict=True):
        there[step.number] = whole
    if world.nodes > 1:
        world.leaders.Allreduce(MPI.IN_PLACE, there, MPI.MIN)
    errors: list[Exception] = []
    with ThreadPoolExecutor(COPY_THREADS) as pool:
        copies = []
        for step, whole in zip(steps, intact, strict=True):
            if whole and (len(step.chain) == 1 or there[step.number]):
                report.reused_bytes += step.shard.bytes
            elif len(step.chain) == 1:
                copies.append(pool.submit(_copy, data / step.shard.file, own, step.shard))
                report.shared_read_bytes += step.shard.bytes
                report.written_bytes += step.shard.bytes
        moving = [s for s in steps if len(s.chain) > 1 and not there[s.number]]
        heads = [s for s in moving if s.chain[0] == world.node]
        for step in moving:
            if step in heads and (later := heads.index(step) + 1) < len(heads):
                _read_ahead(data / heads[later].shard.file)
            try:
                _relay(step, data, own, world)
            except (UserError, OSError) as error:
                errors.append(error)
            origin = "shared_read_bytes" if step.chain[0] == world.node else "received_bytes"
            setattr(report, origin, getattr(report, origin) + step.shard.bytes)
            report.written_bytes += step.shard.bytes
        for copy in copies:
            try:
                copy.result()
            except (UserError, OSError) as error:
                errors.append(error)
    if errors:
        raise errors[0]


def _copy(source: Path, own: Path, shard: Shard) -> None:
    """Copy one shard, verifying its checksum on the way; it appears under its name only when whole."""
    with _arriving(own, shard) as (file, digest):
        for block in blocks(source):
            digest.update(block)
            file.write(block)


def _relay(step: Step, data: Path, own: Path, world: World) -> None:
    """This node's part in a shard's way along its chain: take each block, send it on, write it.

    Whatever fails here (a bad read, no space), the blocks go on down the chain, so that nobody waits; the error comes
    afterwards, and the checksum tells the others.
    """
    here = step.chain.index(world.node)
    before = step.chain[here - 1] if here else None
    after = step.chain[here + 1] if here + 1 < len(step.chain) else None
    buffers = [bytearray(BLOCK_BYTES), bytearray(BLOCK_BYTES)]
    sends: list = [None, None]
    tag = step.number % 32768
    failure: Exception | None = None
    source = (data / step.shard.file).open("rb", buffering=0) if before is None else None
    try:
        with _arriving(own, step.shard) as (file, digest):
            for number, offset in enumerate(range(0, step.shard.bytes, BLOCK_BYTES)):
                slot = number % 2
                if sends[slot] is not None:
                    sends[slot].Wait()
                block = memoryview(buffers[slot])[: min(BLOCK_BYTES, step.shard.bytes - offset)]
                if source is None:
                    world.leaders.Recv(block, source=before, tag=tag)
                else:
                    try:
                        source.readinto(block)
                    except OSError as error:
                        failure = failure or error
                if after is not None:
                    sends[slot] = world.leaders.Isend(block, dest=after, tag=tag)
                digest.update(block)
                try:
                    file.write(block)
                except OSError as error:
                    failure = failure or error
            for send in sends:
                if send is not None:
                    send.Wait()
            if failure is not None:
                raise failure
    finally:
        if source is not None:
            source.close()


@contextlib.contextmanager
def _arriving(own: Path, shard: Shard) -> Iterator[tuple]:
    """A file and a digest to fill; on success the checksum is compared and the file takes its name."""
    temporary = own / f".{shard.file}.{os.getpid()}"
    digest = hashlib.sha256()
    try:
        with temporary.open("wb", buffering=0) as file:
            yield file, digest
        if digest.hexdigest() != shard.sha256:
            raise UserError(
                f"shard {shard.file}: SHA-256 is {digest.hexdigest()}, the index says {shard.sha256}: the file is corrupt; "
                "`python -m sciml_hpc verify` names every such shard; remove them and prepare the data set again"
            )
        temporary.rename(own / shard.file)
    finally:
        temporary.unlink(missing_ok=True)


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


def _check_sizes(data: Path, shards: Iterator[Shard] | list[Shard] | tuple[Shard, ...]) -> None:
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


def _remove_stale(base: Path) -> None:
    """Remove what killed runs of this user left on this node."""
    for left in base.glob("run-*"):
        pid = left.name.removeprefix("run-")
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(left, ignore_errors=True)


def _read_ahead(path: Path) -> None:
    """Ask the kernel to begin reading a file that will be needed next."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
