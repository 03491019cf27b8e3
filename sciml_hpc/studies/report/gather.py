"""What was handed in: studies, logs given by hand, and every log with the part it plays."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sciml_hpc import errors
from sciml_hpc.errors import UserError
from sciml_hpc.results.logfile import last, parse
from sciml_hpc.results.runs import Run, load
from sciml_hpc.studies import findings
from sciml_hpc.studies.findings import Findings, Left
from sciml_hpc.studies.ledger import Study

COUNTS, WARM_UP, GATE, LEFT = "counts", "warm-up, dropped by design", "shows convergence", "does not count"


@dataclass(frozen=True)
class Log:
    """A log that was found."""

    name: str
    role: str
    """`COUNTS`, `WARM_UP`, `GATE`, or `LEFT`."""
    run: Run | None
    """None if its record is malformed, or that of a run that broke."""
    log_bytes: bytes
    record_bytes: bytes
    """Empty if there is none."""

    @property
    def content(self) -> dict[str, Any]:
        """The record, however little is in it."""
        try:
            content = json.loads(self.record_bytes)
        except (ValueError, RecursionError):
            return {}
        return content if isinstance(content, dict) else {}

    @property
    def started_ms(self) -> int:
        """The time of `run_start`; 0 if the run did not start."""
        line = last(parse(self.log_bytes)[0], "run_start")
        return line.time_ms if line else 0


@dataclass(frozen=True)
class Gathered:
    """All of it."""

    sets: tuple[Findings, ...]
    """One of each study, then one of each benchmark among the logs given by hand."""
    logs: tuple[Log, ...]
    root: str
    """The directory that names are relative to."""

    @property
    def left(self) -> list[Left]:
        """What does not count, of all sets."""
        return [left for found in self.sets for left in found.left]


def gather(results: Sequence[Path], nodes: Sequence[int] = ()) -> Gathered:
    """Read what lies in files and directories; projections are made to `nodes`.

    A directory is a study, or is searched for studies and for logs that belong to none. Raises UserError for a path
    that is not there, or nothing found.
    """
    studies, files = _search(results)
    if not studies and not files:
        raise UserError(f"no study and no result_N.txt in {', '.join(map(str, results))}")
    root = os.path.commonpath([*studies, *(file.parent for file in files)])
    sets, logs = [], []
    for directory in studies:
        study = Study.load(directory)
        found = findings.of_study(study, nodes)
        sets.append(replace(found, title=_title(found, directory, root, len(studies))))
        logs += _logs_of_study(study, found, root)
    readable: dict[Path, Run] = {}
    lost: list[Left] = []
    for file in files:
        try:
            readable[file] = load(file)
        except UserError as error:
            lost.append(Left(str(file), findings.reasons_of(file) or str(error)))
    by_hand = findings.of_files(readable, nodes) if readable else []
    if lost and by_hand:
        by_hand[0] = replace(by_hand[0], left=(*by_hand[0].left, *lost))
    elif lost and sets:
        sets[0] = replace(sets[0], left=(*sets[0].left, *lost))
    elif lost:
        raise UserError("no log has a record that can be read:\n" + "\n".join(f"{x.name}: {x.why}" for x in lost))
    counted = {run.log for found in by_hand for run in found.runs}
    logs += [_log(file, COUNTS if file in counted else LEFT, root) for file in files]
    sets = [_named(found, root) for found in (*sets, *by_hand)]
    return Gathered(tuple(sets), tuple(logs), root)


def _search(results: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """(studies, logs outside of them), each once, absolute."""
    studies: dict[Path, None] = {}
    files: dict[Path, None] = {}
    for given in results:
        path = given.resolve()
        if path.is_dir():
            studies |= dict.fromkeys(sorted(p.parent for p in path.rglob("study.json")))
            files |= dict.fromkeys(sorted(path.rglob("result_*.txt")))
        elif path.exists():
            files[path.with_suffix(".txt") if path.suffix == ".json" else path] = None
        else:
            raise UserError(f"{given}: is not there")
    return list(studies), [f for f in files if not any(study in f.parents for study in studies)]


def _logs_of_study(study: Study, found: Findings, root: str) -> list[Log]:
    counted = {run.log for run in found.runs}
    roles: dict[Path, str] = {}
    for step, tried in study.attempts().items():
        for attempt in tried:
            for result in attempt.results:
                path = study.directory / result
                if path.suffix != ".txt":
                    continue
                valid = attempt.status == errors.VALID and not attempt.interrupted
                part = {"warm-up": WARM_UP, "gate": GATE}.get(step.kind, COUNTS if path in counted else LEFT)
                roles[path] = part if valid else LEFT
    for path in sorted(study.directory.glob("*/*/*/*/result_*.txt")):
        roles.setdefault(path, LEFT)  # of an attempt that did not end, or put there by somebody
    return [_log(path, role, root) for path, role in roles.items() if path.exists()]


def _log(path: Path, role: str, root: str) -> Log:
    try:
        run = load(path)
    except UserError:
        run = None
    record = path.with_suffix(".json")
    return Log(
        os.path.relpath(path, root), role, run, path.read_bytes(), record.read_bytes() if record.exists() else b""
    )


def _title(found: Findings, directory: Path, root: str, studies: int) -> str:
    return found.title if studies == 1 else f"{found.title} ({os.path.relpath(directory, root)})"


def _named(found: Findings, root: str) -> Findings:
    """With names below `root` made short."""
    return replace(
        found,
        left=tuple(
            Left(x.name.replace(f"{root}{os.sep}", ""), x.why.replace(f"{root}{os.sep}", "")) for x in found.left
        ),
    )
