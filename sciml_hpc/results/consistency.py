"""Whether the figures of a record follow from its log, from its epochs and from each other: a figure in JSON is easily
edited, a consistent set of them less so."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sciml_hpc.results import figures, logfile
from sciml_hpc.results.conduct import close_s
from sciml_hpc.results.logfile import last, last_mapping
from sciml_hpc.results.runs import Run
from sciml_hpc.training.loop import Epoch

_ENERGIES = ("gpu", "cpu", "dram", "node")


def contradictions(run: Run) -> Iterator[str]:
    """Where the figures of a record do not follow from its log, from its epochs, or from each other."""
    try:
        yield from _against_the_log(run)
        yield from _against_itself(run.content)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, ArithmeticError) as error:
        yield f"its record is malformed: {type(error).__name__}: {error}"


def _against_the_log(run: Run) -> Iterator[str]:
    content, lines = run.content, run.lines
    epochs, job, log = [Epoch(**e) for e in content["epochs"]], content["job"], logfile.figures(lines)
    if log is None:
        return
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
    """The epochs of a record against their lines in the log; but for one in which the run was interrupted: the record
    has only what was left of it to do.
    """
    marks: dict[tuple[str, Any], int] = {}
    stats: dict[Any, dict[str, Any]] = {}
    for line in lines:
        number = line.metadata.get("epoch_num")
        if line.key in ("epoch_start", "epoch_stop"):
            marks[line.key, number] = line.time_ms
        elif line.key == "tracked_stats" and isinstance(line.value, dict):
            stats.setdefault(number, {}).update(line.value)
    rest = {line.metadata.get("epoch_num") for line in lines if line.key == "restored" and line.metadata.get("step")}
    for e in epochs:
        if e.epoch in rest:
            continue
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
