"""The verdict: validity is decided before speed, and a run that is not valid has no figure of merit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import sciml_hpc
from sciml_hpc import errors
from sciml_hpc.console import Console
from sciml_hpc.job import Job
from sciml_hpc.metering import software
from sciml_hpc.parallel.world import World
from sciml_hpc.plan import Plan
from sciml_hpc.recorder import Recorder
from sciml_hpc.results import figures, logfile, record, source
from sciml_hpc.results.check import check
from sciml_hpc.results.system_json import system_json
from sciml_hpc.training.loop import Outcome


def headline(plan: Plan, world: World) -> str:
    """What is about to run, on what."""
    config = plan.config
    hosts = ", ".join(world.hosts[:8]) + (", …" if world.nodes > 8 else "")
    goal = f"{plan.dataset.target.metric} {_sign(plan)} {plan.dataset.target.value:g}"
    return (
        f"{config.benchmark}{' ' + config.task if config.task else ''}, preset {config.preset}, data set "
        f"{plan.dataset_name}, seed {config.seed}: {world.size} rank{'s' * (world.size > 1)} on {world.nodes} "
        f"node{'s' * (world.nodes > 1)} ({hosts}), global batch {plan.global_batch}, "
        + (f"{config.train.epochs} epochs of fixed work" if config.fixed_epochs else f"target {goal}")
    )


def reasons(plan: Plan, outcome: Outcome, reported: int, ranks: int, compliance: Sequence[str]) -> list[str]:
    """Why a run is not valid; empty if it is.

    Valid is: the target was met (or the fixed work done), every rank reported, and the log complies.
    """
    found = []
    target = plan.dataset.target
    if outcome.status == "interrupted":
        found.append(f"interrupted by {outcome.signal} at epoch {outcome.epoch}, step {outcome.step}; --resume goes on")
    elif outcome.status != "success":
        last = outcome.epochs[-1]
        found.append(
            f"target not met: {target.metric} is {last.metrics[target.metric]:.5g} after {last.epoch} epochs, "
            f"must be {_sign(plan)} {target.value:g}"
        )
    if reported != ranks:
        found.append(f"{ranks - reported} of {ranks} ranks did not report")
    if outcome.status == "success":
        found += [f"the log does not comply: {line}" for line in compliance]
    return found


def conclude(
    paths: record.Paths,
    recorder: Recorder,
    plan: Plan,
    job: Job,
    description: Mapping[str, Any] | None,
    outcome: Outcome,
    measured: Mapping[str, Any],
    reference: Mapping[str, Any] | None,
    startup_s: float,
    org: str,
) -> int:
    """Write the record, check the log, print the summary and the last two lines; the exit status. On rank 0."""
    log = recorder.log
    assert log is not None
    times = figures.times(_log_figures(paths), outcome.epochs, startup_s)
    merit = {"samples_per_s": measured["throughput"]["samples_per_s"]}
    if not plan.config.fixed_epochs:
        merit = {"time_to_convergence_s": times["time_to_convergence_s"], **merit}
    if outcome.status != "interrupted":
        log.result({**merit, plan.dataset.target.metric: measured["metrics"].get(plan.dataset.target.metric)})
        log.close()
    report = check(paths.log) if outcome.status != "interrupted" else None
    compliance = [f"{v.tool}: {finding}" for v in report.verdicts for finding in v.findings] if report else []
    why = reasons(plan, outcome, measured["reported_ranks"], job.ranks, compliance)
    verdict = "INVALID" if why else "VALID"
    result = _base(plan, job) | {
        "system": {"name": paths.system_name, **(description or {})},
        "verdict": verdict,
        "reasons": why,
        "fom": merit if verdict == "VALID" else None,
        "status": outcome.status,
        "log_sha256": hashlib.sha256(paths.log.read_bytes()).hexdigest(),
        "compliance": report.lines()[1:] if report else None,
        "time": times,
        **measured,
        "efficiency": figures.efficiency(
            {"ranks": job.ranks, **times, **measured["throughput"]},
            {"ranks": reference["job"]["ranks"], **reference["time"], **reference["throughput"]} if reference else None,
            measured["communication"].get("step_parallel_efficiency"),
        ),
    }
    record.write_json(paths.record, result)
    record.write_json(
        paths.system,
        system_json(
            paths.system_name,
            description or {},
            submitter=org,
            nodes=job.nodes,
            accelerators_per_node=job.accelerators_per_node,
        ),
    )
    record.write_steps(paths.steps, outcome.step_losses)
    if outcome.status != "interrupted" and not plan.config.checkpoint.keep:
        paths.checkpoint.unlink(missing_ok=True)
    console = recorder.console
    for line in summary(result, paths):
        console.line(line)
    caveats = [f"engine {job.engine}: no Horovod"] if job.engine != "horovod" else []
    if plan.config.staging.mode == "none":
        caveats.append("not staged: read in place")
    console.line(f"{verdict}{': ' + '; '.join(why) if why else ''}{f' [{chr(59).join(caveats)}]' if caveats else ''}")
    if why:
        console.line("FOM: none (an invalid run has no figure of merit)")
        return errors.INVALID
    console.line("FOM: " + ", ".join(f"{name} = {value:.6g}" for name, value in merit.items()))
    return errors.VALID


def broken(message: str, speaks: bool, recorder: Recorder, paths: record.Paths, plan: Plan, job: Job) -> None:
    """The end of a run that broke: the log and the record say why; the one rank that speaks tells the user."""
    recorder.fault(message)
    if recorder.log:
        result = _base(plan, job) | {"verdict": "INVALID", "reasons": [message], "fom": None, "status": "fault"}
        record.write_json(paths.record, result)
    if speaks:
        console = Console(True)
        console.error(f"fault: {message}")
        console.line(f"log kept: {paths.log}")
        console.line(f"INVALID: {message}")
        console.line("FOM: none (an invalid run has no figure of merit)")


def summary(result: Mapping[str, Any], paths: record.Paths) -> list[str]:
    """The figures of a run, before the verdict."""
    time, io, staging, energy = (result[name] for name in ("time", "io", "staging", "energy"))
    inference, comm, throughput = result["inference"], result["communication"], result["throughput"]
    rows = [
        ("training", "samples/s", throughput["samples_per_s"], throughput["samples_per_s_basis"]),
        ("time to convergence", "s", time["time_to_convergence_s"], f"of which staging {time['staging_s']:.3f} s"),
        ("data stall", "of step", io["data_stall_fraction"], f"AU {_shown(io['au'])}; cache {io['cache_state']}"),
        ("read amplification", "×", staging["read_amplification"], f"staging mode {staging['staging_mode']}"),
        (
            "exposed communication",
            "of step",
            comm["exposed_comm_fraction"],
            comm.get("exposed_comm_reason", "calibrated"),
        ),
        ("GPU energy", "J", energy["gpu_energy_J"], energy["gpu_energy_reason"] or energy["gpu_energy_label"]),
    ]
    if inference:
        latency = f"latency {inference['latency_p50_s']:.4g} s (p50), {inference['latency_p99_s']:.4g} s (p99)"
        share = f"{inference['inference_s_per_sample'] / throughput['train_s_per_sample']:.0%} of training's per sample"
        rows.append(("inference", "samples/s", inference["all_ranks_samples_per_s"], f"{latency}; {share}"))
    width = max(len(r[0]) for r in rows)
    lines = [f"  {name:{width}}  {_shown(value):>10} {unit:9}  {note}" for name, unit, value, note in rows]
    metrics = ", ".join(f"{k} {v:.5g}" for k, v in result["metrics"].items())
    return [*lines, f"  {'validation':{width}}  {metrics}", f"  results: {paths.log} and {paths.record.name} beside it"]


def _base(plan: Plan, job: Job) -> dict[str, Any]:
    """What the record of every run has, however it ended."""
    config, code = plan.config, software.source_commit()
    return {
        "schema": record.SCHEMA,
        "benchmark": config.benchmark,
        "task": config.task,
        "mllog_name": plan.benchmark().mllog_name,
        "dataset": {
            "name": plan.dataset_name,
            "version": plan.dataset.version,
            "origin": plan.dataset.origin.kind,
            "index_sha256": job.index_sha256,
            "target": plan.dataset.target.model_dump(),
        },
        "config": config.model_dump(mode="json"),
        "config_sha256": config.sha256(),
        "seed": config.seed,
        "scaling": config.scaling,
        "code": {"version": sciml_hpc.__version__, "source_sha256": source.sha256(), **code},
        "job": job.record(),
    }


def _log_figures(paths: record.Paths) -> logfile.Figures:
    lines, _ = logfile.read(paths.log)
    found = logfile.figures(lines)
    assert found is not None  # the run was started
    return found


def _sign(plan: Plan) -> str:
    return "≥" if plan.dataset.target.direction == "max" else "≤"


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
