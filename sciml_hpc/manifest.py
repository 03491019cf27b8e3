"""The data sets a run can take: `datasets.yaml`, and a centre's own file in the same form.

A data set is either simulated (made here, from a seed) or published (files which the centre fetches). Its samples are
kept as shards below the data directory, with an index that holds the checksum of each (`data/shards.py`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import Field, ValidationError, field_validator

from sciml_hpc.benchmarks.base import Settings, Target
from sciml_hpc.errors import UserError, did_you_mean, explain


class Simulator(Settings):
    """Samples made by the benchmark's embedded simulator."""

    kind: Literal["simulator"]
    seed: int = Field(ge=0)
    """Every sample follows from this number and its index."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """Fields of the benchmark's Generator."""


class Files(Settings):
    """Published files, fetched by the centre."""

    kind: Literal["files"]
    path: str
    """Directory of the files, below the data directory (or absolute)."""
    get: str
    """The command by which a centre gets them."""
    seed: int = Field(0, ge=0)
    """Draws the split where the publisher left it open."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """Fields of the benchmark's Generator."""


class DeclaredTarget(Settings):
    """The quality at which a run on this data set counts as converged."""

    metric: str
    direction: Literal["max", "min"]
    value: float
    source: str
    """The rule, paper or measurement the value comes from."""
    official: bool = False
    """Whether the publisher of the benchmark set it (an embedded data set has a target of its own)."""

    def as_target(self) -> Target:
        """The same, without the label."""
        return Target(self.metric, self.direction, self.value, self.source)


class Dataset(Settings):
    """One data set of the manifest."""

    benchmark: str
    task: str = ""
    """The benchmark's task, where it has several."""
    version: int = Field(ge=1)
    origin: Annotated[Simulator | Files, Field(discriminator="kind")]
    format: str
    """What a sample is, in words."""
    samples: dict[Literal["train", "validation", "test"], Annotated[int, Field(gt=0)]]
    """Samples per split; train and validation are needed."""
    bytes: int | None = Field(None, gt=0)
    """Size, of the shards or of the published files."""
    shard_bytes: int = Field(256 << 20, ge=4096)
    """Size at which a new shard is begun."""
    index_sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")
    """Checksum of the shards' index, where the data must be bit for bit these; else it is recorded at preparation."""
    licence: str
    citation: str
    target: DeclaredTarget

    @field_validator("samples")
    @classmethod
    def _needs_both(cls, samples: dict[str, int]) -> dict[str, int]:
        for split in ("train", "validation"):
            if split not in samples:
                raise ValueError(f"must have a split {split!r}")
        return samples

    def fingerprint(self) -> str:
        """Hash of what determines the samples: benchmark, origin and counts. Shards made from another one differ."""
        origin = {k: v for k, v in self.origin.model_dump().items() if k not in ("get", "path")}
        facts = [
            self.benchmark,
            self.task,
            self.version,
            origin,
            dict(sorted(self.samples.items())),
            self.shard_bytes,
        ]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # libyaml reads it ten times as fast
    """Leaves dates as they are written: what a parameter says goes into indices and records, which are JSON."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, form) for tag, form in forms if tag != "tag:yaml.org,2002:timestamp"]
        for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def shipped_manifest() -> Path:
    """The manifest that comes with the package: beside it in a checkout, inside it when installed."""
    package = Path(__file__).parent
    return next((p for p in (package / "datasets.yaml", package.parent / "datasets.yaml") if p.exists()), package)


def load_manifest(extra: Path | None = None) -> Mapping[str, Dataset]:
    """Data sets by name: the shipped ones and those of `extra`.

    Raises UserError, naming file and field, for a file that cannot be read or a malformed entry, and for a name that
    the shipped manifest already has (a figure's data set must mean the same thing at every centre).
    """
    datasets = _load(shipped_manifest())
    if extra is not None:
        for name, dataset in _load(extra).items():
            if name in datasets:
                raise UserError(f"{extra}: datasets.{name}: that name belongs to the shipped manifest; choose another")
            datasets[name] = dataset
    return datasets


def select(datasets: Mapping[str, Dataset], name: str, benchmark: str | None = None) -> Dataset:
    """The data set called `name`; UserError naming the choices if there is none, or it is another benchmark's."""
    known = [n for n, d in datasets.items() if benchmark in (None, d.benchmark)]
    if name not in datasets:
        raise UserError(f"unknown data set {name!r}{did_you_mean(name, known)}; there are: {', '.join(known)}")
    if benchmark not in (None, datasets[name].benchmark):
        raise UserError(
            f"data set {name} belongs to benchmark {datasets[name].benchmark}, not to {benchmark}; "
            f"those of {benchmark} are: {', '.join(known)}"
        )
    return datasets[name]


def _load(path: Path) -> dict[str, Dataset]:
    try:
        content = yaml.load(path.read_text(), _Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or set(content) != {"datasets"} or not isinstance(content["datasets"], dict):
        found = type(content).__name__ if not isinstance(content, dict) else ", ".join(map(str, content)) or "nothing"
        raise UserError(f"{path}: must have one top-level field 'datasets' (name: entry); found {found}")
    result = {}
    for name, entry in content["datasets"].items():
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", str(name)):
            raise UserError(f"{path}: datasets: a name must be letters, digits, '.', '-' and '_'; found {str(name)!r}")
        try:
            result[str(name)] = Dataset.model_validate(entry)
        except ValidationError as error:
            raise explain(f"{path}: datasets.{name}", error, Dataset) from None
    return result
