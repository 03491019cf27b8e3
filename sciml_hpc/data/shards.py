"""Shards: the form in which samples are kept, staged and read.

A shard is an HDF5 file that holds consecutive samples of one split: one contiguous (unchunked, uncompressed) data set
per field, first axis the sample, aligned to 4 KiB. Any HDF5 tool opens one; and because each field is contiguous, its
sample i lies at `offset + i · bytes per sample`, so the training path reads it without the HDF5 library. The index
beside the shards (`index.json`) holds those offsets and the SHA-256 of every shard.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import hashlib
import json
import math
import operator
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sciml_hpc.benchmarks.base import SampleField
from sciml_hpc.errors import UserError

if TYPE_CHECKING:
    import h5py

FORMAT = "sciml_hpc.shards/1"
INDEX_FORMAT = "sciml_hpc.index/2"
ALIGNMENT_BYTES = 4096
BLOCK_BYTES = 1 << 20
"""Unit of hashing and copying: large enough for any storage, small enough that every thread's stays in its cache."""


@contextlib.contextmanager
def collector_resting() -> Iterator[None]:
    """Python does not look for cycles meanwhile: among a hundred thousand new objects that have none, half the time."""
    collected = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collected:
            gc.enable()


class Shard(NamedTuple):  # not a dataclass: a large data set has a hundred thousand
    """One shard: samples `first` … `first + count - 1` of `split`."""

    file: str
    split: str
    first: int
    count: int
    bytes: int = 0
    sha256: str = ""
    offsets: Mapping[str, int] | None = None
    """Per field, where its data begins in the file."""


@dataclass(frozen=True)
class Index:
    """The index of a data set's shards."""

    dataset: str
    benchmark: str
    fingerprint: str
    """Of the manifest entry the shards were made from (`Dataset.fingerprint`)."""
    made_from: Mapping[str, Any]
    """Origin, parameters, seed: what the fingerprint hashes, to read."""
    fields: tuple[SampleField, ...]
    shards: tuple[Shard, ...]

    @functools.cached_property
    def sha256(self) -> str:
        """Hash of `index.json` as it is read or written: with the checksums in it, it stands for every byte of the data
        set.
        """
        return hashlib.sha256(self._json()).hexdigest()

    @property
    def bytes(self) -> int:
        """Size of all shards."""
        return sum(s.bytes for s in self.shards)

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits, in order."""
        return tuple(self._by_split)

    def of(self, split: str) -> tuple[Shard, ...]:
        """The shards of a split, in order of their samples."""
        return self._by_split.get(split, ())

    def samples(self, split: str) -> int:
        """Samples of a split."""
        return sum(s.count for s in self.of(split))

    @functools.cached_property
    def _by_split(self) -> dict[str, tuple[Shard, ...]]:
        """The shards of each split, in order of their samples."""
        groups: dict[str, list[Shard]] = {}
        for shard in self.shards:
            groups.setdefault(shard.split, []).append(shard)
        return {split: tuple(sorted(group, key=operator.attrgetter("first"))) for split, group in groups.items()}

    def _check(self) -> None:
        """Raise ValueError for file names that are no plain names, and for samples that no shard holds."""
        for split in self.splits:
            end = 0
            for shard in self.of(split):
                if shard.file.startswith(".") or "/" in shard.file:
                    raise ValueError(f"{shard.file!r} is no plain file name")
                if shard.first != end:
                    raise ValueError(f"{shard.file} begins with sample {shard.first}, the one before ends at {end}")
                end += shard.count

    def _json(self) -> bytes:
        """The content of `index.json`. Shards are columns there, which are read in a third of the time of rows."""
        content = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        *columns, offsets = zip(*self.shards, strict=True)
        content |= {
            "format": INDEX_FORMAT,
            "fields": [asdict(f) for f in self.fields],
            "shards": dict(zip(Shard._fields, columns, strict=False))
            | {"offsets": {f.name: [o[f.name] for o in offsets] for f in self.fields}},
        }
        return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()

    def write(self, directory: Path) -> None:
        """Write `index.json` atomically."""
        write_atomically(directory / "index.json", self._json())

    @classmethod
    @collector_resting()
    def load(cls, directory: Path) -> Index:
        """Read `index.json`. Raises UserError naming the file if it is missing, malformed or of another format."""
        path = directory / "index.json"
        try:
            written = path.read_bytes()
            content = json.loads(written)
            if (found := content.pop("format")) != INDEX_FORMAT:
                raise UserError(
                    f"{path}: its format is {found!r}; this version reads {INDEX_FORMAT!r}: remove that file and "
                    "prepare the data set again (shards that are intact are kept)"
                )
            content["fields"] = tuple(SampleField(**{**f, "shape": tuple(f["shape"])}) for f in content["fields"])
            content["shards"] = _from_columns(content["shards"])
            index = cls(**content)
            index._check()
            vars(index)["sha256"] = hashlib.sha256(written).hexdigest()
            return index
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error}") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: not an index of shards: {error}") from None


def _from_columns(columns: Mapping[str, Any]) -> tuple[Shard, ...]:
    """The shards of an index; those with the same offsets, mostly all, share one mapping."""
    names, layouts = tuple(columns["offsets"]), {}
    offsets = (
        layouts.setdefault(row, dict(zip(names, row, strict=True)))
        for row in zip(*columns["offsets"].values(), strict=True)
    )
    rows = zip(*(columns[name] for name in Shard._fields[:-1]), offsets, strict=True)
    return tuple(map(Shard._make, rows))


def sample_bytes(fields: tuple[SampleField, ...]) -> int:
    """Bytes of one sample over all fields."""
    return sum(np.dtype(f.dtype).itemsize * math.prod(f.shape) for f in fields)


def plan(samples: Mapping[str, int], fields: tuple[SampleField, ...], shard_bytes: int) -> list[Shard]:
    """Shards of nearly equal size, none over `shard_bytes` (but for a single sample that is larger itself)."""
    per_shard = max(1, shard_bytes // sample_bytes(fields))
    shards = []
    for split, total in samples.items():
        parts = math.ceil(total / per_shard)
        cuts = [total * k // parts for k in range(parts + 1)]
        shards += [Shard(f"{split}-{k:06d}.h5", split, cuts[k], cuts[k + 1] - cuts[k]) for k in range(parts)]
    return shards


def write_shard(
    path: Path,
    shard: Shard,
    fields: tuple[SampleField, ...],
    read: Callable[[str, int, int], Mapping[str, np.ndarray]],
    attributes: Mapping[str, str | int],
) -> Shard:
    """Write a shard atomically from `read(split, first, count)`, a few MiB at a time; returns it complete."""
    chunk = max(1, BLOCK_BYTES // sample_bytes(fields))
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with _created(temporary) as file:
            file.attrs.update(attributes)
            file.attrs.update({"format": FORMAT, "split": shard.split, "first": shard.first, "count": shard.count})
            stores = {f.name: file.create_dataset(f.name, (shard.count, *f.shape), f.dtype) for f in fields}
            for f in fields:
                stores[f.name].attrs.update({"units": f.units, "description": f.description})
            for start in range(0, shard.count, chunk):
                count = min(chunk, shard.count - start)
                arrays = read(shard.split, shard.first + start, count)
                for f in fields:
                    array = arrays[f.name]
                    if array.shape != (count, *f.shape) or array.dtype != f.dtype:
                        raise ValueError(
                            f"{f.name} of {shard.split} {shard.first + start}: {array.dtype}{array.shape}, "
                            f"not {f.dtype}{(count, *f.shape)}"
                        )
                    stores[f.name][start : start + count] = array
            file.flush()
            offsets = {name: int(store.id.get_offset()) for name, store in stores.items()}
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        result = Shard(
            shard.file,
            shard.split,
            shard.first,
            shard.count,
            temporary.stat().st_size,
            sha256_of(temporary),
            offsets,
        )
        temporary.rename(path)
        return result
    finally:
        temporary.unlink(missing_ok=True)


def _created(path: Path) -> h5py.File:
    """A new HDF5 file, every data set aligned, and no time of day in it: the same samples make the same bytes."""
    import h5py

    creation, access = h5py.h5p.create(h5py.h5p.FILE_CREATE), h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    creation.set_obj_track_times(False)
    access.set_libver_bounds(h5py.h5f.LIBVER_V18, h5py.h5f.LIBVER_LATEST)
    access.set_alignment(1, ALIGNMENT_BYTES)  # of the smallest field, too
    return h5py.File(h5py.h5f.create(bytes(path), h5py.h5f.ACC_TRUNC, creation, access))


def existing_shard(
    path: Path, shard: Shard, fields: tuple[SampleField, ...], attributes: Mapping[str, str | int]
) -> Shard | None:
    """The shard at `path` if an earlier, interrupted preparation left it there whole and from the same origin."""
    import h5py

    wanted = {
        **attributes,
        "format": FORMAT,
        "split": shard.split,
        "first": shard.first,
        "count": shard.count,
    }
    try:
        with h5py.File(path, "r") as file:
            if any(file.attrs.get(k) != v for k, v in wanted.items()):
                return None
            offsets = {f.name: int(file[f.name].id.get_offset()) for f in fields}
        size = path.stat().st_size
        return Shard(shard.file, shard.split, shard.first, shard.count, size, sha256_of(path), offsets)
    except (OSError, KeyError, TypeError):
        return None


def blocks(path: Path) -> Iterator[memoryview]:
    """The file's content in order, in one reused buffer of BLOCK_BYTES."""
    buffer = memoryview(bytearray(BLOCK_BYTES))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            yield buffer[:count]


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    for block in blocks(path):
        digest.update(block)
    return digest.hexdigest()


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a small file so that a reader sees either all of it or what was there before."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
