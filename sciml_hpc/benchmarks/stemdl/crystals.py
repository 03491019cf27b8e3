"""Random crystals with exactly the symmetry of a given space group.

Two to four orbits of atoms, on general or special positions, in a cell of the group's crystal system; drawn again
until no two atoms are too close and no further symmetry has slipped in, so that the label is the truth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sciml_hpc.benchmarks.stemdl.scattering import FACTORS
from sciml_hpc.benchmarks.stemdl.symmetry import SpaceGroup, has_more_symmetry, space_group

VOLUME_PER_ATOM_A3 = (11.0, 20.0)
"""Range of most oxides, halides and intermetallic compounds; a choice."""
CLOSEST_A = 1.5
"""Least distance of two atoms: about that of the shortest metal–oxygen bonds; a choice."""
SYMMETRY_TOLERANCE_A = 0.1
"""Atoms so close to a higher symmetry would show the supergroup's pattern: such structures are drawn again."""
DISTINCT = 0.05
"""Least relative difference of cell edges, and of angles from 90°, that the system leaves free."""
_SAME_ATOM = 1e-6
_MOST_MOVES = 20
"""A point goes to its special position in a few moves or, rarely, for ever round in a circle."""
_ATTEMPTS = 10_000


@dataclass(frozen=True, eq=False)
class Crystal:
    """A structure in its conventional cell."""

    space_group: int
    lattice: np.ndarray
    """(3, 3) float64: rows a, b, c in Å."""
    positions: np.ndarray
    """(n, 3) float64, fractional."""
    numbers: np.ndarray
    """(n,) int64: atomic numbers."""


def random_crystal(number: int, rng: np.random.Generator, most_atoms: int = 96) -> Crystal:
    """A crystal of space group `number` with at most `most_atoms` atoms in the conventional cell.

    The limit grows by a tenth with every hundred structures refused: a few face-centred cubic groups (203, 209, 219,
    226, 228) show no more than a supergroup's symmetry with fewer atoms than some hundred.
    """
    group = space_group(number)
    elements = sorted(FACTORS)
    for attempt in range(_ATTEMPTS):
        points = [_point(group, rng) for _ in range(rng.integers(2, 5))]
        if sum(size for _, size in points) > most_atoms * 1.1 ** (attempt // 100):
            continue
        orbits = [_orbit(group, point, size) for point, size in points]
        positions = np.concatenate(orbits)
        chosen = rng.choice(elements, len(orbits), replace=False)
        numbers = np.repeat(chosen, [len(orbit) for orbit in orbits])
        lattice = _lattice(group.system, len(positions) * rng.uniform(*VOLUME_PER_ATOM_A3), rng)
        if _closest(lattice, positions) < CLOSEST_A:
            continue
        if not has_more_symmetry(group, lattice, positions, numbers, SYMMETRY_TOLERANCE_A):
            return Crystal(number, lattice, positions, numbers)
    raise RuntimeError(f"no crystal of space group {number} in {_ATTEMPTS} attempts")


def _near_images(group: SpaceGroup, point: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Squared distances of all images from `point`, and the way to the mean of those within `radius`."""
    gap = group.rotations @ point + group.translations - point
    gap -= np.round(gap)
    distance2 = np.square(gap).sum(1)
    return distance2, gap[distance2 <= radius**2].mean(0)


def _point(group: SpaceGroup, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """A random point, moved on to a special position if its images nearly coincide, and its number of images.

    How near is drawn too: 0 leaves a general position, larger radii (fractional) end on ever higher site symmetry.
    """
    point = rng.random(3)
    radius = rng.choice([0.0, 0.12, 0.2, 0.3, 0.42])
    for _ in range(_MOST_MOVES):
        distance2, shift = _near_images(group, point, radius)
        if np.abs(shift).max() < _SAME_ATOM**2:
            break
        point = (point + shift) % 1
    return point, len(distance2) // int((distance2 < _SAME_ATOM**2).sum())


def _orbit(group: SpaceGroup, point: np.ndarray, size: int) -> np.ndarray:
    """The `size` distinct images of `point` in the cell: (size, 3)."""
    images = (group.rotations @ point + group.translations) % 1
    if size < len(images):
        gap = images[:, None] - images
        gap -= np.round(gap)
        same = np.square(gap).sum(-1) < _SAME_ATOM**2
        images = images[same.argmax(1) == np.arange(len(images))]
    return images


def _lattice(system: str, volume_A3: float, rng: np.random.Generator) -> np.ndarray:
    """Rows a, b, c of a cell of that volume; edges within a factor of 1.8, free angles 75° to 105°."""
    edges = rng.uniform(0.75, 1.35, 3)
    while np.abs(np.log(edges / np.roll(edges, 1))).min() < DISTINCT:
        edges = rng.uniform(0.75, 1.35, 3)
    a, b, c = edges
    alpha, beta, gamma = 90 + rng.choice([-1, 1], 3) * rng.uniform(90 * DISTINCT, 15, 3)
    if system != "triclinic":
        alpha = gamma = 90.0
    if system not in ("triclinic", "monoclinic"):
        beta = 90.0
    if system in ("tetragonal", "hexagonal", "cubic"):
        b = a
    if system == "cubic":
        c = a
    if system == "hexagonal":
        gamma = 120.0
    cos_alpha, cos_beta, cos_gamma = np.cos(np.radians([alpha, beta, gamma]))
    sin_gamma = np.sqrt(1 - cos_gamma**2)
    y = (cos_alpha - cos_beta * cos_gamma) / sin_gamma
    lattice = np.array([
        [a, 0, 0],
        [b * cos_gamma, b * sin_gamma, 0],
        [c * cos_beta, c * y, c * np.sqrt(1 - cos_beta**2 - y**2)],
    ])  # fmt: skip
    return lattice * (volume_A3 / np.linalg.det(lattice)) ** (1 / 3)


def _closest(lattice: np.ndarray, positions: np.ndarray) -> float:
    """Least distance in Å of two atoms, or of an atom and its own images one cell away."""
    gap = positions[:, None] - positions
    gap -= np.round(gap)
    distance = np.linalg.norm(gap @ lattice, axis=-1)
    distance[np.diag_indices(len(positions))] = np.linalg.norm(lattice, axis=1).min()
    return float(distance.min())
