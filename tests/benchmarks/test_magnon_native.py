"""The files: they hold the simulated samples bit for bit, and broken ones are named."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from sciml_hpc.benchmarks.magnon import Generator, Magnon, native

SMALL = Generator(size=32, counts=5.0)
SAMPLES = {"train": 25, "validation": 11, "test": 3}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data set in files of ten samples, written in three parts."""
    monkeypatch.setattr(native, "FILE_SAMPLES", 10)
    written = [Magnon.write_native(tmp_path, SMALL, SAMPLES, 7, part, 3) for part in range(3)]
    assert sorted(f.name for part in written for f in part) == sorted(p.name for p in tmp_path.iterdir())
    return tmp_path


def test_round_trip_is_bit_identical(files: Path) -> None:
    assert {p.name for p in files.iterdir()} == {
        *(f"train_0000{i}.h5" for i in range(3)),
        *(f"validation_0000{i}.h5" for i in range(2)),
        "test_00000.h5",
    }
    simulated, stored = Magnon.simulator(SMALL, SAMPLES, 7), Magnon.native(files, SMALL, SAMPLES, 0)
    assert stored.fields == simulated.fields
    assert stored.samples == SAMPLES
    for split, count in SAMPLES.items():
        for first, n in ((0, count), (count // 3, count // 2)):
            wanted, found = simulated.read(split, first, n), stored.read(split, first, n)
            assert list(found) == list(wanted)
            for name, values in wanted.items():
                np.testing.assert_array_equal(found[name], values)
                assert found[name].dtype == values.dtype


def test_layout_is_the_documented_one(files: Path) -> None:
    with h5py.File(files / "train_00002.h5") as file:
        assert set(file) == {"counts", "exchange"}
        assert (file["counts"].shape, file["counts"].dtype) == ((5, 3, 32, 32), np.int16)
        assert (file["exchange"].shape, file["exchange"].dtype) == ((5, 2), np.float32)
        assert file.attrs["bands_meV"].tolist() == [[2, 3], [3, 5], [5, 8]]


def change(file: Path, field: str, values: np.ndarray | None) -> None:
    with h5py.File(file, "r+") as opened:
        del opened[field]
        if values is not None:
            opened[field] = values


@pytest.mark.parametrize(
    ("field", "values", "message"),
    [
        ("counts", None, r"train_00001.*counts: missing"),
        ("exchange", np.zeros((10, 3), np.float32), r"train_00001.*exchange: float32 \(10, 3\), expected float32"),
        ("counts", np.zeros((10, 3, 32, 32), np.float32), r"train_00001.*counts: float32.*expected int16"),
        ("counts", np.zeros((9, 3, 32, 32), np.int16), r"train_00001.*counts and exchange: different numbers"),
    ],
)
def test_malformed_fields_are_named(files: Path, field: str, values: np.ndarray | None, message: str) -> None:
    change(files / "train_00001.h5", field, values)
    with pytest.raises(ValueError, match=message):
        Magnon.native(files, SMALL, None, 0)


def test_malformed_files_are_named(files: Path) -> None:
    with pytest.raises(ValueError, match=r"manifest states.*26"):
        Magnon.native(files, SMALL, SAMPLES | {"train": 26}, 0)
    with pytest.raises(ValueError, match=r"counts: int16 \(\d+, 3, 32, 32\), expected int16 \(n, 3, 64, 64\)"):
        Magnon.native(files, Generator(size=64), None, 0)
    with h5py.File(files / "test_00000.h5", "r+") as opened:
        opened.attrs["bands_meV"] = [[0.0, 1.0]]
    with pytest.raises(ValueError, match=r"test_00000.*bands_meV"):
        Magnon.native(files, SMALL, None, 0)
    (files / "test_00000.h5").write_bytes(b"J,J'\n")
    with pytest.raises(ValueError, match=r"test_00000.*not a readable HDF5"):
        Magnon.native(files, SMALL, None, 0)
    (files / "test_00000.h5").unlink()
    (files / "train_00001.h5").unlink()
    with pytest.raises(ValueError, match=r"train_00001\.h5: missing.*train_00002"):
        Magnon.native(files, SMALL, None, 0)


def test_no_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no files train_NNNNN"):
        Magnon.native(tmp_path, SMALL, None, 0)
    with pytest.raises(ValueError, match="nowhere: no files train_NNNNN"):
        Magnon.native(tmp_path / "nowhere", SMALL, None, 0)


def test_values_that_make_no_sense_are_refused(files: Path) -> None:
    with h5py.File(files / "validation_00000.h5", "r+") as opened:
        opened["counts"][4, 0, 1, 1] = -2
        opened["exchange"][7, 1] = np.nan
    store = Magnon.native(files, SMALL, None, 0)
    store.read("validation", 0, 4)
    with pytest.raises(ValueError, match=r"validation_00000.*counts: holds -2"):
        store.read("validation", 3, 3)
    with pytest.raises(ValueError, match=r"validation_00000.*exchange: .*not finite"):
        store.read("validation", 6, 3)
