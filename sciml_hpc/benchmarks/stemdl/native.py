"""The published files: readers and writers.

Classification, raw (doi 10.13139/OLCF/1510313; attributes as its `hdf5_docs` notebook shows them):
`<part>/batch_<part>_<j>.h5`, parts train, dev, test; each top-level group `sample_<material>_<variant>` has a data set
`cbed_stack` (3, 512, 512) float32 and attributes space_group (bytes), material (bytes), energy_keV, z_dirs and y_dirs
(1, 3, 3), semi_angles_rad, d_hkls_angstrom, abc_angstrom, angles_degree (3,), formula.

Classification, processed (MLCommons Science, stemdl/ornl and stemdl/stfc): `<part>/sample-<i>.npz` with `data`
(3, 128, 128) float32 and `label` (1,) integer, 1 to 230. Parts train and test at ORNL; training, validation, testing
and inference at STFC. These files do not name the material: that no material is in two parts has to be believed (of
STFC's parts it is doubtful).

Reconstruction: the original is LMDB, one file per rank, which fixes the number of ranks and takes a further library.
Ours are HDF5 files `batch_train_<j>.h5` and `batch_eval_<j>.h5` with the original's arrays, stacked: `cbed`
(n, positions, size, size) float16, in the original (1024, 512, 512) a sample, and `2d_potential` (n, 1, size, size)
float16. This is a deviation; reading LMDB is not offered.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from sciml_hpc.benchmarks.stemdl.scattering import SYMBOLS
from sciml_hpc.benchmarks.stemdl.settings import ClassificationGenerator, ReconstructionGenerator
from sciml_hpc.benchmarks.stemdl.synthetic import (
    Material,
    Patterns,
    Scans,
    classification_fields,
    reconstruction_fields,
    scaled,
)

MATERIALS_PER_FILE = 64
"""Materials in a raw file that we write."""
SCAN_FILE_BYTES = 256 << 20
"""Size at which we begin a new reconstruction file."""
_SCAN_PARTS = {"train": "train", "validation": "eval"}


class ProcessedPatterns:
    """A `Source` of npz files, in the order of their numbers. Opening it lists two directories."""

    def __init__(self, path: Path, generator: ClassificationGenerator, samples: Mapping[str, int] | None) -> None:
        self.fields = classification_fields(generator.size)
        self._directories = _parts(path, generator)
        self._numbers = {split: _numbered(d, r"sample-(\d+)\.npz") for split, d in self._directories.items()}
        self.samples = _counted(path, {s: len(n) for s, n in self._numbers.items()}, samples)

    def read(self, split: str, first: int, count: int) -> dict[str, np.ndarray]:
        """See `Source`."""
        cbed = np.empty((count, *self.fields[0].shape), dtype=np.float32)
        groups = np.empty(count, dtype=np.int64)
        for i, number in enumerate(self._numbers[split][first : first + count]):
            file = self._directories[split] / f"sample-{number}.npz"
            try:
                with np.load(file, allow_pickle=False) as arrays:
                    data, label = arrays["data"], arrays["label"]
            except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
                raise ValueError(f"{file}: {error}") from error
            cbed[i] = _array(file, "data", data, self.fields[0].shape, np.float32)
            if label.shape != (1,) or label.dtype.kind not in "iu":
                raise ValueError(f"{file}: label: {label.dtype} {label.shape}, expected one integer")
            groups[i] = _space_group(file, "label", label[0])
        return {"cbed": cbed, "space_group": groups}


class RawPatterns:
    """A `Source` of raw HDF5 files, in the order of file, material and variant numbers.

    Opening it reads two attributes of every sample, to see that no material is on both sides of the split: minutes
    for the 187,155 published samples on a cold file system. The object can be pickled, so that one rank may do it.
    """

    def __init__(
        self, path: Path, generator: ClassificationGenerator, samples: Mapping[str, int] | None, seed: int
    ) -> None:
        self.fields = classification_fields(generator.size)
        self._index: dict[str, list[tuple[Path, str]]] = {"train": [], "validation": []}
        materials: dict[str, set[str]] = {"train": set(), "validation": set()}
        for split, directory in _parts(path, generator).items():
            for number in _numbered(directory, rf"batch_{re.escape(directory.name)}_(\d+)\.h5"):
                file = directory / f"batch_{directory.name}_{number}.h5"
                for group, material in _groups(file):
                    side = split
                    if generator.split == "material":
                        side = _side(material, seed, generator.validation_fraction)
                    self._index[side].append((file, group))
                    materials[side].add(material)
        both = sorted(materials["train"] & materials["validation"])
        if both:
            raise ValueError(
                f"{path}: attribute material: {len(both)} materials, {both[0]} for one, are in both "
                f"{generator.train_part} and {generator.validation_part}; set split to material to divide anew"
            )
        self.samples = _counted(path, {split: len(index) for split, index in self._index.items()}, samples)

    def read(self, split: str, first: int, count: int) -> dict[str, np.ndarray]:
        """See `Source`."""
        cbed = np.empty((count, *self.fields[0].shape), dtype=np.float32)
        groups = np.empty(count, dtype=np.int64)
        opened: h5py.File | None = None
        try:
            for i, (file, group) in enumerate(self._index[split][first : first + count]):
                if opened is None or opened.filename != str(file):
                    if opened is not None:
                        opened.close()
                    opened = _open(file)
                cbed[i] = self._sample(file, opened[group])
                groups[i] = _space_group(file, f"{group}: space_group", opened[group].attrs.get("space_group"))
        finally:
            if opened is not None:
                opened.close()
        return {"cbed": cbed, "space_group": groups}

    def _sample(self, file: Path, group: h5py.Group) -> np.ndarray:
        where = f"{group.name[1:]}: cbed_stack"
        stack = group.get("cbed_stack")
        if not isinstance(stack, h5py.Dataset):
            raise ValueError(f"{file}: {where}: missing")
        size, edge = self.fields[0].shape[-1], stack.shape[-1] if stack.shape else 0
        if not edge or edge % size:
            raise ValueError(f"{file}: {where}: shape {stack.shape}, expected (3, D, D), D a multiple of {size}")
        return scaled(_array(file, where, stack[()], (3, edge, edge), np.float32), size)


class ScanFiles:
    """A `Source` of reconstruction files, in the order of their numbers. Opening it reads the shapes in every file."""

    def __init__(self, path: Path, generator: ReconstructionGenerator, samples: Mapping[str, int] | None) -> None:
        self.fields = reconstruction_fields(generator.scan, generator.size)
        self._files: dict[str, list[Path]] = {}
        self._starts: dict[str, np.ndarray] = {}
        for split, part in _SCAN_PARTS.items():
            files = [path / f"batch_{part}_{n}.h5" for n in _numbered(path, rf"batch_{part}_(\d+)\.h5")]
            self._files[split] = files
            self._starts[split] = np.cumsum([0, *map(self._length, files)])
        self.samples = _counted(path, {split: int(s[-1]) for split, s in self._starts.items()}, samples)

    def _length(self, file: Path) -> int:
        lengths = set()
        with _open(file) as opened:
            for name, field in zip(("cbed", "2d_potential"), self.fields, strict=True):
                data = opened.get(name)
                if not isinstance(data, h5py.Dataset):
                    raise ValueError(f"{file}: {name}: missing")
                if data.shape[1:] != field.shape or data.dtype != field.dtype:
                    expected = f"{field.dtype} (n, {', '.join(map(str, field.shape))})"
                    raise ValueError(f"{file}: {name}: {data.dtype} {data.shape}, expected {expected}")
                lengths.add(data.shape[0])
        if len(lengths) > 1:
            raise ValueError(f"{file}: cbed and 2d_potential have different numbers of samples: {sorted(lengths)}")
        return lengths.pop()

    def read(self, split: str, first: int, count: int) -> dict[str, np.ndarray]:
        """See `Source`."""
        batch = {f.name: np.empty((count, *f.shape), dtype=f.dtype) for f in self.fields}
        starts = self._starts[split]
        for file, start, stop in zip(self._files[split], starts[:-1], starts[1:], strict=True):
            low, high = max(first, start), min(first + count, stop)
            if low < high:
                with _open(file) as opened:
                    for name, field in zip(("cbed", "2d_potential"), self.fields, strict=True):
                        batch[field.name][low - first : high - first] = opened[name][low - start : high - start]
        return batch


def write_processed(path: Path, source: Patterns, part: int, parts: int) -> list[Path]:
    """Part `part` of `parts` of the npz form; numbers go on from the training to the validation samples."""
    written, offset = [], 0
    for split, directory in _parts(path, source.generator, create=True).items():
        count, variants = source.samples[split], source.generator.variants
        for block in range(part, -(-count // variants), parts):
            first = block * variants
            batch = source.read(split, first, min(variants, count - first))
            for i, (data, label) in enumerate(zip(batch["cbed"], batch["space_group"], strict=True)):
                written.append(directory / f"sample-{offset + first + i}.npz")
                np.savez(written[-1], data=data, label=np.array([label]))
        offset += count
    return written


def write_raw(path: Path, source: Patterns, part: int, parts: int) -> list[Path]:
    """Part `part` of `parts` of the raw form, `MATERIALS_PER_FILE` materials a file."""
    written = []
    for split, directory in _parts(path, source.generator, create=True).items():
        count, variants = source.samples[split], source.generator.variants
        blocks = range(-(-count // variants))
        for number in range(part, -(-len(blocks) // MATERIALS_PER_FILE), parts):
            written.append(directory / f"batch_{directory.name}_{number}.h5")
            with h5py.File(written[-1], "w") as file:
                for block in blocks[number * MATERIALS_PER_FILE :][:MATERIALS_PER_FILE]:
                    material, patterns = source.material(split, block)
                    for variant in range(min(variants, count - block * variants)):
                        group = file.create_group(f"sample_{block}_{variant}")
                        group["cbed_stack"] = patterns[variant]
                        group.attrs.update(_attributes(material, variant, source.generator.energy_keV))
    return written


def write_scans(path: Path, source: Scans, part: int, parts: int) -> list[Path]:
    """Part `part` of `parts` of the reconstruction files, `SCAN_FILE_BYTES` each or a sample, if that is larger."""
    path.mkdir(parents=True, exist_ok=True)
    cbed, potential = source.fields
    per_file = max(1, SCAN_FILE_BYTES // (2 * int(np.prod(cbed.shape) + np.prod(potential.shape))))
    written = []
    for split, name in _SCAN_PARTS.items():
        count = source.samples[split]
        for number in range(part, -(-count // per_file), parts):
            first = number * per_file
            batch = source.read(split, first, min(per_file, count - first))
            written.append(path / f"batch_{name}_{number}.h5")
            with h5py.File(written[-1], "w") as file:
                file["cbed"], file["2d_potential"] = batch["cbed"], batch["potential"]
    return written


def _attributes(material: Material, variant: int, energy_keV: float) -> dict[str, Any]:
    crystal = material.crystal
    a, b, c = crystal.lattice
    lengths = np.linalg.norm(crystal.lattice, axis=1)
    cosines = np.array([b @ c, a @ c, a @ b]) * lengths / lengths.prod()
    counts = zip(*np.unique(crystal.numbers, return_counts=True), strict=True)
    return {
        "space_group": np.bytes_(str(crystal.space_group)),
        "material": np.bytes_(material.name),
        "energy_keV": energy_keV,
        "z_dirs": material.zones[None],
        "y_dirs": material.vertical[variant][None],
        "semi_angles_rad": material.semi_angles_rad,
        "d_hkls_angstrom": material.spacings_A,
        "abc_angstrom": lengths,
        "angles_degree": np.degrees(np.arccos(cosines)),
        "formula": " ".join(f"{SYMBOLS[int(number)]}{count}" for number, count in counts),
    }


def _parts(path: Path, generator: ClassificationGenerator, create: bool = False) -> dict[str, Path]:
    """The directories of the two splits."""
    directories = {"train": path / generator.train_part, "validation": path / generator.validation_part}
    for directory in directories.values():
        if create:
            directory.mkdir(parents=True, exist_ok=True)
        elif not directory.is_dir():
            raise ValueError(f"{directory}: no such directory")
    return directories


def _numbered(directory: Path, pattern: str) -> list[int]:
    """Numbers of the files whose name is `pattern`, in their order; ValueError if there are none."""
    matches = (re.fullmatch(pattern, entry.name) for entry in directory.iterdir()) if directory.is_dir() else ()
    numbers = sorted(int(m[1]) for m in matches if m)
    if not numbers:
        raise ValueError(f"{directory}: no file is named {pattern}")
    return numbers


def _counted(path: Path, found: dict[str, int], stated: Mapping[str, int] | None) -> dict[str, int]:
    if stated is not None and dict(stated) != found:
        raise ValueError(f"{path}: samples: the files hold {found}, the manifest states {dict(stated)}")
    return found


def _open(file: Path) -> h5py.File:
    try:
        return h5py.File(file, "r")
    except OSError as error:
        raise ValueError(f"{file}: not a readable HDF5 file: {error}") from error


def _groups(file: Path) -> Iterable[tuple[str, str]]:
    """Names and materials of the samples in a raw file, in the order of their numbers."""
    with _open(file) as opened:
        numbered = [(m, name) for name in opened if (m := re.fullmatch(r"sample_(\d+)_(\d+)", name))]
        if len(numbered) < len(opened):
            other = next(name for name in opened if not re.fullmatch(r"sample_\d+_\d+", name))
            raise ValueError(f"{file}: {other}: expected groups sample_<number>_<number> only")
        for _, name in sorted(numbered, key=lambda pair: (int(pair[0][1]), int(pair[0][2]))):
            material = opened[name].attrs.get("material")
            if material is None:
                raise ValueError(f"{file}: {name}: attribute material: missing")
            yield name, material.decode() if isinstance(material, bytes) else str(material)


def _side(material: str, seed: int, validation_fraction: float) -> str:
    """The split of a material: the same whatever other materials there are."""
    digest = hashlib.sha256(f"{seed}/{material}".encode()).digest()
    return "validation" if int.from_bytes(digest[:8], "big") < validation_fraction * 2**64 else "train"


def _space_group(file: Path, field: str, value: Any) -> int:
    """The published space group, bytes or integer, checked."""
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = 0
    if not 1 <= number <= 230:
        raise ValueError(f"{file}: {field}: {value!r}, expected a number from 1 to 230")
    return number


def _array(file: Path, field: str, value: np.ndarray, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    if value.shape != shape or value.dtype != dtype:
        raise ValueError(f"{file}: {field}: {value.dtype} {value.shape}, expected {np.dtype(dtype)} {shape}")
    if not np.isfinite(value).all():
        raise ValueError(f"{file}: {field}: holds numbers that are not finite")
    return value
