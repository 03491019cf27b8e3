"""CANDLE's pre-joined UNO files (`top_21_auc_1fold.uno.h5`): reader and writer, with h5py alone.

Layout, as CANDLE's `topN_to_uno.py` and `--export_data` leave it by way of pandas' HDFStore (format "table"): per
partition (train, val, test) and network input a group `x_<partition>_<input>`, and `y_<partition>`. Each holds one
compound data set `table`, a row per sample: `index` (int64), then `values_block_<k>` (all columns of one type) or, for
pandas' data columns, a member with the column's name. Inputs of the one-drug file: 0 = expression, 1 = descriptors;
of the two-drug file: 0, 1 = doses, 2 = expression, 3, 4 = descriptors. `y_*` has the response (AUC or Growth) and the
names of cell and drugs. `/model` and many attributes are Python pickles: they are written, because CANDLE's and
pandas' readers want them, and never read.

Rows are joined (25 kB each), so the file is read in the pieces asked for, never whole.
"""

from __future__ import annotations

import contextlib
import importlib
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from sciml_hpc.benchmarks.base import SampleField
from sciml_hpc.benchmarks.uno import sample_fields

if TYPE_CHECKING:
    from sciml_hpc.benchmarks.uno import Generator
    from sciml_hpc.benchmarks.uno.synthetic import Screen

PARTITIONS = {"train": "train", "validation": "val", "test": "test"}
FEATURES = {
    "dose1": ("dose1", "dose"),
    "dose2": ("dose2", "dose"),
    "cell": ("cell.rnaseq", "cell.rnaseq"),
    "drug1": ("drug1.descriptors", "drug.descriptors"),
    "drug2": ("drug2.descriptors", "drug.descriptors"),
}
"""CANDLE's names of an input and of its kind."""
SUFFIX = ".uno.h5"
WRITE_BYTES = 1 << 20
"""Size of a chunk in the files we write, and of h5py's chunk cache."""


class Store:
    """The samples of one such file, in its order (a `base.Source`)."""

    def __init__(self, path: Path, generator: Generator, samples: Mapping[str, int] | None) -> None:
        self.fields, self.drugs = sample_fields(generator), generator.drugs
        self.path = _find(path)
        try:
            with h5py.File(self.path) as file:
                self.samples = {s: self._length(file, s) for s, name in PARTITIONS.items() if f"y_{name}" in file}
        except OSError as error:
            raise ValueError(f"{self.path}: not a readable HDF5 file: {error}") from None
        missing = {"train", "validation"} - set(self.samples)
        if missing:
            raise ValueError(f"{self.path}: has no group y_{PARTITIONS[sorted(missing)[0]]}")
        for split, count in (samples or {}).items():
            if self.samples.get(split) != count:
                raise ValueError(
                    f"{self.path}: y_{PARTITIONS[split]} has {self.samples.get(split, 'no')} rows; "
                    f"the manifest says {count}"
                )

    def read(self, split: str, first: int, count: int) -> dict[str, np.ndarray]:
        """Samples `first` … `first + count - 1`, as `base.Source` says; ValueError for rows that cannot be read."""
        rows, result = slice(first, first + count), {}
        with h5py.File(self.path) as file:
            for field, name, table in self._tables(file, split):
                try:
                    blocks = [table.fields(member)[rows].reshape(count, -1) for member in self._members(table, name)]
                except OSError as error:
                    raise ValueError(f"{self.path}: {name}: rows {first} to {rows.stop}: {error}") from None
                values = np.concatenate(blocks, axis=1).astype(field.dtype).reshape(count, *field.shape)
                if not np.isfinite(values).all():
                    raise ValueError(f"{self.path}: {name}: rows {first} to {rows.stop}: values that are not finite")
                result[field.name] = values
        return result

    def _length(self, file: h5py.File, split: str) -> int:
        """Rows of a partition; ValueError unless all its tables have that many, of the right width, and can be read."""
        lengths = {}
        for field, name, table in self._tables(file, split):
            width = sum(int(np.prod(table.dtype[m].shape, dtype=int)) for m in self._members(table, name))
            wanted = int(np.prod(field.shape, dtype=int))
            if width != wanted:
                raise ValueError(f"{self.path}: {name} has {width} columns of numbers; {field.name} needs {wanted}")
            _need_filters(self.path, name, table)
            lengths[name] = len(table)
        if len(set(lengths.values())) > 1:
            raise ValueError(f"{self.path}: tables of one partition differ in rows: {lengths}")
        extra = f"x_{PARTITIONS[split]}_{len(self.fields) - 1}"
        if extra in file:
            raise ValueError(f"{self.path}: has {extra}, one input more than data of {self.drugs} drug(s)")
        return lengths[f"y_{PARTITIONS[split]}"]

    def _tables(self, file: h5py.File, split: str) -> list[tuple[SampleField, str, h5py.Dataset]]:
        """Each field with the name and the data set of its table."""
        result = []
        for i, field in enumerate(self.fields):
            partition = PARTITIONS[split]
            name = f"y_{partition}" if field.name == "response" else f"x_{partition}_{i}"
            table = file.get(f"{name}/table")
            if not isinstance(table, h5py.Dataset) or table.dtype.names is None or table.ndim != 1:
                raise ValueError(f"{self.path}: {name}/table is missing, or not a pandas table (format='table')")
            result.append((field, name, table))
        return result

    def _members(self, table: h5py.Dataset, name: str) -> list[str]:
        """Members that hold numbers, in stored order; of `y_*` there is one, beside the names of cell and drugs."""
        numbers = [m for m in table.dtype.names if m != "index" and table.dtype[m].base.kind in "fiu"]
        other = set(table.dtype.names) - {"index"} - set(numbers)
        if not numbers or (other and name.startswith("x_")):
            raise ValueError(f"{self.path}: {name}/table has members {', '.join(table.dtype.names)}; expected numbers")
        return numbers


def write(directory: Path, screen: Screen) -> Path:
    """Write all samples of `screen` to `directory`/simulated.uno.h5 in the published layout; returns the file.

    Raises FileExistsError if it is there already. pandas and CANDLE's DataFeeder read the result.
    """
    path = directory / f"simulated{SUFFIX}"
    with h5py.File(path, "x") as file:
        _attributes(file, CLASS="GROUP", PYTABLES_FORMAT_VERSION="2.1", TITLE="", VERSION="1.0")
        inputs = [f for f in screen.fields if f.name != "response"]
        for split, count in screen.samples.items():
            partition = PARTITIONS[split]
            tables = [
                _frame(file, f"x_{partition}_{i}", {"": (f.dtype, int(np.prod(f.shape, dtype=int)))}, count)
                for i, f in enumerate(inputs)
            ]
            response = "AUC" if screen.generator.drugs == 1 else "Growth"
            names = ["Sample", *(f"Drug{d}" for d in range(1, screen.generator.drugs + 1))]
            truth = _frame(file, f"y_{partition}", {response: ("float32", 1)} | dict.fromkeys(names, ("S10", 1)), count)
            step = max(1, WRITE_BYTES // max(t.dtype.itemsize for t in tables))
            for first in range(0, count, step):
                n = min(step, count - first)
                samples = screen.read(split, first, n)
                for table, field in zip(tables, inputs, strict=True):
                    _append(table, first, [samples[field.name]])
                chosen = screen.choose(split, np.arange(first, first + n, dtype=np.uint64))
                labels = [np.char.add(k[:1].upper() + ".", i.astype(str)) for k, i in zip(names, chosen, strict=True)]
                _append(truth, first, [samples["response"], *labels])
        _model(file, inputs)
    return path


def _find(path: Path) -> Path:
    """`path` itself, or the one file *.uno.h5 in it."""
    if not path.is_dir():
        return path
    found = sorted(path.glob(f"*{SUFFIX}"))
    if len(found) != 1:
        raise ValueError(
            f"{path}: holds {len(found)} files *{SUFFIX}; one is needed: {', '.join(f.name for f in found)}"
        )
    return found[0]


def _need_filters(path: Path, name: str, table: h5py.Dataset) -> None:
    """ValueError if this HDF5 library lacks a filter of the table. CANDLE's script compresses by Blosc with the Snappy
    codec, which the package hdf5plugin brings (PyTables' own wheels no longer have Snappy)."""
    plist = table.id.get_create_plist()
    for i in range(plist.get_nfilters()):
        code, _, _, label = plist.get_filter(i)
        if h5py.h5z.filter_avail(code):
            continue
        with contextlib.suppress(ImportError):
            importlib.import_module("hdf5plugin")  # registers its filters with h5py
        if not h5py.h5z.filter_avail(code):
            raise ValueError(
                f"{path}: {name} is compressed with HDF5 filter {code} ({label.decode(errors='replace')}), which this "
                "HDF5 library does not have: install the Python package hdf5plugin, set HDF5_PLUGIN_PATH, or unpack "
                "the file with `h5repack -f NONE` where the filter is there"
            )


def _frame(file: h5py.File, name: str, columns: Mapping[str, tuple[str, int]], rows: int) -> h5py.Dataset:
    """An empty pandas "frame_table" of `rows` rows: a block of `width` equally named columns of a type for each entry
    name: (type, width)."""
    blocks = [f"values_block_{i}" for i in range(len(columns))]
    labels = [[label] * width for label, (_, width) in columns.items()]
    dtype = np.dtype([("index", "<i8"), *((b, t, (w,)) for b, (t, w) in zip(blocks, columns.values(), strict=True))])
    group = file.create_group(name)
    _attributes(group, CLASS="GROUP", TITLE="", VERSION="1.0", encoding="UTF-8", errors="strict")
    _attributes(group, pandas_type="frame_table", pandas_version="0.15.2", table_type="appendable_frame", levels=1)
    _attributes(
        group,
        index_cols=_pickled([(0, "index")]),
        values_cols=_pickled(blocks),
        non_index_axes=_pickled([(1, list(chain.from_iterable(labels)))]),
        data_columns=_pickled([]),
        nan_rep=_pickled(None),
        info=_pickled({1: {"names": [None], "type": "Index"}, "index": {}} | {block: {} for block in blocks}),
    )
    chunk = max(1, min(rows, WRITE_BYTES // dtype.itemsize))
    table = group.create_dataset("table", (rows,), dtype, maxshape=(None,), chunks=(chunk,))
    _attributes(table, CLASS="TABLE", VERSION="2.7", TITLE="", NROWS=rows, index_kind="integer")
    for i, member in enumerate(dtype.names):
        _attributes(table, **{f"FIELD_{i}_NAME": member, f"FIELD_{i}_FILL": np.zeros((), dtype[member].base)[()]})
    for block, label, (kind, _) in zip(blocks, labels, columns.values(), strict=True):
        text = f"string{8 * np.dtype(kind).itemsize}" if kind.startswith("S") else kind
        about = {"kind": _pickled(label), "meta": _pickled(None), "dtype": text}
        _attributes(table, **{f"{block}_{key}": value for key, value in about.items()})
    return table


def _append(table: h5py.Dataset, first: int, blocks: list[np.ndarray]) -> None:
    """Fill rows from `first` on with one array per block."""
    rows = np.empty(len(blocks[0]), table.dtype)
    rows["index"] = np.arange(first, first + len(rows))
    for member, values in zip(table.dtype.names[1:], blocks, strict=True):
        rows[member] = values.reshape(len(rows), -1)
    table[first : first + len(rows)] = rows


def _model(file: h5py.File, inputs: list[SampleField]) -> None:
    """The group /model, an empty frame whose attributes tell CANDLE's loader the inputs and their widths."""
    group = file.create_group("model")
    _attributes(group, CLASS="GROUP", TITLE="", VERSION="1.0", encoding="UTF-8", errors="strict")
    _attributes(group, pandas_type="frame", pandas_version="0.15.2", ndim=2, nblocks=0)
    shapes = OrderedDict((FEATURES[f.name][1], f.shape or (1,)) for f in inputs)
    features = OrderedDict(FEATURES[f.name] for f in inputs)
    _attributes(group, axis0_variety="regular", axis1_variety="regular")
    _attributes(group, input_features=_pickled(features), feature_shapes=_pickled(shapes))
    for name in ("axis0", "axis1"):
        axis = group.create_dataset(name, data=np.zeros(1))
        _attributes(axis, CLASS="ARRAY", VERSION="2.4", TITLE="", FLAVOR="numpy", kind="integer", value_type="int64")
        _attributes(axis, name=_pickled(None), shape=_pickled((0,)))


def _attributes(item: h5py.Group | h5py.Dataset, **values: Any) -> None:
    """Attributes as PyTables writes them: text of fixed length in UTF-8 (without a value if empty), pickles in ASCII,
    integers of 64 bits."""
    for name, value in values.items():
        if isinstance(value, str):
            kind = h5py.string_dtype("utf-8", max(1, len(value)))
            item.attrs[name] = np.array(value.encode(), kind) if value else h5py.Empty(kind)
        elif isinstance(value, bytes):
            item.attrs[name] = np.bytes_(value) if value else h5py.Empty("S1")
        else:
            item.attrs[name] = np.int64(value) if isinstance(value, int) else value


def _pickled(value: Any) -> bytes:
    """PyTables' form of an attribute that is no number or text: pickle protocol 0."""
    return pickle.dumps(value, protocol=0)
