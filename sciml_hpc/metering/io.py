"""Bytes read: what was asked for, what came from the device, what the page cache held, and the raw speed of the files.

All of it per node and with the node's own files: nothing here grows with the number of nodes.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np

from sciml_hpc.metering.hardware import mount_of

COLD_FRACTION, WARM_FRACTION = 0.01, 0.99
"""Resident shares up to which a set of files counts as cold, and from which on as warm."""
IN_MEMORY = {"tmpfs", "ramfs", "hugetlbfs"}


@dataclass(frozen=True)
class IoCounters:
    """A process's reads and writes since it started, all threads, or one thread's.

    Linux Documentation/filesystems/proc, "io".
    """

    rchar_bytes: int
    """Returned by read calls, from wherever; memory-mapped reads are not in it."""
    wchar_bytes: int
    read_bytes: int
    """Fetched from block devices on its behalf, memory-mapped reads included.

    Network file systems count here only if their client does (NFS stopped in Linux 5.17): `RawRead.counted` finds out.
    """
    write_bytes: int

    def __sub__(self, earlier: IoCounters) -> IoCounters:
        return IoCounters(
            self.rchar_bytes - earlier.rchar_bytes,
            self.wchar_bytes - earlier.wchar_bytes,
            self.read_bytes - earlier.read_bytes,
            self.write_bytes - earlier.write_bytes,
        )


def io_counters(path: Path = Path("/proc/self/io")) -> IoCounters | None:
    """This process's counters now (about 20 µs), or those of a thread, at `/proc/self/task/…/io`.

    None where the kernel has no I/O accounting.
    """
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    value = {name: int(number) for name, number in (line.split(":") for line in lines)}
    return IoCounters(value["rchar"], value["wchar"], value["read_bytes"], value["write_bytes"])


def cache_hit_fraction(app_read_bytes: int, device_read_bytes: int | None) -> float | None:
    """1 − device ÷ application bytes; below 0 where read-ahead fetched more than was asked for. None if unknown."""
    if device_read_bytes is None or app_read_bytes <= 0:
        return None
    return 1 - device_read_bytes / app_read_bytes


@dataclass(frozen=True)
class CacheState:
    """How much of a set of files the page cache of this node holds, and how that came about."""

    state: Literal["cold", "warm", "unknown"]
    how: str
    files: int
    bytes: int
    resident_before: float | None
    """Share of the pages in memory before anything was done; None where this user is not told."""
    resident_after: float | None


def resident_fraction(paths: Iterable[Path]) -> float | None:
    """Share of the files' pages in the page cache of this node, weighted by size; None where this user is not told.

    By mincore(2) on a mapping that reads nothing. Since Linux 5.2 the kernel answers truthfully only to the owner of
    a file, to who may write it, and to root. Costs one byte and about 10 ns per page of 4 KiB.
    """
    pages = resident = 0
    for path in paths:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            if status.st_size == 0:
                continue
            if os.geteuid() not in (0, status.st_uid) and not os.access(path, os.W_OK):
                return None
            with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
                flags = np.zeros(-(-status.st_size // mmap.PAGESIZE), np.uint8)
                view = np.frombuffer(mapped, np.uint8)
                answer = _libc().mincore(
                    ctypes.c_void_p(view.ctypes.data), ctypes.c_size_t(len(mapped)), ctypes.c_void_p(flags.ctypes.data)
                )
                del view
        if answer != 0:
            return None
        pages += len(flags)
        resident += int((flags & 1).sum())
    return resident / pages if pages else None


def cache_state(paths: Iterable[Path], how: str = "found as it was") -> CacheState:
    """The state of the cache as it is."""
    files = list(paths)
    fraction = resident_fraction(files)
    return _state(files, how, fraction, fraction)


def drop_cache(paths: Iterable[Path], whole_system: bool = False) -> CacheState:
    """Take the files out of this node's page cache, and look whether it worked.

    As any user: the file's dirty pages are written (fdatasync), then posix_fadvise(DONTNEED) drops the clean ones,
    which leaves pages that another process has mapped. `whole_system` writes 3 to /proc/sys/vm/drop_caches instead
    (root only; PermissionError otherwise), which takes every file of the node out. Files in memory (tmpfs) cannot be
    cold. Caches of the storage device or of a file server are out of reach of both and not meant by `cold`.
    """
    files = list(paths)
    before = resident_fraction(files)
    if whole_system:
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("3")
        how = "sync, /proc/sys/vm/drop_caches = 3"
    else:
        for path in files:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fdatasync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)
        how = "fdatasync, posix_fadvise(DONTNEED)"
    return _state(files, how, before, resident_fraction(files))


def _state(files: list[Path], how: str, before: float | None, after: float | None) -> CacheState:
    size = sum(os.stat(path).st_size for path in files)
    state: Literal["cold", "warm", "unknown"] = "unknown"
    memory = sorted({mount_of(folder).type for folder in {path.parent for path in files}} & IN_MEMORY)
    if memory:
        state, how = "warm", f"{how}; {', '.join(memory)} is memory"
    elif after is None:
        how += "; not verified: mincore answers only to a file's owner or writer"
    elif after <= COLD_FRACTION:
        state = "cold"
    elif after >= WARM_FRACTION:
        state = "warm"
    return CacheState(state, how, len(files), size, before, after)


@dataclass(frozen=True)
class RawRead:
    """A plain sequential read of the same files: the yardstick for a loader."""

    bytes: int
    wall_s: float
    bytes_per_s: float
    device_read_bytes: int | None
    resident_before: float | None
    block_bytes: int
    threads: int

    @property
    def counted(self) -> bool | None:
        """Whether this file system's reads show up in `read_bytes`; None if the read was not cold enough to tell."""
        if self.device_read_bytes is None:
            return False
        if self.resident_before is None or self.resident_before > COLD_FRACTION or self.bytes == 0:
            return True if self.device_read_bytes else None
        return self.device_read_bytes >= self.bytes / 2


def raw_read(paths: Iterable[Path], block_bytes: int = 4 << 20, threads: int = 4) -> RawRead:
    """Read all files from end to end in blocks, on `threads` threads, and say how fast it went.

    Every file is cut into as many contiguous ranges as it takes to keep all threads busy. Afterwards the files are in
    the page cache as far as they fit. A file that shrinks meanwhile raises OSError.
    """
    files = list(paths)
    resident = resident_fraction(files)
    ranges = []
    for path in files:
        size = os.stat(path).st_size
        parts = max(1, min(-(-threads // len(files)), size // block_bytes))
        cuts = [size * i // parts // block_bytes * block_bytes for i in range(parts)] + [size]
        ranges += [(path, low, high) for low, high in pairwise(cuts)]

    def read(path: Path, low: int, high: int) -> int:
        buffer = memoryview(bytearray(min(block_bytes, high - low)))
        with open(path, "rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), low, high - low, os.POSIX_FADV_SEQUENTIAL)
            while low < high:
                count = os.preadv(file.fileno(), [buffer[: high - low]], low)
                if count == 0:
                    raise OSError(f"{path} ended at byte {low} of {high}")
                low += count
        return high

    before = io_counters()
    began = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(read, *part) for part in ranges]:
            done.result()
    wall = time.perf_counter() - began
    after = io_counters()
    total = sum(high - low for _, low, high in ranges)
    device = after.read_bytes - before.read_bytes if before and after else None
    return RawRead(total, wall, total / wall, device, resident, block_bytes, threads)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
