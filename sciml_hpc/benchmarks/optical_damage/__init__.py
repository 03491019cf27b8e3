"""Optical damage: damaged laser optics found as anomalies in images of the beam (SciML-Bench `optical_damage`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from sciml_hpc.benchmarks import base
from sciml_hpc.benchmarks.base import Picture, Preset, Published, Settings

if TYPE_CHECKING:
    import torch


class Recipe(base.Recipe):
    """Training as SciML-Bench does it: batch 64, Adam at 1e-3, five epochs, mean squared error."""

    global_batch: int = Field(64, gt=0)
    """Samples per optimiser step over all ranks."""
    lr_reference_batch: int = Field(64, gt=0)
    """Global batch at which `base_lr` holds unscaled."""
    epochs: int = Field(5, gt=0)
    """Most epochs that may be spent before the target must have been met."""
    latent: int = Field(512, gt=0)
    """Numbers by which an image is described: 512 gives 41,096,609 parameters, 2000 the 160 million of the publisher's
    page."""
    width: int = Field(16, gt=0)
    """Channels of the innermost convolutions; the others have two and four times as many."""


class Generator(Settings):
    """The simulator's frames, and the parts of the published ones."""

    crop: int = Field(200, ge=32, le=200, multiple_of=8)
    """Pixels along the edge of a sample, which shows the optic; the frames around it have 492·crop/200 rows and
    656·crop/200 columns."""
    damaged_fraction: float = Field(0.5, gt=0, lt=1)
    """Share of damaged optics in simulated validation data; training data have none."""
    evaluation: Literal["inference", "validation"] = "inference"
    """Directory of the published images, damaged and undamaged, on which the network is judged."""


_EMBEDDED = {
    "latent": 32,
    "width": 4,
    "global_batch": 16,
    "lr_reference_batch": 16,
    "base_lr": 3e-3,
    "epochs": 40,
    "precision": "fp32",
}
"""A narrow network for frames of a third or half of the resolution, and a rate at which hundreds of steps suffice."""


class OpticalDamage(base.Benchmark):
    """Anomaly detection by an autoencoder that has seen undamaged optics only."""

    name = "optical-damage"
    mllog_name = "optical-damage"
    title = "Optical damage: anomalies of laser optics in images of the beam"
    science = (
        "A damaged mirror or window spoils the beam of a high-power laser and soon the optics behind it, so damage "
        "must be seen when it is small. Images of it are rare and unlike each other; an autoencoder therefore learns "
        "what undamaged optics look like, and what it cannot reconstruct is suspect."
    )
    citation = (
        "S. Jackson, N. Bourgeois, S. Dann, optical_damage, SciML-Bench, Rutherford Appleton Laboratory; J. "
        "Thiyagalingam, M. Shankar, G. Fox, T. Hey, Scientific machine learning benchmarks, Nature Reviews Physics 4 "
        "(2022) 413"
    )
    published = (
        Published("quality metrics or target", "none published", "stfc-sciml/sciml-bench, optical_damage"),
        Published("parameters of the autoencoder", "160 million", "stfc-sciml/sciml-bench, optical_damage page"),
        Published(
            "training, inference",
            "batch 64, 5 epochs, Adam at 0.001, latent size 512; damaged where the error of any pixel is above the "
            "99th, 99.5th or 99.9th percentile of all",
            "stfc-sciml/sciml-bench, optical_damage.py",
        ),
    )
    Recipe = Recipe
    Generator = Generator
    presets: ClassVar[Mapping[str, Preset]] = {
        "tiny": Preset("optical-damage-tiny", _EMBEDDED),
        "small": Preset("optical-damage-small", _EMBEDDED),
        "node": Preset("optical-damage-node", {"epochs": 20}),
        "full": Preset("optical-damage-ds1"),
    }

    @classmethod
    def simulator(cls, generator: Generator, samples: Mapping[str, int], seed: int) -> base.Source:
        from sciml_hpc.benchmarks.optical_damage.synthetic import Frames

        return Frames(generator, samples, seed)

    @classmethod
    def native(cls, path: Path, generator: Generator, samples: Mapping[str, int] | None, seed: int) -> base.Source:
        """The published files below `path`; the split is in them, `seed` unused."""
        from sciml_hpc.benchmarks.optical_damage.native import PublishedFiles

        return PublishedFiles(path, generator, samples)

    @classmethod
    def write_native(
        cls, path: Path, generator: Generator, samples: Mapping[str, int], seed: int, part: int = 0, parts: int = 1
    ) -> list[Path]:
        from sciml_hpc.benchmarks.optical_damage.native import write
        from sciml_hpc.benchmarks.optical_damage.synthetic import Frames

        return write(path, Frames(generator, samples, seed), part, parts)

    def model(self) -> torch.nn.Module:
        from sciml_hpc.benchmarks.optical_damage.model import Autoencoder

        return Autoencoder(self.fields["image"].shape[0], self.recipe.latent, self.recipe.width)

    def inputs(self, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        return (batch["image"].unsqueeze(1),)

    def loss(self, output: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Mean squared error of the reconstruction."""
        return (output[:, 0].float() - batch["image"]).square().mean()

    def metrics(self) -> base.Metrics:
        from sciml_hpc.benchmarks.optical_damage.metrics import Detection

        return Detection()

    def pictures(self, model: torch.nn.Module, batch: Mapping[str, torch.Tensor]) -> tuple[Picture, ...]:
        """The first damaged optic (the first of all, if none is damaged), its reconstruction and the squared error."""
        import torch

        shown = int(batch["damaged"].argmax())
        image = batch["image"][shown : shown + 1]
        with torch.no_grad():
            output = model(*self.inputs({"image": image}))[:, 0].float()
        panels = torch.cat([image, output, (output - image).square()]).cpu().numpy()
        kind = "damaged" if batch["damaged"][shown] else "undamaged"
        caption = f"A beam on {kind} optics, and what the autoencoder makes of it."
        return (Picture("reconstruction", caption, panels, ("image", "reconstruction", "squared error")),)


BENCHMARKS = (OpticalDamage,)
