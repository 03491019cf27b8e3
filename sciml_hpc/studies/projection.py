"""A model of the machine fitted to a study's points, to project throughput and time to sizes that were not run.

Per step and rank, with n ranks on m nodes, b samples in a rank's batch:

    computing      c₀ + c₁·b
    stragglers     σ·√(2 ln m) of the computing: the slowest of m nodes whose speeds scatter normally (H. Cramér,
                   Mathematical Methods of Statistics, 1946, section 28.6: the extreme of m normal variables)
    communication  λ·2·log₂n + γ·2(n − 1)/n: latency and bandwidth of an all-reduce of fixed size, as far as not hidden
                   (R. Thakur et al., Int. J. High Perform. Comput. Appl. 19, 49, 2005, sections 4.4 and 4.5)
    data stall     d₀ + d₁·b

and per run: staging s₀ + s₁/m, evaluation v₀ + v₁/n an epoch, set-up and the rest constant, epochs to the target
ε₀ + ε₁·B with the global batch B (S. McCandlish et al., arXiv:1812.06162, equation 2.11, in epochs). No coefficient is
negative. The fit is to geometric means of each size, weighted for relative errors.

Not in the model, and so not in the error that is stated: what only begins to matter beyond the sizes that were run. The
latency of a ring, 2(n − 1) messages, is such a thing: too small to be seen at 64 nodes, several per cent at 4,096.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

import numpy as np

from sciml_hpc.studies.efficiency import by_size
from sciml_hpc.studies.times import Timed

FEWEST = 3
"""Sizes from which on a model is fitted: one may be left out and two still give two coefficients."""
RESAMPLED = 100
"""Models fitted to runs drawn anew from each size, with replacement."""


@dataclass(frozen=True)
class Size:
    """What determines a projected run."""

    ranks: int
    nodes: int
    global_batch: int
    train_samples: int

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return self.train_samples // self.global_batch


@dataclass(frozen=True)
class Projected:
    """Projected figures of one size; never measured."""

    size: Size
    samples_per_s: float
    time_s: float
    """To convergence, staging in it; of the fixed work where the study's is fixed."""
    samples_per_s_range: tuple[float, float]
    time_s_range: tuple[float, float]
    """What models fitted to resampled runs and to all sizes but one say here (95 %), widened by `Projection.error`."""


@dataclass(frozen=True)
class Model:
    """The fitted coefficients, each pair as above."""

    compute: tuple[float, float]
    sigma: float
    communication: tuple[float, float]
    stall: tuple[float, float]
    staging: tuple[float, float]
    evaluation: tuple[float, float]
    epochs: tuple[float, float]
    rest_s: float

    def step_s(self, size: Size) -> float:
        """Seconds of one step."""
        n, b = size.ranks, size.global_batch / size.ranks
        computing = self.compute[0] + self.compute[1] * b
        waits = self.communication[0] * 2 * math.log2(n) + self.communication[1] * 2 * (n - 1) / n
        waits += self.stall[0] + self.stall[1] * b
        return computing * (1 + self.sigma * _extreme(size.nodes)) + waits

    def samples_per_s(self, size: Size) -> float:
        """Training samples per second of the whole job."""
        return size.global_batch / self.step_s(size)

    def time_s(self, size: Size) -> float:
        """Seconds from `run_start` to the target."""
        epoch = size.steps * self.step_s(size) + self.evaluation[0] + self.evaluation[1] / size.ranks
        epochs = self.epochs[0] + self.epochs[1] * size.global_batch
        return self.staging[0] + self.staging[1] / size.nodes + self.rest_s + epochs * epoch


@dataclass(frozen=True)
class Projection:
    """A model, what it projects, and how well it projects sizes that it did not know."""

    model: Model
    points: tuple[Projected, ...]
    left_out: tuple[tuple[int, float, float], ...]
    """(ranks, relative error of samples/s, of time) of each size, projected by a model fitted to the other sizes."""
    error: float
    """The largest of these."""


def fit(runs: Sequence[Timed]) -> Model:
    """The model of these runs. Raises ValueError if they have fewer than two sizes."""
    sizes = [_Means.of(group) for group in by_size(runs).values()]
    if len(sizes) < 2:
        raise ValueError(f"a model needs two sizes, there is {len(sizes)}")
    one = [1.0] * len(sizes)
    batch = [s.size.global_batch / s.size.ranks for s in sizes]
    ranks = [s.size.ranks for s in sizes]
    (sigma,) = _coefficients([[s.compute_s * _extreme(s.size.nodes) for s in sizes]], [s.straggler_s for s in sizes])
    return Model(
        compute=_coefficients([one, batch], [s.compute_s for s in sizes]),
        sigma=sigma,
        communication=_coefficients(
            [[2 * math.log2(n) for n in ranks], [2 * (n - 1) / n for n in ranks]], [s.communication_s for s in sizes]
        ),
        stall=_coefficients([one, batch], [s.stall_s for s in sizes]),
        staging=_coefficients([one, [1 / s.size.nodes for s in sizes]], [s.staging_s for s in sizes]),
        evaluation=_coefficients([one, [1 / n for n in ranks]], [s.evaluation_s for s in sizes]),
        epochs=_coefficients([one, [s.size.global_batch for s in sizes]], [s.epochs for s in sizes]),
        rest_s=fmean(s.rest_s for s in sizes),
    )


def project(runs: Sequence[Timed], nodes: Sequence[int], grows: Literal["strong", "weak", "batch"]) -> Projection:
    """The model of a study's runs, projected to numbers of nodes that were not run.

    `grows`: what a larger size does: strong, nothing; weak, samples and batch grow; batch, the batch alone. Raises
    ValueError if there are fewer than three sizes.
    """
    sizes = by_size(runs)
    if len(sizes) < FEWEST:
        raise ValueError(f"a projection needs {FEWEST} sizes, there are {len(sizes)}")
    left_out, others = [], []
    for ranks, group in sizes.items():
        model = fit([run for run in runs if run.ranks != ranks])
        others.append(model)
        truth = _Means.of(group)
        rate = model.samples_per_s(truth.size) / truth.samples_per_s - 1
        left_out.append((ranks, rate, model.time_s(truth.size) / truth.time_s - 1))
    error = max(max(abs(rate), abs(time)) for _, rate, time in left_out)
    random = np.random.default_rng(0)
    resampled = [
        fit([group[k] for group in sizes.values() for k in random.integers(len(group), size=len(group))])
        for _ in range(RESAMPLED)
    ]

    def around(value: Callable[[Model], float]) -> tuple[float, float]:
        low, high = np.percentile([value(m) for m in resampled], (2.5, 97.5))
        alone = [value(m) for m in others]
        return float(min(low, *alone)) * (1 - min(error, 1.0)), float(max(high, *alone)) * (1 + error)

    model = fit(runs)
    first = _Means.of(next(iter(sizes.values()))).size
    points = []
    for count in sorted(set(nodes)):
        factor = count / first.nodes
        size = Size(
            ranks=round(first.ranks * factor),
            nodes=count,
            global_batch=first.global_batch if grows == "strong" else round(first.global_batch * factor),
            train_samples=round(first.train_samples * factor) if grows == "weak" else first.train_samples,
        )
        if size.global_batch >= size.ranks and size.steps >= 1:
            points.append(
                Projected(
                    size,
                    model.samples_per_s(size),
                    model.time_s(size),
                    around(lambda m, size=size: m.samples_per_s(size)),
                    around(lambda m, size=size: m.time_s(size)),
                )
            )
    return Projection(model, tuple(points), tuple(left_out), error)


@dataclass(frozen=True)
class _Means:
    """One size: geometric means over its runs, the step divided in the proportions of the run's parts."""

    size: Size
    samples_per_s: float
    time_s: float
    compute_s: float
    straggler_s: float
    communication_s: float
    stall_s: float
    staging_s: float
    evaluation_s: float
    """Of one epoch."""
    epochs: float
    rest_s: float

    @classmethod
    def of(cls, runs: Sequence[Timed]) -> _Means:
        def mean(value: Callable[[Timed], float]) -> float:
            values = [value(run) for run in runs]
            return math.exp(fmean(map(math.log, values))) if min(values) > 0 else fmean(values)

        def step(name: str) -> float:
            def share(run: Timed) -> float:
                parts = run.parts
                train = parts.compute + parts.stragglers + parts.communication + parts.data_stall
                return getattr(parts, name) / train * run.global_batch / run.samples_per_s

            return mean(share)

        first = runs[0]
        return cls(
            size=Size(first.ranks, first.nodes, first.global_batch, first.train_samples),
            samples_per_s=mean(lambda r: r.samples_per_s),
            time_s=mean(lambda r: r.time_s),
            compute_s=step("compute"),
            straggler_s=step("stragglers"),
            communication_s=step("communication"),
            stall_s=step("data_stall"),
            staging_s=mean(lambda r: r.parts.staging),
            evaluation_s=mean(lambda r: r.parts.evaluation / r.epochs),
            epochs=mean(lambda r: float(r.epochs)),
            rest_s=fmean(r.parts.setup + r.parts.other for r in runs),
        )


def _extreme(nodes: int) -> float:
    return math.sqrt(2 * math.log(nodes))


def _coefficients(columns: Sequence[Sequence[float]], values: Sequence[float]) -> tuple[float, ...]:
    """Non-negative least squares with relative weights: the best of all choices of columns whose solution is feasible.

    Every subset is tried: there are at most two columns. Values of 0 keep the weight of the smallest other value.
    """
    a, y = np.array(columns, float).T, np.array(values, float)
    positive = y[y > 0]
    if not len(positive):
        return (0.0,) * len(columns)
    weights = 1 / np.maximum(y, positive.min())
    best, found = math.inf, np.zeros(len(columns))
    for size in range(1, len(columns) + 1):
        for chosen in itertools.combinations(range(len(columns)), size):
            part = a[:, chosen] * weights[:, None]
            solution, *_ = np.linalg.lstsq(part, y * weights, rcond=None)
            residual = float(np.square(part @ solution - y * weights).sum())
            if (solution >= 0).all() and residual < best * (1 - 1e-9):
                best, found = residual, np.zeros(len(columns))
                found[list(chosen)] = solution
    return tuple(map(float, found))
