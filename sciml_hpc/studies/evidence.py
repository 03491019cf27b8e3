"""Results as somebody hands them in: every run below a directory, what is wrong with it, and what was left out.

A record is checked against its log, its epochs and itself, because a figure in JSON is easily edited. What no file can
show is said in `acceptance.py`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sciml_hpc.errors import UserError, explain
from sciml_hpc.results import figures, logfile
from sciml_hpc.results.check import check
from sciml_hpc.results.conduct import close_s
from sciml_hpc.results.logfile import last, last_mapping
from sciml_hpc.results.runs import Run, faults, load
from sciml_hpc.training.loop import Epoch

_FILE = re.compile(r"result_(\d+)\.(txt|json|config\.json|checkpoint)")
_ENERGIES = ("gpu", "cpu", "dram", "node")


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


def contradictions(run: Run) -> Iterator[str]:
    """Where the figures of a record do not follow from its log, from its epochs, or from each other."""
    try:
        yield from _against_the_log(run)
        yield from _against_itself(run.content)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, ArithmeticError) as error:
        yield f"its record is malformed: {type(error).__name__}: {error}"


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


def _against_the_log(run: Run) -> Iterator[str]:
    content, lines = run.content, run.lines
    epochs, job, log = [Epoch(**e) for e in content["epochs"]], content["job"], logfile.figures(lines)
    if log is None:
        return
    if last(lines, "resumed"):
        yield "was interrupted and resumed: the runs of a contract are of one piece"
    if [e.epoch for e in epochs] != list(range(1, log.epochs + 1)):
        yield f"has {len(epochs)} epochs in the record, {log.epochs} in the log"
    yield from _epochs(lines, epochs, job)
    for key, name in (
        ("number_of_nodes", "nodes"),
        ("number_of_ranks", "ranks"),
        ("accelerators_per_node", "accelerators_per_node"),
        ("global_batch_size", "global_batch"),
        ("train_samples", "train_samples"),
        ("eval_samples", "eval_samples"),
    ):
        if run.logged(key) != job[name]:
            yield f"{key} is {run.logged(key)!r} in the log, {job[name]!r} in the record"
    if job["index_sha256"] != run.record.dataset.index_sha256:
        yield "the record names two data sets"
    if len(set(job["hosts"])) != job["nodes"]:
        yield f"names {len(set(job['hosts']))} hosts for {job['nodes']} nodes"
    target = last_mapping(lines, "target")
    judged, given = last(lines, str(target.get("metric"))), content["metrics"].get(target.get("name"))
    if judged is None or judged.value != given:
        yield f"{target.get('name')} is {given!r} in the record, {judged and judged.value!r} in the log"
    state = (last(lines, "cache_clear") or lines[0]).metadata.get("state")
    if content["io"]["cache_state"] != state:
        yield f"the cache is {content['io']['cache_state']} in the record, {state} in the log"
    staged = last(lines, "staging_stop")
    for name, value in (staged.metadata if staged else {}).items():
        if name.endswith("_bytes") and not _same(content["staging"].get(name), value):
            yield f"staging.{name} is {content['staging'].get(name)!r} in the record, {value!r} in the log"
    result = last_mapping(lines, "result")
    if "samples_per_s" in result and not _same(content["throughput"]["samples_per_s"], result["samples_per_s"]):
        yield (
            f"throughput.samples_per_s is {content['throughput']['samples_per_s']!r} in the record, "
            f"{result['samples_per_s']!r} in the log"
        )
    derived = figures.times(log, epochs, content["time"].get("startup_s", 0.0))
    yield from _differing("time", content, derived)
    yield from _differing("throughput", content, figures.throughput(epochs))
    yield from _differing("io", content, figures.stall(epochs))


def _epochs(lines: Sequence[logfile.Line], epochs: Sequence[Epoch], job: Mapping[str, Any]) -> Iterator[str]:
    """The epochs of a record against their lines in the log."""
    marks: dict[tuple[str, Any], int] = {}
    stats: dict[Any, dict[str, Any]] = {}
    for line in lines:
        number = line.metadata.get("epoch_num")
        if line.key in ("epoch_start", "epoch_stop"):
            marks[line.key, number] = line.time_ms
        elif line.key == "tracked_stats" and isinstance(line.value, dict):
            stats.setdefault(number, {}).update(line.value)
    for e in epochs:
        wall_s = (marks["epoch_stop", e.epoch] - marks["epoch_start", e.epoch]) / 1000
        if not close_s(e.train_s, wall_s):
            yield f"epoch {e.epoch} took {e.train_s:.6g} s in the record; the log's lines give {wall_s:.6g} s"
        for name, unit, value in (
            ("throughput", " samples/s", e.samples / e.train_s),
            ("train_loss", " as loss", e.train_loss),
        ):
            told = stats.get(e.epoch, {}).get(name)
            if told is not None and not _same(told, value):
                yield f"epoch {e.epoch} gives {value:.6g}{unit} in the record, {told!r} in the log"
        if not job["train_samples"] - job["global_batch"] < e.samples <= job["train_samples"]:
            yield f"epoch {e.epoch} trained on {e.samples} samples of {job['train_samples']}"


def _against_itself(content: Mapping[str, Any]) -> Iterator[str]:
    """Ratios against what they were made of, as far as the record has both."""
    job, rate = content["job"], content["throughput"]["samples_per_s"]
    if content.get("reported_ranks", job["ranks"]) != job["ranks"]:
        yield f"{content['reported_ranks']} of {job['ranks']} ranks reported"
    staging = content["staging"]
    if staging.get("read_amplification") is not None:
        true = {"read_amplification": staging["shared_read_bytes"] / job["data_bytes"]}
        yield from _differing("staging", content, true)
    if staging.get("staging_bytes_per_s") is not None:
        true = {"staging_bytes_per_s": staging["staging_bytes"] / staging["staging_s"]}
        yield from _differing("staging", content, true)
    if staging.get("staging_s", 0) > content["time"]["staging_s"] + 0.1:
        yield f"staging.staging_s is {staging['staging_s']!r}; the log's lines give {content['time']['staging_s']!r}"
    communication = content["communication"]
    if communication.get("exposed_comm_fraction") is not None:
        step, alone = communication["step_s"], communication["step_without_allreduce_s"]
        true = {
            "exposed_comm_fraction": max(0.0, (step - alone) / step),
            "step_parallel_efficiency": min(1.0, alone / step),
        }
        yield from _differing("communication", content, true)
    nodes = content["nodes"]
    if nodes.get("node_spread") is not None:
        low, high = nodes["node_samples_per_s"]["min"], nodes["node_samples_per_s"]["max"]
        middle, spread = nodes["node_samples_per_s"]["median"], nodes["node_spread"]
        if not (
            low <= middle <= high and (high - low) / high * (1 - 1e-9) <= spread <= (high - low) / low * (1 + 1e-9)
        ):
            yield f"nodes.node_spread is {spread!r}; the nodes' figures are {low!r}, {middle!r} (median) to {high!r}"
    compute = content["compute"]
    if compute.get("flop_per_s") is not None:
        true = {"flop_per_s": rate * compute["flops_per_sample"]}
        if compute.get("ceiling_flop_per_s"):
            true["mfu_measured"] = true["flop_per_s"] / job["ranks"] / compute["ceiling_flop_per_s"]
        yield from _differing("compute", content, true)
    energy = content["energy"]
    for kind in _ENERGIES:
        source = energy.get(f"{kind}_provenance")
        if energy.get(f"{kind}_energy_J") is not None and source != "measured":
            yield f"energy.{kind}_energy_J is given, but its source is {source!r} and not measured"
        total, integrated = energy.get(f"{kind}_energy_J"), energy.get(f"{kind}_integrated_power_J")
        doubted = energy.get(f"{kind}_disagreeing_devices")
        if total is not None and integrated is not None and not doubted and abs(integrated - total) > 0.05 * total:
            yield f"energy.{kind}_energy_J is {total!r}; integrated power gives {integrated!r}, and no device disagrees"
    if energy.get("gpu_J_per_sample") is not None:
        samples = sum(e["samples"] for e in content["epochs"])
        yield from _differing("energy", content, {"gpu_J_per_sample": energy["gpu_phases_J"]["training"] / samples})


def _differing(section: str, content: Mapping[str, Any], true: Mapping[str, Any]) -> Iterator[str]:
    for name, value in true.items():
        given = content[section].get(name)
        if not _same(given, value):
            yield f"{section}.{name} is {given!r} in the record; it follows that it is {value!r}"


def _same(a: Any, b: Any) -> bool:
    """Equal, but for the last digits of a number that was computed in another order."""
    if type(a) in (int, float) and type(b) in (int, float):
        return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)
    return a == b
