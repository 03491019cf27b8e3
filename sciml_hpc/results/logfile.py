"""An MLPerf log as it lies in a file: strict reading of its lines, and the figures that follow from them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sciml_hpc.errors import UserError
from sciml_hpc.results.keys import POINT, START, STOP
from sciml_hpc.results.targets import official_targets

TOKEN = ":::MLLOG "
_FIELDS = {"namespace", "time_ms", "event_type", "key", "value", "metadata"}


@dataclass(frozen=True)
class Line:
    """One event of a log; `number` counts the file's lines from 1."""

    number: int
    time_ms: int
    event: str
    key: str
    value: Any
    metadata: dict[str, Any]


@dataclass(frozen=True)
class Finding:
    """Something wrong with a log: which rule, where (0: the log as a whole) and what."""

    rule: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.rule}: {f'line {self.line}: ' if self.line else ''}{self.what}"


def read(path: Path) -> tuple[list[Line], list[Finding]]:
    """The lines of a log and what is wrong with their form; UserError if the file cannot be read."""
    try:
        return parse(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def parse(content: bytes) -> tuple[list[Line], list[Finding]]:
    """As `read`, from the file's bytes. Lines that are not events of a log are left out of the first list."""
    lines, findings = [], []
    for number, raw in enumerate(content.split(b"\n"), start=1):
        try:
            if raw:
                lines.append(_line(number, raw))
        except (ValueError, RecursionError) as error:
            findings.append(Finding("form", number, str(error)))
    if content and not content.endswith(b"\n"):
        findings.append(Finding("form", content.count(b"\n") + 1, "does not end: the file was cut"))
    return lines, findings


def _line(number: int, raw: bytes) -> Line:
    text = raw.decode("ascii")
    if not text.startswith(TOKEN):
        what = f"{text[: text.index(TOKEN)]!r} stands before the event" if TOKEN in text else "is not an event"
        raise ValueError(what)
    event = json.loads(text[len(TOKEN) :], object_pairs_hook=_without_duplicates, parse_int=_int64)
    if not isinstance(event, dict) or event.keys() != _FIELDS:
        raise ValueError(f"must have the fields {', '.join(sorted(_FIELDS))}, and no other")
    time_ms, kind, key, metadata = event["time_ms"], event["event_type"], event["key"], event["metadata"]
    if type(time_ms) is not int or time_ms < 0:
        raise ValueError(f"time_ms is {time_ms!r}; it must be whole milliseconds")
    if not isinstance(key, str) or not isinstance(metadata, dict):
        raise ValueError("key must be a text and metadata a mapping")
    if kind not in (POINT, START, STOP):
        raise ValueError(f"event_type is {kind!r}; it must be {POINT}, {START} or {STOP}")
    return Line(number, time_ms, kind, key, event["value"], metadata)


def _int64(digits: str) -> int:
    if abs(number := int(digits)) >= 2**63:
        raise ValueError("has a number of more than 64 bits")
    return number


def _without_duplicates(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in pairs:
        if name in result:
            raise ValueError(f"has the field {name!r} twice")
        result[name] = value
    return result


def last(lines: Sequence[Line], key: str) -> Line | None:
    """The last line with that key."""
    return next((line for line in reversed(lines) if line.key == key), None)


def last_mapping(lines: Sequence[Line], key: str) -> dict[str, Any]:
    """The value of the last line with that key, if it is a mapping; else an empty one."""
    line = last(lines, key)
    return line.value if line is not None and isinstance(line.value, dict) else {}


def meets(benchmark: Any, target: Mapping[str, Any], value: Any) -> bool:
    """Whether `value` reaches the target as a log declares it; what is no number or no such target never does."""
    if type(value) not in (int, float):
        return False
    if target.get("kind") == "official":
        official = official_targets().get(str(benchmark))
        return official is not None and official.met(value)
    goal = target.get("value")
    if target.get("kind") != "declared" or type(goal) not in (int, float):
        return False
    return value >= goal if target.get("direction") == "max" else value <= goal


def first_met(lines: Sequence[Line]) -> Line | None:
    """The first metric that reaches the declared target; None if none does or the log declares none."""
    benchmark, target = last(lines, "submission_benchmark"), last_mapping(lines, "target")
    name, key = benchmark and benchmark.value, target.get("metric")
    return next((x for x in lines if x.key == key and meets(name, target, x.value)), None)


@dataclass(frozen=True)
class Figures:
    """What the lines of a log say about the run's time. Time between an interruption and its resumption is left out
    of all of them and given apart; if a run was resumed that had not said when it was interrupted, all time counts.
    """

    run_s: float
    """`run_start` to `run_stop`, or to the last line of a run that did not come to it."""
    staging_s: float
    time_to_convergence_s: float | None
    """`run_start` to the end of the evaluation that first met the target; None if none did (or there is none)."""
    converged_epoch: int | None
    epochs: int
    """Epochs done."""
    interrupted_s: float


def figures(lines: Sequence[Line]) -> Figures | None:
    """The figures of a log that `parse` has read; None if the run was not started."""
    start = last(lines, "run_start")
    if start is None:
        return None
    met = first_met(lines)
    converged = None
    if met is not None:
        converged = next((x for x in lines if x.key == "eval_stop" and x.number > met.number), None)
    stop = last(lines, "run_stop") or lines[-1]
    gaps = [pair for pair in itertools.pairwise(lines) if (pair[0].key, pair[1].key) == ("interrupted", "resumed")]

    def elapsed_s(end: Line) -> float:
        lost = sum(after.time_ms - before.time_ms for before, after in gaps if after.number <= end.number)
        return (end.time_ms - start.time_ms - lost) / 1000

    staging_ms, since = 0, None
    for line in lines:
        if line.key == "staging_start":
            since = line.time_ms
        elif line.key == "staging_stop" and since is not None:
            staging_ms, since = staging_ms + line.time_ms - since, None
    return Figures(
        run_s=elapsed_s(stop),
        staging_s=staging_ms / 1000,
        time_to_convergence_s=None if converged is None else elapsed_s(converged),
        converged_epoch=None if converged is None else converged.metadata.get("epoch_num"),
        epochs=len({str(line.metadata.get("epoch_num")) for line in lines if line.key == "epoch_stop"}),
        interrupted_s=sum(after.time_ms - before.time_ms for before, after in gaps) / 1000,
    )
