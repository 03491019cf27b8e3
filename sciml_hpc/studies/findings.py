"""What a set of runs says: a study's, or any runs of one benchmark at several sizes. Read by `scaling` and `report`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from sciml_hpc import errors
from sciml_hpc.errors import UserError
from sciml_hpc.results.runs import Run, faults, load
from sciml_hpc.studies.attribution import Attribution, attributions
from sciml_hpc.studies.design import Design, Step
from sciml_hpc.studies.efficiency import Interval, Split, by_size, geometric, splits, weak_metric
from sciml_hpc.studies.ledger import Attempt, Study
from sciml_hpc.studies.projection import Projection, project
from sciml_hpc.studies.times import Timed, timed
from sciml_hpc.studies.wording import interval, number, seconds


@dataclass(frozen=True)
class Left:
    """A run that does not count, and why."""

    name: str
    why: str


@dataclass(frozen=True)
class Findings:
    """What runs of one benchmark say together."""

    title: str
    benchmark: str
    scaling: Literal["strong", "weak"]
    design: Design | None
    """Of a study; None for runs that were given by hand."""
    runs: tuple[Run, ...]
    """Those that count, in the order in which they started."""
    timed: tuple[Timed, ...]
    """What of them enters comparisons, in the same order."""
    left: tuple[Left, ...]
    splits: tuple[Split, ...]
    attributions: tuple[Attribution, ...]
    projection: Projection | None
    projection_note: str
    """Why there is none."""
    weak_metric: dict[str, dict[str, Any]]
    """MLPerf's, by the name of the group of instances."""
    probes: dict[str, dict[str, Any]]
    """Figures of `io` and `comm`: by kind, then by name of the point."""
    missing: tuple[str, ...]
    """Steps of the study that have no VALID result."""

    @property
    def complete(self) -> bool:
        """Whether every step of the study came to a VALID result."""
        return not self.missing

    @property
    def converged(self) -> bool:
        """Whether every run went to its target, rather than do fixed work."""
        return all(run.converged for run in self.timed)

    def throughput(self) -> dict[int, Interval]:
        """Samples per second by number of ranks."""
        return {n: geometric([r.samples_per_s for r in group]) for n, group in by_size(self.timed).items()}

    def time(self) -> dict[int, Interval]:
        """Time to convergence (or of the fixed work) by number of ranks, staging in it."""
        return {n: geometric([r.time_s for r in group]) for n, group in by_size(self.timed).items()}


def of_study(study: Study, nodes: Sequence[int] = ()) -> Findings:
    """What a study says, projected to `nodes`. A point whose gate is missing counts no run."""
    design, left, missing = study.design, [], []
    counted: dict[Path, str] = {}
    probes: dict[str, dict[str, Any]] = {}
    metric: dict[str, dict[str, Any]] = {}
    attempts = study.attempts()
    gated = {p for s, tried in attempts.items() if s.kind == "gate" and not _valid(tried) for p in (s.point,)}
    for step, tried in attempts.items():
        name = step.name(design)
        valid = _valid(tried)
        if not valid:
            missing.append(name)
        left += _left_behind(step, tried, study, gated)
        if not valid or step.kind in ("warm-up", "gate"):
            continue
        files = [study.directory / result for result in tried[-1].results]
        if step.kind in ("io", "comm"):
            probes.setdefault(step.kind, {})[design.name(step.point)] = _figures(files[0])
        elif step.point not in gated:
            counted |= dict.fromkeys(files, name)
        if step.kind == "train" and design.instances:
            metric[name] = weak_metric([_instance(load(file)) for file in files], step.point)
    found = _findings(
        f"{design.scaling} scaling of {design.benchmark}",
        list(counted),
        design.scaling,
        design,
        left,
        nodes,
        probes,
        metric,
        missing,
    )
    whole = {run.log for run in found.runs}
    changed = dict.fromkeys(name for file, name in counted.items() if file not in whole)  # since they ended VALID
    return replace(found, missing=(*found.missing, *changed))


def of_files(files: Iterable[Path], nodes: Sequence[int] = ()) -> list[Findings]:
    """What logs say, given by hand: one finding for each benchmark, task and scaling among them."""
    sets: dict[tuple[str, str, str], list[Path]] = {}
    for file in files:
        record = load(file).content
        sets.setdefault((record["benchmark"], record.get("task", ""), record["scaling"]), []).append(file)
    return [
        _findings(" ".join(filter(None, (benchmark, task))), there, scaling, None, [], nodes, {}, {}, [])
        for (benchmark, task, scaling), there in sorted(sets.items())
    ]


def _findings(
    title: str,
    files: Sequence[Path],
    scaling: Any,
    design: Design | None,
    left: list[Left],
    nodes: Sequence[int],
    probes: dict[str, dict[str, Any]],
    metric: dict[str, dict[str, Any]],
    missing: list[str],
) -> Findings:
    known = []
    for file in files:
        try:
            run = load(file)
            why = list(faults(run))
            if not why:
                known.append((run, timed(run)))
        except UserError as error:
            left.append(Left(str(file), str(error)))
            continue
        if why:
            left.append(Left(run.name, "; ".join(why)))
    known.sort(key=lambda both: both[0].started_ms())
    runs, figures = [run for run, _ in known], [figure for _, figure in known]
    projection, note = None, ""
    if nodes and figures:
        weak = scaling == "weak" and not (design and design.instances)
        grows = "weak" if weak else "batch" if design and design.fixed_local_batch else "strong"
        try:
            projection = project(figures, nodes, grows)
        except ValueError as error:
            note = str(error)
    return Findings(
        title=title,
        benchmark=runs[0].record.benchmark if runs else title,
        scaling=scaling,
        design=design,
        runs=tuple(runs),
        timed=tuple(figures),
        left=tuple(left),
        splits=tuple(splits(figures, scaling)) if figures else (),
        attributions=tuple(attributions(figures, scaling)) if figures else (),
        projection=projection,
        projection_note=note,
        weak_metric=metric,
        probes=probes,
        missing=tuple(missing),
    )


def lines(found: Findings) -> list[str]:
    """The findings as `scaling` prints them."""
    said = [f"{found.title}: {len(found.runs)} runs count, {len(found.left)} do not"]
    if found.splits:
        names = ("total", "staging", "time", "throughput", "convergence", "overhead", "energy")
        said.append(f"  {'ranks':>6} {'nodes':>6} {'n':>3} {'samples/s':>22} " + " ".join(f"{n:>12}" for n in names))
        rates = found.throughput()
        for row in found.splits:
            values = [getattr(row, name) for name in names]
            cells = " ".join(f"{'–' if v is None else f'{v.value:.3f}':>12}" for v in values)
            said.append(f"  {row.ranks:>6} {row.nodes:>6} {row.total.n:>3} {interval(rates[row.ranks]):>22} {cells}")
        said.append("  efficiencies against the smallest size")
        said.append("  total = staging × time; time = throughput × convergence × overhead")
        if not all(row.convergence_measured for row in found.splits):
            said.append("  convergence was not measured: fixed work")
    for loss in found.attributions:
        said.append(f"  {loss.sentence()}")
        said += [f"    note: {note}" for note in loss.notes]
    for name, row in found.weak_metric.items():
        reached = "none" if row["TTTa_s"] is None else seconds(row["TTTa_s"])
        said.append(f"  {name}: T {row['T']}, S {row['S']}, M′ {row['M']}, TTTa {reached}")
    if found.projection:
        said.append(f"  PROJECTION, not measured (error where a size is left out: {found.projection.error:.1%}):")
        for p in found.projection.points:
            low, high = p.samples_per_s_range
            rate = f"{number(p.samples_per_s)} samples/s ({number(low)} to {number(high)})"
            said.append(f"    {p.size.nodes} nodes: {rate}, {seconds(p.time_s)}")
    elif found.projection_note:
        said.append(f"  no projection: {found.projection_note}")
    said += [f"  does not count: {left.name}: {left.why}" for left in found.left]
    if found.missing:
        said.append(f"INCOMPLETE: no VALID result of {', '.join(found.missing)}")
    elif found.design:
        said.append("COMPLETE: every point has all its repeats")
    return said


def _valid(tried: Sequence[Attempt]) -> bool:
    return bool(tried) and tried[-1].ended and not tried[-1].interrupted and tried[-1].status == errors.VALID


def _left_behind(step: Step, tried: Sequence[Attempt], study: Study, gated: set[int]) -> list[Left]:
    """Attempts of a step that do not count."""
    name, left = step.name(study.design), []
    for attempt in tried:
        label = f"{name}, attempt {attempt.number}" + (f" ({', '.join(attempt.results)})" if attempt.results else "")
        if not attempt.ended:
            left.append(Left(label, "the study was stopped while it ran"))
        elif attempt.interrupted:
            left.append(Left(label, "interrupted with the study"))
        elif attempt.status != errors.VALID:
            what = "INVALID" if attempt.status == errors.INVALID else f"failed with exit status {attempt.status}"
            told = (reasons_of(study.directory / result) for result in attempt.results)
            left.append(Left(label, ": ".join((what, *dict.fromkeys(filter(None, told))))))
        elif step.kind == "train" and step.point in gated:
            left.append(Left(label, "no run of this point has shown that it converges"))
    return left


def reasons_of(log: Path) -> str:
    """Why a run is not valid, by its record; nothing where that does not say it."""
    try:
        return "; ".join(json.loads(log.with_suffix(".json").read_text())["reasons"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _figures(file: Path) -> Any:
    """What a probe wrote. Raises UserError naming a file that is gone or was changed."""
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read as the figures of a probe: {error}") from None


def _instance(run: Run) -> dict[str, float | bool]:
    stop = next((line.time_ms for line in run.lines if line.key == "run_stop"), 0)
    return {
        "start_s": run.started_ms() / 1000,
        "stop_s": stop / 1000,
        "converged": run.content["time"]["time_to_convergence_s"] is not None,
    }
