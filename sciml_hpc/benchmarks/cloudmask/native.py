"""Published files of CloudMask: what a scene holds, how it becomes samples, and which split it belongs to.

The data set is one HDF5 file `S3A*.hdf` per granule (three minutes of Sentinel-3A along its orbit) with `refs`
(1200, 1500, 6), `bts` (1200, 1500, 3) in kelvin and `bayes` (1200, 1500, 1) on a 1 km grid. Below the root lie
`training/` and `inference/` (formerly `one-day/{day,night}` and `ssts`). Other fields (`rads`, `summary`) are not read.

From scene to sample, as in MLCommons' reference: centre crop to whole patches, 4 × 5 patches of P × P in row-major
order, `refs` − 0.5 and (`bts` − 270)/22, mask = `bayes` > 0. The published size is P = 256; the simulator also
makes smaller scenes (1200·P/256 × 1500·P/256) with the same 20 patches.

Missing values. Of a sample's image, a `refs` that is not finite counts as no light (0) and a `bts` that is not
finite or not above 0 K as 270 K (0 after normalisation). Where `bayes` is not finite or is negative, the truth is
UNKNOWN: loss and metrics pass over the pixel. Each is counted in `PatchSource.missing` and logged.
"""

from __future__ import annotations

import logging
import os
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

import h5py
import numpy as np

from sciml_hpc.benchmarks.base import SampleField

PATCH_ROWS, PATCH_COLUMNS = 4, 5
PATCHES = PATCH_ROWS * PATCH_COLUMNS
"""Patches of a scene: 1024 × 1280 of its 1200 × 1500 pixels at P = 256."""

CLEAR, CLOUD, UNKNOWN = 0, 1, 255
"""Values of a mask."""

BT_OFFSET_K, BT_SCALE_K, REF_OFFSET = np.float32(270), np.float32(22), np.float32(0.5)
"""Normalisation of the reference (mlcommons/science, cloudmask/data_loader.py)."""

ORBIT_S = 27 * 86400 / 385
"""Period of Sentinel-3: 385 orbits in 27 days (ESA mission requirements)."""

_BANDS = {"refs": 6, "bts": 3, "bayes": 1}
_START = re.compile(r"_(\d{8}T\d{6})_")

log = logging.getLogger(__name__)


def scene_shape(patch: int) -> tuple[int, int]:
    """Rows and columns of a scene whose patches are `patch` pixels wide: (1200, 1500) at 256."""
    return 1200 * patch // 256, 1500 * patch // 256


def sample_fields(patch: int) -> tuple[SampleField, ...]:
    """What one sample holds."""
    return (
        SampleField("image", (9, patch, patch), "float32", "1", "S1–S6 reflectance − 0.5; S7–S9 (BT/K − 270)/22"),
        SampleField("mask", (patch, patch), "uint8", "1", "1 cloud, 0 clear, 255 not known"),
    )


def scenes_for(samples: Mapping[str, int]) -> dict[str, int]:
    """Scenes that hold so many samples, per split."""
    return {split: -(-count // PATCHES) for split, count in samples.items()}


def sensing_start_s(name: str) -> float:
    """Start of sensing (s since 1970, UTC) from a granule's name, whose first time stamp it is (ESA naming rules).

    Raises ValueError if there is none: without it neighbouring granules could not be kept in one split.
    """
    stamp = _START.search(name)
    if stamp is None:
        raise ValueError(f"{name}: no sensing time _YYYYMMDDThhmmss_ in the file name")
    return datetime.strptime(stamp[1], "%Y%m%dT%H%M%S").replace(tzinfo=timezone.utc).timestamp()


def split_scenes(names: Sequence[str], wanted: Mapping[str, int] | None, seed: int) -> dict[str, list[str]]:
    """Training and validation granules, from the names alone; the order of `names` has no effect.

    Granules follow each other along the orbit, and the next orbit passes beside this one, so granules drawn singly
    would put pictures of the same clouds into both splits. Granules less than an orbit apart therefore form a
    group, and groups go to validation whole, in an order drawn from `seed`, while they fit. Only if that leaves
    validation short is one group cut, the longest left: its head goes to validation, and the granule behind
    the cut to nobody if there is one to spare.

    `wanted` scenes per split; None: a fifth for validation, as the reference, and the rest for training. The
    lists, in an order drawn from `seed`, may be longer than wanted. Raises ValueError if there are too few granules.
    """
    starts = {name: sensing_start_s(name) for name in names}
    ordered = sorted(names, key=lambda name: (starts[name], name))
    if wanted is None:
        fifth = len(ordered) // 5
        wanted = {"train": len(ordered) - fifth - 1, "validation": fifth}
    spare = len(ordered) - wanted["train"] - wanted["validation"]
    if spare < 0:
        raise ValueError(
            f"{wanted['train']} training and {wanted['validation']} validation scenes wanted, {len(ordered)} found"
        )
    groups: list[list[str]] = []
    for i, name in enumerate(ordered):
        if i == 0 or starts[name] - starts[ordered[i - 1]] > ORBIT_S:
            groups.append([])
        groups[-1].append(name)

    rng = np.random.Generator(np.random.Philox(seed))
    validation, others = [], []
    for i in rng.permutation(len(groups)):
        fits = len(groups[i]) <= wanted["validation"] - len(validation)
        (validation if fits else others).extend(groups[i] if fits else [groups[i]])
    if short := wanted["validation"] - len(validation):
        others.sort(key=len)
        cut = others.pop()
        validation += cut[:short]
        others.append(cut[short + min(spare, 1) :])
    train = [name for group in others for name in group]
    return {
        "train": [train[i] for i in rng.permutation(len(train))],
        "validation": [validation[i] for i in rng.permutation(len(validation))],
    }


class PatchSource(ABC):
    """Samples cut from scenes: sample i of a split is patch i mod 20 of its scene i div 20.

    `scenes` lists the names per split. `samples` may ask for fewer samples than the scenes hold, not for more
    (ValueError). A subclass says where a region of a scene comes from.
    """

    def __init__(self, patch: int, scenes: Mapping[str, Sequence[str]], samples: Mapping[str, int] | None) -> None:
        self.patch = patch
        self.scenes = scenes
        self.fields = sample_fields(patch)
        held = {split: PATCHES * len(names) for split, names in scenes.items()}
        self.samples = dict(held if samples is None else samples)
        for split, count in self.samples.items():
            if count > held.get(split, 0):
                raise ValueError(f"{split}: {count} samples wanted, {held.get(split, 0)} there are")
        self.missing: Counter[str] = Counter()
        """Values met so far that were missing in the file, per field."""

    @abstractmethod
    def region(self, scene: str, rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`refs` (6, r, c), `bts` (3, r, c) and `bayes` (r, c) of part of a scene, float32."""

    def read(self, split: str, first: int, count: int) -> dict[str, np.ndarray]:
        """Samples `first` … `first + count - 1` of a split: `image` (count, 9, P, P), `mask` (count, P, P).

        Raises IndexError beyond the split, ValueError naming file and field if a file is not as it should be.
        """
        if first < 0 or count < 0 or first + count > self.samples[split]:
            raise IndexError(f"{split}: samples {first} … {first + count - 1} of {self.samples[split]}")
        size = self.patch
        top, left = ((extent % size) // 2 for extent in scene_shape(size))
        out = {f.name: np.empty((count, *f.shape), f.dtype) for f in self.fields}
        done = 0
        while done < count:
            scene, patch = divmod(first + done, PATCHES)
            row, column = divmod(patch, PATCH_COLUMNS)
            run = min(PATCH_COLUMNS - column, count - done)  # patches side by side: one region
            y, x = top + row * size, left + column * size
            name = self.scenes[split][scene]
            refs, bts, bayes = self.region(name, slice(y, y + size), slice(x, x + run * size))
            image, mask = self.normalise(name, refs, bts, bayes)
            out["image"][done : done + run] = image.reshape(9, size, run, size).transpose(2, 0, 1, 3)
            out["mask"][done : done + run] = mask.reshape(size, run, size).transpose(1, 0, 2)
            done += run
        return out

    def normalise(
        self, name: str, refs: np.ndarray, bts: np.ndarray, bayes: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        dark = ~np.isfinite(refs)
        cold = ~(np.isfinite(bts) & (bts > 0))
        unknown = ~(np.isfinite(bayes) & (bayes >= 0))
        image = np.concatenate(
            [np.where(dark, 0, refs) - REF_OFFSET, (np.where(cold, BT_OFFSET_K, bts) - BT_OFFSET_K) / BT_SCALE_K]
        )
        mask = np.where(bayes > 0, np.uint8(CLOUD), np.uint8(CLEAR))
        mask[unknown] = UNKNOWN
        found = {f: int(m.sum()) for f, m in (("refs", dark), ("bts", cold), ("bayes", unknown)) if m.any()}
        if found:
            self.missing.update(found)
            log.warning("%s: missing values replaced: %s", name, ", ".join(f"{n} of {f}" for f, n in found.items()))
        return image, mask


class PublishedFiles(PatchSource):
    """The published files below `root`.

    Opening lists the directory once per process and opens nothing else; a region reads only its own part of one file,
    which stays open until another is needed. Raises ValueError, also from `read`, naming file and field.
    """

    def __init__(self, root: Path, patch: int, samples: Mapping[str, int] | None, seed: int) -> None:
        self.root = root
        found = _find(root)
        wanted = None if samples is None else scenes_for(samples)
        try:
            scenes = split_scenes(list(found["training"]), wanted, seed)
            if "inference" in found:
                scenes["test"] = sorted(found["inference"])
            super().__init__(patch, scenes, samples)
        except ValueError as error:
            raise ValueError(f"{root}: {error}") from None
        self._paths = {**found["training"], **found.get("inference", {})}
        self._name, self._file = "", None

    def region(self, scene: str, rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        path = self._paths[scene]
        if scene != self._name:
            self._file, self._name = self._open(path), scene
        parts = []
        for name in _BANDS:
            try:
                part = self._file[name][rows, columns]
            except OSError as error:
                raise ValueError(f"{path}: {name}: cannot be read: {error}") from None
            parts.append(np.moveaxis(part, 2, 0).astype(np.float32))
        return parts[0], parts[1], parts[2][0]

    def _open(self, path: Path) -> h5py.File:
        if self._file is not None:
            self._file.close()
            self._file, self._name = None, ""
        try:
            file = h5py.File(path, "r")
        except OSError as error:
            raise ValueError(f"{path}: not a readable HDF5 file: {error}") from None
        for name, bands in _BANDS.items():
            shape = (*scene_shape(self.patch), bands)
            found = file.get(name)
            if not isinstance(found, h5py.Dataset):
                raise ValueError(f"{path}: {name}: missing; the file holds: {', '.join(file) or 'nothing'}")
            if found.shape != shape or found.dtype.kind not in "fiu":
                raise ValueError(f"{path}: {name}: {found.dtype} {found.shape}; it must be a number {shape}")
        return file


def _find(root: Path) -> dict[str, dict[str, Path]]:
    """Granule files by name, of the training and, where there is one, the inference directory."""
    found = {}
    for part, directories in (("training", ("training", "one-day")), ("inference", ("inference", "ssts"))):
        at = next((root / d for d in directories if (root / d).is_dir()), None)
        if at is None and part == "inference":
            continue
        paths = list(root.glob("S3A*.hdf") if at is None else at.rglob("S3A*.hdf"))
        found[part] = {path.name: path for path in paths}
        if not paths:
            raise ValueError(f"{at or root}: no files S3A*.hdf; they are looked for in training/, one-day/ and here")
        if len(found[part]) < len(paths):
            twice = next(name for name, n in Counter(p.name for p in paths).items() if n > 1)
            raise ValueError(f"{at or root}: {twice} is there more than once")
    return found


def write_scene(
    path: Path, refs: np.ndarray, bts: np.ndarray, bayes: np.ndarray, attributes: Mapping[str, str | int]
) -> None:
    """Write one scene in the published layout, under its name only once it is complete.

    `refs` (6, rows, columns), `bts` (3, …) in K and `bayes` (rows, columns), float32, `bayes` > 0 where cloudy.
    """
    part = path.with_suffix(".part")
    with h5py.File(part, "w") as file:
        for name, array in (("refs", refs), ("bts", bts), ("bayes", bayes[np.newaxis])):
            file.create_dataset(name, data=np.ascontiguousarray(np.moveaxis(array, 0, 2)))
        file.attrs.update(attributes)
    os.replace(part, path)
