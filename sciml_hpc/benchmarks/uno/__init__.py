"""CANDLE-UNO: the response of tumour cells to drugs, from gene expression and molecular descriptors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from sciml_hpc.benchmarks import base
from sciml_hpc.benchmarks.base import Preset, Published, SampleField, Settings, Source

if TYPE_CHECKING:
    import torch


class Recipe(base.Recipe):
    """How UNO is trained. The defaults are CANDLE's `uno_auc_model.txt`: Adamax whose learning rate falls from 1e-3 to
    1e-4 over epochs 0 to 5 and is then halved after 5 epochs without a better validation loss, down to 1e-5."""

    global_batch: int = Field(32, gt=0)
    """Samples per optimiser step over all ranks."""
    epochs: int = Field(50, gt=0)
    """Most epochs that may be spent before the target must have been met."""
    optimizer: Literal["adam", "adamw", "adamax", "sgd"] = "adamax"
    """Update rule; Adam family with torch's default betas, SGD with momentum 0.9."""
    base_lr: float = Field(1e-4, gt=0)
    """Learning rate at `lr_reference_batch`, after the warm-up."""
    warmup_from: float = Field(1e-3, gt=0)
    """Learning rate at the first step of warm-up, whatever the batch; CANDLE's begins high and comes down."""
    warmup_epochs: float = Field(5.0, ge=0)
    """Epochs over which the learning rate goes linearly from `warmup_from` to the scaled rate."""
    schedule: Literal["constant", "cosine", "plateau"] = "plateau"
    """Learning rate after warm-up: constant, cosine to `min_lr` at `epochs`, or reduced on a plateau."""
    min_lr: float = Field(1e-5, ge=0)
    """Lower end of the cosine and plateau schedules."""
    width: int = Field(1000, gt=0)
    """Units of every hidden layer; 1000 is the published network."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout after every hidden layer."""
    eval_dropout: bool = False
    """Whether dropout stays on at evaluation, as in the published reference, whose validation loss (and so the official
    target) is that of a randomly thinned network. It is not a handicap: a network trained with dropout 0.1 after eleven
    layers gives biased values without it, of better correlation but larger squared error."""


class Generator(Settings):
    """The simulated data set; of published files, `drugs`, `genes` and `descriptors` say what they must hold."""

    drugs: Literal[1, 2] = 1
    """1: one drug, response AUC (the MLCommons configuration); 2: two drugs at given doses, response growth."""
    genes: int = Field(942, ge=8)
    """Expression values of a cell line; 942 as published."""
    descriptors: int = Field(5270, ge=64, le=5270)
    """Molecular descriptors of a drug: that many of Dragon's 5,270, evenly spaced over its blocks."""
    cells: int = Field(1593, ge=20)
    """Cell lines in the library; 1,593 as in CANDLE's table of 21 cancer types (plangen_cell1593-p4_drug1779-p1)."""
    compounds: int = Field(1779, ge=20)
    """Compounds in the library; 1,779 as in that table."""
    split: Literal["pairs", "cells", "drugs"] = "pairs"
    """What validation and test samples have not shown in training: their (cell, drug) pair only, which is what CANDLE's
    data_split.py does unless told otherwise; their cell; or their drugs. A tenth of these each is validation's and
    test's. Figures of one kind of split say nothing of another: pairs are by far the easiest."""
    noise: float = Field(0.35, ge=0)
    """Standard deviation of the error of a measured pEC50, in decades of concentration; 0.35 is about a factor of two,
    and gives an AUC an error of about 0.04."""


_SIMULATED: Mapping[str, object] = {
    "width": 128,
    "dropout": 0.0,  # in few steps, dropout after eleven layers costs more than it saves
    "optimizer": "adam",
    "base_lr": 2e-4,
    "warmup_from": 1e-3,
    "warmup_epochs": 8.0,
    "global_batch": 64,
    "lr_reference_batch": 64,
    "eval_batch": 256,
    "epochs": 25,
}
"""What the embedded sizes change so that a few thousand steps, not the published 660,000, reach their targets."""


class Uno(base.Benchmark):
    """CANDLE-UNO, with one drug (MLCommons Science) or two."""

    name = "uno"
    mllog_name = "uno"
    title = "CANDLE-UNO: tumour response to drugs"
    science = (
        "How strongly does a drug, or a pair of drugs, slow the growth of a given tumour? From the expression of 942 "
        "genes of a cell line and 5,270 molecular descriptors of a drug, a network of two towers and a common trunk "
        "predicts the area under the dose-response curve, measured in screens of 1,593 cell lines against 1,779 "
        "compounds. Cheap arithmetic on 25 kB per sample: a test of the input path and of small-message communication."
    )
    citation = (
        "F. Xia et al., A cross-study analysis of drug response prediction in cancer cell lines, Briefings in "
        "Bioinformatics 23 (2022) bbab356; ECP-CANDLE Benchmarks, Pilot1/Uno; J. Thiyagalingam et al., AI benchmarking "
        "for science: efforts from the MLCommons Science Working Group, ISC High Performance 2022 Workshops, LNCS 13387"
    )
    published = (
        Published("target: validation loss (MSE)", "0.0054", "MLCommons Science policy.adoc and CANDLE-UNO page"),
        Published("validation loss, 50 epochs", "0.005335", "CANDLE Pilot1/Uno README.AUC.md"),
        Published("validation MSE, MAE", "0.0053, 0.0490", "CANDLE Pilot1/Uno README.AUC.md"),
        Published("validation R2, Pearson r", "0.7742, 0.8800", "CANDLE Pilot1/Uno README.AUC.md"),
        Published("mean predictor, MSE", "0.0237 (half of that between shuffled pairs)", "README.AUC.md, computed"),
        Published("epoch, batch 32, hardware unstated", "102 s (4,160 samples/s)", "CANDLE Pilot1/Uno README.AUC.md"),
        Published("throughput, batch 64, 1 A100", "10,667 samples/s", "MLCommons Science CANDLE-UNO page"),
    )
    Recipe = Recipe
    Generator = Generator
    presets: ClassVar[Mapping[str, Preset]] = {
        "tiny": Preset("uno-tiny", {**_SIMULATED, "epochs": 20, "warmup_epochs": 6.0}),
        "small": Preset("uno-small", _SIMULATED),
        "node": Preset("uno-node", {**_SIMULATED, "width": 1000, "global_batch": 512, "lr_reference_batch": 512}),
        "full": Preset("uno-top21", {"eval_dropout": True, "shuffle": False}),
    }

    @classmethod
    def simulator(cls, generator: Generator, samples: Mapping[str, int], seed: int) -> Source:
        from sciml_hpc.benchmarks.uno.synthetic import Screen

        return Screen(generator, samples, seed)

    @classmethod
    def native(cls, path: Path, generator: Generator, samples: Mapping[str, int] | None, seed: int) -> Source:
        """The published file at `path`, or the one `*.uno.h5` in that directory; its split is in it, `seed` unused."""
        from sciml_hpc.benchmarks.uno.native import Store

        return Store(path, generator, samples)

    @classmethod
    def write_native(
        cls, path: Path, generator: Generator, samples: Mapping[str, int], seed: int, part: int = 0, parts: int = 1
    ) -> list[Path]:
        """The layout is one file, so part 0 writes it alone, a few MiB at a time."""
        from sciml_hpc.benchmarks.uno.native import write

        return [write(path, cls.simulator(generator, samples, seed))] if part == 0 else []

    def model(self) -> torch.nn.Module:
        from sciml_hpc.benchmarks.uno.model import Uno as Network

        return Network(
            genes=self.fields["cell"].shape[0],
            descriptors=self.fields["drug1"].shape[0],
            drugs=2 if "drug2" in self.fields else 1,
            width=self.recipe.width,
            dropout=self.recipe.dropout,
            eval_dropout=self.recipe.eval_dropout,
        )

    def inputs(self, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        return tuple(batch[n] for n in ("dose1", "dose2", "cell", "drug1", "drug2") if n in self.fields)

    def loss(self, output: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Mean squared error."""
        from torch.nn.functional import mse_loss

        return mse_loss(output.float(), batch["response"])

    def metrics(self) -> base.Metrics:
        from sciml_hpc.benchmarks.uno.metrics import Regression

        return Regression()

    def augment(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Of paired drugs, swaps which is called the first, for half of the samples, as CANDLE's generator does."""
        import torch

        if "drug2" not in batch:
            return batch
        swap = torch.rand(len(batch["response"]), device=batch["response"].device) < 0.5
        swapped = dict(batch)
        for first, second in (("drug1", "drug2"), ("dose1", "dose2")):
            where = swap.view(-1, *[1] * (batch[first].ndim - 1))
            swapped[first] = torch.where(where, batch[second], batch[first])
            swapped[second] = torch.where(where, batch[first], batch[second])
        return swapped


def sample_fields(generator: Generator) -> tuple[SampleField, ...]:
    """The arrays of one sample, in the order in which CANDLE's network takes them, then the response."""
    cell = SampleField("cell", (generator.genes,), "float32", "1", "gene expression, standardised over the library")
    fields: list[SampleField] = []
    for i in range(1, generator.drugs + 1):
        fields.append(SampleField(f"drug{i}", (generator.descriptors,), "float32", "1", "descriptors, standardised"))
    if generator.drugs == 1:
        return (cell, *fields, SampleField("response", (), "float32", "1", "area under the growth curve, 0 to 1"))
    doses = [SampleField(f"dose{i}", (), "float32", "-log10(mol/L)", f"concentration of drug {i}") for i in (1, 2)]
    response = SampleField("response", (), "float32", "1", "growth: 1 untreated, 0 stasis, -1 all cells killed")
    return (*doses, cell, *fields, response)


BENCHMARKS = (Uno,)
