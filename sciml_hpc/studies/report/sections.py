"""What the page says of one study, or of the runs of one benchmark: a section for each question.

What its resources did is in `resources.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from sciml_hpc.results.record import read_pictures
from sciml_hpc.results.runs import Run
from sciml_hpc.studies import wording
from sciml_hpc.studies.attribution import LABELS
from sciml_hpc.studies.efficiency import FACTORS, Split
from sciml_hpc.studies.findings import Findings
from sciml_hpc.studies.report import courses, figures, resources
from sciml_hpc.studies.report.figures import Scale
from sciml_hpc.studies.report.parts import (
    Cell,
    Column,
    Drawing,
    Section,
    Table,
    count,
    figure,
    measured,
    median,
    tidy,
)
from sciml_hpc.studies.times import Timed
from sciml_hpc.studies.wording import capital, plural


def of_set(found: Findings, key: str, nodes: Sequence[int]) -> Section:
    if not found.runs:
        return Section(key, capital(found.title), text=("No run counts, so there are no figures.",))
    scale = Scale.of(found)
    target, data = courses.target_of(found.runs[0]), found.runs[0].record.dataset
    sign = "≥" if target.get("direction") == "max" else "≤"
    goal = (
        f"every run trains until {target['name']} {sign} {target['value']:g} ({target['source']})"
        if found.converged
        else "every run does the same fixed work, whatever the target"
    )
    batch = sorted({t.global_batch for t in found.timed})
    kind = {
        "strong": "Strong scaling: the same problem on more and more of the machine; perfect is half the time on twice "
        "as much.",
        "weak": "Weak scaling: the problem grows with the machine; perfect is the same time at every size.",
    }[found.scaling]
    facts = (
        f"{kind} Data set {data.name}, {goal}. Global batch {', '.join(f'{b:,}' for b in batch)}; "
        f"{len(found.runs)} {plural(len(found.runs), 'run')} in all, every repeat with another seed."
    )
    makers: tuple[Callable[[Findings, Scale, str], Section], ...] = (
        lambda f, s, k: _scaling(f, s, k, nodes), _efficiency, _lost, _learning, resources.data,
        resources.communication, resources.energy, resources.nodes, _pictures,
    )  # fmt: skip
    sections = tuple(section for make in makers if (section := make(found, scale, key)) is not None)
    return Section(key, capital(found.title), text=(facts,), sections=sections)


def _scaling(found: Findings, scale: Scale, key: str, nodes: Sequence[int]) -> Section:
    words, notes, tables = [], [], []
    drawings: tuple[Drawing, ...] = ()
    if len(found.splits) < 2:
        words.append("One size was run: there is no curve.")
    else:
        drawings = (
            Drawing(
                f"{key}-throughput",
                "Throughput against size; both axes logarithmic.",
                figures.scaling(found, scale, "throughput"),
            ),
            Drawing(
                f"{key}-time",
                "Time of a run against size, staging in it; both axes logarithmic.",
                figures.scaling(found, scale, "time"),
            ),
        )
    projection = found.projection
    if projection and projection.points:
        words.append(
            "What stands beyond the last measured size is a projection, not measured. Projecting each measured size "
            f"from the others alone went wrong by up to {wording.number(100 * projection.error, 2)} %."
        )
        rows = tuple(
            (
                count(p.size.nodes),
                count(p.size.ranks),
                Cell(wording.number(p.samples_per_s), _span(p.samples_per_s_range), raw=p.samples_per_s),
                Cell(wording.number(p.time_s), _span(p.time_s_range), raw=p.time_s),
            )
            for p in projection.points
        )
        columns = (Column("nodes"), Column("ranks"), Column("throughput", "samples/s"), Column("time", "s"))
        tables.append(Table(f"{key}-projection", "Projection, not measured; below each its range.", columns, rows))
    skipped = sorted(set(nodes) - {p.size.nodes for p in projection.points}) if projection else []
    if skipped:
        notes.append(
            f"no projection to {', '.join(f'{n:,}' for n in skipped)} nodes: the batch or the data set has fewer "
            "samples than that many ranks need"
        )
    if found.projection_note:
        notes.append(f"no projection: {found.projection_note}")
    for name, row in found.weak_metric.items():
        reached = "none" if row["TTTa_s"] is None else wording.seconds(row["TTTa_s"])
        words.append(
            f"MLPerf HPC's weak-scaling metric, {name}: {row['M']} models in {reached} on {row['T']} nodes, {row['S']} "
            "each."
        )
    return Section(f"{key}-scaling", "Scaling", tuple(words), tuple(notes), drawings, tuple(tables))


def _efficiency(found: Findings, scale: Scale, key: str) -> Section | None:
    if len(found.splits) < 2:
        return None
    columns = (Column("size", kind="short"), Column("n"), *(Column(name) for name in FACTORS))
    rows = tuple(
        (
            Cell(scale.name(s.ranks), raw=s.ranks),
            count(s.total.n),
            *(efficiency_cell(s, name) for name in FACTORS),
        )
        for s in found.splits
    )
    reference = scale.name(found.splits[0].ranks)
    notes = []
    if not all(s.convergence_measured for s in found.splits):
        notes.append("the runs do fixed work: epochs are equal by design, and convergence was not measured by them")
    caption = f"Efficiency against {reference}, and its factors: total = staging × throughput × convergence × overhead."
    return Section(
        f"{key}-efficiency",
        "Efficiency, in factors",
        text=(
            "1 is perfect; below 1 something was lost. The factors multiply to the total exactly: copying data to the "
            "nodes (staging), samples per second (throughput), epochs needed (convergence), start-up and evaluation "
            "(overhead).",
        ),
        notes=tuple(notes),
        drawings=(
            Drawing(
                f"{key}-factors",
                "Efficiency and its factors against size; bars: 95 % intervals (cut off where they leave a panel).",
                figures.factors(found.splits, scale),
            ),
        ),
        tables=(tidy(Table(f"{key}-efficiency", caption, columns, rows)),),
    )


def _lost(found: Findings, scale: Scale, key: str) -> Section | None:
    if not found.attributions:
        return None
    columns = (
        Column("size", kind="short"), Column("time", "s"), Column("perfect", "s"), Column("lost", "s"),
        *(Column(LABELS[name], "s") for name in found.attributions[0].parts_s),
    )  # fmt: skip
    rows = tuple(
        (
            Cell(scale.name(a.ranks), raw=a.ranks),
            figure(a.time_s),
            figure(a.ideal_s),
            figure(a.loss_s),
            *(figure(seconds) for seconds in a.parts_s.values()),
        )
        for a in found.attributions
    )
    return Section(
        f"{key}-lost",
        "Where the time went",
        text=tuple(f"{a.sentence()}." for a in found.attributions),
        notes=tuple(dict.fromkeys(note for a in found.attributions for note in a.notes)),
        drawings=(
            Drawing(
                f"{key}-lost",
                "Seconds lost against perfect scaling, by cause; the parts add up to the sum.",
                figures.losses(found.attributions, scale),
            ),
        ),
        tables=(
            Table(
                f"{key}-lost",
                "Seconds lost, means over the runs; negative: won. The causes add up to the loss.",
                columns,
                rows,
            ),
        ),
    )


def _learning(found: Findings, scale: Scale, key: str) -> Section:
    target = courses.target_of(found.runs[0])
    drawings, notes = [], []
    groups = resources.by_ranks(found)
    for what, make, log in (("metric", courses.metric, False), ("loss", courses.loss, True)):
        made = [make(run) for runs in groups.values() for run, _ in runs]
        drawn = [course for course in made if course is not None]
        label = target["name"] if what == "metric" else "training loss"
        if not drawn:
            notes.append(f"{label}: not kept by any run")
            continue
        if len(drawn) < len(made):
            notes.append(f"{label}: not kept by {len(made) - len(drawn)} of {len(made)} runs")
        log = log and all((course.values > 0).all() for course in drawn)
        goal = target.get("value") if what == "metric" and found.converged else None
        caption = f"{capital(label)} against epochs and against time, a line for each run." + (
            " Dashed: the target." if goal is not None else ""
        )
        drawings.append(Drawing(f"{key}-{what}", caption, figures.courses(drawn, scale, label, goal, log)))
    names = sorted(set.intersection(*(set(run.content["metrics"]) for run in found.runs)))
    columns = (Column("size", kind="short"), Column("n"), Column("epochs"), *(Column(name) for name in names))
    rows = tuple(
        (
            Cell(scale.name(n), raw=n),
            count(len(runs)),
            median([float(t.epochs) for _, t in runs]),
            *(
                median([run.content["metrics"][name] for run, _ in runs], "no value in some run", digits=4)
                for name in names
            ),
        )
        for n, runs in groups.items()
    )
    tables = [
        Table(
            f"{key}-quality",
            "The trained networks on the validation data: median, and range over the runs.",
            columns,
            rows,
        )
    ]
    if speed := _speed(found, scale, key):
        tables.append(speed)
    return Section(f"{key}-learning", "Learning", notes=tuple(notes), drawings=tuple(drawings), tables=tuple(tables))


def _speed(found: Findings, scale: Scale, key: str) -> Table | None:
    columns = (
        Column("size", kind="short"), Column("n"), Column("training", "µs/sample"), Column("inference", "µs/sample"),
        Column("latency, median", "ms"), Column("latency, 99th percentile", "ms"), Column("compute", "TFLOP/s"),
        Column("of the measured ceiling", "%"),
    )  # fmt: skip

    def row(n: int, runs: Sequence[tuple[Run, Timed]]) -> tuple[Cell, ...]:
        def of(section: str, name: str, scale: float, reason: str = "not asked for") -> Cell:
            values = [(run.content.get(section) or {}).get(name) for run, _ in runs]
            return median(values, resources.reason_of(runs, section, reason), scale)

        return (
            Cell(scale.name(n), raw=n),
            count(len(runs)),
            of("throughput", "train_s_per_sample", 1e-6),
            of("inference", "inference_s_per_sample", 1e-6),
            of("inference", "latency_p50_s", 1e-3),
            of("inference", "latency_p99_s", 1e-3),
            of("compute", "flop_per_s", 1e12),
            of("compute", "mfu_measured", 1e-2),
        )

    rows = tuple(row(n, runs) for n, runs in resources.by_ranks(found).items())
    return tidy(
        Table(f"{key}-speed", "Training, inference and arithmetic: median, and range over the runs.", columns, rows)
    )


def _pictures(found: Findings, scale: Scale, key: str) -> Section | None:
    both = zip(found.runs, found.timed, strict=True)
    drawn = [(run, t) for run, t in both if run.log.with_suffix(".pictures.npz").exists()]
    if not drawn:
        return None
    run, t = max(drawn, key=lambda x: (x[1].ranks, x[1].started_ms))
    drawings = tuple(
        Drawing(f"{key}-picture-{k}", picture.caption, figures.panels(picture))
        for k, picture in enumerate(read_pictures(run.log.with_suffix(".pictures.npz")), 1)
    )
    words = (
        "Drawn by the trained network from validation samples, in the last run of the largest size that drew any "
        f"({scale.name(t.ranks)}, seed {run.record.seed})."
    )
    return Section(f"{key}-pictures", "What the network looks at", (words,), drawings=drawings)


def efficiency_cell(split: Split, name: str) -> Cell:
    """An efficiency against the smallest size; of that size itself it is 1 by definition."""
    cell = measured(getattr(split, name), split.energy_note, most=3)
    return replace(cell, below="by definition") if split.ranks == split.reference_ranks and cell.raw else cell


def _span(between: tuple[float, float]) -> str:
    return f"{wording.number(between[0])} to {wording.number(between[1])}"
