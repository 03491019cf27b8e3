"""Published files: the same samples back, bit for bit, and every defect named."""

from __future__ import annotations

import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest

from sciml_hpc.benchmarks.stemdl import Classification, Reconstruction, native
from sciml_hpc.benchmarks.stemdl.settings import ClassificationGenerator, ReconstructionGenerator

NPZ = ClassificationGenerator(space_groups=(2, 62), size=16, detector=16, k_max=0.5, variants=2, thickness_A=(20, 40))
RAW = NPZ.model_copy(update={"layout": "hdf5", "detector": 32, "validation_part": "dev"})
SCAN = ReconstructionGenerator(size=8, scan=2, field_A=3.0, thickness_A=(4.0, 8.0))
SAMPLES = {"train": 11, "validation": 4}
CASES = [(Classification, NPZ), (Classification, RAW), (Reconstruction, SCAN)]


@pytest.fixture(autouse=True)
def small_files(monkeypatch) -> None:
    monkeypatch.setattr(native, "MATERIALS_PER_FILE", 2)
    monkeypatch.setattr(native, "SCAN_FILE_BYTES", 2000)


def write(benchmark, generator, path: Path, parts: int = 1) -> list[Path]:
    return [f for part in range(parts) for f in benchmark.write_native(path, generator, SAMPLES, 3, part, parts)]


@pytest.mark.parametrize(("benchmark", "generator"), CASES)
@pytest.mark.parametrize("parts", [1, 3])
def test_the_simulators_samples_come_back(benchmark, generator, parts: int, tmp_path: Path) -> None:
    files = write(benchmark, generator, tmp_path / "data", parts)
    assert len(set(files)) == len(files)
    assert sorted(files) == sorted(f for f in (tmp_path / "data").rglob("*") if f.is_file())
    read = benchmark.native(tmp_path / "data", generator, SAMPLES, 0)
    made = benchmark.simulator(generator, SAMPLES, 3)
    assert read.samples == SAMPLES
    assert read.fields == made.fields
    for split, count in SAMPLES.items():
        expected = made.read(split, 0, count)
        for first, some in ((0, count), (1, 2), (count - 1, 1)):
            for name, values in read.read(split, first, some).items():
                assert values.dtype == expected[name].dtype
                assert np.array_equal(values, expected[name][first : first + some])


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


def test_opened_sources_travel_between_ranks(tmp_path: Path) -> None:
    write(Classification, RAW, tmp_path)
    source = Classification.native(tmp_path, RAW, SAMPLES, 0)
    copy = pickle.loads(pickle.dumps(source))
    assert np.array_equal(copy.read("train", 0, 2)["cbed"], source.read("train", 0, 2)["cbed"])


def test_npz_files_are_as_published(tmp_path: Path) -> None:
    """Names, keys, shapes and types of the processed form; numbers go on across the parts."""
    write(Classification, NPZ, tmp_path)
    names = {d: sorted(int(f.stem.split("-")[1]) for f in (tmp_path / d).iterdir()) for d in ("train", "test")}
    assert names == {"train": list(range(11)), "test": list(range(11, 15))}
    with np.load(tmp_path / "train" / "sample-10.npz", allow_pickle=False) as arrays:
        assert set(arrays.files) == {"data", "label"}
        assert arrays["data"].dtype == np.float32
        assert arrays["data"].shape == (3, 16, 16)
        assert arrays["label"].shape == (1,)


def test_raw_files_are_as_published(tmp_path: Path) -> None:
    """Groups, shapes and attributes as the publisher's notebook prints them."""
    write(Classification, RAW, tmp_path)
    with h5py.File(tmp_path / "train" / "batch_train_0.h5") as file:
        assert set(file) == {"sample_0_0", "sample_0_1", "sample_1_0", "sample_1_1"}
        group = file["sample_1_0"]
        assert group["cbed_stack"].shape == (3, 32, 32)
        assert group["cbed_stack"].dtype == np.float32
        a = dict(group.attrs)
    assert a["space_group"] == b"62"
    assert isinstance(a["material"], bytes)
    assert a["energy_keV"] == 100
    assert a["z_dirs"].tolist() == [[[1, 0, 0], [0, 1, 0], [0, 0, 1]]]
    assert a["y_dirs"].shape == (1, 3, 3)
    assert a["angles_degree"] == pytest.approx([90, 90, 90])
    assert a["abc_angstrom"].shape == a["semi_angles_rad"].shape == a["d_hkls_angstrom"].shape == (3,)
    atoms = sum(int("".join(c for c in word if c.isdigit())) for word in a["formula"].split())
    assert 11 < a["abc_angstrom"].prod() / atoms < 20
    # An orthorhombic crystal seen along a shows planes normal to b and c only.
    assert a["d_hkls_angstrom"] == pytest.approx([max(np.delete(a["abc_angstrom"], i)) for i in range(3)])


def test_the_split_is_by_material(tmp_path: Path) -> None:
    """Parts that share a material are refused; divided anew, all samples of a material are on one side."""
    write(Classification, RAW, tmp_path)
    with h5py.File(tmp_path / "dev" / "batch_dev_0.h5", "a") as file:
        file["sample_0_0"].attrs["material"] = np.bytes_("train-3")
    with pytest.raises(ValueError, match=r"attribute material: 1 materials, train-3 .* both train and dev"):
        Classification.native(tmp_path, RAW, SAMPLES, 0)
    anew = RAW.model_copy(update={"split": "material", "validation_fraction": 0.4})
    sides = []
    for seed in range(4):
        source = Classification.native(tmp_path, anew, None, seed)
        assert sum(source.samples.values()) == 15
        by_side = [
            {h5py.File(f)[g].attrs["material"] for f, g in source._index[split]} for split in ("train", "validation")
        ]
        assert not by_side[0] & by_side[1]
        assert len(by_side[0] | by_side[1]) == 8  # the ninth took another's name
        sides.append(frozenset(by_side[1]))
    assert len(set(sides)) > 1


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"label": np.array([3])}, "data"),
        ({"data": np.zeros((3, 16, 16), np.float32)}, "label"),
        ({"data": np.zeros((3, 16, 16)), "label": np.array([3])}, "data: float64"),
        ({"data": np.zeros((3, 8, 16), np.float32), "label": np.array([3])}, r"data: float32 \(3, 8, 16\)"),
        ({"data": np.full((3, 16, 16), np.nan, np.float32), "label": np.array([3])}, "data: .*finite"),
        ({"data": np.zeros((3, 16, 16), np.float32), "label": np.array([231])}, "label: .*231"),
        ({"data": np.zeros((3, 16, 16), np.float32), "label": np.array([3, 4])}, "label: .*one integer"),
        ({"data": np.array([{}]), "label": np.array([3])}, "[Pp]ickle"),
    ],
)
def test_malformed_npz_files_are_named(arrays, message: str, tmp_path: Path) -> None:
    write(Classification, NPZ, tmp_path)
    np.savez(tmp_path / "train" / "sample-0.npz", **arrays)
    with pytest.raises(ValueError, match=f"sample-0.npz: .*{message}"):
        Classification.native(tmp_path, NPZ, SAMPLES, 0).read("train", 0, 1)


@pytest.mark.parametrize("keep", [0, 100])
def test_truncated_files_are_named(keep: int, tmp_path: Path) -> None:
    write(Classification, NPZ, tmp_path / "npz")
    write(Reconstruction, SCAN, tmp_path / "scan")
    for file in (tmp_path / "npz/train/sample-0.npz", tmp_path / "scan/batch_train_0.h5"):
        file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"sample-0\.npz"):
        Classification.native(tmp_path / "npz", NPZ, SAMPLES, 0).read("train", 0, 1)
    with pytest.raises(ValueError, match=r"batch_train_0\.h5: not a readable HDF5 file"):
        Reconstruction.native(tmp_path / "scan", SCAN, SAMPLES, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g.__delitem__("cbed_stack"), "sample_0_1: cbed_stack: missing"),
        (lambda g: g.attrs.__delitem__("material"), "sample_0_1: attribute material: missing"),
        (lambda g: g.attrs.__delitem__("space_group"), "sample_0_1: space_group: None"),
        (lambda g: g.attrs.__setitem__("space_group", b"0"), "sample_0_1: space_group: .*'0'"),
        (lambda g: g.file.move("sample_0_1", "other"), "other: expected groups"),
    ],
)
def test_malformed_raw_files_are_named(change, message: str, tmp_path: Path) -> None:
    write(Classification, RAW, tmp_path)
    with h5py.File(tmp_path / "train" / "batch_train_0.h5", "a") as file:
        change(file["sample_0_1"])
    with pytest.raises(ValueError, match=rf"batch_train_0\.h5: {message}"):
        Classification.native(tmp_path, RAW, SAMPLES, 0).read("train", 0, 3)


def test_raw_patterns_must_divide_into_areas(tmp_path: Path) -> None:
    write(Classification, RAW, tmp_path)
    source = Classification.native(tmp_path, RAW.model_copy(update={"size": 24}), SAMPLES, 0)
    with pytest.raises(ValueError, match=r"sample_0_0: cbed_stack: shape \(3, 32, 32\), expected .* multiple of 24"):
        source.read("train", 0, 1)


def test_scans_of_another_size_are_refused(tmp_path: Path) -> None:
    write(Reconstruction, SCAN, tmp_path)
    with pytest.raises(ValueError, match=r"batch_train_0\.h5: cbed: float16 .*expected float16 \(n, 9, 8, 8\)"):
        Reconstruction.native(tmp_path, SCAN.model_copy(update={"scan": 3}), SAMPLES, 0)
    with h5py.File(tmp_path / "batch_train_0.h5", "a") as file:
        del file["2d_potential"]
    with pytest.raises(ValueError, match=r"batch_train_0\.h5: 2d_potential: missing"):
        Reconstruction.native(tmp_path, SCAN, SAMPLES, 0)
