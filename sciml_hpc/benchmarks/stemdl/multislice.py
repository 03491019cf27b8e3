"""Multislice: how a crystal scatters fast electrons, dynamically, in the paraxial approximation.

J. M. Cowley, A. F. Moodie, Acta Cryst. 10, 609 (1957); E. J. Kirkland, Advanced Computing in Electron Microscopy,
2nd ed. (Springer 2010), chapter 6. The crystal is cut into thin slices; each multiplies the wave by exp(iσV), V being
its projected potential, and between slices the wave travels freely. Lengths in Å, reciprocal lengths in Å⁻¹
(wave exp 2πi k·r), potentials in V Å; axes are (…, x, y) with coordinates along a possibly oblique 2-D lattice.

Elastic scattering by the mean, thermally smeared potential; no absorption, no phonons.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from sciml_hpc.benchmarks.stemdl.crystals import Crystal
from sciml_hpc.benchmarks.stemdl.scattering import (
    POTENTIAL_V_A2,
    interaction_rad_V_A,
    scattering_factor,
    wavelength_A,
)

_BAND = 2 / 3
"""Largest spatial frequency kept, in units of the grid's own: products of two such do not alias (Kirkland 6.8)."""


@dataclass(frozen=True, eq=False)
class Projection:
    """A crystal seen along a lattice direction: a 2-D lattice that repeats every `period_A` along the beam.

    Slices are layers parallel to a lattice plane, which an oblique cell inclines to the beam. In such coordinates the
    paraxial equation has a further term of relative size λ|k| tan(inclination), below 2 % along an edge; it is dropped.
    """

    basis: np.ndarray
    """(2, 2): rows are the lattice vectors in Å, Cartesian, seen along the beam."""
    period_A: float
    positions: np.ndarray
    """(n, 3): fractional coordinates along the two vectors and along the beam, in [0, 1)."""
    numbers: np.ndarray
    """(n,): atomic numbers."""
    frame: np.ndarray
    """(3, 3): rows are the Cartesian axes x, y and the beam's direction, in the crystal's Cartesian axes."""

    @property
    def reciprocal(self) -> np.ndarray:
        """(2, 2): rows are the reciprocal vectors in Å⁻¹."""
        return np.linalg.inv(self.basis).T


def project(crystal: Crystal, zone: Sequence[int]) -> Projection:
    """`crystal` along the lattice direction [uvw] = `zone` (coprime, −3 to 3)."""
    cell = _cell_along(tuple(zone)).copy()
    lattice = cell @ crystal.lattice
    beam = lattice[2] / np.linalg.norm(lattice[2])
    for _ in range(10):  # Gauss reduction of the lattice seen along the beam
        flat = lattice[:2] - np.outer(lattice[:2] @ beam, beam)
        short, long = np.argsort(np.linalg.norm(flat, axis=1))
        turns = round(flat[long] @ flat[short] / (flat[short] @ flat[short]))
        if turns == 0:
            break
        cell[long] -= turns * cell[short]
        lattice = cell @ crystal.lattice
    for i in (0, 1):  # the flattest lattice plane
        cell[i] -= round(lattice[i] @ beam / np.linalg.norm(lattice[2])) * cell[2]
    lattice = cell @ crystal.lattice
    x = lattice[0] - (lattice[0] @ beam) * beam
    x /= np.linalg.norm(x)
    frame = np.stack([x, np.cross(beam, x), beam])
    positions = crystal.positions @ np.linalg.inv(cell) % 1
    basis = (lattice @ frame.T)[:2, :2]
    return Projection(basis, float(np.linalg.norm(lattice[2])), positions, crystal.numbers, frame)


def foil(
    crystal: Crystal, zone: Sequence[int], edge_A: float, thickness_A: float, rng: np.random.Generator
) -> Projection:
    """A square box cut from `crystal` at a random place and angle, the beam along [uvw] = `zone`.

    Surfaces are normal to the beam. The crystal ends at the box, so only what happens away from its edges is physical.
    """
    beam = np.asarray(zone) @ crystal.lattice
    beam /= np.linalg.norm(beam)
    x = np.cross(beam, np.eye(3)[np.abs(beam).argmin()])
    x /= np.linalg.norm(x)
    angle = rng.uniform(0, 2 * np.pi)
    x = np.cos(angle) * x + np.sin(angle) * np.cross(beam, x)
    frame = np.stack([x, np.cross(beam, x), beam])
    lattice = crystal.lattice @ frame.T
    box = np.array([edge_A, edge_A, thickness_A])
    corners = np.array(list(np.ndindex(2, 2, 2))) * box @ np.linalg.inv(lattice)
    low, high = np.floor(corners.min(0)).astype(int) - 1, np.ceil(corners.max(0)).astype(int) + 1
    cells = np.stack(np.meshgrid(*map(np.arange, low, high + 1), indexing="ij"), axis=-1).reshape(-1, 1, 3)
    places = (crystal.positions + rng.random(3) + cells) @ lattice / box
    inside = ((places >= 0) & (places < 1)).all(-1)
    numbers = np.broadcast_to(crystal.numbers, inside.shape)[inside]
    return Projection(np.diag(box[:2]), thickness_A, places[inside], numbers, frame)


@cache
def _cell_along(zone: tuple[int, ...]) -> np.ndarray:
    """A cell of the same lattice whose third edge is `zone`: (3, 3) integers of determinant 1, rows the new edges."""
    third = np.array(zone)
    near = (np.array(v) - 2 for v in np.ndindex(5, 5, 5))
    near_first = sorted(near, key=lambda v: (np.abs(v).sum(), *(-v)))
    for first in near_first:
        for second in near_first:
            if np.cross(first, second) @ third == 1:
                return np.stack([first, second, third])
    raise ValueError(f"no cell found along [uvw] = {list(zone)}")


def frequencies(reciprocal: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Reciprocal lattice points h b₁ + k b₂ of an FFT grid: (*shape, 2) float64 in Å⁻¹, in FFT order."""
    h, k = (np.fft.fftfreq(n, 1 / n) for n in shape)
    return h[:, None, None] * reciprocal[0] + k[None, :, None] * reciprocal[1]


def grid_shape(basis: np.ndarray, k_max: float) -> tuple[int, int]:
    """Grid points along the two vectors so that the band limit holds every |k| ≤ `k_max` (Å⁻¹)."""
    return tuple(_fast_length(2 * k_max / _BAND * np.linalg.norm(v)) for v in basis)  # type: ignore[return-value]


def _fast_length(least: float) -> int:
    """The least even length ≥ `least` with no prime factor above 5."""
    n = 2 * math.ceil(least / 2)
    while True:
        rest = n
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
        n += 2


def band(basis: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The frequencies that are kept, a disc about 0: `shape`, bool."""
    grid_limit = min(n / 2 / np.linalg.norm(v) for n, v in zip(shape, basis, strict=True))
    return np.linalg.norm(frequencies(np.linalg.inv(basis).T, shape), axis=-1) < _BAND * grid_limit


def slice_potentials(
    projection: Projection, shape: tuple[int, int], slice_A: float, b_iso_A2: float
) -> tuple[np.ndarray, float]:
    """Fourier coefficients of the slices of one period and the slices' thickness in Å.

    Coefficients (slices, *shape) complex128 in V Å, in FFT order, such that V(r) = Σ V_g exp(2πi g·r). `b_iso_A2` is
    the isotropic displacement factor B = 8π²⟨u²⟩ of every atom.
    """
    count = max(1, round(projection.period_A / slice_A))
    q = np.linalg.norm(frequencies(projection.reciprocal, shape), axis=-1)
    area_A2 = abs(np.linalg.det(projection.basis))
    which = np.minimum((projection.positions[:, 2] * count).astype(int), count - 1)
    h, k = (np.fft.fftfreq(n, 1 / n) for n in shape)
    x = np.exp(-2j * np.pi * np.outer(h, projection.positions[:, 0]))
    y = np.exp(-2j * np.pi * np.outer(projection.positions[:, 1], k))
    potentials = np.zeros((count, *shape), dtype=np.complex128)
    for number in np.unique(projection.numbers):
        atom = POTENTIAL_V_A2 / area_A2 * scattering_factor(int(number), q, b_iso_A2)
        for i in range(count):
            atoms = (which == i) & (projection.numbers == number)
            if atoms.any():
                potentials[i] += atom * (x[:, atoms] @ y[atoms])
    return potentials, projection.period_A / count


def transmission(potentials: np.ndarray, keep: np.ndarray, energy_keV: float) -> torch.Tensor:
    """exp(iσV) of every slice, limited to the band `keep`: complex64 of the shape of `potentials`."""
    coefficients = torch.from_numpy((potentials * keep * keep.size).astype(np.complex64))
    volts = torch.fft.ifft2(coefficients).real
    phase = torch.polar(torch.ones_like(volts), interaction_rad_V_A(energy_keV) * volts)
    return torch.fft.ifft2(torch.fft.fft2(phase) * torch.from_numpy(keep))


def propagator(k: np.ndarray, keep: np.ndarray, slice_A: float, energy_keV: float) -> torch.Tensor:
    """exp(−iπλΔz k²) within the band: complex64; `k` is (…, 2) in Å⁻¹, `keep` broadcasts to its leading axes."""
    angle = -math.pi * wavelength_A(energy_keV) * slice_A * np.square(k).sum(-1)
    return torch.from_numpy((np.exp(1j * angle) * keep).astype(np.complex64))


def transmit(
    wave: torch.Tensor, slices: torch.Tensor, free: torch.Tensor, counts: Sequence[int]
) -> Iterator[torch.Tensor]:
    """The Fourier transform of the wave behind each of the increasing `counts` of slices.

    `wave` (…, x, y) is complex64 in real space, `slices` (n, x, y) from `transmission` repeat for ever, `free` from
    `propagator` is that of one slice.
    """
    spectrum = torch.fft.fft2(wave)
    done = 0
    for count in counts:
        while done < count:
            spectrum = torch.fft.fft2(torch.fft.ifft2(spectrum).mul_(slices[done % len(slices)])).mul_(free)
            done += 1
        yield spectrum
