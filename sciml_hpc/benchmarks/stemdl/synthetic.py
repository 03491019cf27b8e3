"""The embedded simulators: convergent-beam diffraction of random crystals, whatever the number of samples.

Everything about a sample follows from (parameters, seed, split, index). Materials never recur, neither within a split
nor in another, so no evaluation sees a crystal of the training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from sciml_hpc.benchmarks.base import SampleField
from sciml_hpc.benchmarks.stemdl import multislice
from sciml_hpc.benchmarks.stemdl.crystals import Crystal, random_crystal
from sciml_hpc.benchmarks.stemdl.scattering import wavelength_A
from sciml_hpc.benchmarks.stemdl.settings import ClassificationGenerator, ReconstructionGenerator

_SPLITS = ("train", "validation", "test")
MOST_POINTS = 1 << 23
"""Grid points of the probes of a scan that are simulated at once: 64 MiB a copy."""
LOG_FLOOR, LOG_GAIN, LOG_TOP = 17.0, 10.0, 255.0
"""Scaling of the published samples: clip(10 (max(−17, ln I) + 17), 0, 255) (MLCommons Science, stemdl/ornl)."""


def rng_of(seed: int, split: str, index: int) -> np.random.Generator:
    """The random numbers of one unit of work."""
    return np.random.default_rng([seed, _SPLITS.index(split), index])


def scaled(intensity: np.ndarray, size: int) -> np.ndarray:
    """Published processing of raw patterns (…, D, D) to samples (…, size, size) float32.

    Logarithm and clipping first, then the mean over areas of (D / size)² pixels.
    """
    with np.errstate(divide="ignore"):
        log = np.log(intensity.astype(np.float32))
    log = np.clip((np.maximum(log, -LOG_FLOOR) + LOG_FLOOR) * LOG_GAIN, 0, LOG_TOP)
    step = intensity.shape[-1] // size
    return log.reshape(*log.shape[:-2], size, step, size, step).mean((-3, -1), dtype=np.float32)


def classification_fields(size: int) -> tuple[SampleField, ...]:
    return (
        SampleField("cbed", (3, size, size), "float32", "1", "three CBED patterns, 10 (ln(fraction of beam) + 17)"),
        SampleField("space_group", (), "int64", "1", "space group number, 1 to 230"),
    )


@dataclass(frozen=True, eq=False)
class Material:
    """What the raw published form says of a material, beside its patterns."""

    name: str
    crystal: Crystal
    zones: np.ndarray
    """(3, 3) int64."""
    spacings_A: np.ndarray
    """(3,): widest spacing of lattice planes in view."""
    semi_angles_rad: np.ndarray
    """(3,): of convergence."""
    vertical: np.ndarray
    """(variants, 3, 3): per sample and pattern, the lattice direction (fractional) along the image's second axis."""


class Patterns:
    """A `Source` of simulated classification samples, in runs of `variants` of the same material."""

    def __init__(self, generator: ClassificationGenerator, samples: Mapping[str, int], seed: int) -> None:
        self.generator = generator
        self.samples = dict(samples)
        self.seed = seed
        self.fields = classification_fields(generator.size)
        self._last: tuple[tuple[str, int], Material, np.ndarray] | None = None

    def read(self, split: str, first: int, count: int) -> dict[str, np.ndarray]:
        """See `Source`; materials cut by a chunk's edge are simulated again for the next chunk elsewhere."""
        raw, groups = self.raw(split, first, count)
        return {"cbed": scaled(raw, self.generator.size), "space_group": groups}

    def raw(self, split: str, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Detector images (count, 3, D, D) float32, fractions of the beam, and space groups (count,) int64."""
        g = self.generator
        images = np.empty((count, 3, g.detector, g.detector), dtype=np.float32)
        groups = np.empty(count, dtype=np.int64)
        for block in range(first // g.variants, -(-(first + count) // g.variants)):
            start = block * g.variants
            inside = slice(max(first - start, 0), min(first + count - start, g.variants))
            outside = slice(start + inside.start - first, start + inside.stop - first)
            material, patterns = self.material(split, block)
            images[outside] = patterns[inside]
            groups[outside] = material.crystal.space_group
        return images, groups

    def material(self, split: str, block: int) -> tuple[Material, np.ndarray]:
        """Material `block` of a split and its patterns: (variants, 3, D, D) float32."""
        if self._last is None or self._last[0] != (split, block):
            self._last = ((split, block), *self._simulate(split, block))
        return self._last[1:]

    def _simulate(self, split: str, block: int) -> tuple[Material, np.ndarray]:
        g = self.generator
        rng = rng_of(self.seed, split, block)
        crystal = random_crystal(g.space_groups[block % len(g.space_groups)], rng, g.most_atoms)
        zones = np.array(g.zones)
        if len(zones) > 3:
            zones = rng.permutation(zones)[:3]
        b_iso_A2 = rng.uniform(*g.b_iso_A2)
        images = np.empty((g.variants, 3, g.detector, g.detector), dtype=np.float32)
        spacings = np.empty(3)
        vertical = np.empty((g.variants, 3, 3))
        for i, zone in enumerate(zones):
            projection = multislice.project(crystal, zone.tolist())
            discs = _discs(projection, b_iso_A2, rng, g)
            spacings[i] = discs.spacing_A
            for variant, intensity in enumerate(discs.intensities):
                turn = np.radians(rng.uniform(-g.rotation_deg, g.rotation_deg))
                expected = discs.render(intensity, turn, g.detector, g.k_max)
                along = np.array([np.sin(turn), np.cos(turn), 0]) @ projection.frame
                vertical[variant, i] = along @ np.linalg.inv(crystal.lattice)
                electrons = np.exp(rng.uniform(*np.log(g.electrons)))
                images[variant, i] = rng.poisson(expected * electrons) / electrons
        semi_angles = g.convergence * wavelength_A(g.energy_keV) / spacings
        return Material(f"{split}-{block}", crystal, zones, spacings, semi_angles, vertical), images


@dataclass(frozen=True, eq=False)
class _Discs:
    """Diffraction discs of one projection: intensity for every reflection and incident direction."""

    projection: multislice.Projection
    radius: float
    """Radius of a disc in Å⁻¹."""
    spacing_A: float
    intensities: list[np.ndarray]
    """Per variant (m₁, m₂, n, n) float32: reflections in FFT order, n² directions across the disc's square."""

    def render(self, intensity: np.ndarray, turn_rad: float, pixels: int, k_max: float) -> np.ndarray:
        """The expected fraction of the beam in every pixel of a detector turned by `turn_rad`: (pixels, pixels)."""
        pitch = 2 * k_max / pixels
        along = (np.arange(pixels) - (pixels - 1) / 2) * pitch
        cos, sin = math.cos(turn_rad), math.sin(turn_rad)
        x, y = along[:, None], along[None, :]
        k = np.stack([cos * x + sin * y, cos * y - sin * x], axis=-1).reshape(-1, 2)
        # Discs do not meet, so the nearest reflection is the only one a pixel can belong to.
        order = np.round(k @ self.projection.basis.T)
        offset = k - order @ self.projection.reciprocal
        distance = np.sqrt(np.square(offset).sum(1))
        covered = np.clip((self.radius - distance) / pitch + 0.5, 0, 1)
        hit = np.flatnonzero((covered > 0) & (2 * np.abs(order) < intensity.shape[:2]).all(1))
        n = intensity.shape[-1]
        at = np.clip((offset[hit] / self.radius + 1) * (n - 1) / 2, 0, n - 1)
        corner = np.minimum(at.astype(int), n - 2)
        (fx, fy), (ix, iy), (ih, ik) = (
            (at - corner).T,
            corner.T,
            order[hit].astype(int).T % np.array([intensity.shape[:2]]).T,
        )
        at_corner = ((ih * intensity.shape[1] + ik) * n + ix) * n + iy
        flat = intensity.ravel()
        value = (1 - fx) * ((1 - fy) * flat[at_corner] + fy * flat[at_corner + 1]) + fx * (
            (1 - fy) * flat[at_corner + n] + fy * flat[at_corner + n + 1]
        )
        pattern = np.zeros(pixels * pixels)
        pattern[hit] = value * covered[hit] * pitch**2 / (math.pi * self.radius**2)
        return pattern.reshape(pixels, pixels)


def _discs(
    projection: multislice.Projection, b_iso_A2: float, rng: np.random.Generator, g: ClassificationGenerator
) -> _Discs:
    """Multislice of a plane wave in every direction of the disc, at the thicknesses of all variants at once."""
    basis = projection.basis
    shape = multislice.grid_shape(basis, g.k_max)
    keep = multislice.band(basis, shape)
    potentials, slice_A = multislice.slice_potentials(projection, shape, g.slice_A, b_iso_A2)
    slices = multislice.transmission(potentials, keep, g.energy_keV)
    shortest = min(np.linalg.norm(n @ projection.reciprocal) for n in np.array([[1, 0], [0, 1], [1, 1], [1, -1]]))
    radius = g.convergence * shortest
    across = np.linspace(-radius, radius, g.disc_points)
    tilt = rng.uniform(0, g.tilt_mrad) * 1e-3 / wavelength_A(g.energy_keV)
    azimuth = rng.uniform(0, 2 * np.pi)
    incident = np.stack(np.meshgrid(across, across, indexing="ij"), axis=-1).reshape(-1, 2)
    incident = incident + tilt * np.array([np.cos(azimuth), np.sin(azimuth)])
    k = multislice.frequencies(projection.reciprocal, shape) + incident[:, None, None]
    free = multislice.propagator(k, keep, slice_A, g.energy_keV)
    thickness = rng.uniform(*g.thickness_A, g.variants)
    counts = np.maximum(np.round(thickness / slice_A).astype(int), 1)
    behind = multislice.transmit(torch.ones((), dtype=torch.complex64).expand(free.shape), slices, free, sorted(counts))
    intensities: list[np.ndarray] = [np.empty(0)] * g.variants
    for variant, spectrum in zip(np.argsort(counts, kind="stable"), behind, strict=True):
        power = spectrum.abs().square_().div_(math.prod(shape) ** 2)
        intensities[variant] = power.permute(1, 2, 0).reshape(*shape, g.disc_points, g.disc_points).numpy()
    return _Discs(projection, radius, 1 / shortest, intensities)


def reconstruction_fields(scan: int, size: int) -> tuple[SampleField, ...]:
    return (
        SampleField("cbed", (scan * scan, size, size), "float16", "1", "CBED per probe position, mean intensity 1"),
        SampleField("potential", (1, size, size), "float16", "V nm", "projected electrostatic potential of the field"),
    )


class Scans:
    """A `Source` of simulated reconstruction samples; every one is a crystal of its own."""

    def __init__(self, generator: ReconstructionGenerator, samples: Mapping[str, int], seed: int) -> None:
        self.generator = generator
        self.samples = dict(samples)
        self.seed = seed
        self.fields = reconstruction_fields(generator.scan, generator.size)

    def read(self, split: str, first: int, count: int) -> dict[str, np.ndarray]:
        """See `Source`."""
        batch = {f.name: np.empty((count, *f.shape), dtype=f.dtype) for f in self.fields}
        for i in range(count):
            batch["cbed"][i], batch["potential"][i] = self._simulate(split, first + i)
        return batch

    def _simulate(self, split: str, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Patterns (scan², D, D) and projected potential (1, D, D) in V nm."""
        g = self.generator
        rng = rng_of(self.seed, split, index)
        crystal = random_crystal(g.space_groups[index % len(g.space_groups)], rng, g.most_atoms)
        foil = multislice.foil(
            crystal, np.eye(3, dtype=int)[rng.integers(3)], 2 * g.field_A, rng.uniform(*g.thickness_A), rng
        )
        shape = (3 * g.size // 2, 3 * g.size // 2)
        keep = multislice.band(foil.basis, shape)
        # Half a pixel off, so that pixels lie symmetrically about the beam and rotated samples are samples.
        k = multislice.frequencies(foil.reciprocal, shape) + 0.25 / g.field_A
        potentials, slice_A = multislice.slice_potentials(foil, shape, g.slice_A, rng.uniform(*g.b_iso_A2))
        slices = multislice.transmission(potentials, keep, g.energy_keV)
        free = multislice.propagator(k, keep, slice_A, g.energy_keV)
        aperture = np.linalg.norm(k, axis=-1) < g.semi_angle_mrad * 1e-3 / wavelength_A(g.energy_keV)
        along = g.field_A / 2 + (np.arange(g.scan) + 0.5) * g.field_A / g.scan
        places = np.stack(np.meshgrid(along, along, indexing="ij"), axis=-1).reshape(-1, 1, 1, 2)
        electrons = np.exp(rng.uniform(*np.log(g.electrons)))
        edge = g.size // 4
        patterns = np.empty((len(places), g.size, g.size), dtype=np.float16)
        at_once = max(1, MOST_POINTS // keep.size)
        for first in range(0, len(places), at_once):
            chunk = slice(first, first + at_once)
            probes = (aperture * np.exp(-2j * np.pi * (k * places[chunk]).sum(-1))).astype(np.complex64)
            behind = next(multislice.transmit(torch.fft.ifft2(torch.from_numpy(probes)), slices, free, [len(slices)]))
            power = torch.fft.fftshift(behind.abs().square_(), dim=(-2, -1)).numpy() / aperture.sum()
            expected = power[:, edge:-edge, edge:-edge].astype(np.float64)
            patterns[chunk] = rng.poisson(expected * electrons) / electrons * g.size**2
        return patterns, _field(potentials.sum(0) * keep, g.size)[None]


def _field(coefficients: np.ndarray, size: int) -> np.ndarray:
    """The potential at the centres of `size`² pixels of the box's middle quarter, float16 in V nm.

    `coefficients` (n, n) in V Å, in FFT order, are those of the box.
    """
    n = len(coefficients)
    orders = np.fft.fftfreq(n, 1 / n)
    to_centre = np.exp(2j * np.pi * orders * 0.5 / (2 * size))
    fine = np.zeros((2 * size, 2 * size), dtype=np.complex128)
    start = size - n // 2
    fine[start : start + n, start : start + n] = np.fft.fftshift(coefficients * np.outer(to_centre, to_centre))
    volts_A = np.fft.ifft2(np.fft.ifftshift(fine)).real * fine.size
    return (volts_A[size // 2 : -size // 2, size // 2 : -size // 2] / 10).astype(np.float16)
