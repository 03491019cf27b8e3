"""EM denoise: noise removal in electron micrographs of graphene (SciML-Bench `em_denoise`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from sciml_hpc.benchmarks import base
from sciml_hpc.benchmarks.base import Picture, Preset, Published, Settings
from sciml_hpc.benchmarks.stemdl.settings import Range

if TYPE_CHECKING:
    import torch


class Recipe(base.Recipe):
    """Training as SciML-Bench does it: batch 128, Adam at 0.01, ten epochs, mean squared error."""

    global_batch: int = Field(128, gt=0)
    """Samples per optimiser step over all ranks."""
    lr_reference_batch: int = Field(128, gt=0)
    """Global batch at which `base_lr` holds unscaled."""
    base_lr: float = Field(0.01, gt=0)
    """Learning rate at `lr_reference_batch`."""
    model: Literal["autoencoder", "mixed-scale"] = "autoencoder"
    """Network: SciML-Bench's convolutional autoencoder, or a mixed-scale dense network (Pelt and Sethian 2018)."""
    width: int = Field(8, gt=0)
    """Channels of the autoencoder's first level; 8 gives the published 122,737 parameters."""
    depth: int = Field(100, gt=0)
    """Layers of the mixed-scale dense network, of one channel each; 100 gives 45,652 parameters."""
    data_range: float = Field(1.0, gt=0)
    """Value of white: images are divided by it, and errors, PSNR and SSIM are of images from 0 to 1."""


class Generator(Settings):
    """The simulator's micrographs, and the shape and split of the published ones."""

    size: int = Field(256, ge=32, multiple_of=8)
    """Pixels along the edge of an image."""
    pixel_A: Range = (0.1, 0.19)
    """Least and largest edge of a pixel in the specimen, Å."""
    dose: Range = (4.0, 60.0)
    """Least and largest number of electrons in a white pixel at the beam's centre, drawn uniformly in the logarithm."""
    energy_keV: float = Field(80.0, gt=0)
    """Energy of the electrons; 80 keV spares carbon from being knocked out."""
    split: Literal["publisher", "drawn"] = "publisher"
    """Published files: validation from `test/`; or, where there is none, drawn from `train/` by the data set's seed."""


_NARROW = {"global_batch": 16, "lr_reference_batch": 16, "schedule": "cosine", "precision": "fp32"}
"""What the embedded sizes change so that a few hundred steps on two cores reach their targets."""


class EMDenoise(base.Benchmark):
    """Regression from a noisy micrograph to the one without noise."""

    name = "em-denoise"
    mllog_name = "em-denoise"
    title = "EM denoise: noise removal in electron micrographs"
    science = (
        "Atoms move and leave while the microscope looks at them, so frames must be short and doses low, and what is "
        "recorded is mostly noise. A network learns from simulated pairs to restore the picture of a sheet of "
        "graphene, with its vacancies, holes and foreign atoms, from counted electrons under an uneven beam on a "
        "detector with dead pixels."
    )
    citation = (
        "J. Thiyagalingam, M. Shankar, G. Fox, T. Hey, Scientific machine learning benchmarks, Nature Reviews Physics "
        "4 (2022) 413, and its suite SciML-Bench; D. M. Pelt, J. A. Sethian, A mixed-scale dense convolutional neural "
        "network for image analysis, PNAS 115 (2018) 254"
    )
    published = (
        Published("quality metrics or target", "none published", "stfc-sciml/sciml-bench, em_denoise"),
        Published(
            "training, inference",
            "batch 128, 10 epochs, Adam at 0.01; mean squared error, and PSNR of batch means with white = 255",
            "stfc-sciml/sciml-bench, em_denoise.py",
        ),
        Published(
            "other networks compared by the authors",
            "fully convolutional, DnCNN, FFDNet, U-Net, encoder-decoder with skips, multi-scale CNN, mixed-scale dense",
            "stfc-sciml/sciml-bench, em_denoise page (no figures given)",
        ),
    )
    Recipe = Recipe
    Generator = Generator
    presets: ClassVar[Mapping[str, Preset]] = {
        "tiny": Preset("em-denoise-tiny", _NARROW | {"epochs": 12}, {"mixed-scale": {"depth": 30}}),
        "small": Preset("em-denoise-small", _NARROW | {"epochs": 12}, {"mixed-scale": {"depth": 30}}),
        "node": Preset("em-denoise-node", {"epochs": 30, "schedule": "cosine"}),
        "full": Preset("em-denoise-graphene", {"data_range": 255.0}),
    }

    @classmethod
    def simulator(cls, generator: Generator, samples: Mapping[str, int], seed: int) -> base.Source:
        from sciml_hpc.benchmarks.em_denoise.synthetic import Micrographs

        return Micrographs(generator, samples, seed)

    @classmethod
    def native(cls, path: Path, generator: Generator, samples: Mapping[str, int] | None, seed: int) -> base.Source:
        from sciml_hpc.benchmarks.em_denoise.native import PublishedFiles

        return PublishedFiles(path, generator, samples, seed)

    @classmethod
    def write_native(
        cls, path: Path, generator: Generator, samples: Mapping[str, int], seed: int, part: int = 0, parts: int = 1
    ) -> list[Path]:
        """A pair of files per split, so as many parts as splits have work."""
        from sciml_hpc.benchmarks.em_denoise.native import write
        from sciml_hpc.benchmarks.em_denoise.synthetic import Micrographs

        return write(path, Micrographs(generator, samples, seed), part, parts)

    def model(self) -> torch.nn.Module:
        """The recipe's network, from (batch, 1, P, P) to the same."""
        if self.recipe.model == "mixed-scale":
            from sciml_hpc.benchmarks.mixed_scale import MixedScaleDense

            return MixedScaleDense(1, 1, self.recipe.depth)
        from sciml_hpc.benchmarks.em_denoise.model import Autoencoder

        return Autoencoder(self.recipe.width)

    def inputs(self, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        return (self._scaled(batch["noisy"]).unsqueeze(1),)

    def loss(self, output: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Mean squared error."""
        return (output[:, 0].float() - self._scaled(batch["clean"])).square().mean()

    def metrics(self) -> base.Metrics:
        from sciml_hpc.benchmarks.em_denoise.metrics import ImageMetrics

        return ImageMetrics(self.recipe.data_range)

    def pictures(self, model: torch.nn.Module, batch: Mapping[str, torch.Tensor]) -> tuple[Picture, ...]:
        """The first validation image as recorded, after the classical filter and the network, and as it should be."""
        import torch

        from sciml_hpc.benchmarks.em_denoise.metrics import classical

        first = {name: values[:1] for name, values in batch.items()}
        with torch.no_grad():
            denoised = model(*self.inputs(first))[:, 0].float()
        noisy = self._scaled(first["noisy"])
        panels = torch.cat([noisy, classical(noisy[:, None])[:, 0].float(), denoised, self._scaled(first["clean"])])
        labels = ("recorded", "median and Gaussian filter", "network", "without noise")
        caption = "A micrograph, its restorations and the truth; 1 is white."
        return (Picture("micrograph", caption, panels.cpu().numpy(), labels),)

    def _scaled(self, image: torch.Tensor) -> torch.Tensor:
        return image.float() / self.recipe.data_range


BENCHMARKS = (EMDenoise,)
