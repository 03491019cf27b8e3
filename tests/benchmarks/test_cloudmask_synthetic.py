"""The simulator: physics against closed forms and numerical solutions, statistics, and that seeds are all it needs."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from scipy import constants, linalg
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from sciml_hpc.benchmarks.cloudmask import CloudMask, Generator, optics
from sciml_hpc.benchmarks.cloudmask.optics import BANDS_UM, brightness_temperature, planck, two_stream
from sciml_hpc.benchmarks.cloudmask.synthetic import Dice, simulate


def test_planck_is_the_law_in_si_units() -> None:
    kelvin = np.linspace(180, 340, 50)
    for um in BANDS_UM[6:]:
        m = um * 1e-6
        h, c, k = constants.h, constants.c, constants.k
        law = 2 * h * c**2 / m**5 / (np.exp(h * c / (m * k * kelvin)) - 1) * 1e-6
        np.testing.assert_allclose(planck(um, kelvin.astype(np.float32)), law, rtol=2e-5)


def test_planck_integrates_to_stefan_and_boltzmann() -> None:
    um = np.geomspace(2, 2000, 4000)
    radiance = np.array([float(planck(x, np.float32(288))) for x in um])
    assert np.pi * np.trapezoid(radiance, um) == pytest.approx(constants.sigma * 288**4, rel=1e-4)


@pytest.mark.parametrize("band", [6, 7, 8])
def test_brightness_temperature_undoes_planck(band: int) -> None:
    kelvin = np.linspace(180, 340, 1000, dtype=np.float32)
    np.testing.assert_allclose(
        brightness_temperature(BANDS_UM[band], planck(BANDS_UM[band], kelvin)), kelvin, atol=2e-3
    )


def test_sunlight_in_s7_is_the_measured_one() -> None:
    """About 11 W m⁻² µm⁻¹ at 3.75 µm in the reference spectra of the Sun (ASTM E490: 10.95 to 11.8)."""
    assert float(planck(BANDS_UM[6], np.float32(optics.SUN_K))) * optics.SUN_SR == pytest.approx(11.4, abs=0.6)


@pytest.mark.parametrize(("albedo", "asymmetry"), [(0.99999, 0.86), (0.95, 0.68), (0.90, 0.86), (0.75, 0.78)])
@pytest.mark.parametrize("depth", [0.01, 0.3, 2.0, 8.0])
def test_two_stream_solves_its_equations(depth: float, albedo: float, asymmetry: float) -> None:
    """The two fluxes by a matrix exponential through the layer, black below, unit flux from above."""
    own, other = np.sqrt(3) / 2 * (2 - albedo * (1 + asymmetry)), np.sqrt(3) / 2 * albedo * (1 - asymmetry)
    through = linalg.expm(depth * np.array([[own, -other], [other, -own]]))  # of (up, down), downwards
    reflected = -through[0, 1] / through[0, 0]
    passed = through[1, 0] * reflected + through[1, 1]
    r, t = two_stream(np.array([depth], np.float32), albedo, asymmetry)
    assert float(r[0]) == pytest.approx(reflected, rel=2e-4, abs=1e-6)
    assert float(t[0]) == pytest.approx(passed, rel=2e-4, abs=1e-6)


def test_two_stream_limits() -> None:
    depth = np.geomspace(1e-3, 100, 200, dtype=np.float32)
    x = np.sqrt(3) / 2 * (1 - 0.86) * depth
    r, t = two_stream(depth, 0.99999, 0.86)
    np.testing.assert_allclose(r[depth < 10], (x / (1 + x))[depth < 10], rtol=2e-3)  # nothing absorbed: x / (1 + x)
    for albedo in (0.99999, 0.9, 0.5):
        r, t = two_stream(depth, albedo, 0.8)
        assert (r >= 0).all()
        assert (t >= 0).all()
        assert (r + t <= 1 + 1e-6).all()
        assert (np.diff(r) >= 0).all()
        assert (np.diff(t) <= 0).all()
    clear = two_stream(np.zeros(1, np.float32), 0.9, 0.8)
    assert (float(clear[0][0]), float(clear[1][0])) == (0.0, 1.0)


@pytest.mark.parametrize("shape", [(150, 187), (300, 376)])
def test_fields_have_the_stated_spectrum_and_unit_variance(shape: tuple[int, int]) -> None:
    slope = 3.0
    fields = np.stack([Dice(shape, 1, k).field(slope) for k in range(60)]).astype(float)
    assert fields.var() == pytest.approx(1, rel=0.1)  # a few long waves carry most of it
    assert abs(fields.mean()) < 1e-6
    power = (np.abs(np.fft.fft2(fields)) ** 2).mean(0)
    ky = np.fft.fftfreq(shape[0], 1.2 / shape[0])[:, np.newaxis]
    kx = np.fft.fftfreq(shape[1], 1.5 / shape[1])[np.newaxis]
    k = np.hypot(ky, kx)
    scaled = power * np.where(k > 0, k, 1) ** slope
    rings = [(k > low) & (k <= low * 1.5) for low in (3, 6, 12, 24)]
    levels = [scaled[ring].mean() for ring in rings]
    np.testing.assert_allclose(levels, np.mean(levels), rtol=0.06)
    along = scaled[(kx == 0) & (k > 3)].mean()  # columns that mirror themselves have the same density
    assert along == pytest.approx(np.mean(levels), rel=0.1)


def test_normal_variates() -> None:
    x = Dice((100, 100), 0, 0).normal(1_000_000).astype(float)
    assert x.mean() == pytest.approx(0, abs=4e-3)
    assert x.var() == pytest.approx(1, abs=6e-3)
    assert (x**4).mean() == pytest.approx(3, abs=0.04)
    assert np.corrcoef(x[1:], x[:-1])[0, 1] == pytest.approx(0, abs=4e-3)


@pytest.mark.parametrize("number", range(12))
def test_scenes_are_physical(number: int) -> None:
    scene = simulate(32, 0.5, 3, number)
    assert {a.dtype for a in (scene.refs, scene.bts, scene.bayes)} == {np.dtype(np.float32)}
    assert all(np.isfinite(a).all() for a in (scene.refs, scene.bts, scene.bayes))
    assert scene.refs.min() > -0.01
    assert scene.refs.max() < 1.1
    assert scene.bts.min() > 170
    assert scene.bts.max() < 345
    cloudy = scene.bayes > 0
    assert (scene.bayes[cloudy] >= 0.5).all()  # so that "above 0" is "more likely cloud than clear"
    assert scene.bayes.max() <= 1
    assert 0.02 < cloudy.mean() < 0.98
    assert (scene.optical_depth[cloudy] > 0.02).all()
    assert (scene.optical_depth[~cloudy] < 1).all()


def test_reflectances_are_dark_by_night_and_clouds_are_cold_and_bright() -> None:
    night, day = simulate(32, 1.0, 3, 5), simulate(32, 0.0, 3, 5)
    assert not night.refs.any()
    assert day.refs[:3].mean() > 0.05
    thick, clear = day.optical_depth > 5, day.optical_depth == 0
    assert day.bts[1][thick].mean() < day.bts[1][clear].mean() - 3
    assert day.refs[1][thick].mean() > day.refs[1][clear].mean() + 0.1


def test_a_scene_follows_from_seed_and_number_alone() -> None:
    samples, generator = {"train": 60, "validation": 20}, Generator(patch=32)
    fresh, used = (CloudMask.simulator(generator, samples, 9) for _ in range(2))
    expected = fresh.read("train", 45, 3)
    used.read("validation", 0, 20)
    np.random.default_rng(0).random(100)
    for name, array in used.read("train", 45, 3).items():
        np.testing.assert_array_equal(array, expected[name])
    assert not np.array_equal(simulate(32, 0.5, 9, 1).bts, simulate(32, 0.5, 9, 2).bts)
    assert not np.array_equal(simulate(32, 0.5, 9, 1).bts, simulate(32, 0.5, 8, 1).bts)


def test_threads_make_no_difference() -> None:
    code = (
        "import hashlib; from sciml_hpc.benchmarks.cloudmask.synthetic import simulate; s = simulate(64, 0.0, 1, 2); "
        "print(hashlib.sha256(s.refs.tobytes() + s.bts.tobytes() + s.bayes.tobytes()).hexdigest())"
    )
    found = set()
    for threads in ("1", "4"):
        variables = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), threads)
        done = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, **variables}, capture_output=True, text=True, check=True
        )
        found.add(done.stdout.strip())
    scene = simulate(64, 0.0, 1, 2)
    content = scene.refs.tobytes() + scene.bts.tobytes() + scene.bayes.tobytes()
    assert found == {hashlib.sha256(content).hexdigest()}


def test_splits_hold_the_samples_asked_for_and_share_no_scene() -> None:
    source = CloudMask.simulator(Generator(patch=32), {"train": 95, "validation": 41}, 2)
    assert source.samples == {"train": 95, "validation": 41}
    assert not set(source.scenes["train"]) & set(source.scenes["validation"])
    assert source.read("validation", 40, 1)["image"].shape == (1, 9, 32, 32)
    with pytest.raises(IndexError):
        source.read("validation", 41, 1)


def test_no_threshold_and_no_linear_rule_on_a_pixel_will_do() -> None:
    """The best of 9 × 50 × 2 thresholds and a logistic regression, fitted to 40 scenes, judged on 20 others."""
    source = CloudMask.simulator(Generator(patch=32), {"train": 800, "validation": 400}, 1)
    rng = np.random.default_rng(0)

    def pixels(split: str, count: int) -> tuple[np.ndarray, np.ndarray]:
        batch = source.read(split, 0, count)
        chosen = rng.integers(0, batch["mask"].size, 40_000)
        return batch["image"].transpose(0, 2, 3, 1).reshape(-1, 9)[chosen], batch["mask"].ravel()[chosen]

    (x, y), (x_test, y_test) = pixels("train", 800), pixels("validation", 400)
    assert 0.4 < y_test.mean() < 0.7
    rules = [(c, q) for c in range(9) for q in np.quantile(x[:, c], np.linspace(0.02, 0.98, 50))]
    channel, level = max(rules, key=lambda rule: abs(((x[:, rule[0]] > rule[1]) == y).mean() - 0.5))
    accuracy = ((x_test[:, channel] > level) == y_test).mean()
    assert max(accuracy, 1 - accuracy) < 0.76
    scale = StandardScaler().fit(x)
    linear = LogisticRegression(max_iter=300).fit(scale.transform(x), y)
    assert linear.score(scale.transform(x_test), y_test) < 0.84
