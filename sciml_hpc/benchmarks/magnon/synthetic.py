"""The embedded simulator: neutron counts over (h, k, 0) in bands of energy, for drawn exchange constants.

What is simulated: spin waves at 5 K (`spinwave`), the instrument's Gaussian resolution in energy, the regions where no
detector stands, a flat background, and Poisson's law. What is not: resolution in Q, two-magnon scattering, phonons.

Why bands. The published maps are integrated over energy, the limits unstated. Over all energies the map is blind to J
at low temperature: weight goes as (A − B)/ω, in which J appears only through J'/J and the anisotropy. A band sees J
through the radius of the cone it cuts. One band alone is empty for some J; three between 2 and 8 meV never all are.

Everything about sample i of a split follows from (parameters, seed, split, i). The last bits of an expected count may
depend on the processor through numpy's and torch's functions, and so, very rarely, a count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

from sciml_hpc.benchmarks.magnon import UNSEEN, BANDS_meV, J2_RANGE_meV, J_RANGE_meV, sample_fields, spinwave

if TYPE_CHECKING:
    from sciml_hpc.benchmarks.magnon import Generator

GRID = 128
"""Points along h and k at which intensity is computed, whatever the size of the histogram."""
TEMPERATURE_K = 5.0
"""Far below the Néel temperature of 38 K."""
INCIDENT_meV = 25.0
"""Energy of the incident neutrons, where MARI has its peak flux."""
RESOLUTION_meV = 0.25
"""Standard deviation of the resolution in energy: a full width of 2.4 % of `INCIDENT_meV` (MARI: 1.5 to 8 %)."""
ANGLES_DEG = (3.0, 135.0)
"""Scattering angles 2θ that MARI's detectors cover (ISIS, technical page of MARI, as are energy and resolution)."""
GAPS_DEG = ((12.0, 13.0), (24.0, 25.5))
"""Scattering angles 2θ without detectors, between panels; this simulator's own."""
DEAD_SECTORS_DEG = ((20.0, 23.0), (58.0, 60.0))
"""Directions in the (h, k) plane, from h towards k, that the rotation of the crystal left out; this simulator's own."""
BACKGROUND = 0.02
"""Counts per meV of band that are no spin waves, over those of unit weight."""
_SPLITS = ("train", "validation", "test")


class Maps:
    """The samples of a simulated experiment (a `base.Source`)."""

    def __init__(self, generator: Generator, samples: Mapping[str, int], seed: int) -> None:
        self.generator, self.samples, self.seed = generator, dict(samples), seed
        self.fields = sample_fields(generator.size)
        half = (np.arange(GRID // 2) + 0.5) / GRID
        self._sums = spinwave.lattice_sums(half[None, :], half[:, None])
        self._form2 = np.square(spinwave.form_factor(_momentum()))
        self.seen = seen(generator.size)
        """(bands, size, size) bool: where there are detectors."""

    def read(self, split: str, first: int, count: int) -> dict[str, np.ndarray]:
        """Samples `first` … `first + count - 1`, as `base.Source` says."""
        result = {f.name: np.empty((count, *f.shape), f.dtype) for f in self.fields}
        for i in range(count):
            rng = np.random.default_rng([self.seed, _SPLITS.index(split), first + i])
            # float32 first, so that the stored constants are those that made the map
            exchange = np.float32([rng.uniform(*J_RANGE_meV), rng.uniform(*J2_RANGE_meV)])
            spread = np.log(self.generator.exposure_spread)
            exposure = self.generator.counts * np.exp(rng.uniform(-spread, spread))
            expected = self.expected((float(exchange[0]), float(exchange[1])))[self.seen] * exposure
            result["counts"][i] = UNSEEN
            result["counts"][i][self.seen] = np.minimum(rng.poisson(expected), np.iinfo(np.int16).max)
            result["exchange"][i] = exchange
        return result

    def expected(self, exchange_meV: tuple[float, float]) -> np.ndarray:
        """Expected counts at unit exposure, as if detectors were everywhere: (bands, size, size) float64."""
        omega, weight = spinwave.energy_and_weight(exchange_meV, self._sums)
        weight = weight * spinwave.creation_factor(omega, TEMPERATURE_K)
        edges = np.unique(BANDS_meV)
        beyond = (omega - edges[:, None, None]) / (np.sqrt(2) * RESOLUTION_meV)
        above = torch.erf(torch.from_numpy(beyond)).numpy() / 2  # -½ far below the edge, ½ far above
        size, step = self.generator.size, GRID // self.generator.size
        result = np.empty((len(BANDS_meV), size, size))
        for band, (low, high) in enumerate(BANDS_meV):
            inside = above[np.searchsorted(edges, low)] - above[np.searchsorted(edges, high)]
            quarter = weight * inside
            side = np.concatenate([quarter, quarter[:, ::-1]], axis=1)  # h and 1 − h are alike, as are k and 1 − k
            whole = np.concatenate([side, side[::-1]]) * self._form2 + BACKGROUND * (high - low)
            result[band] = whole.reshape(size, step, size, step).sum((1, 3))
        return result


def seen(size: int) -> np.ndarray:
    """Where there are detectors: (bands, size, size) bool, rows k and columns h.

    Judged at the middle of each band, for the same angle is another Q at another energy, and at the points of `GRID`; a
    pixel counts only if all of its points do.
    """
    centres = (np.arange(GRID) + 0.5) / GRID
    direction = np.degrees(np.arctan2(centres[:, None], centres[None, :]))
    rotated = ~np.any([(direction > low) & (direction < high) for low, high in DEAD_SECTORS_DEG], axis=0)
    result, step = [], GRID // size
    for low, high in BANDS_meV:
        angle = np.degrees(spinwave.scattering_angle(_momentum(), INCIDENT_meV, (low + high) / 2))
        gap = np.any([(angle > start) & (angle < stop) for start, stop in GAPS_DEG], axis=0)
        points = rotated & (angle > ANGLES_DEG[0]) & (angle < ANGLES_DEG[1]) & ~gap
        result.append(points.reshape(size, step, size, step).all((1, 3)))
    return np.stack(result)


def _momentum() -> np.ndarray:
    """|Q| in Å⁻¹ at the points of `GRID` over 0 ≤ h, k < 1; rows k, columns h."""
    centres = (np.arange(GRID) + 0.5) / GRID
    return 2 * np.pi / spinwave.LATTICE_A * np.hypot(centres[:, None], centres[None, :])
