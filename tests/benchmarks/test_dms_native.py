"""The files: the same samples back, bit for bit, and every defect named."""

from __future__ import annotations

import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest

from sciml_hpc.benchmarks.dms import Azimuth, Structure, native
from sciml_hpc.benchmarks.dms.settings import AzimuthGenerator, StructureGenerator

AZIMUTH = AzimuthGenerator(rows=17, columns=16)
STRUCTURE = StructureGenerator(rows=17, columns=16)
ANEW = STRUCTURE.model_copy(update={"split": "anew", "validation_fraction": 0.4})
SAMPLES = {"train": 11, "validation": 4}
CASES = [(Azimuth, AZIMUTH), (Structure, STRUCTURE)]


@pytest.fixture(autouse=True)
def small_files(monkeypatch) -> None:
    monkeypatch.setattr(native, "AZIMUTH_FILE_BYTES", 3 * 17 * 16)
    monkeypatch.setattr(native, "_WRITE_SAMPLES", 3)


def write(benchmark, generator, path: Path, parts: int = 1) -> list[Path]:
    return [f for part in range(parts) for f in benchmark.write_native(path, generator, SAMPLES, 3, part, parts)]


@pytest.mark.parametrize(("benchmark", "generator"), CASES)
@pytest.mark.parametrize("parts", [1, 3])
def test_the_simulators_samples_come_back(benchmark, generator, parts: int, tmp_path: Path) -> None:
    files = write(benchmark, generator, tmp_path / "data", parts)
    assert sorted(files) == sorted(f for f in (tmp_path / "data").rglob("*") if f.is_file())
    read = pickle.loads(pickle.dumps(benchmark.native(tmp_path / "data", generator, SAMPLES, 0)))
    made = benchmark.simulator(generator, SAMPLES, 3)
    assert read.samples == SAMPLES
    assert read.fields == made.fields
    for split, count in SAMPLES.items():
        expected = made.read(split, 0, count)
        for first, some in ((0, count), (1, 2), (count - 1, 1)):
            for name, values in read.read(split, first, some).items():
                assert values.dtype == expected[name].dtype
                assert np.array_equal(values, expected[name][first : first + some])


def test_structure_file_is_as_published(tmp_path: Path) -> None:
    """Keys, axes and types; the sample is what the reference's swapaxes(1, 3) makes of the image."""
    assert write(Structure, STRUCTURE, tmp_path) == [tmp_path / "training" / "data-binary.h5"]
    with h5py.File(tmp_path / "training" / "data-binary.h5") as file:
        assert set(file) == {"train", "test"}
        images, labels = file["train/images"][:], file["train/labels"][:]
        assert file["test/images"].shape == (4, 17, 16, 3)
    assert images.shape == (11, 17, 16, 3)
    assert images.dtype == np.float32
    assert labels.tolist() == [0, 1] * 5 + [0]
    sample = Structure.native(tmp_path, STRUCTURE, SAMPLES, 0).read("train", 0, 11)["image"]
    assert np.array_equal(sample, np.swapaxes(images, 1, 3))


def test_the_earlier_place_and_other_number_types_are_read(tmp_path: Path) -> None:
    write(Structure, STRUCTURE, tmp_path)
    expected = Structure.native(tmp_path, STRUCTURE, SAMPLES, 0).read("validation", 0, 4)
    with h5py.File(tmp_path / "training" / "data-binary.h5", "a") as file:
        for name, dtype in (("images", np.uint8), ("labels", np.float64)):
            data = file[f"test/{name}"][:].astype(dtype)
            del file[f"test/{name}"]
            file[f"test/{name}"] = data[:, None] if name == "labels" else data
    (tmp_path / "training" / "data-binary.h5").rename(tmp_path / "data-binary.h5")
    for name, values in Structure.native(tmp_path, STRUCTURE, SAMPLES, 0).read("validation", 0, 4).items():
        assert np.array_equal(values, expected[name])


def test_a_new_division_uses_every_image_once(tmp_path: Path) -> None:
    write(Structure, STRUCTURE, tmp_path)
    old = Structure.native(tmp_path, STRUCTURE, SAMPLES, 0)
    images = {image.tobytes() for split, n in SAMPLES.items() for image in old.read(split, 0, n)["image"]}
    sides = []
    for seed in (0, 1):
        new = Structure.native(tmp_path, ANEW, {"train": 9, "validation": 6}, seed)
        parts = [[image.tobytes() for image in new.read(s, 0, n)["image"]] for s, n in new.samples.items()]
        assert sorted(parts[0] + parts[1]) == sorted(images)
        sides.append(frozenset(new.read("validation", 0, 6)["image"].sum((1, 2, 3)).tolist()))
    assert sides[0] != sides[1]


def test_a_test_split_has_no_place_in_the_structure_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="train and validation samples only"):
        Structure.write_native(tmp_path, STRUCTURE, {**SAMPLES, "test": 2}, 3)
    Azimuth.write_native(tmp_path, AZIMUTH, {**SAMPLES, "test": 2}, 3)
    assert Azimuth.native(tmp_path, AZIMUTH, None, 0).samples == {**SAMPLES, "test": 2}


@pytest.mark.parametrize(("benchmark", "generator"), CASES)
def test_other_counts_than_the_manifests_are_refused(benchmark, generator, tmp_path: Path) -> None:
    write(benchmark, generator, tmp_path)
    with pytest.raises(ValueError, match=r"samples: the files hold .*11.*states .*12"):
        benchmark.native(tmp_path, generator, {**SAMPLES, "train": 12}, 0)
    assert benchmark.native(tmp_path, generator, None, 0).samples == SAMPLES


@pytest.mark.parametrize(("benchmark", "generator"), CASES)
def test_missing_files_are_named(benchmark, generator, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=str(tmp_path)):
        benchmark.native(tmp_path, generator, SAMPLES, 0)


@pytest.mark.parametrize(("benchmark", "generator"), CASES)
def test_truncated_files_are_named(benchmark, generator, tmp_path: Path) -> None:
    first = write(benchmark, generator, tmp_path)[0]
    first.write_bytes(first.read_bytes()[:100])
    with pytest.raises(ValueError, match=rf"{first.name}: not a readable HDF5 file"):
        benchmark.native(tmp_path, generator, SAMPLES, 0)


def replace(file: h5py.File, name: str, data: object) -> None:
    del file[name]
    if data is not None:
        file[name] = data


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("train/images", None, "train/images: missing"),
        ("test/labels", None, "test/labels: missing"),
        ("train/images", np.zeros((11, 16, 17, 3)), r"train/images: float64 \(11, 16, 17, 3\), expected .*17, 16, 3"),
        ("train/labels", np.zeros(10), r"train/labels: float64 \(10,\), expected 11 numbers"),
        ("train/labels", np.array([b"a"] * 11), r"train/labels: \|S1"),
        ("train/labels", np.full(11, 2), r"train/labels: sample 0 is 2, expected 0 or 1"),
        ("train/images", np.full((11, 17, 16, 3), np.nan), r"train/images: sample 0 holds numbers that are not finite"),
    ],
)
def test_malformed_structure_files_are_named(name: str, data, message: str, tmp_path: Path) -> None:
    write(Structure, STRUCTURE, tmp_path)
    with h5py.File(tmp_path / "training" / "data-binary.h5", "a") as file:
        replace(file, name, data)
    with pytest.raises(ValueError, match=rf"data-binary\.h5: {message}"):
        Structure.native(tmp_path, STRUCTURE, SAMPLES, 0).read("train", 0, 1)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("images", None, "images: missing"),
        ("images", np.zeros((3, 17, 16)), r"images: float64 \(3, 17, 16\), expected uint8"),
        ("images", np.zeros((3, 16, 17), np.uint8), r"images: uint8 \(3, 16, 17\), expected uint8 \(3, 17, 16\)"),
        ("azimuth_deg", np.zeros(2, np.float32), r"azimuth_deg: float32 \(2,\), expected float32 \(3,\)"),
        ("azimuth_deg", np.array([1, 91, 2], np.float32), r"azimuth_deg: 1.0 to 91.0, expected 0 to 90"),
        ("azimuth_deg", np.array([1, np.nan, 2], np.float32), r"azimuth_deg: nan"),
    ],
)
def test_malformed_azimuth_files_are_named(name: str, data, message: str, tmp_path: Path) -> None:
    write(Azimuth, AZIMUTH, tmp_path)
    with h5py.File(tmp_path / "azimuth_train_0.h5", "a") as file:
        replace(file, name, data)
    with pytest.raises(ValueError, match=rf"azimuth_train_0\.h5: {message}"):
        Azimuth.native(tmp_path, AZIMUTH, SAMPLES, 0).read("train", 0, 3)
