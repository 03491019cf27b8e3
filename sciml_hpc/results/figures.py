"""The figures of a run, each by its definition in the design page, from what ranks and nodes measured.

Pure arithmetic on plain values, so that each figure can be checked by hand; a figure that was not measured is null, and
a `…_reason` beside it says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, median
from typing import Any

from sciml_hpc.metering.compute import datasheet_peak, mfu
from sciml_hpc.results.logfile import Figures
from sciml_hpc.training.loop import Epoch


def total_of(parts: Iterable[float | None]) -> float | None:
    """The sum; None if a part is."""
    known = list(parts)
    return None if any(p is None for p in known) else sum(known)


def _mean(parts: Iterable[float | None]) -> float | None:
    known = list(parts)
    return fmean(known) if known and None not in known else None


def throughput(epochs: Sequence[Epoch]) -> dict[str, Any]:
    """`samples_per_s`: training samples of the steady epochs ÷ their wall time (of the first, if it is alone);
    `train_s_per_sample`: its inverse, the SciML suite's training time per sample.
    """
    steady = list(epochs[1:]) or list(epochs)
    if not steady:
        return {
            "samples_per_s": None,
            "train_s_per_sample": None,
            "samples_per_s_basis": "no epoch was finished",
        }
    samples, seconds = sum(e.samples for e in steady), sum(e.train_s for e in steady)
    return {
        "samples_per_s": samples / seconds,
        "train_s_per_sample": seconds / samples,
        "samples_per_s_basis": f"epochs 2 to {steady[-1].epoch}"
        if len(epochs) > 1
        else "the first epoch, the only one",
        "first_epoch_samples_per_s": epochs[0].samples / epochs[0].train_s,
    }


def times(log: Figures, epochs: Sequence[Epoch], startup_s: float) -> dict[str, Any]:
    """Times of the run by its log, and of its epochs."""
    convergence = log.time_to_convergence_s
    steady = list(epochs[1:])
    return {
        "time_to_convergence_s": convergence,
        "time_to_convergence_excl_staging_s": None if convergence is None else convergence - log.staging_s,
        "staging_s": log.staging_s,
        "run_s": log.run_s,
        "interrupted_s": log.interrupted_s,
        "startup_s": startup_s,
        "train_s": sum(e.train_s for e in epochs),
        "evaluation_s": sum(e.eval_s for e in epochs),
        "first_epoch_s": epochs[0].train_s if epochs else None,
        "steady_epoch_s": median(e.train_s for e in steady) if steady else None,
        "step_p50_s": _mean(e.step_p50_s for e in epochs),
        "step_p95_s": _mean(e.step_p95_s for e in epochs),
        "step_max_s": max((e.step_max_s for e in epochs if e.step_max_s is not None), default=None),
        "epochs": log.epochs,
        "converged_epoch": log.converged_epoch,
    }


def stall(epochs: Sequence[Epoch]) -> dict[str, Any]:
    """`data_stall_fraction`: time real steps waited for data ÷ time of the steps; `au` = 1 − it (MLPerf Storage)."""
    result: dict[str, Any] = {}
    for name, some in (("first_epoch_", epochs[:1]), ("", epochs[1:] or epochs[:1])):
        total = sum(e.train_s for e in some)
        waited = total_of(e.wait_s for e in some)
        fraction = waited / total if total and waited is not None else None
        result[f"{name}data_stall_fraction"] = fraction
        result[f"{name}au"] = None if fraction is None else 1 - fraction
    return result


def staging(report: Mapping[str, Any], per_node_s: Sequence[float], data_bytes: int, mode: str) -> dict[str, Any]:
    """Staging over the whole job. `read_amplification`: bytes read from shared storage ÷ bytes of the data set."""
    seconds = max(per_node_s, default=0.0)
    moved = report["shared_read_bytes"] + report["received_bytes"]
    return {
        "staging_mode": mode,
        "staging_s": seconds,
        "staging_node_s_min": min(per_node_s, default=0.0),
        "staging_node_s_median": median(per_node_s) if per_node_s else 0.0,
        "staging_bytes": moved,
        "staging_bytes_per_s": moved / seconds if seconds and moved else None,
        "shared_read_bytes": report["shared_read_bytes"],
        "received_bytes": report["received_bytes"],
        "written_bytes": report["written_bytes"],
        "reused_bytes": report["reused_bytes"],
        "read_amplification": report["shared_read_bytes"] / data_bytes if mode != "none" else None,
    }


def compute(counted: Mapping[str, Any] | None, samples_per_s: float | None, ranks: int, device: str) -> dict[str, Any]:
    """`flop_per_s` of the job (operations per sample × samples per second), and per rank its share of two ceilings:
    the one measured on the device, and the datasheet's where the device is in the table (else null, never a guess).
    """
    if counted is None:
        return {"flops_per_sample": None, "compute_reason": "not asked for (measure.ceiling_s)"}
    rate = samples_per_s * counted["flops_per_sample"] if samples_per_s else None
    peak = datasheet_peak(device, counted["arithmetic"])
    return {
        **counted,
        "flop_per_s": rate,
        "mfu_measured": mfu(rate / ranks, counted["ceiling_flop_per_s"]) if rate else None,
        "mfu_datasheet": mfu(rate / ranks, peak.flop_per_s) if rate and peak else None,
        "datasheet_flop_per_s": peak.flop_per_s if peak else None,
        "datasheet_source": peak.source if peak else f"{device} with {counted['arithmetic']} is not in the table",
    }


def clock(offsets: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Clocks of the nodes against rank 0's, before the run: the largest difference, and its largest uncertainty."""
    return {
        "clock_offset_s_max": max(abs(offset) for offset, _ in offsets),
        "clock_offset_uncertainty_s_max": max(uncertainty for _, uncertainty in offsets),
    }


def nodes(hosts: Sequence[str], rates: Sequence[float | None]) -> dict[str, Any]:
    """Per-node throughput without communication, its spread (max − min) ÷ mean, nodes over 5 % below the median.

    Nodes of a synchronous job all advance at the slowest one's pace; so each is timed by its steps without all-reduce.
    """
    known = [r for r in rates if r is not None]
    if not known:
        return {
            "node_samples_per_s": None,
            "node_spread": None,
            "slow_nodes": [],
            "node_reason": "no calibration was asked for",
        }
    middle = median(known)
    return {
        "node_samples_per_s": {"min": min(known), "median": middle, "max": max(known)},
        "node_spread": (max(known) - min(known)) / fmean(known),
        "slow_nodes": [h for h, r in zip(hosts, rates, strict=True) if r is not None and r < 0.95 * middle],
    }


def efficiency(
    now: Mapping[str, Any], reference: Mapping[str, Any] | None, step_efficiency: float | None
) -> dict[str, Any]:
    """Scaling efficiencies of this run against a reference run at another size, as the design page defines them.

    With N ranks against N0: throughput X·N0/(X0·N), convergence E0/E, time T0·N0/(T·N) with T without staging; overhead
    is what is left of time when throughput and convergence are taken out, so the product is exact. The parallel
    efficiency of the step comes from the calibration and needs no reference.
    """
    result: dict[str, Any] = {"step_parallel_efficiency": step_efficiency}
    if step_efficiency is None:
        result["step_parallel_efficiency_reason"] = "no calibration was asked for"
    names = ("throughput_efficiency", "convergence_efficiency", "time_efficiency", "overhead_efficiency")
    if reference is None:
        return (
            result
            | dict.fromkeys(names)
            | {"efficiency_reason": "no reference run was given (--reference RESULT.json)"}
        )
    n, n0 = now["ranks"], reference["ranks"]
    x = now["samples_per_s"] * n0 / (reference["samples_per_s"] * n)
    e = t = o = None
    if now["converged_epoch"] and reference["converged_epoch"]:
        e = reference["converged_epoch"] / now["converged_epoch"]
        t = reference["time_to_convergence_excl_staging_s"] * n0 / (now["time_to_convergence_excl_staging_s"] * n)
        o = t / (x * e)
    return result | dict(zip(names, (x, e, t, o), strict=True)) | {"reference_ranks": n0}
