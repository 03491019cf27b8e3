"""Published files: CloudMask's granules (`cloudmask.native`), of which a sample is one whole scene, sub-sampled.

The suite's paper takes 1,000 such scenes and keeps 250 × 250 of their 1200 × 1500 pixels; it does not say which. Here
they are those nearest to the centres of 250 × 250 equal cells. Channels are normalised as CloudMask's are: `refs` − 0.5
and (`bts` − 270)/22. A pixel is cloudy where `bayes`, the Bayesian probability of cloud, is above ½; bits set instead
of a probability are above ½ too. Missing values are treated as CloudMask treats them.

The paper draws validation images at random. Neighbouring granules show the same clouds, so here they stay in one split,
by CloudMask's rule (`split_scenes`); granules in `inference/` are the split test.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sciml_hpc.benchmarks.base import SampleField
from sciml_hpc.benchmarks.cloudmask.native import PATCHES, PatchSource, PublishedFiles, scene_shape

if TYPE_CHECKING:
    from sciml_hpc.benchmarks.slstr import Generator


def sample_fields(size: int) -> tuple[SampleField, ...]:
    """What one sample holds."""
    return (
        SampleField("image", (9, size, size), "float32", "1", "S1–S6 reflectance − 0.5; S7–S9 (BT/K − 270)/22"),
        SampleField("mask", (size, size), "uint8", "1", "1 cloud, 0 clear, 255 not known"),
    )


def kept(extent: int, size: int) -> np.ndarray:
    """The `size` of 0 … `extent` − 1 that hold the centres of as many equal cells."""
    return (2 * np.arange(size) + 1) * extent // (2 * size)


class Images(PatchSource):
    """Samples that are whole scenes, sub-sampled: sample i of a split is its scene i.

    A subclass makes the scenes known, as one of `PatchSource` does, and then calls `take`.
    """

    def take(self, size: int, samples: Mapping[str, int] | None) -> None:
        """Images of `size` × `size` pixels, `samples` of them; all if None. ValueError if there are fewer."""
        held = {split: len(names) for split, names in self.scenes.items()}
        self.fields = sample_fields(size)
        self.samples = dict(held if samples is None else samples)
        for split, count in self.samples.items():
            if count > held.get(split, 0):
                raise ValueError(f"{split}: {count} images wanted, {held.get(split, 0)} there are")

    def read(self, split: str, first: int, count: int) -> dict[str, np.ndarray]:
        """Samples `first` … `first + count - 1`: `image` (count, 9, size, size), `mask` (count, size, size).

        Raises IndexError beyond the split, ValueError naming file and field if a file is not as it should be.
        """
        if first < 0 or count < 0 or first + count > self.samples[split]:
            raise IndexError(f"{split}: samples {first} … {first + count - 1} of {self.samples[split]}")
        out = {f.name: np.empty((count, *f.shape), f.dtype) for f in self.fields}
        size, everything = out["mask"].shape[1], slice(None)
        rows, columns = (kept(extent, size) for extent in scene_shape(self.patch))
        for i in range(count):
            name = self.scenes[split][first + i]
            parts = self.region(name, everything, everything)
            refs, bts, bayes = (part[..., rows[:, np.newaxis], columns] for part in parts)
            cloud = np.where(bayes > 0.5, bayes, np.minimum(bayes, 0))  # what is not known stays so
            out["image"][i], out["mask"][i] = self.normalise(name, refs, bts, cloud)
        return out


class PublishedImages(Images, PublishedFiles):
    """The published files below `root`. Raises ValueError, also from `read`, naming file and field."""

    def __init__(self, root: Path, generator: Generator, samples: Mapping[str, int] | None, seed: int) -> None:
        patches = None if samples is None else {split: PATCHES * samples[split] for split in ("train", "validation")}
        super().__init__(root, generator.patch, patches, seed)
        try:
            self.take(generator.size, samples)
        except ValueError as error:
            raise ValueError(f"{root}: {error}") from None
