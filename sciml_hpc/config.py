"""The configuration of one run: preset < `--config FILE` < `--set key=value`, validated before anything is spent."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, SerializeAsAny, ValidationError

from sciml_hpc.benchmarks.base import Benchmark, Recipe, Settings
from sciml_hpc.errors import UserError, did_you_mean, explain

PRESETS = ("tiny", "small", "node", "full")


class Staging(Settings):
    """How shards come to node-local storage."""

    mode: Literal["partition", "replicate", "none"] = "partition"
    """partition: a node holds the samples of its ranks; replicate: every node holds all (global shuffle); none: read
    in place, from the data directory."""
    keep: bool = False
    """Whether the staged shards stay on the nodes after the run, for the next one."""


class Loader(Settings):
    """How batches come from node-local storage."""

    prefetch: int = Field(2, ge=1, le=64)
    """Batches read ahead of the step; of small samples, groups of batches."""
    threads: int | None = Field(None, ge=1, le=64)
    """Threads that read ahead, per rank; if not given, one where the cores compute, and `prefetch` beside a GPU."""
    drop_cache: bool = True
    """Whether the page cache of the data set's shards is dropped before the clock starts, as the rules ask."""

    def threads_beside(self, device: str) -> int:
        """Threads that read ahead on a rank that computes on "cpu", or on another kind of device."""
        return self.threads or (1 if device == "cpu" else self.prefetch)


class Communication(Settings):
    """The engine that joins the ranks' gradients."""

    engine: Literal["horovod", "ddp", "single"] = "horovod"
    """horovod; ddp: torch's DistributedDataParallel, to compare with; or single: one process, no communication library.
    The log says which."""
    backend: Literal["auto", "nccl", "gloo", "mpi"] = "auto"
    """What ddp communicates by; auto: nccl on GPUs, gloo elsewhere."""
    compression: Literal["none", "fp16"] = "none"
    """Type in which gradients travel."""
    fusion_bytes: int = Field(64 << 20, ge=0)
    """Gradients are all-reduced together up to so many bytes: Horovod's fusion buffer, the buckets of ddp."""
    cycle_ms: float = Field(1.0, gt=0)
    """How often Horovod looks for gradients that are ready."""


class Checkpoint(Settings):
    """When the state of a run is saved, so that it can be resumed."""

    every_epochs: int = Field(1, ge=0)
    """A checkpoint after each so many epochs; 0: only when a signal asks for one."""
    keep: bool = False
    """Whether the last checkpoint stays after a run that came to its end."""


class Measure(Settings):
    """What is measured besides training."""

    enabled: bool = True
    """All sensors and counters; off only to measure what they cost."""
    idle_s: float = Field(0.0, ge=0)
    """Seconds of idling before the clock starts, over which idle power is measured."""
    calibrate_steps: int = Field(10, ge=0)
    """Steps with and without communication after training, from which the exposed communication is found; 0: none."""
    ceiling_s: float = Field(1.0, ge=0, le=60)
    """Seconds in which the ceiling of the device's arithmetic is measured by matrix products; 0: neither it nor the
    operations of the model."""
    inference_batches: int = Field(20, ge=0)
    """Batches of the trained model's inference measurement, after warm-up; 0: none."""


class RunConfig(Settings):
    """Everything that determines a run. Its hash is in the result; two runs with one hash did the same work."""

    benchmark: str
    task: str = ""
    preset: Literal["tiny", "small", "node", "full"]
    dataset: str
    seed: int = Field(1, ge=0, lt=2**31)
    """Draws initial weights, the order of samples and every random choice of training; not the data set."""
    scaling: Literal["strong", "weak"] = "strong"
    """Which study the result belongs to; weak: `train.global_batch` and the samples grow with the ranks."""
    fixed_epochs: bool = False
    """Train `train.epochs` epochs whatever the target: a run of fixed work, judged on throughput alone."""
    train: SerializeAsAny[Recipe]
    staging: Staging = Staging()
    loader: Loader = Loader()
    communication: Communication = Communication()
    checkpoint: Checkpoint = Checkpoint()
    measure: Measure = Measure()

    def sha256(self) -> str:
        """Hash of the resolved configuration less the seed: equal for the repeats of one experiment."""
        content = self.model_dump(mode="json", exclude={"seed"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def resolve(
    benchmark: type[Benchmark],
    *,
    preset: str | None = None,
    dataset: str | None = None,
    file: Path | None = None,
    assignments: Iterable[str] = (),
    options: Mapping[str, Any] | None = None,
) -> tuple[RunConfig, frozenset[str]]:
    """The run's configuration, and the dotted names that the user set by hand.

    `assignments` are the `key=value` of `--set` (values in YAML); `options` are the dotted names that have a
    command-line option of their own, which come last. Raises UserError naming option or file, field, what was found
    and what is allowed.
    """
    given: dict[str, tuple[str, Any]] = {}
    if file is not None:
        given |= {k: (str(file), v) for k, v in _flatten(_read(file)).items()}
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UserError(f"--set {text}: must have the form key=value")
        try:
            given[key] = (f"--set {text}", yaml.safe_load(value))
        except yaml.YAMLError:
            raise UserError(f"--set {text}: the value is not YAML") from None
    asked = {"preset": preset, "dataset": dataset, **(options or {})}
    given |= {k: ("command line", v) for k, v in asked.items() if v is not None}

    chosen = given.get("preset", ("", "tiny"))[1]
    if not isinstance(chosen, str) or chosen not in benchmark.presets:
        raise UserError(
            f"benchmark {benchmark.name} has no preset {chosen!r}{did_you_mean(str(chosen), benchmark.presets)}; "
            f"it has: {', '.join(benchmark.presets)}"
        )
    base = benchmark.presets[chosen]
    values: dict[str, Any] = {
        "benchmark": benchmark.name,
        "task": benchmark.task,
        "preset": chosen,
        "dataset": base.dataset,
        "train": dict(base.recipe),
    }
    model = given.get("train.model", ("", values["train"].get("model")))[1]
    values["train"] |= base.by_model.get(str(model), {})

    known = _names(benchmark)
    for key, (where, value) in given.items():
        if key not in known:
            close = did_you_mean(key, known)
            raise UserError(f"{where}: unknown key {key!r}{close}; allowed: {', '.join(sorted(known))}")
        if key in ("benchmark", "task") and value != values[key]:
            raise UserError(f"{where}: {key} is {value!r}, but the command runs {values[key] or 'the default task'!r}")
        section, _, name = key.rpartition(".")
        target = values.setdefault(section, {}) if section else values
        target[name] = value

    try:
        values["train"] = benchmark.Recipe.model_validate(values["train"])
        return RunConfig.model_validate(values), frozenset(given)
    except ValidationError as error:
        prefix = "train." if error.title == benchmark.Recipe.__name__ else ""
        wheres = {given[n][0] for f in error.errors() if (n := prefix + ".".join(map(str, f["loc"]))) in given}
        raise explain(", ".join(sorted(wheres)) or f"preset {chosen}", error, section=prefix) from None


def describe_keys(benchmark: type[Benchmark]) -> list[tuple[str, str, str]]:
    """(key, default, meaning) of everything `--set` can change, for `info`."""
    keys = list(_keys(benchmark))
    meanings = {model: model.meanings() for _, _, model in keys}
    return [(key, str(default), meanings[model].get(key.rpartition(".")[2], "")) for key, default, model in keys]


def _names(benchmark: type[Benchmark]) -> set[str]:
    return {key for key, _, _ in _keys(benchmark)} | {"benchmark", "task", "preset", "dataset"}


def _keys(benchmark: type[Benchmark]) -> Iterator[tuple[str, Any, type[Settings]]]:
    """(key, default, the class it is a field of)."""
    for name, field in RunConfig.model_fields.items():
        model = benchmark.Recipe if name == "train" else field.annotation
        if isinstance(model, type) and issubclass(model, Settings):
            yield from ((f"{name}.{key}", sub.default, model) for key, sub in model.model_fields.items())
        elif name not in ("benchmark", "task", "preset", "dataset"):
            yield name, field.default, RunConfig


def _read(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{file}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{file}: must be a mapping of configuration keys; found {type(content).__name__}")
    return content


def _flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
