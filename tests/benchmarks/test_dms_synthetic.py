"""The simulators: what a sample depends on, and that pictures are exposures of the pattern they are said to be."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from sciml_hpc.benchmarks.dms.crystal import Cell
from sciml_hpc.benchmarks.dms.kossel import expected, orientation
from sciml_hpc.benchmarks.dms.settings import AzimuthGenerator, StructureGenerator
from sciml_hpc.benchmarks.dms.synthetic import WHITE, AzimuthPatterns, StructurePatterns, grey

SAMPLES = {"train": 40, "validation": 12}
SIZE = {"rows": 31, "columns": 17}
IDEAL = {"spread": 0.0, "c_over_a": (1.025, 1.025), "tilt_mrad": 0.0}
KINDS = [(AzimuthPatterns, AzimuthGenerator(**SIZE)), (StructurePatterns, StructureGenerator(**SIZE))]


def photons(image: np.ndarray) -> np.ndarray:
    """Photons per real pixel of a picture."""
    return np.expm1(image.astype(np.float64) * np.log(4096) / 255)


@pytest.mark.parametrize(("source", "generator"), KINDS)
def test_samples_do_not_depend_on_chunks_or_order(source, generator) -> None:
    made = source(generator, SAMPLES, 5)
    whole = made.read("train", 0, 10)
    for field in made.fields:
        assert whole[field.name].shape == (10, *field.shape)
        assert whole[field.name].dtype == field.dtype
    for first, count in ((7, 3), (2, 6), (0, 1)):
        for name, values in source(generator, SAMPLES, 5).read("train", first, count).items():
            assert np.array_equal(values, whole[name][first : first + count])


@pytest.mark.parametrize(("source", "generator"), KINDS)
def test_seed_and_split_change_every_sample(source, generator) -> None:
    reads = [source(generator, SAMPLES, seed).read(split, 0, 8) for seed in (1, 2) for split in SAMPLES]
    assert len({image.tobytes() for batch in reads for image in batch["image"]}) == 32


def test_azimuths_are_uniform_over_the_period(monkeypatch) -> None:
    monkeypatch.setattr(AzimuthPatterns, "_picture", lambda *args: 0)  # only the azimuths are looked at
    azimuths = AzimuthPatterns(AzimuthGenerator(rows=16, columns=16), SAMPLES, 5).read("train", 0, 400)["azimuth"]
    counts, _ = np.histogram(azimuths, bins=8, range=(0, 90))
    assert counts.sum() == 400
    assert (np.abs(counts - 50) < 26).all()


def test_phases_take_turns() -> None:
    made = StructurePatterns(StructureGenerator(**SIZE), SAMPLES, 5)
    assert made.read("train", 3, 4)["phase"].tolist() == [1, 0, 1, 0]
    colours = made.read("train", 0, 4)["image"]
    assert np.array_equal(colours[:, 0], colours[:, 1])
    assert np.array_equal(colours[:, 0], colours[:, 2])
    assert np.array_equal(colours, np.round(colours))


def test_grey_is_logarithmic_and_clipped() -> None:
    assert grey(np.array([0.0, WHITE, 1e9])).tolist() == [0, 255, 255]
    seen = np.array([1.0, 10.0, 100.0, 1000.0])
    assert photons(grey(seen)) == pytest.approx(seen, rel=0.04)


@pytest.mark.parametrize("counts", [5.0, 50.0])
def test_exposures_have_the_stated_counts(counts: float) -> None:
    made = AzimuthPatterns(AzimuthGenerator(**SIZE, counts=(counts, counts)), SAMPLES, 5).read("train", 0, 8)
    assert photons(made["image"]).mean((1, 2)) == pytest.approx(np.full(8, counts), rel=0.03)


def test_pictures_are_of_the_crystal_and_azimuth_they_state() -> None:
    """Ideal crystals, all alike: exposures are of the pattern at the stated azimuth or 90° on, and of no other."""
    made = AzimuthPatterns(AzimuthGenerator(**SIZE, **IDEAL, counts=(100, 100)), SAMPLES, 5)
    batch = made.read("train", 0, 5)
    for image, azimuth in zip(batch["image"], batch["azimuth"], strict=True):
        seen = photons(image) / 100
        for turned, most in ((0.0, 0.05), (90.0, 0.05), (8.0, np.inf)):
            pattern = expected(made.detector, Cell(4.037, 4.037 * 1.025).vectors(), orientation(azimuth + turned))
            difference = np.sqrt(np.mean((seen / pattern - 1) ** 2))
            assert difference < most
            assert most < 1 or difference > 0.1


def test_labels_are_those_of_the_cells() -> None:
    """Of ideal crystals at an azimuth of 0, tetragonal pictures have a mirror, monoclinic ones none."""
    g = StructureGenerator(rows=61, columns=25, **IDEAL, azimuth_deg=(0, 0), distortion=(1, 1), counts=(100, 100))
    batch = StructurePatterns(g, SAMPLES, 5).read("train", 0, 6)
    seen = photons(batch["image"][:, 0])
    asymmetry = np.sqrt(np.mean((seen / seen[:, ::-1] - 1) ** 2, axis=(1, 2)))
    assert (asymmetry[batch["phase"] == 1] < 0.08).all()
    assert (asymmetry[batch["phase"] == 0] > 0.15).all()


def test_noise_is_that_of_counting() -> None:
    """At the real pixels' size, in a part of the pattern: variance over many exposures equal to the mean."""
    g = AzimuthGenerator(rows=487, columns=195, **IDEAL, counts=(40, 40))
    made = AzimuthPatterns(g, SAMPLES, 5)
    frames = photons(np.stack([made._picture(made._rng("train", i), 20.0, 0.0)[200:300, 50:150] for i in range(6)]))
    pattern = 40 * expected(made.detector, Cell(4.037, 4.037 * 1.025).vectors(), orientation(20.0))[200:300, 50:150]
    assert np.mean((frames - pattern) ** 2 / pattern) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    "fields", [{"rows": 8}, {"counts": (80, 15)}, {"counts": (0, 15)}, {"spread": 0.5}, {"c_over_a": (1.03, 1.02)}]
)
def test_impossible_settings_are_refused(fields) -> None:
    with pytest.raises(ValidationError):
        AzimuthGenerator(**fields)
