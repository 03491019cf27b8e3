"""Studies in files as the runner leaves them, of a machine whose every figure is known (`machines.py`)."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from machines import Machine
from results.correct_logs import COMMIT, DESCRIPTION, INDEX, Clock

from sciml_hpc.benchmarks.base import Picture
from sciml_hpc.results import figures, mllog, record
from sciml_hpc.results.logfile import figures as log_figures
from sciml_hpc.results.logfile import read
from sciml_hpc.results.runs import config_sha256
from sciml_hpc.studies.design import Design, Step, order
from sciml_hpc.studies.ledger import Study
from sciml_hpc.studies.times import Timed
from sciml_hpc.training.loop import Epoch

TARGET = {"metric": "accuracy", "direction": "max", "value": 0.9, "source": "a test", "official": False}
SOURCE = "cd" * 32
WATTS = 400.0
"""Mean power of each GPU."""
GRADIENTS = 4_000_000
_ROWS, _COLUMNS = np.mgrid[-1:1:48j, -1:1:64j]
PICTURE = Picture(
    "attention",
    "Where the network looks (class-activation map); brighter: more.",
    np.stack([np.hypot(_ROWS, _COLUMNS), np.exp(-3 * np.hypot(_ROWS, _COLUMNS - 0.4))]).astype(np.float32),
    ("intensity (counts)", "activation (1)"),
)


def write_study(
    directory: Path,
    machine: Machine | None = None,
    *,
    points: tuple[int, ...] = (1, 2, 4),
    scaling: str = "strong",
    repeats: int = 2,
    batch: int = 256,
    samples: int = 8192,
    more_epochs: int = 0,
    invalid: tuple[str, ...] = (),
    faults: tuple[str, ...] = (),
    energy: bool = True,
    pictures: bool = False,
    changes: Mapping[str, Any] | None = None,
) -> dict[str, Timed]:
    """A study on nodes of `machine`; what was put into each run, by the name of its step.

    Larger sizes need `more_epochs` for each doubling. `invalid` are steps whose run did not reach its target, `faults`
    such as broke once and were done again. `changes` are made to every record.
    """
    machine = machine or Machine(noise=0.01)
    design = Design(
        schema="sciml_hpc.study/1", scaling=scaling, benchmark="cloudmask", points=points, repeats=repeats,
        ranks_per_node=machine.ranks_per_node, arguments=("--preset", "small"),
    )  # fmt: skip
    study, random, clock = Study.open(directory, design), np.random.default_rng(1), Clock()
    truth: dict[str, Timed] = {}
    for step in order(design):
        name = step.name(design)
        if step.kind in ("io", "comm"):
            _probe(study, step, machine)
            continue
        grown = step.point // points[0] if scaling == "weak" else 1
        epochs = machine.epochs + more_epochs * int(np.log2(step.point // points[0]))
        timed = replace(machine, epochs=epochs).run(step.point, batch * grown, samples * grown, random)
        for attempt in range(2 if name in faults else 1):
            study.start(step, [["srun", "…"]])
            broken = name in faults and attempt == 0
            valid = name not in invalid and not broken
            log = _run(study, step, timed, clock, valid, broken, energy, changes or {})
            if pictures and step.point == points[-1] and valid:
                record.write_pictures(log.with_suffix(".pictures.npz"), [PICTURE])
            status = 3 if broken else int(not valid)
            study.end(step, status, timed.time_s + 60, [str(log.relative_to(directory))])
        truth[name] = timed
    return truth


def _run(
    study: Study,
    step: Step,
    t: Timed,
    clock: Clock,
    valid: bool,
    broken: bool,
    energy: bool,
    changes: Mapping[str, Any],
) -> Path:
    """The files of one run; its log."""
    design, per_node = study.design, study.design.ranks_per_node
    system = f"machine_n{t.nodes}x{per_node}"
    folder = study.directory / "results" / system / design.scaling / "cloudmask"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"result_{len(list(folder.glob('*.txt')))}.txt"
    (seed,) = step.seeds(design)
    config = {"benchmark": "cloudmask", "seed": seed, "train": {"global_batch": t.global_batch, "base_lr": 1e-3}}
    series = [0.9 + 0.03 * (1 - t.epochs / e) for e in range(1, t.epochs + 1)]
    if not valid:
        series[-1] = 0.8999
    epochs = _log(path, t, seed, config, series, clock, valid, broken)
    base = {
        "schema": record.SCHEMA, "benchmark": "cloudmask", "task": "", "mllog_name": "cloudmask",
        "dataset": {"name": "small", "version": 1, "origin": "simulator", "index_sha256": INDEX, "target": TARGET},
        "config": config, "config_sha256": config_sha256(config), "seed": seed, "scaling": design.scaling,
        "code": {"version": "sciml_hpc 1.0", "source_sha256": SOURCE, "commit": COMMIT, "dirty": False},
    }  # fmt: skip
    if broken:
        content = base | {"verdict": "INVALID", "reasons": ["rank 3 on nid0002 was lost"], "status": "fault"}
    else:
        reasons = [] if valid else [f"target not met: accuracy is 0.8999 after {t.epochs} epochs, must be ≥ 0.9"]
        ended = {
            "system": {"name": system, **_description(t.nodes)}, "verdict": "VALID" if valid else "INVALID",
            "reasons": reasons, "status": "success" if valid else "aborted",
            "log_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }  # fmt: skip
        content = base | ended | _measured(path, t, epochs, per_node, energy) | changes
    record.write_json(path.with_suffix(".json"), content)
    random = np.random.default_rng(seed)
    steps = t.train_samples // t.global_batch
    decay = [[0.7 / (1 + e + k / steps) * random.lognormal(0, 0.1) for k in range(steps)] for e in range(t.epochs)]
    record.write_steps(path.with_suffix(".steps.csv"), decay)
    return path


def _description(nodes: int) -> dict[str, Any]:
    description = copy.deepcopy(DESCRIPTION) | {"nodes": nodes}
    description["groups"][0]["count"] = nodes
    return description


def _measured(log: Path, t: Timed, epochs: list[Epoch], per_node: int, energy: bool) -> dict[str, Any]:
    """What was measured, by the package's own arithmetic where there is some."""
    hosts = [f"nid{k:04}" for k in range(1, t.nodes + 1)]
    computing = t.parts.compute + t.parts.stragglers
    exposed = t.parts.communication / (computing + t.parts.communication)
    step_s, rate = t.global_batch / t.samples_per_s, t.samples_per_s / t.nodes
    # The median node has the full rate, one is slower (of two, both are the median's halves).
    slowest = 1 - t.parts.stragglers / computing
    rates = [rate] * (t.nodes - 1) + [rate * slowest]
    if t.nodes == 2:
        rates = [rate, rate * slowest / (2 - slowest)]
    lines, _ = read(log)
    joules = WATTS * t.ranks * t.time_s
    measured: dict[str, Any] = {"gpu_energy_J": None, "gpu_energy_reason": "NVML Shared Library Not Found"}
    if energy:
        measured = {
            "gpu_energy_J": joules, "gpu_energy_reason": None, "gpu_provenance": "measured",
            "gpu_energy_uncertainty_J": joules / 500, "gpu_idle_W": 90.0 * t.ranks, "gpu_largest_disagreement": 0.012,
        }  # fmt: skip
    absent = {
        "cpu": "no RAPL package under /sys/class/powercap",
        "dram": "no RAPL package under /sys/class/powercap",
        "node": "no /sys/cray/pm_counters: not a Cray node",
    }
    moved = {"shared_read_bytes": 10**10, "received_bytes": 0, "written_bytes": 10**10, "reused_bytes": 0}
    return {
        "job": {
            "ranks": t.ranks, "nodes": t.nodes, "hosts": hosts, "global_batch": t.global_batch,
            "oversubscription": 1 / 48, "machines": t.nodes, "ranks_per_node": [per_node, per_node],
            "accelerators_per_node": per_node,
            "train_samples": t.train_samples, "eval_samples": 512, "data_bytes": 10**10, "index_sha256": INDEX,
        },
        "time": figures.times(log_figures(lines), epochs, 30.0),
        "throughput": figures.throughput(epochs),
        "staging": figures.staging(moved, [t.parts.staging] * t.nodes, 10**10, "partition"),
        "io": figures.stall(epochs)
        | {"cache_state": "cold", "app_read_bytes": 8 * 10**9, "device_read_bytes": 6 * 10**9},
        "communication": {
            "step_s": step_s, "step_without_allreduce_s": step_s * (1 - exposed),
            "gradient_bytes_per_step": GRADIENTS, "exposed_comm_fraction": exposed,
            "step_parallel_efficiency": 1 - exposed,
        },
        "nodes": figures.nodes(hosts, rates),
        "compute": {"flops_per_sample": None, "compute_reason": "not asked for (measure.ceiling_s)"},
        "energy": {
            "gpu_energy_label": "GPU energy (NVML; not MLPerf Power)", "energy_wall_s": t.time_s, **measured,
            **{f"{kind}_energy_J": None for kind in absent},
            **{f"{kind}_energy_reason": why for kind, why in absent.items()},
        },
        "inference": {"latency_p50_s": 0.0011, "latency_p99_s": 0.0019, "inference_s_per_sample": 1e-5},
        "epochs": [vars(e) for e in epochs],
        "metrics": {**epochs[-1].metrics, "iou": 0.71, "f1": 0.83},
    }  # fmt: skip


def _log(
    path: Path,
    t: Timed,
    seed: int,
    config: Mapping[str, Any],
    series: list[float],
    clock: Clock,
    valid: bool,
    broken: bool,
) -> list[Epoch]:
    """Write the log of a run with the times of `t`; its epochs."""
    parts, epochs = t.parts, []
    train_s = (parts.compute + parts.stragglers + parts.communication + parts.data_stall) / t.epochs
    with mock.patch.object(mllog, "time", clock):
        log = mllog.RunLog(path)
        log.submission(benchmark="cloudmask", org="Centre", platform="node", version="sciml_hpc 1.0", commit=COMMIT)
        log.cache_clear("cold", "posix_fadvise(DONTNEED) on every shard")
        log.init_start()
        log.dataset("small", "simulated", INDEX)
        log.target("accuracy", "max", 0.9, "a test", False)
        log.configuration(
            seed=seed, train_samples=t.train_samples, eval_samples=512, nodes=t.nodes, ranks=t.ranks,
            accelerators_per_node=t.ranks // t.nodes, global_batch=t.global_batch, recipe=dict(config["train"]),
        )  # fmt: skip
        log.init_stop()
        log.run_start()
        log.staging_start()
        clock.pass_s(parts.staging)
        log.staging_stop()
        clock.pass_s(parts.setup)
        for number, value in enumerate(series, 1):
            log.epoch_start(number)
            clock.pass_s(train_s)
            log.epoch_stop(number)
            clock.pass_s(parts.other / t.epochs)
            log.eval_start(number)
            clock.pass_s(parts.evaluation / t.epochs)
            log.metrics({"accuracy": value}, number)
            log.eval_stop(number)
            epochs.append(
                Epoch(
                    number, t.train_samples // t.global_batch, t.train_samples, (1 + seed / 99) / number, 1e-3, train_s,
                    wait_s=parts.data_stall / t.epochs, eval_s=parts.evaluation / t.epochs, metrics={"accuracy": value},
                )
            )  # fmt: skip
        if broken:
            log.fault("rank 3 on nid0002 was lost")
        log.run_stop("success" if valid else "aborted")
        log.result({"accuracy": series[-1]})
        log.close()
    clock.pass_s(20)
    return epochs


def _probe(study: Study, step: Step, machine: Machine) -> None:
    design = study.design
    file = f"probes/{step.name(design)}.0.json"
    (study.directory / "probes").mkdir(exist_ok=True)
    n = step.point * machine.ranks_per_node
    content: Any
    if step.kind == "io":
        cold = {
            "cache_state": "cold", "loader_bytes_per_s": 2e9 * step.point, "loader_samples_per_s": 2e4 * step.point,
            "raw_bytes_per_s": 2.5e9 * step.point, "loader_to_raw": 0.8, "app_read_bytes": 10**9,
            "device_read_bytes": 10**9,
        }  # fmt: skip
        warm = {"cache_state": "warm", "loader_bytes_per_s": 9e9 * step.point, "device_read_bytes": 0}
        content = {"cold": cold, "warm": cold | warm | {"raw_bytes_per_s": 1.2e10 * step.point, "loader_to_raw": 0.75}}
    else:
        content = []
        for by, link in (("horovod (NCCL)", 2e10), ("plain MPI", 8e9)):
            for size in (4096, 65536, 1 << 20, GRADIENTS, 1 << 24):
                time_s = 3e-5 + 2 * (n - 1) / n * size / link
                row = {
                    "by": by, "gradient": size == GRADIENTS, "bytes": size, "repetitions": 20, "correct": True,
                    "time_median_s": time_s, "time_min_s": 0.9 * time_s, "time_max_s": 1.3 * time_s,
                    "algbw_bytes_per_s": size / time_s, "busbw_bytes_per_s": size / time_s * 2 * (n - 1) / n,
                }  # fmt: skip
                content.append(row)
    study.start(step, [["srun", "…"]])
    (study.directory / file).write_text(json.dumps(content))
    study.end(step, 0, 20.0, [file])
