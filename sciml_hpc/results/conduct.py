"""What a log must obey beyond MLCommons' rules: their checker lets through an aborted run, time that goes backwards,
epochs outside the run and more. Each rule is a function of the log's lines that yields what it finds.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sciml_hpc.errors import did_you_mean
from sciml_hpc.results.keys import KEYS, METRICS, key
from sciml_hpc.results.logfile import Finding, Line, figures, first_met, last, last_mapping
from sciml_hpc.results.targets import official_targets

Lines = Sequence[Line]

TIMES = ("time_to_convergence_s", "staging_s", "run_s")
"""Figures that a result or a record may give and that follow from the log: fields of `logfile.Figures`."""


def vocabulary(lines: Lines) -> Iterator[Finding]:
    """Every key is one that our logs hold, with its event type."""
    for line in lines:
        rules = key(line.key)
        if rules is None:
            yield Finding("vocabulary", line.number, f"unknown key {line.key!r}{did_you_mean(line.key, KEYS)}")
        elif line.event != rules.event:
            yield Finding("vocabulary", line.number, f"{line.key} is {line.event}; it must be {rules.event}")


def occurrence(lines: Lines) -> Iterator[Finding]:
    """What belongs to a run once stands there once, even if the repetition says the same."""
    counts = Counter(line.key for line in lines)
    for name, count in counts.items():
        rules = key(name)
        if rules is not None and rules.once and count > 1:
            yield Finding("occurrence", last(lines, name).number, f"{name} is there {count} times; it must be once")


def clock(lines: Lines) -> Iterator[Finding]:
    """Time does not go backwards."""
    for before, line in itertools.pairwise(lines):
        if line.time_ms < before.time_ms:
            what = f"{line.key} is {before.time_ms - line.time_ms} ms before the line above it"
            yield Finding("clock", line.number, what)


def order(lines: Lines) -> Iterator[Finding]:
    """Set-up before the run, training inside it, nothing but results and statistics after it."""
    part = "setup"
    for line in lines:
        rules = key(line.key)
        allowed = rules.part if rules is not None else "any"
        if part == "after" and allowed != "after":
            yield Finding("order", line.number, f"{line.key} after run_stop")
        elif part == "setup" and allowed in ("run", "after"):
            yield Finding("order", line.number, f"{line.key} before run_start")
        elif part == "run" and allowed == "setup":
            yield Finding("order", line.number, f"{line.key} after run_start")
        part = {"run_start": "run", "run_stop": "after"}.get(line.key, part)


def intervals(lines: Lines) -> Iterator[Finding]:
    """Every interval that starts stops, for the same epoch; one that a resumed run found open may start again."""
    open_: dict[str, Line] = {}
    interrupted: set[str] = set()
    for line in lines:
        name, _, end = line.key.rpartition("_")
        if line.key == "resumed":
            interrupted = set(open_) - {"run"}
        elif line.key == "restored" and line.metadata.get("step"):
            open_["epoch"] = line  # taken up in its middle
            interrupted.add("epoch")
        elif end == "start":
            if name in open_ and name not in interrupted:
                yield Finding("intervals", line.number, f"{name} starts again before it has stopped")
            open_[name] = line
            interrupted.discard(name)
        elif end == "stop":
            start = open_.pop(name, None)
            if start is None:
                yield Finding("intervals", line.number, f"{name} stops without having started")
            elif start.metadata.get("epoch_num") != line.metadata.get("epoch_num"):
                yield Finding("intervals", line.number, f"{name} stops for another epoch than it started for")
    for name, line in open_.items():
        yield Finding("intervals", line.number, f"{name} starts and never stops")


def epochs(lines: Lines) -> Iterator[Finding]:
    """Epochs count 1, 2, 3, …; a resumed run goes on where its checkpoint was made."""
    begun, allowed = 0, {1}
    for line in lines:
        number = line.metadata.get("epoch_num")
        if line.key == "epoch_start":
            if type(number) is not int or number not in allowed:
                expected = " or ".join(map(str, sorted(allowed))) or "preceded by the checkpoint that was restored"
                yield Finding("epochs", line.number, f"epoch_num is {number!r}; it must be {expected}")
            begun = number if type(number) is int else begun + 1
            allowed = {begun + 1}
        elif line.key == "resumed":
            allowed = set()
        elif line.key == "restored":
            in_its_middle = bool(line.metadata.get("step"))
            if type(number) is not int or not 1 <= number <= begun + (not in_its_middle):
                yield Finding("epochs", line.number, f"restored in epoch {number!r}, but {begun} were begun")
            else:
                begun = number if in_its_middle else number - 1
                allowed = {number, begun + 1}


def evaluations(lines: Lines) -> Iterator[Finding]:
    """Metrics stand inside the evaluation of the epoch trained last; every evaluation gives the one that is judged."""
    judged = last_mapping(lines, "target").get("metric")
    epoch, current, given = None, None, False
    for line in lines:
        number = line.metadata.get("epoch_num")
        if line.key == "epoch_stop":
            epoch = number
        elif line.key == "eval_start":
            current, given = line, False
            if number != epoch:
                yield Finding("evaluations", line.number, f"evaluation of epoch {number!r} after epoch {epoch!r}")
        elif line.key == "eval_stop":
            if not given:
                yield Finding("evaluations", line.number, f"the evaluation gives no {judged}")
            current = None
        elif line.key in METRICS:
            given = given or line.key == judged
            if current is None:
                yield Finding("evaluations", line.number, f"{line.key} outside an evaluation")
            elif number != current.metadata.get("epoch_num"):
                yield Finding("evaluations", line.number, f"{line.key} is given for another epoch, {number!r}")


def numbers(lines: Lines) -> Iterator[Finding]:
    """Metrics are finite numbers."""
    for line in lines:
        if line.key in METRICS and (type(line.value) not in (int, float) or not math.isfinite(line.value)):
            yield Finding("numbers", line.number, f"{line.key} is {line.value!r}; it must be a finite number")


def ending(lines: Lines) -> Iterator[Finding]:
    """The run came to its end, unbroken, and calls itself a success only if it met its target."""
    stop = last(lines, "run_stop")
    interruption, resumption = last(lines, "interrupted"), last(lines, "resumed")
    if interruption and (resumption is None or resumption.number < interruption.number):
        yield Finding("ending", interruption.number, f"interrupted and not resumed: {interruption.value}")
    for line in lines:
        if line.key == "fault":
            yield Finding("ending", line.number, f"the run broke: {line.value}")
    if stop is None:
        yield Finding("ending", 0, "no run_stop: the run did not come to its end")
        return
    status = stop.metadata.get("status")
    if status != "success":
        yield Finding("ending", stop.number, f"run_stop has status {status!r}; it must be 'success'")
    fixed_work = last_mapping(lines, "target").get("kind") == "fixed_work"
    if status == "success" and not fixed_work and first_met(lines) is None:
        yield Finding("ending", stop.number, "run_stop has status 'success', but the target was never met")


def target(lines: Lines) -> Iterator[Finding]:
    """A target is declared: the official one where the publisher set it and the data are the published."""
    line, declared, benchmark = (
        last(lines, "target"),
        last_mapping(lines, "target"),
        last(lines, "submission_benchmark"),
    )
    if line is None or not declared:
        yield Finding("target", 0, "the log declares no target")
        return
    official = official_targets().get(str(benchmark and benchmark.value))
    published = last_mapping(lines, "dataset").get("origin") == "published"
    kind = declared.get("kind")
    if kind == "declared" and published and official is not None:
        what = f"published data, but the target is not the official one ({official.metric} {official.value:g})"
        yield Finding("target", line.number, what)
    if kind == "official" and official is None:
        yield Finding("target", line.number, f"calls itself official, but {benchmark and benchmark.value} has none")
    elif kind == "official":
        for name in ("metric", "direction", "value"):
            found, wanted = declared.get(name), getattr(official, name)
            if found != wanted:
                yield Finding("target", line.number, f"calls itself official, but {name} is {found!r}, not {wanted!r}")
    done = figures(lines)
    if kind == "fixed_work" and done is not None and done.epochs != declared.get("epochs"):
        what = f"{declared.get('epochs')!r} epochs of fixed work were asked for, {done.epochs} done"
        yield Finding("target", line.number, what)


def result(lines: Lines) -> Iterator[Finding]:
    """The result's figures are those that follow from the log."""
    times, declared = figures(lines), last_mapping(lines, "target")
    name = str(declared.get("name"))
    logged = [line.value for line in lines if line.key == declared.get("metric")]
    for line in lines:
        if line.key != "result" or not isinstance(line.value, dict) or times is None:
            continue
        if name in line.value and line.value[name] not in logged:
            yield Finding("result", line.number, f"{name} is {line.value[name]!r}, which no evaluation gave")
        for figure in TIMES:
            given, true = line.value.get(figure), getattr(times, figure)
            if given is not None and not close_s(given, true):
                yield Finding("result", line.number, f"{figure} is {given!r}; the log's lines give {true!r}")


def close_s(given: Any, true: float | None) -> bool:
    """Whether a time agrees with that of the log's lines: to 0.1 s, or to 1 in 1000 (two clocks were read in turn)."""
    return type(given) in (int, float) and true is not None and abs(given - true) <= max(0.1, 1e-3 * abs(true))


RULES: tuple[Callable[[Lines], Iterator[Finding]], ...] = (
    vocabulary,
    occurrence,
    clock,
    order,
    intervals,
    epochs,
    evaluations,
    numbers,
    ending,
    target,
    result,
)
