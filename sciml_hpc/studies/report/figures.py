"""Figures that are read in grey and by the colour-blind, too: markers, line styles and hatches beside colours."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sciml_hpc.benchmarks.base import Picture
from sciml_hpc.studies import wording
from sciml_hpc.studies.attribution import LABELS, SHARED_CORES, Attribution
from sciml_hpc.studies.efficiency import Interval, Split
from sciml_hpc.studies.findings import Findings
from sciml_hpc.studies.report.courses import Course

INK = {"black": "#000000", "blue": "#0072b2", "vermillion": "#c44e00", "green": "#007a56", "purple": "#a8417f"}
"""Colours of lines: those of Okabe and Ito (2008), darkened where the contrast with white was below 3 to 1."""
FILLS = (
    ("#0072b2", ""), ("#ffd58a", "////"), ("#bfe3f7", "...."), ("#f5b183", "\\\\\\\\"), ("#a6dcc8", "xxxx"),
    ("#f8f2a8", "----"), ("#ecc9dc", "++++"), ("#ffffff", "oo"), ("#c9c9c9", ""),
)  # fmt: skip
"""Fills of bars, always with a black edge: light under a hatch, so that the hatch is seen without colour, too."""
MARKERS = "osD^vP*X"
LINES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (5, 1)), (0, (1, 1)), (0, (3, 1, 1, 1, 1, 1)))
GREY = "#666666"
SUM = "sum: the loss"
WIDTH = 5.0
"""Inches, so that text of 9 points is legible on a telephone, too."""


@dataclass(frozen=True)
class Scale:
    """What the sizes of a set of runs are called and drawn by: nodes, or ranks where several share nodes."""

    unit: str
    nodes: Mapping[int, int]
    """By number of ranks."""

    @classmethod
    def of(cls, found: Findings) -> Scale:
        """That of findings."""
        nodes = {run.ranks: run.nodes for run in found.timed}
        return cls("nodes" if len(set(nodes.values())) == len(nodes) and max(nodes.values()) > 1 else "ranks", nodes)

    def at(self, ranks: int) -> int:
        """The place on the axis."""
        return self.nodes[ranks] if self.unit == "nodes" else ranks

    def name(self, ranks: int) -> str:
        """In words: 4 nodes, 16 ranks."""
        nodes = self.nodes[ranks]
        return f"{nodes:,} node{'s' * (nodes > 1)}, {ranks:,} rank{'s' * (ranks > 1)}"

    def short(self, ranks: int) -> str:
        """4 nodes, or 4 ranks."""
        place = self.at(ranks)
        return f"{place:,} {self.unit[: None if place > 1 else -1]}"


def scaling(found: Findings, scale: Scale, what: str) -> Figure:
    """`what` is "throughput" or "time": every run, geometric means with their intervals, the ideal, the projection."""
    rates = what == "throughput"
    means = found.throughput() if rates else found.time()
    figure, axes = _axes(3.4)
    first = min(means)
    # Throughput should grow with the machine; the time of a fixed problem shrink, of a growing one stay.
    power = 1 if rates else -1 if found.scaling == "strong" else 0
    places = [scale.at(n) for n in means]
    projected = list(found.projection.points) if found.projection else []
    ends = [scale.at(n) for n in means] + [_projected_at(p.size, scale) for p in projected]
    ideal = [means[first].value * (x / scale.at(first)) ** power for x in (min(ends), max(ends))]
    axes.plot([min(ends), max(ends)], ideal, color=GREY, linestyle=":", label="perfect scaling", zorder=1)
    axes.plot(
        [scale.at(r.ranks) for r in found.timed],
        [r.samples_per_s if rates else r.time_s for r in found.timed],
        linestyle="",
        marker="o",
        markersize=6,
        markerfacecolor="none",
        markeredgecolor=INK["blue"],
        markeredgewidth=0.8,
        label="one run",
        zorder=2,
    )
    axes.errorbar(
        places,
        [x.value for x in means.values()],
        yerr=_bars(list(means.values())),
        color=INK["black"],
        marker="_",
        markersize=11,
        capsize=3,
        label="geometric mean, 95 % interval",
        zorder=3,
    )
    if projected:
        last = max(means)
        xs = [scale.at(last), *(_projected_at(p.size, scale) for p in projected)]
        ys = [means[last].value, *(p.samples_per_s if rates else p.time_s for p in projected)]
        ranges = [p.samples_per_s_range if rates else p.time_s_range for p in projected]
        low, high = ([means[last].value, *(r[k] for r in ranges)] for k in (0, 1))
        axes.fill_between(
            xs,
            np.maximum(low, min(ys) / 100),
            high,
            facecolor="#f2e2d8",
            edgecolor=INK["vermillion"],
            hatch="///",
            linewidth=0,
            zorder=0,
        )
        axes.plot(
            xs,
            ys,
            color=INK["vermillion"],
            linestyle="--",
            marker="D",
            markerfacecolor="white",
            markevery=range(1, len(xs)),
            label="projection, not measured (band: its uncertainty)",
            zorder=2,
        )
    _log_sizes(axes, sorted(set(ends)), scale.unit)
    _log_values(axes)
    axes.set_ylabel(
        "training samples per second"
        if rates
        else "time to the target (s)"
        if found.converged
        else "time of the fixed work (s)"
    )
    _legend(figure, axes, 2)
    return figure


FACTORS = {
    "total": "total",
    "time": "total without staging",
    "staging": "staging",
    "throughput": "throughput",
    "convergence": "convergence",
    "overhead": "overhead",
}


def factors(splits: Sequence[Split], scale: Scale) -> Figure:
    """Efficiency and its factors, a panel each on the same axis."""
    figure = _figure(4.6)
    panels = figure.subplots(3, 2, sharex=True, sharey=True).flat
    places = range(len(splits))
    for panel, (name, title) in zip(panels, FACTORS.items(), strict=True):
        values = [getattr(split, name) for split in splits]
        panel.axhline(1, color=GREY, linestyle=":", linewidth=1)
        panel.errorbar(
            places,
            [x.value for x in values],
            yerr=_bars(values),
            capsize=3,
            color=INK["black" if name == "total" else "blue"],
            marker="s" if name == "total" else "o",
        )
        unmeasured = name == "convergence" and not all(s.convergence_measured for s in splits)
        panel.set_title(title + (" (fixed work: not measured)" if unmeasured else ""))
        panel.set_xticks(list(places), [f"{scale.at(s.ranks):,}" for s in splits])
    largest = max(getattr(split, name).value for split in splits for name in FACTORS)
    panel.set_ylim(0, max(1.08, min(panel.get_ylim()[1], 2 * largest)))  # of all: they share it
    figure.supxlabel(scale.unit, fontsize=9)
    figure.supylabel("efficiency (1: perfect)", fontsize=9)
    return figure


def losses(attributions: Sequence[Attribution], scale: Scale) -> Figure:
    """Seconds lost against perfect scaling by cause; what was won stands left of zero; a diamond is the sum."""
    figure, axes = _axes(1.7 + 0.42 * len(attributions))
    most = max(abs(seconds) for row in attributions for seconds in row.parts_s.values())
    shown = [n for n in attributions[0].parts_s if max(abs(row.parts_s[n]) for row in attributions) > 1e-3 * most]
    for k, row in enumerate(attributions):
        ends = {True: 0.0, False: 0.0}
        for (name, seconds), (colour, hatch) in zip(row.parts_s.items(), FILLS, strict=True):
            lost = seconds > 0
            axes.barh(
                k,
                seconds,
                left=ends[lost],
                height=0.62,
                color=colour,
                hatch=hatch,
                edgecolor="black",
                linewidth=0.6,
                label=_cause(name, attributions) if k == 0 and name in shown else None,
            )
            ends[lost] += seconds
        axes.plot(
            row.loss_s,
            k,
            marker="D",
            color="black",
            markerfacecolor="white",
            markersize=6,
            linestyle="",
            label=SUM if k == 0 else None,
        )
    axes.use_sticky_edges = False
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(attributions)), [scale.short(row.ranks) for row in attributions])
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_formatter(_plain())
    axes.set_xlabel("seconds lost against perfect scaling (left of 0: won)")
    _legend(figure, axes, 2)
    return figure


def courses(drawn: Sequence[Course], scale: Scale, label: str, target: float | None, log: bool = False) -> Figure:
    """Every run's curve, by epoch above and by time below; `target` is a line."""
    figure = _figure(5.0)
    panels = figure.subplots(2, 1)
    sizes = sorted({course.ranks for course in drawn})
    for panel, name in zip(panels, ("epochs", "times_s"), strict=True):
        shown: set[int] = set()
        for course in drawn:
            style = _style(sizes.index(course.ranks))
            few = len(course.values) <= 40
            panel.plot(
                getattr(course, name),
                course.values,
                linewidth=1,
                alpha=0.9,
                markersize=3.5,
                markerfacecolor="white",
                **(style if few else style | {"marker": ""}),
                label=None if course.ranks in shown else scale.short(course.ranks),
            )
            shown.add(course.ranks)
        if target is not None:
            panel.axhline(target, color=INK["black"], linewidth=1.4, linestyle=(0, (6, 2)), label="target")
        panel.set_xlabel("epoch" if name == "epochs" else "seconds since the start of the run, staging included")
        panel.set_ylabel(label)
        if log:
            _log_values(panel)
        panel.xaxis.set_major_formatter(_plain())
    _legend(figure, panels[0], 3)
    return figure


def by_size(values: Mapping[int, Sequence[float]], scale: Scale, label: str) -> Figure:
    """A figure of every run by size, and the median of each size."""
    figure, axes = _axes(2.6)
    places = range(len(values))
    for k, (x, some) in enumerate(zip(places, values.values(), strict=True)):
        axes.plot(
            [x] * len(some),
            some,
            linestyle="",
            marker="o",
            markersize=6,
            markerfacecolor="none",
            color=INK["blue"],
            label=None if k else "one run",
        )
    axes.plot(
        places, [float(np.median(v)) for v in values.values()], color="black", marker="_", markersize=11, label="median"
    )
    axes.set_xticks(list(places), [f"{scale.at(n):,}" for n in values])
    axes.set_xlim(-0.5, len(values) - 0.5)
    axes.set_xlabel(scale.unit)
    axes.set_ylabel(label)
    largest = max(v for some in values.values() for v in some)
    axes.set_ylim(min(0.0, axes.get_ylim()[0]), 1.08 * largest if largest > 0 else None)
    axes.yaxis.set_major_formatter(_plain())
    _legend(figure, axes, 2)
    return figure


def loader(probes: Mapping[str, Mapping[str, Any]], places: Sequence[str], unit: str) -> Figure:
    """Rates of the loader and of a raw read of the same files, cold and warm, by point of the study."""
    figure, axes = _axes(3.0)
    rows = (
        ("loader, cold", "cold", "loader_bytes_per_s"),
        ("raw read, cold", "cold", "raw_bytes_per_s"),
        ("loader, warm", "warm", "loader_bytes_per_s"),
        ("raw read, warm", "warm", "raw_bytes_per_s"),
    )
    for k, (label, state, name) in enumerate(rows):
        rates = [probe[state][name] / 1e9 for probe in probes.values()]
        axes.plot(
            range(len(rates)), rates, markerfacecolor="white" if state == "warm" else None, label=label, **_style(k)
        )
    axes.set_xticks(range(len(places)), places)
    axes.set_xlim(-0.4, len(places) - 0.6)
    axes.set_xlabel(unit)
    axes.set_ylabel("GB/s, whole job")
    _log_values(axes)
    _legend(figure, axes, 2)
    return figure


def allreduce(probes: Mapping[str, Sequence[Mapping[str, Any]]], names: Mapping[str, str]) -> Figure:
    """Bus bandwidth against message size, by point of the study and by who did it; the gradients' size is a line."""
    figure, axes = _axes(3.4)
    engines = list(dict.fromkeys(row["by"] for rows in probes.values() for row in rows))
    handles = []
    for k, (point, rows) in enumerate(probes.items()):
        for j, by in enumerate(engines):
            some = [row for row in rows if row["by"] == by and row["busbw_bytes_per_s"] > 0]
            style = _style(k) | {"linestyle": LINES[j], "markerfacecolor": None if j == 0 else "white"}
            sizes, rates = [row["bytes"] for row in some], [row["busbw_bytes_per_s"] / 1e9 for row in some]
            axes.plot(sizes, rates, linewidth=1, markersize=4, **style)
        handles.append(Line2D([], [], **_style(k) | {"linestyle": ""}, label=names[point]))
    handles += [Line2D([], [], color=GREY, linestyle=LINES[j], label=by) for j, by in enumerate(engines)]
    for size in {row["bytes"] for rows in probes.values() for row in rows if row["gradient"]}:
        line = axes.axvline(
            size, color="black", linestyle=(0, (6, 2)), linewidth=1.2, label="gradients of this network"
        )
    handles.append(line)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(ticker.LogLocator(base=10, numticks=8))
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    axes.xaxis.set_major_formatter(
        ticker.FuncFormatter(lambda x, _: wording.scaled(x, "B").replace(".00", "").replace(".0", ""))
    )
    axes.set_xlabel("size of the message")
    axes.set_ylabel("bus bandwidth (GB/s)")
    _log_values(axes)
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def node_rates(rates: Mapping[int, Sequence[Mapping[str, float]]], scale: Scale) -> Figure:
    """Slowest, median and fastest node of every run, as a fraction of the run's median node."""
    figure, axes = _axes(2.6)
    k = 0
    for place, runs in enumerate(rates.values()):
        for j, run in enumerate(runs):
            x = place + (j - (len(runs) - 1) / 2) * 0.6 / max(1, len(runs))
            low, high = run["min"] / run["median"], run["max"] / run["median"]
            axes.plot([x, x], [low, high], color="black", linewidth=1)
            for value, marker, label in (
                (high, "^", "fastest node"),
                (1.0, "_", "median node"),
                (low, "v", "slowest node"),
            ):
                axes.plot(
                    x, value, marker=marker, color=INK["blue"], markersize=5, linestyle="", label=None if k else label
                )
            k += 1
    axes.axhline(0.95, color=INK["vermillion"], linestyle="--", linewidth=1, label="5 % below the median: named")
    axes.set_xticks(range(len(rates)), [f"{scale.at(n):,}" for n in rates])
    axes.set_xlabel(scale.unit)
    axes.set_ylabel("speed ÷ median node's")
    _legend(figure, axes, 2)
    return figure


def panels(picture: Picture) -> Figure:
    """A network's picture of itself: panels in colours that rise in brightness (cividis), blank where there is none."""
    count = len(picture.panels)
    columns = min(count, 3)
    rows = math.ceil(count / columns)
    height, width = picture.panels.shape[1:]
    tall = min(3.0, max(0.6, WIDTH / columns * 0.8 * height / max(1, width)))
    figure = _figure(rows * (tall + 0.55))
    for axes, panel, label in zip(
        np.ravel(figure.subplots(rows, columns, squeeze=False)), picture.panels, picture.labels, strict=False
    ):
        image = axes.imshow(
            panel, cmap="cividis", interpolation="nearest", aspect="auto" if height * 4 < width else "equal"
        )
        axes.set_title(_wrapped(label, 70 // columns), fontsize=8)
        figure.colorbar(image, ax=axes, shrink=0.8, format=_plain()).ax.tick_params(labelsize=6)
    for axes in figure.axes:
        axes.grid(visible=False)
        if not axes.images and not axes.collections:
            axes.set_axis_off()
        if axes.images:
            axes.set_xticks([])
            axes.set_yticks([])
    return figure


def _figure(height: float) -> Figure:
    return Figure(figsize=(WIDTH, height))


def _axes(height: float) -> tuple[Figure, Axes]:
    figure = _figure(height)
    return figure, figure.add_subplot()


def _style(k: int) -> dict[str, Any]:
    inks = list(INK.values())
    return {"color": inks[k % len(inks)], "linestyle": LINES[k % len(LINES)], "marker": MARKERS[k % len(MARKERS)]}


def _bars(values: Sequence[Interval]) -> np.ndarray:
    """Lengths of error bars: 0 where there is no interval."""
    return np.array(
        [
            [0.0 if x.low is None else x.value - x.low for x in values],
            [0.0 if x.high is None else x.high - x.value for x in values],
        ]
    )


def _plain() -> ticker.Formatter:
    return ticker.FuncFormatter(lambda x, _: _tick(x))


def _tick(value: float) -> str:
    """A tick's number: no digits that say nothing."""
    short = np.format_float_positional(float(f"{value:.10g}"), trim="-") if abs(value) < 1e4 else f"{value:,.0f}"
    return short.replace("-", "−")


def _log_values(axes: Axes) -> None:
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    decades = math.log10(high / low)
    subs = (1, 2, 5) if decades < 3 else (1,)
    if decades < 0.5:  # one label at most would be left
        axes.yaxis.set_major_locator(ticker.MaxNLocator(5))
    else:
        axes.yaxis.set_major_locator(ticker.LogLocator(base=10, subs=subs, numticks=12))
    axes.yaxis.set_major_formatter(_plain())
    axes.yaxis.set_minor_locator(ticker.NullLocator())


def _log_sizes(axes: Axes, places: Sequence[int], unit: str) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(places), [f"{x:,}" for x in places])
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.set_xlabel(unit)


def _legend(figure: Figure, axes: Axes, columns: int) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if labels and labels[0] == SUM:  # lines come before bars
        handles, labels = [*handles[1:], handles[0]], [*labels[1:], labels[0]]
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def _projected_at(size: Any, scale: Scale) -> int:
    return size.nodes if scale.unit == "nodes" else size.ranks


def _cause(name: str, attributions: Sequence[Attribution]) -> str:
    shared = any(row.labels[name] == SHARED_CORES for row in attributions)
    return "computing (cores shared)" if shared else LABELS[name]


def _wrapped(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(text, width)[:3])
