"""Files of magnon maps: reader and writer. The paper published none, so this layout is this package's own.

A data set is a directory of HDF5 files `<split>_<NNNNN>.h5`, split one of train, validation and test, numbered from 0
without gaps; samples go on from one file to the next. A file holds

    counts    (n, 3, size, size) int16: neutrons counted over 0 ≤ h, k < 1, rows k and columns h, in the bands of energy
              of the attribute; −1 where there is no detector
    exchange  (n, 2) float32: J and J' in meV
    attribute bands_meV (3, 2) float64: lower and upper edge of each band

A measurement may be put into such a file with what is known of J and J' in the field of the exchange constants; counts
beyond 32,767 must be scaled down before.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from sciml_hpc.benchmarks.base import Source
from sciml_hpc.benchmarks.magnon import UNSEEN, BANDS_meV, sample_fields

FILE_SAMPLES = 1000
"""Samples in a file that we write: 98 MB at 128×128."""
_NAME = re.compile(r"(train|validation|test)_(\d{5})\.h5")


class Files:
    """A `base.Source` of the files below a directory. Opening it reads the shapes in every file, and no samples."""

    def __init__(self, path: Path, size: int, samples: Mapping[str, int] | None) -> None:
        self.fields = sample_fields(size)
        self._files: dict[str, list[Path]] = {}
        for file in sorted(path.iterdir()) if path.is_dir() else ():
            if name := _NAME.fullmatch(file.name):
                found = self._files.setdefault(name[1], [])
                if int(name[2]) != len(found):
                    raise ValueError(f"{path}: {name[1]}_{len(found):05d}.h5: missing, for there is {file.name}")
                found.append(file)
        for split in ("train", "validation"):
            if split not in self._files:
                raise ValueError(f"{path}: no files {split}_NNNNN.h5")
        self._starts = {
            split: np.cumsum([0, *(self._length(file) for file in files)]) for split, files in self._files.items()
        }
        self.samples = {split: int(starts[-1]) for split, starts in self._starts.items()}
        if samples is not None and dict(samples) != self.samples:
            raise ValueError(f"{path}: the files hold {self.samples} samples, the manifest states {dict(samples)}")

    def read(self, split: str, first: int, count: int) -> dict[str, np.ndarray]:
        """See `base.Source`."""
        result = {f.name: np.empty((count, *f.shape), f.dtype) for f in self.fields}
        starts = self._starts[split]
        for file, start, stop in zip(self._files[split], starts[:-1], starts[1:], strict=True):
            low, high = max(first, start), min(first + count, stop)
            if low >= high:
                continue
            with _open(file) as opened:
                for name, array in result.items():
                    try:
                        opened[name].read_direct(
                            array, np.s_[low - start : high - start], np.s_[low - first : high - first]
                        )
                    except OSError as error:
                        raise ValueError(f"{file}: {name}: cannot be read: {error}") from None
            counts, exchange = (result[f.name][low - first : high - first] for f in self.fields)
            if (counts < UNSEEN).any():
                raise ValueError(f"{file}: counts: holds {counts.min()}; only −1 (no detector) is below 0")
            if not np.isfinite(exchange).all():
                raise ValueError(f"{file}: exchange: holds numbers that are not finite")
        return result

    def _length(self, file: Path) -> int:
        lengths = {}
        with _open(file) as opened:
            for field in self.fields:
                data = opened.get(field.name)
                if not isinstance(data, h5py.Dataset):
                    raise ValueError(f"{file}: {field.name}: missing")
                if data.shape[1:] != field.shape or data.dtype != field.dtype:
                    expected = f"{field.dtype} (n, {', '.join(map(str, field.shape))})"
                    raise ValueError(f"{file}: {field.name}: {data.dtype} {data.shape}, expected {expected}")
                lengths[field.name] = data.shape[0]
            bands = opened.attrs.get("bands_meV")
            if bands is None or not np.array_equal(bands, BANDS_meV):
                raise ValueError(f"{file}: attribute bands_meV: {bands}, expected {np.array(BANDS_meV).tolist()}")
        if len(set(lengths.values())) > 1:
            raise ValueError(f"{file}: counts and exchange: different numbers of samples: {lengths}")
        return lengths["counts"]


def write(path: Path, source: Source, part: int, parts: int) -> list[Path]:
    """Write part `part` of `parts` of the files, each under its name only once it is complete; returns them."""
    path.mkdir(parents=True, exist_ok=True)
    blocks = [
        (split, number, first, min(FILE_SAMPLES, count - first))
        for split, count in source.samples.items()
        for number, first in enumerate(range(0, count, FILE_SAMPLES))
    ]
    written = []
    for split, number, first, count in blocks[part::parts]:
        file = path / f"{split}_{number:05d}.h5"
        partial = file.with_suffix(".part")
        with h5py.File(partial, "w") as opened:
            for name, array in source.read(split, first, count).items():
                opened[name] = array
            opened.attrs["bands_meV"] = np.array(BANDS_meV)
        os.replace(partial, file)
        written.append(file)
    return written


def _open(file: Path) -> h5py.File:
    try:
        return h5py.File(file, "r")
    except OSError as error:
        raise ValueError(f"{file}: not a readable HDF5 file: {error}") from None
