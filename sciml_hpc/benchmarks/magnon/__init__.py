"""Magnons: the exchange constants J and J' of Rb2MnF4 from inelastic neutron scattering (the SciML suite)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from sciml_hpc.benchmarks import base
from sciml_hpc.benchmarks.base import Picture, Preset, Published, SampleField, Settings, Source

if TYPE_CHECKING:
    import torch

BANDS_meV = ((2.0, 3.0), (3.0, 5.0), (5.0, 8.0))
"""Bands of energy of a sample's maps."""
UNSEEN = -1
"""Count of a pixel where there is no detector."""
J_RANGE_meV = (0.4, 1.0)
J2_RANGE_meV = (-0.1, 0.1)
"""Exchange constants of the simulated samples, uniform, about those measured; the paper does not state its ranges."""
PUBLISHED_MAE_meV = (0.0055, 0.0036)
"""Mean absolute errors of J and J' in the paper."""
_SUITE = "Hey, Butler, Jackson, Thiyagalingam 2020"


class Recipe(base.Recipe):
    """How the network is trained; of the published training only network and data are known."""

    global_batch: int = Field(32, gt=0)
    """Samples per optimiser step over all ranks."""
    epochs: int = Field(50, gt=0)
    """Most epochs that may be spent before the target must have been met."""
    schedule: Literal["constant", "cosine", "plateau"] = "cosine"
    """Learning rate after warm-up: constant, cosine to `min_lr` at `epochs`, or reduced on a plateau."""
    channels: tuple[int, ...] = Field((32, 64, 32, 16), min_length=1, max_length=5)
    """Channels of the convolutions, each of which halves the map's edge; (32, 64, 32, 16) as published."""


class Generator(Settings):
    """The simulated experiment; of files, `size` says what they must hold."""

    size: Literal[32, 64, 128] = 128
    """Pixels along the edge of a histogram, over 0 ≤ h, k < 1; 128 as published. Coarser pixels hold more neutrons."""
    counts: float = Field(10.0, gt=0)
    """Neutrons in a pixel of a 128×128 map for a spin wave of unit weight, at the median exposure; at 10 the brightest
    pixels, on the cone about (½, ½), hold some 60. Neutrons so few leave an error of
    0.0004 to 0.003 meV to the best of estimators (the bound of Cramér and Rao, for unknown exposure)."""
    exposure_spread: float = Field(1.25, ge=1)
    """Exposures lie between the median divided and multiplied by this, so that no absolute scale betrays J."""


_EMBEDDED: Mapping[str, object] = {"channels": (16, 32, 16, 16), "base_lr": 4e-3, "eval_batch": 128}
"""A network of 12,162 parameters on 32×32 maps, 12,546 on 64×64."""


class Magnon(base.Benchmark):
    """Regression of two exchange constants on maps of neutron counts."""

    name = "magnon"
    mllog_name = "magnon"
    title = "Magnon: exchange constants of Rb2MnF4 from neutron scattering"
    science = (
        "How strongly are neighbouring spins coupled? Neutrons that make spin waves in a crystal lose energy and "
        "momentum along the waves' dispersion, which follows from the exchange constants J and J' between nearest and "
        "next-nearest neighbours. A small convolutional network trained on simulated spectra of the square-lattice "
        "antiferromagnet Rb2MnF4 reads both from a measured map at once, and shows where in the map it looked."
    )
    citation = (
        "T. Hey, K. Butler, S. Jackson, J. Thiyagalingam, Machine learning and big scientific data, Philosophical "
        "Transactions of the Royal Society A 378 (2020) 20190054"
    )
    published = (
        Published("MAE of J, 2,957 validation spectra", "0.0055 meV", _SUITE),
        Published("MAE of J', 2,957 validation spectra", "0.0036 meV", _SUITE),
        Published("J, J' from data measured on MARI", "0.6763 meV, 0.0104 meV", _SUITE),
        Published(
            "J by fits to measured spectra",
            "0.648 ± 0.003, 0.6544 ± 0.014, 0.657 ± 0.002, 0.673 ± 0.028 meV",
            f"quoted by {_SUITE}",
        ),
        Published("J' by fits to measured spectra", "0.006 ± 0.003, 0.012 ± 0.002 meV", f"quoted by {_SUITE}"),
    )
    Recipe = Recipe
    Generator = Generator
    presets: ClassVar[Mapping[str, Preset]] = {
        "tiny": Preset("magnon-tiny", {**_EMBEDDED, "epochs": 20}),
        "small": Preset("magnon-small", {**_EMBEDDED, "epochs": 12}),
        "node": Preset("magnon-node", {"global_batch": 256, "warmup_epochs": 1.0}),
        "full": Preset("magnon-full"),
    }

    @classmethod
    def simulator(cls, generator: Generator, samples: Mapping[str, int], seed: int) -> Source:
        from sciml_hpc.benchmarks.magnon.synthetic import Maps

        return Maps(generator, samples, seed)

    @classmethod
    def native(cls, path: Path, generator: Generator, samples: Mapping[str, int] | None, seed: int) -> Source:
        """The files in the directory `path`; their split is in their names, `seed` unused."""
        from sciml_hpc.benchmarks.magnon.native import Files

        return Files(path, generator.size, samples)

    @classmethod
    def write_native(
        cls, path: Path, generator: Generator, samples: Mapping[str, int], seed: int, part: int = 0, parts: int = 1
    ) -> list[Path]:
        from sciml_hpc.benchmarks.magnon.native import write

        return write(path, cls.simulator(generator, samples, seed), part, parts)

    def model(self) -> torch.nn.Module:
        from sciml_hpc.benchmarks.magnon.model import Regressor

        maps, size, _ = self.fields["counts"].shape
        ranges = (J_RANGE_meV, J2_RANGE_meV)
        centre, half_range = ([(high + sign * low) / 2 for low, high in ranges] for sign in (1, -1))
        return Regressor(maps, size, self.recipe.channels, centre, half_range)

    def inputs(self, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """ln(1 + counts) / 3, of order one; no detector is as no neutrons."""
        return (batch["counts"].float().clamp_min(0).log1p() / 3,)

    def loss(self, output: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Mean absolute error of both constants, each in units of half its range."""
        j, j2 = (output - batch["exchange"]).abs().mean(0)
        half, half2 = ((high - low) / 2 for low, high in (J_RANGE_meV, J2_RANGE_meV))
        return (j / half + j2 / half2) / 2

    def metrics(self) -> base.Metrics:
        from sciml_hpc.benchmarks.magnon.metrics import Exchange

        return Exchange()

    def pictures(self, model: torch.nn.Module, batch: Mapping[str, torch.Tensor]) -> tuple[Picture, ...]:
        """Class-activation maps of J and J' beside the input, for the first samples of the batch."""
        from sciml_hpc.benchmarks.magnon.explain import pictures

        few = {name: values[:4] for name, values in batch.items()}
        return pictures(model, *self.inputs(few), few)


def sample_fields(size: int) -> tuple[SampleField, ...]:
    """The arrays of one sample."""
    bands = ", ".join(f"{low:g}–{high:g}" for low, high in BANDS_meV)
    return (
        SampleField(
            "counts",
            (len(BANDS_meV), size, size),
            "int16",
            "neutrons",
            f"counts over 0 ≤ h, k < 1 (rows k, columns h) at energies of {bands} meV; −1 where there is no detector",
        ),
        SampleField("exchange", (2,), "float32", "meV", "J between nearest and J' between next-nearest neighbours"),
    )


BENCHMARKS = (Magnon,)
