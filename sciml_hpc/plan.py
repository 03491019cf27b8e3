"""What a run will do, settled from what the user asked for before any node-hour is spent."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sciml_hpc.benchmarks import find
from sciml_hpc.benchmarks.base import Benchmark, Source
from sciml_hpc.config import RunConfig, resolve
from sciml_hpc.errors import UserError, explain
from sciml_hpc.manifest import Dataset, Files, load_manifest, select


@dataclass
class Request:
    """What the user asked for on the command line."""

    benchmark: str
    task: str | None = None
    preset: str | None = None
    dataset: str | None = None
    manifest: Path | None = None
    data: Path = Path("data")
    scratch: Path | None = None
    output: Path = Path("results")
    system: str | None = None
    org: str = "unknown"
    config: Path | None = None
    assignments: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    resume: bool = False
    reference: Path | None = None


@dataclass(frozen=True)
class Plan:
    """A run's configuration and data set, and what follows from them and the number of ranks."""

    config: RunConfig
    dataset_name: str
    """Also the directory of its shards, below the data directory."""
    dataset: Dataset
    shipped: bool
    """Whether the data set is one of the shipped manifest's (else the centre's own)."""
    local_batch: int
    global_batch: int
    notes: tuple[str, ...]
    """Where something is not as the preset has it, and why."""

    def benchmark(self) -> type[Benchmark]:
        """The benchmark's class."""
        return find(self.config.benchmark, self.config.task or None)


def settle(request: Request, ranks: int) -> Plan:
    """Everything of a run but the data themselves, for `ranks` ranks; on rank 0 alone.

    Raises UserError naming what in command line, configuration or manifest cannot be used.
    """
    benchmark = find(request.benchmark, request.task)
    datasets = load_manifest(request.manifest)
    config, given = resolve(
        benchmark,
        preset=request.preset,
        dataset=request.dataset,
        file=request.config,
        assignments=request.assignments,
        options=request.options,
    )
    name, dataset = config.dataset, select(datasets, config.dataset, benchmark.name)
    if dataset.task != benchmark.task:
        raise UserError(
            f"data set {name} is for task {dataset.task or 'none'!r} of {benchmark.name}; this run's is "
            f"{benchmark.task!r}"
        )
    generator_of(benchmark, name, dataset)
    notes = []
    if config.scaling == "weak" and dataset.origin.kind == "simulator" and ranks > 1:
        name, dataset = f"{name}-x{ranks}", grown(dataset, ranks)
        notes.append(
            f"weak scaling: {ranks} times the samples of {config.dataset}, {config.train.global_batch} a batch per rank"
        )
    local_batch = _local_batch(config, "train.global_batch" in given, ranks, notes)
    for split, count in dataset.samples.items():
        if split != "test" and count < ranks:
            raise UserError(
                f"data set {name} has {count} samples in {split}, fewer than the {ranks} ranks: take a larger one"
            )
    if dataset.samples["train"] < local_batch * ranks:
        raise UserError(
            f"data set {name} has {dataset.samples['train']} training samples, less than one global batch of "
            f"{local_batch * ranks}: take a larger data set or set train.global_batch"
        )
    return Plan(
        config, name, dataset, config.dataset in load_manifest(), local_batch, local_batch * ranks, tuple(notes)
    )


def grown(dataset: Dataset, factor: int) -> Dataset:
    """The simulated data set with `factor` times the samples in every split."""
    samples = {split: count * factor for split, count in dataset.samples.items()}
    size = None if dataset.bytes is None else dataset.bytes * factor
    return dataset.model_copy(update={"samples": samples, "bytes": size, "index_sha256": None})


def generator_of(benchmark: type[Benchmark], name: str, dataset: Dataset) -> Any:
    """The data set's generator parameters, validated by the benchmark. Raises UserError naming the field."""
    from pydantic import ValidationError

    try:
        return benchmark.Generator.model_validate(dataset.origin.parameters)
    except ValidationError as error:
        raise explain(f"manifest: datasets.{name}.origin.parameters", error, benchmark.Generator) from None


def source_of(benchmark: type[Benchmark], name: str, dataset: Dataset, data: Path) -> Source:
    """Where the data set's samples come from: the simulator, or the published files below `data`.

    Raises UserError: with the command to get them, for files that are not there; naming file and field, for
    malformed ones.
    """
    generator = generator_of(benchmark, name, dataset)
    origin = dataset.origin
    if not isinstance(origin, Files):
        return benchmark.simulator(generator, dataset.samples, origin.seed)
    path = data / origin.path
    if not path.exists():
        raise UserError(f"data set {name} is not there ({path} does not exist). A centre gets it with:\n  {origin.get}")
    try:
        return benchmark.native(path, generator, dataset.samples, origin.seed)
    except ValueError as error:
        raise UserError(f"data set {name}: {error}. A centre gets it with:\n  {origin.get}") from None


def _local_batch(config: RunConfig, asked: bool, ranks: int, notes: list[str]) -> int:
    """Samples per rank and step. A preset's batch is rounded up to the ranks, with a note; one the user set is not."""
    wanted = config.train.global_batch
    if config.scaling == "weak":
        return wanted
    if wanted % ranks:
        if asked:
            below = wanted - wanted % ranks
            possible = f"{below} or {below + ranks}" if below else f"{ranks}"
            raise UserError(
                f"train.global_batch={wanted} cannot be shared evenly by {ranks} ranks; next possible: {possible}"
            )
        rounded = -(-wanted // ranks) * ranks
        notes.append(f"global batch is {rounded}, not the preset's {wanted}, to be shared evenly by {ranks} ranks")
    return -(-wanted // ranks)
