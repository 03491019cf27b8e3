"""Acceptance: are the figures of a contract met, by runs that are what the contract asks for?

Each check is PASS, FAIL (measured, and missed), INVALID (the runs are not the contracted ones, or did not converge: a
fast wrong run is no slow run) or MISSING (nothing was handed in, or the figure was not measured). A set of runs is
judged as a whole, before its figures: one run that does not belong makes it INVALID, and an INVALID set has no figures.

What is refused, each with the run's name: another commit, changed code, configuration, batch, data or work; a record
that does not follow from its log and from itself; a run handed in twice, copied, or under another seed; a gap in the
numbering, a run beside the given ones, more or fewer runs than contracted, runs numbered against their times; nodes
that differ or are not as contracted; caches that were not cold; energy that was not measured.

What no file can show, and a centre must secure otherwise:
  - a log and a record forged together, consistently: nothing here is signed. Let the centre's own staff start the runs,
    or keep the hash of the package (`package`) as soon as they end;
  - figures that only the record has, and from which nothing else in it follows (energy, step times, nodes' figures, the
    description of the system): they are as true as the file is;
  - results directories thrown away before the one handed in, or the last runs deleted from it (or runs from its middle,
    the later ones renumbered; `max_pause_s` narrows that): compare with the batch system's accounting;
  - clocks, power limits, firmware or cooling that will be other after acceptance, unless `system` contracts them;
  - caches of the file servers, below the page cache of the nodes, which alone is dropped and looked at;
  - a reference run made slow for the sake of an efficiency: bound the reference's own figures, too;
  - code that gives another's commit, or a sensor that gives wrong readings.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from sciml_hpc.errors import UserError
from sciml_hpc.studies import junit
from sciml_hpc.studies.conformity import asked_for, complaints, config_of, described, notes, other_nodes, together
from sciml_hpc.studies.contract import Case, Check, Contract, Loaded, load
from sciml_hpc.studies.criteria import (
    by_run,
    doubtful_energy,
    expected_of,
    medians,
    merit_of,
    resolved,
    statistic,
    values_of,
)
from sciml_hpc.studies.evidence import Evidence, Found, search

Status = Literal["PASS", "FAIL", "INVALID", "MISSING"]
SCHEMA = "sciml_hpc.acceptance/1"


@dataclass(frozen=True)
class Outcome:
    """One check."""

    name: str
    status: Status
    expected: str
    found: float | None = None
    unit: str = ""
    n: int = 0
    """Values that the figure is a statistic of."""
    reasons: tuple[str, ...] = ()

    def line(self) -> str:
        """As it is printed."""
        figure = (
            "–" if self.found is None else " ".join(filter(None, (f"{self.found:.6g}", self.unit, f"(n = {self.n})")))
        )
        return f"{self.status:8} {self.name}: {figure}; must be {self.expected}"


@dataclass(frozen=True)
class CaseOutcome:
    """One case: first of its outcomes is that of the set of runs as a whole."""

    name: str
    outcomes: tuple[Outcome, ...]
    counted: tuple[Evidence, ...]
    warm_up: tuple[Evidence, ...]
    merit: Mapping[str, float]
    """Median over the runs that count; none of a set that is not valid."""
    notes: tuple[str, ...]

    @property
    def status(self) -> Status:
        """The worst of the outcomes."""
        return worst(o.status for o in self.outcomes)

    @property
    def valid(self) -> bool:
        """Whether the runs are what the contract asks for and passed their gates, however fast they are."""
        return self.outcomes[0].status == "PASS"


@dataclass(frozen=True)
class Judgement:
    """A contract judged."""

    loaded: Loaded
    results: Outcome
    """Of what was handed in as a whole: whether every run has its place."""
    cases: tuple[CaseOutcome, ...]
    others: tuple[str, ...]
    """Runs that no case asks for, in directories of their own: they were not judged."""

    @property
    def status(self) -> Status:
        """The worst of all."""
        return worst((self.results.status, *(case.status for case in self.cases)))

    @property
    def accepted(self) -> bool:
        """Whether everything was met."""
        return self.status == "PASS"

    def lines(self) -> list[str]:
        """What is printed: every check, then the verdict and the figures of merit."""
        contract = self.loaded.contract
        text = [f"{contract.name} ({self.loaded.path}, SHA-256 {self.loaded.sha256})"]
        if self.results.reasons:
            text += [f"  {self.results.line()}", *(f"             {reason}" for reason in self.results.reasons)]
        for case in self.cases:
            runs = f"{len(case.counted)} runs" + (f" after {len(case.warm_up)} of warm-up" if case.warm_up else "")
            text.append(f"{case.name}: {case.status} ({runs if case.counted else 'no runs'})")
            for outcome in case.outcomes:
                text += [f"  {outcome.line()}", *(f"             {reason}" for reason in outcome.reasons)]
            text += [f"  note: {note}" for note in case.notes]
        if self.others:
            text.append(f"note: not judged, as no case asks for them: {', '.join(self.others)}")
        # A record may hold any text: none of it may look like a line of ours.
        return [
            "".join(c if c.isprintable() else "\ufffd" for c in line) for line in (*text, self.verdict(), self.merit())
        ]

    def verdict(self) -> str:
        """The last line but one."""
        if self.accepted:
            checks = sum(len(case.outcomes) - 1 for case in self.cases)
            return f"PASS: {checks} checks of {len(self.cases)} cases: accepted"
        bad = [f"{c.name}: {o.name}" for c in self.cases for o in c.outcomes if o.status == self.status]
        bad = [*(["results"] if self.results.status == self.status else []), *bad]
        first = next((r for o in self._outcomes() if o.status == self.status for r in o.reasons), "")
        more = f"; and {len(bad) - 1} more" if len(bad) > 1 else ""
        return f"{self.status}: {bad[0]}{f' ({first})' if first else ''}{more}: not accepted"

    def merit(self) -> str:
        """The last line."""
        if self.status in ("INVALID", "MISSING"):
            return f"FOM: none (what is {self.status} has no figure of merit)"
        return "FOM: " + "; ".join(
            f"{case.name}: {', '.join(f'{name} = {value:.6g}' for name, value in case.merit.items())} "
            f"(median of {len(case.counted)})"
            for case in self.cases
        )

    def record(self) -> dict[str, Any]:
        """All of it, in JSON types."""
        return {
            "schema": SCHEMA,
            "contract": {
                "name": self.loaded.contract.name,
                "file": str(self.loaded.path),
                "sha256": self.loaded.sha256,
            },
            "status": self.status,
            "accepted": self.accepted,
            "results": asdict(self.results),
            "not_judged": list(self.others),
            "cases": [
                {
                    "name": case.name,
                    "status": case.status,
                    "fom": dict(case.merit) or None,
                    "checks": [asdict(outcome) for outcome in case.outcomes],
                    "runs": [_listed(e, e in case.warm_up) for e in (*case.warm_up, *case.counted)],
                    "notes": list(case.notes),
                }
                for case in self.cases
            ],
        }

    def suites(self) -> list[junit.Suite]:
        """The same for JUnit: a suite for what was handed in and one for each case."""
        named = [("results", (self.results,)), *((case.name, case.outcomes) for case in self.cases)]
        return [
            junit.Suite(name, tuple(junit.Test(o.name, o.status, o.line(), o.reasons) for o in outcomes))
            for name, outcomes in named
        ]

    def _outcomes(self) -> Iterator[Outcome]:
        yield self.results
        for case in self.cases:
            yield from case.outcomes


def worst(statuses: Iterable[Status]) -> Status:
    """INVALID before MISSING before FAIL before PASS."""
    return max(statuses, key=("PASS", "FAIL", "MISSING", "INVALID").index)


def accept(
    path: Path, results: Sequence[Path], junit_file: Path | None = None, json_file: Path | None = None
) -> Judgement:
    """Judge results by the contract in `path` and write the judgement to new files.

    Raises UserError, before any run is read, for a contract that cannot be used and for a file that exists or cannot be
    written; such a file is then not left behind.
    """
    loaded = load(path)
    if loaded.contract.template:
        raise UserError(f"{path}: template: this file's figures are placeholders; put in what was signed and remove it")
    with _new_files(junit_file, json_file) as (to_junit, to_json):
        judgement = judge(loaded, search(results))
        if to_junit:
            to_junit.write(junit.document(loaded.contract.name, judgement.suites()))
        if to_json:
            to_json.write(f"{json.dumps(judgement.record(), indent=1, allow_nan=False)}\n".encode())
    return judgement


@contextmanager
def _new_files(*paths: Path | None) -> Iterator[list[BinaryIO | None]]:
    """Files that are made now and removed again should anything go wrong."""
    made: list[Path] = []
    try:
        with ExitStack() as stack:
            files: list[BinaryIO | None] = []
            for path in paths:
                files.append(stack.enter_context(path.open("xb")) if path else None)
                made += [path] if path else []
            yield files
    except BaseException as error:
        for path in made:
            path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise UserError(f"{error.filename or made[-1]}: cannot be written: {error.strerror}") from None
        raise


def judge(loaded: Loaded, found: Found) -> Judgement:
    """Judge what was found by a contract. Raises UserError for a metric whose short name is ambiguous."""
    contract = loaded.contract
    wrong = {
        name: {e.run.log: tuple(complaints(e, contract, case)) for e in found.runs if e.key() == case.key()}
        for name, case in contract.cases.items()
    }
    placed: dict[str, list[Evidence]] = {name: [] for name in contract.cases}
    homeless: list[Evidence] = []
    for e in found.runs:
        fitting = [name for name in contract.cases if e.run.log in wrong[name]]
        if fitting:
            placed[min(fitting, key=lambda name: len(wrong[name][e.run.log]))].append(e)
        else:
            homeless.append(e)
    bench = _Bench(contract, found, placed, wrong)
    cases = tuple(bench.case(name) for name in contract.cases)
    used = {e.run.log.parent for runs in placed.values() for e in runs}
    strange = [e for e in homeless if e.given or e.run.log.parent in used]
    reasons = [
        *(f"{log} was given twice" for log in found.repeated),
        *(f"{e.run.name} is {described(e)}, which no case asks for" for e in strange),
        *(why for log, why in found.unreadable.items() if log.parent not in used and log in found.named),
    ]
    apart = [str(log) for log in found.unreadable if log.parent not in used and log not in found.named]
    expected = "runs that a case asks for, each once"
    results = Outcome("results", "INVALID" if reasons else "PASS", expected, reasons=tuple(reasons))
    return Judgement(loaded, results, cases, (*(e.run.name for e in homeless if e not in strange), *apart))


class _Bench:
    """Judges the cases of a contract, each once, those that another leans on before it."""

    def __init__(
        self,
        contract: Contract,
        found: Found,
        placed: Mapping[str, Sequence[Evidence]],
        complaints: Mapping[str, Mapping[Path, Sequence[str]]],
    ) -> None:
        self._contract, self._found, self._placed, self._complaints = contract, found, placed, complaints
        self._done: dict[str, CaseOutcome] = {}

    def case(self, name: str) -> CaseOutcome:
        """The outcome of a case."""
        if name not in self._done:
            self._done[name] = self._judge(name)
        return self._done[name]

    def _judge(self, name: str) -> CaseOutcome:
        case, runs = self._contract.cases[name], self._placed[name]
        total = case.repeats + case.warm_up
        expected = f"{case.repeats} runs" + (f" after {case.warm_up} of warm-up" if case.warm_up else "")
        warm_up, counted = tuple(runs[: case.warm_up]), tuple(runs[case.warm_up :])
        if not runs:
            why = f"no run of {asked_for(case)} was handed in"
            return self._without("MISSING", [why], name, expected, (), ())
        reasons = [
            *(f"{e.run.name}: {c}" for e in runs for c in (*e.faults, *self._complaints[name][e.run.log])),
            *together(case, runs),
            *self._folders(runs),
        ]
        if len(runs) != total:
            where = ", ".join(sorted({str(e.run.log.parent) for e in runs}))
            reasons.append(f"{len(runs)} runs in {where}; contracted are {total}: no more, no fewer")
        if case.gated_by:
            reasons += self._gate(case, counted)
        if reasons:
            return self._without("INVALID", reasons, name, expected, counted, warm_up)
        outcomes = [self._check(case, check, counted) for check in case.checks]
        missed = [o for o, check in zip(outcomes, case.checks, strict=True) if check.gate and o.status != "PASS"]
        if missed:
            why = [f"{o.line()} (a gate)" for o in missed]
            return self._without("INVALID", why, name, expected, counted, warm_up)
        whole = Outcome("runs", "PASS", expected, found=float(len(counted)), n=len(counted))
        merit = merit_of(case, counted)
        return CaseOutcome(name, (whole, *outcomes), counted, warm_up, merit, tuple(notes(case, runs)))

    def _without(
        self,
        status: Status,
        reasons: Sequence[str],
        name: str,
        expected: str,
        counted: tuple[Evidence, ...],
        warm_up: tuple[Evidence, ...],
    ) -> CaseOutcome:
        """The outcome of a set that has no figures."""
        whole = Outcome("runs", status, expected, reasons=tuple(dict.fromkeys(reasons)))
        checks = self._contract.cases[name].checks
        rest = [Outcome(c.name, status, expected_of(c), unit=c.unit_shown) for c in checks]
        return CaseOutcome(name, (whole, *rest), counted, warm_up, {}, ())

    def _folders(self, runs: Sequence[Evidence]) -> Iterator[str]:
        """What the directories of the runs lack, or have besides."""
        folders = list(dict.fromkeys(e.run.log.parent for e in runs))
        if len({folder.resolve() for folder in folders}) > 1:
            names = ", ".join(map(str, folders))
            yield f"the runs lie in several directories ({names}); those of a case are made in one, one after the other"
        for folder in folders:
            yield from self._found.folders[folder]
            yield from (
                f"{log} lies beside the given runs and was left out" for log in self._found.left_out.get(folder, ())
            )
            yield from (why for log, why in self._found.unreadable.items() if log.parent == folder)

    def _gate(self, case: Case, runs: Sequence[Evidence]) -> Iterator[str]:
        """Whether the case that gates this one is valid, and was run with the same configuration."""
        gate = self.case(case.gated_by or "")
        if not gate.valid:
            yield f"its gate, {gate.name}, is {gate.outcomes[0].status}: nothing shows that this work converges"
            return
        there = config_of(gate.counted[0])
        for e in runs:
            for key, value in config_of(e).items():
                # One stops at its target and the other does fixed work; nothing else may differ.
                if key not in ("fixed_epochs", "train.epochs") and there.get(key) != value:
                    yield f"{e.run.name}: {key} is {value!r}; in the runs of its gate, {gate.name}, {there.get(key)!r}"

    def _check(self, case: Case, check: Check, runs: Sequence[Evidence]) -> Outcome:
        expected, unit = expected_of(check), check.unit_shown

        def without(status: Status, *reasons: str) -> Outcome:
            return Outcome(check.name, status, expected, unit=unit, reasons=reasons)

        reference: Mapping[str, float | None] | None = None
        if check.against:
            other = self.case(check.against)
            if not other.valid:
                return without(other.outcomes[0].status, f"its reference, {other.name}, is {other.outcomes[0].status}")
            unlike = list(other_nodes(other.counted[0], runs[0]))
            if unlike:
                return without("INVALID", *(f"the nodes of its reference, {other.name}, differ: {u}" for u in unlike))
            reference = medians(other.counted)
        series = []
        for e in runs:
            values = values_of(check, e, reference)
            if isinstance(values, str):
                return without("MISSING", f"{e.run.name}: {values}")
            series.append(values)
        if resolved(check.metric, runs[0]).startswith("energy."):
            doubts = [f"{e.run.name}: {why}" for e in runs for why in doubtful_energy(e, resolved(check.metric, e))]
            if doubts:
                return without("INVALID", *doubts)
        values = [v for part in series for v in part]
        figure = statistic(check, values)
        if figure is None:
            return without("MISSING", f"{check.stat} of {len(values)} values cannot be given")
        low, high = check.bounds()
        if (low is None or figure >= low) and (high is None or figure <= high):
            return Outcome(check.name, "PASS", expected, figure, unit, len(values))
        return Outcome(check.name, "FAIL", expected, figure, unit, len(values), tuple(by_run(check, runs, series)))


def _listed(e: Evidence, warm_up: bool) -> dict[str, Any]:
    return {
        "log": e.run.name,
        "log_sha256": hashlib.sha256(e.run.log_bytes).hexdigest(),
        "record_sha256": hashlib.sha256(e.run.record_bytes).hexdigest(),
        "seed": e.run.record.seed,
        "started_ms": e.run.started_ms(),
        "warm_up": warm_up,
    }
