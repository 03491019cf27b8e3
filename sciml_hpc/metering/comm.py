"""Communication: bandwidth of an all-reduce as nccl-tests defines it, checked for correctness, and what a step exposes.

The all-reduce is given by the caller, so that Horovod's and plain MPI's are measured in the same way, side by side.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

PATTERN, RANK_PATTERN = 127, 16
"""Element i of rank r holds i mod 127 + r mod 16: sums over up to 118 000 ranks are exact in float32 (below 2^24)."""


def bus_bandwidth(size_bytes: float, time_s: float, ranks: int) -> float:
    """Bytes/s each link must carry for the all-reduce to take so long, whatever the number of ranks.

    algbw · 2(n − 1)/n with algbw = bytes ÷ time (nccl-tests, doc/PERFORMANCE.md, "AllReduce"). 0 on one rank.
    """
    return size_bytes / time_s * 2 * (ranks - 1) / ranks


def gradient_bytes(model: torch.nn.Module) -> int:
    """Bytes of one step's gradients as they are handed to the all-reduce: all trained parameters in their own dtype."""
    return sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)


def exposed_fraction(step_s: float, step_without_allreduce_s: float) -> float:
    """(step − the same step without all-reduce) ÷ step; the step's parallel efficiency is 1 minus it.

    Slightly below 0 where all communication is hidden and noise decides; not rounded up to 0. Raises ValueError for
    a time that is not positive.
    """
    if step_s <= 0 or step_without_allreduce_s <= 0:
        raise ValueError(f"step times must be positive, not {step_s} s and {step_without_allreduce_s} s")
    return (step_s - step_without_allreduce_s) / step_s


@dataclass(frozen=True)
class AllreduceRow:
    """One message size. Times are of the slowest rank in each repetition; bandwidths are of the median time."""

    bytes: int
    repetitions: int
    time_median_s: float
    time_min_s: float
    time_max_s: float
    algbw_bytes_per_s: float
    busbw_bytes_per_s: float
    correct: bool
    """Whether every element was the exact sum on every rank in every repetition."""


def sweep_sizes(largest: int, *also: int, smallest: int = 8, factor: int = 4) -> list[int]:
    """Message sizes `smallest`, ·factor, … up to `largest` bytes, and `also` (a benchmark's gradients), rising."""
    sizes = {size // 4 * 4 for size in (largest, *also) if size >= 4}
    size = smallest
    while size < largest:
        sizes.add(size)
        size *= factor
    return sorted(sizes)


def allreduce_sweep(
    allreduce: Callable[[torch.Tensor], torch.Tensor],
    sizes: Iterable[int],
    ranks: int,
    rank: int,
    device: torch.device,
    barrier: Callable[[], None],
    max_over_ranks: Callable[[np.ndarray], np.ndarray],
    repetitions: int = 20,
    warmup: int = 5,
) -> list[AllreduceRow]:
    """Time all-reduces of float32 messages of `sizes` bytes (multiples of 4); collective, the same rows on every rank.

    `allreduce(tensor)` returns the sum over all ranks (in place or not). Before each repetition the message is written
    afresh, the device finishes, and `barrier` brings the ranks together; a repetition ends when the device has the
    result. `max_over_ranks` gives the element-wise maximum of a float64 vector: one small reduction per size.
    """
    import torch

    def finish() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    rows = []
    for size in sizes:
        count = size // 4
        index = torch.arange(count, device=device, dtype=torch.int64) % PATTERN
        own = (index + rank % RANK_PATTERN).to(torch.float32)
        expected = (index * ranks + _sum_of_rank_pattern(ranks)).to(torch.float32)
        message, times, wrong = torch.empty_like(own), [], 0
        for repetition in range(warmup + repetitions):
            message.copy_(own)
            finish()
            barrier()
            began = time.perf_counter()
            result = allreduce(message)
            finish()
            elapsed = time.perf_counter() - began
            wrong += not torch.equal(result, expected)
            if repetition >= warmup:
                times.append(elapsed)
        slowest = max_over_ranks(np.array([*times, float(wrong)]))
        median = float(np.median(slowest[:-1]))
        rows.append(
            AllreduceRow(
                bytes=4 * count,
                repetitions=repetitions,
                time_median_s=median,
                time_min_s=float(slowest[:-1].min()),
                time_max_s=float(slowest[:-1].max()),
                algbw_bytes_per_s=4 * count / median,
                busbw_bytes_per_s=bus_bandwidth(4 * count, median, ranks),
                correct=bool(slowest[-1] == 0),
            )
        )
    return rows


def _sum_of_rank_pattern(ranks: int) -> int:
    whole, rest = divmod(ranks, RANK_PATTERN)
    return whole * RANK_PATTERN * (RANK_PATTERN - 1) // 2 + rest * (rest - 1) // 2
