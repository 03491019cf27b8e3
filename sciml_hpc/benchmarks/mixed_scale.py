"""Mixed-scale dense network, for any benchmark whose samples are images.

D. M. Pelt, J. A. Sethian, A mixed-scale dense convolutional neural network for image analysis, PNAS 115, 254 (2018):
each of `depth` layers of `width` channels applies 3×3 convolutions to the input and the channels of all layers before
it; channel j of layer i is dilated by 1 + (i·width + j) mod 10; all channels together make the output, pixel by pixel.
There is no scaling down or up, and few parameters. One deviation: images are continued by zeros, not by reflection.

A convolution is carried out as a matrix product over channels, which gives nine maps, then the sum of these maps, each
shifted by its place in the kernel. So a layer reads the channels before it where they lie, in one buffer: nothing is
concatenated, and memory grows with the depth, not with its square.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

DILATIONS = 10
"""Dilations go from 1 to this and begin anew, as in the paper."""


class MixedScaleDense(nn.Module):
    """Maps (batch, channels, height, width) to (batch, outputs, height, width); linear in its last layer.

    Weights of the convolutions are normal with variance 2 / (9 (channels + width (depth − 1)) + outputs), those of the
    last layer and all biases zero, as in the authors' own implementation (github.com/dmpelt/msdnet).
    """

    def __init__(self, channels: int, outputs: int, depth: int = 100, width: int = 1) -> None:
        super().__init__()
        self.channels, self.depth, self.width = channels, depth, width
        inputs = [channels + i * width for i in range(depth)]
        self.weight = nn.Parameter(torch.empty(9 * width * sum(inputs)))
        """Kernels of all layers one after the other, each (width, channels before it, 3, 3)."""
        self.bias = nn.Parameter(torch.zeros(depth * width))
        self.output = nn.Conv2d(channels + depth * width, outputs, 1)
        nn.init.normal_(self.weight, std=math.sqrt(2 / (9 * inputs[-1] + outputs)))
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """The output for images of any size, in the type of autocast where that is on."""
        device = image.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else image.dtype
        maps = _Layers.apply(image.to(dtype), self.weight.to(dtype), self.bias.to(dtype), self.depth, self.width)
        return self.output(maps)


class _Layers(torch.autograd.Function):
    """Input and all layers' channels, (batch, channels + depth · width, height, width), from kernels and biases."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        image: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        depth: int,
        width: int,
    ) -> torch.Tensor:
        batch, channels, rows, columns = image.shape
        maps = image.new_empty(batch, channels + depth * width, rows, columns)
        maps[:, :channels] = image
        flat = maps.view(batch, -1, rows * columns)
        for i, kernel in enumerate(_kernels(weight, channels, depth, width)):
            before = channels + i * width
            taps = torch.bmm(kernel.expand(batch, -1, -1), flat[:, :before])
            for j in range(i * width, (i + 1) * width):
                own = taps[:, 9 * (j - i * width) :][:, :9]
                summed = functional.fold(own, (rows, columns), 3, **_shifts(j))
                torch.clamp(summed[:, 0] + bias[j], min=0, out=maps[:, channels + j])
        ctx.save_for_backward(maps, weight)
        ctx.sizes = channels, depth, width
        return maps

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad_maps: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        maps, weight = ctx.saved_tensors
        channels, depth, width = ctx.sizes
        batch, _, rows, columns = maps.shape
        grad = grad_maps.clone(memory_format=torch.contiguous_format)
        flat, flat_grad = (x.view(batch, -1, rows * columns) for x in (maps, grad))
        grad_kernels, grad_bias = [], weight.new_empty(depth * width)
        for i, kernel in reversed([*enumerate(_kernels(weight, channels, depth, width))]):
            before = channels + i * width
            own = slice(before, before + width)
            grad[:, own] *= maps[:, own] > 0
            grad_bias[i * width : (i + 1) * width] = grad[:, own].sum((0, 2, 3))
            taps = torch.cat(
                [
                    functional.unfold(grad[:, channels + j, None], 3, **_shifts(j))
                    for j in range(i * width, (i + 1) * width)
                ],
                1,
            )
            grad_kernels.append(torch.bmm(taps, flat[:, :before].transpose(1, 2)).sum(0))
            rest = flat_grad[:, :before]
            torch.baddbmm(rest, kernel.t().expand(batch, -1, -1), taps, out=rest)
        grad_weight = torch.cat([_as_weight(g, width) for g in reversed(grad_kernels)])
        return grad[:, :channels], grad_weight, grad_bias, None, None


def _shifts(channel: int) -> dict[str, int]:
    """How far the taps of a channel's kernel lie apart; the padding keeps the image's size."""
    dilation = 1 + channel % DILATIONS
    return {"dilation": dilation, "padding": dilation}


def _kernels(weight: torch.Tensor, channels: int, depth: int, width: int) -> list[torch.Tensor]:
    """Per layer the matrix (9 · width, channels before it): its kernels, mirrored since `fold` scatters."""
    inputs = [channels + i * width for i in range(depth)]
    parts = weight.split([9 * width * c for c in inputs])
    return [
        p.view(width, c, 9).flip(2).transpose(1, 2).reshape(9 * width, c) for p, c in zip(parts, inputs, strict=True)
    ]


def _as_weight(kernel: torch.Tensor, width: int) -> torch.Tensor:
    """The inverse of `_kernels` for one layer."""
    return kernel.view(width, 9, -1).transpose(1, 2).flip(2).flatten()
