"""Rows of the table that `make bench` prints: ratios of things that took turns on the same machine."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass
class Row:
    """One line of the table. `ratio` compares neighbours in a round, so that a drift of the machine meets both."""

    what: str
    against: str
    ratios: Sequence[float]
    aim: tuple[Literal["≥", "≤"], float] | None
    """None: a figure that is reported, without an aim."""
    unit: str = "×"
    figures: Mapping[str, Any] = field(default_factory=dict)
    """What else was measured, with units in the names."""

    @property
    def ratio(self) -> float:
        """Median over the rounds."""
        return statistics.median(self.ratios)

    @property
    def interval(self) -> tuple[float, float]:
        """Where the median lies by the sign test, whatever the distribution: between the k-th smallest and the k-th
        largest ratio, as near to each other as `confidence` stays 95 % or more. Of fewer than six: the least and the
        greatest, with less.
        """
        ranked, outside = sorted(self.ratios), self._outside()
        return ranked[outside], ranked[-1 - outside]

    @property
    def confidence(self) -> float:
        """With which the median lies in `interval`."""
        return 1 - 2 * self._tail(self._outside())

    def _outside(self) -> int:
        """Ratios left out of the interval at either end."""
        outside = 0
        while self._tail(outside + 1) <= 0.025:
            outside += 1
        return outside

    def _tail(self, count: int) -> float:
        """Probability that at most `count` of the ratios lie below the true median."""
        n = len(self.ratios)
        return sum(math.comb(n, i) for i in range(count + 1)) / 2**n

    @property
    def reached(self) -> bool | None:
        """Whether the aim was; None if there is none, or the noise is such that these rounds cannot tell."""
        if self.aim is None:
            return None
        (relation, aim), (low, high) = self.aim, self.interval
        if low < aim < high:
            return None
        return self.ratio >= aim if relation == "≥" else self.ratio <= aim

    def record(self) -> dict[str, Any]:
        """All of it, in JSON types."""
        return {
            "what": self.what,
            "against": self.against,
            "unit": self.unit,
            "median": self.ratio,
            "min": min(self.ratios),
            "max": max(self.ratios),
            "n": len(self.ratios),
            "interval": list(self.interval),
            "confidence": self.confidence,
            "aim": None if self.aim is None else f"{self.aim[0]} {self.aim[1]:g}",
            "reached": self.reached,
            **self.figures,
        }

    def line(self) -> str:
        """As the table has it."""
        aim = "" if self.aim is None else f"{self.aim[0]} {self.aim[1]:g}"
        mark = {True: "reached", False: "MISSED", None: "unsure" if self.aim else ""}[self.reached]
        spread = "{:.3g}–{:.3g}".format(*self.interval)
        figures = ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in self.figures.items())
        value = f"{self.ratio:.3f} {self.unit}"
        numbers = f"{value:>11} {spread:>13} {len(self.ratios):>3} {aim:>7} {mark:8}"
        return f"{self.what:34} {self.against:38} {numbers} {figures}"


def alternate(rounds: int, **works: Callable[[], object]) -> dict[str, list[float]]:
    """Seconds of each work in each round, taking turns; a first round warms up and is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(rounds + 1):
        for name, work in works.items():
            begin = time.perf_counter()
            work()
            if turn:
                seconds[name].append(time.perf_counter() - begin)
    return seconds


def faster(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """How many times as fast we were, round by round."""
    return [b / a for a, b in zip(ours, theirs, strict=True)]
