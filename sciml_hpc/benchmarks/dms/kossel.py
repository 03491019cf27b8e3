"""Diffuse multiple scattering on a detector: Kossel lines of diffusely scattered X-rays.

Diffuse scattering from the primary beam k₀ sends X-rays in all directions. Where one of them, k', meets lattice planes
at their Bragg angle, it is diffracted to k = k' + G. The directions k̂ so reached lie on a cone about G,

    k̂·Ĝ = λ|G|/2 = sin θ,

(Ewald's construction, |k| = |k − G| = 1/λ), which cuts the detector in a line. Where lines of three reflections meet,
three Bragg conditions hold at once: such triple intersections are there for one shape of the cell and not for another.
The places of lines depend on the crystal and its orientation alone, not on the primary beam (A. G. A. Nisbet et al.,
Acta Cryst. A 71, 20 (2015); M. B. Estradiote et al., J. Appl. Cryst. 58, 859 (2025)).

Intensities, in arbitrary units: with q = k − k₀ the change of wave vector,

    I(k) = D(q) [A(q) + Σ_G  LINE_GAIN F_G² / sin 2θ · p(δθ) · A(q − G)].

D(q) A(q) is one-phonon thermal diffuse scattering at high temperature: A = q² f² with f the form factor of the whole
cell, and D = 1/(κ² + Σ sin²(π hᵢ) / π²), with hᵢ the fractional indices of q, is 1/ω² of a simple lattice of springs
between nearest neighbours, rounded off within κ of a node. D has the lattice's period, so it is the same for q − G. A
line's strength is the integrated reflectivity of a mosaic crystal, proportional to F² / sin 2θ (kinematic theory: B. E.
Warren, X-Ray Diffraction, 1969), spread over angles δθ from the Bragg angle by p = (1 + (δθ/σ)²)^(−3/2) / 2σ. Left out:
polarisation, absorption, and what the diffuse rays lose along the lines (dark lines).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from sciml_hpc.benchmarks.dms.crystal import (
    A_TETRAGONAL_A,
    C_TETRAGONAL_A,
    Cell,
    site_factors,
    structure_factor,
)

DETECTOR_MM = (487 * 0.172, 195 * 0.172)
"""Height and width of a Pilatus 100K (Dectris): 487 × 195 pixels of 0.172 mm, as I16 of Diamond Light Source has."""
PLANES = 11
"""Highest Miller index: at 0.7 Å no reflection of a 4.2 Å cell beyond has sin θ < `STEEPEST`."""
STEEPEST = 0.95
"""Largest sin θ: a choice, near back-reflection lines are wide and weak."""
WEAKEST = 0.02
"""Lines of less than this share of the strongest one's strength are left out; 838 reflections of 5,626 remain."""
LINE_GAIN = 2.5e-7
"""Strength of lines against the diffuse background; a choice, for strong lines to stand out a few times."""
KAPPA = 0.15
"""Rounding of the diffuse scattering about nodes, in reciprocal cells; a choice."""
WIDTH_RAD = 6e-4
"""σ of lines: divergence and mosaic; a choice of the order of a pixel."""
CUT = 6.0
"""Profiles end at so many σ; their height there is subtracted throughout."""
K0 = np.array([1.0, 0.0, 0.0])
"""Direction of the primary beam."""
_BLOCK = 8
"""Edge in pixels of the squares in which a line is either looked for or not."""
_OFFSETS = (np.mgrid[:_BLOCK, :_BLOCK] - (_BLOCK - 1) / 2).reshape(2, -1).astype(np.float32)
"""Rows and columns of a block's pixels, from its middle."""


@dataclass(frozen=True)
class Detector:
    """A flat detector facing the crystal. Frame: x along the primary beam, z up, y to the left.

    Pixels may be larger than the real one's: the field of view is that of `DETECTOR_MM` whatever their number.
    """

    rows: int = 487
    columns: int = 195
    wavelength_A: float = 0.70
    distance_mm: float = 200.0
    two_theta_deg: float = 38.0
    """Elevation of the detector's middle above the beam."""

    def directions(self, row: np.ndarray, column: np.ndarray) -> np.ndarray:
        """Unit vectors from the crystal to points in pixels, 0 the middle of the first: (…, 3). Row 0 is the top."""
        tilt = np.radians(self.two_theta_deg)
        middle = self.distance_mm * np.array([np.cos(tilt), 0, np.sin(tilt)])
        up, right = np.array([-np.sin(tilt), 0, np.cos(tilt)]), np.array([0.0, -1.0, 0.0])
        y = (0.5 - (np.asarray(row) + 0.5) / self.rows) * DETECTOR_MM[0]
        x = ((np.asarray(column) + 0.5) / self.columns - 0.5) * DETECTOR_MM[1]
        points = middle + y[..., None] * up + x[..., None] * right
        return points / np.linalg.norm(points, axis=-1, keepdims=True)

    @property
    def sigma_rad(self) -> float:
        """σ of lines as the pixels see them: the beam's and the pixels' own, uniform over their edges."""
        pitch2 = np.square([DETECTOR_MM[0] / self.rows, DETECTOR_MM[1] / self.columns]).mean()
        return float(np.sqrt(WIDTH_RAD**2 + pitch2 / 12 / self.distance_mm**2))

    @cached_property
    def blocks(self) -> np.ndarray:
        """Directions block by block: (3, blocks, 64) float32; the last blocks down and across reach over the edge."""
        down, across = -(-self.rows // _BLOCK), -(-self.columns // _BLOCK)
        k = self.directions(*np.mgrid[: down * _BLOCK, : across * _BLOCK])
        k = k.reshape(down, _BLOCK, across, _BLOCK, 3).transpose(4, 0, 2, 1, 3)
        return np.ascontiguousarray(k.reshape(3, down * across, _BLOCK * _BLOCK), dtype=np.float32)

    def image(self, blocks: np.ndarray) -> np.ndarray:
        """(blocks, 64) → (rows, columns)."""
        down, across = -(-self.rows // _BLOCK), -(-self.columns // _BLOCK)
        image = blocks.reshape(down, across, _BLOCK, _BLOCK).swapaxes(1, 2)
        return image.reshape(down * _BLOCK, across * _BLOCK)[: self.rows, : self.columns]

    @cached_property
    def centres(self) -> tuple[np.ndarray, float]:
        """Middles of the blocks, (blocks, 3) unit vectors, and the widest angle of a pixel from its block's middle."""
        middles = self.blocks.mean(2, dtype=np.float64).T
        middles /= np.linalg.norm(middles, axis=1, keepdims=True)
        chord = np.sqrt(np.square(self.blocks - middles.T[:, :, None]).sum(0).max())
        return middles, float(2 * np.arcsin(chord / 2))

    @cached_property
    def steps(self) -> np.ndarray:
        """Mean changes of direction from a pixel to the next, down and across, in a block: (2, blocks, 3)."""
        k = self.blocks.reshape(3, -1, _BLOCK, _BLOCK).astype(np.float64)
        down, across = (k[:, :, -1] - k[:, :, 0]).mean(2), (k[..., -1] - k[..., 0]).mean(2)
        return np.stack([down.T, across.T]) / (_BLOCK - 1)

    @cached_property
    def field_of_view(self) -> tuple[np.ndarray, float]:
        """Direction to the middle and the widest angle from it to a pixel, in rad."""
        middle = self.directions(np.array((self.rows - 1) / 2), np.array((self.columns - 1) / 2))
        return middle, float(np.arccos(np.einsum("ibp,i->bp", self.blocks, middle).min()))

    @cached_property
    def q(self) -> np.ndarray:
        """Changes k − k₀ of the wave vector in Å⁻¹, block by block: (3, blocks, 64) float32."""
        return (self.blocks - K0.astype(np.float32)[:, None, None]) / np.float32(self.wavelength_A)

    @cached_property
    def diffuse(self) -> np.ndarray:
        """A(q), block by block: (blocks, 64) float32."""
        return amplitude(np.square(self.q).sum(0)).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Lines:
    """Reflections whose cones may cut the detector."""

    hkl: np.ndarray
    """(n, 3) int64."""
    g: np.ndarray
    """(n, 3) float64: reciprocal lattice vectors in Å⁻¹, in the detector's frame."""
    sin_theta: np.ndarray
    """(n,) float64."""
    strength: np.ndarray
    """(n,) float64: F² / sin 2θ, electrons²."""

    @property
    def axes(self) -> np.ndarray:
        """Unit vectors along `g`."""
        return self.g / np.linalg.norm(self.g, axis=1, keepdims=True)


def orientation(
    azimuth_deg: float, tilts_rad: tuple[float, float] = (0.0, 0.0), two_theta_deg: float = Detector.two_theta_deg
) -> np.ndarray:
    """Rotation (3, 3) from the crystal's frame to the detector's: v_detector = R v_crystal.

    The crystal's z axis, c*, is brought into the bisector of primary beam and detector's middle, as for a symmetric
    reflection, and turned about itself by the azimuth Ψ (at 0, a* is in the plane of scattering); the tilts are small
    misalignments of c* along and across that plane.
    """
    psi, (along, across) = np.radians(azimuth_deg), tilts_rad
    turn = _rotation(2, psi)
    return _rotation(1, -np.radians(two_theta_deg) / 2 + along) @ _rotation(0, across) @ turn


def _rotation(axis: int, angle_rad: float) -> np.ndarray:
    """Right-handed rotation about a coordinate axis."""
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = np.cos(angle_rad)
    matrix[j, i] = np.sin(angle_rad)
    matrix[i, j] = -matrix[j, i]
    return matrix


@cache
def reflections(wavelength_A: float) -> np.ndarray:
    """Reflections whose lines are strong enough to be drawn: (n, 3) int64, judged by the undistorted cell."""
    index = np.arange(-PLANES, PLANES + 1)
    hkl = np.stack(np.meshgrid(index, index, index, indexing="ij"), axis=-1).reshape(-1, 3)
    sin_theta = wavelength_A / 2 * np.linalg.norm(hkl @ Cell(A_TETRAGONAL_A, C_TETRAGONAL_A).reciprocal(), axis=1)
    possible = (sin_theta > 0) & (sin_theta < STEEPEST)
    strength = _strength(hkl[possible], sin_theta[possible], wavelength_A)
    return hkl[possible][strength > WEAKEST * strength.max()]


def _strength(hkl: np.ndarray, sin_theta: np.ndarray, wavelength_A: float) -> np.ndarray:
    """F² / sin 2θ in electrons²."""
    factor = structure_factor(hkl, np.square(sin_theta / wavelength_A))
    return np.square(factor) / np.sin(2 * np.arcsin(sin_theta))


def lines(detector: Detector, reciprocal: np.ndarray) -> Lines:
    """Lines that the lattice `reciprocal` (rows a*, b*, c* in the detector's frame, Å⁻¹) may draw on the detector."""
    hkl = reflections(detector.wavelength_A)
    g = np.einsum("ni,ij->nj", hkl, reciprocal)
    length = np.sqrt(np.square(g).sum(1))
    sin_theta = detector.wavelength_A * length / 2
    middle, radius = detector.field_of_view
    from_axis = np.arccos(np.clip(np.einsum("nj,j->n", g, middle) / length, -1, 1))
    off = np.abs(from_axis - np.arccos(np.minimum(sin_theta, 1)))
    seen = (off < radius + CUT * detector.sigma_rad) & (sin_theta < 1)
    hkl, g, sin_theta = hkl[seen], g[seen], sin_theta[seen]
    return Lines(hkl, g, sin_theta, _strength(hkl, sin_theta, detector.wavelength_A))


_FLOOR = np.float32((1 + CUT**2) ** -1.5)


def profile(angle_rad: np.ndarray, sigma_rad: float) -> np.ndarray:
    """Profile across a line in 1/rad, exactly 0 beyond `CUT` σ; its area is 1, less 4 % that are cut off."""
    t = np.square(angle_rad * np.float32(1 / sigma_rad))
    t += np.float32(1)
    t *= np.sqrt(t)
    np.reciprocal(t, out=t)
    t -= _FLOOR
    np.maximum(t, 0, out=t)
    t *= np.float32(0.5 / sigma_rad)
    return t


_TABLE_Q2 = np.linspace(0, (4 / 0.7) ** 2, 4096)
_TABLE = _TABLE_Q2 * np.square(np.array([1, 1, 3]) @ site_factors(_TABLE_Q2 / 4))
_TABLE_SLOPE = np.gradient(_TABLE, _TABLE_Q2)


def amplitude(q2: np.ndarray) -> np.ndarray:
    """A = q² f², f the cell's form factor with all atoms in phase, in electrons² Å⁻²; `q2` in Å⁻². Interpolated."""
    return np.interp(q2, _TABLE_Q2, _TABLE)


def expected(detector: Detector, vectors: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """The pattern without noise, (rows, columns) float32, its mean 1.

    `vectors` (3, 3) are the cell's axes in Å in the crystal's frame, a row each; `rotation` is that of `orientation`.
    """
    axes = np.einsum("ni,ji->nj", vectors, rotation)
    found = lines(detector, np.linalg.inv(axes).T)
    unit, cos_theta = found.axes, np.sqrt(1 - found.sin_theta**2)

    middles, radius = detector.centres
    off = middles @ unit.T - found.sin_theta
    block, line = np.nonzero(np.abs(off) < radius + CUT * detector.sigma_rad * cos_theta)
    before = (middles[block] - K0) / detector.wavelength_A - found.g[line]
    q2 = np.square(before).sum(1)
    gain = LINE_GAIN * found.strength[line]
    weight = (gain * amplitude(q2))[:, None].astype(np.float32)
    rise = gain * np.interp(q2, _TABLE_Q2, _TABLE_SLOPE) * 2 / detector.wavelength_A
    for step, offset in zip(detector.steps, _OFFSETS, strict=True):
        weight = weight + (rise * (before * step[block]).sum(1)).astype(np.float32)[:, None] * offset

    along = (unit / cos_theta[:, None]).astype(np.float32)[line]
    angle = np.empty((len(block), _BLOCK * _BLOCK), np.float32)
    angle[:] = -(found.sin_theta / cos_theta).astype(np.float32)[line, None]
    for component, u in zip(detector.blocks, along.T, strict=True):
        angle += component[block] * u[:, None]
    height = profile(angle, detector.sigma_rad)
    height *= weight

    intensity = detector.diffuse.copy()
    lit, starts = np.unique(block, return_index=True)
    intensity[lit] += np.add.reduceat(height, starts, axis=0)
    softness = np.full(intensity.shape, KAPPA**2, np.float32)
    for x, y, z in axes.astype(np.float32):
        h = detector.q[0] * x + detector.q[1] * y + detector.q[2] * z
        softness += np.square(np.sin(np.float32(np.pi) * h)) / np.float32(np.pi**2)
    image = detector.image(intensity / softness)
    return image / image.mean(dtype=np.float64).astype(np.float32)
