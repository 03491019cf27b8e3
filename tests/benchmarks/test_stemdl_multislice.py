"""Multislice against Bloch waves, analytic potentials and what symmetry demands."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sciml_hpc.benchmarks.stemdl import multislice
from sciml_hpc.benchmarks.stemdl.crystals import Crystal, random_crystal
from sciml_hpc.benchmarks.stemdl.scattering import FACTORS, POTENTIAL_V_A2, interaction_rad_V_A, wavelength_A

PEROVSKITE = Crystal(
    221,
    3.905 * np.eye(3),
    np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]),
    np.array([38, 22, 8, 8, 8]),
)
"""Strontium titanate."""


def diffracted(projection, counts, incident=(0.0, 0.0), k_max=1.5, slice_A=2.0, energy_keV=100.0, b_iso_A2=0.5):
    """Intensities (len(counts), *shape) of a plane wave, in FFT order, and the reciprocal lattice points."""
    shape = multislice.grid_shape(projection.basis, k_max)
    keep = multislice.band(projection.basis, shape)
    potentials, thickness = multislice.slice_potentials(projection, shape, slice_A, b_iso_A2)
    slices = multislice.transmission(potentials, keep, energy_keV)
    g = multislice.frequencies(projection.reciprocal, shape)
    free = multislice.propagator(g + np.array(incident), keep, thickness, energy_keV)
    behind = multislice.transmit(torch.ones(shape, dtype=torch.complex64), slices, free, counts)
    return np.stack([(s.abs() ** 2).numpy() for s in behind]) / np.prod(shape) ** 2, g


def test_agrees_with_bloch_waves() -> None:
    """The many-beam equations of the projected potential, solved by a matrix exponential instead of slices."""
    projection = multislice.project(PEROVSKITE, (0, 0, 1))
    incident, energy_keV, k_max, periods = np.array([0.04, 0.02]), 100.0, 2.0, 18
    shape = multislice.grid_shape(projection.basis, k_max)
    keep = multislice.band(projection.basis, shape)
    potential, period_A = multislice.slice_potentials(projection, shape, 1e9, 0.5)
    assert potential.shape[0] == 1
    assert period_A == pytest.approx(3.905)
    cuts = 16  # each period in that many equal slices
    slices = multislice.transmission(potential / cuts, keep, energy_keV)
    g = multislice.frequencies(projection.reciprocal, shape)
    free = multislice.propagator(g + incident, keep, period_A / cuts, energy_keV)
    spectrum = next(multislice.transmit(torch.ones(shape, dtype=torch.complex64), slices, free, [periods * cuts]))
    sliced = (spectrum.abs() ** 2).numpy()[keep] / np.prod(shape) ** 2

    orders = np.argwhere(keep)
    difference = (orders[:, None] - orders[None]) % np.array(shape)
    coupling = interaction_rad_V_A(energy_keV) * (potential[0] * keep)[tuple(np.moveaxis(difference, -1, 0))]
    excitation = -np.pi * wavelength_A(energy_keV) * period_A * ((g + incident)[keep] ** 2).sum(-1)
    structure = torch.from_numpy(1j * (coupling + np.diag(excitation)))
    scattering = torch.linalg.matrix_exp(structure * periods).numpy()
    waves = scattering[:, np.flatnonzero((orders == 0).all(1))[0]]
    assert np.abs(waves[0]) ** 2 < 0.7  # scattering is strong: this is no test of transparency
    assert sliced == pytest.approx(np.abs(waves) ** 2, abs=3e-4)


def test_slices_hold_the_potential_of_their_atoms() -> None:
    """Fourier series against the sum over atoms of 2-D Gaussians, 4π a / β exp(−4π² r² / β), β = b + B."""
    crystal = random_crystal(14, np.random.default_rng(4))
    projection = multislice.project(crystal, (0, 1, 0))
    shape, b_iso_A2 = (96, 96), 3.0
    coefficients, slice_A = multislice.slice_potentials(projection, shape, 3.0, b_iso_A2)
    assert slice_A * len(coefficients) == pytest.approx(np.linalg.norm(crystal.lattice[1]))
    volts = np.fft.ifft2(coefficients).real * 96 * 96
    point = (17, 60)
    r = (np.array(point) / 96) @ projection.basis
    cells = np.stack(np.meshgrid(np.arange(-4, 5), np.arange(-4, 5), indexing="ij"), axis=-1).reshape(-1, 1, 2)
    distance2 = ((r - (projection.positions[:, :2] + cells) @ projection.basis) ** 2).sum(-1)
    expected = np.zeros(len(coefficients))
    which = np.floor(projection.positions[:, 2] * len(coefficients)).astype(int)
    for atom, number in enumerate(projection.numbers):
        for a, b in zip(*FACTORS[int(number)], strict=True):
            beta = b + b_iso_A2
            gaussians = 4 * np.pi * a / beta * np.exp(-4 * np.pi**2 * distance2[:, atom] / beta)
            expected[which[atom]] += POTENTIAL_V_A2 * gaussians.sum()
    assert volts[:, point[0], point[1]] == pytest.approx(expected, rel=1e-3, abs=0.05)


def test_mean_inner_potential() -> None:
    """The mean of the projected potential over a period is that of forward scattering: Σ f(0) × 47.88 V Å² / volume."""
    projection = multislice.project(PEROVSKITE, (1, 1, 0))
    coefficients, _ = multislice.slice_potentials(projection, (8, 8), 2.0, 0.0)
    forward = sum(sum(FACTORS[int(n)][0]) for n in PEROVSKITE.numbers)
    mean_V = coefficients[:, 0, 0].sum().real / projection.period_A
    assert mean_V == pytest.approx(POTENTIAL_V_A2 * forward / 3.905**3, rel=1e-6)


@pytest.mark.parametrize("zone", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 1, 1), (2, 1, -1)])
@pytest.mark.parametrize("number", [2, 14, 194])
def test_a_projection_is_the_same_crystal(number: int, zone: tuple[int, int, int]) -> None:
    """Volume, period and the distances of atoms seen along the beam, computed in the crystal's own axes."""
    crystal = random_crystal(number, np.random.default_rng(7))
    projection = multislice.project(crystal, zone)
    direction = np.array(zone) @ crystal.lattice
    assert projection.period_A == pytest.approx(np.linalg.norm(direction))
    volume = abs(np.linalg.det(projection.basis)) * projection.period_A
    assert volume == pytest.approx(np.linalg.det(crystal.lattice))
    beam = direction / projection.period_A
    assert projection.frame @ projection.frame.T == pytest.approx(np.eye(3))
    assert projection.frame[2] == pytest.approx(beam)
    flat = crystal.positions @ crystal.lattice @ projection.frame[:2].T
    seen = projection.positions[:, :2] @ projection.basis
    turns = (flat - seen) @ np.linalg.inv(projection.basis)
    assert turns == pytest.approx(np.round(turns), abs=1e-9)
    angle = projection.basis @ projection.basis.T
    assert 2 * abs(angle[0, 1]) <= min(angle[0, 0], angle[1, 1]) * (1 + 1e-9)  # reduced


def test_every_small_zone_axis_has_a_cell() -> None:
    for zone in np.ndindex(7, 7, 7):
        axis = tuple(int(i) - 3 for i in zone)
        if math.gcd(*axis) == 1:
            assert multislice.project(PEROVSKITE, axis).period_A == pytest.approx(3.905 * np.linalg.norm(axis))


def test_nothing_is_made_and_little_lost() -> None:
    """Intensity is conserved but for what leaves the band."""
    intensity, _ = diffracted(multislice.project(PEROVSKITE, (0, 0, 1)), [10, 30, 60], k_max=3.0)
    total = intensity.sum((1, 2))
    assert (total <= 1 + 1e-5).all()
    assert (total > 0.98).all()
    assert (np.diff(total) <= 1e-6).all()


def test_thicknesses_on_the_way_are_those_of_runs_of_their_own() -> None:
    projection = multislice.project(PEROVSKITE, (0, 1, 1))
    together, _ = diffracted(projection, [3, 7, 7, 20])
    alone = np.concatenate([diffracted(projection, [n])[0] for n in (3, 7, 7, 20)])
    assert np.array_equal(together, alone)


def test_fourfold_axis_shows() -> None:
    """Along [001] of a cubic crystal of class m-3m, a plane wave at normal incidence gives 4mm intensities."""
    crystal = random_crystal(225, np.random.default_rng(3))
    intensity, _ = diffracted(multislice.project(crystal, (0, 0, 1)), [40])
    image = np.fft.fftshift(intensity[0])[1:, 1:]
    assert image == pytest.approx(np.rot90(image), abs=1e-6)
    assert image == pytest.approx(image.T, abs=1e-6)
    other = np.fft.fftshift(diffracted(multislice.project(crystal, (1, 0, 0)), [40])[0][0])[1:, 1:]
    assert other == pytest.approx(image, abs=1e-6)


def test_sixfold_axis_shows() -> None:
    crystal = random_crystal(194, np.random.default_rng(3))
    projection = multislice.project(crystal, (0, 0, 1))
    intensity, g = diffracted(projection, [40], slice_A=1e9)
    points, values = g.reshape(-1, 2), intensity.ravel()
    ring = np.flatnonzero((np.hypot(*points.T) > 0) & (np.hypot(*points.T) < 0.8))
    sixth = np.array([[0.5, np.sqrt(0.75)], [-np.sqrt(0.75), 0.5]])
    turned = np.linalg.norm(points[ring] @ sixth.T - points[:, None], axis=-1).argmin(0)
    assert len(ring) >= 6
    assert values[ring].max() > 1e-3
    assert values[turned] == pytest.approx(values[ring], abs=1e-6)


def test_glide_lines_put_reflections_out() -> None:
    """P2₁2₁2₁ projects to p2gg: odd orders on both axes stay dark however strong the scattering (Gjønnes, Moodie)."""
    crystal = random_crystal(19, np.random.default_rng(5))
    projection = multislice.project(crystal, (0, 0, 1))
    intensity, _ = diffracted(projection, [20], slice_A=1e9)
    assert intensity[0, 1::2, 0].max() < 1e-9
    assert intensity[0, 0, 1::2].max() < 1e-9
    assert intensity[0, 1:4, 1:4].max() > 1e-4


def test_a_foil_is_the_crystal_cut_square() -> None:
    crystal = random_crystal(62, np.random.default_rng(1))
    foil = multislice.foil(crystal, (1, 0, 0), 24.0, 30.0, np.random.default_rng(2))
    density = len(foil.numbers) / (24.0**2 * 30.0)
    assert density == pytest.approx(len(crystal.numbers) / np.linalg.det(crystal.lattice), rel=0.05)
    places = foil.positions * [24.0, 24.0, 30.0]
    gaps = np.linalg.norm(places[:, None] - places, axis=-1) + 9 * np.eye(len(places))
    assert gaps.min() > 1.5
    column = foil.period_A / np.linalg.norm(crystal.lattice[0])  # atoms repeat along the beam: columns
    flat = np.linalg.norm(places[:, None, :2] - places[:, :2], axis=-1)
    assert np.median((flat < 1e-6).sum(1)) >= np.floor(column)
