"""The two reference networks: ResNet-50 for classification and a fully convolutional DenseNet for reconstruction."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1 convolutions with a shortcut; the stride is in the 3×3 (He et al. 2016, as torchvision has it)."""

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        out = width * self.expansion
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, out, 1, bias=False),
            nn.BatchNorm2d(out),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or channels != out:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


class ResNet(nn.Module):
    """K. He, X. Zhang, S. Ren, J. Sun, Deep Residual Learning, CVPR 2016; blocks (3, 4, 6, 3), width 64 is ResNet-50.

    `channels` 3: the three projections of a sample are the image's channels. `channels` 1: every projection given is
    an image of its own, and the sample's logits are the mean over them.
    """

    def __init__(
        self, channels: int, classes: int, blocks: Sequence[int] = (3, 4, 6, 3), width: int = 64, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.channels = channels
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        layers: list[nn.Module] = []
        features = width
        for stage, count in enumerate(blocks):
            for i in range(count):
                layers.append(Bottleneck(features, width << stage, stride=2 if stage and i == 0 else 1))
                features = (width << stage) * Bottleneck.expansion
        self.stages = nn.Sequential(*layers)
        self.head = nn.Linear(features, classes)
        self.dropout = nn.Dropout(dropout)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, projections: Tensor) -> Tensor:
        """(batch, projections, height, width) float → logits (batch, classes); dropout, if any, is on the logits."""
        batch, count, *image = projections.shape
        x = projections.reshape(batch * count // self.channels, self.channels, *image)
        logits = self.dropout(self.head(self.stages(self.stem(x)).mean((-2, -1))))
        return logits.reshape(batch, -1, logits.shape[-1]).mean(1)


class FCDenseNet(nn.Module):
    """Fully convolutional DenseNet (S. Jégou et al., CVPR Workshops 2017) in the form of the reference.

    The reference is the network file of nlaanait/stemdl before commit 2100890b: growth 128, dense layers (2, 2, 3), 4,
    (3, 2, 2), ReLU and 3×3 convolution without normalisation in dense blocks, normalisation in transitions only. It
    differs in one point: its transposed convolutions have 1×1 kernels at stride 2, which leave three of four pixels
    empty; ours are 2×2.
    """

    def __init__(
        self, channels: int, growth: int = 128, down: Sequence[int] = (2, 2, 3), bottom: int = 4, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, growth, 3, padding=1), nn.ReLU(inplace=True))
        features = growth
        skips = []
        self.down = nn.ModuleList()
        self.pool = nn.ModuleList()
        for layers in down:
            self.down.append(_DenseBlock(features, growth, layers, dropout))
            features += growth * layers
            skips.append(features)
            self.pool.append(
                nn.Sequential(
                    nn.BatchNorm2d(features),
                    nn.ReLU(inplace=True),
                    nn.Conv2d(features, features, 1, bias=False),
                    nn.Dropout(dropout),
                    nn.MaxPool2d(2),
                )
            )
        self.bottom = _DenseBlock(features, growth, bottom, dropout)
        self.rise = nn.ModuleList()
        self.up = nn.ModuleList()
        new = growth * bottom
        for layers, skip in zip(reversed(down), reversed(skips), strict=True):
            self.rise.append(nn.ConvTranspose2d(new, new, 2, stride=2, bias=False))
            self.up.append(_DenseBlock(new + skip, growth, layers, dropout))
            features, new = new + skip + growth * layers, growth * layers
        self.head = nn.Conv2d(features, 1, 1, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, patterns: Tensor) -> Tensor:
        """(batch, probe positions, size, size) → (batch, 1, size, size); `size` a multiple of 2^len(down)."""
        x = self.stem(patterns)
        skips = []
        for block, pool in zip(self.down, self.pool, strict=True):
            x = block(x)
            skips.append(x)
            x = pool(x)
        new = self.bottom.new(x)
        for rise, block in zip(self.rise, self.up, strict=True):
            x = torch.cat([rise(new), skips.pop()], dim=1)
            new = block.new(x)
        return self.head(torch.cat([x, new], dim=1))


class _DenseBlock(nn.Module):
    """Layers that each see the block's input and all layers before them."""

    def __init__(self, features: int, growth: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.ReLU(), nn.Conv2d(features + i * growth, growth, 3, padding=1, bias=False), nn.Dropout(dropout)
            )
            for i in range(layers)
        )

    def new(self, x: Tensor) -> Tensor:
        """The features that the layers add: (batch, growth × layers, …)."""
        added: list[Tensor] = []
        for layer in self.layers:
            added.append(layer(torch.cat([x, *added], dim=1)))
        return torch.cat(added, dim=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.new(x)], dim=1)
