"""The network of CANDLE-UNO (ECP-CANDLE Benchmarks, Pilot1/Uno)."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

TOWER_LAYERS = 3
TRUNK_LAYERS = 5
"""`dense_feature_layers` and `dense` of uno_auc_model.txt."""


class Uno(nn.Module):
    """A tower for the cell, one for the drug (the same for both drugs of a pair), and a trunk on what they give.

    With one drug, 942 genes, 5,270 descriptors and width 1000 it has the published 16,224,001 parameters. With two
    drugs it takes (dose1, dose2, cell, drug1, drug2), and the doses go straight to the trunk, as in CANDLE.
    """

    def __init__(
        self, genes: int, descriptors: int, drugs: int, width: int, dropout: float, eval_dropout: bool
    ) -> None:
        super().__init__()
        self.drugs = drugs
        doses = 2 if drugs == 2 else 0
        self.cell_tower = _stack(genes, width, TOWER_LAYERS, dropout, eval_dropout)
        self.drug_tower = _stack(descriptors, width, TOWER_LAYERS, dropout, eval_dropout)
        self.trunk = _stack(doses + width * (1 + drugs), width, TRUNK_LAYERS, dropout, eval_dropout)
        self.head = nn.Linear(width, 1)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                _glorot_normal(module)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Responses (batch,) from (cell, drug1) or (dose1, dose2, cell, drug1, drug2): vectors (batch, width of the
        field), doses (batch,)."""
        *doses, cell = inputs[: -self.drugs]
        encoded = [self.cell_tower(cell), *(self.drug_tower(drug) for drug in inputs[-self.drugs :])]
        trunk_input = torch.cat([*(dose[:, None].to(encoded[0].dtype) for dose in doses), *encoded], dim=1)
        return self.head(self.trunk(trunk_input)).squeeze(1)


class SwitchedDropout(nn.Dropout):
    """Dropout that may stay on at evaluation, as the reference's PermanentDropout does."""

    def __init__(self, p: float, at_evaluation: bool) -> None:
        super().__init__(p)
        self.at_evaluation = at_evaluation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`x` with units dropped, if training or `at_evaluation`."""
        return functional.dropout(x, self.p, self.training or self.at_evaluation)


def _stack(inputs: int, width: int, layers: int, dropout: float, eval_dropout: bool) -> nn.Sequential:
    """`layers` times linear, ReLU, dropout."""
    modules: list[nn.Module] = []
    for i in range(layers):
        modules += [nn.Linear(width if i else inputs, width), nn.ReLU(), SwitchedDropout(dropout, eval_dropout)]
    return nn.Sequential(*modules)


def _glorot_normal(linear: nn.Linear) -> None:
    """Keras's glorot_normal: variance 2 / (fan_in + fan_out) after truncation at two standard deviations; zero bias."""
    # 0.8796… is the standard deviation of a unit normal truncated at +-2 (keras.initializers.VarianceScaling)
    std = math.sqrt(2.0 / (linear.in_features + linear.out_features)) / 0.87962566103423978
    nn.init.trunc_normal_(linear.weight, std=std, a=-2 * std, b=2 * std)
    nn.init.zeros_(linear.bias)
