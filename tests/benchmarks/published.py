"""What the tests of all native readers do with files in the published layouts; and a few training steps of a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sciml_hpc.benchmarks.base import Benchmark, Source

PARTS = 3


def write_in_parts(
    benchmark: type[Benchmark], root: Path, generator: Any, samples: Mapping[str, int], seed: int
) -> list[list[Path]]:
    """The files that each of three ranks wrote; together they are the files there are, each written once."""
    parts = [benchmark.write_native(root, generator, samples, seed, part, PARTS) for part in range(PARTS)]
    paths = [path for part in parts for path in part]
    assert sorted(paths) == sorted(path for path in root.rglob("*") if path.is_file())
    return parts


def assert_same_samples(read: Source, simulated: Source, samples: Mapping[str, int]) -> None:
    """Bit for bit, in all splits."""
    assert read.fields == simulated.fields
    for split, count in samples.items():
        found = read.read(split, 0, count)
        for name, array in simulated.read(split, 0, count).items():
            assert found[name].dtype == array.dtype
            assert found[name].tobytes() == array.tobytes(), (split, name)


def assert_any_range_is_part_of_the_whole(read: Source, split: str, whole: int, first: int, count: int) -> None:
    """Samples `first` … of a split of `whole` samples are the same, read alone."""
    everything, part = read.read(split, 0, whole), read.read(split, first, count)
    assert part.keys() == everything.keys()
    for name, array in everything.items():
        np.testing.assert_array_equal(part[name], array[first : first + count])


def losses_of_steps(instance: Benchmark, batch: Mapping[str, torch.Tensor], steps: int) -> list[float]:
    """Of so many steps of Adam (rate 3e-3) on one batch, each a float32 scalar."""
    torch.manual_seed(0)
    model = instance.model()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for _ in range(steps):
        loss = instance.loss(model(*instance.inputs(batch)), batch)
        assert loss.dtype == torch.float32
        assert loss.shape == ()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
