"""From node-local shards to batches on the device, ahead of the step that uses them.

Because fields lie contiguously in a shard, a sample is found by arithmetic. Large samples are read with one `preadv`
per run of neighbours straight into the batch's (pinned) memory. Small ones are gathered from a memory map, with no
Python per sample, and for several batches at once: while a thread that reads runs Python, the step does not. A pool of
threads reads ahead, of the next epoch, too, before it begins; on a GPU what they read is copied on a stream of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import math
import mmap
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sciml_hpc.data.shards import Index
from sciml_hpc.metering.io import io_counters

if TYPE_CHECKING:
    import torch

CALL_BYTES = 32 << 10
"""On shared storage, fields of samples from here on are read by calls of their own."""
LOCAL_CALL_BYTES = 64 << 10
"""On node-local storage, where a page fault costs less."""
MADV_POPULATE_READ = 22
"""madvise(2), since Linux 5.14 (on x86, Arm and POWER)."""
GROUP_BYTES = 16 << 20
"""Batches are read together up to so many bytes. For each group, and in it whenever numpy takes Python's lock back, the
step waits for the thread that reads: longer than what is read takes. A loader holds `prefetch` + 1 such buffers."""
GROWTH = 4
"""The first group is one batch, each further one so many times as long: no run waits for 16 MiB of cold samples."""

_libc = ctypes.CDLL(None)

_Read = tuple[Future, list[int], dict]
"""What is being read: a group of batches, how many samples each of them has, and the buffer."""
_Call = tuple[int, memoryview, int, tuple | None]
"""A positional read: of which shard, to where, from which byte; and, if that is to be brought first, how (`_cold`)."""


class ShardReader:
    """Samples of one split by number, from shards in a directory.

    Opens the shards that overlap the samples `low` … `high − 1`: O(shards of the node) file descriptors. `local`:
    whether the directory is node-local storage.
    """

    def __init__(self, index: Index, split: str, directory: Path, low: int, high: int, local: bool) -> None:
        self.fields = index.fields
        self._split, self._local = split, local
        self._large = LOCAL_CALL_BYTES if local else CALL_BYTES
        self._shards = [s for s in index.of(split) if s.first < high and s.first + s.count > low]
        self._firsts = np.array([s.first for s in self._shards], dtype=np.int64)
        self._end = max((s.first + s.count for s in self._shards), default=0)
        self._files = [os.open(directory / s.file, os.O_RDONLY) for s in self._shards]
        self._maps: list[tuple[mmap.mmap, int] | None] = [None] * len(self._files)
        self._bytes = {f.name: np.dtype(f.dtype).itemsize * math.prod(f.shape) for f in index.fields}
        self._wary = True
        """Whether some of the samples read before were cold."""
        self._called = [f for f in index.fields if self._bytes[f.name] >= self._large]
        self._gathered = [f for f in index.fields if self._bytes[f.name] < self._large]

    def together(self, batch: int) -> int:
        """How many batches of so many samples are best read at once."""
        return max(1, GROUP_BYTES // (batch * sum(self._bytes.values())))

    @property
    def gathers(self) -> bool:
        """Whether all fields are gathered from memory maps: best of several batches in one call."""
        return not self._called

    def read(self, numbers: np.ndarray, out: dict[str, np.ndarray]) -> int:
        """Fill `out` (per field, shape (len(numbers), *shape)) with the samples `numbers` (int64, in any order; best in
        rising order, in which they are not copied once more).

        Returns the bytes asked for. Raises OSError if a shard is too short or cannot be read; IndexError for a sample
        of other shards.
        """
        order = None
        if (numbers[1:] < numbers[:-1]).any():
            order = np.argsort(numbers, kind="stable")
            numbers = numbers[order]
        for number in (numbers[0], numbers[-1]):
            if not len(self._firsts) or not self._firsts[0] <= number < self._end:
                raise IndexError(f"sample {number} of {self._split} is not here")
        scattered = self._local and numbers[-1] - numbers[0] >= len(numbers)  # neighbours the kernel reads ahead itself
        which = np.searchsorted(self._firsts, numbers, "right") - 1
        for field in self._called:
            target = out[field.name] if order is None else np.empty_like(out[field.name])
            self._carry_out(list(self._calls(field.name, numbers.tolist(), which.tolist(), target, scattered)))
            if order is not None:
                out[field.name][order] = target
        if self._gathered:
            self._gather(numbers, which, order, out)
        return len(numbers) * sum(self._bytes.values())

    def close(self) -> None:
        """Close the shards."""
        for file in self._files:
            os.close(file)
        self._files, self._maps = [], []  # a map goes with the last array on it

    def _gather(
        self, numbers: np.ndarray, which: np.ndarray, order: np.ndarray | None, out: dict[str, np.ndarray]
    ) -> None:
        """The small fields, from memory maps of the shards `which`; number i goes to `order[i]`."""
        cuts = np.flatnonzero(np.diff(which)) + 1
        for begin, end in zip([0, *cuts.tolist()], [*cuts.tolist(), len(numbers)], strict=True):
            k = int(which[begin])
            local = numbers[begin:end] - self._shards[k].first
            for field in self._gathered:
                target = out[field.name][begin:end]
                if order is not None:
                    target = np.empty_like(target)
                np.take(self._mapped(k, field.name, target), local, axis=0, out=target, mode="clip")
                if order is not None:
                    out[field.name][order[begin:end]] = target

    def _calls(
        self, name: str, numbers: list[int], which: list[int], target: np.ndarray, bring: bool
    ) -> Iterator[_Call]:
        """One positional read of a large field per run of neighbours; `bring`: of what is cold, after the kernel has
        brought it. To ask takes a twentieth of the time of reading: where the first run is warm, and all were of the
        samples before, the others are taken to be.
        """
        size, view = self._bytes[name], memoryview(target.reshape(-1)).cast("B")
        begin, found = 0, False
        for end in range(1, len(numbers) + 1):
            if end < len(numbers) and numbers[end] == numbers[end - 1] + 1 and which[end] == which[begin]:
                continue
            k = which[begin]
            position = self._shards[k].offsets[name] + (numbers[begin] - self._shards[k].first) * size
            part = view[begin * size : end * size]
            cold = self._cold(k, position, len(part)) if bring and (not begin or found or self._wary) else None
            found = found or cold is not None
            yield k, part, position, cold
            begin = end
        self._wary = found

    def _cold(self, k: int, position: int, length: int) -> tuple | None:
        """What has the kernel read a part of a shard that is not in memory (its first page tells), in pieces of 2 MiB
        through a memory map of large pages: for a plain read they are smaller, and each is waited for. What fails, or
        is not known to an older kernel, is left to the read that follows.
        """
        made, address = self._map(k)
        first, end = position // mmap.PAGESIZE * mmap.PAGESIZE, position + length
        start, there = ctypes.c_void_p(address + first), ctypes.c_ubyte(1)
        if end <= len(made):
            _libc.mincore(start, ctypes.c_size_t(1), ctypes.byref(there))
        return None if there.value & 1 else (start, ctypes.c_size_t(end - first), MADV_POPULATE_READ)

    def _carry_out(self, calls: list[_Call]) -> None:
        """Read. Between copies, which empty the processor's caches, Python takes ten times as long as elsewhere: so all
        that can be is done before.
        """
        preadv, files = os.preadv, self._files
        for k, part, position, cold in calls:
            if cold is not None:
                _libc.madvise(*cold)  # not by `mmap.madvise`, which keeps Python's lock while it reads
            count = preadv(files[k], [part], position)
            while count < len(part):
                if (more := preadv(files[k], [part[count:]], position + count)) == 0:
                    raise OSError(f"shard {self._shards[k].file} ends before its last sample")
                count += more

    def _map(self, k: int) -> tuple[mmap.mmap, int]:
        """A memory map of a shard, and its address."""
        found = self._maps[k]
        if found is None:
            made = mmap.mmap(self._files[k], 0, prot=mmap.PROT_READ)
            if not self.gathers:
                with contextlib.suppress(OSError):  # a kernel without large pages
                    made.madvise(mmap.MADV_HUGEPAGE)
            found = self._maps[k] = (made, np.frombuffer(made, np.uint8).ctypes.data)
        return found

    def _mapped(self, k: int, name: str, like: np.ndarray) -> np.ndarray:
        """The whole field of a shard, as a memory map."""
        made, _ = self._map(k)
        shape, offset = (self._shards[k].count, *like.shape[1:]), self._shards[k].offsets[name]
        if offset + shape[0] * self._bytes[name] > len(made):
            raise OSError(f"shard {self._shards[k].file} ends before its last sample")
        return np.frombuffer(made, like.dtype, math.prod(shape), offset).reshape(shape)


class Loader:
    """Batches of one split, read ahead by threads and put on the device.

    A batch is valid until the next one is taken: its memory is used again. What is read ahead is a batch or, of small
    samples, a group of them.
    """

    def __init__(self, reader: ShardReader, batch: int, device: torch.device, prefetch: int, threads: int) -> None:
        import torch

        self.read_bytes = 0
        """Bytes asked for so far."""
        self._reader, self._device = reader, device
        self._threads: list[int] = []
        self._pool = ThreadPoolExecutor(
            threads, "loader", initializer=lambda: self._threads.append(threading.get_native_id())
        )
        self._prefetch, self._group, self._most = prefetch, 1, reader.together(batch)
        pinned = device.type == "cuda"
        self._buffers = [
            {
                f.name: torch.empty((self._most * batch, *f.shape), dtype=getattr(torch, f.dtype), pin_memory=pinned)
                for f in reader.fields
            }
            for _ in range(prefetch + 1)  # those being read, and the one in use
        ]
        self._ahead: deque[_Read] = deque()
        self._stream = torch.cuda.Stream(device) if pinned else None

    def batches(self, numbers: Iterable[np.ndarray]) -> Iterator[dict[str, torch.Tensor]]:
        """For each array of sample numbers (rising, at most `batch` of them) a batch, in order.

        Reading begins with the call, not with the first batch taken. It ends what was read for an earlier call.
        """
        _drop(self._ahead)
        self._ahead = ahead = deque()
        free, wanted = deque(self._buffers), iter(numbers)
        self._read_on(wanted, ahead, free)
        return self._deliver(wanted, ahead, free)

    def device_read_bytes(self) -> int | None:
        """What block devices delivered to the threads that read, so far; None where the kernel does not count."""
        counters = [io_counters(Path(f"/proc/self/task/{thread}/io")) for thread in self._threads]
        return sum(c.read_bytes for c in counters if c) if all(counters) else None

    def close(self) -> None:
        """End the threads and close the shards."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._reader.close()

    def _read_on(self, wanted: Iterator[np.ndarray], ahead: deque[_Read], free: deque) -> None:
        while len(ahead) < self._prefetch and (group := list(itertools.islice(wanted, self._group))):
            self._group = min(GROWTH * self._group, self._most)
            buffer = free.popleft()
            lengths = [len(numbers) for numbers in group]
            part = {name: tensor[: sum(lengths)] for name, tensor in buffer.items()}
            ahead.append((self._pool.submit(self._fill, group, part), lengths, buffer))

    def _deliver(
        self, wanted: Iterator[np.ndarray], ahead: deque[_Read], free: deque
    ) -> Iterator[dict[str, torch.Tensor]]:
        used = None
        try:
            while ahead:
                future, lengths, buffer = ahead.popleft()
                part, count = future.result()
                self.read_bytes += count
                if used is not None:
                    self._release(used, free)
                used = (buffer, None)
                if self._stream is not None:
                    part, event = self._to_device(part)
                    used = (buffer, event)
                for arrays in zip(*(tensor.split(lengths) for tensor in part.values()), strict=True):
                    yield dict(zip(part, arrays, strict=True))
                self._read_on(wanted, ahead, free)
        finally:
            _drop(ahead)

    def _fill(self, group: list[np.ndarray], part: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], int]:
        arrays = {name: tensor.numpy() for name, tensor in part.items()}
        if self._reader.gathers:
            return part, self._reader.read(np.concatenate(group), arrays)
        count = end = 0
        for numbers in group:
            begin, end = end, end + len(numbers)
            count += self._reader.read(numbers, {name: array[begin:end] for name, array in arrays.items()})
        return part, count

    def _to_device(self, part: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], torch.cuda.Event]:
        """Copy on the loader's stream; the step's stream waits for it, the host does not."""
        import torch

        with torch.cuda.stream(self._stream):
            copied = {name: tensor.to(self._device, non_blocking=True) for name, tensor in part.items()}
            event = self._stream.record_event()
        current = torch.cuda.current_stream(self._device)
        current.wait_event(event)
        for tensor in copied.values():
            tensor.record_stream(current)
        return copied, event

    @staticmethod
    def _release(used: tuple[dict, torch.cuda.Event | None], free: deque) -> None:
        buffer, event = used
        if event is not None:
            event.synchronize()
        free.append(buffer)


def _drop(ahead: deque[_Read]) -> None:
    """Read no further; wait for what is being read, for its memory is used again."""
    for future, *_ in ahead:
        future.cancel()
    for future, *_ in ahead:
        if not future.cancelled():
            future.exception()
    ahead.clear()
