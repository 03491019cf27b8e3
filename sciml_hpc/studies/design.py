"""The design of a scaling study: its points, what is run at each, and in which order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, field_validator

from sciml_hpc.benchmarks.base import Settings

SCHEMA = "sciml_hpc.study/1"
Kind = Literal["warm-up", "train", "gate", "io", "comm"]


class Design(Settings):
    """What a study runs. `study.json` holds it; a study is resumed only with the same design."""

    schema_: Literal["sciml_hpc.study/1"] = Field(SCHEMA, alias="schema")
    scaling: Literal["strong", "weak"]
    benchmark: str
    arguments: tuple[str, ...] = ()
    """Options of every run, as the command line of a run takes them."""
    unit: Literal["nodes", "ranks"] = "nodes"
    """What `points` count; ranks: on one machine, by mpirun."""
    points: tuple[int, ...] = Field(min_length=1)
    """Sizes, ascending."""
    ranks_per_node: int = Field(1, ge=1)
    repeats: int = Field(3, ge=1)
    """Runs of each point that count, each with a seed of its own."""
    warm_ups: int = Field(1, ge=0)
    """Runs of each point before them, which are dropped."""
    instances: int = Field(0, ge=0)
    """MLPerf's weak scaling: so many instances of a point train at once, each the whole problem; 0: one at a time."""
    fixed_local_batch: bool = False
    """Strong scaling with the batch of a rank held, so that the global batch grows; else the global batch is held."""
    global_batch: int | None = Field(None, ge=1)
    """Global batch at the smallest point, where the batch of a rank is held."""
    gates: int = Field(0, ge=0)
    """Runs of each point to convergence, where the others do fixed work: none of the point's figures counts without."""
    probes: bool = True
    """The loader without the model and the all-reduce without training, once at each point."""
    seed: int = Field(1, ge=0)
    """Of the first repeat; the others follow."""

    @field_validator("points")
    @classmethod
    def _ascending(cls, points: tuple[int, ...]) -> tuple[int, ...]:
        if list(points) != sorted(set(points)) or points[0] < 1:
            raise ValueError("different sizes from 1 on, the smallest first")
        return points

    def ranks(self, point: int) -> int:
        """Ranks of one run at a point."""
        return point * self.ranks_per_node if self.unit == "nodes" else point

    def batch(self, point: int) -> int:
        """Global batch at a point, where the batch of a rank is held."""
        assert self.global_batch is not None
        return self.global_batch * self.ranks(point) // self.ranks(self.points[0])

    def name(self, point: int) -> str:
        """A point's name: n4 (nodes) or r4 (ranks)."""
        return f"{self.unit[0]}{point}"


@dataclass(frozen=True)
class Step:
    """One run of a study, or one group of instances that train at once."""

    point: int
    kind: Kind
    repeat: int
    """From 0, within point and kind."""

    def name(self, design: Design) -> str:
        """As in n4-train-2."""
        return f"{design.name(self.point)}-{self.kind}-{self.repeat}"

    def seeds(self, design: Design) -> tuple[int, ...]:
        """The seeds of its runs: equal at all points, so that points differ in size alone; never used twice at one."""
        first = {"warm-up": 0, "gate": design.warm_ups, "train": design.warm_ups + design.gates}.get(self.kind, 0)
        width = max(1, design.instances)
        return tuple(design.seed + (first + self.repeat) * width + k for k in range(width))


def order(design: Design) -> Iterator[Step]:
    """All steps in the order in which they run: every repeat goes over all points before the next one, in turn up and
    down, so that a drift of the machine meets all points alike and does not look like scaling.
    """
    turn = 0
    for kind, count in (("warm-up", design.warm_ups), ("gate", design.gates), ("train", design.repeats)):
        for repeat in range(count):
            for point in design.points if turn % 2 == 0 else reversed(design.points):
                yield Step(point, kind, repeat)
            turn += 1
    if design.probes:
        for kind in ("io", "comm"):
            for point in design.points:
                yield Step(point, kind, 0)
