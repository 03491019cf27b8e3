"""The files: readers and writers.

Structure (sciml-bench, dms_structure.py): one file `training/data-binary.h5`, or `data-binary.h5` as an earlier version
has it; groups train and test, each with `images` (n, rows, columns, 3) and `labels` (n,). Images are float32 by their
size: 8,060 of 487 × 195 × 3 are 9.2e9 bytes, the 8.6 GiB that the suite states. Samples are the images with rows and
columns exchanged, as the reference trains on them: `swapaxes(1, 3)`. (Its inference does not exchange them; as the
first dense layer has as many inputs either way, nothing complains.) Our validation is the publisher's test.

Azimuth: nothing is published; the layout is ours. Files `azimuth_<split>_<number>.h5`, each with `images` (n, rows,
columns) uint8 and `azimuth_deg` (n,) float32.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from sciml_hpc.benchmarks.dms.settings import PERIOD_DEG, AzimuthGenerator, StructureGenerator
from sciml_hpc.benchmarks.dms.synthetic import (
    AzimuthPatterns,
    StructurePatterns,
    azimuth_fields,
    structure_fields,
)

STRUCTURE_FILE = Path("training", "data-binary.h5")
AZIMUTH_FILE_BYTES = 256 << 20
"""Size at which we begin a new file of azimuths."""
_PARTS = {"train": "train", "validation": "test"}
_WRITE_SAMPLES = 64
"""Images simulated and written at a time."""


class StructureFile:
    """A `Source` of the published file's images. Opening it reads shapes and, for a new division, nothing more."""

    def __init__(self, path: Path, generator: StructureGenerator, samples: Mapping[str, int] | None, seed: int) -> None:
        self.fields = structure_fields(generator)
        self.path = next((p for p in (path / STRUCTURE_FILE, path / STRUCTURE_FILE.name) if p.exists()), None)
        if self.path is None:
            raise ValueError(f"{path / STRUCTURE_FILE}: missing, and so is {path / STRUCTURE_FILE.name}")
        with _open(self.path) as file:
            lengths = {split: self._length(file, part) for split, part in _PARTS.items()}
        rows = [(part, i) for split, part in _PARTS.items() for i in range(lengths[split])]
        if generator.split == "anew":
            order = np.random.default_rng(seed).permutation(len(rows))
            rows = [rows[i] for i in order]
            lengths["validation"] = round(len(rows) * generator.validation_fraction)
            lengths["train"] = len(rows) - lengths["validation"]
        self._rows = {"train": rows[: lengths["train"]], "validation": rows[lengths["train"] :]}
        self.samples = _counted(self.path, lengths, samples)

    def _length(self, file: h5py.File, part: str) -> int:
        """Samples of a part, whose data sets must be there and fit each other."""
        images, labels = (_dataset(self.path, file, f"{part}/{name}") for name in ("images", "labels"))
        _, columns, rows = self.fields[0].shape
        if images.shape[1:] != (rows, columns, 3) or images.dtype.kind not in "fiu":
            expected = f"numbers (n, {rows}, {columns}, 3)"
            raise ValueError(f"{self.path}: {part}/images: {images.dtype} {images.shape}, expected {expected}")
        if labels.shape not in ((len(images),), (len(images), 1)) or labels.dtype.kind not in "fiu":
            expected = f"{len(images)} numbers, as many as images"
            raise ValueError(f"{self.path}: {part}/labels: {labels.dtype} {labels.shape}, expected {expected}")
        return len(images)

    def read(self, split: str, first: int, count: int) -> dict[str, np.ndarray]:
        """See `Source`."""
        images = np.empty((count, *self.fields[0].shape), dtype=np.float32)
        phases = np.empty(count, dtype=np.int64)
        with _open(self.path) as file:
            for i, (part, row) in enumerate(self._rows[split][first : first + count]):
                try:
                    image, label = file[f"{part}/images"][row], np.ravel(file[f"{part}/labels"][row])[0]
                except OSError as error:
                    raise ValueError(f"{self.path}: {part}: sample {row} cannot be read: {error}") from error
                if not np.isfinite(image).all():
                    raise ValueError(f"{self.path}: {part}/images: sample {row} holds numbers that are not finite")
                if label not in (0, 1):
                    raise ValueError(f"{self.path}: {part}/labels: sample {row} is {label}, expected 0 or 1")
                images[i], phases[i] = image.swapaxes(0, 2), label
        return {"image": images, "phase": phases}


class AzimuthFiles:
    """A `Source` of azimuth files, in the order of their numbers. Opening it reads the shapes in every file."""

    def __init__(self, path: Path, generator: AzimuthGenerator, samples: Mapping[str, int] | None) -> None:
        self.fields = azimuth_fields(generator)
        self._files: dict[str, list[Path]] = {}
        self._starts: dict[str, np.ndarray] = {}
        for split in ("train", "validation", "test"):
            files = _numbered(path, split)
            if files or split != "test":
                self._files[split] = files
                self._starts[split] = np.cumsum([0, *map(self._length, files)])
            if not files and split != "test":
                raise ValueError(f"{path}: no file is named azimuth_{split}_<number>.h5")
        self.samples = _counted(path, {split: int(s[-1]) for split, s in self._starts.items()}, samples)

    def _length(self, path: Path) -> int:
        with _open(path) as file:
            images, azimuths = (_dataset(path, file, name) for name in ("images", "azimuth_deg"))
            for name, data, field in zip(("images", "azimuth_deg"), (images, azimuths), self.fields, strict=True):
                shape = (len(images), *field.shape)
                if data.shape != shape or data.dtype != field.dtype:
                    found = f"{data.dtype} {data.shape}"
                    raise ValueError(f"{path}: {name}: {found}, expected {field.dtype} {shape}")
            return len(images)

    def read(self, split: str, first: int, count: int) -> dict[str, np.ndarray]:
        """See `Source`."""
        batch = {f.name: np.empty((count, *f.shape), dtype=f.dtype) for f in self.fields}
        starts = self._starts[split]
        for path, start, stop in zip(self._files[split], starts[:-1], starts[1:], strict=True):
            low, high = max(first, start), min(first + count, stop)
            if low >= high:
                continue
            with _open(path) as file:
                for name, field in zip(("images", "azimuth_deg"), self.fields, strict=True):
                    try:
                        part = file[name][low - start : high - start]
                    except OSError as error:
                        raise ValueError(f"{path}: {name}: cannot be read: {error}") from error
                    batch[field.name][low - first : high - first] = part
            azimuths = batch["azimuth"][low - first : high - first]
            if not ((azimuths >= 0) & (azimuths <= PERIOD_DEG)).all():
                limits = f"{azimuths.min()} to {azimuths.max()}"
                raise ValueError(f"{path}: azimuth_deg: {limits}, expected 0 to {PERIOD_DEG:g}")
        return batch


def write_structure(path: Path, source: StructurePatterns) -> Path:
    """Write the published file, under its name only once it is complete."""
    if set(source.samples) != set(_PARTS):
        raise ValueError(f"{STRUCTURE_FILE}: holds train and validation samples only, not {', '.join(source.samples)}")
    target = path / STRUCTURE_FILE
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(".part")
    _, columns, rows = source.fields[0].shape
    with h5py.File(unfinished, "w") as file:
        for split, part in _PARTS.items():
            count = source.samples[split]
            images = file.create_dataset(f"{part}/images", (count, rows, columns, 3), np.float32)
            labels = file.create_dataset(f"{part}/labels", (count,), np.int64)
            for first in range(0, count, _WRITE_SAMPLES):
                batch = source.read(split, first, min(_WRITE_SAMPLES, count - first))
                images[first : first + _WRITE_SAMPLES] = batch["image"].swapaxes(1, 3)
                labels[first : first + _WRITE_SAMPLES] = batch["phase"]
    os.replace(unfinished, target)
    return target


def write_azimuth(path: Path, source: AzimuthPatterns, part: int, parts: int) -> list[Path]:
    """Part `part` of `parts` of the azimuth files, `AZIMUTH_FILE_BYTES` each."""
    path.mkdir(parents=True, exist_ok=True)
    per_file = max(1, AZIMUTH_FILE_BYTES // int(np.prod(source.fields[0].shape)))
    written = []
    for split, count in source.samples.items():
        for number in range(part, -(-count // per_file), parts):
            first = number * per_file
            batch = source.read(split, first, min(per_file, count - first))
            written.append(path / f"azimuth_{split}_{number}.h5")
            unfinished = written[-1].with_suffix(".part")
            with h5py.File(unfinished, "w") as file:
                file["images"], file["azimuth_deg"] = batch["image"], batch["azimuth"]
            os.replace(unfinished, written[-1])
    return written


def _numbered(directory: Path, split: str) -> list[Path]:
    """The files of a split, in the order of their numbers."""
    matches = (re.fullmatch(rf"azimuth_{split}_(\d+)\.h5", entry.name) for entry in directory.iterdir())
    numbers = sorted(int(m[1]) for m in matches if m)
    return [directory / f"azimuth_{split}_{n}.h5" for n in numbers]


def _counted(path: Path, found: dict[str, int], stated: Mapping[str, int] | None) -> dict[str, int]:
    if stated is not None and dict(stated) != found:
        raise ValueError(f"{path}: samples: the files hold {found}, the manifest states {dict(stated)}")
    return found


def _open(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path}: not a readable HDF5 file: {error}") from error


def _dataset(path: Path, file: h5py.File, name: str) -> h5py.Dataset:
    found = file.get(name)
    if not isinstance(found, h5py.Dataset) or not found.shape:
        raise ValueError(f"{path}: {name}: missing")
    return found
