"""The file of an acceptance contract: sizes to be run, how, and the figures a vendor has signed for.

A contract has cases. A case is one set of runs (a benchmark at one size, repeated) and the checks on its figures. It
says all that a run could be made faster by: code, data by their hash, configuration, batch, work, state of the caches.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from sciml_hpc.benchmarks import find
from sciml_hpc.benchmarks.base import Recipe, Settings
from sciml_hpc.config import describe_keys, resolve
from sciml_hpc.errors import UserError, did_you_mean, explain

_HASH, _COMMIT = r"^[0-9a-f]{64}$", r"^[0-9a-f]{40}$"
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"

EFFICIENCIES = ("throughput_efficiency", "convergence_efficiency", "time_efficiency", "overhead_efficiency")
"""Metrics of a check with `against`: the design page's definitions, for a case against the median run of another."""

PORTED = ("loader.prefetch", "loader.threads", "communication.fusion_bytes", "communication.cycle_ms")
"""What of the configuration a ported run may change: how the same arithmetic is fed and joined."""
OPTIMISED = (
    *PORTED,
    "communication.compression",
    *(f"train.{name}" for name in Recipe.model_fields if name not in ("global_batch", "epochs", "shuffle")),
)
"""An optimised run may change optimiser, schedule and precision, too; not the network, the batch or the work."""
TIERS = {"baseline": (), "ported": PORTED, "optimised": OPTIMISED}

_STATED = {
    "benchmark": "benchmark",
    "task": "task",
    "dataset": "dataset.name",
    "scaling": "scaling",
    "fixed_epochs": "epochs (or target)",
    "train.global_batch": "global_batch",
    "train.epochs": "epochs",
    "seed": "seeds",
}
"""Keys of the configuration that follow from fields of the case."""


class Code(Settings):
    """The code that must have run; a run from a tree with changes is that code only by its `source_sha256`."""

    commit: str | None = Field(None, pattern=_COMMIT)
    source_sha256: str | None = Field(None, pattern=_HASH)
    """As the record of a run gives it: identifies the code where it has no repository."""


class Data(Settings):
    """The data set, as the record of a run names it."""

    name: str
    index_sha256: str = Field(pattern=_HASH)
    """SHA-256 of the shards' index, and so of every shard."""


class Goal(Settings):
    """The quality that a run to convergence must reach."""

    metric: str
    direction: Literal["max", "min"]
    value: float


class Configuration(Settings):
    """What the configuration of a run must be: by its hash, or as a preset with changes."""

    sha256: str | None = Field(None, pattern=_HASH)
    """Nothing may differ but the seed, whatever the tier."""
    preset: Literal["tiny", "small", "node", "full"] | None = None
    set: dict[str, Any] = Field(default_factory=dict)
    """Changes to the preset, as those of `--set`."""
    may_differ: tuple[str, ...] = ()
    """Keys, or sections of them, that the vendor may choose besides those of the tier."""


class Check(Settings):
    """One figure that was signed for: a statistic of a metric over the runs, and its bounds."""

    metric: str
    """A figure of the record by its dotted name, or by its last part where that is unambiguous; `epoch_s` and
    `epochs.FIELD` (every epoch but the first); `node_samples_per_s`; `log.` and a figure of the log; an efficiency."""
    stat: Literal["min", "median", "max", "mean", "olympic_mean", "cv", "range_over_mean"]
    ge: float | None = None
    """At least."""
    le: float | None = None
    """At most."""
    reference: tuple[float, float | None, float | None, str] | None = None
    """ReFrame's form: value, lower and upper tolerance as fractions (−0.1, 0.1; null: unbounded), unit."""
    unit: str = ""
    gate: bool = False
    """Whether a miss makes the whole set INVALID, instead of too slow."""
    against: str | None = None
    """The case whose median run an efficiency is measured against."""

    @property
    def name(self) -> str:
        """What is checked, in words."""
        return f"{self.stat} of {self.metric}" + (f" against {self.against}" if self.against else "")

    @property
    def unit_shown(self) -> str:
        """The unit, wherever it was written."""
        return self.reference[3] if self.reference else self.unit

    def bounds(self) -> tuple[float | None, float | None]:
        """Lowest and highest accepted value; None: unbounded."""
        if self.reference is None:
            return self.ge, self.le
        value, lower, upper, _ = self.reference
        return (
            None if lower is None else value + abs(value) * lower,
            None if upper is None else value + abs(value) * upper,
        )


class Case(Settings):
    """One set of runs and the checks on it."""

    benchmark: str
    task: str = ""
    tier: Literal["baseline", "ported", "optimised"] = "baseline"
    """What of the configuration the vendor may change (TIERS)."""
    nodes: int = Field(ge=1)
    ranks: int | None = Field(None, ge=1)
    ranks_per_node: int | None = Field(None, ge=1)
    scaling: Literal["strong", "weak"] = "strong"
    global_batch: int = Field(ge=1)
    """Samples per step over all ranks, as the log gives it."""
    epochs: int | None = Field(None, ge=1)
    """Fixed work: so many epochs, whatever the metric."""
    target: Goal | None = None
    """Work to convergence, in place of `epochs`."""
    dataset: Data
    code: Code | None = None
    """In place of the contract's."""
    configuration: Configuration
    cache: Literal["cold", "any"] = "cold"
    """cold: the page cache was dropped and was seen to be empty, and nothing was staged beforehand."""
    repeats: int = Field(ge=1)
    """Runs that count."""
    warm_up: int = Field(0, ge=0)
    """Runs before them that do not: the first by time."""
    seeds: tuple[int, ...] | None = None
    """Seeds of all runs, warm-up included, in any order; without them any, each once."""
    distinct_hosts: bool = False
    """Whether no host may take part in two runs: screening, where each run has its own nodes."""
    max_pause_s: float | None = Field(None, gt=0)
    """Longest pause from the end of a run to the beginning of the next, in which others could have been left out."""
    gated_by: str | None = None
    """The case whose runs show that this work converges; where it is not valid, nor is this one."""
    checks: tuple[Check, ...] = Field(min_length=1)

    @property
    def size(self) -> int:
        """Number of ranks."""
        return self.ranks or self.nodes * (self.ranks_per_node or 1)

    def key(self) -> tuple[Hashable, ...]:
        """By what runs find their case."""
        return self.benchmark, self.task, self.nodes, self.size, self.scaling, self.epochs is not None

    def config(self) -> dict[str, Any] | None:
        """The configuration less its seed, by dotted names; None where only its hash is contracted.

        Raises UserError for a preset or key that the benchmark does not have.
        """
        if self.configuration.preset is None:
            return None
        # A simulated data set that grows with the ranks is called after the one it grew from.
        dataset = re.sub(f"-x{self.size}$", "", self.dataset.name) if self.scaling == "weak" else self.dataset.name
        options = {
            "train.global_batch": self.global_batch if self.scaling == "strong" else self.global_batch // self.size,
            "train.epochs": self.epochs,
            "fixed_epochs": self.epochs is not None,
            "scaling": self.scaling,
        }
        config, _ = resolve(
            find(self.benchmark, self.task or None),
            preset=self.configuration.preset,
            dataset=dataset,
            assignments=[f"{key}={json.dumps(value)}" for key, value in self.configuration.set.items()],
            options=options,
        )
        return flat(config.model_dump(mode="json", exclude={"seed"}))

    def free(self) -> tuple[str, ...]:
        """Keys and sections of the configuration that the vendor may choose."""
        return (*TIERS[self.tier], *self.configuration.may_differ)


class Contract(Settings):
    """The whole file."""

    name: str
    template: bool = False
    """The figures are placeholders: the file is read, but nothing is judged by it."""
    submitter: str | None = None
    """The organisation that every log must name (`--org`)."""
    code: Code | None = None
    system: dict[str, Any] = Field(default_factory=dict)
    """Hardware and software that every node must have, by the names of the record's description of a node, as
    `hardware.gpus[*].power_limit_W: 700`."""
    cases: dict[str, Case] = Field(min_length=1)

    def code_of(self, case: Case) -> Code:
        """The code that a case's runs must have run."""
        return case.code or self.code or Code()


@dataclass(frozen=True)
class Loaded:
    """A contract and the file it came from."""

    path: Path
    sha256: str
    contract: Contract


def load(path: Path) -> Loaded:
    """The contract in a file. Raises UserError naming file, field, what was found and what is allowed."""
    try:
        content = path.read_bytes()
        parsed = yaml.load(content, Loader=_Loader)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(parsed, dict):
        raise UserError(f"{path}: must be a mapping with {', '.join(Contract.model_fields)}; found {parsed!r}")
    try:
        contract = Contract.model_validate(parsed)
    except ValidationError as error:
        raise explain(str(path), error, Contract) from None
    faults = [f"{path}: {fault}" for fault in _faults(contract)]
    if faults:
        raise UserError("\n".join(faults))
    return Loaded(path, hashlib.sha256(content).hexdigest(), contract)


def flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings by dotted names."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def covers(names: tuple[str, ...], key: str) -> bool:
    """Whether a key, or a section it stands in, is among `names`."""
    return any(key == name or key.startswith(f"{name}.") for name in names)


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice: the first would be lost without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for number, key in enumerate(keys):
            if key in keys[:number]:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is there twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _faults(contract: Contract) -> list[str]:
    """What is wrong between the fields."""
    found = []
    for clause, code in (("code", contract.code), *((f"cases.{n}.code", c.code) for n, c in contract.cases.items())):
        if code is not None and code.commit is None and code.source_sha256 is None:
            found.append(f"{clause}: needs commit or source_sha256")
    twins: dict[Hashable, str] = {}
    for name, case in contract.cases.items():
        where = f"cases.{name}"
        if not re.fullmatch(_NAME, name):
            found.append(f"cases: a name must be letters, digits, '.', '-' and '_'; found {name!r}")
        found += [f"{where}.{fault}" for fault in (*_of_case(contract, case), *_others(contract, name))]
        found += [f"{where}.checks.{i}: {f}" for i, c in enumerate(case.checks) for f in _of_check(contract, case, c)]
        asked = case.model_dump_json(include=set(_ASKED)) + str(contract.code_of(case))
        if (twin := twins.setdefault(asked, name)) != name:
            found.append(f"{where}: asks for the same runs as cases.{twin}: put the checks of both into one")
    return found or _circles(contract)


_ASKED = (
    *("benchmark", "task", "nodes", "ranks", "ranks_per_node", "scaling", "global_batch", "epochs", "target"),
    *("dataset", "configuration", "tier", "cache"),
)


def _of_case(contract: Contract, case: Case) -> list[str]:
    found = []
    if (case.ranks is None) == (case.ranks_per_node is None):
        found.append("ranks: needs either ranks or ranks_per_node")
    if case.size % case.nodes:
        found.append(f"ranks: found {case.size}; must be a multiple of the {case.nodes} nodes")
    if case.global_batch % case.size:
        found.append(f"global_batch: found {case.global_batch}; must be shared evenly by the {case.size} ranks")
    if (case.epochs is None) == (case.target is None):
        found.append("epochs: needs either epochs (fixed work) or target (to convergence)")
    if case.code is None and contract.code is None:
        found.append("code: needs a commit or source_sha256, here or for the whole contract")
    if case.seeds is not None and len(case.seeds) != case.repeats + case.warm_up:
        runs = case.repeats + case.warm_up
        found.append(f"seeds: found {len(case.seeds)}; must be one for each of the {runs} runs (repeats and warm_up)")
    if case.seeds is not None and len(set(case.seeds)) < len(case.seeds):
        found.append("seeds: one is there twice; a seed twice is the same run twice")
    configuration = case.configuration
    if (configuration.sha256 is None) == (configuration.preset is None):
        return [*found, "configuration: needs either sha256 or preset"]
    if configuration.sha256 is not None and (configuration.set or configuration.may_differ):
        found.append("configuration: set and may_differ go with preset; a hash leaves nothing open")
    for key in configuration.set:
        if key in _STATED and not (key == "train.epochs" and case.epochs is None):
            found.append(f"configuration.set: {key} is not set here: it follows from {_STATED[key]}")
    try:
        benchmark = find(case.benchmark, case.task or None)
        if case.task != benchmark.task:
            found.append(f"task: found {case.task!r}; {case.benchmark} needs one, as {benchmark.task!r}")
        case.config()
    except UserError as error:
        return [*found, f"configuration: {error}"]
    known = [key for key, _, _ in describe_keys(benchmark)]
    for name in configuration.may_differ:
        if not any(covers((name,), key) for key in known):
            found.append(f"configuration.may_differ: unknown key {name!r}{did_you_mean(name, known)}")
        closed = [key for key in (*_STATED, "measure", "loader.drop_cache") if covers((name,), key) or name in key]
        if closed or name.startswith("measure."):
            found.append(f"configuration.may_differ: {name} cannot be left open: work, data and measurement are fixed")
    return found


def _others(contract: Contract, name: str) -> list[str]:
    """What is wrong in how a case leans on others."""
    found = []
    case = contract.cases[name]
    for field, other in (
        ("gated_by", case.gated_by),
        *((f"checks.{i}.against", c.against) for i, c in enumerate(case.checks)),
    ):
        if other is None:
            continue
        if other not in contract.cases or other == name:
            cases = [n for n in contract.cases if n != name]
            found.append(
                f"{field}: found {other!r}{did_you_mean(other, cases)}; must be another case: {', '.join(cases)}"
            )
            continue
        there = contract.cases[other]
        same = ["benchmark", "task", "scaling"]
        if field == "gated_by":
            same += ["nodes", "size", "global_batch", "dataset", "tier"]
            if there.target is None:
                found.append(f"gated_by: {other} does fixed work; a gate is a case with a target")
        for part in same:
            if getattr(case, part) != getattr(there, part):
                found.append(
                    f"{field}: {other} has another {'number of ranks' if part == 'size' else part}: "
                    f"{getattr(there, part)!r}, not {getattr(case, part)!r}"
                )
    return found


def _of_check(contract: Contract, case: Case, check: Check) -> list[str]:
    found = []
    if check.reference is None and check.ge is None and check.le is None:
        found.append("needs ge, le or reference")
    if check.reference is not None:
        value, lower, upper, _ = check.reference
        if check.ge is not None or check.le is not None or check.unit:
            found.append("reference: stands alone; ge, le and unit are other ways to say it")
        if value == 0:
            found.append("reference: found 0; tolerances are fractions of it: use ge and le")
        if (lower is not None and not -1 <= lower <= 0) or (upper is not None and upper < 0):
            found.append(f"reference: found tolerances {lower}, {upper}; must be from −1 to 0, and from 0 up")
        if lower is None and upper is None:
            found.append("reference: both tolerances are null: nothing is asked")
    elif check.ge is not None and check.le is not None and check.ge > check.le:
        found.append(f"ge: found {check.ge}, above le, {check.le}: no value would do")
    if (check.metric in EFFICIENCIES) != (check.against is not None):
        found.append(f"against: goes with {', '.join(EFFICIENCIES)}, and they with it; metric is {check.metric!r}")
    if check.metric == "node_samples_per_s" and check.stat not in ("min", "median", "max", "range_over_mean"):
        found.append(f"stat: found {check.stat!r}; records have min, median, max and range_over_mean of {check.metric}")
    pooled = check.metric == "epoch_s" or check.metric.startswith("epochs.") or check.metric == "node_samples_per_s"
    needed = {"cv": 2, "range_over_mean": 2, "olympic_mean": 3}.get(check.stat, 1)
    if not pooled and case.repeats < needed:
        found.append(f"stat: {check.stat} needs at least {needed} repeats; the case has {case.repeats}")
    return found


def _circles(contract: Contract) -> list[str]:
    def walk(name: str, above: tuple[str, ...]) -> list[str]:
        if name in above:
            return [f"cases.{name}: leans on itself: {' → '.join((*above, name))}"]
        case = contract.cases[name]
        below = dict.fromkeys(o for o in (case.gated_by, *(c.against for c in case.checks)) if o)
        return [fault for other in below for fault in walk(other, (*above, name))]

    return list(dict.fromkeys(fault for name in contract.cases for fault in walk(name, ())))[:1]
