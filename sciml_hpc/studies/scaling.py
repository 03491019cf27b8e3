"""Running a scaling study: every step of its design once, each failed one once more, going on where it stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from sciml_hpc import errors
from sciml_hpc.console import Console
from sciml_hpc.errors import UserError
from sciml_hpc.studies.allocation import Allocation
from sciml_hpc.studies.design import Design, Step, order
from sciml_hpc.studies.ledger import Attempt, Study

TRIES = 2
"""A step that fails for a fault of the run is tried once more; one that was only too slow or too bad is not."""
STOPPING_S = 60.0
"""Time that a run gets to end after the study was told to stop."""


class Stopped(Exception):
    """The study was told to stop by a signal."""


def run(study: Study, allocation: Allocation, only: Sequence[int], console: Console) -> bool:
    """Do all steps of the points `only` that are not done yet; whether all are. The ledger says how each ended.

    Raises UserError if a run says that the user's input is wrong, Stopped after a signal, when what ran has been ended
    and noted: the same call goes on.
    """
    design = study.design
    with study.locked(only) as locks, _Stopping() as stopping:
        runner = _Runner(study, allocation, locks, stopping, console)
        attempts = study.attempts()
        for step, tried in attempts.items():
            if step.point in only and tried and not tried[-1].ended:
                runner.adopt(step, tried[-1])
        steps = [step for step in order(design) if step.point in only]
        done = sum(settled(tried) for step, tried in study.attempts().items() if step in steps)
        if done:
            console.line(f"going on: {done} of {len(steps)} steps are done")
        for number, step in enumerate(steps, 1):
            while not settled(study.attempts()[step]):
                runner.attempt(step, f"{number}/{len(steps)}")
        return all(succeeded(tried) for step, tried in study.attempts().items() if step in steps)


def settled(tried: Sequence[Attempt]) -> bool:
    """Whether a step needs no further attempt: it ran to a verdict, or failed as often as it may."""
    counted = [a for a in tried if a.ended and not a.interrupted]
    return bool(counted) and (counted[-1].status in (errors.VALID, errors.INVALID) or len(counted) >= TRIES)


def succeeded(tried: Sequence[Attempt]) -> bool:
    """Whether a step's last attempt was VALID."""
    counted = [a for a in tried if a.ended and not a.interrupted]
    return bool(counted) and counted[-1].status == errors.VALID


class _Stopping:
    """While it is entered, SIGTERM, SIGINT and SIGHUP set `signal` and are passed on to the runs."""

    def __init__(self) -> None:
        self.signal = 0
        self.runs: list[subprocess.Popen] = []
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Stopping:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            self._before[number] = signal.signal(number, self._stop)
        return self

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        for run in self.runs:
            run.send_signal(signal.SIGTERM)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class _Runner:
    def __init__(
        self, study: Study, allocation: Allocation, locks: Sequence[int], stopping: _Stopping, console: Console
    ) -> None:
        self._study, self._design, self._allocation = study, study.design, allocation
        self._locks, self._stopping, self._console = locks, stopping, console

    def attempt(self, step: Step, progress: str) -> None:
        """Run a step once, and note how it ended."""
        name, directory = step.name(self._design), self._study.directory
        number = len(self._study.attempts()[step])
        commands = commands_of(step, self._design, self._allocation, directory, number)
        before = self._logs(step)
        self._study.start(step, commands)
        (directory / "output").mkdir(exist_ok=True)
        begin = time.monotonic()
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        runs, outputs = [], []
        for k, command in enumerate(commands):
            outputs.append(directory / "output" / (f"{name}.{number}" + (f".{k}" if len(commands) > 1 else "")))
            with outputs[-1].open("wb") as out:
                runs.append(
                    subprocess.Popen(
                        command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=environment,
                        pass_fds=self._locks, start_new_session=True,
                    )
                )  # fmt: skip
            self._stopping.runs = runs
        statuses = self._wait(runs)
        wall_s = time.monotonic() - begin
        status = max((s if s >= 0 else 128 - s for s in statuses), key=_badness)
        interrupted = bool(self._stopping.signal)
        results = self._results(step, number, before)
        self._study.end(step, status, wall_s, results, interrupted)
        last = _last_lines(outputs[-1])
        self._console.line(f"{progress}  {name}  {'interrupted' if interrupted else last}  ({wall_s:.0f} s)")
        if interrupted:
            raise Stopped(signal.Signals(self._stopping.signal).name)
        if status == errors.USER_ERROR:
            raise UserError(f"{name}: {outputs[-1].read_text(errors='replace').strip()}")

    def adopt(self, step: Step, attempt: Attempt) -> None:
        """Settle an attempt that the study, killed, did not see the end of: a run that came to its verdict counts."""
        results = self._results(step, attempt.number, self._logs_known())
        statuses = [_status_of(self._study.directory / name) for name in results]
        whole = len(statuses) == max(1, self._design.instances) and None not in statuses
        status = max((s for s in statuses if s is not None), default=None) if whole else None
        self._study.end(step, status, None, results, interrupted=status is None)

    def _wait(self, runs: Sequence[subprocess.Popen]) -> list[int]:
        deadline = None
        while any(run.poll() is None for run in runs):
            if self._stopping.signal:
                deadline = deadline or time.monotonic() + STOPPING_S
                if time.monotonic() > deadline:
                    for run in runs:
                        os.killpg(run.pid, signal.SIGKILL)
            time.sleep(0.1)
        return [run.returncode for run in runs]

    def _logs(self, step: Step) -> set[str]:
        """Logs of runs as that of a step, as far as they were begun, below the study's directory."""
        root = "gates" if step.kind == "gate" else "results"
        begun = (self._study.directory / root).glob("*/*/*/result_*.config.json")
        return {str(path.relative_to(self._study.directory)).replace(".config.json", ".txt") for path in begun}

    def _logs_known(self) -> set[str]:
        return {name for tried in self._study.attempts().values() for a in tried for name in a.results}

    def _results(self, step: Step, number: int, before: set[str]) -> list[str]:
        """What an attempt has left: logs of its seeds that were not there before, or the file of a probe."""
        if step.kind in ("io", "comm"):
            file = _probe_file(step, self._design, number)
            return [file] if (self._study.directory / file).exists() else []
        new = []
        system = _system(step, self._design)
        for name in sorted(self._logs(step) - before):
            path = self._study.directory / name
            seed = json.loads(path.with_suffix(".config.json").read_text())["config"]["seed"]
            if seed in step.seeds(self._design) and name.split("/")[1].endswith(system):
                new.append(name)
        return new


def commands_of(step: Step, design: Design, allocation: Allocation, directory: Path, attempt: int) -> list[list[str]]:
    """The commands of a step's runs; several where instances train at once."""
    per_node = design.ranks_per_node if design.unit == "nodes" else step.point
    nodes = step.point if design.unit == "nodes" else 1
    options = list(design.arguments)
    if design.fixed_local_batch:
        options += ["--set", f"train.global_batch={design.batch(step.point)}"]
    if design.scaling == "weak" and not design.instances:
        options.append("--weak")
    if step.kind == "gate":
        options = [word for word in options if word != "--fixed-work"]
    commands = []
    for k, seed in enumerate(step.seeds(design)):
        start = allocation.start(k * nodes, nodes, per_node)
        program = [sys.executable, "-m", "sciml_hpc"]
        if step.kind in ("io", "comm"):
            file = directory / _probe_file(step, design, attempt)
            file.parent.mkdir(exist_ok=True)
            return [[*start, *program, step.kind, design.benchmark, *options, "--json", str(file)]]
        where = ["--output", str(directory / ("gates" if step.kind == "gate" else "results")), "--seed", str(seed)]
        commands.append([*start, *program, design.benchmark, *options, *where])
    return commands


def _probe_file(step: Step, design: Design, attempt: int) -> str:
    return f"probes/{step.name(design)}.{attempt}.json"


def _system(step: Step, design: Design) -> str:
    """How the name ends under which a run of a step files its results (`job.system_name`)."""
    if design.unit == "nodes":
        return f"_n{step.point}x{design.ranks_per_node}"
    return f"x{step.point}"


def _status_of(path: Path) -> int | None:
    """The exit status that a run's record stands for; None if it came to none."""
    try:
        content = json.loads(path.with_suffix(".json").read_text() if path.suffix == ".txt" else path.read_text())
    except (OSError, ValueError):
        return None
    if path.suffix == ".json":
        return errors.VALID
    if content["status"] in ("interrupted", "fault"):
        return None
    return errors.VALID if content["verdict"] == "VALID" else errors.INVALID


def _badness(status: int) -> tuple[bool, int]:
    """Order of exit statuses: 0, 1, other faults, 2 (the user's mistake) last."""
    return status == errors.USER_ERROR, status


def _last_lines(output: Path) -> str:
    """Verdict and figure of merit of a run that came to them, else its last line."""
    lines = output.read_text(errors="replace").strip().splitlines() or ["printed nothing"]
    verdict = [line for line in lines if line.startswith(("VALID", "INVALID", "FOM: "))]
    return "  ".join(verdict[-2:]) if verdict else lines[-1].strip()
