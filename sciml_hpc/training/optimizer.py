"""The optimiser of a recipe, and its learning rate at every step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from sciml_hpc.benchmarks.base import Recipe

if TYPE_CHECKING:
    import torch

SGD_MOMENTUM = 0.9


def build(recipe: Recipe, model: torch.nn.Module) -> torch.optim.Optimizer:
    """The recipe's optimiser over the model's parameters; the learning rate is set before each step.

    On GPUs Adam and AdamW update all parameters in one kernel.
    """
    import torch

    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "adamax": torch.optim.Adamax, "sgd": torch.optim.SGD}
    more: dict[str, Any] = {"momentum": SGD_MOMENTUM} if recipe.optimizer == "sgd" else {}
    if recipe.optimizer in ("adam", "adamw") and next(model.parameters()).is_cuda:
        more["fused"] = True
    return kinds[recipe.optimizer](model.parameters(), lr=recipe.base_lr, weight_decay=recipe.weight_decay, **more)


class LearningRate:
    """Learning rate by step: scaled with the global batch, warmed up, then constant, cosine or reduced on a plateau.

    Linear scaling and gradual warm-up follow Goyal et al. 2017 (arXiv:1706.02677, sections 2.1 and 2.2); square-root
    scaling Krizhevsky 2014 (arXiv:1404.5997, section 5). Every rank computes the same value.
    """

    def __init__(self, recipe: Recipe, steps_per_epoch: int, global_batch: int) -> None:
        ratio = max(1.0, global_batch / recipe.lr_reference_batch)
        scale = {"none": 1.0, "sqrt": math.sqrt(ratio), "linear": ratio}[recipe.lr_scaling]
        self.peak = recipe.base_lr * scale
        self._recipe = recipe
        self._start = recipe.warmup_from or recipe.base_lr
        self._warmup = recipe.warmup_epochs * steps_per_epoch
        self._total = recipe.epochs * steps_per_epoch
        self.factor = 1.0
        """What plateaus have made of the rate so far."""
        self.best = math.inf
        self.waited = 0

    def at(self, step: int) -> float:
        """Learning rate of the optimiser's step number `step`, counted from 0 over all epochs."""
        if step < self._warmup:
            return self._start + (self.peak - self._start) * step / self._warmup
        recipe = self._recipe
        if recipe.schedule == "cosine":
            done = (step - self._warmup) / max(1, self._total - self._warmup)
            return recipe.min_lr + (self.peak - recipe.min_lr) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        return max(recipe.min_lr, self.peak * self.factor)

    def epoch_done(self, badness: float) -> None:
        """Tell the plateau schedule the validation metric after an epoch, as a number that should fall."""
        if badness < self.best:
            self.best, self.waited = badness, 0
            return
        self.waited += 1
        if self._recipe.schedule == "plateau" and self.waited > self._recipe.plateau_patience:
            self.factor, self.waited = self.factor * self._recipe.plateau_factor, 0

    def state(self) -> dict[str, float]:
        """What a checkpoint must hold."""
        return {"factor": self.factor, "best": self.best, "waited": self.waited}

    def restore(self, state: dict[str, float]) -> None:
        """Take up the state of a checkpoint."""
        self.factor, self.best, self.waited = state["factor"], state["best"], int(state["waited"])
