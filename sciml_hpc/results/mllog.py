"""The MLPerf log of a run: `result_N.txt`, one line per event, written by rank 0 as it happens.

The caller speaks of runs, epochs and metrics; the log keys they become are known here and in `keys.py` only. Lines are
written by mlperf-logging's own logger. Times come from the monotonic clock, anchored to the wall clock when the log is
opened, so that an adjustment of the node's clock during the run cannot lengthen or shorten it.
"""

from __future__ import annotations

import json
import logging
import operator
import re
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import sciml_hpc
from sciml_hpc.errors import UserError
from sciml_hpc.results import logfile
from sciml_hpc.results.keys import RECIPE
from sciml_hpc.results.targets import metric_keys

LOCK_TIMEOUT_S = 1.0
"""How long a thread waits for another's write: a watchdog must not hang behind a file system that does."""


class RunLog:
    """The log of one run; construct it on rank 0 only. Any thread may write. Every method returns the time_ms written
    (of its last line) and raises OSError if the line could not be written.
    """

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        """Create `path`, which must not exist, or, with `resume`, go on with the log of the interrupted run: its second
        part begins now, and what was said before the run is in it already.

        A last line that a crash cut short is dropped and its length recorded. Raises UserError if the file exists (does
        not exist, cannot be resumed).
        """
        from mlperf_logging import mllog  # 0.3 s: only the rank that writes pays it

        self.path = path
        self._metrics: dict[str, tuple[str, ...]] = {}
        self._benchmark = ""
        self._lock = threading.Lock()
        self._ended_ms: int | None = None
        self._cut_bytes = 0
        last_ms = self._take_up() if resume else 0
        try:
            handler = _Lines(path, mode="a" if resume else "x", encoding="ascii")
        except FileExistsError:
            raise UserError(f"{path}: exists; the log of a run is never overwritten nor appended to") from None
        self._handler = handler
        logger = logging.Logger("sciml_hpc.run")  # not registered: nothing reaches the screen or other handlers
        logger.addHandler(handler)
        # The file names in the metadata are relative to where the package lies. MLLogger uses this as a pattern.
        self._mllogger = mllog.mllog.MLLogger(logger, root_dir=re.escape(str(Path(sciml_hpc.__file__).parents[1])))
        self._behind_ms = max(0, last_ms - time.time_ns() // 1_000_000)
        self._anchor_ns = time.time_ns() + self._behind_ms * 1_000_000 - time.monotonic_ns()
        if resume:
            self._event("resumed", None, cut_bytes=self._cut_bytes, clock_behind_ms=self._behind_ms)

    def _take_up(self) -> int:
        """Prepare to append: cut a broken last line, remember the target's keys; returns the last time in the file."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            raise UserError(f"{self.path}: there is no log to resume") from None
        whole = content[: content.rfind(b"\n") + 1]
        self._cut_bytes = len(content) - len(whole)
        lines, faults = logfile.parse(whole)
        if faults or not lines:
            raise UserError(f"{self.path}: cannot be resumed: {faults[0] if faults else 'it is empty'}")
        values = {line.key: line.value for line in lines}
        target = values.get("target")
        if "run_start" not in values or "run_stop" in values or not isinstance(target, dict):
            raise UserError(f"{self.path}: cannot be resumed: the run in it has ended, or never started")
        if self._cut_bytes:
            with open(self.path, "r+b") as file:
                file.truncate(len(whole))
        self._benchmark = str(values.get("submission_benchmark"))
        self._judge(str(target.get("name")), str(target.get("direction")))
        return lines[-1].time_ms

    # Before the run

    def submission(
        self,
        *,
        benchmark: str,
        org: str,
        platform: str,
        version: str,
        commit: str | None,
        division: str = "open",
        status: str = "research",
    ) -> int:
        """Who submits what: `benchmark` is the Benchmark's `mllog_name`, `version` and `commit` (40 hexadecimal digits,
        None if unknown) are the code's. Science benchmarks are open division only (policy 0.5).
        """
        self._benchmark = benchmark
        self._event("submission_benchmark", benchmark)
        self._event("submission_org", org)
        self._event("submission_platform", platform)
        self._event("submission_division", division)
        self._event("submission_status", status)
        self._event("submission_version", version)
        return self._event("submission_github_commit_version", commit)

    def cache_clear(self, state: Literal["cold", "warm", "unknown"], how: str) -> int:
        """The declared state of the page caches before the run, and how it was brought about."""
        return self._event("cache_clear", {"cold": True, "warm": False}.get(state), state=state, how=how)

    def init_start(self) -> int:
        """Start of set-up, which does not touch the data; at most 30 minutes before `init_stop`."""
        return self._start("init_start")

    def init_stop(self) -> int:
        """End of set-up."""
        return self._stop("init_stop")

    def configuration(
        self,
        *,
        seed: int,
        train_samples: int,
        eval_samples: int,
        nodes: int,
        ranks: int,
        accelerators_per_node: int,
        global_batch: int,
        recipe: Mapping[str, Any],
    ) -> int:
        """The size of the run and its recipe: the resolved fields of the benchmark's Recipe, as JSON values.

        `global_batch` is the samples per step that the ranks really do, whatever the recipe asked for.

        Raises TypeError for a count that is not an integer.
        """
        counts = {
            "seed": seed,
            "train_samples": train_samples,
            "eval_samples": eval_samples,
            "number_of_nodes": nodes,
            "number_of_ranks": ranks,
            "accelerators_per_node": accelerators_per_node,
            "global_batch_size": global_batch,
        }
        for name, count in counts.items():
            self._event(name, operator.index(count))
        for field, name in RECIPE.items():
            if field in recipe:
                self._event(name, recipe[field])
        return self._event("recipe", dict(recipe))

    def dataset(self, name: str, origin: Literal["published", "simulated", "own"], index_sha256: str) -> int:
        """The data: published files, the embedded simulator's, or a data set of the centre's own manifest."""
        return self._event("dataset", {"name": name, "origin": origin, "index_sha256": index_sha256})

    def target(self, metric: str, direction: Literal["max", "min"], value: float, source: str, official: bool) -> int:
        """The target that the run is judged by; call after `submission`. `metric` is our own name of it."""
        key = self._judge(metric, direction)
        kind = "official" if official else "declared"
        content = {"kind": kind, "metric": key, "name": metric, "direction": direction, "value": value}
        return self._event("target", content | {"source": source})

    def fixed_work(self, epochs: int, metric: str, direction: Literal["max", "min"]) -> int:
        """In place of `target`: the run does so many epochs, whatever the metric, which is still logged."""
        key = self._judge(metric, direction)
        content = {"kind": "fixed_work", "metric": key, "name": metric, "direction": direction}
        return self._event("target", content | {"epochs": operator.index(epochs)})

    # The run

    def run_start(self) -> int:
        """The clock starts; nothing has touched the data set before."""
        return self._start("run_start")

    def staging_start(self) -> int:
        """Start of staging, inside the run as the Science policy 0.5 asks."""
        return self._start("staging_start")

    def staging_stop(self, **figures: Any) -> int:
        """End of staging, with its figures (bytes, mode, …) if any."""
        return self._stop("staging_stop", **figures)

    def epoch_start(self, epoch_num: int) -> int:
        """Start of an epoch, counted from 1."""
        return self._start("epoch_start", epoch_num=operator.index(epoch_num))

    def epoch_stop(self, epoch_num: int) -> int:
        """End of an epoch's training."""
        return self._stop("epoch_stop", epoch_num=operator.index(epoch_num))

    def eval_start(self, epoch_num: int) -> int:
        """Start of the evaluation after that epoch."""
        return self._start("eval_start", epoch_num=operator.index(epoch_num))

    def metrics(self, values: Mapping[str, float], epoch_num: int) -> int:
        """The evaluation's metrics, by our own names; call between `eval_start` and `eval_stop`.

        Those that the target is judged by become lines of their own, the others one line of statistics. Raises
        ValueError if the target's metric is not among them.
        """
        epoch = operator.index(epoch_num)
        judged = set()
        time_ms = 0
        for key, names in self._metrics.items():
            name = next((n for n in names if n in values), None)
            if name is not None:
                judged.add(name)
                time_ms = self._event(key, float(values[name]), epoch_num=epoch, metric=name)
            elif not judged:
                raise ValueError(f"the target's metric {names[0]!r} is not among the evaluation's: {sorted(values)}")
        others = {name: float(value) for name, value in values.items() if name not in judged}
        return self._event("tracked_stats", others, epoch_num=epoch) if others else time_ms

    def eval_stop(self, epoch_num: int) -> int:
        """End of that evaluation; if its metric met the target, the run has converged now."""
        return self._stop("eval_stop", epoch_num=operator.index(epoch_num))

    def tracked_stats(self, values: Mapping[str, Any], epoch_num: int | None = None) -> int:
        """Figures that nobody judges, for instance `{"throughput": samples_per_s}`; also after the run."""
        return self._event("tracked_stats", dict(values), **({} if epoch_num is None else {"epoch_num": epoch_num}))

    def interrupted(self, epoch_num: int, step: int, reason: str) -> int:
        """The run stops here, resumable from a checkpoint: `step` steps of epoch `epoch_num` are done."""
        return self._event("interrupted", reason, epoch_num=operator.index(epoch_num), step=operator.index(step))

    def resumed(self, epoch_num: int, step: int) -> int:
        """In a resumed run's second part: the checkpoint is loaded. Training goes on with epoch `epoch_num`, of which
        `step` steps are done; `epoch_start` of an epoch that was begun may be written again or not.
        """
        return self._event("restored", None, epoch_num=operator.index(epoch_num), step=operator.index(step))

    def fault(self, reason: str, **where: Any) -> int:
        """The run broke (lost rank, number not finite, storage); `where` says rank, host, step, as far as known."""
        return self._event("fault", reason, **where)

    def run_stop(self, status: Literal["success", "aborted"]) -> int:
        """The clock stops. The first call stands: one by a thread that wakes up after a watchdog's is not written."""
        return self._stop("run_stop", status=status)

    def result(self, values: Mapping[str, Any]) -> int:
        """The result as the Science policy asks for it: names (with units) and values; also after `run_stop`."""
        return self._event("result", dict(values))

    def close(self) -> None:
        """Close the file; the log can be read at any time before, too."""
        self._handler.close()

    # Lines

    def _judge(self, metric: str, direction: str) -> str:
        self._metrics = metric_keys(self._benchmark, metric, direction)
        return next(iter(self._metrics))

    def _event(self, key: str, value: Any, **metadata: Any) -> int:
        return self._write(self._mllogger.event, key, value, metadata)

    def _start(self, key: str, **metadata: Any) -> int:
        return self._write(self._mllogger.start, key, None, metadata)

    def _stop(self, key: str, **metadata: Any) -> int:
        return self._write(self._mllogger.end, key, None, metadata)

    def _write(self, log: Any, key: str, value: Any, metadata: Mapping[str, Any]) -> int:
        json.dumps([value, metadata])  # raises TypeError; MLLogger would write a line saying so and go on
        if not self._lock.acquire(timeout=LOCK_TIMEOUT_S):
            raise TimeoutError(f"{self.path}: another thread's write has not returned for {LOCK_TIMEOUT_S} s")
        try:
            if key == "run_stop" and self._ended_ms is not None:
                return self._ended_ms
            time_ms = (self._anchor_ns + time.monotonic_ns()) // 1_000_000
            # The caller named in the metadata is that of our public method: two frames above this one.
            log(key=key, value=value, metadata=dict(metadata), time_ms=time_ms, stack_offset=4)
            if key == "run_stop":
                self._ended_ms = time_ms
            return time_ms
        finally:
            self._lock.release()


class _Lines(logging.FileHandler):
    """A file handler that flushes every line (as its parent does) and lets the caller know what went wrong."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Raise the error of `emit`, where logging would print it and go on."""
        raise
