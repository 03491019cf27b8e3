"""Simulated profiles of dilute spheres and parallelepipeds, from equations: form factor, spread of sizes, detector.

A sample is a powder of one shape: its radius of gyration is drawn from the same distribution for both shapes, since
otherwise the size alone would give the shape away; so are the spread of sizes, the flat background and the exposure.
What is left to tell them by is the form of the curve: deep, regular minima of spheres, which polydispersity blurs, and
which compact parallelepipeds have too.

What it is not: no interaction between particles, no resolution of the instrument, no contrast within a particle. The
paper's sub-benchmark holds orientation and two edges of its parallelepipeds fixed; here particles are in random
orientation, as in a solution, and all three edges vary.

Sample i of a split follows from (seed, split, i) alone; even samples are spheres, odd ones parallelepipeds. Another
processor or NumPy version may differ in the last bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from sciml_hpc.benchmarks.saxs import POINTS
from sciml_hpc.benchmarks.saxs.formfactors import parallelepiped, polydisperse, sphere
from sciml_hpc.benchmarks.saxs.native import PARALLELEPIPED, ProfileSource

if TYPE_CHECKING:
    from sciml_hpc.benchmarks.saxs import Generator

LOWEST_Q, HIGHEST_Q = 0.005, 0.40
"""Momentum transfer in Å⁻¹ that a SAXS beamline covers, in equal steps of its logarithm."""
STEP = float(np.log(HIGHEST_Q / LOWEST_Q)) / (POINTS - 1)
RADIUS_OF_GYRATION = 15.0, 60.0
"""Range of the radius of gyration in Å, its logarithm uniform: from what has no minimum in range to what has many."""
BACKGROUND = 1e-5, 3e-3
"""Range of the flat background relative to the intensity at the lowest q, its logarithm uniform."""
COUNTS = 3e3, 1e6
"""Range of the photons expected at the lowest q, its logarithm uniform; the solid angle of a point grows with q."""
SPLITS = ("train", "validation", "test")


class Simulated(ProfileSource):
    """The simulator's profiles."""

    def __init__(self, generator: Generator, samples: Mapping[str, int], seed: int) -> None:
        super().__init__(samples)
        self._generator, self._seed = generator, seed

    @property
    def q(self) -> np.ndarray:
        return LOWEST_Q * np.exp(STEP * np.arange(POINTS))

    def profiles(self, split: str, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        shape = np.arange(first, first + count) % 2
        intensity = np.empty((count, POINTS), np.float32)
        for i in range(count):
            words = (self._seed, SPLITS.index(split), first + i)
            rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))
            intensity[i] = simulate(self._generator, int(shape[i]), rng)
        return intensity, shape.astype(np.uint8)


def simulate(generator: Generator, shape: int, rng: np.random.Generator) -> np.ndarray:
    """Intensity (300,) float64 of one sample, relative to the expected one at the lowest q but for the background."""
    gyration = _log_uniform(rng, *RADIUS_OF_GYRATION)
    sigma = generator.polydispersity * rng.uniform(0.1, 1.0)
    background = _log_uniform(rng, *BACKGROUND)
    counts = _log_uniform(rng, *COUNTS)
    edges = box(gyration, np.exp(rng.uniform(0, np.log(generator.aspect), 3)))
    if shape == PARALLELEPIPED:
        profile = polydisperse(lambda q: parallelepiped(q, edges), LOWEST_Q, STEP, POINTS, sigma)
    else:
        radius = ball(gyration)
        profile = polydisperse(lambda q: sphere(q, radius), LOWEST_Q, STEP, POINTS, sigma)
    expected = profile / profile[0] + background
    if generator.category == "ideal":
        return expected
    exposure = counts * np.exp(STEP * np.arange(POINTS))
    return rng.poisson(expected * exposure) / exposure


def ball(gyration: float) -> float:
    """Radius of the sphere of that radius of gyration: Rg² = 3/5 R²."""
    return gyration / np.sqrt(0.6)


def box(gyration: float, proportions: np.ndarray) -> tuple[float, float, float]:
    """Edges of the parallelepiped of these proportions and that radius of gyration: Rg² = (a² + b² + c²) / 12."""
    a, b, c = proportions * (gyration * np.sqrt(12 / np.square(proportions).sum()))
    return float(a), float(b), float(c)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(low * (high / low) ** rng.random())
