"""How a run learned: loss of its steps and target metric of its epochs, by epoch and by time since `run_start`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sciml_hpc.results.logfile import Line, last, last_mapping
from sciml_hpc.results.runs import Run

POINTS = 100
"""A course of loss is drawn in so many points, each the mean of equally many steps."""


@dataclass(frozen=True)
class Course:
    """One curve, of equally many values: epochs (fractions of them), seconds since `run_start`, values."""

    ranks: int
    epochs: np.ndarray
    times_s: np.ndarray
    values: np.ndarray


def target_of(run: Run) -> dict[str, Any]:
    """The target as the log declares it: `name` of the metric, `direction`; `value` and `source` but for fixed work."""
    return last_mapping(run.lines, "target")


def metric(run: Run) -> Course | None:
    """The target's metric at the end of each evaluation; None if the record does not have it."""
    name = target_of(run).get("name")
    ends = {line.metadata.get("epoch_num"): elapsed_s(run.lines, line) for line in run.lines if line.key == "eval_stop"}
    known = [
        (e["epoch"], ends[e["epoch"]], e["metrics"][name])
        for e in run.content["epochs"]
        if e["epoch"] in ends and (e.get("metrics") or {}).get(name) is not None
    ]
    return Course(run.content["job"]["ranks"], *map(np.array, zip(*known, strict=True))) if known else None


def loss(run: Run) -> Course | None:
    """The training loss; None if the losses of the steps were not kept, or lie in no file of ours."""
    rows = _steps(run.log.with_suffix(".steps.csv"))
    starts, stops = (
        {line.metadata.get("epoch_num"): elapsed_s(run.lines, line) for line in run.lines if line.key == key}
        for key in ("epoch_start", "epoch_stop")
    )
    lengths = {epoch: len(list(group)) for epoch, group in itertools.groupby(rows, key=lambda row: row[0])}
    rows = [row for row in rows if row[0] in starts and row[0] in stops]
    if not rows:
        return None
    fractions = [step / lengths[epoch] for epoch, step, _ in rows]
    epochs = np.array([epoch - 1 + f for (epoch, _, _), f in zip(rows, fractions, strict=True)])
    times = np.array(
        [starts[e] + f * (stops[e] - starts[e]) for (e, _, _), f in zip(rows, fractions, strict=True)], float
    )
    values = np.array([value for _, _, value in rows])
    block = max(1, len(rows) // POINTS)
    whole = len(rows) // block * block
    means = (x[:whole].reshape(-1, block).mean(1) for x in (epochs, times, values))
    return Course(run.content["job"]["ranks"], *means)


def elapsed_s(lines: Sequence[Line], line: Line) -> float:
    """Seconds from `run_start` to a line, without the time between an interruption and its resumption."""
    start = last(lines, "run_start")
    gaps = [
        after.time_ms - before.time_ms
        for before, after in itertools.pairwise(lines)
        if (before.key, after.key) == ("interrupted", "resumed") and after.number <= line.number
    ]
    return (line.time_ms - (start.time_ms if start else line.time_ms) - sum(gaps)) / 1000


def _steps(path: Path) -> list[tuple[int, int, float]]:
    """(epoch, step, loss) of each step."""
    try:
        header, *rows = path.read_text().split()
        cells = [row.split(",") for row in rows] if header == "epoch,step,loss" else []
        return [(int(epoch), int(step), float(value)) for epoch, step, value in cells]
    except (OSError, ValueError):
        return []
