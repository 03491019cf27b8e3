"""The published files: TIFF images in `<part>/undamaged/` and `<part>/damaged/`, parts training, validation, inference.

A frame has 492 × 656 pixels. The publisher's page says three channels and 0.63 MB a file; that is the size of 16-bit
grey (645,504 bytes), and his loader takes grey images only, so grey is what we write. Three channels are read as their
mean. The network trains on `training/undamaged` (10,533 files) and is judged on `inference/` (6,546: by the page 4,499
damaged and 2,047 undamaged, by a comment in the code the other way round) or, if `evaluation` says so, `validation/`.

From frame to sample, as the publisher does it: stretched from 0 to 1 over the whole frame, then the 200 × 200 pixels
that show the optic, from row 150 and column 270. The simulator also makes smaller frames, everything in proportion.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sciml_hpc.benchmarks.optical_damage import Generator, tiff
from sciml_hpc.benchmarks.optical_damage.synthetic import Frames, frame_shape, sample_fields, stretched

KINDS = ("undamaged", "damaged")


class PublishedFiles:
    """A `Source` of published images, in the order of their file names; opening it lists three directories.

    Raises ValueError, also from `read`, naming file and field.
    """

    def __init__(self, root: Path, generator: Generator, samples: Mapping[str, int] | None) -> None:
        self.fields = sample_fields(generator.crop)
        self._crop = generator.crop
        self._files: dict[str, list[tuple[str, Path, int]]] = {
            "train": _listed(root / "training", KINDS[:1]),
            "validation": _listed(root / generator.evaluation, KINDS),
        }
        self.samples = {split: len(files) for split, files in self._files.items()}
        if samples is not None and dict(samples) != self.samples:
            raise ValueError(f"{root}: samples: the files hold {self.samples}, the manifest states {dict(samples)}")

    def read(self, split: str, first: int, count: int) -> dict[str, np.ndarray]:
        """See `Source`."""
        chosen = self._files[split][first : first + count]
        image = np.empty((len(chosen), *self.fields[0].shape), np.float32)
        for i, (_, path, _) in enumerate(chosen):
            frame = tiff.read(path)
            if frame.shape[:2] != frame_shape(self._crop):
                raise ValueError(f"{path}: shape: {frame.shape[:2]}; it must be {frame_shape(self._crop)}")
            image[i] = stretched(frame if frame.ndim == 2 else frame.mean(2), self._crop)
        return {"image": image, "damaged": np.array([kind for _, _, kind in chosen], np.uint8)}


def _listed(directory: Path, kinds: tuple[str, ...]) -> list[tuple[str, Path, int]]:
    """Name, path and kind (1: damaged) of the images of a part."""
    files = []
    for number, kind in enumerate(kinds):
        at = directory / kind
        found = [p for p in at.iterdir() if p.suffix.lower() in (".tiff", ".tif")] if at.is_dir() else []
        if not found:
            raise ValueError(f"{at}: no TIFF files")
        files += [(path.name, path, number) for path in found]
    return sorted(files)


def write(root: Path, source: Frames, part: int, parts: int) -> list[Path]:
    """Write every `parts`-th image from the `part`-th; file names are the numbers of the samples."""
    written = []
    for split, directory in (("train", "training"), ("validation", source.generator.evaluation)):
        for kind in KINDS[: 1 if split == "train" else 2]:
            (root / directory / kind).mkdir(parents=True, exist_ok=True)
        for i in range(part, source.samples[split], parts):
            frame, damaged = source.frame(split, i)
            written.append(root / directory / KINDS[damaged] / f"{i:06}.TIFF")
            tiff.write(written[-1], frame)
    return written
