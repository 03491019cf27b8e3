"""DMS: what diffuse multiple scattering of X-rays tells of a crystal's azimuth and of its phase (two tasks)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from sciml_hpc.benchmarks import base
from sciml_hpc.benchmarks.base import Preset, Published, Source
from sciml_hpc.benchmarks.dms.settings import PERIOD_DEG, AzimuthGenerator, StructureGenerator

if TYPE_CHECKING:
    import torch

_SUITE = (
    "T. Hey, K. Butler, S. Jackson, J. Thiyagalingam, Machine learning and big scientific data, Phil. Trans. R. Soc. A "
    "378 (2020) 20190054"
)
_PHYSICS = "A. G. A. Nisbet et al., Diffuse multiple scattering, Acta Cryst. A 71 (2015) 20"
_BENCH = "stfc-sciml/sciml-bench, dms_structure"

GREY_MEAN, GREY_SPREAD = 105.0, 20.0
"""Mean and standard deviation of the simulated pictures' grey, by which the azimuth's network has its input."""


class AzimuthRecipe(base.Recipe):
    """How the azimuth's network is trained. The network is the published one; of its training nothing is published."""

    width: int = Field(32, gt=0)
    """Features of the first convolution, doubled by the second; 32 as published."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Dropout between the convolutions; 0.2 as published."""


class StructureRecipe(base.Recipe):
    """How the classifier is trained. The defaults are sciml-bench's, which takes images in the file's order, however,
    where ours are shuffled, and stops once the validation loss has not fallen for ten epochs."""

    global_batch: int = Field(32, gt=0)
    """Samples per optimiser step over all ranks."""
    epochs: int = Field(30, gt=0)
    """Most epochs that may be spent before the target must have been met."""
    optimizer: Literal["adam", "adamw", "adamax", "sgd"] = "adamw"
    """Update rule; Adam family with torch's default betas, SGD with momentum 0.9."""
    base_lr: float = Field(1e-4, gt=0)
    """Learning rate at `lr_reference_batch`."""
    weight_decay: float = Field(0.01, ge=0)
    """Weight decay of the optimiser; 0.01 is torch's default for AdamW."""
    width: int = Field(8, gt=0)
    """Features of the first convolution, doubled by the second; 8 as published."""
    hidden: int = Field(512, ge=2)
    """Units of the first dense layer, halved by the second; 512 as published."""
    dropout: float = Field(0.5, ge=0, lt=1)
    """Dropout after both dense layers; 0.5 as published."""
    standardise: bool = False
    """Whether a picture's mean is taken away and its spread divided by. The reference takes pictures as they are, and
    learns at its small learning rate; at ten times that, the common grey upsets the running means of normalisation."""


_NARROW_AZIMUTH: Mapping[str, object] = {"width": 8, "dropout": 0.0, "schedule": "cosine"}
"""What the embedded sizes change so that a few thousand steps on two cores reach their targets."""

_NARROW_STRUCTURE: Mapping[str, object] = {
    "hidden": 64,
    "dropout": 0.2,
    "standardise": True,
    "base_lr": 1e-3,
    "schedule": "cosine",
    "epochs": 12,
}
"""The same for structure."""


class Azimuth(base.Benchmark):
    """Azimuth of a crystal from one pattern."""

    name = "dms"
    task = "azimuth"
    mllog_name = "dms"
    title = "DMS: azimuth of a crystal from diffuse multiple scattering"
    science = (
        "How is the crystal turned? X-rays scattered diffusely in a crystal meet its lattice planes once more, and "
        "leave the detector crossed by the lines on which a Bragg condition holds. A small convolutional network reads "
        "from one such pattern the azimuth of a tetragonal crystal, whose composition and alignment it does not know; "
        "as the c axis is fourfold, all of 0 to 90° occur and errors are taken the shorter way round."
    )
    citation = f"{_SUITE}; {_PHYSICS}"
    published = (
        Published("azimuth found", "within 6.5° (250,000 simulated patterns, 75 % for training)", _SUITE),
        Published("network", "conv 32, conv 64, dense 32, dense 16, one output", _SUITE),
    )
    Recipe = AzimuthRecipe
    Generator = AzimuthGenerator
    presets: ClassVar[Mapping[str, Preset]] = {
        "tiny": Preset("dms-tiny", {**_NARROW_AZIMUTH, "epochs": 12}),
        "small": Preset("dms-small", {**_NARROW_AZIMUTH, "epochs": 12}),
        "node": Preset("dms-node", {"global_batch": 128, "epochs": 30, "schedule": "cosine"}),
        "full": Preset("dms-full", {"global_batch": 256, "epochs": 30, "schedule": "cosine"}),
    }

    @classmethod
    def simulator(cls, generator: AzimuthGenerator, samples: Mapping[str, int], seed: int) -> Source:
        from sciml_hpc.benchmarks.dms.synthetic import AzimuthPatterns

        return AzimuthPatterns(generator, samples, seed)

    @classmethod
    def native(cls, path: Path, generator: AzimuthGenerator, samples: Mapping[str, int] | None, seed: int) -> Source:
        """Files of our layout below `path` (none is published); the split is in them, `seed` unused."""
        from sciml_hpc.benchmarks.dms.native import AzimuthFiles

        return AzimuthFiles(path, generator, samples)

    @classmethod
    def write_native(
        cls,
        path: Path,
        generator: AzimuthGenerator,
        samples: Mapping[str, int],
        seed: int,
        part: int = 0,
        parts: int = 1,
    ) -> list[Path]:
        """Files of our layout."""
        from sciml_hpc.benchmarks.dms.native import write_azimuth
        from sciml_hpc.benchmarks.dms.synthetic import AzimuthPatterns

        return write_azimuth(path, AzimuthPatterns(generator, samples, seed), part, parts)

    def model(self) -> torch.nn.Module:
        from sciml_hpc.benchmarks.dms.model import AzimuthNet

        return AzimuthNet(*self.fields["image"].shape, self.recipe.width, self.recipe.dropout)

    def inputs(self, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Pictures, centred and scaled by two constants."""
        return ((batch["image"].float() - GREY_MEAN) / GREY_SPREAD,)

    def loss(self, output: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Mean of 1 − cos 4(Ψ' − Ψ): half the squared error of the fourfold angle where it is small, and periodic."""
        from math import pi

        return (1 - (2 * pi * (output.float() - batch["azimuth"] / PERIOD_DEG)).cos()).mean()

    def metrics(self) -> base.Metrics:
        from sciml_hpc.benchmarks.dms.metrics import AzimuthMetrics

        return AzimuthMetrics()


class Structure(base.Benchmark):
    """Phase of a crystal from one pattern."""

    name = "dms"
    task = "structure"
    mllog_name = "dms"
    title = "DMS: phase of a crystal from diffuse multiple scattering"
    science = (
        "Which of two phases has a crystal at their boundary? Lines of diffuse multiple scattering that meet in one "
        "point for a tetragonal cell part when it is sheared by less than a degree. Experts search patterns for such "
        "triple intersections; a convolutional network with a large dense layer is to tell tetragonal from monoclinic "
        "by itself. 45 million parameters and little arithmetic: a test of communication."
    )
    citation = f"sciml-bench (STFC), dms_structure, by K. Butler, P. Austin, J. Thiyagalingam, T. Hey; {_PHYSICS}"
    published = (
        Published("data set", "8,060 images of 487 × 195 × 3, 4,030 of each phase", _BENCH),
        Published("accuracy or target", "none published", _BENCH),
        Published("training", "AdamW at 1e-4, batch 32, at most 30 epochs", _BENCH),
    )
    Recipe = StructureRecipe
    Generator = StructureGenerator
    presets: ClassVar[Mapping[str, Preset]] = {
        "tiny": Preset("dms-phase-tiny", _NARROW_STRUCTURE),
        "small": Preset("dms-phase-small", _NARROW_STRUCTURE),
        "node": Preset("dms-phase-node", {"standardise": True}),
        "full": Preset("dms-sim"),
    }

    @classmethod
    def simulator(cls, generator: StructureGenerator, samples: Mapping[str, int], seed: int) -> Source:
        from sciml_hpc.benchmarks.dms.synthetic import StructurePatterns

        return StructurePatterns(generator, samples, seed)

    @classmethod
    def native(cls, path: Path, generator: StructureGenerator, samples: Mapping[str, int] | None, seed: int) -> Source:
        """The published file below `path`; `seed` draws the split if `generator.split` asks for a new one."""
        from sciml_hpc.benchmarks.dms.native import StructureFile

        return StructureFile(path, generator, samples, seed)

    @classmethod
    def write_native(
        cls,
        path: Path,
        generator: StructureGenerator,
        samples: Mapping[str, int],
        seed: int,
        part: int = 0,
        parts: int = 1,
    ) -> list[Path]:
        """The layout is one file, so part 0 writes it alone, 64 images at a time."""
        from sciml_hpc.benchmarks.dms.native import write_structure

        return [write_structure(path, cls.simulator(generator, samples, seed))] if part == 0 else []

    def model(self) -> torch.nn.Module:
        from sciml_hpc.benchmarks.dms.model import StructureNet

        r = self.recipe
        return StructureNet(*self.fields["image"].shape[1:], r.width, r.hidden, r.dropout)

    def inputs(self, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Pictures as they are, or each standardised over its pixels and colours."""
        image = batch["image"]
        if self.recipe.standardise:
            mean, spread = image.mean((1, 2, 3), keepdim=True), image.std((1, 2, 3), keepdim=True)
            image = (image - mean) / spread.clamp(min=1e-6)
        return (image,)

    def loss(self, output: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Cross-entropy."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(output.float(), batch["phase"])

    def metrics(self) -> base.Metrics:
        from sciml_hpc.benchmarks.dms.metrics import StructureMetrics

        return StructureMetrics()


BENCHMARKS = (Azimuth, Structure)
