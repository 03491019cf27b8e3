"""The published layout: files that pandas wrote are read, files that we write are pandas', and broken ones are named.

`test_uno_files/pandas_{zlib,blosc}.uno.h5` were written by pandas 3.1.1 and PyTables 3.11.1: the first by
`HDFStore.put(format="table")` as in CANDLE's topN_to_uno.py, the second by `append` with data columns as in its
exporter, compressed by Blosc as the published file is. Their values follow `expected`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from sciml_hpc.benchmarks.uno import Generator, Uno, native

FILES = Path(__file__).parent / "test_uno_files"
PUBLISHED = Generator(genes=8, descriptors=64)
SMALL = {"genes": 20, "descriptors": 100, "cells": 40, "compounds": 30}
SAMPLES = {"train": 300, "validation": 70, "test": 33}


def expected(number: int, rows: int) -> dict[str, np.ndarray]:
    """What the pandas files hold in partition `number` (train 0, val 1, test 2)."""
    i = np.arange(rows)[:, None]
    return {
        "cell": (number + i + np.arange(8) / 8).astype(np.float32),
        "drug1": (-number - i - np.arange(64) / 16).astype(np.float32),
        "response": ((i[:, 0] + 1) / (8 + number)).astype(np.float32),
    }


def check_against_expected(path: Path) -> None:
    store = Uno.native(path, PUBLISHED, None, 0)
    assert store.samples == {"train": 6, "validation": 4, "test": 3}
    for number, (split, rows) in enumerate(store.samples.items()):
        for first, count in ((0, rows), (1, 2)):
            samples = store.read(split, first, count)
            for name, values in expected(number, rows).items():
                np.testing.assert_array_equal(samples[name], values[first : first + count])
                assert samples[name].dtype == np.float32


def test_reads_what_pandas_wrote() -> None:
    check_against_expected(FILES / "pandas_zlib.uno.h5")


def test_reads_blosc_or_says_what_is_missing() -> None:
    path = FILES / "pandas_blosc.uno.h5"
    try:
        import hdf5plugin  # noqa: F401
    except ImportError:
        with pytest.raises(ValueError, match=r"pandas_blosc.*x_train_0.*filter 32001.*hdf5plugin"):
            Uno.native(path, PUBLISHED, None, 0)
    else:
        check_against_expected(path)


def test_a_missing_filter_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_plugin(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(native.h5py.h5z, "filter_avail", lambda code: code != 1)  # 1: deflate
    monkeypatch.setattr(native.importlib, "import_module", no_plugin)
    with pytest.raises(ValueError, match=r"filter 1 .*hdf5plugin.*h5repack"):
        Uno.native(FILES / "pandas_zlib.uno.h5", PUBLISHED, None, 0)


@pytest.mark.parametrize("drugs", [1, 2])
def test_round_trip_is_bit_identical(tmp_path: Path, drugs: int) -> None:
    generator = Generator(drugs=drugs, **SMALL)
    assert Uno.write_native(tmp_path, generator, SAMPLES, 7, part=1, parts=2) == []
    files = Uno.write_native(tmp_path, generator, SAMPLES, 7, part=0, parts=2)
    assert files == [tmp_path / "simulated.uno.h5"]
    simulated, stored = Uno.simulator(generator, SAMPLES, 7), Uno.native(tmp_path, generator, SAMPLES, 0)
    assert stored.fields == simulated.fields
    assert stored.samples == SAMPLES
    for split, count in SAMPLES.items():
        for first, n in ((0, count), (count // 3, 11)):
            wanted, found = simulated.read(split, first, n), stored.read(split, first, n)
            assert list(found) == list(wanted)
            for name, values in wanted.items():
                np.testing.assert_array_equal(found[name], values)
                assert found[name].dtype == values.dtype


def test_writes_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = Generator(**SMALL)
    monkeypatch.setattr(native, "WRITE_BYTES", 4096)
    asked: list[int] = []
    screen = Uno.simulator(generator, SAMPLES, 7)
    read = screen.read
    monkeypatch.setattr(screen, "read", lambda split, first, n: asked.append(n) or read(split, first, n))
    native.write(tmp_path, screen)
    assert max(asked) <= 4096 // (8 + 4 * 100)
    found = Uno.native(tmp_path, generator, SAMPLES, 0).read("train", 0, 300)
    np.testing.assert_array_equal(found["drug1"], read("train", 0, 300)["drug1"])
    with pytest.raises(FileExistsError):
        native.write(tmp_path, screen)


def test_attributes_are_those_of_pandas(tmp_path: Path) -> None:
    """Every attribute of our groups and tables that pandas writes too has the value, or the form, of pandas'."""
    Uno.write_native(tmp_path, Generator(genes=8, descriptors=64, cells=40, compounds=30), {"train": 6}, 7)
    own = {"pandas_version"}  # written by pandas before 3
    follows_data = {"FIELD_1_FILL", "non_index_axes", "values_block_0_kind", "feature_shapes"}
    with h5py.File(tmp_path / "simulated.uno.h5") as ours, h5py.File(FILES / "pandas_zlib.uno.h5") as theirs:
        for name in ("/", "model", "model/axis0", "x_train_0", "x_train_0/table", "x_train_1", "x_train_1/table"):
            mine, other = ours[name].attrs, theirs[name].attrs
            assert set(mine) <= set(other) | own, name
            for key in set(mine) - own:
                a, b = mine.get_id(key).get_type(), other.get_id(key).get_type()
                assert a.get_class() == b.get_class(), f"{name} {key}"
                if a.get_class() == h5py.h5t.STRING:
                    assert a.get_cset() == b.get_cset(), f"{name} {key}"
                if key not in follows_data and not isinstance(mine[key], h5py.Empty):
                    assert mine[key] == other[key], f"{name} {key}"
        assert ours["x_train_1"].attrs["non_index_axes"] == theirs["x_train_1"].attrs["non_index_axes"]
        for table in ("x_train_0/table", "x_train_1/table"):
            assert ours[table].dtype == theirs[table].dtype


@pytest.mark.parametrize("drugs", [1, 2])
def test_pandas_reads_what_we_wrote(tmp_path: Path, drugs: int) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("tables")
    generator = Generator(drugs=drugs, **SMALL)
    (path,) = Uno.write_native(tmp_path, generator, SAMPLES, 7)
    source = Uno.simulator(generator, SAMPLES, 7)
    with pandas.HDFStore(str(path), "r") as store:
        assert "/model" in store.keys()  # noqa: SIM118 - HDFStore is not a mapping
        features = store.get_storer("model").attrs.input_features
        shapes = store.get_storer("model").attrs.feature_shapes
        inputs = [f for f in source.fields if f.name != "response"]
        assert [shapes[kind] for kind in features.values()] == [f.shape or (1,) for f in inputs]
        samples = source.read("validation", 10, 20)
        for i, field in enumerate(inputs):
            frame = store.select(f"x_val_{i}", start=10, stop=30)
            np.testing.assert_array_equal(frame.to_numpy().reshape(20, *field.shape), samples[field.name])
        truth = store.select("y_val", start=10, stop=30)
        np.testing.assert_array_equal(truth["AUC" if drugs == 1 else "Growth"], samples["response"])
        chosen = source.choose("validation", np.arange(10, 30, dtype=np.uint64))
        assert list(truth["Sample"]) == [f"S.{c}" for c in chosen[0]]
        assert list(truth[f"Drug{drugs}"]) == [f"D.{d}" for d in chosen[-1]]


def broken(tmp_path: Path, change: str) -> Path:
    """A copy of pandas' file with one thing wrong."""
    path = tmp_path / "broken.uno.h5"
    shutil.copy(FILES / "pandas_zlib.uno.h5", path)
    if change == "not HDF5":
        path.write_bytes(b"AUC,Sample\n")
        return path
    with h5py.File(path, "r+") as file:
        if change == "no y_val":
            del file["y_val"]
        elif change == "fixed format":
            del file["x_val_1/table"]
        elif change == "text features":
            del file["x_train_0/table"]
            file["x_train_0/table"] = np.zeros(6, [("index", "i8"), ("values_block_0", "S4", (8,))])
        elif change == "rows differ":
            table = file["x_train_1/table"][:5]
            del file["x_train_1/table"]
            file["x_train_1/table"] = table
        elif change == "third input":
            file.copy("x_train_0", "x_train_2")
        elif change == "two responses":
            del file["y_train/table"]
            file["y_train/table"] = np.zeros(6, [("index", "i8"), ("AUC", "f4"), ("IC50", "f4")])
        elif change == "NaN":
            table = file["x_test_0/table"][:]
            table["values_block_0"][2, 3] = np.nan
            file["x_test_0/table"][:] = table
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("not HDF5", r"broken.*not a readable HDF5"),
        ("no y_val", r"broken.*y_val"),
        ("fixed format", r"broken.*x_val_1/table.*format='table'"),
        ("text features", r"broken.*x_train_0/table.*expected numbers"),
        ("rows differ", r"broken.*differ in rows.*'x_train_1': 5"),
        ("third input", r"broken.*x_train_2"),
        ("two responses", r"broken.*y_train has 2 columns.*response needs 1"),
    ],
)
def test_malformed_files_are_named(tmp_path: Path, change: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Uno.native(broken(tmp_path, change), PUBLISHED, None, 0)


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    store = Uno.native(broken(tmp_path, "NaN"), PUBLISHED, None, 0)
    store.read("test", 0, 2)
    with pytest.raises(ValueError, match=r"broken.*x_test_0.*not finite"):
        store.read("test", 1, 2)


def test_a_damaged_chunk_is_named(tmp_path: Path) -> None:
    path = broken(tmp_path, "nothing")
    with h5py.File(path) as file:
        chunk = file["x_train_1/table"].id.get_chunk_info(0)
    with path.open("r+b") as raw:
        raw.seek(chunk.byte_offset)
        raw.write(b"\xff" * chunk.size)
    store = Uno.native(path, PUBLISHED, None, 0)
    with pytest.raises(ValueError, match=r"broken.*x_train_1: rows 0 to 6"):
        store.read("train", 0, 6)


def test_widths_and_counts_must_be_as_declared(tmp_path: Path) -> None:
    path = FILES / "pandas_zlib.uno.h5"
    with pytest.raises(ValueError, match=r"x_train_0 has 8 columns of numbers; cell needs 942"):
        Uno.native(path, Generator(), None, 0)
    with pytest.raises(ValueError, match=r"y_val has 4 rows; the manifest says 5"):
        Uno.native(path, PUBLISHED, {"train": 6, "validation": 5}, 0)
    with pytest.raises(ValueError, match=r"holds 2 files"):
        Uno.native(FILES, PUBLISHED, None, 0)
    with pytest.raises(ValueError, match=r"holds 0 files"):
        Uno.native(tmp_path, PUBLISHED, None, 0)
