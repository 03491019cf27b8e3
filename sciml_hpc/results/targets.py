"""Official targets of benchmarks (`rules/targets.yaml`), and the log key under which a metric is judged."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from sciml_hpc.results.keys import METRICS

RULES = Path(__file__).parent / "rules"
"""The compliance rules: `common.yaml` for MLCommons' checker, `targets.yaml` for both."""


@dataclass(frozen=True)
class OfficialTarget:
    """What the publisher of a benchmark asks of a run on the published data; see `rules/targets.yaml`."""

    metric: str
    direction: str
    value: float
    source: str
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    names: tuple[str, ...] = ()
    also: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def met(self, x: float) -> bool:
        """Whether `x` lies in the official range; NaN never does."""
        return (
            x == x
            and (self.least is None or x >= self.least)
            and (self.most is None or x <= self.most)
            and (self.above is None or x > self.above)
            and (self.below is None or x < self.below)
        )


@functools.cache
def official_targets() -> Mapping[str, OfficialTarget]:
    """By the benchmark's name in the log (`mllog_name`)."""
    entries = yaml.safe_load((RULES / "targets.yaml").read_text())
    return {name: OfficialTarget(**entry) for name, entry in entries.items()}


def metric_keys(benchmark: str, metric: str, direction: str) -> dict[str, tuple[str, ...]]:
    """The log keys of a benchmark's metrics, the target's first, each with our own names of the metric.

    The publisher's key where there is one; else the key of the metric's own name; else MLPerf HPC's custom:
    `eval_accuracy` where more is better, `eval_error` where less is.
    """
    official = official_targets().get(benchmark)
    if official is not None and official.direction == direction and metric in (official.names or (metric,)):
        also = {key: tuple(n for n in names if n != metric) for key, names in official.also.items()}
        return {official.metric: (metric,), **also}
    if metric in METRICS:
        return {metric: (metric,)}
    return {"eval_accuracy" if direction == "max" else "eval_error": (metric,)}
