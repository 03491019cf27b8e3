"""The reference network: four convolutions and one dense layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


class Regressor(nn.Module):
    """Each convolution 3×3, zero-padded (the paper does not say), then ReLU and 2×2 max-pooling; then dense.

    With channels (32, 64, 32, 16) and one 128×128 map it has 43,954 parameters, with three 44,530. The dense layer's
    outputs become `centre` + `half_range` · output, so that they are of order one and the result is in physical units.
    """

    def __init__(
        self, maps: int, size: int, channels: Sequence[int], centre: Sequence[float], half_range: Sequence[float]
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, o in zip([maps, *channels[:-1]], channels, strict=True):
            layers += [nn.Conv2d(i, o, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        *layers, self.pool = layers
        self.features = nn.Sequential(*layers)
        """Up to the last convolution and its ReLU."""
        self.dense = nn.Linear(channels[-1] * (size >> len(channels)) ** 2, len(centre))
        self.register_buffer("centre", torch.tensor(centre), persistent=False)
        self.register_buffer("half_range", torch.tensor(half_range), persistent=False)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Values (batch, outputs) float32 from maps (batch, maps, size, size)."""
        return self.read_out(self.features(maps))

    def read_out(self, activation: torch.Tensor) -> torch.Tensor:
        """Values from what `features` gives; in float32 whatever the precision, for 8 bits would be felt."""
        with torch.autocast(activation.device.type, enabled=False):
            values = self.dense(self.pool(activation).flatten(1).float())
            return self.centre + self.half_range * values
