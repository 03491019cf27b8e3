"""The published files: written by the simulator and read back, and what is said of damaged ones."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from published import assert_any_range_is_part_of_the_whole, assert_same_samples, write_in_parts

from sciml_hpc.benchmarks.cloudmask import CloudMask, Generator
from sciml_hpc.benchmarks.cloudmask.native import UNKNOWN, PublishedFiles, scene_shape

GENERATOR = Generator(patch=32)
SAMPLES = {"train": 110, "validation": 40}
SEED = 5


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("published")
    parts = write_in_parts(CloudMask, root, GENERATOR, SAMPLES, SEED)
    assert sum(map(len, parts)) == 9  # 6 scenes to train on, 2 to validate on, 1 to spare
    return root


def source(root: Path, **other: object) -> PublishedFiles:
    return CloudMask.native(root, **{"generator": GENERATOR, "samples": SAMPLES, "seed": SEED, **other})


def test_samples_are_the_simulators_bit_for_bit(written: Path) -> None:
    read = source(written)
    assert_same_samples(read, CloudMask.simulator(GENERATOR, SAMPLES, SEED), SAMPLES)
    assert not read.missing


@pytest.mark.parametrize(("first", "count"), [(0, 1), (3, 4), (17, 30), (59, 1), (109, 1), (0, 0)])
def test_any_range_is_that_part_of_the_whole(written: Path, first: int, count: int) -> None:
    assert_any_range_is_part_of_the_whole(source(written), "train", SAMPLES["train"], first, count)


def test_a_sample_is_the_normalised_patch_of_its_file(written: Path) -> None:
    read = source(written)
    number = 20 + 7  # second scene, second row of patches, third column
    with h5py.File(written / "training" / read.scenes["train"][1]) as file:
        top, left = (150 - 4 * 32) // 2 + 32, (187 - 5 * 32) // 2 + 2 * 32
        part = {name: file[name][top : top + 32, left : left + 32] for name in file}
    sample = read.read("train", number, 1)
    image = np.concatenate([part["refs"] - np.float32(0.5), (part["bts"] - np.float32(270)) / np.float32(22)], axis=2)
    np.testing.assert_array_equal(sample["image"][0], image.transpose(2, 0, 1))
    np.testing.assert_array_equal(sample["mask"][0], part["bayes"][..., 0] > 0)


def test_full_size_is_the_published_one() -> None:
    assert scene_shape(256) == (1200, 1500)


def test_test_samples_come_from_the_inference_directory(tmp_path: Path) -> None:
    samples = {"train": 20, "validation": 20, "test": 30}
    CloudMask.write_native(tmp_path, GENERATOR, samples, SEED)
    assert len(list((tmp_path / "inference").glob("S3A*.hdf"))) == 2
    simulated, read = CloudMask.simulator(GENERATOR, samples, SEED), source(tmp_path, samples=samples)
    for name, array in simulated.read("test", 0, 30).items():
        np.testing.assert_array_equal(read.read("test", 0, 30)[name], array)


@pytest.mark.parametrize("layout", ["old", "flat"])
def test_older_layouts(written: Path, tmp_path: Path, layout: str) -> None:
    for i, path in enumerate(sorted(written.rglob("*.hdf"))):
        target = tmp_path / (["one-day/day", "one-day/night"][i % 2] if layout == "old" else ".") / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    a, b = source(written).read("validation", 0, 40), source(tmp_path).read("validation", 0, 40)
    np.testing.assert_array_equal(a["image"], b["image"])


def test_without_counts_all_is_used(written: Path) -> None:
    read = source(written, samples=None)
    assert read.samples == {"train": 20 * 8, "validation": 20 * 1}


def test_more_samples_than_there_are(written: Path) -> None:
    with pytest.raises(ValueError, match=r"published.*: 9 training and 2 validation scenes wanted, 9 found"):
        source(written, samples={"train": 170, "validation": 40})
    with pytest.raises(ValueError, match="test: 1 samples wanted, 0 there are"):
        source(written, samples={**SAMPLES, "test": 1})
    with pytest.raises(IndexError):
        source(written).read("train", 109, 2)


def test_no_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no files S3A\*\.hdf"):
        source(tmp_path)


def test_a_granule_twice(files: Path) -> None:
    path = next(files.rglob("*.hdf"))
    (files / "training" / "again").mkdir()
    shutil.copy(path, files / "training" / "again" / path.name)
    with pytest.raises(ValueError, match=f"{path.name} is there more than once"):
        source(files)


def damaged(files: Path) -> Path:
    """The file of the first training scene."""
    return files / "training" / source(files).scenes["train"][0]


@pytest.mark.parametrize("field", ["refs", "bts", "bayes"])
def test_missing_field(files: Path, field: str) -> None:
    with h5py.File(damaged(files), "a") as file:
        del file[field]
    with pytest.raises(ValueError, match=rf"{damaged(files).name}: {field}: missing; the file holds: "):
        source(files).read("train", 0, 1)


@pytest.mark.parametrize(
    ("field", "replacement", "found"),
    [
        ("refs", np.zeros((150, 187, 5), np.float32), r"float32 \(150, 187, 5\)"),
        ("bts", np.zeros((1200, 1500, 3), np.uint8), r"uint8 \(1200, 1500, 3\)"),
        ("bayes", np.full((150, 187, 1), b"cloud"), r"\|S5 \(150, 187, 1\)"),
    ],
)
def test_wrong_shape_or_type(files: Path, field: str, replacement: np.ndarray, found: str) -> None:
    with h5py.File(damaged(files), "a") as file:
        del file[field]
        file[field] = replacement
    with pytest.raises(ValueError, match=rf"{damaged(files).name}: {field}: {found}; it must be a number \(150, 187, "):
        source(files).read("train", 0, 1)


@pytest.mark.parametrize("keep", [0, 100, 0.5])
def test_truncated_file(files: Path, keep: float) -> None:
    path = damaged(files)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if keep < 1 else int(keep)])
    with pytest.raises(ValueError, match=rf"{path.name}: not a readable HDF5 file"):
        source(files).read("train", 0, 1)


def test_damaged_field(files: Path) -> None:
    """Compressed data with a flipped byte: the file opens, the field cannot be read."""
    path = damaged(files)
    with h5py.File(path, "a") as file:
        refs = file["refs"][...]
        del file["refs"]
        file.create_dataset("refs", data=refs, chunks=refs.shape, compression="gzip", fletcher32=True)
        at = file["refs"].id.get_chunk_info(0).byte_offset
    with path.open("r+b") as raw:
        raw.seek(at + 1000)
        byte = raw.read(1)[0]
        raw.seek(at + 1000)
        raw.write(bytes([byte ^ 0xFF]))
    with pytest.raises(ValueError, match=rf"{path.name}: refs: cannot be read"):
        source(files).read("train", 0, 1)


def test_an_unreadable_file_does_not_spoil_the_next(files: Path) -> None:
    damaged(files).write_bytes(b"")
    read = source(files)
    with pytest.raises(ValueError, match="not a readable"):
        read.read("train", 0, 1)
    assert read.read("train", 20, 1)["image"].shape == (1, 9, 32, 32)


def test_missing_values_are_replaced_counted_and_logged(files: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = damaged(files)
    top, left = 11, 13  # first pixel of the first patch
    before = source(files).read("train", 0, 1)
    with h5py.File(path, "a") as file:
        file["refs"][top, left, 0] = np.nan
        file["bts"][top, left + 1] = [np.nan, 0.0, -32768.0]
        file["bayes"][top + 1, left : left + 3, 0] = [np.nan, -1, np.inf]
        file["refs"][0, 0] = np.nan  # outside the crop
    read = source(files)
    with caplog.at_level(logging.WARNING):
        sample = read.read("train", 0, 1)
    assert sample["image"][0, 0, 0, 0] == -0.5
    np.testing.assert_array_equal(sample["image"][0, 6:, 0, 1], 0)
    np.testing.assert_array_equal(sample["mask"][0, 1, :3], UNKNOWN)
    assert np.isfinite(sample["image"]).all()
    assert (sample["image"] != before["image"]).sum() == 4
    assert read.missing == {"refs": 1, "bts": 3, "bayes": 3}
    assert f"{path.name}: missing values replaced: 1 of refs, 3 of bts, 3 of bayes" in caplog.text


def test_integer_flags_serve_as_mask(files: Path) -> None:
    """SLSTR's own `bayes` is a set of bits: anything above 0 is cloud."""
    path = damaged(files)
    with h5py.File(path, "a") as file:
        flags = (np.arange(150 * 187) % 3).reshape(150, 187, 1).astype(np.uint8)
        del file["bayes"]
        file["bayes"] = flags
    np.testing.assert_array_equal(source(files).read("train", 0, 1)["mask"][0], flags[11:43, 13:45, 0] > 0)


def test_writing_again_replaces_and_leaves_nothing_else(files: Path) -> None:
    before = sorted(p.name for p in files.rglob("*"))
    CloudMask.write_native(files, GENERATOR, SAMPLES, SEED)
    assert sorted(p.name for p in files.rglob("*")) == before
