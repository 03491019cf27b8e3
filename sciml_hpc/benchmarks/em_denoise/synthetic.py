"""Simulated micrographs of graphene, from the atoms to the counted electrons.

A sheet with strain, ripples, vacancies, sometimes a hole and foreign atoms is a phase object for fast electrons; the
objective lens transfers its wave with defocus, spherical aberration and astigmatism, damped by the spread of focus; the
squared modulus is the image (E. J. Kirkland, Advanced Computing in Electron Microscopy, 2nd edition,
2010, sections 3.1, 3.2 and 5.1), stretched from black to white. Noise follows the recipe of SciML-Bench's data (its
em_graphene_sim page; there the images came from molecular dynamics and multislice): the finished image is scaled by the
profile of the beam, electrons are counted, and some pixels are dead.

What it is not: a single layer has a contrast of a few per cent, so that stretching it before the electrons are counted,
as the original does, stands for a dose some hundred times as high. No inelastic scattering, no transfer function of
the detector, no charging or drift; and one layer scatters no electron twice.

A sample follows from (parameters, seed, split, index). Only NumPy is used, whose FFT and random streams do not depend
on the number of threads; another processor or NumPy version may differ in the last bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import pi

import numpy as np

from sciml_hpc.benchmarks.base import SampleField
from sciml_hpc.benchmarks.em_denoise import Generator
from sciml_hpc.benchmarks.stemdl.scattering import FACTORS, POTENTIAL_V_A2, interaction_rad_V_A, wavelength_A

LATTICE_A = 2.46
"""Lattice constant of graphene; bonds are shorter by √3 (A. H. Castro Neto et al., Rev. Mod. Phys. 81, 109 (2009))."""
CARBON, NITROGEN, SILICON = 6, 7, 14
SCATTERING: Mapping[int, tuple[tuple[float, ...], tuple[float, ...]]] = {
    CARBON: ((0.0893, 0.2563, 0.7570, 1.0487, 0.3575), (0.2465, 1.7100, 6.4094, 18.6113, 50.2523)),
    NITROGEN: ((0.1022, 0.3219, 0.7982, 0.8197, 0.1715), (0.2451, 1.7481, 6.1925, 17.3894, 48.1431)),
    SILICON: FACTORS[SILICON],
}
"""Scattering factors f(s) = Σ aᵢ exp(−bᵢ s²): a in Å, b in Å², from the same table as `FACTORS` (Peng et al. 1996)."""
B_ISO_A2 = 8 * pi**2 * 0.07**2
"""Debye–Waller factor of vibrations of 0.07 Å within the sheet, a round value for room temperature."""

DEFOCUS_A, CS_A, ASTIGMATISM_A, FOCAL_SPREAD_A = (20.0, 120.0), (-2e5, 2e5), (0.0, 20.0), (15.0, 40.0)
"""Ranges of a corrected microscope: underfocus, spherical aberration (±20 µm), twofold astigmatism, spread (1 σ)."""
DEAD, HOT = 1e-3, 5e-4
"""Shares of pixels that show nothing, and as much as the brightest."""
SPREAD, REACH = 0.8, 4
"""Atoms go to the grid as Gaussians (1 σ, and how far they are followed, in pixels), whose transform is divided out
again: right to 0.2 % up to a quarter of the sampling rate, and the lens passes nothing beyond."""
PAD = 32
"""Pixels that are simulated beyond each edge of the image, since the FFT joins opposite edges."""
_SPLITS = ("train", "validation", "test")


def sample_fields(size: int) -> tuple[SampleField, ...]:
    return (
        SampleField("noisy", (size, size), "float32", "1", "counted electrons over those of a white pixel in mid-beam"),
        SampleField(
            "clean", (size, size), "float32", "1", "intensity without noise, stretched from 0 (black) to 1 (white)"
        ),
    )


class Micrographs:
    """A `Source` of simulated pairs."""

    def __init__(self, generator: Generator, samples: Mapping[str, int], seed: int) -> None:
        self.generator, self.samples, self.seed = generator, dict(samples), seed
        self.fields = sample_fields(generator.size)

    def read(self, split: str, first: int, count: int) -> dict[str, np.ndarray]:
        """See `Source`."""
        batch = {f.name: np.empty((count, *f.shape), np.float32) for f in self.fields}
        for i in range(count):
            rng = np.random.default_rng([self.seed, _SPLITS.index(split), first + i])
            batch["clean"][i] = clean = self._clean(rng)
            batch["noisy"][i] = recorded(clean, rng, self.generator.dose)
        return batch

    def _clean(self, rng: np.random.Generator) -> np.ndarray:
        g = self.generator
        pixels = g.size + 2 * PAD
        pixel_A = rng.uniform(*g.pixel_A)
        positions, numbers = _sheet(rng, pixels * pixel_A)
        phase = phase_shift(positions, numbers, pixels, pixel_A, g.energy_keV)
        lens = Lens.drawn(rng, g.energy_keV)
        intensity = lens.image(phase, pixel_A)[PAD:-PAD, PAD:-PAD]
        darkest, brightest = intensity.min(), intensity.max()
        return (intensity - darkest) / (brightest - darkest)


def _sheet(rng: np.random.Generator, edge_A: float) -> tuple[np.ndarray, np.ndarray]:
    """Atoms of a sheet over a square: positions in Å from its corner, (n, 2), and atomic numbers, (n,)."""
    angle = rng.uniform(0, pi / 3)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    strain = np.eye(2) + rng.normal(0, 0.01, (2, 2))
    positions = lattice(edge_A * 1.1) @ turn.T @ strain.T + rng.uniform(-LATTICE_A, LATTICE_A, 2)
    for _ in range(4):  # ripples of the sheet, seen from above
        wave, shift = rng.normal(0, 2 * pi / 25, 2), rng.normal(0, 0.12, 2)
        positions += np.sin(positions @ wave + rng.uniform(0, 2 * pi))[:, np.newaxis] * shift

    missing = np.zeros(len(positions), bool)
    inside = np.flatnonzero((np.abs(positions) < edge_A / 2).all(1))
    for centre in positions[rng.choice(inside, rng.poisson(0.006 * len(inside)))]:
        offset = positions - centre
        distance = np.hypot(*offset.T)
        missing |= distance < (0.1 if rng.random() < 0.5 else 1.6)  # one atom, or with its three neighbours
        inwards = 0.25 * np.exp(-distance / 1.8) / (distance + 0.5)
        positions = positions - inwards[:, np.newaxis] * offset
    if rng.random() < 0.35:
        offset = positions - rng.uniform(-edge_A / 2, edge_A / 2, 2)
        rim = rng.uniform(3, 9) * (1 + 0.2 * np.sin(3 * np.arctan2(*offset.T) + rng.uniform(0, 2 * pi)))
        missing |= np.hypot(*offset.T) < rim

    numbers = np.full(len(positions), CARBON)
    foreign = rng.choice(inside, rng.poisson(1.2))
    numbers[foreign] = rng.choice([NITROGEN, SILICON], len(foreign))
    positions = positions + edge_A / 2
    kept = ~missing & ((positions >= 0) & (positions < edge_A)).all(1)
    return positions[kept], numbers[kept]


def lattice(extent_A: float) -> np.ndarray:
    """Sites of undistorted graphene around the origin, (n, 2) in Å, that fill a square of this edge however turned."""
    reach = int(extent_A / LATTICE_A) + 3
    i, j = (x.ravel() for x in np.meshgrid(np.arange(-reach, reach + 1), np.arange(-reach, reach + 1)))
    cells = LATTICE_A * np.stack([i + 0.5 * j, np.sqrt(0.75) * j], 1)
    sites = np.concatenate([cells, cells + np.array([0, LATTICE_A / np.sqrt(3)])])
    return sites[np.hypot(*sites.T) < extent_A * np.sqrt(0.5) + LATTICE_A]


@lru_cache(maxsize=4)
def _frequencies(pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """Squared spatial frequency (1 / pixel²) and its direction, (pixels, pixels) float32."""
    f = np.fft.fftfreq(pixels)
    return (f[:, np.newaxis] ** 2 + f**2).astype(np.float32), np.arctan2(f[:, np.newaxis], f).astype(np.float32)


def phase_shift(
    positions: np.ndarray, numbers: np.ndarray, pixels: int, pixel_A: float, energy_keV: float
) -> np.ndarray:
    """Phase in rad that atoms at `positions` (n, 2; Å, row and column) give to the wave, (pixels, pixels) float32.

    σ times the projected potential, periodic at the edges; vibrations widen it.
    """
    half = _frequencies(pixels)[0][:, : pixels // 2 + 1]
    spectrum = np.zeros(half.shape, np.complex64)
    for number in np.unique(numbers):
        density = _splat(positions[numbers == number] / pixel_A, pixels)
        s2 = half / np.float32(4 * pixel_A**2)
        factor = sum(
            np.float32(a) * np.exp(-np.float32(b + B_ISO_A2) * s2) for a, b in zip(*SCATTERING[number], strict=True)
        )
        spectrum += np.fft.rfft2(density) * factor
    volts_A = np.float32(POTENTIAL_V_A2 / pixel_A**2)
    sharpened = spectrum * np.exp(np.float32(2 * pi**2 * SPREAD**2) * half)
    return np.fft.irfft2(sharpened, (pixels, pixels)) * volts_A * np.float32(interaction_rad_V_A(energy_keV))


def _splat(places: np.ndarray, pixels: int) -> np.ndarray:
    """Atoms per pixel, float32: each atom (row, column in pixels, centres at whole numbers) as a Gaussian."""
    nearest = np.rint(places).astype(np.int64)
    near = nearest[:, np.newaxis] + np.arange(-REACH, REACH + 1)[:, np.newaxis]  # (atoms, 9, row and column)
    weight = np.exp(-((near - places[:, np.newaxis]) ** 2) / (2 * SPREAD**2)) / np.sqrt(2 * pi * SPREAD**2)
    near %= pixels
    index = near[:, :, np.newaxis, 0] * pixels + near[:, np.newaxis, :, 1]
    weights = weight[:, :, np.newaxis, 0] * weight[:, np.newaxis, :, 1]
    sums = np.bincount(index.ravel(), weights.ravel(), pixels**2)
    return sums.reshape(pixels, pixels).astype(np.float32)


@dataclass(frozen=True)
class Lens:
    """The objective lens; lengths in Å. Underfocus is positive."""

    energy_keV: float
    defocus: float
    spherical: float = 0.0
    astigmatism: float = 0.0
    azimuth: float = 0.0
    focal_spread: float = 0.0

    @classmethod
    def drawn(cls, rng: np.random.Generator, energy_keV: float) -> Lens:
        """A lens from the ranges above."""
        defocus, spherical, astigmatism = (rng.uniform(*r) for r in (DEFOCUS_A, CS_A, ASTIGMATISM_A))
        return cls(energy_keV, defocus, spherical, astigmatism, rng.uniform(0, pi), rng.uniform(*FOCAL_SPREAD_A))

    def transfer(self, square: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """Transfer function of the wave for squared spatial frequencies q² (Å⁻²) and their directions (rad).

        exp(−i χ) with χ = π λ q² (½ C_s λ² q² − Δf − A cos 2(φ − φ_A)) (Kirkland, chapter 2), times the
        damping exp(−½ (π λ Δ q²)²) by a spread of focus Δ (quasi-coherent, section 3.2).
        """
        wave = np.float32(wavelength_A(self.energy_keV))
        focus = np.float32(self.defocus) + np.float32(self.astigmatism) * np.cos(
            2 * (direction - np.float32(self.azimuth))
        )
        chi = np.float32(pi) * wave * square * (np.float32(0.5 * self.spherical) * wave**2 * square - focus)
        damping = np.exp(np.float32(-0.5) * (np.float32(pi * self.focal_spread) * wave * square) ** 2)
        return damping * _unit(-chi)

    def image(self, phase: np.ndarray, pixel_A: float) -> np.ndarray:
        """Intensity over that without a specimen, for a wave of that phase; float32, periodic."""
        square, direction = _frequencies(len(phase))
        wave = np.fft.fft2(_unit(phase)) * self.transfer(square / np.float32(pixel_A**2), direction)
        wave = np.fft.ifft2(wave)
        return wave.real**2 + wave.imag**2


def _unit(phase: np.ndarray) -> np.ndarray:
    """exp(i · phase), faster than by the exponential of complex numbers."""
    wave = np.empty(phase.shape, np.complex64)
    wave.real, wave.imag = np.cos(phase), np.sin(phase)
    return wave


def recorded(clean: np.ndarray, rng: np.random.Generator, dose: tuple[float, float]) -> np.ndarray:
    """Electrons counted over those expected in a white pixel at the beam's centre, float32; with dead and hot pixels.

    The beam is a Gaussian with its centre within 0.6 and a width (1 σ) of 0.5 to 1.5 half edges.
    """
    electrons = np.exp(rng.uniform(*np.log(dose)))
    centre, width = rng.uniform(-0.6, 0.6, 2), rng.uniform(0.5, 1.5)
    at = np.linspace(-1, 1, len(clean))
    rows, columns = (np.exp(-((at - c) ** 2) / (2 * width**2)) for c in centre)
    counts = rng.poisson(electrons * rows[:, np.newaxis] * columns * clean)
    faulty = rng.random(clean.shape, np.float32)
    counts[faulty < DEAD] = 0
    counts[faulty > 1 - HOT] = counts.max()
    return (counts / electrons).astype(np.float32)
