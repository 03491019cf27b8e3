"""Correct logs of every kind, written by RunLog under a clock that the test sets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sciml_hpc.results import figures, mllog, official
from sciml_hpc.results.logfile import figures as log_figures
from sciml_hpc.results.logfile import read
from sciml_hpc.results.runs import config_sha256
from sciml_hpc.training.loop import Epoch

COMMIT = "0123456789abcdef0123456789abcdef01234567"
INDEX = "ab" * 32
SAMPLES = 800


JUDGED: dict[tuple[bytes, str], list[str]] = {}


def judge_each_log_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLCommons' checker takes 30 ms per ruleset; from now on it judges each log once, however often a test asks."""
    judge = official.compliance

    def once(log: Path, ruleset: str) -> list[str]:
        key = (log.read_bytes(), ruleset)
        if key not in JUDGED:
            JUDGED[key] = judge(log, ruleset)
        return JUDGED[key]

    monkeypatch.setattr(official, "compliance", once)


class Clock:
    """Stands for the module `time` in RunLog: every reading is 1 ms after the last."""

    def __init__(self, start_ms: int = 1_700_000_000_000) -> None:
        self.now_ns = start_ms * 1_000_000

    def time_ns(self) -> int:
        return self.now_ns

    def monotonic_ns(self) -> int:
        self.now_ns += 1_000_000
        return self.now_ns

    def pass_s(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)


@dataclass
class Kind:
    """A run whose log is right: its target, its data and the metric of each epoch."""

    benchmark: str
    metric: str
    direction: str
    value: float | None
    series: tuple[float, ...]
    official: bool = False
    origin: str = "simulated"
    others: dict[str, float] = field(default_factory=dict)
    interrupted_in: int | None = None


KINDS = {
    "cloudmask_official": Kind(
        "cloudmask", "accuracy", "max", 0.9, (0.81, 0.88, 0.91), True, "published", {"iou": 0.7}
    ),
    "stemdl_official": Kind("stemdl", "macro_f1", "max", 0.9, (0.5, 0.92), True, "published", {"accuracy": 0.93}),
    "uno_official": Kind("uno", "loss", "min", 0.0054, (0.02, 0.0053), True, "published", {"r2": 0.77}),
    "earthquake_official": Kind("earthquake", "nnse", "max", 0.8, (0.5, 0.85), True, "published"),
    "cloudmask_embedded": Kind("cloudmask", "accuracy", "max", 0.95, (0.9, 0.96), others={"iou": 0.8}),
    "saxs": Kind("saxs", "accuracy", "max", 0.97, (0.98,), origin="published"),
    "magnon": Kind("magnon", "mae_meV", "min", 0.006, (0.01, 0.0055)),
    "em_denoise": Kind("em_denoise", "psnr_db", "max", 30.0, (25.0, 31.5), origin="own"),
    "fixed_work": Kind("cloudmask", "accuracy", "max", None, (0.5, 0.6, 0.65), origin="published"),
    "resumed": Kind("cloudmask", "accuracy", "max", 0.95, (0.7, 0.9, 0.96), interrupted_in=2),
}
SECONDS = {"staging": 7.0, "epoch": 20.0, "eval": 3.0, "interruption": 3600.0, "init": 5.0}


def write(
    path: Path,
    kind: Kind,
    clock: Clock,
    *,
    seed: int = 1,
    commit: str | None = COMMIT,
    epoch_s: float = 20.0,
    configuration: Mapping[str, Any] | None = None,
) -> Path:
    """Write the log of `kind` at `path`; the time that passes is that of SECONDS, and 1 ms for each line.

    `configuration` has what is not as usual of the size of the run and its recipe.
    """
    log = mllog.RunLog(path)
    log.submission(benchmark=kind.benchmark, org="Centre", platform="4x node", version="sciml_hpc 1.0", commit=commit)
    log.cache_clear("cold", "posix_fadvise(DONTNEED) on every shard")
    log.init_start()
    log.dataset("small", kind.origin, INDEX)
    if kind.value is None:
        log.fixed_work(len(kind.series), kind.metric, kind.direction)
    else:
        log.target(kind.metric, kind.direction, kind.value, "a test", kind.official)
    usual = {
        "train_samples": SAMPLES,
        "eval_samples": 200,
        "nodes": 4,
        "ranks": 16,
        "accelerators_per_node": 4,
        "global_batch": 64,
        "recipe": {"global_batch": 64, "optimizer": "adam", "base_lr": 1e-3, "epochs": 10},
    }
    log.configuration(seed=seed, **usual | dict(configuration or {}))
    clock.pass_s(SECONDS["init"])
    log.init_stop()
    log.run_start()
    log.staging_start()
    clock.pass_s(SECONDS["staging"])
    log.staging_stop(bytes=1 << 30)
    for epoch, value in enumerate(kind.series, start=1):
        log.epoch_start(epoch)
        if epoch == kind.interrupted_in:
            log.interrupted(epoch, 5, "SIGTERM")
            log.close()
            clock.pass_s(SECONDS["interruption"])
            log = mllog.RunLog(path, resume=True)
            log.staging_start()
            log.staging_stop()
            log.resumed(epoch, 5)
        clock.pass_s(epoch_s)
        log.epoch_stop(epoch)
        log.eval_start(epoch)
        clock.pass_s(SECONDS["eval"])
        log.metrics({kind.metric: value, **kind.others}, epoch)
        log.eval_stop(epoch)
        log.tracked_stats({"throughput": SAMPLES / epoch_s}, epoch)
    log.run_stop("success")
    log.result({kind.metric: kind.series[-1]})
    log.close()
    return path


GPU = {
    "name": "NVIDIA H200",
    "memory_bytes": 150754820096,
    "max_sm_clock_Hz": 1.98e9,
    "ecc": True,
    "pcie_generation": 5,
    "pcie_width": 16,
    "nvlinks": 18,
}
DESCRIPTION = {
    "nodes": 4,
    "groups": [
        {
            "count": 4,
            "hardware": {
                "cpu": {
                    "model": "AMD EPYC 9654",
                    "sockets": 2,
                    "cores": 192,
                    "threads": 384,
                    "caches": {"L1d": "32K", "L3": "32768K"},
                    "max_frequency_Hz": 3.707e9,
                },
                "memory_GiB": 1024,
                "gpus": [GPU] * 4,
                "networks": [{"name": f"mlx5_{i}/1", "kind": "InfiniBand", "rate": "400 Gb/sec"} for i in range(4)],
                "file_systems": {"data": {"type": "lustre"}, "scratch": {"type": "xfs"}},
            },
            "software": {
                "operating_system": {"name": "Red Hat Enterprise Linux 9.4", "kernel": "5.14.0"},
                "container": {"runtime": "apptainer", "image": "sciml.sif"},
                "versions": {"torch": "2.7.0", "horovod": "0.28.1", "mpi": "Open MPI v5.0.7", "nccl": None},
            },
        }
    ],
    "first_node": {"host": "n1", "file_systems": {"data": {"size_bytes": 1 << 50}, "scratch": {}}},
}
"""As `metering.system.describe_job` gives it."""


def record_of(log: Path, kind: Kind, seed: int, changes: dict) -> dict:
    """The record of a correct log, as far as a package needs it."""
    config = {"benchmark": kind.benchmark, "seed": seed, "train": {"global_batch": 64, "base_lr": 1e-3, "epochs": 10}}
    return {
        "schema": "sciml_hpc.result/1",
        "benchmark": kind.benchmark,
        "mllog_name": kind.benchmark,
        "dataset": {"name": "small", "index_sha256": INDEX},
        "config": config,
        "config_sha256": config_sha256(config),
        "code": {"commit": COMMIT, "version": "sciml_hpc 1.0", "dirty": False},
        "system": {"name": "machine-4", **DESCRIPTION},
        "scaling": "strong",
        "verdict": "VALID",
        "reasons": [],
        "seed": seed,
        "metrics": {kind.metric: kind.series[-1], "samples_per_s": SAMPLES / (20 + seed)},
        "log_sha256": hashlib.sha256(log.read_bytes()).hexdigest(),
        **changes,
    }


def measured(
    log: Path, kind: Kind, seed: int, epoch_s: float, nodes: int = 4, hosts: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The sections of a record that are measured, made by the package's own arithmetic where there is one."""
    lines, _ = read(log)
    epochs = [
        Epoch(e, 12, SAMPLES, 1 / (e + seed / 100), 1e-3, epoch_s, wait_s=1.0, metrics={kind.metric: value})
        for e, value in enumerate(kind.series, start=1)
    ]
    rate = 1000.0 / epoch_s
    return {
        "task": "",
        "job": {
            "ranks": 4 * nodes,
            "nodes": nodes,
            "ranks_per_node": [4, 4],
            "hosts": list(hosts) or [f"n{i}" for i in range(1, nodes + 1)],
            "global_batch": 64,
            "train_samples": SAMPLES,
            "eval_samples": 200,
            "data_bytes": 1 << 30,
            "accelerators_per_node": 4,
            "index_sha256": INDEX,
        },
        "reported_ranks": 4 * nodes,
        "time": figures.times(log_figures(lines), epochs, 5.0),
        "throughput": figures.throughput(epochs),
        "io": figures.stall(epochs) | {"cache_state": "cold", "cache_how": "posix_fadvise(DONTNEED)"},
        "staging": {"staging_s": 6.5, "shared_read_bytes": 1 << 30, "reused_bytes": 0, "read_amplification": 1.0},
        "communication": {"exposed_comm_fraction": None, "exposed_comm_reason": "no calibration was asked for"},
        "nodes": figures.nodes([f"n{i}" for i in range(nodes)], [rate] * (nodes - 1) + [rate * 1.02]),
        "compute": {},
        "energy": {
            "gpu_devices": 4 * nodes,
            "gpu_provenance": "measured",
            "gpu_energy_J": 5e5,
            "gpu_disagreeing_devices": [],
            "cpu_energy_J": None,
            "cpu_energy_reason": "no RAPL package",
        },
        "epochs": [vars(e) for e in epochs],
        "metrics": {kind.metric: kind.series[-1], **kind.others},
    }


def run_writer(root: Path, clock: Clock) -> Callable[..., Path]:
    """`write_run(kind, seed, folder="runs", **changes of the record)`: a correct log and its record; the log's path."""

    def make(kind: str, seed: int, /, folder: str = "runs", **changes) -> Path:
        directory = root / folder
        directory.mkdir(exist_ok=True)
        path = directory / f"result_{len(list(directory.glob('*.txt')))}.txt"
        code = changes.get("code", {})
        log = write(path, KINDS[kind], clock, seed=seed, epoch_s=20 + seed, commit=code.get("commit", COMMIT))
        record = record_of(log, KINDS[kind], seed, {}) | measured(log, KINDS[kind], seed, 20 + seed) | changes
        log.with_suffix(".json").write_text(json.dumps(record, indent=1))
        return log

    return make
