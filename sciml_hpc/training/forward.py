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
    import torch

    inputs = benchmark.inputs(batch)
    return model(*(x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x for x in inputs))
