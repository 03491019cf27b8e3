"""A simulated machine whose every parameter is known: what a study of it would have measured."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from sciml_hpc.studies.times import Parts, Timed


@dataclass(frozen=True)
class Machine:
    """Nodes of `ranks_per_node` ranks; times in seconds, as in the model that `projection` fits."""

    ranks_per_node: int = 4
    compute: tuple[float, float] = (0.004, 0.002)
    """Of a step: fixed, and per sample of a rank."""
    sigma: float = 0.01
    latency_s: float = 8e-6
    bandwidth_s: float = 0.003
    stall_s: float = 0.0
    staging: tuple[float, float] = (5.0, 60.0)
    evaluation: tuple[float, float] = (0.5, 40.0)
    setup_s: float = 2.0
    other_s: float = 1.0
    epochs: int = 10
    noise: float = 0.0
    """Relative standard deviation of a run's speed."""

    def run(
        self,
        nodes: int,
        global_batch: int,
        train_samples: int,
        random: np.random.Generator | None = None,
        number: int = 0,
    ) -> Timed:
        """One run."""
        n = nodes * self.ranks_per_node
        b = global_batch / n
        compute = self.compute[0] + self.compute[1] * b
        stragglers = self.sigma * math.sqrt(2 * math.log(nodes)) * compute
        communication = self.latency_s * 2 * math.log2(n) + self.bandwidth_s * 2 * (n - 1) / n
        slower = math.exp(random.normal(0, self.noise)) if random is not None and self.noise else 1.0
        step = (compute + stragglers + communication + self.stall_s) * slower
        steps = self.epochs * (train_samples // global_batch)
        per = steps * slower
        return Timed(
            name=f"run {number} on {nodes} nodes",
            ranks=n,
            nodes=nodes,
            global_batch=global_batch,
            train_samples=train_samples,
            epochs=self.epochs,
            converged=True,
            samples_per_s=global_batch / step,
            parts=Parts(
                staging=self.staging[0] + self.staging[1] / nodes,
                setup=self.setup_s,
                compute=compute * per,
                stragglers=stragglers * per,
                communication=communication * per,
                data_stall=self.stall_s * per,
                evaluation=self.epochs * (self.evaluation[0] + self.evaluation[1] / n),
                other=self.other_s,
            ),
            started_ms=number,
        )

    def study(
        self, nodes: list[int], scaling: str, repeats: int = 1, batch: int = 256, samples: int = 65536, seed: int = 1
    ) -> list[Timed]:
        """Runs at each size; batch and samples are those of the smallest size, and grow in weak scaling."""
        random = np.random.default_rng(seed)
        grown = [n // nodes[0] if scaling == "weak" else 1 for n in nodes]
        return [
            self.run(n, batch * f, samples * f, random, number=k)
            for k in range(repeats)
            for n, f in zip(nodes, grown, strict=True)
        ]


def slower(run: Timed, **seconds: float) -> Timed:
    """The run with so many seconds more in some parts."""
    parts = {name: value + seconds.get(name, 0.0) for name, value in run.parts.items()}
    return replace(run, parts=Parts(**parts))
