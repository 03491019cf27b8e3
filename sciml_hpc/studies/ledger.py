"""What a study has done, in files that a killed study leaves whole: which attempt of which step gave which results.

One file per point, appended to and flushed to disk, so that jobs of different points do not meet in one file:

    study.json            the design
    points/n4.jsonl       a line when an attempt begins and one when it ends
    output/n4-train-2.0   what attempt 0 of the step printed
    results/, gates/      MLPerf's layout, with every attempt's log under a number of its own; nothing is removed
    probes/               figures of `io` and `comm`
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sciml_hpc.data.shards import write_atomically
from sciml_hpc.errors import UserError, explain
from sciml_hpc.studies.design import Design, Step, order


@dataclass
class Attempt:
    """One attempt at a step."""

    number: int
    command: list[list[str]]
    """Of each run that was started."""
    started_s: float
    """Seconds since the epoch."""
    ended: bool = False
    interrupted: bool = False
    """The study was stopped while it ran: this is no failure of the step, and it is run anew."""
    status: int | None = None
    """The worst exit status of its runs."""
    wall_s: float | None = None
    results: list[str] = field(default_factory=list)
    """Logs of its runs (or the file of a probe), below the study's directory."""


class Study:
    """A study's directory."""

    def __init__(self, directory: Path, design: Design) -> None:
        self.directory, self.design = directory, design

    @classmethod
    def open(cls, directory: Path, design: Design) -> Study:
        """The study in `directory`: a new one, or the one there. Raises UserError if that has another design."""
        path = directory / "study.json"
        if path.exists():
            there = load_design(path)
            now, before = design.model_dump(), there.model_dump()
            differing = [f"{k}: it is {before[k]!r}, now {now[k]!r}" for k in now if now[k] != before[k]]
            if differing:
                raise UserError(f"{directory} holds another study ({'; '.join(differing)}): take another directory")
            return cls(directory, there)
        if directory.exists() and any(directory.iterdir()):
            raise UserError(f"{directory}: is not empty and holds no study: take another directory")
        try:
            (directory / "points").mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(design.model_dump(by_alias=True), indent=1) + "\n")
        except OSError as error:
            raise UserError(f"{directory}: cannot be written: {error.strerror}") from None
        return cls(directory, design)

    @classmethod
    def load(cls, directory: Path) -> Study:
        """The study in `directory`, to be read. Raises UserError if there is none."""
        return cls(directory, load_design(directory / "study.json"))

    def attempts(self) -> dict[Step, list[Attempt]]:
        """What was tried, by step in the order of the design. Raises UserError naming a line that cannot be read."""
        found: dict[Step, list[Attempt]] = {step: [] for step in order(self.design)}
        by_name = {step.name(self.design): step for step in found}
        for point in self.design.points:
            for entry in _lines(self._file(point)):
                tried = found[by_name[entry["step"]]]
                if entry["event"] == "start":
                    tried.append(Attempt(len(tried), entry["command"], entry["time_s"]))
                else:
                    last = tried[-1]
                    last.ended, last.interrupted, last.status = True, entry["interrupted"], entry["status"]
                    last.wall_s, last.results = entry["wall_s"], entry["results"]
        return found

    def start(self, step: Step, command: list[list[str]]) -> None:
        """Note that an attempt begins."""
        self._append(step, {"event": "start", "time_s": time.time(), "command": command})

    def end(
        self, step: Step, status: int | None, wall_s: float | None, results: Iterable[str], interrupted: bool = False
    ) -> None:
        """Note how it ended."""
        entry = {"status": status, "wall_s": wall_s, "results": list(results), "interrupted": interrupted}
        self._append(step, {"event": "end", **entry})

    @contextmanager
    def locked(self, points: Iterable[int]) -> Iterator[list[int]]:
        """Hold these points, so that nobody else runs them; yields the locks' file descriptors.

        A run that inherits them holds them as well: one that has outlived its study keeps it from being run twice.
        Raises UserError if somebody holds one.
        """
        files = []
        try:
            for point in points:
                self._file(point).parent.mkdir(parents=True, exist_ok=True)
                file = self._file(point).with_suffix(".lock").open("w")
                files.append(file)
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise UserError(
                        f"{self.directory}: point {self.design.name(point)} is being run by another process, or by a "
                        "run that a killed study left behind: wait for it, or end it"
                    ) from None
            yield [file.fileno() for file in files]
        finally:
            for file in files:
                file.close()

    def _file(self, point: int) -> Path:
        return self.directory / "points" / f"{self.design.name(point)}.jsonl"

    def _append(self, step: Step, entry: Mapping[str, Any]) -> None:
        with self._file(step.point).open("a+b") as file:
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)  # a line that was cut when its writer was killed
            file.write(json.dumps({"step": step.name(self.design), **entry}).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def load_design(path: Path) -> Design:
    """The design in a `study.json`. Raises UserError naming file and field."""
    try:
        return Design.model_validate(json.loads(path.read_text()))
    except ValidationError as error:
        raise explain(str(path), error, Design) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON: {error}") from None


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Entries of a point's file; a last line that was cut, when its writer was killed, is left out."""
    if not path.exists():
        return
    *whole, _cut = path.read_text().split("\n")
    for number, line in enumerate(whole, 1):
        try:
            entry = json.loads(line)
            _ = entry["step"], entry["event"]
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path}: line {number} is not an entry of a study") from None
        yield entry
