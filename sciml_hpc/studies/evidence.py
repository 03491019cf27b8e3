"""Results as somebody hands them in: every run below a directory, what is wrong with it, and what was left out.

A record is checked against its log, its epochs and itself, because a figure in JSON is easily edited. What no file can
show is said in `acceptance.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sciml_hpc.errors import UserError, explain
from sciml_hpc.results.check import check
from sciml_hpc.results.consistency import contradictions
from sciml_hpc.results.logfile import last, last_mapping
from sciml_hpc.results.runs import Run, faults, load

_FILE = re.compile(r"result_(\d+)\.(txt|json|config\.json|checkpoint)")


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, strict=True)


class _Job(_Part):
    ranks: int
    nodes: int
    machines: int | None = None
    ranks_per_node: list[int] = Field(min_length=2, max_length=2)
    hosts: list[str]
    global_batch: int
    train_samples: int
    eval_samples: int
    data_bytes: int = Field(gt=0)
    accelerators_per_node: int
    index_sha256: str


class _Epoch(_Part):
    epoch: int
    samples: int
    train_s: float = Field(gt=0)
    train_loss: float


class _System(_Part):
    groups: list[dict[str, Any]] = Field(min_length=1)
    deviating: dict[str, list[str]] = {}


class _Nodes(_Part):
    slow_nodes: list[str] = []


class _Measured(_Part):
    """What of a record is looked at here, besides `runs.Record`."""

    task: str = ""
    job: _Job
    system: _System
    epochs: list[_Epoch]
    nodes: _Nodes
    throughput: dict[str, Any]
    time: dict[str, Any]
    io: dict[str, Any]
    staging: dict[str, Any]
    communication: dict[str, Any]
    compute: dict[str, Any]
    energy: dict[str, Any]


@dataclass(frozen=True)
class Evidence:
    """A run that could be read, and why it cannot be counted (nothing: it can)."""

    run: Run
    faults: tuple[str, ...]
    given: bool = True
    """Whether the user named this file, rather than a directory above it."""

    @property
    def number(self) -> int:
        """N of result_N; −1 for a file that is not called so."""
        match = _FILE.fullmatch(self.run.log.name)
        return int(match[1]) if match else -1

    @property
    def began_ms(self) -> int:
        """The first time in the log: written as soon as the run has its number."""
        return self.run.lines[0].time_ms if self.run.lines else 0

    @property
    def ended_ms(self) -> int:
        """The last time in the log: the result's, when all that follows training has been measured."""
        return self.run.lines[-1].time_ms if self.run.lines else 0

    @property
    def hosts(self) -> tuple[str, ...]:
        """The nodes that took part."""
        return tuple(self.run.content["job"]["hosts"])

    @property
    def fixed_work(self) -> bool:
        """Whether the run did a number of epochs, rather than run to its target."""
        return last_mapping(self.run.lines, "target").get("kind") == "fixed_work"

    def key(self) -> tuple[Any, ...]:
        """What `contract.Case.key` is of the case the run may belong to."""
        record = self.run.record
        task = self.run.content.get("task", "")
        size = self.run.logged("number_of_nodes"), self.run.logged("number_of_ranks")
        return record.benchmark, task, *size, record.scaling, self.fixed_work


@dataclass(frozen=True)
class Found:
    """What was handed in."""

    runs: tuple[Evidence, ...]
    unreadable: Mapping[Path, str]
    """Logs that are no whole run: a missing or malformed record, a run that broke; with the reason."""
    named: frozenset[Path]
    """Logs that the user named, rather than a directory above them."""
    repeated: tuple[Path, ...]
    """Logs that were given more than once."""
    folders: Mapping[Path, tuple[str, ...]]
    """Every directory with a run in it: what is missing there by the numbers of its files."""
    left_out: Mapping[Path, tuple[Path, ...]]
    """Logs that lie in a directory beside the given ones and were not given."""


def search(results: Sequence[Path]) -> Found:
    """All that lies in files and directories. Raises UserError for a path that is not there."""
    named: list[tuple[Path, bool]] = []
    folders: dict[Path, None] = {}
    for path in results:
        if path.is_dir():
            files = sorted(p for p in path.rglob("result_*") if _FILE.fullmatch(p.name))
            folders |= dict.fromkeys(p.parent for p in files)
            named += [(p, False) for p in files if p.suffix == ".txt"]
        elif path.exists():
            folders[path.parent] = None
            named.append((path, True))
        else:
            raise UserError(f"{path}: is not there")
    runs: list[Evidence] = []
    unreadable: dict[Path, str] = {}
    seen: dict[Path, None] = {}
    repeated = []
    for path, given in named:
        if path.resolve() in seen:
            repeated.append(path)
            continue
        seen[path.resolve()] = None
        try:
            run = _load(path)
        except UserError as error:
            unreadable[path] = _broken(path) or str(error)
        else:
            runs.append(Evidence(run, tuple(_faults(run)), given))
    left_out = {f: tuple(p for p in sorted(f.glob("result_*.txt")) if p.resolve() not in seen) for f in folders}
    return Found(
        tuple(sorted(runs, key=lambda e: (e.run.started_ms(), e.run.name))),
        unreadable,
        frozenset(path for path, given in named if given),
        tuple(repeated),
        {folder: tuple(_missing(folder)) for folder in folders},
        {folder: logs for folder, logs in left_out.items() if logs},
    )


def leaves(content: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """("system.groups[0].count", 4) for every value of a record."""
    waiting: list[tuple[str, Any]] = list(content.items())
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, Mapping):
            waiting += [(f"{name}.{key}", inner) for key, inner in value.items()]
        elif isinstance(value, list):
            waiting += [(f"{name}[{i}]", inner) for i, inner in enumerate(value)]
        else:
            yield name, value


def _load(log: Path) -> Run:
    """The run of a log, all of whose record that is looked at here has the form it should have."""
    run, record = load(log), log.with_suffix(".json")
    try:
        _Measured.model_validate(run.content)
        run.described("")
    except ValidationError as error:
        raise explain(str(record), error) from None
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise UserError(f"{record}: its description of the system is malformed: {error}") from None
    return run


def _faults(run: Run) -> Iterator[str]:
    yield from faults(run)
    if run.record.verdict != "VALID":
        return
    yield from (f"log does not comply: {v.tool}: {finding}" for v in check(run.log).verdicts for finding in v.findings)
    if last(run.lines, "resumed"):
        yield "was interrupted and resumed: the runs of a contract are of one piece"
    yield from contradictions(run)
    begun = run.log.with_suffix(".config.json")
    if begun.exists():
        try:
            config = json.loads(begun.read_bytes())["config"]
        except (OSError, ValueError, KeyError, TypeError):
            config = None
        if config != run.record.config:
            yield f"{begun.name}, written as the run began, has another configuration or seed than the record"


def _broken(log: Path) -> str | None:
    """What the record of a run that broke says of it: it lacks what a package needs."""
    try:
        content = json.loads(log.with_suffix(".json").read_bytes())
        if content["verdict"] == "INVALID":
            return f"{log} is INVALID: {'; '.join(content['reasons'])}"
    except FileNotFoundError:
        return f"{log} has no record beside it: the run did not come to its end"
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _missing(folder: Path) -> Iterator[str]:
    """Numbers that a folder lacks: runs are numbered from 0, and the number is taken as a run begins."""
    there: dict[int, set[str]] = {}
    for path in folder.iterdir():
        if match := _FILE.fullmatch(path.name):
            there.setdefault(int(match[1]), set()).add(match[2])
    for number in range(max(there, default=-1) + 1):
        name = folder / f"result_{number}.txt"
        if number not in there:
            yield f"{name} is missing: the runs in a results directory are numbered from 0 without a gap"
        elif "txt" not in there[number]:
            yield f"{name} is missing, of which {', '.join(sorted(there[number]))} is there: the run was begun"
