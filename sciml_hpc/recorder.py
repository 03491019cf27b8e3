"""What is told of a run while it goes on: to the log, to the user, and to the energy meter's phases."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import sciml_hpc
from sciml_hpc.console import Console
from sciml_hpc.data.staging import Staged, StagingReport
from sciml_hpc.job import Job
from sciml_hpc.metering import software
from sciml_hpc.metering.energy import EnergyMeter
from sciml_hpc.metering.io import CacheState
from sciml_hpc.plan import Plan, Request
from sciml_hpc.results.mllog import RunLog
from sciml_hpc.results.record import Paths
from sciml_hpc.training.loop import Epoch, Outcome, Training


class Recorder:
    """Passes the events of a run on: log and console are rank 0's, an energy meter that of whoever owns devices."""

    def __init__(self, console: Console, log: RunLog | None, energy: EnergyMeter, epochs: int, metric: str) -> None:
        self.console, self.log, self.energy = console, log, energy
        self._epochs, self._metric = epochs, metric

    def begin(self, cache: CacheState | None, resumed: bool) -> None:
        """Set-up is done; the page cache has been dropped, or left as it was."""
        if self.log and not resumed:
            self.log.cache_clear(cache.state if cache else "unknown", cache.how if cache else "left as it was")
            self.log.init_stop()

    def run_start(self, resumed: bool) -> None:
        """The clock starts, and staging with it; a resumed run's clock goes on."""
        self.energy.start("staging")
        if self.log:
            if not resumed:
                self.log.run_start()
            self.log.staging_start()

    def staging_stop(self, total: StagingReport, staged: Staged) -> None:
        """The shards are where they will be read; `total` is the whole job's report."""
        self.energy.phase("setup")
        if self.log:
            self.log.staging_stop(**asdict(total))
        moved = total.shared_read_bytes + total.received_bytes
        self.console.line(
            f"staged {moved / 1e6:,.1f} MB in {total.seconds:.2f} s ({total.shared_read_bytes / 1e6:,.1f} MB read from "
            f"the data directory, {total.reused_bytes / 1e6:,.1f} MB were there); scratch: {staged.scratch}"
        )

    def joined(self, training: Training, resumed: bool) -> None:
        """The model is on every rank."""
        if self.log and resumed:
            self.log.resumed(training.start.epoch, training.start.step)
        if resumed:
            self.console.line(f"resumed at epoch {training.start.epoch}, step {training.start.step}")

    def epoch_start(self, epoch: int, resumed: bool) -> None:
        """An epoch's steps begin, or go on where they were interrupted."""
        self.energy.phase("training")
        if self.log and not resumed:
            self.log.epoch_start(epoch)

    def epoch_stop(self, epoch: int) -> None:
        """An epoch's steps are done."""
        if self.log:
            self.log.epoch_stop(epoch)

    def eval_start(self, epoch: int) -> None:
        """Evaluation begins."""
        self.energy.phase("evaluation")
        if self.log:
            self.log.eval_start(epoch)

    def eval_stop(self, done: Epoch) -> None:
        """Evaluation is done; `done` holds the epoch's figures."""
        throughput = done.samples / done.train_s
        if self.log:
            finite = {k: v for k, v in done.metrics.items() if math.isfinite(v) or k == self._metric}
            self.log.metrics(finite, done.epoch)
            self.log.eval_stop(done.epoch)
            self.log.tracked_stats({"throughput": throughput, "train_loss": done.train_loss}, done.epoch)
        self.console.line(
            f"epoch {done.epoch:>3}/{self._epochs}  loss {done.train_loss:.5f}  {self._metric} "
            f"{done.metrics[self._metric]:.5f}  {throughput:,.0f} samples/s  train {done.train_s:.2f} s  "
            f"evaluation {done.eval_s:.2f} s"
        )

    def step(self, epoch: int, step: int, steps: int, loss: float | None) -> None:
        """So many steps are done."""
        self.console.progress(
            f"epoch {epoch:>3}/{self._epochs}", step, steps, "" if loss is None else f"loss {loss:.5f}"
        )

    def run_stop(self, outcome: Outcome) -> None:
        """The clock stops, or the run is interrupted and can be resumed."""
        if self.log:
            if outcome.status == "interrupted":
                self.log.interrupted(outcome.epoch, outcome.step, outcome.signal)
            else:
                self.log.run_stop("success" if outcome.status == "success" else "aborted")

    def fault(self, message: str) -> None:
        """The run broke: the log says so and ends."""
        if self.log:
            self.log.fault(message)
            self.log.run_stop("aborted")


def open_log(paths: Paths, request: Request, plan: Plan, job: Job, description: Mapping[str, Any] | None) -> RunLog:
    """The run's log, with all that is said before the clock starts; or the log of the run to be resumed. On rank 0."""
    log = RunLog(paths.log, resume=request.resume)
    if request.resume:
        return log
    log.init_start()
    name = (description or {}).get("groups", [{}])[0].get("hardware", {}).get("cpu", {}).get("model")
    log.submission(
        benchmark=plan.benchmark().mllog_name,
        org=request.org,
        platform=f"{job.nodes}x{job.device if job.accelerators_per_node else name or 'CPU'}",
        version=sciml_hpc.__version__,
        commit=software.source_commit()["commit"],
    )
    config, target = plan.config, plan.dataset.target
    log.configuration(
        seed=config.seed,
        train_samples=job.train_samples,
        eval_samples=job.eval_samples,
        nodes=job.nodes,
        ranks=job.ranks,
        accelerators_per_node=job.accelerators_per_node,
        global_batch=job.global_batch,
        recipe=config.train.model_dump(mode="json"),
    )
    origin = "own" if not plan.shipped else {"files": "published", "simulator": "simulated"}[plan.dataset.origin.kind]
    log.dataset(plan.dataset_name, origin, job.index_sha256)
    if config.fixed_epochs:
        log.fixed_work(config.train.epochs, target.metric, target.direction)
    else:
        log.target(target.metric, target.direction, target.value, target.source, target.official)
    return log
