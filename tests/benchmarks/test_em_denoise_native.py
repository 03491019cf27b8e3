"""The published files: written by the simulator and read back, and what is said of damaged ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from published import assert_any_range_is_part_of_the_whole, assert_same_samples, write_in_parts

from sciml_hpc.benchmarks.em_denoise import EMDenoise, Generator

GENERATOR = Generator(size=32)
SAMPLES = {"train": 70, "validation": 10}
SEED = 5
NOISE, CLEAN = "graphene_img_noise.h5", "graphene_img_clean.h5"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("published")
    parts = write_in_parts(EMDenoise, root, GENERATOR, SAMPLES, SEED)
    assert [len(p) for p in parts] == [2, 2, 0]
    found = sorted(path for paths in parts for path in paths)
    assert found == sorted(root / d / f for d in ("test", "train") for f in (NOISE, CLEAN))
    return root


def source(root: Path, **other: object) -> object:
    return EMDenoise.native(root, **{"generator": GENERATOR, "samples": SAMPLES, "seed": SEED, **other})


def test_samples_are_the_simulators_bit_for_bit(written: Path) -> None:
    read = source(written)
    assert_same_samples(read, EMDenoise.simulator(GENERATOR, SAMPLES, SEED), SAMPLES)


@pytest.mark.parametrize("split", ["publisher", "drawn"])
@pytest.mark.parametrize(("first", "count"), [(0, 1), (3, 20), (40, 10), (5, 0)])
def test_any_range_is_that_part_of_the_whole(written: Path, split: str, first: int, count: int) -> None:
    read = source(written, generator=Generator(size=32, split=split), samples=None)
    assert_any_range_is_part_of_the_whole(read, "train", read.samples["train"], first, count)


def test_layout_is_the_published_one(written: Path) -> None:
    with h5py.File(written / "train" / NOISE) as file:
        assert list(file) == ["images"]
        assert file["images"].shape == (70, 32, 32, 1)
        assert file["images"].dtype == np.float32
        np.testing.assert_array_equal(source(written).read("train", 4, 1)["noisy"][0], file["images"][4, :, :, 0])
    assert EMDenoise.simulator(Generator(), {"train": 1, "validation": 1}, 0).fields[0].shape == (256, 256)


def test_a_drawn_split_is_a_division_of_the_training_files(written: Path, tmp_path: Path) -> None:
    shutil.copytree(written / "train", tmp_path / "train")
    generator = Generator(size=32, split="drawn")
    with pytest.raises(ValueError, match=r"test.graphene_img_noise\.h5: not a readable HDF5 file"):
        source(tmp_path)
    splits = []
    for seed in (1, 1, 2):
        read = source(tmp_path, generator=generator, samples={"train": 52, "validation": 18}, seed=seed)
        assert read.samples == {"train": 52, "validation": 18}
        splits.append({s: {x.tobytes() for x in read.read(s, 0, n)["clean"]} for s, n in read.samples.items()})
        assert len(splits[-1]["train"] | splits[-1]["validation"]) == 70
    assert splits[0] == splits[1] != splits[2]
    assert source(tmp_path, generator=generator, samples=None).samples == {"train": 56, "validation": 14}


def test_other_numbers_are_read_as_float32(files: Path) -> None:
    with h5py.File(files / "train" / NOISE, "a") as file:
        del file["images"]
        file["images"] = np.full((70, 32, 32, 1), 200, np.uint8)
    batch = source(files).read("train", 0, 2)
    assert batch["noisy"].dtype == np.float32
    assert (batch["noisy"] == 200).all()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (None, "images: missing"),
        (np.zeros((70, 31, 32, 1), np.float32), r"images: float32 \(70, 31, 32, 1\); it must be numbers"),
        (np.zeros((70, 32, 32, 3), np.float32), r"images: float32 \(70, 32, 32, 3\); it must be numbers"),
        (np.full((70, 32, 32, 1), b"x"), r"images: \|S1 .*it must be numbers"),
        (np.zeros((69, 32, 32, 1), np.float32), "images: 69 of them, but 70 in graphene_img_noise.h5"),
    ],
)
def test_wrong_images(files: Path, images: np.ndarray | None, message: str) -> None:
    with h5py.File(files / "train" / CLEAN, "a") as file:
        del file["images"]
        if images is not None:
            file["images"] = images
    with pytest.raises(ValueError, match=rf"{CLEAN}: {message}"):
        source(files)


def test_numbers_that_are_not_finite(files: Path) -> None:
    with h5py.File(files / "test" / NOISE, "a") as file:
        file["images"][3, 0, 0, 0] = np.nan
    read = source(files)
    read.read("validation", 0, 3)
    with pytest.raises(ValueError, match=rf"{NOISE}: images: holds numbers that are not finite"):
        read.read("validation", 3, 1)


@pytest.mark.parametrize("keep", [0, 100, 0.5])
def test_truncated_file(files: Path, keep: float) -> None:
    path = files / "train" / NOISE
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if keep < 1 else int(keep)])
    with pytest.raises(ValueError, match=rf"{NOISE}: not a readable HDF5 file"):
        source(files)


def test_other_counts_than_stated(written: Path) -> None:
    with pytest.raises(ValueError, match=r"published.*: samples: the files hold .*70.*, the manifest states .*71"):
        source(written, samples={"train": 71, "validation": 10})
