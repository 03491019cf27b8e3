"""STEMDL: what electrons scattered by a crystal tell of its space group and of its potential (two tasks)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from sciml_hpc.benchmarks import base
from sciml_hpc.benchmarks.base import Preset, Published, Source
from sciml_hpc.benchmarks.stemdl.settings import CLASSES, ClassificationGenerator, ReconstructionGenerator

if TYPE_CHECKING:
    import torch

_WORKING_GROUP = (
    "J. Thiyagalingam et al., AI benchmarking for science: efforts from the MLCommons Science Working Group, ISC High "
    "Performance 2022 Workshops, LNCS 13387"
)


class ClassificationRecipe(base.Recipe):
    """How the classifier is trained. The defaults are ORNL's: ResNet-50 on one projection at a time, AdamW, erasing."""

    global_batch: int = Field(32, gt=0)
    """Samples per optimiser step over all ranks."""
    epochs: int = Field(90, gt=0)
    """Most epochs that may be spent before the target must have been met."""
    optimizer: Literal["adam", "adamw", "adamax", "sgd"] = "adamw"
    """Update rule; Adam family with torch's default betas, SGD with momentum 0.9."""
    weight_decay: float = Field(5e-5, ge=0)
    """Weight decay of the optimiser."""
    projections: Literal["random", "channels"] = "random"
    """random: one of the three at a time, logits averaged over all three at evaluation (ORNL); channels: all three as
    the channels of one image (STFC)."""
    blocks: tuple[int, ...] = Field((3, 4, 6, 3), min_length=1)
    """Bottleneck blocks of every stage; (3, 4, 6, 3) is ResNet-50."""
    width: int = Field(64, gt=0)
    """Features of the first stage; doubled by every further stage."""
    logit_dropout: float = Field(0.5, ge=0, lt=1)
    """Dropout on the logits in training, as ORNL has it."""
    erasing: float = Field(0.8, ge=0, le=1)
    """Probability that a random rectangle of a training pattern is set to zero."""


class ReconstructionRecipe(base.Recipe):
    """How the reconstruction is trained. The defaults are the reference's network of growth 128."""

    global_batch: int = Field(32, gt=0)
    """Samples per optimiser step over all ranks."""
    growth: int = Field(128, gt=0)
    """Features that a layer of a dense block adds."""
    down: tuple[int, ...] = Field((2, 2, 3), min_length=1)
    """Layers of the dense blocks on the way down; on the way up they are the same in reverse."""
    bottom: int = Field(4, gt=0)
    """Layers of the dense block between."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout after every layer."""
    unit_V_nm: float = Field(100.0, gt=0)
    """Potential that is 1 at the network's output: of the order of the potential's own variation."""


_NARROW_CLASSIFIER: Mapping[str, object] = {
    "blocks": (1, 1, 1),
    "width": 16,
    "logit_dropout": 0.0,
    "erasing": 0.0,
    "base_lr": 2e-3,
    "schedule": "cosine",
}
"""What the embedded sizes change so that a few hundred steps on two cores reach their targets."""

_NARROW_INVERTER: Mapping[str, object] = {
    "growth": 16,
    "global_batch": 16,
    "lr_reference_batch": 16,
    "base_lr": 2e-3,
    "schedule": "cosine",
}
"""The same for reconstruction."""


class Classification(base.Benchmark):
    """Space group of a crystal from three CBED patterns."""

    name = "stemdl"
    task = "classification"
    mllog_name = "stemdl"
    title = "STEMDL: space groups from convergent-beam electron diffraction"
    science = (
        "Which of the 230 space groups has a crystal? A focused electron beam sent through it in three directions "
        "leaves three patterns of diffraction discs, whose arrangement and fine structure follow from the symmetry, "
        "though thickness, tilt and chemistry change them beyond recognition by eye. A ResNet-50 names the group of "
        "materials it has never seen."
    )
    citation = (
        "N. Laanait, A. Borisevich, J. Yin, Database of convergent beam electron diffraction patterns for machine "
        "learning of the structural properties of materials, doi 10.13139/OLCF/1510313 (2019); J. Pan, Probability "
        f"flow for classifying crystallographic space groups, SMC 2020, CCIS 1315; {_WORKING_GROUP}"
    )
    published = (
        Published("target: macro-F1, validation", "0.9, reached by no published result", "MLCommons Science, stemdl"),
        Published("macro-F1 (mean over batches of 32), ResNet-50", "0.43", "MLCommons Science, stemdl/ornl README"),
        Published("top-1 accuracy, ResNet-50", "0.57", "MLCommons Science, stemdl/ornl README"),
        Published("best known top-1, top-5 accuracy", "0.6079, 0.7695", "Pan, SMC 2020, abstract"),
        Published("time to solution, 60 V100", "40 min", "MLCommons Science, stemdl README"),
    )
    Recipe = ClassificationRecipe
    Generator = ClassificationGenerator
    presets: ClassVar[Mapping[str, Preset]] = {
        "tiny": Preset("stemdl-tiny", {**_NARROW_CLASSIFIER, "blocks": (1, 1), "epochs": 12}),
        "small": Preset("stemdl-small", {**_NARROW_CLASSIFIER, "epochs": 12}),
        "node": Preset("stemdl-node", {"global_batch": 256, "epochs": 30, "warmup_epochs": 1.0, "schedule": "cosine"}),
        "full": Preset("stemdl-ornl", {"global_batch": 1920, "warmup_epochs": 5.0, "schedule": "cosine"}),
    }

    @classmethod
    def simulator(cls, generator: ClassificationGenerator, samples: Mapping[str, int], seed: int) -> Source:
        from sciml_hpc.benchmarks.stemdl.synthetic import Patterns

        return Patterns(generator, samples, seed)

    @classmethod
    def native(
        cls, path: Path, generator: ClassificationGenerator, samples: Mapping[str, int] | None, seed: int
    ) -> Source:
        """The published files below `path`, in the form that `generator.layout` names."""
        from sciml_hpc.benchmarks.stemdl import native

        if generator.layout == "npz":
            return native.ProcessedPatterns(path, generator, samples)
        return native.RawPatterns(path, generator, samples, seed)

    @classmethod
    def write_native(
        cls,
        path: Path,
        generator: ClassificationGenerator,
        samples: Mapping[str, int],
        seed: int,
        part: int = 0,
        parts: int = 1,
    ) -> list[Path]:
        """The form that `generator.layout` names."""
        from sciml_hpc.benchmarks.stemdl import native
        from sciml_hpc.benchmarks.stemdl.synthetic import Patterns

        write = native.write_processed if generator.layout == "npz" else native.write_raw
        return write(path, Patterns(generator, samples, seed), part, parts)

    def model(self) -> torch.nn.Module:
        from sciml_hpc.benchmarks.stemdl.model import ResNet

        r = self.recipe
        return ResNet(1 if r.projections == "random" else 3, CLASSES, r.blocks, r.width, r.logit_dropout)

    def inputs(self, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Patterns from 0 to 1."""
        return (batch["cbed"] / 255,)

    def loss(self, output: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Cross-entropy."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(output.float(), batch["space_group"])

    def metrics(self) -> base.Metrics:
        from sciml_hpc.benchmarks.stemdl.metrics import SpaceGroupMetrics

        return SpaceGroupMetrics()

    def augment(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """One projection of each sample, if the recipe says so, and erasing."""
        from sciml_hpc.benchmarks.stemdl.augment import erased, one_projection

        cbed = one_projection(batch["cbed"]) if self.recipe.projections == "random" else batch["cbed"]
        return {**batch, "cbed": erased(cbed, self.recipe.erasing)}


class Reconstruction(base.Benchmark):
    """Projected potential of a crystal from a scan of CBED patterns."""

    name = "stemdl"
    task = "reconstruction"
    mllog_name = "stemdl"
    title = "STEMDL: projected potentials from scanned electron diffraction"
    science = (
        "What does the crystal look like? An electron probe finer than the atoms' spacing is scanned over a thin foil "
        "and leaves a diffraction pattern at every position. Beams scattered several times interfere, and the phases "
        "are lost; a fully convolutional DenseNet inverts the patterns to the projected electrostatic potential. At "
        "full size half a gigabyte per sample: a test of the input path."
    )
    citation = (
        "N. Laanait et al., Exascale deep learning for scientific inverse problems, arXiv:1909.11150; S. Jégou et al., "
        f"The one hundred layers tiramisu, CVPR Workshops 2017; {_WORKING_GROUP}"
    )
    published = (
        Published("quality metric or target", "none published; ours is eval_error", "MLCommons Science, stemdl"),
        Published("scaling efficiency to 27,600 V100, fp16", "0.93", "arXiv:1909.11150, abstract"),
        Published("peak arithmetic rate, 27,600 V100, fp16", "2.15 EF/s", "arXiv:1909.11150, abstract"),
    )
    Recipe = ReconstructionRecipe
    Generator = ReconstructionGenerator
    presets: ClassVar[Mapping[str, Preset]] = {
        "tiny": Preset("stemdl-scan-tiny", {**_NARROW_INVERTER, "down": (1, 1, 1), "bottom": 2, "epochs": 16}),
        "small": Preset("stemdl-scan-small", {**_NARROW_INVERTER, "down": (1, 1, 1), "bottom": 2, "epochs": 24}),
        "node": Preset("stemdl-scan-node", {"global_batch": 32, "epochs": 60, "schedule": "cosine"}),
        "full": Preset("stemdl-scan-olcf-shaped", {"global_batch": 96, "epochs": 30, "schedule": "cosine"}),
    }

    @classmethod
    def simulator(cls, generator: ReconstructionGenerator, samples: Mapping[str, int], seed: int) -> Source:
        from sciml_hpc.benchmarks.stemdl.synthetic import Scans

        return Scans(generator, samples, seed)

    @classmethod
    def native(
        cls, path: Path, generator: ReconstructionGenerator, samples: Mapping[str, int] | None, seed: int
    ) -> Source:
        """Files of our layout below `path` (the original's is LMDB); the split is in them, `seed` unused."""
        from sciml_hpc.benchmarks.stemdl.native import ScanFiles

        return ScanFiles(path, generator, samples)

    @classmethod
    def write_native(
        cls,
        path: Path,
        generator: ReconstructionGenerator,
        samples: Mapping[str, int],
        seed: int,
        part: int = 0,
        parts: int = 1,
    ) -> list[Path]:
        """Files of our layout."""
        from sciml_hpc.benchmarks.stemdl.native import write_scans
        from sciml_hpc.benchmarks.stemdl.synthetic import Scans

        return write_scans(path, Scans(generator, samples, seed), part, parts)

    def model(self) -> torch.nn.Module:
        from sciml_hpc.benchmarks.stemdl.model import FCDenseNet

        r = self.recipe
        return FCDenseNet(self.fields["cbed"].shape[0], r.growth, r.down, r.bottom, r.dropout)

    def inputs(self, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Square roots of intensities, each pattern less its least, as in the reference."""
        patterns = batch["cbed"].float()
        return ((patterns - patterns.amin((-2, -1), keepdim=True)).sqrt(),)

    def loss(self, output: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Variance of the error over a sample's pixels, mean over samples: half the reference's pairwise error."""
        from sciml_hpc.benchmarks.stemdl.metrics import centred

        truth = batch["potential"].float() / self.recipe.unit_V_nm
        return centred(output.float() - truth).square().mean()

    def metrics(self) -> base.Metrics:
        from sciml_hpc.benchmarks.stemdl.metrics import PotentialMetrics

        return PotentialMetrics(self.recipe.unit_V_nm)

    def augment(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Each sample in one of its eight equivalent orientations."""
        from sciml_hpc.benchmarks.stemdl.augment import turned

        cbed, potential = turned(batch["cbed"], batch["potential"])
        return {**batch, "cbed": cbed, "potential": potential}


BENCHMARKS = (Classification, Reconstruction)
