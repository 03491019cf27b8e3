"""The forward pass, the same in training, evaluation, inference and calibration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sciml_hpc.benchmarks.base import Benchmark

if TYPE_CHECKING:
    import torch


LARGE_IMAGE = 256
"""Height and width from which images keep torch's default order on CPUs without AVX-512. There, oneDNN's weight
gradients in channels-last run at a quarter to a half of the rate they have in its own order; on large images that
outweighs what all else gains (a step of CloudMask: 5.7 s in place of 7.6 s; of em-denoise: 0.89 of the time), on the
smaller ones of the other benchmarks it does not (0.76 to 1.04 of the default order's time)."""


def forward(benchmark: Benchmark, model: torch.nn.Module, batch: Mapping[str, torch.Tensor]) -> Any:
    """The model's output for a batch on the device.

    Images go in channels-last, which convolutions are fastest with and pass on, but for the one case where they are
    not (`LARGE_IMAGE`). The weights keep torch's default order, since Horovod takes no other for them and their
    gradients.
    """
    return model(*(_ordered(x) if x.dim() == 4 else x for x in benchmark.inputs(batch)))


def _ordered(image: torch.Tensor) -> torch.Tensor:
    import torch

    large = min(image.shape[2:]) >= LARGE_IMAGE and image.device.type == "cpu"
    if large and torch.backends.cpu.get_cpu_capability() == "AVX2":
        return image
    image = image.contiguous(memory_format=torch.channels_last)
    if image.shape[1] == 1:  # contiguous in either order, and convolutions go by the strides
        batch, _, height, width = image.shape
        image = image.view(batch, height, width, 1).permute(0, 3, 1, 2)
    return image
