"""Where the time of a run went, in parts that add up to it: what runs of different sizes are compared by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from sciml_hpc.errors import UserError
from sciml_hpc.results.logfile import last
from sciml_hpc.results.runs import Run

SECTIONS = (
    "job", "time", "throughput", "staging", "io", "communication", "nodes", "compute", "energy", "metrics",
)  # fmt: skip
"""What the record of every run that came to its end has."""
ENERGY_KINDS = ("gpu", "node", "cpu")
"""Of the energies a record has, the first that was measured is compared; of the same kind at every size."""


@dataclass(frozen=True)
class Parts:
    """Seconds of a run from `run_start` to the target (to its end where the work is fixed)."""

    staging: float
    setup: float
    """From the end of staging to the first step: the model made and joined, loaders opened."""
    compute: float
    """Steps of the training epochs, less the four that follow."""
    stragglers: float
    """Computing time that a node of median speed would not have needed: compute · (1 − slowest ÷ median rate)."""
    communication: float
    """All-reduce that was not hidden, by the calibrated fraction of the steps' time without stalls."""
    data_stall: float
    """Time that steps waited for data (mean over ranks)."""
    evaluation: float
    other: float
    """What is left: checkpoints, the log, agreement between ranks between epochs."""

    @property
    def total(self) -> float:
        """All of it."""
        return sum(getattr(self, f.name) for f in fields(self))

    def items(self) -> list[tuple[str, float]]:
        """(name, seconds) of each part."""
        return [(f.name, getattr(self, f.name)) for f in fields(self)]


PARTS = tuple(f.name for f in fields(Parts))


@dataclass(frozen=True)
class Timed:
    """What of a run enters comparisons."""

    name: str
    ranks: int
    nodes: int
    global_batch: int
    train_samples: int
    epochs: int
    """Until the target; all, where the work is fixed."""
    converged: bool
    samples_per_s: float
    parts: Parts
    step_s: float | None = None
    """Calibrated step, with the all-reduce and …"""
    step_without_allreduce_s: float | None = None
    gradient_bytes: int | None = None
    energy_J: Mapping[str, float | None] | None = None
    """By kind, over the run."""
    oversubscription: float = 0.0
    machines: int = 0
    started_ms: int = 0

    @property
    def time_s(self) -> float:
        """Time to convergence, staging in it."""
        return self.parts.total

    @property
    def time_excl_staging_s(self) -> float:
        """Without staging."""
        return self.parts.total - self.parts.staging


def timed(run: Run) -> Timed:
    """What of a VALID run enters comparisons. Raises UserError naming a run whose record lacks what is needed."""
    content = run.content
    if unusable := [name for name in SECTIONS if not isinstance(content.get(name), Mapping)]:
        raise UserError(f"{run.name}: the record beside it lacks {', '.join(unusable)}")
    try:
        job, time, epochs = content["job"], content["time"], content["epochs"]
        converged = time["time_to_convergence_s"] is not None
        total = time["time_to_convergence_s"] if converged else time["run_s"]
        done = epochs[: time["converged_epoch"]] if converged else epochs
        calibration = content["communication"]
        found = Timed(
            name=run.name,
            ranks=job["ranks"],
            nodes=job["nodes"],
            global_batch=job["global_batch"],
            train_samples=job["train_samples"],
            epochs=len(done),
            converged=converged,
            samples_per_s=content["throughput"]["samples_per_s"],
            parts=divide(total, time["staging_s"], _setup_s(run), done, calibration, content["nodes"]),
            step_s=calibration.get("step_s"),
            step_without_allreduce_s=calibration.get("step_without_allreduce_s"),
            gradient_bytes=calibration.get("gradient_bytes_per_step"),
            energy_J={kind: content["energy"].get(f"{kind}_energy_J") for kind in ENERGY_KINDS},
            oversubscription=job.get("oversubscription", 0.0),
            machines=job.get("machines", 0),
            started_ms=run.started_ms(),
        )
        if not (found.samples_per_s > 0 and found.time_s > found.parts.staging and found.epochs):
            raise ValueError(f"a time and a throughput ({found.time_s} s, {found.samples_per_s} samples/s)")
    except (KeyError, TypeError, IndexError, AttributeError, ValueError, ZeroDivisionError) as error:
        raise UserError(
            f"{run.name}: the record beside it lacks {error}; it is no record of a run of this version"
        ) from None
    return found


def divide(
    total_s: float,
    staging_s: float,
    setup_s: float,
    epochs: Sequence[Mapping[str, Any]],
    calibration: Mapping[str, Any],
    nodes: Mapping[str, Any],
) -> Parts:
    """A run's time divided. Parts that were not measured (no calibration, metering off) are 0 and lie in `compute`."""
    train = sum(e["train_s"] for e in epochs)
    stall = sum(e["wait_s"] or 0.0 for e in epochs)
    evaluation = sum(e["eval_s"] for e in epochs)
    communication = (calibration.get("exposed_comm_fraction") or 0.0) * (train - stall)
    computing = train - stall - communication
    rates = nodes.get("node_samples_per_s")
    stragglers = computing * (1 - rates["min"] / rates["median"]) if rates else 0.0
    return Parts(
        staging=staging_s,
        setup=setup_s,
        compute=computing - stragglers,
        stragglers=stragglers,
        communication=communication,
        data_stall=stall,
        evaluation=evaluation,
        other=total_s - staging_s - setup_s - train - evaluation,
    )


def _setup_s(run: Run) -> float:
    """From the end of staging to the first epoch, by the log."""
    staged = last(run.lines, "staging_stop")
    first = next((line for line in run.lines if line.key == "epoch_start"), None)
    if staged is None or first is None or first.time_ms < staged.time_ms:
        return 0.0
    return (first.time_ms - staged.time_ms) / 1000
