"""Simulated SLSTR scenes of the ocean: CloudMask's atmosphere, clouds and instrument over the South Pacific.

The paper's images show the ocean near the South Pacific without sun glint, so there are no land, no ice and no glint
here. Water, air, dust, clouds and noise are those of `cloudmask.synthetic`, whose docstring says what they are and are
not. The paper does not say whether night is among its images; it is here, as half of an orbit is, and it is what makes
the task more than a threshold: without reflectances low clouds must be told from the sea by their temperatures. The
truth is a probability of cloud, as Bayesian detection gives it, which errs smoothly with its prior fields. Dust is as
frequent as over CloudMask's globe, which is more than the Pacific sees.

Scene k follows from (seed, k) alone; another processor or NumPy version may differ in the last bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sciml_hpc.benchmarks.cloudmask.native import PATCHES, scene_shape, split_scenes
from sciml_hpc.benchmarks.cloudmask.optics import ALBEDO, ALBEDO_SPREAD, f32
from sciml_hpc.benchmarks.cloudmask.synthetic import (
    DETECTABLE,
    Dice,
    Ground,
    Scene,
    View,
    observe,
    schedule,
    seen_from_above,
    write_scenes,
)
from sciml_hpc.benchmarks.slstr.native import Images

if TYPE_CHECKING:
    from sciml_hpc.benchmarks.slstr import Generator

SOUTH = np.deg2rad(55.0), np.deg2rad(10.0)
"""Southern latitudes of the scenes' centres: the Pacific between the roaring forties and the tropics, free of ice."""
FREEZING_K = 271.5
"""Sea water freezes at −1.6 °C."""


def _ocean(dice: Dice, view: View) -> Ground:
    share = np.zeros((4, *dice.shape), f32)
    share[0] = 1
    climate_K = f32(301.15 + dice.uniform(-4, 4)) - f32(0.0085) * view.latitude**2
    kelvin = np.maximum(climate_K + f32(2.5) * dice.field(3.4), f32(FREEZING_K)) + f32(0.15) * dice.normal()
    common, own = dice.rng.standard_normal(), dice.rng.standard_normal(6)
    albedo = ALBEDO[0] * np.exp(ALBEDO_SPREAD[0] * (0.8 * common + 0.6 * own))
    texture = np.exp(f32(0.25) * dice.field(3.0))
    refs = [f32(band) * texture for band in albedo] if view.day else []
    return Ground(share, refs, kelvin, np.zeros(dice.shape, f32))


def simulate(generator: Generator, seed: int, number: int) -> Scene:
    """Scene `number` of the data set `seed`, on a grid of 256/`generator.patch` km; `bayes` is a probability."""
    dice = Dice(scene_shape(generator.patch), seed, number)
    day = not dice.chance(generator.night_fraction)
    centre = -np.rad2deg(np.arcsin(dice.uniform(np.sin(SOUTH[1]), np.sin(SOUTH[0]))))  # uniform over the area
    view = seen_from_above(dice, day, centre)
    refs, bts, depth = observe(dice, view, _ocean(dice, view))
    logit = f32(2.5) * np.log((depth + f32(1e-4)) / f32(DETECTABLE)) + f32(0.5) * dice.field(1.8)
    return Scene(refs, bts, 1 / (1 + np.exp(-logit)), depth)


class Simulated(Images):
    """The simulator's samples."""

    def __init__(self, generator: Generator, samples: Mapping[str, int], seed: int) -> None:
        self._generator, self._seed = generator, seed
        self._numbers = _numbers(samples)
        names = list(self._numbers)
        held_out = len(names) - samples.get("test", 0)
        scenes = split_scenes(names[:held_out], samples, seed)
        super().__init__(generator.patch, {**scenes, "test": names[held_out:]}, None)
        self.take(generator.size, samples)

    def region(self, scene: str, rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        made = simulate(self._generator, self._seed, self._numbers[scene])
        return made.refs[:, rows, columns], made.bts[:, rows, columns], made.bayes[rows, columns]


def _numbers(samples: Mapping[str, int]) -> dict[str, int]:
    """Granule names and numbers of the scenes simulated for so many samples, one each; those of "test" come last."""
    return schedule({split: PATCHES * count for split, count in samples.items()})


def write_published(
    root: Path, generator: Generator, samples: Mapping[str, int], seed: int, part: int, parts: int
) -> list[Path]:
    """Write every `parts`-th scene from the `part`-th below `root` as published files; returns their paths."""
    scenes = list(_numbers(samples).items())[part::parts]
    attributes = {"source": "sciml_hpc slstr simulator", "seed": seed}
    return write_scenes(root, Simulated(generator, samples, seed), scenes, attributes)
