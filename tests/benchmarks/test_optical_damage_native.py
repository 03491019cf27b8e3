"""The published files: written by the simulator and read back, and what is said of damaged ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from published import assert_any_range_is_part_of_the_whole, assert_same_samples, write_in_parts

from sciml_hpc.benchmarks.optical_damage import Generator, OpticalDamage, tiff

GENERATOR = Generator(crop=40)
SAMPLES = {"train": 13, "validation": 10}
SEED = 5


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("published")
    assert sum(map(len, write_in_parts(OpticalDamage, root, GENERATOR, SAMPLES, SEED))) == 23
    return root


def source(root: Path, **other: object) -> object:
    return OpticalDamage.native(root, **{"generator": GENERATOR, "samples": SAMPLES, "seed": SEED, **other})


def test_samples_are_the_simulators_bit_for_bit(written: Path) -> None:
    read = source(written)
    assert_same_samples(read, OpticalDamage.simulator(GENERATOR, SAMPLES, SEED), SAMPLES)


@pytest.mark.parametrize(("first", "count"), [(0, 1), (3, 7), (9, 4), (5, 0)])
def test_any_range_is_that_part_of_the_whole(written: Path, first: int, count: int) -> None:
    assert_any_range_is_part_of_the_whole(source(written), "train", SAMPLES["train"], first, count)


def test_layout_is_the_published_one(written: Path) -> None:
    found = {str(p.parent.relative_to(written)) for p in written.rglob("*.TIFF")}
    assert found == {"training/undamaged", "inference/undamaged", "inference/damaged"}
    assert len(list((written / "inference/damaged").iterdir())) == 5
    frame = tiff.read(written / "training/undamaged/000003.TIFF")
    assert frame.shape == (98, 131)  # 492 × 656 at a fifth
    low, high = np.float32(frame.min()), np.float32(frame.max())
    expected = (frame[30:70, 54:94].astype(np.float32) - low) / (high - low)
    np.testing.assert_array_equal(source(written).read("train", 3, 1)["image"][0], expected)


def test_the_other_part_may_be_judged_on(written: Path, tmp_path: Path) -> None:
    shutil.copytree(written, tmp_path / "files")
    (tmp_path / "files/inference").rename(tmp_path / "files/validation")
    with pytest.raises(ValueError, match="inference/undamaged: no TIFF files"):
        source(tmp_path / "files")
    other = source(tmp_path / "files", generator=Generator(crop=40, evaluation="validation"))
    np.testing.assert_array_equal(
        other.read("validation", 0, 10)["image"], source(written).read("validation", 0, 10)["image"]
    )


def test_three_channels_are_read_as_their_mean(files: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    rgb = np.random.default_rng(0).integers(0, 256, (98, 131, 3), np.uint8)
    image.fromarray(rgb).save(files / "training/undamaged/000000.TIFF")
    mean = rgb.mean(2)
    expected = (mean[30:70, 54:94] - mean.min()) / np.ptp(mean)
    np.testing.assert_allclose(source(files).read("train", 0, 1)["image"][0], expected, atol=1e-6)


def test_wrong_shape_or_content(files: Path) -> None:
    path = files / "training/undamaged/000001.TIFF"
    tiff.write(path, np.zeros((98, 130), np.uint16))
    with pytest.raises(ValueError, match=r"000001\.TIFF: shape: \(98, 130\); it must be \(98, 131\)"):
        source(files).read("train", 0, 2)
    path.write_bytes(b"")
    read = source(files)
    with pytest.raises(ValueError, match=r"000001\.TIFF: header: not a TIFF file"):
        read.read("train", 1, 1)
    assert read.read("train", 2, 1)["image"].shape == (1, 40, 40)


def test_other_counts_than_stated(written: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"published.*: samples: the files hold .*13.*, the manifest states .*14"):
        source(written, samples={"train": 14, "validation": 10})
    assert source(written, samples=None).samples == SAMPLES
    with pytest.raises(ValueError, match="training/undamaged: no TIFF files"):
        source(tmp_path)
