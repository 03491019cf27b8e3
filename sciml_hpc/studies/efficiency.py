"""Scaling efficiency with its confidence interval, split into factors whose product is exact.

Runs of a point are summarised by their geometric mean, since ratios multiply: then the product of the factors' values
is the value of the whole to rounding, whatever the scatter of the runs.

    total       T(N₀)·N₀ ÷ (T(N)·N)  strong;  T(N₀) ÷ T(N)  weak;  T: time to convergence, or of the fixed work
     = staging      (T ÷ T without staging at N₀) ÷ (the same at N)
     × time         as total, T without staging
        = throughput    X(N)·N₀ ÷ (X(N₀)·N), X samples per second
        × convergence   E(N₀) ÷ E(N), E epochs to the target
        × overhead      what is left: set-up, evaluation, the first epoch
    energy      joules per sample at N₀ ÷ at N
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Literal

from sciml_hpc.results.statistics import t_quantile
from sciml_hpc.studies.times import ENERGY_KINDS, Timed

FACTORS = ("total", "staging", "time", "throughput", "convergence", "overhead", "energy")


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % confidence interval; no interval where fewer than two runs stand on either side."""

    value: float
    low: float | None
    high: float | None
    n: int
    """Runs at the point."""


@dataclass(frozen=True)
class Split:
    """The efficiencies of one point against the smallest one."""

    ranks: int
    nodes: int
    reference_ranks: int
    total: Interval
    staging: Interval
    time: Interval
    throughput: Interval
    convergence: Interval
    convergence_measured: bool
    """Whether the runs went to the target; in fixed work the epochs are equal and say nothing of convergence."""
    overhead: Interval
    energy: Interval | None
    energy_note: str
    """Which energy was compared, or why none was."""


def by_size(runs: Sequence[Timed]) -> dict[int, list[Timed]]:
    """Runs by number of ranks, ascending, each list in the order in which they started."""
    sizes: dict[int, list[Timed]] = {}
    for run in sorted(runs, key=lambda run: (run.ranks, run.started_ms)):
        sizes.setdefault(run.ranks, []).append(run)
    return sizes


def geometric(values: Sequence[float]) -> Interval:
    """Geometric mean with its interval: Student's t on the logarithms."""
    logs = [math.log(value) for value in values]
    return _interval(fmean(logs), variance(logs) / len(logs) if len(logs) > 1 else None, len(logs) - 1, len(logs))


def ratio(above: Sequence[float], below: Sequence[float], factor: float = 1.0) -> Interval:
    """factor · (geometric mean of `above` ÷ that of `below`), two independent sets; n is that of `above`.

    The interval: Welch's t on the logarithms (B. L. Welch, Biometrika 34, 28, 1947); a set against itself is exactly 1.
    """
    if above is below:
        return Interval(factor, factor, factor, len(above))
    a, b = ([math.log(value) for value in values] for values in (above, below))
    centre = math.log(factor) + fmean(a) - fmean(b)
    if len(a) < 2 or len(b) < 2:
        return _interval(centre, None, 0, len(a))
    parts = [(variance(x) / len(x), len(x) - 1) for x in (a, b)]
    spread = sum(v for v, _ in parts)
    freedom = spread**2 / sum(v**2 / df for v, df in parts) if spread else 1.0
    return _interval(centre, spread, freedom, len(a))


def split(point: Sequence[Timed], reference: Sequence[Timed], scaling: Literal["strong", "weak"]) -> Split:
    """The efficiencies of the runs of one size against those of the reference size."""
    n, n0 = point[0].ranks, reference[0].ranks
    work = n0 / n if scaling == "strong" else 1.0

    def compared(value: Callable[[Timed], float], factor: float = 1.0) -> Interval:
        """Geometric mean of the reference's values ÷ the point's, times `factor`."""
        if point is reference:
            return Interval(factor, factor, factor, len(point))
        found = ratio([value(r) for r in reference], [value(r) for r in point], factor)
        return Interval(found.value, found.low, found.high, len(point))

    kind, why = _energy_kind([*point, *reference])
    energy = None
    if kind is not None:
        energy = compared(lambda r: r.energy_J[kind] / (r.train_samples * r.epochs))  # type: ignore[index,operator]
    return Split(
        ranks=n,
        nodes=point[0].nodes,
        reference_ranks=n0,
        total=compared(lambda r: r.time_s, work),
        staging=compared(lambda r: r.time_s / r.time_excl_staging_s),
        time=compared(lambda r: r.time_excl_staging_s, work),
        throughput=compared(lambda r: 1 / r.samples_per_s, n0 / n),
        convergence=compared(lambda r: float(r.epochs)),
        convergence_measured=all(r.converged for r in (*point, *reference)),
        overhead=compared(
            lambda r: r.time_excl_staging_s * r.samples_per_s / r.epochs, 1.0 if scaling == "strong" else n / n0
        ),
        energy=energy,
        energy_note=why,
    )


def splits(runs: Sequence[Timed], scaling: Literal["strong", "weak"]) -> list[Split]:
    """The efficiencies of every size against the smallest."""
    sizes = by_size(runs)
    reference = next(iter(sizes.values()))
    return [split(point, reference, scaling) for point in sizes.values()]


def _energy_kind(runs: Sequence[Timed]) -> tuple[str | None, str]:
    for kind in ENERGY_KINDS:
        if all((run.energy_J or {}).get(kind) for run in runs):
            return kind, f"{kind} energy of the run per training sample"
    return None, "no sensor gave one kind of energy in all runs"


def _interval(centre: float, spread: float | None, freedom: float, n: int) -> Interval:
    value = math.exp(centre)
    if spread is None:
        return Interval(value, None, None, n)
    half = t_quantile(0.95, max(1, math.floor(freedom))) * math.sqrt(spread)
    return Interval(value, math.exp(centre - half), math.exp(centre + half), n)


def weak_metric(groups: Sequence[Mapping[str, float | bool]], nodes: int) -> dict[str, float | int | None]:
    """MLPerf HPC's weak-scaling metric of instances that trained at once: (T, S, M′, TTTa) and models per minute.

    Each instance is {start_s, stop_s, converged}, on `nodes` nodes (S). T = S · instances; M′: those that converged;
    TTTa = last stop − first start of the converged ones (HPC training rules, "Throughput"); nothing is extrapolated.
    """
    good = [g for g in groups if g["converged"]]
    ttta = max(g["stop_s"] for g in good) - min(g["start_s"] for g in good) if good else None
    return {
        "T": nodes * len(groups),
        "S": nodes,
        "M": len(good),
        "TTTa_s": ttta,
        "models_per_min": 60 * len(good) / ttta if ttta else None,
    }
