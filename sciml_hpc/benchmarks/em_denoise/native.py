"""The published files: `train/` and `test/`, each with `graphene_img_noise.h5` and `graphene_img_clean.h5`.

Each file has one data set `images`, (n, 256, 256, 1), channels last; image i of both belongs together. They are read as
they are: SciML-Bench's loader exchanges rows and columns on the way, which we do not. Values are those of the files;
the recipe's `data_range` says what white is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from sciml_hpc.benchmarks.base import SampleField
from sciml_hpc.benchmarks.em_denoise import Generator
from sciml_hpc.benchmarks.em_denoise.synthetic import Micrographs, sample_fields

FILES = {"noisy": "graphene_img_noise.h5", "clean": "graphene_img_clean.h5"}
DIRECTORIES = {"train": "train", "validation": "test"}
_BLOCK = 64


class PublishedFiles:
    """A `Source` of the published pairs. Raises ValueError, also from `read`, naming file and field."""

    def __init__(self, root: Path, generator: Generator, samples: Mapping[str, int] | None, seed: int) -> None:
        self.fields: tuple[SampleField, ...] = sample_fields(generator.size)
        drawn = generator.split == "drawn"
        self._paths = {
            split: {name: root / directory / file for name, file in FILES.items()}
            for split, directory in ({"train": "train", "validation": "train"} if drawn else DIRECTORIES).items()
        }
        self._open: dict[Path, h5py.Dataset] = {}
        held = {split: self._length(split) for split in self._paths}
        self._order: dict[str, np.ndarray] = {split: np.arange(n) for split, n in held.items()}
        if drawn:
            order = np.random.default_rng(seed).permutation(held["train"])
            validation = held["train"] // 5 if samples is None else samples["validation"]
            self._order = {"train": np.sort(order[validation:]), "validation": np.sort(order[:validation])}
        self.samples = {split: len(order) for split, order in self._order.items()}
        if samples is not None and dict(samples) != self.samples:
            raise ValueError(f"{root}: samples: the files hold {self.samples}, the manifest states {dict(samples)}")

    def _images(self, path: Path) -> h5py.Dataset:
        if path not in self._open:
            try:
                images = h5py.File(path, "r").get("images")
            except OSError as error:
                raise ValueError(f"{path}: not a readable HDF5 file: {error}") from None
            expected = (*self.fields[0].shape, 1)
            if not isinstance(images, h5py.Dataset):
                raise ValueError(f"{path}: images: missing")
            if images.shape[1:] != expected or images.dtype.kind not in "fiu":
                raise ValueError(f"{path}: images: {images.dtype} {images.shape}; it must be numbers (n, *{expected})")
            self._open[path] = images
        return self._open[path]

    def _length(self, split: str) -> int:
        noisy, clean = (len(self._images(path)) for path in self._paths[split].values())
        if noisy != clean:
            path = self._paths[split]["clean"]
            raise ValueError(f"{path}: images: {clean} of them, but {noisy} in {FILES['noisy']}")
        return noisy

    def read(self, split: str, first: int, count: int) -> dict[str, np.ndarray]:
        """See `Source`."""
        wanted = self._order[split][first : first + count]
        batch = {}
        for name, path in self._paths[split].items():
            images = self._images(path)
            batch[name] = np.empty((count, *self.fields[0].shape), np.float32)
            for run in np.split(np.arange(count), np.flatnonzero(np.diff(wanted) > 1) + 1):
                if len(run):
                    try:
                        batch[name][run] = images[wanted[run[0]] : wanted[run[-1]] + 1][..., 0]
                    except OSError as error:
                        raise ValueError(f"{path}: images: cannot be read: {error}") from None
            if not np.isfinite(batch[name]).all():
                raise ValueError(f"{path}: images: holds numbers that are not finite")
        return batch


def write(root: Path, source: Micrographs, part: int, parts: int) -> list[Path]:
    """Write every `parts`-th split from the `part`-th; a file has its name only once it is complete."""
    written = []
    for split, directory in [*DIRECTORIES.items()][part::parts]:
        (root / directory).mkdir(parents=True, exist_ok=True)
        paths = {name: root / directory / file for name, file in FILES.items()}
        unfinished = {name: path.with_suffix(".part") for name, path in paths.items()}
        count, size = source.samples[split], source.fields[0].shape[0]
        files = {name: h5py.File(path, "w") for name, path in unfinished.items()}
        try:
            for file in files.values():
                file.create_dataset("images", (count, size, size, 1), np.float32)
            for first in range(0, count, _BLOCK):
                batch = source.read(split, first, min(_BLOCK, count - first))
                for name, file in files.items():
                    file["images"][first : first + _BLOCK, ..., 0] = batch[name]
        finally:
            for file in files.values():
                file.close()
        for name, path in paths.items():
            os.replace(unfinished[name], path)
            written.append(path)
    return written
