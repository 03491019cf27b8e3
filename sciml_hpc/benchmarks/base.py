"""The interface every benchmark implements: what is trained, on what data, and what counts as done.

A benchmark is a folder of this package with the same few files:

    __init__.py    the Benchmark class: recipe, presets, loss, metrics (imports torch only inside methods,
                   so that `list`, `info` and a mistyped option answer at once)
    model.py       the reference network
    native.py      reader and writer of the published file format
    synthetic.py   the embedded simulator

and is found by its folder name (`benchmarks.find`). Nothing here knows about ranks: a sample has an index, a
metric is a vector of sums, and how either is spread over ranks is decided elsewhere.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import numpy as np
    import torch


class Settings(BaseModel):
    """Base of what a user may write: unknown keys, infinity and NaN are refused; a field's docstring is its help."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)

    @classmethod
    def meanings(cls) -> dict[str, str]:
        """The docstring under each field, on one line, from the source: pydantic would read those of every class when
        the program starts, a third of the time of `list`."""
        found = {}
        for kind in reversed(cls.__mro__[: cls.__mro__.index(Settings)]):
            body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0].body
            for line, below in itertools.pairwise(body):
                match line, below:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                        found[name] = " ".join(text.split())
        return found


class Recipe(Settings):
    """How a benchmark is trained; a benchmark adds the fields of its own model."""

    global_batch: int = Field(32, gt=0)
    """Samples per optimiser step over all ranks."""
    epochs: int = Field(10, gt=0)
    """Most epochs that may be spent before the target must have been met."""
    optimizer: Literal["adam", "adamw", "adamax", "sgd"] = "adam"
    """Update rule; Adam family with torch's default betas, SGD with momentum 0.9."""
    base_lr: float = Field(1e-3, gt=0)
    """Learning rate at `lr_reference_batch`."""
    lr_reference_batch: int = Field(32, gt=0)
    """Global batch at which `base_lr` holds unscaled."""
    lr_scaling: Literal["none", "sqrt", "linear"] = "sqrt"
    """How the learning rate grows with global_batch / lr_reference_batch (never below base_lr's own)."""
    warmup_epochs: float = Field(0.0, ge=0)
    """Epochs over which the learning rate goes linearly from `warmup_from` to the scaled rate."""
    warmup_from: float | None = Field(None, gt=0)
    """Learning rate at the first step of warm-up; `base_lr` if not given."""
    schedule: Literal["constant", "cosine", "plateau"] = "constant"
    """Learning rate after warm-up: constant, cosine to `min_lr` at `epochs`, or reduced on a plateau."""
    min_lr: float = Field(0.0, ge=0)
    """Lower end of the cosine and plateau schedules."""
    plateau_factor: float = Field(0.5, gt=0, lt=1)
    """Factor by which a plateau reduces the learning rate."""
    plateau_patience: int = Field(5, ge=1)
    """Epochs without a better validation metric before the rate is reduced."""
    weight_decay: float = Field(0.0, ge=0)
    """Weight decay of the optimiser."""
    precision: Literal["fp32", "bf16", "auto"] = "auto"
    """Arithmetic of the forward pass; auto: bf16 autocast on GPUs that have it, fp32 elsewhere."""
    compile: bool = False
    """Whether torch.compile fuses the network's operators in training. It needs a C++ compiler on the nodes, and its
    half minute or so counts, in the first epoch. Gradients are then joined after the backward pass, not during it."""
    eval_batch: int = Field(64, gt=0)
    """Samples per rank in one evaluation step; has no influence on the metric."""
    shuffle: bool = True
    """Whether the order of training samples changes from epoch to epoch."""


@dataclass(frozen=True)
class SampleField:
    """One array of a sample as it is stored, read and handed to the model (first axis of a batch added)."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    """A numpy name: float32, uint8, int64, …"""
    units: str
    """Physical units, or "1"."""
    description: str


@dataclass(frozen=True)
class Target:
    """When a run counts as converged."""

    metric: str
    direction: Literal["max", "min"]
    value: float
    source: str
    """Where the value comes from: the rule, paper or measurement."""

    def met(self, value: float) -> bool:
        """Whether `value` reaches the target; NaN never does."""
        return value >= self.value if self.direction == "max" else value <= self.value


@dataclass(frozen=True)
class Published:
    """A figure somebody else printed, shown by `info` beside ours."""

    what: str
    value: str
    source: str


@dataclass(frozen=True)
class Preset:
    """A size of a run: the data set it takes by default and what it changes in the recipe."""

    dataset: str
    recipe: Mapping[str, Any] = field(default_factory=dict)
    by_model: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Further changes for a recipe whose field `model` has this value."""


@dataclass(frozen=True)
class Picture:
    """What a trained network shows of itself, in panels side by side; the report draws it."""

    name: str
    """A word for file names."""
    caption: str
    """What is seen, in a sentence or two."""
    panels: np.ndarray
    """float32, (k, height, width), drawn with row 0 at the top; NaN is left blank."""
    labels: tuple[str, ...]
    """One of each panel, quantity and units in it."""


class Source(Protocol):
    """The samples of one data set in order, whether simulated or read from published files.

    Sample `i` of a split is the same whatever was read before it and whoever reads it, so any number of ranks can
    share the work.
    """

    fields: tuple[SampleField, ...]
    samples: Mapping[str, int]
    """Samples per split: "train", "validation" and, where there is one, "test"."""

    def read(self, split: str, first: int, count: int) -> dict[str, np.ndarray]:
        """Samples `first` … `first + count - 1`: per field an array of shape (count, *shape) and the field's dtype.

        Raises ValueError naming file and field if a published file is not as it should be.
        """
        ...


class Metrics(Protocol):
    """A metric as sums: contributions of batches add up, in any order and over any ranks, to the exact value."""

    def update(self, output: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Contribution of one batch: float64, shape (k,), on the batch's device; a batch may have any length."""
        ...

    def compute(self, total: np.ndarray) -> dict[str, float]:
        """Values from the sum (float64, shape (k,)) of all contributions; names as printed, baselines included."""
        ...


class Benchmark(ABC):
    """One benchmark: class attributes and class methods describe it, an instance trains one recipe on one data set."""

    name: ClassVar[str]
    """The command: `python -m sciml_hpc NAME`; the folder's name, with '-' for '_'."""
    task: ClassVar[str] = ""
    """The value of `--task` that selects this class, where a folder has several."""
    mllog_name: ClassVar[str]
    """Value of `submission_benchmark` in the log."""
    title: ClassVar[str]
    science: ClassVar[str]
    """Two or three sentences: the scientific question, the data, the network."""
    citation: ClassVar[str]
    published: ClassVar[tuple[Published, ...]] = ()
    Recipe: ClassVar[type[Recipe]] = Recipe
    Generator: ClassVar[type[Settings]]
    """Parameters of the simulator and of the native reader, as a manifest may give them."""
    presets: ClassVar[Mapping[str, Preset]]
    """By name: tiny, small, node, full."""

    def __init__(self, recipe: Recipe, fields: tuple[SampleField, ...]) -> None:
        self.recipe = recipe
        self.fields = {f.name: f for f in fields}

    @classmethod
    @abstractmethod
    def simulator(cls, generator: Settings, samples: Mapping[str, int], seed: int) -> Source:
        """The embedded data set: any number of samples, from `seed` alone."""

    @classmethod
    @abstractmethod
    def native(cls, path: Path, generator: Settings, samples: Mapping[str, int] | None, seed: int) -> Source:
        """The published files below `path`; `seed` draws the split where the publisher left it open.

        `samples`, where given, must be what the files hold. Raises ValueError naming what is missing or malformed.
        """

    @classmethod
    @abstractmethod
    def write_native(
        cls, path: Path, generator: Settings, samples: Mapping[str, int], seed: int, part: int = 0, parts: int = 1
    ) -> list[Path]:
        """Write the simulator's data set in the published layout; `native` reads back the same samples, bit for bit.

        The work splits into `parts` that different ranks may do at once; returns the files this part wrote.
        """

    @abstractmethod
    def model(self) -> torch.nn.Module:
        """A freshly initialised network; its weights follow from torch's global seed."""

    @abstractmethod
    def inputs(self, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """The model's positional arguments, from a batch on the device in stored dtypes."""

    @abstractmethod
    def loss(self, output: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Mean loss over the batch: a float32 scalar."""

    @abstractmethod
    def metrics(self) -> Metrics:
        """The validation metrics; the target's name is among those `compute` returns."""

    def pictures(self, model: torch.nn.Module, batch: Mapping[str, torch.Tensor]) -> tuple[Picture, ...]:
        """Pictures by which the trained model explains itself, from validation samples on the device; on one rank.

        The model is in evaluation mode; gradients may be taken.
        """
        return ()

    def augment(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Random changes to a training batch, from torch's global generator (seeded per rank and step)."""
        return batch
