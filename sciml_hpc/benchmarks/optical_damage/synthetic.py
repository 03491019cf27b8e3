"""Simulated images of a laser beam on an optic, from the field on the optic to the counts of the camera.

The beam is a super-Gaussian with smooth modulations and the fringes of a ghost reflection. On its way it passes dust on
another optic, metres away, and, if damaged, the sites on this one, close to the plane of which the camera makes an
image: opaque or transparent discs whose shadows the remaining way surrounds with rings (Fresnel diffraction by the
angular spectrum: J. W. Goodman, Introduction to Fourier Optics, 3rd edition, 2005, section 4.2.3). Sites also glow with
scattered light. Speckle and the noise of the camera follow.

The data are of optics at the Central Laser Facility, whose geometry is not published: sizes, distances and numbers of
sites below are plausible choices, not measurements. No polarisation, no aberrations, one wavelength, a single optic.

A sample follows from (parameters, seed, split, index). Only NumPy is used, whose FFT and random streams do not depend
on the number of threads; another processor or NumPy version may differ in the last bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from math import pi

import numpy as np

from sciml_hpc.benchmarks.base import SampleField
from sciml_hpc.benchmarks.optical_damage import Generator

ROWS, COLUMNS, TOP, LEFT, CROP = 492, 656, 150, 270, 200
"""Published frames and the part of them that shows the optic (stfc-sciml/sciml-bench, optical_damage, utils.py)."""

WAVELENGTH_MM = 1.053e-3
"""Neodymium glass, the lasers of which the Central Laser Facility's Vulcan is one."""
OPTIC_MM = 50.0
"""Edge of what a sample shows."""
BEAM_MM, BEAM_ORDER = (20.0, 22.0), 5
"""Radius at which the intensity has fallen to e⁻², and order n of exp(−2 (r/R)²ⁿ)."""
POINTING_MM = 1.0
"""Standard deviation of the beam's position."""
MODULATION, MODULATION_MM = 0.04, (12.0, 40.0)
"""Standard deviation of each of six smooth waves across the beam, and the range of their periods."""
FRINGES, FRINGES_MM = (0.0, 0.08), (3.0, 8.0)
"""Contrast and period of fringes."""
DUST, DUST_MM, DUST_AWAY_MM = 1.0, (0.2, 0.6), (1000.0, 6000.0)
"""Mean number of opaque specks, their radii, and how far before the optic they are."""
SITES, SITE_MM, SITE_AWAY_MM = 2.5, (0.8, 3.0), (20.0, 300.0)
"""Mean number of sites after the first, their radii (uniform in the logarithm), and defocus of the camera."""
GLOW = 0.3
"""Most scattered light of a site, over the intensity of the beam."""
SPECKLE_LOOKS = 400.0
"""Patterns that speckle averages over: its contrast is 1/√400 (Goodman, Speckle Phenomena in Optics, 2007)."""
ELECTRONS, READ_ELECTRONS, OFFSET, WHITE = (6000.0, 7500.0), 12.0, 40.0, 4095
"""Electrons in a pixel of the undisturbed beam, noise of reading, offset in counts, and the largest count (12 bits)."""
ELECTRONS_PER_COUNT = 2.0
"""So about 1 % of the beam saturates in every image. Otherwise only the bright rims of craters would be white, the rest
of damaged images darker for it, and their variance would betray them (area 0.94 at full resolution)."""
_SPLITS = ("train", "validation", "test")


def frame_shape(crop: int) -> tuple[int, int]:
    """Rows and columns of a frame whose optic is `crop` pixels wide: (492, 656) at 200."""
    return ROWS * crop // CROP, COLUMNS * crop // CROP


def sample_fields(crop: int) -> tuple[SampleField, ...]:
    return (
        SampleField(
            "image", (crop, crop), "float32", "1", "the optic, where 0 and 1 are the frame's least and largest"
        ),
        SampleField("damaged", (), "uint8", "1", "1 damaged, 0 undamaged"),
    )


def stretched(frame: np.ndarray, crop: int) -> np.ndarray:
    """A frame as sample: from 0 to 1 over the whole frame (all 0 if it is uniform), cut to the optic; float32."""
    low, high = np.float32(frame.min()), np.float32(frame.max())
    top, left = TOP * crop // CROP, LEFT * crop // CROP
    part = frame[top : top + crop, left : left + crop].astype(np.float32)
    return (part - low) / (high - low) if high > low else np.zeros_like(part)


class Frames:
    """A `Source` of simulated images. Damaged ones are spread evenly over validation and test data."""

    def __init__(self, generator: Generator, samples: Mapping[str, int], seed: int) -> None:
        self.generator, self.samples, self.seed = generator, dict(samples), seed
        self.fields = sample_fields(generator.crop)

    def read(self, split: str, first: int, count: int) -> dict[str, np.ndarray]:
        """See `Source`."""
        crop = self.generator.crop
        batch = {f.name: np.empty((count, *f.shape), f.dtype) for f in self.fields}
        for i in range(count):
            frame, batch["damaged"][i] = self.frame(split, first + i)
            batch["image"][i] = stretched(frame, crop)
        return batch

    def frame(self, split: str, index: int) -> tuple[np.ndarray, int]:
        """A whole frame, uint16, and whether the optic is damaged."""
        share = 0.0 if split == "train" else self.generator.damaged_fraction
        damaged = int((index + 1) * share) - int(index * share)
        rng = np.random.default_rng([self.seed, _SPLITS.index(split), index])
        return _camera(_intensity(rng, self.generator.crop, damaged), rng, self.generator.crop), damaged


def _intensity(rng: np.random.Generator, crop: int, damaged: int) -> np.ndarray:
    """Intensity on the camera around the optic, over that of an undisturbed beam; float32, 5/4 of the crop wide."""
    x, y = _grid(crop)
    centre = rng.normal(0, POINTING_MM, 2)
    radius = rng.uniform(*BEAM_MM)
    square = ((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / radius**2
    beam = np.exp(-2 * square**BEAM_ORDER)
    for contrast, periods in [(MODULATION * c, MODULATION_MM) for c in rng.normal(size=6)] + [
        (rng.uniform(*FRINGES), FRINGES_MM)
    ]:
        angle, wave = rng.uniform(0, 2 * pi), 2 * pi / rng.uniform(*periods)
        phase = wave * (x * np.cos(angle) + y * np.sin(angle)) + rng.uniform(0, 2 * pi)
        beam = beam * (1 + np.float32(contrast) * np.cos(phase.astype(np.float32)))
    field = np.sqrt(np.maximum(beam, 0)).astype(np.complex64)

    pixel = OPTIC_MM / crop
    for _ in range(rng.poisson(DUST)):
        field *= 1 - disc(x, y, _place(rng, radius), rng.uniform(*DUST_MM), pixel)
    field = propagated(field, rng.uniform(*DUST_AWAY_MM), pixel)
    if not damaged:
        return field.real**2 + field.imag**2

    glow = np.zeros(field.shape, np.float32)
    for _ in range(1 + rng.poisson(SITES)):
        size = np.exp(rng.uniform(*np.log(SITE_MM)))
        place, lobes, turn = _place(rng, radius), rng.uniform(0, 0.3), rng.uniform(0, 2 * pi)
        # burnt: almost opaque; or a crater: transparent, but another way for the light
        through = rng.uniform(0.0, 0.4) if rng.random() < 0.5 else np.exp(1j * rng.uniform(0.5, pi))
        site = disc(x, y, place, size, pixel, lobes, turn)
        field *= 1 + np.complex64(through - 1) * site
        glow += np.float32(rng.uniform(0, GLOW)) * disc(x, y, place, 1.5 * size, pixel, lobes, turn)
    field = propagated(field, rng.uniform(*SITE_AWAY_MM), pixel)
    return field.real**2 + field.imag**2 + glow


@lru_cache(maxsize=2)
def _grid(crop: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions x (a row) and y (a column) in mm from the middle of the optic, float32, over 5/4 of its edge."""
    pixels = crop * 5 // 4
    at = ((np.arange(pixels) - (pixels - 1) / 2) * OPTIC_MM / crop).astype(np.float32)
    return at[np.newaxis], at[:, np.newaxis]


def _place(rng: np.random.Generator, radius: float) -> np.ndarray:
    """A place within nine tenths of the beam's radius, evenly over its area, in mm."""
    angle, distance = rng.uniform(0, 2 * pi), 0.9 * radius * np.sqrt(rng.random())
    return distance * np.array([np.cos(angle), np.sin(angle)])


def disc(
    x: np.ndarray, y: np.ndarray, place: np.ndarray, radius: float, pixel: float, lobes: float = 0.0, turn: float = 0.0
) -> np.ndarray:
    """How much of each pixel a disc covers, 0 to 1, float32; `lobes` is the relative depth of three lobes of its rim.

    Its edge goes straight through one pixel; lengths in mm.
    """
    right, down = x - np.float32(place[0]), y - np.float32(place[1])
    rim = np.float32(radius) * (1 + np.float32(lobes) * np.cos(3 * np.arctan2(down, right) - np.float32(turn)))
    return np.clip((rim - np.hypot(right, down)) / np.float32(pixel) + np.float32(0.5), 0, 1)


def propagated(field: np.ndarray, distance_mm: float, pixel_mm: float) -> np.ndarray:
    """A field (complex64, square) after a way in air, by the Fresnel transfer function exp(−i π λ z f²); periodic."""
    f = np.fft.fftfreq(len(field), pixel_mm)
    phase = (-pi * WAVELENGTH_MM * distance_mm * (f**2 + f[:, np.newaxis] ** 2)).astype(np.float32)
    transfer = np.empty(field.shape, np.complex64)
    transfer.real, transfer.imag = np.cos(phase), np.sin(phase)
    return np.fft.ifft2(np.fft.fft2(field) * transfer)


def _camera(intensity: np.ndarray, rng: np.random.Generator, crop: int) -> np.ndarray:
    """A whole frame in counts, uint16: speckle, electrons counted, noise of reading, 12 bits."""
    speckle = rng.standard_gamma(SPECKLE_LOOKS, intensity.shape, np.float32) / np.float32(SPECKLE_LOOKS)
    electrons = rng.poisson(rng.uniform(*ELECTRONS) * speckle * intensity)
    frame = rng.standard_normal(frame_shape(crop), np.float32) * np.float32(READ_ELECTRONS)
    margin = (len(intensity) - crop) // 2
    top, left = TOP * crop // CROP - margin, LEFT * crop // CROP - margin
    frame[top : top + len(intensity), left : left + len(intensity)] += electrons
    return np.clip(np.rint(frame / ELECTRONS_PER_COUNT + OFFSET), 0, WHITE).astype(np.uint16)
