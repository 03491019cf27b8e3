"""Files of profiles. No data of the paper's are public, so this package defines the layout, for a centre's own too.

HDF5 files `profiles_<split>_<k>.h5` in one directory, split train, validation or test, k = 0000, 0001, … in the order
of the samples. Each holds

    q          (300,)    float64  momentum transfer in Å⁻¹, positive, ascending, the same in all files
    intensity  (n, 300)  float32  relative to that at the lowest q, not negative
    shape      (n,)      uint8    0 sphere, 1 parallelepiped

From profile to sample: log10(intensity + 1e-6), less its mean over the first 500 training samples and divided by its
standard deviation over these, at each q on its own.
"""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np

from sciml_hpc.benchmarks.base import SampleField
from sciml_hpc.benchmarks.saxs import POINTS

SPHERE, PARALLELEPIPED = 0, 1
FLOOR = 1e-6
"""Added to an intensity before its logarithm, so that no counts are finite; a tenth of the least background."""
REFERENCE_SAMPLES = 500
"""Training samples from which the standardisation comes: so few that every rank can look at them."""
PROFILES_PER_FILE = 5000
"""Profiles in one of the files we write."""

FIELDS = (
    SampleField("profile", (POINTS,), "float32", "1", "log10 of the relative intensity, standardised at each q"),
    SampleField("shape", (), "uint8", "1", "0 sphere, 1 parallelepiped"),
)


class ProfileSource(ABC):
    """Samples from profiles (a `base.Source`); a subclass says where those come from."""

    fields = FIELDS

    def __init__(self, samples: Mapping[str, int]) -> None:
        self.samples = dict(samples)

    @property
    @abstractmethod
    def q(self) -> np.ndarray:
        """Momentum transfer, (300,) float64, Å⁻¹."""

    @abstractmethod
    def profiles(self, split: str, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Intensities (count, 300) float32 and shapes (count,) uint8 of samples `first` … `first + count - 1`."""

    def read(self, split: str, first: int, count: int) -> dict[str, np.ndarray]:
        """Samples `first` … `first + count - 1`, as `base.Source` says; IndexError beyond the split."""
        if first < 0 or count < 0 or first + count > self.samples[split]:
            raise IndexError(f"{split}: samples {first} … {first + count - 1} of {self.samples[split]}")
        intensity, shape = self.profiles(split, first, count)
        mean, deviation = self._standard
        return {"profile": ((_logarithm(intensity) - mean) / deviation).astype(np.float32), "shape": shape}

    @cached_property
    def _standard(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the logarithm at each q; 1 for one that does not vary."""
        values = _logarithm(self.profiles("train", 0, min(REFERENCE_SAMPLES, self.samples["train"]))[0])
        deviation = values.std(axis=0)
        return values.mean(axis=0), np.where(deviation > 0, deviation, 1)


def _logarithm(intensity: np.ndarray) -> np.ndarray:
    return np.log10(intensity.astype(np.float64) + FLOOR)


class ProfileFiles(ProfileSource):
    """The files in directory `root`. Raises ValueError, also from `read`, naming file and field."""

    def __init__(self, root: Path, samples: Mapping[str, int] | None) -> None:
        self.root = root
        self._parts: dict[str, list[tuple[Path, int]]] = {}
        """Per split the files in order, each with the number of its profiles."""
        self._q = None
        for path in sorted(root.glob("profiles_*.h5")):
            name = re.fullmatch(r"profiles_(train|validation|test)_(\d{4,})\.h5", path.name)
            if name is None:
                raise ValueError(f"{path}: the name must be profiles_<train|validation|test>_<number of 4 digits>.h5")
            parts = self._parts.setdefault(name[1], [])
            if int(name[2]) != len(parts):
                raise ValueError(
                    f"{path}: profiles_{name[1]}_{len(parts):04d}.h5 must come before it, and is not there"
                )
            parts.append((path, self._length(path)))
        held = {split: sum(n for _, n in parts) for split, parts in self._parts.items()}
        for split in ("train", "validation"):
            if not held.get(split):
                raise ValueError(f"{root}: no profiles in files profiles_{split}_*.h5")
        for split, count in (samples or {}).items():
            if held.get(split, 0) != count:
                raise ValueError(
                    f"{root}: {split}: the files hold {held.get(split, 0)} profiles; the manifest says {count}"
                )
        super().__init__(held)

    @property
    def q(self) -> np.ndarray:
        return self._q

    def profiles(self, split: str, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        intensity, shape = np.empty((count, POINTS), np.float32), np.empty(count, np.uint8)
        begin = 0
        for path, n in self._parts[split]:
            low, high = max(first, begin), min(first + count, begin + n)
            if low < high:
                out = slice(low - first, high - first)
                intensity[out], shape[out] = self._rows(path, slice(low - begin, high - begin))
            begin += n
        return intensity, shape

    def _rows(self, path: Path, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        with _opened(path) as file:
            intensity, shape = (_part(path, file, name, rows) for name in ("intensity", "shape"))
        where = f"profiles {rows.start} to {rows.stop - 1}"
        if not (np.isfinite(intensity) & (intensity >= 0)).all():
            raise ValueError(f"{path}: intensity: {where}: values that are negative or not finite")
        if not np.isin(shape, (SPHERE, PARALLELEPIPED)).all():
            raise ValueError(f"{path}: shape: {where}: values other than {SPHERE} and {PARALLELEPIPED}")
        return intensity, shape

    def _length(self, path: Path) -> int:
        """Profiles of a file that has everything it must have."""
        with _opened(path) as file:
            for name in ("q", "intensity", "shape"):
                if not isinstance(file.get(name), h5py.Dataset):
                    raise ValueError(f"{path}: {name}: missing; the file holds: {', '.join(file) or 'nothing'}")
            n = file["intensity"].shape[0] if file["intensity"].ndim else 0
            for name, shape in (("q", (POINTS,)), ("intensity", (n, POINTS)), ("shape", (n,))):
                found = file[name]
                if found.shape != shape or found.dtype.kind not in "fiu":
                    raise ValueError(f"{path}: {name}: {found.dtype} {found.shape}; it must be a number {shape}")
            q = _part(path, file, "q", slice(None)).astype(np.float64)
        if not (np.isfinite(q).all() and q[0] > 0 and (np.diff(q) > 0).all()):
            raise ValueError(f"{path}: q: not positive and ascending")
        if self._q is not None and not np.array_equal(q, self._q):
            raise ValueError(f"{path}: q: not that of the other files")
        self._q = q
        return n


def _opened(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path}: not a readable HDF5 file: {error}") from None


def _part(path: Path, file: h5py.File, name: str, rows: slice) -> np.ndarray:
    try:
        return file[name][rows]
    except OSError as error:
        raise ValueError(f"{path}: {name}: cannot be read: {error}") from None


def write(root: Path, source: ProfileSource, part: int, parts: int) -> list[Path]:
    """Write every `parts`-th file from the `part`-th, each under its name only once it is complete; their paths."""
    pieces = [
        (split, k, first, min(PROFILES_PER_FILE, count - first))
        for split, count in source.samples.items()
        for k, first in enumerate(range(0, count, PROFILES_PER_FILE))
    ]
    paths = []
    for split, k, first, count in pieces[part::parts]:
        path = root / f"profiles_{split}_{k:04d}.h5"
        intensity, shape = source.profiles(split, first, count)
        unfinished = path.with_suffix(".part")
        with h5py.File(unfinished, "w") as file:
            for name, values, units in (
                ("q", source.q, "1/angstrom"),
                ("intensity", intensity, "1"),
                ("shape", shape, "1"),
            ):
                file.create_dataset(name, data=values).attrs["units"] = units
        os.replace(unfinished, path)
        paths.append(path)
    return paths
