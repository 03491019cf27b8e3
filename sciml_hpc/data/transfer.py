"""Moving one shard to this node, from shared storage or from another node, with its checksum verified on the way."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from sciml_hpc.data.shards import BLOCK_BYTES, Shard, blocks
from sciml_hpc.errors import UserError


class _Arrival:
    """A shard that is written and hashed as it comes, and takes its name only when it is whole and right.

    Raises at the end of the `with` block: OSError naming the file that failed; UserError for a wrong checksum. An error
    of storage is kept until then, so that others get their blocks meanwhile.
    """

    def __init__(self, shard: Shard, source: Path, own: Path, reserve: bool) -> None:
        self.failure: OSError | None = None
        self._shard, self._source, self._own, self._reserve = shard, source, own, reserve
        self._temporary = own / f".{shard.file}.{os.getpid()}"
        self._digest = hashlib.sha256()
        self._file: io.RawIOBase | None = None

    def __enter__(self) -> _Arrival:
        with self.storage(self._temporary):
            self._file = self._temporary.open("wb", buffering=0)
            if self._reserve:
                os.posix_fallocate(self._file.fileno(), 0, self._shard.bytes)
        return self

    @contextlib.contextmanager
    def storage(self, path: Path) -> Iterator[None]:
        """What touches storage at `path`; the first error is kept."""
        try:
            yield
        except OSError as error:
            self.failure = self.failure or OSError(error.errno, error.strerror or str(error), str(path))

    def take(self, block: memoryview) -> None:
        """The next block."""
        self._digest.update(block)
        if self._file is not None and self.failure is None:
            with self.storage(self._temporary):
                while len(block):
                    block = block[self._file.write(block) :]

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: TracebackType | None) -> None:
        try:
            if self._file is not None:
                with self.storage(self._temporary):
                    self._file.close()
            if kind is not None:
                return
            if self.failure is not None:
                raise self.failure
            if self._digest.hexdigest() != self._shard.sha256:
                raise UserError(
                    f"shard {self._source}: SHA-256 is {self._digest.hexdigest()}, the index says "
                    f"{self._shard.sha256}: the file is corrupt; `python -m sciml_hpc verify` names every such shard, "
                    "`prepare` makes them again"
                )
            self._temporary.rename(self._own / self._shard.file)
        finally:
            self._temporary.unlink(missing_ok=True)


def copy(shard: Shard, source: Path, own: Path, reserve: bool) -> None:
    """Copy a shard that only this node needs from shared storage to the directory `own`.

    `reserve`: its room there first. A disk is then written half as fast again; memory would be zeroed.

    Raises OSError naming the file; UserError if its checksum is wrong: then nothing is left in `own`.
    """
    with _Arrival(shard, source, own, reserve) as arrival, arrival.storage(source):
        for block in blocks(source):
            arrival.take(block)
            if arrival.failure is not None:
                return


def relay(
    shard: Shard, source: Path, own: Path, reserve: bool, leaders: Any, before: int | None, after: int | None, tag: int
) -> None:
    """This node's part in a shard's way along several: take each block, send it on, write it.

    The blocks come from node `before` (None: this node reads them from shared storage) and go on to node `after` (None:
    this is the last). Whatever fails here, the blocks go on, so that nobody waits; the error comes afterwards, and the
    checksum tells the others. Raises like `copy`.
    """
    buffers = [bytearray(BLOCK_BYTES), bytearray(BLOCK_BYTES)]
    sends: list[Any] = [None, None]
    with _Arrival(shard, source, own, reserve) as arrival, contextlib.ExitStack() as opened:
        file = None
        if before is None:
            with arrival.storage(source):
                file = opened.enter_context(source.open("rb", buffering=0))
        for number, offset in enumerate(range(0, shard.bytes, BLOCK_BYTES)):
            slot = number % 2
            if sends[slot] is not None:
                sends[slot].Wait()
            block = memoryview(buffers[slot])[: min(BLOCK_BYTES, shard.bytes - offset)]
            if before is not None:
                leaders.Recv(block, source=before, tag=tag)
            elif file is not None and arrival.failure is None:
                with arrival.storage(source):
                    _fill(file, block)
            if after is not None:
                sends[slot] = leaders.Isend(block, dest=after, tag=tag)
            arrival.take(block)
        for send in sends:
            if send is not None:
                send.Wait()


def _fill(file: io.RawIOBase, block: memoryview) -> None:
    while len(block):
        count = file.readinto(block)
        if not count:
            raise OSError(errno.EIO, "ends before its size in the index")
        block = block[count:]


def read_ahead(path: Path) -> None:
    """Ask the kernel to begin reading a file that will be needed next."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
