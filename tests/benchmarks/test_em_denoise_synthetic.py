"""The simulator: physics against closed forms and tables, statistics, and that seeds are all it needs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import constants

from sciml_hpc.benchmarks.em_denoise import EMDenoise, Generator
from sciml_hpc.benchmarks.em_denoise.synthetic import (
    B_ISO_A2,
    CARBON,
    LATTICE_A,
    NITROGEN,
    SCATTERING,
    SILICON,
    Lens,
    lattice,
    phase_shift,
    recorded,
)

GENERATOR = Generator(size=32)


def source(seed: int = 1) -> object:
    return EMDenoise.simulator(GENERATOR, {"train": 8, "validation": 8}, seed)


XRAY_CARBON = {0.2: 3.581, 0.3: 2.502, 0.4: 1.950, 0.5: 1.685, 0.6: 1.536, 0.8: 1.322, 1.0: 1.114}
"""Form factor of carbon for X-rays at s in 1/Å (International Tables for Crystallography C, table 6.1.1.1)."""


def test_carbons_scattering_follows_from_its_form_factor_for_xrays() -> None:
    """Mott and Bethe: f = m e² (Z − f_X) / (8 π ε₀ h² s²)."""
    mott_per_A = constants.m_e * constants.e**2 / (8 * np.pi * constants.epsilon_0 * constants.h**2) * 1e-10
    a, b = (np.array(x) for x in SCATTERING[CARBON])
    for s, xray in XRAY_CARBON.items():
        assert (a * np.exp(-b * s**2)).sum() == pytest.approx(mott_per_A * (6 - xray) / s**2, rel=0.01)


@pytest.mark.parametrize(("number", "forward_A"), [(CARBON, 2.509), (NITROGEN, 2.211), (SILICON, 5.828)])
def test_forward_scattering_is_that_of_another_calculation(number: int, forward_A: float) -> None:
    """f(0) of P. A. Doyle and P. S. Turner, Acta Cryst. A 24, 390 (1968)."""
    assert sum(SCATTERING[number][0]) == pytest.approx(forward_A, rel=0.005)


@pytest.mark.parametrize("place", [(48.0, 48.0), (47.3, 48.75)])
def test_an_atom_has_the_potential_of_its_gaussians(place: tuple[float, float]) -> None:
    """The transform of a exp(−B q²/4) is 4πa/B · exp(−4π² r²/B), wherever in a pixel the atom is."""
    pixel_A, pixels = 0.08, 96
    found = phase_shift(np.array([place]) * pixel_A, np.array([CARBON]), pixels, pixel_A, 80.0)
    at = np.arange(pixels)
    r2 = ((at[:, None] - place[0]) ** 2 + (at - place[1]) ** 2) * pixel_A**2
    h, m, e, c = constants.h, constants.m_e, constants.e, constants.c
    a, b = SCATTERING[CARBON]
    volts_A = (
        h**2
        / (2 * np.pi * m * e)
        * 1e20
        * sum(
            x * 4 * np.pi / (y + B_ISO_A2) * np.exp(-4 * np.pi**2 * r2 / (y + B_ISO_A2))
            for x, y in zip(a, b, strict=True)
        )
    )
    gamma = 1 + 80e3 * e / (m * c**2)
    wavelength = h / (m * c) / math.sqrt(gamma**2 - 1)
    sigma = 2 * np.pi * gamma * m * e * wavelength / h**2 * 1e-10  # rad per V Å
    expected = sigma * volts_A
    inside = np.sqrt(r2) < 1.5  # further out the neighbours' images show
    np.testing.assert_allclose(found[inside], expected[inside], atol=0.01 * expected.max())
    assert found.sum() * pixel_A**2 == pytest.approx(sigma * h**2 / (2 * np.pi * m * e) * 1e20 * sum(a), rel=1e-4)


def test_phases_add_up_and_follow_the_atomic_number() -> None:
    places = np.array([[3.0, 3.0], [5.0, 4.0]])
    each = [phase_shift(p[None], np.array([n]), 64, 0.12, 80.0) for p, n in zip(places, (CARBON, SILICON), strict=True)]
    both = phase_shift(places, np.array([CARBON, SILICON]), 64, 0.12, 80.0)
    np.testing.assert_allclose(both, sum(each), atol=1e-5)
    assert each[1].max() > 1.5 * each[0].max()


def test_lattice_is_graphene() -> None:
    sites = lattice(30.0)
    inner = sites[np.hypot(*sites.T) < 12]
    distance = np.sort(np.hypot(*(inner[:, None] - sites[None]).transpose(2, 0, 1)), 1)
    bond = LATTICE_A / math.sqrt(3)
    np.testing.assert_allclose(distance[:, 1:4], bond)
    np.testing.assert_allclose(distance[:, 4:10], LATTICE_A)
    assert bond == pytest.approx(1.42, abs=0.005)
    per_A2 = (np.hypot(*lattice(150.0).T) < 70).sum() / (np.pi * 70**2)
    assert per_A2 == pytest.approx(4 / (math.sqrt(3) * LATTICE_A**2), rel=0.02)
    for turn in np.linspace(0, np.pi / 3, 7):  # the square is full however the sheet is turned
        corner = 15 * math.sqrt(2) * np.array([np.cos(turn), np.sin(turn)])
        assert np.hypot(*(sites - corner).T).min() < 1.5


def test_transfer_of_a_weak_grating_is_the_sine_of_chi() -> None:
    """A phase object φ cos(2π q x) has the image 1 + 2 φ E sin χ cos(2π q x) (Kirkland, section 3.1) in first order."""
    pixels, pixel_A, energy, weak = 64, 0.15, 80.0, 1e-3
    wave = constants.h / math.sqrt(
        2
        * constants.m_e
        * energy
        * 1e3
        * constants.e
        * (1 + energy * 1e3 * constants.e / (2 * constants.m_e * constants.c**2))
    )
    wave *= 1e10
    for defocus, spherical, spread in [(60.0, 0.0, 0.0), (40.0, 1e5, 25.0), (-90.0, -1.5e5, 15.0)]:
        for cycles in (3, 6, 9):
            q = cycles / (pixels * pixel_A)
            phase = weak * np.cos(2 * np.pi * cycles * np.arange(pixels) / pixels) * np.ones((pixels, 1))
            image = Lens(energy, defocus, spherical, focal_spread=spread).image(phase.astype(np.float32), pixel_A)
            found = 2 * np.fft.rfft(image.mean(0).astype(float))[cycles].real / pixels
            chi = np.pi * wave * q**2 * (0.5 * spherical * wave**2 * q**2 - defocus)
            expected = 2 * weak * np.sin(chi) * np.exp(-0.5 * (np.pi * wave * spread * q**2) ** 2)
            assert found == pytest.approx(expected, abs=0.02 * weak)


def test_astigmatism_changes_the_focus_with_the_direction() -> None:
    lens = Lens(80.0, 50.0, astigmatism=20.0, azimuth=0.3)
    square = np.array([0.6], np.float32)
    for direction, defocus in [(0.3, 70.0), (0.3 + np.pi / 2, 30.0), (0.3 + np.pi / 4, 50.0)]:
        along = lens.transfer(square, np.array([direction], np.float32))
        np.testing.assert_allclose(along, Lens(80.0, defocus).transfer(square, np.zeros(1, np.float32)), atol=1e-4)


def test_a_lens_without_spread_loses_no_electron() -> None:
    rng = np.random.default_rng(0)
    phase = rng.normal(0, 0.3, (64, 64)).astype(np.float32)
    image = Lens(80.0, 70.0, 1e5, 10.0, 0.5).image(phase, 0.15)
    assert image.mean(dtype=float) == pytest.approx(1, abs=1e-5)
    assert image.std() > 0.1


def test_noise_is_poissonian_under_a_gaussian_beam_with_dead_pixels() -> None:
    clean = np.full((256, 256), 0.8, np.float32)
    images, electrons = [], 40.0
    rng = np.random.default_rng(7)
    for _ in range(60):
        images.append(recorded(clean, rng, (electrons, electrons)))
    images = np.stack(images)
    counts = images * electrons
    np.testing.assert_allclose(counts, np.rint(counts), atol=1e-3)
    bright = [i for i in images if i[100:150, 100:150].mean() > 0.6]
    window = np.stack(bright)[:, 120:124, 120:124]
    normal = window[(window > 0) & (window < 2)]
    mean = normal.mean()
    assert 0.5 < mean < 0.81
    # variance of the count over its mean is 1; a patch of 4 × 4 is evenly lit
    dispersion = (window.var((1, 2), ddof=1) * electrons / window.mean((1, 2)))[window.min((1, 2)) > 0]
    assert np.median(dispersion) == pytest.approx(1, abs=0.25)
    # at 40 electrons nothing in mid-beam would be dark by chance
    middle = np.stack(bright)[:, 100:150, 100:150]
    assert (middle == 0).mean() == pytest.approx(1e-3, rel=0.3)


def test_images_are_stretched_and_graphene_shows_its_periods() -> None:
    batch = EMDenoise.simulator(Generator(size=128, pixel_A=(0.15, 0.15)), {"train": 6, "validation": 1}, 3).read(
        "train", 0, 6
    )
    clean = batch["clean"]
    assert clean.dtype == batch["noisy"].dtype == np.float32
    np.testing.assert_allclose(clean.min((1, 2)), 0)
    np.testing.assert_allclose(clean.max((1, 2)), 1)
    window = np.hanning(128)[:, None] * np.hanning(128)
    power = np.abs(np.fft.fft2((clean - clean.mean((1, 2), keepdims=True)) * window)) ** 2
    f = np.fft.fftfreq(128, 0.15)
    q = np.hypot(f[:, None], f)
    ring = 2 / (math.sqrt(3) * LATTICE_A)  # first reflections, 0.469 1/Å
    share = power[:, (q > 0.88 * ring) & (q < 1.12 * ring)].sum(1) / power.sum((1, 2))
    assert np.median(share) > 0.5


def test_a_sample_follows_from_seed_split_and_number_alone() -> None:
    expected, used = source().read("train", 5, 2), source()
    used.read("validation", 0, 3)
    np.random.default_rng(0).random(10)
    for name, array in used.read("train", 5, 2).items():
        np.testing.assert_array_equal(array, expected[name])
    first = source().read("train", 0, 1)
    for other in (source().read("train", 1, 1), source().read("validation", 0, 1), source(2).read("train", 0, 1)):
        assert not np.array_equal(first["clean"], other["clean"])
