"""The simulator of ocean scenes: what they show, and that seeds are all it needs."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from sciml_hpc.benchmarks.cloudmask.native import scene_shape
from sciml_hpc.benchmarks.slstr import Generator, Slstr
from sciml_hpc.benchmarks.slstr.native import kept
from sciml_hpc.benchmarks.slstr.synthetic import simulate

GENERATOR = Generator(patch=32, size=32)


@pytest.mark.parametrize("number", range(10))
def test_scenes_show_a_cloudy_ocean(number: int) -> None:
    scene = simulate(Generator(patch=32, size=32, night_fraction=number % 2), 3, number)
    assert {a.dtype for a in (scene.refs, scene.bts, scene.bayes)} == {np.dtype(np.float32)}
    assert all(np.isfinite(a).all() for a in (scene.refs, scene.bts, scene.bayes))
    assert (scene.bayes >= 0).all()
    assert (scene.bayes <= 1).all()
    assert 0.02 < (scene.bayes > 0.5).mean() < 0.99
    clear = scene.optical_depth == 0
    sea = np.median(scene.bts[1][clear])
    assert 265 < sea < 305  # between freezing and the warmest sea, less what the air takes off
    assert scene.bts[1][scene.optical_depth > 5].mean() < sea - 3
    if number % 2:
        assert not scene.refs.any()
    else:
        assert scene.refs[4][clear].min() < 0.06  # water is black at 1.6 µm where there is no dust; land is not
        assert scene.refs[1][scene.optical_depth > 5].mean() > scene.refs[1][clear].mean() + 0.1


def test_probability_crosses_one_half_at_the_detectable_depth() -> None:
    scenes = [simulate(GENERATOR, 1, number) for number in range(8)]
    depth = np.concatenate([s.optical_depth.ravel() for s in scenes])
    bayes = np.concatenate([s.bayes.ravel() for s in scenes])
    near = np.abs(np.log(depth + 1e-9) - np.log(0.2)) < 0.05
    assert near.sum() > 500
    assert np.median(bayes[near]) == pytest.approx(0.5, abs=0.08)
    assert (bayes[depth == 0] < 1e-3).all()
    assert (bayes[depth > 2] > 0.9).all()


def test_samples_are_whole_scenes_sub_sampled() -> None:
    source = Slstr.simulator(GENERATOR, {"train": 6, "validation": 2}, 4)
    sample = source.read("train", 3, 1)
    refs, bts, bayes = source.region(source.scenes["train"][3], slice(None), slice(None))
    rows, columns = np.ix_(kept(150, 32), kept(187, 32))
    np.testing.assert_array_equal(sample["image"][0, 2], refs[2][rows, columns] - np.float32(0.5))
    np.testing.assert_array_equal(sample["image"][0, 7], (bts[1][rows, columns] - np.float32(270)) / np.float32(22))
    np.testing.assert_array_equal(sample["mask"][0], bayes[rows, columns] > 0.5)


@pytest.mark.parametrize(("extent", "size"), [(1200, 250), (1500, 250), (300, 250), (150, 150), (187, 8)])
def test_kept_pixels_hold_the_centres_of_equal_cells(extent: int, size: int) -> None:
    found = kept(extent, size)
    centres = (np.arange(size) + 0.5) * extent / size
    assert ((found <= centres) & (centres <= found + 1)).all()
    assert len(set(found)) == size


def test_a_size_that_scenes_do_not_have() -> None:
    assert scene_shape(32)[0] == 150
    Generator(patch=32, size=150)
    with pytest.raises(ValueError, match="size 151 exceeds the 150 rows of a scene"):
        Generator(patch=32, size=151)


def test_a_scene_follows_from_seed_and_number_alone() -> None:
    samples = {"train": 6, "validation": 3, "test": 2}
    fresh, used = (Slstr.simulator(GENERATOR, samples, 9) for _ in range(2))
    expected = fresh.read("train", 4, 1)
    used.read("validation", 0, 3)
    np.random.default_rng(0).random(100)
    for name, array in used.read("train", 3, 3).items():
        np.testing.assert_array_equal(array[1:2], expected[name])
    assert not np.array_equal(simulate(GENERATOR, 9, 1).bts, simulate(GENERATOR, 9, 2).bts)
    assert not np.array_equal(simulate(GENERATOR, 9, 1).bts, simulate(GENERATOR, 8, 1).bts)
    with pytest.raises(IndexError):
        used.read("test", 1, 2)


def test_splits_hold_the_images_asked_for_and_share_no_scene() -> None:
    source = Slstr.simulator(GENERATOR, {"train": 41, "validation": 11, "test": 5}, 2)
    assert source.samples == {"train": 41, "validation": 11, "test": 5}
    scenes = [set(source.scenes[split][:count]) for split, count in source.samples.items()]
    assert len(set.union(*scenes)) == 41 + 11 + 5


def test_no_threshold_and_no_linear_rule_on_a_pixel_will_do() -> None:
    """The best of 9 × 50 × 2 thresholds and a logistic regression, fitted to 40 scenes, judged on 20 others."""
    source = Slstr.simulator(GENERATOR, {"train": 40, "validation": 20}, 1)
    (x, y), (x_test, y_test) = (
        (batch["image"].transpose(0, 2, 3, 1).reshape(-1, 9), batch["mask"].ravel())
        for batch in (source.read("train", 0, 40), source.read("validation", 0, 20))
    )
    assert 0.4 < y_test.mean() < 0.7
    rules = [(c, q) for c in range(9) for q in np.quantile(x[:, c], np.linspace(0.02, 0.98, 50))]
    channel, level = max(rules, key=lambda rule: abs(((x[:, rule[0]] > rule[1]) == y).mean() - 0.5))
    accuracy = ((x_test[:, channel] > level) == y_test).mean()
    assert max(accuracy, 1 - accuracy) < 0.8
    scale = StandardScaler().fit(x)
    chosen = np.random.default_rng(0).integers(0, len(x), 8_000)
    linear = LogisticRegression(max_iter=100).fit(scale.transform(x[chosen]), y[chosen])
    assert linear.score(scale.transform(x_test), y_test) < 0.9
