"""Preparation: from a benchmark's samples (simulated, or published files) to shards and their index.

Ranks make shards independently, shard k on rank k mod size; rank 0 writes the index when all are there. A shard appears
under its name only when it is whole, so an interrupted preparation goes on where it stopped; and one that is no longer
what an earlier index says is made again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from sciml_hpc.benchmarks.base import Source
from sciml_hpc.data.shards import Index, Shard, existing_shard, plan, sample_bytes, sha256_of, write_shard
from sciml_hpc.errors import UserError
from sciml_hpc.manifest import Dataset
from sciml_hpc.parallel.world import World


def dataset_directory(data: Path, name: str) -> Path:
    """Where a data set's shards and index are."""
    return data / name


def load_prepared(data: Path, name: str, dataset: Dataset) -> Index | None:
    """The index of a data set that has been prepared; None if it has not.

    Raises UserError if what is there is not the data set of the manifest.
    """
    directory = dataset_directory(data, name)
    if not (directory / "index.json").exists():
        return None
    index = Index.load(directory)
    if index.fingerprint != dataset.fingerprint():
        raise UserError(
            f"{directory / 'index.json'}: these shards were made from another entry ({index.made_from}) than the "
            f"manifest's {name}; move them away, or use another --data directory"
        )
    if dataset.index_sha256 not in (None, index.sha256):
        raise UserError(
            f"{directory / 'index.json'}: its SHA-256 is {index.sha256}, the manifest says {dataset.index_sha256}"
        )
    return index


def prepare(
    source: Source,
    name: str,
    dataset: Dataset,
    data: Path,
    world: World,
    progress: Callable[[int, int], None],
) -> Index:
    """Make the shards of a data set and their index; collective.

    `progress(done, total)` is called on rank 0 with the number of shards made by all ranks, as far as it knows. Cost:
    the samples are made once over all ranks; the index is O(shards), gathered on rank 0 once. Raises UserError for
    malformed published files or too little space.
    """
    directory = dataset_directory(data, name)
    shards = plan(dataset.samples, source.fields, dataset.shard_bytes)
    attributes = {"dataset": name, "benchmark": dataset.benchmark, "fingerprint": dataset.fingerprint()}

    def room() -> dict[str, str]:
        """Room there is; the checksums of an earlier preparation, which what is there must still have."""
        try:
            directory.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(directory).free
        except OSError as error:
            raise UserError(f"{directory}: cannot be written: {error.strerror}") from None
        there = sum(f.stat().st_size for f in directory.glob("*.h5"))
        needed = sum(dataset.samples.values()) * sample_bytes(source.fields) - there
        if free < needed:
            raise UserError(f"{directory} has {free / 1e9:.1f} GB free; {name} needs {needed / 1e9:.1f} GB there")
        if not (directory / "index.json").exists():
            return {}
        before = Index.load(directory)
        return {s.file: s.sha256 for s in before.shards} if before.fingerprint == dataset.fingerprint() else {}

    def make() -> list[Shard]:
        made = []
        for k, shard in enumerate(shards[world.rank :: world.size]):
            path = directory / shard.file
            try:
                done = existing_shard(path, shard, source.fields, attributes)
                if done is not None and known.get(done.file, done.sha256) != done.sha256:
                    done = None  # damaged since
                made.append(done or write_shard(path, shard, source.fields, source.read, attributes))
            except ValueError as error:
                raise UserError(f"{name}: {error}") from None
            progress(min((k + 1) * world.size, len(shards)), len(shards))
        return made

    known = world.once(room)
    made = world.together(make)
    gathered = world.comm.gather(made)

    def finish() -> Index:
        by_name = {s.file: s for part in gathered for s in part}
        origin = {k: v for k, v in dataset.origin.model_dump().items() if k not in ("get", "path")}
        index = Index(
            dataset=name,
            benchmark=dataset.benchmark,
            fingerprint=dataset.fingerprint(),
            made_from={"version": dataset.version, **origin},
            fields=source.fields,
            shards=tuple(by_name[s.file] for s in shards),
        )
        if dataset.index_sha256 not in (None, index.sha256):
            raise UserError(
                f"{name}: the index of what was made has SHA-256 {index.sha256}, the manifest says "
                f"{dataset.index_sha256}"
            )
        index.write(directory)
        return index

    return world.once(finish)


def verify(index: Index, directory: Path, world: World) -> list[str]:
    """Compare every shard with the index, spread over ranks; the faults of all, in order, on every rank."""
    faults = []
    for shard in index.shards[world.rank :: world.size]:
        path = directory / shard.file
        try:
            if (size := path.stat().st_size) != shard.bytes:
                faults.append(f"{path}: {size} bytes, the index says {shard.bytes}")
            elif sha256_of(path) != shard.sha256:
                faults.append(f"{path}: its SHA-256 is not that of the index")
        except OSError as error:
            faults.append(f"{path}: {error.strerror}")
    return sorted(world.sum(faults))
