"""What the page says of a study's resources: data and storage, the network, energy, the nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from sciml_hpc.results.runs import Run
from sciml_hpc.studies.findings import Findings
from sciml_hpc.studies.report import figures
from sciml_hpc.studies.report.figures import Scale
from sciml_hpc.studies.report.parts import (
    Cell,
    Column,
    Drawing,
    Section,
    Table,
    count,
    figure,
    median,
    text,
    tidy,
)
from sciml_hpc.studies.times import ENERGY_KINDS, Timed
from sciml_hpc.studies.wording import plural

ENERGIES = {"gpu": "GPUs", "node": "whole nodes", "cpu": "CPUs", "dram": "memory"}


def data(found: Findings, scale: Scale, key: str) -> Section:
    columns = (
        Column("size", kind="short"), Column("n"), Column("staging", "s"), Column("arrived on nodes", "GB"),
        Column("staging rate", "GB/s"), Column("read amplification", "×"), Column("loaders asked for", "GB"),
        Column("devices gave", "GB"), Column("waiting for data", "%"), Column("AU", "%"),
        Column("cache before", kind="text"),
    )  # fmt: skip

    def row(n: int, runs: Sequence[tuple[Run, Timed]]) -> tuple[Cell, ...]:
        def of(section: str, name: str, scale: float, reason: str) -> Cell:
            return median([run.content[section].get(name) for run, _ in runs], reason_of(runs, section, reason), scale)

        states = sorted({str(run.content["io"].get("cache_state")) for run, _ in runs})
        return (
            Cell(scale.name(n), raw=n),
            count(len(runs)),
            of("staging", "staging_s", 1, "not staged"),
            of("staging", "staging_bytes", 1e9, "not staged"),
            of("staging", "staging_bytes_per_s", 1e9, "nothing was moved"),
            of("staging", "read_amplification", 1, "read in place"),
            of("io", "app_read_bytes", 1e9, "not counted"),
            of("io", "device_read_bytes", 1e9, "not counted"),
            of("io", "data_stall_fraction", 1e-2, "metering was off"),
            of("io", "au", 1e-2, "metering was off"),
            text(", ".join(states)),
        )

    rows = tuple(row(n, runs) for n, runs in by_ranks(found).items())
    modes = sorted({str(run.content["staging"].get("staging_mode")) for run in found.runs})
    caption = f"Staging (mode {', '.join(modes)}) and reading: median, and range over the runs."
    tables = [tidy(Table(f"{key}-data", caption, columns, rows))]
    drawings = []
    probes = found.probes.get("io") or {}
    if probes:
        names = _point_names(found, probes)
        drawings.append(
            Drawing(
                f"{key}-loader",
                "The loader with no model behind it, against a raw read of the same files.",
                figures.loader(probes, [_place(p) for p in probes], _unit(found)),
            )
        )
        probe_columns = (
            Column("size", kind="short"), Column("cache", kind="text"), Column("loader", "GB/s"),
            Column("loader", "samples/s"), Column("raw read", "GB/s"), Column("loader ÷ raw"),
            Column("devices gave", "GB"),
        )  # fmt: skip
        probe_rows = tuple(
            (
                text(names[point]),
                text(state, "" if row["cache_state"] == state else f"checked: {row['cache_state']}"),
                figure(row["loader_bytes_per_s"], scale=1e9),
                figure(row["loader_samples_per_s"]),
                figure(row["raw_bytes_per_s"], scale=1e9),
                figure(row["loader_to_raw"]),
                figure(row["device_read_bytes"], "not counted", 1e9),
            )
            for point, probe in probes.items()
            for state, row in probe.items()
        )
        tables.append(
            Table(f"{key}-loader", "The loader alone (probe `io`); medians of three turns.", probe_columns, probe_rows)
        )
    return Section(
        f"{key}-data",
        "Data: staging and reading",
        text=(
            "A read amplification of 1 means that shared storage gave each byte once, whatever the number of nodes. "
            "AU is the share of a step not spent waiting for data."
            + ("" if probes else " The loader was not measured on its own (probe `io`)."),
        ),
        drawings=tuple(drawings),
        tables=tuple(tables),
    )


def communication(found: Findings, scale: Scale, key: str) -> Section:
    groups = by_ranks(found)
    exposed = {
        n: [run.content["communication"].get("exposed_comm_fraction") for run, _ in runs] for n, runs in groups.items()
    }
    known = {n: [100 * v for v in values] for n, values in exposed.items() if None not in values}
    drawings, words = [], []
    if known:
        drawings.append(
            Drawing(
                f"{key}-exposed",
                "Communication that was not hidden behind computing, per cent of a step.",
                figures.by_size(known, scale, "exposed (% of a step)"),
            )
        )
    columns = (
        Column("size", kind="short"), Column("n"), Column("exposed", "% of a step"), Column("step", "ms"),
        Column("step without all-reduce", "ms"), Column("gradients", "MB"),
    )  # fmt: skip

    def row(n: int, runs: Sequence[tuple[Run, Timed]]) -> tuple[Cell, ...]:
        def of(name: str, scale: float) -> Cell:
            values = [run.content["communication"].get(name) for run, _ in runs]
            return median(values, reason_of(runs, "communication", "not calibrated"), scale)

        names = (
            ("exposed_comm_fraction", 1e-2),
            ("step_s", 1e-3),
            ("step_without_allreduce_s", 1e-3),
            ("gradient_bytes_per_step", 1e6),
        )
        return (Cell(scale.name(n), raw=n), count(len(runs)), *(of(name, by) for name, by in names))

    caption = "The step with and without its all-reduce: median, and range over the runs."
    step = Table(f"{key}-communication", caption, columns, tuple(row(n, runs) for n, runs in groups.items()))
    tables = [tidy(step)]
    probes = found.probes.get("comm") or {}
    if not probes:
        words.append("The all-reduce was not measured on its own (probe `comm`).")
    if wrong := sorted({point for point, rows in probes.items() for row in rows if not row["correct"]}):
        words.append(f"The all-reduce gave WRONG sums at {', '.join(wrong)}.")
    several = {p: rows for p, rows in probes.items() if any(row["busbw_bytes_per_s"] > 0 for row in rows)}
    if several:
        words.append(
            "Bus bandwidth is what each link must carry, so that sizes can be compared; every sum was checked."
        )
        names = _point_names(found, probes)
        drawings.append(
            Drawing(
                f"{key}-allreduce",
                "The all-reduce on its own, against the size of the message.",
                figures.allreduce(several, names),
            )
        )
        probe_columns = (
            Column("size", kind="short"), Column("by", kind="text"), Column("gradients", "MB"), Column("median", "ms"),
            Column("fastest", "ms"), Column("slowest", "ms"), Column("n"), Column("bus bandwidth", "GB/s"),
            Column("sums", kind="text"),
        )  # fmt: skip
        probe_rows = tuple(
            (
                text(names[point]),
                text(r["by"]),
                figure(r["bytes"], scale=1e6),
                figure(r["time_median_s"], scale=1e-3),
                figure(r["time_min_s"], scale=1e-3),
                figure(r["time_max_s"], scale=1e-3),
                count(r["repetitions"]),
                figure(r["busbw_bytes_per_s"], scale=1e9),
                text("exact" if r["correct"] else "WRONG", tone="" if r["correct"] else "bad"),
            )
            for point, rows in several.items()
            for r in rows
            if r["gradient"]
        )
        tables.append(
            Table(
                f"{key}-allreduce",
                "The all-reduce of as many bytes as this network's gradients (probe `comm`).",
                probe_columns,
                probe_rows,
            )
        )
    return Section(
        f"{key}-communication", "Communication", tuple(words), drawings=tuple(drawings), tables=tuple(tables)
    )


def energy(found: Findings, scale: Scale, key: str) -> Section:
    groups = by_ranks(found)
    reasons: dict[str, str] = {}
    known = []
    for kind, label in ENERGIES.items():
        why = [
            run.content["energy"].get(f"{kind}_energy_reason") or "no such sensor"
            for run in found.runs
            if run.content["energy"].get(f"{kind}_energy_J") is None
        ]
        if why:
            reasons[label] = (
                why[0] if len(why) == len(found.runs) else f"in {len(why)} of {len(found.runs)} runs: {why[0]}"
            )
        else:
            known.append(kind)
    words = [f"{label[:1].upper() + label[1:]}: not measured ({why})." for label, why in reasons.items()]
    if not known:
        return Section(f"{key}-energy", "Energy", ("No energy was measured; nothing is estimated.", *words))
    columns = (
        Column("size", kind="short"), Column("of", kind="text"), Column("n"), Column("energy of the run", "kJ"),
        Column("uncertainty", "kJ"), Column("per training sample", "J"), Column("mean power", "W"),
        Column("idle power", "W"), Column("counter against power", "% apart"),
    )  # fmt: skip

    def row(n: int, kind: str) -> tuple[Cell, ...]:
        runs = [(run.content["energy"], t) for run, t in groups[n]]
        joules = [e[f"{kind}_energy_J"] for e, _ in runs]
        return (
            Cell(scale.name(n), raw=n),
            text(ENERGIES[kind]),
            count(len(runs)),
            median(joules, scale=1e3),
            median([e.get(f"{kind}_energy_uncertainty_J") for e, _ in runs], "no period known", 1e3),
            median([j / (t.train_samples * t.epochs) for j, (_, t) in zip(joules, runs, strict=True)]),
            median(
                [
                    j / e["energy_wall_s"] if e.get("energy_wall_s") else None
                    for j, (e, _) in zip(joules, runs, strict=True)
                ]
            ),
            median([e.get(f"{kind}_idle_W") for e, _ in runs], "no idle window"),
            median([e.get(f"{kind}_largest_disagreement") for e, _ in runs], "power was not sampled", 1e-2),
        )

    compared = next(kind for kind in (*ENERGY_KINDS, "dram") if kind in known)
    per_sample = {
        n: [run.content["energy"][f"{compared}_energy_J"] / (t.train_samples * t.epochs) for run, t in runs]
        for n, runs in groups.items()
    }
    doubtful = sorted(
        {
            str(d)
            for run in found.runs
            for k in known
            for d in run.content["energy"].get(f"{k}_disagreeing_devices") or ()
        }
    )
    notes = [f"counter and integrated power are over 5 % apart on {', '.join(doubtful)}"] if doubtful else []
    labels = (
        sorted({run.content["energy"].get("gpu_energy_label", "GPU energy; not MLPerf Power") for run in found.runs})
        if "gpu" in known
        else []
    )
    return Section(
        f"{key}-energy",
        "Energy",
        (
            *(f"{label}." for label in labels),
            "Kinds overlap (a node's figure holds its GPUs') and are never added.",
            *words,
        ),
        tuple(notes),
        (
            Drawing(
                f"{key}-energy",
                f"Energy per training sample, {ENERGIES[compared]}.",
                figures.by_size(per_sample, scale, "J per training sample"),
            ),
        ),
        (
            Table(
                f"{key}-energy",
                "Energy of a run: median, and range over the runs.",
                columns,
                tuple(row(n, kind) for kind in known for n in groups),
            ),
        ),
    )


def nodes(found: Findings, scale: Scale, key: str) -> Section:
    groups = by_ranks(found)
    rates = {
        n: [r for run, _ in runs if (r := run.content["nodes"].get("node_samples_per_s"))] for n, runs in groups.items()
    }
    several = {n: some for n, some in rates.items() if some and scale.nodes[n] > 1}
    slow = Counter(host for run in found.runs for host in run.content["nodes"].get("slow_nodes") or ())
    words = []
    if not several:
        words.append("Every run was on one node: there is no spread between nodes.")
    elif slow:
        named = ", ".join(f"{host} (in {times} {plural(times, 'run')})" for host, times in slow.most_common())
        words.append(f"Over 5 % below the median node of their run: {named}.")
    else:
        words.append("No node was over 5 % below the median node of its run.")
    columns = (
        Column("size", kind="short"),
        Column("n"),
        Column("spread", "%"),
        Column("slowest", "samples/s"),
        Column("median", "samples/s"),
        Column("fastest", "samples/s"),
    )

    def row(n: int, runs: Sequence[tuple[Run, Timed]]) -> tuple[Cell, ...]:
        reason = reason_of(runs, "nodes", "not calibrated")
        given = [run.content["nodes"].get("node_samples_per_s") or {} for run, _ in runs]
        return (
            Cell(scale.name(n), raw=n),
            count(len(runs)),
            median([run.content["nodes"].get("node_spread") for run, _ in runs], reason, 1e-2),
            *(median([rate.get(end) for rate in given], reason) for end in ("min", "median", "max")),
        )

    table = Table(
        f"{key}-nodes",
        "Speed of single nodes, without communication; spread: (fastest − slowest) ÷ mean.",
        columns,
        tuple(row(n, runs) for n, runs in groups.items() if scale.nodes[n] > 1),
    )
    return Section(
        f"{key}-nodes",
        "Spread between nodes",
        tuple(words),
        drawings=(
            Drawing(
                f"{key}-nodes", "Slowest, median and fastest node of every run.", figures.node_rates(several, scale)
            ),
        )
        if several
        else (),
        tables=(table,) if table.rows else (),
    )


def by_ranks(found: Findings) -> dict[int, list[tuple[Run, Timed]]]:
    groups: dict[int, list[tuple[Run, Timed]]] = {}
    for run, t in sorted(
        zip(found.runs, found.timed, strict=True), key=lambda both: (both[1].ranks, both[1].started_ms)
    ):
        groups.setdefault(t.ranks, []).append((run, t))
    return groups


def reason_of(runs: Sequence[tuple[Run, Timed]], section: str, otherwise: str) -> str:
    """The reason that a record gives for a figure it lacks in a section."""
    for run, _ in runs:
        for name, value in (run.content.get(section) or {}).items():
            if name.endswith("_reason") and value:
                return str(value)
    return otherwise


def _point_names(found: Findings, probes: Any) -> dict[str, str]:
    """Points of a study by their names in words."""
    return {point: f"{_place(point)} {_unit(found)[: None if _place(point) != '1' else -1]}" for point in probes}


def _place(point: str) -> str:
    return point[1:]


def _unit(found: Findings) -> str:
    return found.design.unit if found.design else "ranks"
