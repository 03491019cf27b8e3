"""SAXS: sphere or parallelepiped, from a one-dimensional small-angle X-ray scattering profile (SciML suite)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from sciml_hpc.benchmarks import base
from sciml_hpc.benchmarks.base import Preset, Published, Settings

if TYPE_CHECKING:
    import torch

POINTS = 300
"""Values of q in a profile, as published."""


class Recipe(base.Recipe):
    """How the classifier is trained. The paper gives the network only; batch, optimiser and rate are ours."""

    global_batch: int = Field(128, gt=0)
    """Samples per optimiser step over all ranks."""
    epochs: int = Field(60, gt=0)
    """Most epochs that may be spent before the target must have been met."""
    lr_reference_batch: int = Field(128, gt=0)
    """Global batch at which `base_lr` holds unscaled."""
    eval_batch: int = Field(512, gt=0)
    """Samples per rank in one evaluation step; has no influence on the metric."""
    hidden: int = Field(100, gt=0)
    """Units of the hidden layer; 100 is the published network of 30,201 parameters."""


class Generator(Settings):
    """The simulated particles and their measurement. Published files are read without any of it."""

    category: Literal["ideal", "noisy"] = "noisy"
    """ideal: expected intensities; noisy: the same particles measured by counting photons."""
    aspect: float = Field(3.0, ge=1, le=5)
    """Largest ratio of two edges of a parallelepiped; 1 leaves cubes. The rounder, the harder."""
    polydispersity: float = Field(0.2, ge=0, le=0.25)
    """Largest standard deviation of ln(size) within a sample, which blurs the minima by which spheres are known; each
    sample draws its own between a tenth of it and it. 0 is the paper's unit dispersity."""


class Saxs(base.Benchmark):
    """Binary classification of profiles of 300 points with a network of one hidden layer."""

    name = "saxs"
    mllog_name = "saxs"
    title = "SAXS: particle shapes from small-angle X-ray scattering"
    science = (
        "Which shape have the particles in a solution? X-rays scattered at small angles tell, but only as one curve, "
        "averaged over all orientations and sizes. A network with one hidden layer of 100 units tells profiles of "
        "spheres from those of parallelepipeds of the same radius of gyration. Seconds of arithmetic: a test of "
        "start-up, of small messages and of latency."
    )
    citation = (
        "T. Hey, K. Butler, S. Jackson, J. Thiyagalingam, Machine learning and big scientific data, Philosophical "
        "Transactions of the Royal Society A 378 (2020) 20190054"
    )
    published = (
        Published("accuracy and F1", "equal, classes being even", "Hey 2020"),
        Published(
            "data", "10,000 + 10,000 simulated profiles; ideal, noisy, beamline (none of them public)", "Hey 2020"
        ),
        Published("split", "16,000 for training, 4,000 for test in the text; 70:30 in a caption", "Hey 2020"),
        Published(
            "inference time",
            "about 40 % of training time on 2 Xeon E5-2630 v3, 60 % on a Titan X (Pascal)",
            "Hey 2020",
        ),
    )
    Recipe = Recipe
    Generator = Generator
    presets: ClassVar[Mapping[str, Preset]] = {
        "tiny": Preset("saxs-tiny", {"global_batch": 32, "lr_reference_batch": 32}),
        "small": Preset("saxs-small", {"global_batch": 64, "lr_reference_batch": 64}),
        "node": Preset("saxs-node", {"global_batch": 1024}),
        "full": Preset("saxs-noisy"),
    }

    @classmethod
    def simulator(cls, generator: Generator, samples: Mapping[str, int], seed: int) -> base.Source:
        from sciml_hpc.benchmarks.saxs.synthetic import Simulated

        return Simulated(generator, samples, seed)

    @classmethod
    def native(cls, path: Path, generator: Generator, samples: Mapping[str, int] | None, seed: int) -> base.Source:
        """The files below `path`; their names say which split they belong to, `generator` and `seed` are not used."""
        from sciml_hpc.benchmarks.saxs.native import ProfileFiles

        return ProfileFiles(path, samples)

    @classmethod
    def write_native(
        cls, path: Path, generator: Generator, samples: Mapping[str, int], seed: int, part: int = 0, parts: int = 1
    ) -> list[Path]:
        from sciml_hpc.benchmarks.saxs.native import write
        from sciml_hpc.benchmarks.saxs.synthetic import Simulated

        return write(path, Simulated(generator, samples, seed), part, parts)

    def model(self) -> torch.nn.Module:
        from sciml_hpc.benchmarks.saxs.model import Classifier

        return Classifier(self.fields["profile"].shape[0], self.recipe.hidden)

    def inputs(self, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        return (batch["profile"],)

    def loss(self, output: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Cross-entropy from logits (batch,)."""
        from torch.nn.functional import binary_cross_entropy_with_logits

        return binary_cross_entropy_with_logits(output.float(), batch["shape"].float())

    def metrics(self) -> base.Metrics:
        from sciml_hpc.benchmarks.saxs.metrics import ShapeMetrics

        return ShapeMetrics()


BENCHMARKS = (Saxs,)
