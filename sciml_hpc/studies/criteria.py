"""The figures that a contract bounds: a metric's values in runs, their statistic, and the runs to blame for a miss."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from sciml_hpc.errors import UserError, did_you_mean
from sciml_hpc.results import figures, logfile
from sciml_hpc.results.statistics import summarise
from sciml_hpc.studies.contract import EFFICIENCIES, Case, Check
from sciml_hpc.studies.evidence import Evidence, leaves

NAMED = 8
"""Runs that are named with their figures under a check that was missed."""
_NO_FIGURES = ("config.", "code.", "system.", "dataset.", "job.", "fom.")
"""Sections of a record in which a short name is not looked for: they say what was run, or repeat a figure."""


def values_of(check: Check, e: Evidence, reference: Mapping[str, Any] | None) -> list[float] | str:
    """The values of a metric in one run, or why there are none."""
    content, metric = e.run.content, check.metric
    if metric in EFFICIENCIES:
        value = figures.efficiency(_sizes(e), reference, None)[metric]
        return [value] if _number(value) else "it cannot be given: only runs to a target have it"
    if metric == "node_samples_per_s":
        nodes = content["nodes"]
        given = nodes.get("node_samples_per_s")
        value = given.get(check.stat) if isinstance(given, Mapping) else None
        value = nodes.get("node_spread") if check.stat == "range_over_mean" else value
        return [value] if _number(value) else str(nodes.get("node_reason") or "the record has no figures of nodes")
    if metric == "epoch_s" or metric.startswith("epochs."):
        field = "train_s" if metric == "epoch_s" else metric.removeprefix("epochs.")
        steady = content["epochs"][1:]
        values = [epoch.get(field) for epoch in steady]
        if not values or not all(map(_number, values)):
            return f"its epochs after the first ({len(steady)}) have no figure {field!r}"
        return values
    if metric.startswith("log."):
        times = logfile.figures(e.run.lines)
        value = getattr(times, metric.removeprefix("log."), None)
        return [value] if _number(value) else "its log gives no such figure"
    name, given = resolved(metric, e), dict(leaves(content))
    value = given.get(name)
    if _number(value):
        return [value]
    if name not in given and not any(given.get(above, 0) is None for above in _above(name)):
        known = {n for n, v in given.items() if _number(v) and not n.startswith(_NO_FIGURES)}
        known |= {n.rpartition(".")[2] for n in known}
        return f"the record has no figure {metric!r}{did_you_mean(metric, known)}"
    return f"{name} was not measured: {_reason(content, name)}"


def resolved(metric: str, e: Evidence) -> str:
    """The dotted name of a metric; itself if the record has none that ends in it.

    Raises UserError for a name that several figures have.
    """
    if "." in metric:
        return metric
    names = [name for name, _ in leaves(e.run.content) if name.rpartition(".")[2] == metric]
    names = sorted(name for name in names if not name.startswith(_NO_FIGURES) and "[" not in name)
    if len(names) > 1:
        raise UserError(f"metric {metric!r} could be {' or '.join(names)}: the contract must say which")
    return names[0] if names else metric


def statistic(check: Check, values: Sequence[float]) -> float | None:
    summary = summarise(values)
    if check.metric == "node_samples_per_s" and check.stat == "range_over_mean":
        return summary.max  # each value is the spread of one run
    if check.stat != "range_over_mean":
        return getattr(summary, check.stat)
    return (summary.max - summary.min) / abs(summary.mean) if len(values) > 1 and summary.mean else None


def _sizes(e: Evidence) -> dict[str, Any]:
    """What the efficiencies are made of."""
    time = e.run.content["time"]
    return {
        "ranks": e.run.logged("number_of_ranks"),
        "samples_per_s": e.run.content["throughput"].get("samples_per_s"),
        "converged_epoch": time.get("converged_epoch"),
        "time_to_convergence_excl_staging_s": time.get("time_to_convergence_excl_staging_s"),
    }


def medians(runs: Sequence[Evidence]) -> dict[str, float | None]:
    tables = [_sizes(e) for e in runs]
    columns = {name: [table[name] for table in tables] for name in tables[0]}
    return {name: None if None in column else median(column) for name, column in columns.items()}


def merit_of(case: Case, runs: Sequence[Evidence]) -> dict[str, float]:
    """The figures of merit of a run, as medians: throughput, and the time of the work or to convergence."""
    names = {"samples_per_s": "throughput.samples_per_s"}
    if case.epochs is not None:
        names |= {f"time_of_{case.epochs}_epochs_s": "time.train_s"}
    else:
        names |= {"time_to_convergence_s": "time.time_to_convergence_s"}
    tables = [dict(leaves(e.run.content)) for e in runs]
    return {short: median(table[name] for table in tables) for short, name in names.items()}


def doubtful_energy(e: Evidence, name: str) -> Iterator[str]:
    """Why a figure of energy is not to be relied on, though the record gives it."""
    energy, kind = e.run.content["energy"], name.removeprefix("energy.").partition("_")[0]
    doubted = energy.get(f"{kind}_disagreeing_devices")
    if isinstance(doubted, list) and doubted:
        yield f"counter and integrated power of {', '.join(map(str, doubted))} are more than 5 % apart"
    used = e.run.logged("number_of_nodes") * e.run.logged("accelerators_per_node")
    if kind == "gpu" and energy.get("gpu_devices") != used:
        yield f"the energy of {energy.get('gpu_devices')} GPUs is given; {used} were used"


def by_run(check: Check, runs: Sequence[Evidence], series: Sequence[Sequence[float]]) -> Iterator[str]:
    """The runs whose values are worst, by file and node."""
    values = [median(part) for part in series]
    middle, low = median(values), check.bounds()[0]
    if check.stat in ("cv", "range_over_mean") and check.metric != "node_samples_per_s":
        order = sorted(range(len(values)), key=lambda i: -abs(values[i] - middle))
    else:
        order = sorted(range(len(values)), key=lambda i: values[i] if low is not None else -values[i])
    for i in order[:NAMED]:
        where = f" on {', '.join(runs[i].hosts[:4])}{', …' if len(runs[i].hosts) > 4 else ''}" if runs[i].hosts else ""
        yield f"{runs[i].run.name}: {values[i]:.6g}{where}"


def expected_of(check: Check) -> str:
    low, high = check.bounds()
    bounds = [f"{sign} {value:.6g}" for sign, value in (("≥", low), ("≤", high)) if value is not None]
    return " ".join(filter(None, (" and ".join(bounds), check.unit_shown)))


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _above(name: str) -> Iterator[str]:
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def _reason(content: Mapping[str, Any], name: str) -> str:
    """The record's own reason for a null: of its `…_reason` fields the one whose name has most in common."""
    section, _, last = name.rpartition(".")
    inner: Any = content
    for part in section.split(".") if section else ():
        inner = inner.get(part) if isinstance(inner, Mapping) else None
    reasons = {k.removesuffix("_reason"): v for k, v in (inner or {}).items() if k.endswith("_reason") and v}
    fitting = sorted((stem for stem in reasons if last.startswith(stem)), key=len)
    return str(reasons[fitting[-1]]) if fitting else "the record gives null"
