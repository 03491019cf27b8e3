"""The simulator of profiles: particles and noise, no leak of the label, and that seeds are all it needs."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import kstest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from sciml_hpc.benchmarks.saxs import Generator, Saxs
from sciml_hpc.benchmarks.saxs.synthetic import BACKGROUND, COUNTS, RADIUS_OF_GYRATION, Simulated, ball, box

SAMPLES = {"train": 900, "validation": 400}


def source(seed: int = 1, **parameters: object) -> Simulated:
    return Saxs.simulator(Generator(**parameters), SAMPLES, seed)


def test_bodies_have_the_radius_of_gyration_asked_for() -> None:
    """By the mean square distance of random points from the centre."""
    rng = np.random.default_rng(0)
    cube = rng.uniform(-1, 1, (400_000, 3))
    edges = np.array(box(40.0, np.array([1.0, 2.0, 3.0])))
    np.testing.assert_allclose(edges / edges[0], [1, 2, 3])
    assert np.sqrt(np.square(cube * edges / 2).sum(1).mean()) == pytest.approx(40, rel=2e-3)
    inside = cube[np.square(cube).sum(1) < 1] * ball(40.0)
    assert np.sqrt(np.square(inside).sum(1).mean()) == pytest.approx(40, rel=2e-3)


def test_size_does_not_tell_the_shape() -> None:
    """Guinier's fit finds the radius of gyration of both shapes alike, log-uniform over the stated range."""
    simulated = source(category="ideal", polydispersity=0.0)
    intensity, shape = simulated.profiles("train", 0, 600)
    low = simulated.q < 0.013
    slope = np.polyfit(simulated.q[low] ** 2, np.log(intensity[:, low]).T, 1)[0]
    gyration = np.sqrt(-3 * slope)
    bottom, top = RADIUS_OF_GYRATION
    for which in (0, 1):
        scaled = np.log(gyration[shape == which] / bottom) / np.log(top / bottom)
        assert kstest(scaled, "uniform").pvalue > 0.01
    rules = [(gyration > level) == shape for level in np.quantile(gyration, np.linspace(0.02, 0.98, 49))]
    assert max(abs(rule.mean() - 0.5) for rule in rules) < 0.08


def test_classes_are_even_and_intensities_relative_to_the_lowest_q() -> None:
    intensity, shape = source(category="ideal").profiles("train", 0, 300)
    assert shape.sum() == 150
    assert intensity.dtype == np.float32
    assert (intensity[:, 0] >= 1 + 0.9 * BACKGROUND[0]).all()
    assert (intensity[:, 0] <= 1 + 1.1 * BACKGROUND[1]).all()
    assert intensity.min() >= 0.9 * BACKGROUND[0]
    smooth = source(category="ideal", aspect=1.0, polydispersity=0.0).profiles("train", 0, 20)[0]
    assert (np.diff(smooth[:, :100], axis=1) < 1e-6).all()  # monotonic where no minimum has come yet


def test_noise_is_that_of_counted_photons() -> None:
    """Of the same particles, (noisy − ideal)² · (q/q0) / ideal has the mean 1/counts at every q."""
    ideal, noisy = (source(category=c).profiles("train", 0, 400)[0].astype(float) for c in ("ideal", "noisy"))
    q = source().q
    excess = np.square(noisy - ideal) / ideal * (q / q[0])
    counts = 1 / excess.mean(axis=1)
    assert COUNTS[0] * 0.7 < counts.min()
    assert counts.max() < COUNTS[1] * 1.4
    scaled = np.log(counts / COUNTS[0]) / np.log(COUNTS[1] / COUNTS[0])
    assert kstest(scaled, "uniform").pvalue > 0.01
    by_q = (excess * counts[:, np.newaxis]).mean(axis=0)
    assert by_q.mean() == pytest.approx(1, abs=0.02)
    assert by_q[200:].mean() == pytest.approx(by_q[:100].mean(), rel=0.05)


def test_polydispersity_fills_the_minima_of_spheres() -> None:
    def depth(polydispersity: float) -> float:
        intensity, shape = source(category="ideal", polydispersity=polydispersity).profiles("train", 0, 100)
        curve = np.log(intensity[shape == 0])
        return float(np.abs(np.diff(curve, 2, axis=1)).max(axis=1).mean())

    assert depth(0.0) > 3 * depth(0.2)


def test_samples_are_standardised_over_the_first_of_training() -> None:
    simulated = source()
    profile = simulated.read("train", 0, 500)["profile"].astype(float)
    np.testing.assert_allclose(profile.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(profile.std(axis=0), 1, atol=1e-5)
    other = simulated.read("validation", 0, 200)["profile"].astype(float)
    assert abs(other.mean()) < 0.15
    assert other.std() == pytest.approx(1, abs=0.15)


def test_a_sample_follows_from_seed_split_and_number_alone() -> None:
    few = {"train": 30, "validation": 10}
    fresh, used, other = (Saxs.simulator(Generator(), few, seed) for seed in (1, 1, 2))
    expected = fresh.read("train", 20, 3)
    used.read("validation", 0, 5)
    np.random.default_rng(0).random(100)
    for name, array in used.read("train", 19, 9).items():
        np.testing.assert_array_equal(array[1:4], expected[name])
    first = fresh.profiles("train", 0, 2)[0]
    assert not np.array_equal(first, fresh.profiles("validation", 0, 2)[0])
    assert not np.array_equal(first, other.profiles("train", 0, 2)[0])
    with pytest.raises(IndexError):
        used.read("validation", 9, 2)


def test_threads_make_no_difference() -> None:
    code = (
        "import hashlib; from sciml_hpc.benchmarks.saxs import Generator, Saxs; "
        "s = Saxs.simulator(Generator(), {'train': 64, 'validation': 1}, 1).read('train', 0, 64); "
        "print(hashlib.sha256(s['profile'].tobytes()).hexdigest())"
    )
    found = set()
    for threads in ("1", "4"):
        variables = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), threads)
        done = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, **variables}, capture_output=True, text=True, check=True
        )
        found.add(done.stdout.strip())
    here = Saxs.simulator(Generator(), {"train": 64, "validation": 1}, 1).read("train", 0, 64)["profile"]
    assert found == {hashlib.sha256(here.tobytes()).hexdigest()}


def test_no_threshold_and_no_linear_rule_will_do() -> None:
    """The best of 300 × 49 × 2 thresholds and a logistic regression, fitted to 900 profiles, judged on 400 others."""
    simulated = source()
    (x, y), (x_test, y_test) = (simulated.profiles(split, 0, count) for split, count in SAMPLES.items())
    scale = StandardScaler().fit(np.log10(x + 1e-6))
    x, x_test = scale.transform(np.log10(x + 1e-6)), scale.transform(np.log10(x_test + 1e-6))
    best, rule = 0.0, (0, 0.0)
    for level in np.quantile(x, np.linspace(0.02, 0.98, 49), axis=0):
        right = np.abs(((x > level) == y[:, np.newaxis]).mean(axis=0) - 0.5)
        if right.max() > best:
            best, rule = right.max(), (right.argmax(), level[right.argmax()])
    accuracy = ((x_test[:, rule[0]] > rule[1]) == y_test).mean()
    assert max(accuracy, 1 - accuracy) < 0.66
    assert LogisticRegression(max_iter=100, C=0.01).fit(x, y).score(x_test, y_test) < 0.84
