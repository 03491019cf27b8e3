"""SLSTR: cloud or clear sky from the nine channels of one pixel, the SciML suite's baseline for Sentinel-3."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, model_validator

from sciml_hpc.benchmarks import base
from sciml_hpc.benchmarks.base import Picture, Preset, Published, Settings

if TYPE_CHECKING:
    import torch


class Recipe(base.Recipe):
    """How the classifier is trained. The paper gives the network only; batch, optimiser and rate are ours."""

    global_batch: int = Field(8, gt=0)
    """Samples (images) per optimiser step over all ranks."""
    epochs: int = Field(40, gt=0)
    """Most epochs that may be spent before the target must have been met."""
    base_lr: float = Field(1e-2, gt=0)
    """Learning rate at `lr_reference_batch`."""
    lr_reference_batch: int = Field(8, gt=0)
    """Global batch at which `base_lr` holds unscaled."""
    eval_batch: int = Field(8, gt=0)
    """Samples per rank in one evaluation step; has no influence on the metric."""
    hidden: int = Field(50, gt=0)
    """Units of the hidden layer; 50 is the published network of 551 parameters."""


class Generator(Settings):
    """The scenes, simulated or published, and how many of their pixels are kept."""

    patch: int = Field(256, ge=32, le=256, multiple_of=8)
    """Fineness of a scene as CloudMask counts it: it has 1200·patch/256 × 1500·patch/256 pixels; 256 as published."""
    size: int = Field(250, ge=8)
    """Pixels along the edge of a sample, which is a whole scene, sub-sampled; 250 as published."""

    night_fraction: float = Field(0.5, ge=0, le=1)
    """Share of simulated scenes taken by night, when the six reflectances are zero."""

    @model_validator(mode="after")
    def _no_more_than_there_are(self) -> Generator:
        if self.size > 1200 * self.patch // 256:
            raise ValueError(f"size {self.size} exceeds the {1200 * self.patch // 256} rows of a scene")
        return self


class Slstr(base.Benchmark):
    """Binary classification of pixels with a network of one hidden layer, applied to whole images."""

    name = "slstr"
    mllog_name = "slstr"
    title = "SLSTR: cloud screening pixel by pixel"
    science = (
        "How much of a cloud mask is in the colour of a single pixel? Over the ocean, out of the sun's glint, six "
        "reflectances and three brightness temperatures of Sentinel-3's Sea and Land Surface Temperature Radiometer "
        "nearly decide: a network with one hidden layer of 50 units learns most of a Bayesian cloud mask. What is left "
        "is for networks that see the surroundings (the benchmark cloudmask)."
    )
    citation = (
        "T. Hey, K. Butler, S. Jackson, J. Thiyagalingam, Machine learning and big scientific data, Philosophical "
        "Transactions of the Royal Society A 378 (2020) 20190054"
    )
    published = (
        Published(
            "data",
            "1,000 nadir images of 2018, South Pacific, ocean without sun glint, sub-sampled to 250 × 250; 800 for "
            "training and 200 for validation, drawn at random (not public as a set)",
            "Hey 2020",
        ),
        Published("network", "nine channels of a pixel, 50 ReLU, one sigmoid", "Hey 2020"),
    )
    Recipe = Recipe
    Generator = Generator
    presets: ClassVar[Mapping[str, Preset]] = {
        "tiny": Preset("slstr-tiny"),
        "small": Preset("slstr-small"),
        "node": Preset("slstr-node", {"global_batch": 32}),
        "full": Preset("slstr-pacific"),
    }

    @classmethod
    def simulator(cls, generator: Generator, samples: Mapping[str, int], seed: int) -> base.Source:
        from sciml_hpc.benchmarks.slstr.synthetic import Simulated

        return Simulated(generator, samples, seed)

    @classmethod
    def native(cls, path: Path, generator: Generator, samples: Mapping[str, int] | None, seed: int) -> base.Source:
        from sciml_hpc.benchmarks.slstr.native import PublishedImages

        return PublishedImages(path, generator, samples, seed)

    @classmethod
    def write_native(
        cls, path: Path, generator: Generator, samples: Mapping[str, int], seed: int, part: int = 0, parts: int = 1
    ) -> list[Path]:
        from sciml_hpc.benchmarks.slstr.synthetic import write_published

        return write_published(path, generator, samples, seed, part, parts)

    def model(self) -> torch.nn.Module:
        from sciml_hpc.benchmarks.slstr.model import PixelNetwork

        return PixelNetwork(self.fields["image"].shape[0], self.recipe.hidden)

    def inputs(self, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        return (batch["image"],)

    def loss(self, output: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Cross-entropy from logits (batch, size, size).

        Pixels of unknown truth add 0 to the sum and 1 to the count, so that the mean over ranks stays exact.
        """
        from torch.nn.functional import binary_cross_entropy_with_logits

        mask = batch["mask"]
        return binary_cross_entropy_with_logits(output.float(), (mask == 1).float(), weight=(mask <= 1).float())

    def metrics(self) -> base.Metrics:
        from sciml_hpc.benchmarks.slstr.metrics import CloudMetrics

        return CloudMetrics()

    def pictures(self, model: torch.nn.Module, batch: Mapping[str, torch.Tensor]) -> tuple[Picture, ...]:
        """The first validation image: a reflectance, a temperature, the truth and what the network makes of it."""
        import numpy as np
        import torch

        from sciml_hpc.benchmarks.cloudmask.native import BT_OFFSET_K, BT_SCALE_K, REF_OFFSET, UNKNOWN

        with torch.no_grad():
            probability = torch.sigmoid(model(*self.inputs(batch))[0].float()).cpu().numpy()
        image, mask = (batch[name][0].cpu().numpy() for name in ("image", "mask"))
        truth = np.where(mask == UNKNOWN, np.nan, mask)
        panels = [image[1] + REF_OFFSET, image[7] * BT_SCALE_K + BT_OFFSET_K, truth, probability]
        return (
            Picture(
                "clouds",
                "A validation image: what the instrument sees, the Bayesian mask, and the network's answer, to which a "
                "pixel is all there is.",
                np.stack(panels).astype(np.float32),
                ("S2 reflectance", "S8 brightness temperature / K", "cloud (truth)", "cloud probability (network)"),
            ),
        )


BENCHMARKS = (Slstr,)
