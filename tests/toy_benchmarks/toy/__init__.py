"""A benchmark small enough to know everything about: regression on simulated samples, its optimum in closed form."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from sciml_hpc.benchmarks import base
from sciml_hpc.benchmarks.base import Preset, SampleField, Settings

if TYPE_CHECKING:
    import torch


class Recipe(base.Recipe):
    """How the toy is trained."""

    model: Literal["linear", "conv"] = "linear"
    """linear: least squares; conv: a convolution with batch normalisation, for what only such networks meet."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the input."""


class Generator(Settings):
    """Samples y = w·x + 1 + noise."""

    features: int = Field(8, ge=1)
    """Length of x; from 8,192 on a sample counts as large (32 KiB)."""
    noise: float = Field(0.1, ge=0)
    """Standard deviation of the noise in y."""


class Regression:
    """Sample i of a split follows from seed, split and i alone."""

    def __init__(self, generator: Generator, samples: Mapping[str, int], seed: int) -> None:
        self.samples = dict(samples)
        self.fields = (
            SampleField("x", (generator.features,), "float32", "1", "regressors"),
            SampleField("y", (), "float32", "m", "response"),
            SampleField("number", (), "int64", "1", "the sample's own number"),
        )
        self._noise, self._seed = generator.noise, seed
        self.weights = np.random.default_rng([seed, 99]).normal(size=generator.features).astype(np.float32)

    def read(self, split: str, first: int, count: int) -> dict[str, np.ndarray]:
        """Samples by number."""
        which = ("train", "validation", "test").index(split)
        x = np.empty((count, *self.fields[0].shape), np.float32)
        noise = np.empty(count)
        for k in range(count):
            random = np.random.default_rng([self._seed, which, first + k])
            x[k], noise[k] = random.normal(size=x.shape[1]), random.normal()
        y = (x.astype(np.float64) @ self.weights + 1 + self._noise * noise).astype(np.float32)
        return {"x": x, "y": y, "number": np.arange(first, first + count)}


class Stored:
    """The toy's "published" files: one .npy per split and field."""

    def __init__(self, path: Path, samples: Mapping[str, int] | None) -> None:
        self._arrays: dict[str, dict[str, np.ndarray]] = {}
        for file in sorted(path.glob("*.npy")):
            split, name = file.stem.split("-")
            self._arrays.setdefault(split, {})[name] = np.load(file, mmap_mode="r", allow_pickle=False)
        self.samples = {split: len(arrays["y"]) for split, arrays in self._arrays.items()}
        if samples is not None and self.samples != dict(samples):
            raise ValueError(f"{path} holds {self.samples} samples, not {dict(samples)}")
        features = self._arrays["train"]["x"].shape[1]
        self.fields = Regression(Generator(features=features), self.samples, 0).fields

    def read(self, split: str, first: int, count: int) -> dict[str, np.ndarray]:
        """Samples by number."""
        return {name: np.asarray(array[first : first + count]) for name, array in self._arrays[split].items()}


class Squares:
    """Mean squared error over all samples, and the number of samples seen."""

    def update(self, output: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """[n, Σ error², Σ number]"""
        import torch

        error = (output.double() - batch["y"].double()).square()
        return torch.stack([torch.ones_like(error).sum(), error.sum(), batch["number"].double().sum()])

    def compute(self, total: np.ndarray) -> dict[str, float]:
        """By name."""
        return {"eval_loss": float(total[1] / total[0]), "seen": float(total[0]), "numbers": float(total[2])}


class Toy(base.Benchmark):
    """Linear regression."""

    name = "toy"
    mllog_name = "toy"
    title = "Toy: linear regression"
    science = "What is the slope?"
    citation = "C. F. Gauss, Theoria motus corporum coelestium, 1809"
    Recipe = Recipe
    Generator = Generator
    presets: ClassVar[Mapping[str, Preset]] = {
        "tiny": Preset(
            "toy-tiny",
            {"global_batch": 16, "epochs": 6, "base_lr": 0.05, "lr_reference_batch": 16, "eval_batch": 8},
            {"conv": {"base_lr": 0.01}},
        ),
        "small": Preset("toy-small", {"global_batch": 64, "epochs": 2}),
    }

    @classmethod
    def simulator(cls, generator: Generator, samples: Mapping[str, int], seed: int) -> Regression:
        return Regression(generator, samples, seed)

    @classmethod
    def native(cls, path: Path, generator: Generator, samples: Mapping[str, int] | None, seed: int) -> Stored:
        return Stored(path, samples)

    @classmethod
    def write_native(
        cls, path: Path, generator: Generator, samples: Mapping[str, int], seed: int, part: int = 0, parts: int = 1
    ) -> list[Path]:
        source = cls.simulator(generator, samples, seed)
        written = []
        for split in list(samples)[part::parts]:
            for name, array in source.read(split, 0, samples[split]).items():
                written.append(path / f"{split}-{name}.npy")
                np.save(written[-1], array)
        return written

    def model(self) -> torch.nn.Module:
        from torch import nn

        features, drop = self.fields["x"].shape[0], nn.Dropout(self.recipe.dropout)
        if self.recipe.model == "linear":
            return nn.Sequential(drop, nn.Linear(features, 1), nn.Flatten(0))
        return nn.Sequential(
            drop,
            nn.Unflatten(1, (1, 1, features)),
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(1),
            nn.Linear(4 * features, 1),
            nn.Flatten(0),
        )

    def inputs(self, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        return (batch["x"],)

    def loss(self, output: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return (output.float() - batch["y"]).square().mean()

    def metrics(self) -> Squares:
        return Squares()


BENCHMARKS = (Toy,)
