"""The reference network: nine inputs of a pixel, a hidden layer of 50 ReLU, one sigmoid (Hey et al. 2020)."""

from __future__ import annotations

import torch
from torch import nn


class PixelNetwork(nn.Module):
    """`channels` → `hidden` ReLU → 1 for every pixel; 551 parameters at 9 and 50. The sigmoid is in the loss.

    A dense layer on each pixel is a convolution of 1 × 1, which takes a batch of images at once in any memory format.
    """

    def __init__(self, channels: int = 9, hidden: int = 50) -> None:
        super().__init__()
        self.hidden = nn.Conv2d(channels, hidden, 1)
        self.logit = nn.Conv2d(hidden, 1, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits of cloud, (batch, rows, columns), for images (batch, channels, rows, columns)."""
        return self.logit(torch.relu(self.hidden(image)))[:, 0]
