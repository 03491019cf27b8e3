"""The published files: written by the simulator and read back, and what is said of damaged ones."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
from published import assert_any_range_is_part_of_the_whole, assert_same_samples, write_in_parts

from sciml_hpc.benchmarks.cloudmask import CloudMask
from sciml_hpc.benchmarks.cloudmask import Generator as CloudMaskGenerator
from sciml_hpc.benchmarks.cloudmask.native import UNKNOWN, sensing_start_s
from sciml_hpc.benchmarks.slstr import Generator, Slstr
from sciml_hpc.benchmarks.slstr.native import PublishedImages, kept

GENERATOR = Generator(patch=32, size=40)
SAMPLES = {"train": 9, "validation": 4, "test": 2}
SEED = 5


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("published")
    parts = write_in_parts(Slstr, root, GENERATOR, SAMPLES, SEED)
    assert sum(map(len, parts)) == 9 + 4 + 2 + 1  # one to spare
    return root


def source(root: Path, **other: object) -> PublishedImages:
    return Slstr.native(root, **{"generator": GENERATOR, "samples": SAMPLES, "seed": SEED, **other})


def test_samples_are_the_simulators_bit_for_bit(written: Path) -> None:
    read = source(written)
    assert_same_samples(read, Slstr.simulator(GENERATOR, SAMPLES, SEED), SAMPLES)
    assert not read.missing


@pytest.mark.parametrize(("first", "count"), [(0, 1), (3, 4), (8, 1), (0, 0)])
def test_any_range_is_that_part_of_the_whole(written: Path, first: int, count: int) -> None:
    assert_any_range_is_part_of_the_whole(source(written), "train", SAMPLES["train"], first, count)


def test_published_size_is_the_default() -> None:
    assert (Generator().patch, Generator().size) == (256, 250)


def test_cloudmasks_files_serve(tmp_path: Path) -> None:
    """Its `bayes` is 0 where clear and at least ½ where cloudy, so both read the same mask."""
    samples = {"train": 40, "validation": 20}
    CloudMask.write_native(tmp_path, CloudMaskGenerator(patch=32), samples, SEED)
    read = source(tmp_path, samples={"train": 2, "validation": 1})
    with h5py.File(tmp_path / "training" / read.scenes["train"][0]) as file:
        cloudy = file["bayes"][..., 0] > 0
    np.testing.assert_array_equal(read.read("train", 0, 1)["mask"][0], cloudy[np.ix_(kept(150, 40), kept(187, 40))])


def test_neighbours_in_orbit_share_a_split(written: Path) -> None:
    """Granules less than an orbit apart are in one split, but for those around the one cut."""
    read = source(written)
    split = {name: s for s in ("train", "validation") for name in read.scenes[s]}
    ordered = sorted(split, key=sensing_start_s)
    changes = sum(split[a] != split[b] and sensing_start_s(b) - sensing_start_s(a) < 3600 for a, b in pairwise(ordered))
    assert changes <= 1


def test_without_counts_all_is_used(written: Path) -> None:
    assert source(written, samples=None).samples == {"train": 12, "validation": 2, "test": 2}


def test_more_images_than_there_are(written: Path) -> None:
    with pytest.raises(ValueError, match=r"published.*: 12 training and 4 validation scenes wanted, 14 found"):
        source(written, samples={"train": 12, "validation": 4})
    with pytest.raises(ValueError, match=r"published.*: test: 3 images wanted, 2 there are"):
        source(written, samples={**SAMPLES, "test": 3})
    with pytest.raises(IndexError):
        source(written).read("train", 8, 2)


@pytest.mark.parametrize("field", ["refs", "bts", "bayes"])
def test_missing_field(files: Path, field: str) -> None:
    path = files / "training" / source(files).scenes["train"][0]
    with h5py.File(path, "a") as file:
        del file[field]
    with pytest.raises(ValueError, match=rf"{path.name}: {field}: missing; the file holds: "):
        source(files).read("train", 0, 1)


def test_scenes_of_another_size(written: Path) -> None:
    with pytest.raises(ValueError, match=r"S3A.*: refs: float32 \(150, 187, 6\); it must be a number \(300, 375, 6\)"):
        source(written, generator=Generator(patch=64, size=40)).read("train", 0, 1)


def test_truncated_file(files: Path) -> None:
    path = files / "training" / source(files).scenes["train"][0]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=rf"{path.name}: not a readable HDF5 file"):
        source(files).read("train", 0, 1)


def test_probabilities_around_one_half_and_what_is_not_known(files: Path) -> None:
    path = files / "training" / source(files).scenes["train"][0]
    row, columns = kept(150, 40)[0], kept(187, 40)[:7]
    with h5py.File(path, "a") as file:
        for column, value in zip(columns, [0.0, 0.4999, 0.5, 0.5001, 1.0, np.nan, -1.0], strict=True):
            file["bayes"][row, column, 0] = value
        file["refs"][row, columns[0], 0] = np.nan
        file["bts"][row, columns[1], 2] = -32768.0
    read = source(files)
    sample = read.read("train", 0, 1)
    np.testing.assert_array_equal(sample["mask"][0, 0, :7], [0, 0, 0, 1, 1, UNKNOWN, UNKNOWN])
    assert sample["image"][0, 0, 0, 0] == -0.5
    assert sample["image"][0, 8, 0, 1] == 0
    assert read.missing == {"refs": 1, "bts": 1, "bayes": 2}
