"""The embedded simulators: patterns of random crystals, in random orientations, as 8-bit pictures.

Everything about a sample follows from (parameters, seed, split, index). Only NumPy is used, in ways that do not depend
on the number of threads; another processor or NumPy version may differ in the last bits.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sciml_hpc.benchmarks.base import SampleField
from sciml_hpc.benchmarks.dms.crystal import A_TETRAGONAL_A, Cell
from sciml_hpc.benchmarks.dms.kossel import Detector, expected, orientation
from sciml_hpc.benchmarks.dms.settings import (
    MONOCLINIC,
    PERIOD_DEG,
    TETRAGONAL,
    AzimuthGenerator,
    PatternGenerator,
    StructureGenerator,
)

WHITE = 4095
"""Photons per real pixel that a picture shows as 255; 12 bits, of the order of the brightest crossings of lines."""
_SPLITS = ("train", "validation", "test")


def azimuth_fields(generator: PatternGenerator) -> tuple[SampleField, ...]:
    shape = (generator.rows, generator.columns)
    return (
        SampleField("image", shape, "uint8", "1", "grey: 255 ln(1 + photons) / ln 4096, row 0 the highest 2θ"),
        SampleField("azimuth", (), "float32", "degrees", "azimuth Ψ of the crystal about its c axis, 0 to 90"),
    )


def structure_fields(generator: PatternGenerator) -> tuple[SampleField, ...]:
    shape = (3, generator.columns, generator.rows)
    return (
        SampleField("image", shape, "float32", "1", "colours of a picture, 0 to 255; axes: colour, column, row"),
        SampleField("phase", (), "int64", "1", "1 tetragonal, 0 monoclinic"),
    )


def grey(photons: np.ndarray) -> np.ndarray:
    """Photons per real pixel, any shape, as uint8: logarithmic from 0 to `WHITE`, clipped there."""
    return np.round(255 / np.log1p(WHITE) * np.log1p(np.minimum(photons, WHITE))).astype(np.uint8)


class _Patterns:
    """What both data sets share: detector, crystals and exposure."""

    def __init__(self, generator: PatternGenerator, samples: Mapping[str, int], seed: int) -> None:
        self.generator = generator
        self.samples = dict(samples)
        self.seed = seed
        self.detector = Detector(generator.rows, generator.columns)

    def _rng(self, split: str, index: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, _SPLITS.index(split), index])

    def _picture(self, rng: np.random.Generator, azimuth_deg: float, distortion: float) -> np.ndarray:
        """One exposure of a new crystal: (rows, columns) uint8."""
        g = self.generator
        a_A = A_TETRAGONAL_A * (1 + g.spread * rng.standard_normal())
        cell = Cell(a_A, a_A * rng.uniform(*g.c_over_a), distortion)
        along, across = 1e-3 * g.tilt_mrad * rng.standard_normal(2)
        rotation = orientation(azimuth_deg, (along, across), self.detector.two_theta_deg)
        merged = Detector.rows * Detector.columns / (g.rows * g.columns)  # real pixels in one of ours
        exposure = merged * np.exp(rng.uniform(*np.log(g.counts)))
        photons = rng.poisson(exposure * expected(self.detector, cell.vectors(), rotation).astype(np.float64))
        return grey(photons / merged)


class AzimuthPatterns(_Patterns):
    """A `Source` of tetragonal crystals with their azimuths."""

    def __init__(self, generator: AzimuthGenerator, samples: Mapping[str, int], seed: int) -> None:
        super().__init__(generator, samples, seed)
        self.fields = azimuth_fields(generator)

    def read(self, split: str, first: int, count: int) -> dict[str, np.ndarray]:
        """See `Source`."""
        images = np.empty((count, *self.fields[0].shape), dtype=np.uint8)
        azimuths = np.empty(count, dtype=np.float32)
        for i in range(count):
            rng = self._rng(split, first + i)
            azimuths[i] = rng.uniform(0, PERIOD_DEG)
            images[i] = self._picture(rng, float(azimuths[i]), 0.0)
        return {"image": images, "azimuth": azimuths}


class StructurePatterns(_Patterns):
    """A `Source` of monoclinic (even indices) and tetragonal (odd indices) crystals."""

    def __init__(self, generator: StructureGenerator, samples: Mapping[str, int], seed: int) -> None:
        super().__init__(generator, samples, seed)
        self.fields = structure_fields(generator)

    def read(self, split: str, first: int, count: int) -> dict[str, np.ndarray]:
        """See `Source`; the three colours are alike."""
        images = np.empty((count, *self.fields[0].shape), dtype=np.float32)
        phases = np.where(np.arange(first, first + count) % 2, TETRAGONAL, MONOCLINIC).astype(np.int64)
        for i, phase in enumerate(phases):
            rng = self._rng(split, first + i)
            azimuth_deg = rng.uniform(*self.generator.azimuth_deg)
            distortion = rng.uniform(*self.generator.distortion) if phase == MONOCLINIC else 0.0
            images[i] = self._picture(rng, azimuth_deg, distortion).T
        return {"image": images, "phase": phases}
