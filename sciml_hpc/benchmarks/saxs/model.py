"""The reference network: 300 inputs, a hidden layer of 100 ReLU, one sigmoid (Hey et al. 2020)."""

from __future__ import annotations

import torch
from torch import nn


class Classifier(nn.Module):
    """`points` → `hidden` ReLU → 1; 30,201 parameters at 300 and 100. The sigmoid is in the loss."""

    def __init__(self, points: int = 300, hidden: int = 100) -> None:
        super().__init__()
        self.hidden = nn.Linear(points, hidden)
        self.logit = nn.Linear(hidden, 1)

    def forward(self, profile: torch.Tensor) -> torch.Tensor:
        """Logits of parallelepiped, (batch,), for profiles (batch, points)."""
        return self.logit(torch.relu(self.hidden(profile)))[:, 0]
