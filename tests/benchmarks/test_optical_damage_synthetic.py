"""The simulator: optics against closed forms, the camera, what trivial scores tell, and that seeds are all it needs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special
from sklearn.metrics import roc_auc_score

from sciml_hpc.benchmarks.optical_damage import Generator, OpticalDamage, synthetic
from sciml_hpc.benchmarks.optical_damage.synthetic import WAVELENGTH_MM, disc, frame_shape, propagated, stretched


def source(seed: int = 1, crop: int = 40, fraction: float = 0.5) -> object:
    samples = {"train": 20, "validation": 200, "test": 10}
    return OpticalDamage.simulator(Generator(crop=crop, damaged_fraction=fraction), samples, seed)


def test_a_gaussian_beam_widens_as_it_should() -> None:
    """w(z) = w₀ √(1 + (λ z / π w₀²)²), and the intensity on the axis falls accordingly."""
    pixel, waist, pixels = 0.05, 0.8, 256
    at = (np.arange(pixels) - pixels / 2) * pixel
    r2 = at[:, None] ** 2 + at**2
    field = np.exp(-r2 / waist**2).astype(np.complex64)
    for z in (300.0, 1000.0, 2500.0):
        wide = waist * math.sqrt(1 + (WAVELENGTH_MM * z / (math.pi * waist**2)) ** 2)
        intensity = np.abs(propagated(field, z, pixel)) ** 2
        np.testing.assert_allclose(intensity, (waist / wide) ** 2 * np.exp(-2 * r2 / wide**2), atol=2e-3)


def test_shadow_of_a_disc_has_the_bright_spot_and_the_rings() -> None:
    """On the axis behind an opaque disc the light is as bright as without it (Arago); Fresnel's integral beside it."""
    pixel, radius, pixels, z = 0.02, 0.5, 512, 300.0
    at = ((np.arange(pixels) - pixels // 2) * pixel).astype(np.float32)
    opaque = disc(at[None], at[:, None], np.zeros(2), radius, pixel)
    field = propagated((1 - opaque).astype(np.complex64), z, pixel)
    middle = pixels // 2
    assert abs(field[middle, middle]) ** 2 == pytest.approx(1, abs=0.05)
    k = 2 * math.pi / WAVELENGTH_MM
    rho = np.linspace(0, radius, 4001)
    for column in (8, 20, 35):  # u = 1 + (i k / z) ∫ exp(i k (ρ² + r²) / 2z) J₀(k ρ r / z) ρ dρ over the disc (Babinet)
        r = column * pixel
        integrand = np.exp(0.5j * k * (rho**2 + r**2) / z) * special.j0(k * rho * r / z) * rho
        expected = abs(1 + 1j * k / z * np.trapezoid(integrand, rho)) ** 2
        assert abs(field[middle, middle + column]) ** 2 == pytest.approx(expected, abs=0.06)


def test_propagation_loses_nothing_and_can_be_undone() -> None:
    rng = np.random.default_rng(0)
    field = (rng.normal(size=(60, 60)) + 1j * rng.normal(size=(60, 60))).astype(np.complex64)
    there = propagated(field, 800.0, 0.3)
    assert (np.abs(there) ** 2).sum() == pytest.approx((np.abs(field) ** 2).sum(), rel=1e-5)
    np.testing.assert_allclose(propagated(there, -800.0, 0.3), field, atol=1e-4)


@pytest.mark.parametrize("radius", [1.0, 3.0, 7.3])
def test_discs_cover_their_area(radius: float) -> None:
    at = np.arange(-12, 12, 0.5, dtype=np.float32)
    place = np.array([0.6, -1.1])
    covered = disc(at[None], at[:, None], place, radius, 0.5)
    assert covered.sum() * 0.25 == pytest.approx(math.pi * radius**2, rel=0.03)
    centre = [(covered * axis).sum() / covered.sum() for axis in (at[None], at[:, None])]
    np.testing.assert_allclose(centre, place, atol=0.02)
    lobed = disc(at[None], at[:, None], place, radius, 0.5, lobes=0.3, turn=1.0)
    assert lobed.sum() * 0.25 == pytest.approx(math.pi * radius**2 * (1 + 0.3**2 / 2), rel=0.06)


def test_frames_have_the_published_shape_and_twelve_bits() -> None:
    assert frame_shape(200) == (492, 656)
    frame, damaged = source(crop=200).frame("train", 0)
    assert frame.shape == (492, 656)
    assert frame.dtype == np.uint16
    assert damaged == 0
    assert frame.max() <= 4095
    dark = frame[:60].astype(float)  # nothing but the offset and the noise of reading, 12 electrons at 2 a count
    assert dark.mean() == pytest.approx(synthetic.OFFSET, abs=0.2)
    assert dark.std() == pytest.approx(math.sqrt(6**2 + 1 / 12), rel=0.03)
    rows, columns = np.nonzero(frame > frame.max() / 3)  # the beam is where the publisher cuts
    assert 150 < rows.min() < rows.max() < 350
    assert 270 < columns.min() < columns.max() < 470


def test_noise_of_the_beam_is_that_of_speckle_and_counting() -> None:
    rng = np.random.default_rng(3)
    frames = np.stack([synthetic._camera(np.full((50, 50), 0.5, np.float32), rng, 40) for _ in range(30)]).astype(float)
    beam = (frames[:, 40:60, 70:80] - synthetic.OFFSET) * synthetic.ELECTRONS_PER_COUNT
    mean = beam.mean((1, 2))
    assert (mean > 0.5 * 6000 * 0.98).all()
    assert (mean < 0.5 * 7500 * 1.02).all()
    expected = mean**2 / synthetic.SPECKLE_LOOKS + mean + 12**2 + 2**2 / 12
    assert (beam.var((1, 2)) / expected).mean() == pytest.approx(1, abs=0.05)


def test_samples_are_stretched_over_the_whole_frame() -> None:
    frame = np.full(frame_shape(200), 100, np.uint16)
    frame[0, 0], frame[1, 1], frame[150, 270], frame[349, 469] = 0, 400, 200, 300
    sample = stretched(frame, 200)
    assert sample.shape == (200, 200)
    assert (sample[0, 0], sample[-1, -1], sample[5, 5]) == (0.5, 0.75, 0.25)
    assert not stretched(np.full(frame_shape(40), 7, np.uint16), 40).any()


@pytest.mark.parametrize("fraction", [0.5, 0.25, 0.7])
def test_damaged_optics_are_spread_evenly_and_never_trained_on(fraction: float) -> None:
    simulated = source(fraction=fraction)
    assert not simulated.read("train", 0, 20)["damaged"].any()
    kinds = simulated.read("validation", 0, 60)["damaged"]
    assert kinds.dtype == np.uint8
    assert np.abs(np.cumsum(kinds) - fraction * np.arange(1, 61)).max() <= 1


@pytest.mark.parametrize(("crop", "count"), [(64, 200), (200, 100)])
def test_brightness_and_variance_tell_little(crop: int, count: int) -> None:
    batch = source(crop=crop).read("validation", 0, count)
    for score in (batch["image"].mean((1, 2)), batch["image"].var((1, 2))):
        trivial = roc_auc_score(batch["damaged"], score)
        assert max(trivial, 1 - trivial) < 0.65


def test_a_sample_follows_from_seed_split_and_number_alone() -> None:
    expected, used = source().read("validation", 5, 2), source()
    used.read("train", 0, 3)
    for name, array in used.read("validation", 5, 2).items():
        np.testing.assert_array_equal(array, expected[name])
    first = source().read("test", 0, 1)["image"]
    for other in (source().read("test", 2, 1), source().read("validation", 0, 1), source(2).read("test", 0, 1)):
        assert not np.array_equal(first, other["image"])
