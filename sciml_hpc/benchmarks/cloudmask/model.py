"""The reference network: a U-Net of four levels without normalisation or dropout."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


def _double(channels_in: int, channels_out: int) -> nn.Sequential:
    """Two 3×3 convolutions, each followed by ReLU; zero padding keeps the size."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels_out, channels_out, 3, padding=1),
        nn.ReLU(inplace=True),
    )


class UNet(nn.Module):
    """U-Net of MLCommons CloudMask: `width`, 2·, 4· and 8·`width` channels; 1,948,609 parameters at width 32.

    Weights are He-normal, biases zero, as in the reference (its Keras `he_normal` cuts the normal at two
    standard deviations; here it is not cut). The decoder doubles the size by nearest neighbour and concatenates.
    """

    def __init__(self, channels: int = 9, width: int = 32) -> None:
        super().__init__()
        level = [width, 2 * width, 4 * width, 8 * width]
        self.encoder = nn.ModuleList(_double(a, b) for a, b in zip([channels, *level[:2]], level[:3], strict=True))
        self.bottleneck = _double(level[2], level[3])
        self.decoder = nn.ModuleList(_double(level[i + 1] + level[i], level[i]) for i in (2, 1, 0))
        self.logit = nn.Conv2d(width, 1, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits of cloud, (batch, P, P), for images (batch, channels, P, P); P a multiple of 8."""
        skips = []
        x = image
        for block in self.encoder:
            skips.append(block(x))
            x = functional.max_pool2d(skips[-1], 2)
        x = self.bottleneck(x)
        for block in self.decoder:
            x = block(torch.cat([functional.interpolate(x, scale_factor=2.0, mode="nearest"), skips.pop()], dim=1))
        return self.logit(x)[:, 0]
