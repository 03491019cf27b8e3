"""The files of profiles: written by the simulator and read back, and what is said of damaged ones."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from published import assert_any_range_is_part_of_the_whole, assert_same_samples, write_in_parts

from sciml_hpc.benchmarks.saxs import Generator, Saxs, native
from sciml_hpc.benchmarks.saxs.native import ProfileFiles

GENERATOR = Generator()
SAMPLES = {"train": 50, "validation": 15, "test": 9}
SEED = 5


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("profiles")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "PROFILES_PER_FILE", 20)
        parts = write_in_parts(Saxs, root, GENERATOR, SAMPLES, SEED)
    assert sum(map(len, parts)) == 3 + 1 + 1
    return root


def source(root: Path, samples: dict[str, int] | None = SAMPLES) -> ProfileFiles:
    return Saxs.native(root, GENERATOR, samples, 0)


def test_samples_are_the_simulators_bit_for_bit(written: Path) -> None:
    read = source(written)
    assert_same_samples(read, Saxs.simulator(GENERATOR, SAMPLES, SEED), SAMPLES)
    assert source(written, None).samples == SAMPLES


@pytest.mark.parametrize(("first", "count"), [(0, 1), (19, 2), (15, 35), (49, 1), (0, 0)])
def test_any_range_is_that_part_of_the_whole(written: Path, first: int, count: int) -> None:
    assert_any_range_is_part_of_the_whole(source(written), "train", SAMPLES["train"], first, count)


def test_a_sample_is_the_standardised_logarithm_of_its_file(written: Path) -> None:
    rows = [h5py.File(path)["intensity"][...] for path in sorted(written.glob("profiles_train_*.h5"))]
    logarithm = np.log10(np.concatenate(rows).astype(float) + 1e-6)
    expected = (logarithm - logarithm.mean(0)) / logarithm.std(0)
    sample = source(written).read("train", 33, 1)
    np.testing.assert_allclose(sample["profile"][0], expected[33], rtol=1e-5, atol=1e-6)
    assert sample["shape"][0] == 1


def test_q_of_the_files_is_the_stated_one(written: Path) -> None:
    with h5py.File(written / "profiles_test_0000.h5") as file:
        np.testing.assert_allclose(file["q"], np.geomspace(0.005, 0.4, 300))
        assert file["q"].attrs["units"] == "1/angstrom"


def test_dark_points_and_constant_ones_do_no_harm(files: Path) -> None:
    for path in files.glob("*.h5"):
        with h5py.File(path, "a") as file:
            file["intensity"][:, 250] = 0
    profile = source(files).read("train", 0, 50)["profile"]
    assert np.isfinite(profile).all()
    assert not profile[:, 250].any()


def test_counts_that_the_manifest_does_not_have(written: Path) -> None:
    with pytest.raises(ValueError, match="train: the files hold 50 profiles; the manifest says 60"):
        source(written, {**SAMPLES, "train": 60})
    with pytest.raises(IndexError):
        source(written).read("train", 49, 2)


def test_missing_files(files: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no profiles in files profiles_train_\*\.h5"):
        source(tmp_path / "nowhere")
    (files / "profiles_train_0001.h5").unlink()
    with pytest.raises(ValueError, match=r"profiles_train_0002\.h5: profiles_train_0001\.h5 must come before it"):
        source(files)


def test_a_name_that_says_no_split(files: Path) -> None:
    (files / "profiles_test_0000.h5").rename(files / "profiles_tset_0000.h5")
    with pytest.raises(ValueError, match=r"profiles_tset_0000\.h5: the name must be"):
        source(files)


@pytest.mark.parametrize("field", ["q", "intensity", "shape"])
def test_missing_field(files: Path, field: str) -> None:
    with h5py.File(files / "profiles_train_0001.h5", "a") as file:
        del file[field]
    with pytest.raises(ValueError, match=rf"profiles_train_0001\.h5: {field}: missing; the file holds: "):
        source(files)


@pytest.mark.parametrize(
    ("field", "replacement", "message"),
    [
        ("q", np.linspace(0.1, 0.2, 299), r"q: float64 \(299,\); it must be a number \(300,\)"),
        ("q", np.linspace(0.0, 0.2, 300), r"q: not positive and ascending"),
        ("q", np.linspace(0.2, 0.1, 300), r"q: not positive and ascending"),
        ("q", np.linspace(0.1, 0.2, 300), r"q: not that of the other files"),
        (
            "intensity",
            np.ones((20, 299), np.float32),
            r"intensity: float32 \(20, 299\); it must be a number \(20, 300\)",
        ),
        ("intensity", np.full((20, 300), b"x"), r"intensity: \|S1 \(20, 300\); it must be a number"),
        ("shape", np.zeros((20, 1), np.uint8), r"shape: uint8 \(20, 1\); it must be a number \(20,\)"),
        ("shape", np.zeros(19, np.uint8), r"shape: uint8 \(19,\); it must be a number \(20,\)"),
    ],
)
def test_wrong_fields(files: Path, field: str, replacement: np.ndarray, message: str) -> None:
    with h5py.File(files / "profiles_train_0001.h5", "a") as file:
        del file[field]
        file[field] = replacement
    with pytest.raises(ValueError, match=rf"profiles_train_0001\.h5: {message}"):
        source(files)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e-3])
def test_intensities_that_cannot_be(files: Path, value: float) -> None:
    with h5py.File(files / "profiles_train_0001.h5", "a") as file:
        file["intensity"][3, 7] = value
    with pytest.raises(ValueError, match=r"profiles_train_0001\.h5: intensity: profiles 0 to 19: values that are neg"):
        source(files).read("train", 20, 1)


def test_a_shape_that_is_neither(files: Path) -> None:
    with h5py.File(files / "profiles_validation_0000.h5", "a") as file:
        file["shape"][4] = 2
    with pytest.raises(ValueError, match=r"validation_0000\.h5: shape: profiles 3 to 5: values other than 0 and 1"):
        source(files).read("validation", 3, 3)


def test_truncated_file(files: Path) -> None:
    path = files / "profiles_validation_0000.h5"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"profiles_validation_0000\.h5: not a readable HDF5 file"):
        source(files)
