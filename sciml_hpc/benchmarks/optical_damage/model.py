"""The reference network: a convolutional autoencoder with a linear bottleneck."""

from __future__ import annotations

import torch
from torch import nn


def _convolution(channels_in: int, channels_out: int) -> list[nn.Module]:
    """3×3 convolution that keeps the size, ReLU, batch normalisation."""
    layer = nn.Conv2d(channels_in, channels_out, 3, padding=1)
    return [layer, nn.ReLU(inplace=True), nn.BatchNorm2d(channels_out)]


def _doubling(channels_in: int, channels_out: int) -> list[nn.Module]:
    """Transposed 3×3 convolution of stride 2, which doubles the size, ReLU, batch normalisation."""
    layer = nn.ConvTranspose2d(channels_in, channels_out, 3, stride=2, padding=1, output_padding=1)
    return [layer, nn.ReLU(inplace=True), nn.BatchNorm2d(channels_out)]


class Autoencoder(nn.Module):
    """Network of SciML-Bench's optical_damage: 41,096,609 parameters at 200 pixels, latent size 512, width 16.

    4·, 2· and `width` channels on the way in, the reverse on the way out; between them two linear layers without
    activation. Convolutions are He-normal with biases of zero, as in the reference (its Keras `he_normal` cuts the
    normal at two standard deviations; here it is not cut); the linear layers are Glorot-uniform, Keras' default.
    """

    def __init__(self, edge: int, latent: int = 512, width: int = 16) -> None:
        super().__init__()
        inner = (width, edge // 4, edge // 4)
        numbers = width * (edge // 4) ** 2
        self.encoder = nn.Sequential(
            *_convolution(1, 4 * width),
            nn.MaxPool2d(2),
            *_convolution(4 * width, 2 * width),
            nn.MaxPool2d(2),
            *_convolution(2 * width, width),
            nn.Flatten(),
            nn.Linear(numbers, latent),
        )
        self.decoder = nn.Sequential(
            nn.Linear(latent, numbers),
            nn.Unflatten(1, inner),
            nn.BatchNorm2d(width),
            *_convolution(width, width),
            *_doubling(width, 2 * width),
            *_convolution(2 * width, 2 * width),
            *_doubling(2 * width, 4 * width),
            *_convolution(4 * width, 4 * width),
            nn.Conv2d(4 * width, 1, 1),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
            else:
                continue
            nn.init.zeros_(module.bias)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(batch, 1, edge, edge), the edge a multiple of 4, to the same."""
        return self.decoder(self.encoder(image))
