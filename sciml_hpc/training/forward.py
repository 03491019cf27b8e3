"""The forward pass, the same in training, evaluation, inference and calibration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sciml_hpc.benchmarks.base import Benchmark

if TYPE_CHECKING:
    import torch


def forward(benchmark: Benchmark, model: torch.nn.Module, batch: Mapping[str, torch.Tensor]) -> Any:
    """The model's output for a batch on the device.

    Images go in channels-last, which convolutions are fastest with and pass on; the weights keep torch's default order,
    since Horovod takes no other for them and their gradients.
    """
    return model(*(_channels_last(x) if x.dim() == 4 else x for x in benchmark.inputs(batch)))


def _channels_last(image: torch.Tensor) -> torch.Tensor:
    import torch

    image = image.contiguous(memory_format=torch.channels_last)
    if image.shape[1] == 1:  # contiguous in either order, and convolutions go by the strides
        batch, _, height, width = image.shape
        image = image.view(batch, height, width, 1).permute(0, 3, 1, 2)
    return image
