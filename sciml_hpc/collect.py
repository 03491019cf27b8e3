"""Bringing together what ranks and nodes measured: the record of a run, on rank 0.

Sums and maxima travel by reductions; of each node one small record of fixed size (about 200 bytes) comes to rank 0.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from sciml_hpc.config import RunConfig
from sciml_hpc.data.shards import Index
from sciml_hpc.data.staging import Staged, StagingReport
from sciml_hpc.job import Job
from sciml_hpc.metering import system
from sciml_hpc.metering.clock import ClockOffset
from sciml_hpc.metering.energy_report import JobEnergy, NodeEnergy
from sciml_hpc.metering.io import CacheState, cache_hit_fraction
from sciml_hpc.parallel.world import World
from sciml_hpc.results import figures
from sciml_hpc.training.arithmetic import Arithmetic
from sciml_hpc.training.calibrate import Calibration
from sciml_hpc.training.infer import Inference
from sciml_hpc.training.loop import Outcome


@dataclass(frozen=True)
class Measured:
    """What one rank knows at the end of a run."""

    outcome: Outcome
    staging: StagingReport
    energy: NodeEnergy
    inference: Inference | None
    calibration: Calibration | None
    operations: Arithmetic | None
    clock: ClockOffset | None
    """Of a node's leader."""
    startup_s: float


def collect(
    world: World, job: Job, config: RunConfig, index: Index, staged: Staged, cache: CacheState | None, here: Measured
) -> dict[str, Any]:
    """The figures of the run but those that follow from its log; the same on every rank. Collective."""
    outcome, calibration = here.outcome, here.calibration
    reported = world.sum(1)
    peaks = {name: world.max(value or 0) or None for name, value in system.peak_memory().items()}
    own_rate = None
    if calibration is not None:
        slowest_here = max(world.local.allgather(calibration.own_step_without_allreduce_s))
        own_rate = world.local_size * calibration.samples_per_step / slowest_here
    offset = (here.clock.offset_s, here.clock.uncertainty_s) if here.clock else None
    gathered = world.gather_nodes((staged.report.seconds, own_rate, offset))
    staging = world.sum(here.staging)
    energy = world.sum(JobEnergy.of(here.energy)).record()
    result: dict[str, Any] = {}
    if world.is_root and gathered is not None:
        seconds, rates, offsets = zip(*gathered, strict=True)
        epochs = outcome.epochs
        throughput = figures.throughput(epochs)
        result = {
            "reported_ranks": reported,
            "throughput": throughput,
            "staging": figures.staging(asdict(staging), seconds, index.bytes, config.staging.mode)
            | {"scratch": staged.scratch},
            "io": figures.stall(epochs)
            | {
                "cache_state": cache.state if cache else "unknown",
                "cache_how": cache.how if cache else "left as it was",
                "app_read_bytes": sum(e.read_bytes for e in epochs),
                "device_read_bytes": figures.total_of(e.device_read_bytes for e in epochs),
                "cache_hit_fraction": cache_hit_fraction(
                    sum(e.read_bytes for e in epochs), figures.total_of(e.device_read_bytes for e in epochs)
                ),
            },
            "communication": _communication(calibration),
            "nodes": figures.nodes(world.hosts, rates),
            "compute": figures.compute(
                asdict(here.operations) if here.operations else None, throughput["samples_per_s"], job.ranks, job.device
            ),
            "clock": figures.clock(offsets),
            "memory": peaks,
            "energy": energy | _per_sample(energy, epochs),
            "inference": here.inference.record() if here.inference else None,
            "epochs": [asdict(e) for e in epochs],
            "metrics": epochs[-1].metrics if epochs else {},
        }
    return world.comm.bcast(result)


def _communication(calibration: Calibration | None) -> dict[str, Any]:
    if calibration is None:
        return {
            "exposed_comm_fraction": None,
            "step_parallel_efficiency": None,
            "exposed_comm_reason": "no calibration was asked for (measure.calibrate_steps)",
        }
    return asdict(calibration) | {
        "exposed_comm_fraction": calibration.exposed_comm_fraction,
        "step_parallel_efficiency": min(1.0, calibration.step_without_allreduce_s / calibration.step_s),
    }


def _per_sample(energy: dict[str, Any], epochs: list) -> dict[str, Any]:
    """`J_per_sample`: GPU energy of the training phases ÷ samples trained on."""
    samples = sum(e.samples for e in epochs)
    spent = (energy.get("gpu_phases_J") or {}).get("training")
    return {
        "gpu_J_per_sample": spent / samples if spent is not None and samples else None,
        "gpu_energy_to_convergence_J": energy.get("gpu_energy_J"),
    }
