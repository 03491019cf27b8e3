"""The reference network: an encoder and decoder of four levels with skip connections."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


def _double(channels_in: int, channels_out: int) -> nn.Sequential:
    """Two 3×3 convolutions, each followed by ReLU and then batch normalisation; zero padding keeps the size."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.BatchNorm2d(channels_out),
        nn.Conv2d(channels_out, channels_out, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.BatchNorm2d(channels_out),
    )


class Autoencoder(nn.Module):
    """Network of SciML-Bench's em_denoise: `width`, 2·, 4· and 8·`width` channels; 122,737 parameters at width 8.

    Between levels the maximum of 2 × 2 pixels, and bilinear interpolation that keeps the corners; the last layer is a
    3×3 convolution without activation. Initial weights are torch's own.
    """

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        level = [width, 2 * width, 4 * width, 8 * width]
        self.encoder = nn.ModuleList(_double(a, b) for a, b in zip([1, *level[:2]], level[:3], strict=True))
        self.bottom = _double(level[2], level[3])
        self.decoder = nn.ModuleList(_double(level[i + 1] + level[i], level[i]) for i in (2, 1, 0))
        self.last = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(batch, 1, P, P), P a multiple of 8, to the same."""
        skips = []
        x = image
        for block in self.encoder:
            skips.append(block(x))
            x = functional.max_pool2d(skips[-1], 2)
        x = self.bottom(x)
        for block in self.decoder:
            x = functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)
            x = block(torch.cat([x, skips.pop()], dim=1))
        return self.last(x)
