"""Runs as they lie in files: a log and its record, whether the two agree, and whether runs belong to one set."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sciml_hpc.errors import UserError, explain
from sciml_hpc.results.conduct import TIMES, close_s
from sciml_hpc.results.logfile import Line, figures, last, parse
from sciml_hpc.results.system_json import system_json

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$"
"""Names that become directories of a package: what git and MLCommons' repository checker take."""
_HASH = r"^[0-9a-f]{64}$"

SAME = (
    "submission_benchmark",
    "submission_version",
    "submission_github_commit_version",
    "cache_clear",
    "dataset",
    "target",
    "train_samples",
    "eval_samples",
    "global_batch_size",
    "number_of_nodes",
    "number_of_ranks",
    "accelerators_per_node",
    "recipe",
)
"""Log keys whose values are equal in the runs of one set."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, strict=True)


class Dataset(_Part):
    """The data of a run."""

    name: str
    index_sha256: str = Field(pattern=_HASH)


class Code(_Part):
    """The code of a run."""

    commit: str | None = Field(pattern="^[0-9a-f]{40}$")
    version: str
    dirty: bool | None
    source_sha256: str | None = Field(None, pattern=_HASH)
    """`source.sha256()` at the time of the run."""


class System(_Part):
    """The system of a run; further fields are the description that `metering/system.py` captured."""

    name: str = Field(pattern=NAME)


class Record(_Part):
    """What a package needs of `result_N.json`; there is more in it."""

    schema_: Literal["sciml_hpc.result/1"] = Field(alias="schema")
    benchmark: str
    mllog_name: str = Field(pattern=NAME)
    dataset: Dataset
    config: dict[str, Any]
    config_sha256: str = Field(pattern=_HASH)
    code: Code
    system: System
    scaling: Literal["strong", "weak"]
    verdict: Literal["VALID", "INVALID"]
    reasons: list[str]
    seed: int
    metrics: dict[str, Any]
    log_sha256: str = Field(pattern=_HASH)


@dataclass(frozen=True)
class Run:
    """One run: the bytes of its two files and what is in them."""

    name: str
    """The log's path as messages give it."""
    log: Path
    log_bytes: bytes
    record_bytes: bytes
    lines: Sequence[Line]
    record: Record
    content: Mapping[str, Any]
    """The whole of the record."""

    def logged(self, key: str) -> Any:
        """The value the log gives for a key; None if it has none."""
        line = last(self.lines, key)
        return None if line is None else line.value

    def started_ms(self) -> int:
        """The time of `run_start`; 0 for a run that was not started."""
        line = last(self.lines, "run_start")
        return 0 if line is None else line.time_ms

    def system_json(self, submitter: str) -> dict[str, str]:
        """MLCommons' description of the system this run was made on."""
        return system_json(
            self.record.system.name,
            self.content["system"],
            submitter=submitter,
            nodes=self.logged("number_of_nodes"),
            accelerators_per_node=self.logged("accelerators_per_node"),
        )

    def described(self, submitter: str) -> dict[str, str]:
        """As `system_json`, but for the storage capacity: it is one node's, and may differ between equal ones."""
        return {k: v for k, v in self.system_json(submitter).items() if k != "host_storage_capacity"}


def load(log: Path, name: str | None = None) -> Run:
    """The run whose log is `log` and whose record lies beside it; messages call it `name` (default: its path).

    Raises UserError naming file and field if one cannot be read or the record is malformed.
    """
    path = log.with_suffix(".json")
    try:
        log_bytes, record_bytes = log.read_bytes(), path.read_bytes()
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read: {error.strerror}") from None
    try:
        content = json.loads(record_bytes, parse_constant=_no_number)
        record = Record.model_validate(content)
    except ValidationError as error:
        raise explain(str(path), error) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON: {error}") from None
    lines, _ = parse(log_bytes)
    return Run(name or str(log), log, log_bytes, record_bytes, lines, record, content)


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")


def config_sha256(config: Mapping[str, Any]) -> str:
    """The hash that RunConfig.sha256 gives, from the configuration as a record holds it: all of it but the seed."""
    content = {name: value for name, value in config.items() if name != "seed"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def faults(run: Run) -> Iterator[str]:
    """Why a run cannot be counted: it is not valid, or its record and its log do not say the same."""
    record = run.record
    if record.verdict != "VALID":
        yield f"is {record.verdict}: {'; '.join(record.reasons)}"
    if hashlib.sha256(run.log_bytes).hexdigest() != record.log_sha256:
        yield "the log is not the one that the record names by its hash"
    if config_sha256(record.config) != record.config_sha256:
        yield "the configuration is not the one that the record names by its hash"
    told = {
        "submission_benchmark": record.mllog_name,
        "submission_github_commit_version": record.code.commit,
        "submission_version": record.code.version,
        "seed": record.seed,
    }
    for key, value in told.items():
        if run.logged(key) != value:
            yield f"{key} is {run.logged(key)!r} in the log, {value!r} in the record"
    data = run.logged("dataset")
    logged = (data.get("name"), data.get("index_sha256")) if isinstance(data, dict) else None
    if logged != (record.dataset.name, record.dataset.index_sha256):
        yield f"the data set is {logged} in the log, {(record.dataset.name, record.dataset.index_sha256)} in the record"
    recipe, train = run.logged("recipe"), record.config.get("train")
    if isinstance(recipe, dict) and isinstance(train, dict):
        for name in sorted(recipe.keys() & train.keys()):
            if recipe[name] != train[name]:
                yield f"{name} of the recipe is {recipe[name]!r} in the log, {train[name]!r} in the record"
    true, given = figures(run.lines), run.content.get("time")
    for name in TIMES if isinstance(given, dict) and true is not None else ():
        value = given.get(name)
        if value is not None and not close_s(value, getattr(true, name)):
            yield f"time.{name} is {value!r} in the record; the log's lines give {getattr(true, name)!r}"


def strangers(runs: Sequence[Run], submitter: str) -> Iterator[str]:
    """Runs that do not belong with the first one, or that were counted twice; each by its file and what differs."""
    first, identity, seeds = runs[0], _identity(runs[0], submitter), dict[int, Run]()
    for run in runs:
        for what, found in _identity(run, submitter).items():
            if found != identity[what]:
                yield (
                    f"{run.name} has another {what} than {first.name}: {_short(found)}, not {_short(identity[what])}"
                )
        if run.record.seed in seeds:
            yield f"{run.name} has the seed of {seeds[run.record.seed].name}, {run.record.seed}"
        seeds.setdefault(run.record.seed, run)


def _identity(run: Run, submitter: str) -> dict[str, Any]:
    record = run.record
    return {
        "commit": record.code.commit,
        "code version": record.code.version,
        "source": record.code.source_sha256,
        "configuration": record.config_sha256,
        "data hash": record.dataset.index_sha256,
        "system": record.system.name,
        "system description": run.described(submitter),
        **{key: run.logged(key) for key in SAME},
    }


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def numbers(content: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a record, by dotted name: every number in its sections but those that say what was run."""
    found: dict[str, float] = {}
    waiting = [(k, v) for k, v in content.items() if k not in ("config", "code", "system", "dataset")]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, dict):
            waiting += [(f"{name}.{key}", inner) for key, inner in value.items()]
        elif type(value) in (int, float) and abs(value) < 1e300 and "." in name:
            found[name] = value
    return dict(sorted(found.items()))
