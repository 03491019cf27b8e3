"""`check RESULT_FILE`: does a log comply? MLCommons' checker under three rulesets, then our own rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sciml_hpc.results import conduct, official
from sciml_hpc.results.keys import RULESETS
from sciml_hpc.results.logfile import Finding, Line, figures, first_met, last, last_mapping, read


@dataclass(frozen=True)
class Verdict:
    """What one tool found; nothing: SUCCESS."""

    tool: str
    findings: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.findings


@dataclass(frozen=True)
class CheckReport:
    """The verdicts on one log, and what it shows."""

    path: Path
    verdicts: tuple[Verdict, ...]
    outcome: str
    """By which target the run is judged, and when it met it."""
    notes: tuple[str, ...]
    """What the reader should know and does not make the log fail."""

    @property
    def ok(self) -> bool:
        """Whether every tool lets the log pass."""
        return all(verdict.ok for verdict in self.verdicts)

    @property
    def caught_by(self) -> tuple[str, ...]:
        """The tools that found something."""
        return tuple(verdict.tool for verdict in self.verdicts if not verdict.ok)

    def lines(self) -> list[str]:
        """The report as it is printed."""
        width = max(len(verdict.tool) for verdict in self.verdicts)
        text = [str(self.path)]
        for verdict in self.verdicts:
            text.append(f"  {verdict.tool:{width}}  {'SUCCESS' if verdict.ok else 'FAIL'}")
            text += [f"    {finding}" for finding in verdict.findings]
        text.append(f"  {self.outcome}")
        text += [f"  note: {note}" for note in self.notes]
        return text


def check(path: Path, rulesets: Sequence[str] = RULESETS) -> CheckReport:
    """Judge the log at `path`; UserError if it cannot be read."""
    lines, findings = read(path)
    version = official.version()
    verdicts = [
        Verdict(f"compliance_checker {version} hpc {ruleset}", tuple(official.compliance(path, ruleset)))
        for ruleset in rulesets
    ]
    if version != official.PINNED:
        findings.append(Finding("version", 0, f"mlperf-logging is {version}; the rules are made for {official.PINNED}"))
    for rule in conduct.RULES:
        findings += rule(lines)
    verdicts.append(Verdict("sciml_hpc rules", tuple(map(str, sorted(findings, key=lambda f: f.line)))))
    return CheckReport(path, tuple(verdicts), _outcome(lines), tuple(_notes(lines)))


def _outcome(lines: Sequence[Line]) -> str:
    target, times, met = last_mapping(lines, "target"), figures(lines), first_met(lines)
    if not target or times is None:
        return "no target, or no run"
    if target.get("kind") == "fixed_work":
        return f"fixed work, no target: {times.epochs} of {target.get('epochs')} epochs in {times.run_s:.3f} s"
    sign = "≥" if target.get("direction") == "max" else "≤"
    asked = f"{target.get('kind')} target {target.get('metric')} {sign} {target.get('value')} ({target.get('source')})"
    if met is None or times.time_to_convergence_s is None:
        return f"{asked}: not met in {times.epochs} epochs"
    return f"{asked}: met in epoch {times.converged_epoch} ({met.value:.6g}) after {times.time_to_convergence_s:.3f} s"


def _notes(lines: Sequence[Line]) -> list[str]:
    notes = []
    commit = last(lines, "submission_github_commit_version")
    if commit is not None and commit.value is None:
        notes.append("the code's commit is unknown: MLCommons Science would not accept this log as a submission")
    resumptions = [line for line in lines if line.key == "resumed"]
    times = figures(lines)
    if resumptions and times is not None:
        silent = len(resumptions) - sum(line.key == "interrupted" for line in lines)
        broken = f"; {silent} time(s) after a part that broke off, where all time counts" if silent > 0 else ""
        lost = f"{times.interrupted_s:.3f} s between the parts are not counted"
        notes.append(f"resumed {len(resumptions)} time(s); {lost}{broken}")
    return notes
