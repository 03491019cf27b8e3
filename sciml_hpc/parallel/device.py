"""The device a rank computes on, and the cores it has."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sciml_hpc.parallel.world import World

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Device:
    """Where a rank computes."""

    torch: torch.device
    name: str
    """The GPU's name, or "CPU"."""
    accelerators_per_node: int
    """GPUs of this node that ranks use; 0 on CPUs."""
    ranks_per_accelerator: float
    threads: int
    """Threads of torch on the host."""
    threads_from: str


def choose(world: World) -> Device:
    """The GPU of this rank (by local rank among those it sees; the only one, if the launcher binds), else the CPU.

    Threads: OMP_NUM_THREADS if set, else the cores this rank may use divided by the node's ranks that may use the same
    ones. One gather within the node.
    """
    import torch
    import torch._dynamo  # a thousand files that torch reads at the first optimiser: not while the clock runs

    cores = tuple(sorted(os.sched_getaffinity(0)))
    sharers = world.local.allgather(cores).count(cores)
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        threads, source = int(asked), "OMP_NUM_THREADS"
    else:
        threads, source = max(1, len(cores) // sharers), f"{len(cores)} cores, shared by {sharers} ranks"
    torch.set_num_threads(threads)
    if not torch.cuda.is_available():
        return Device(torch.device("cpu"), "CPU", 0, 0.0, threads, source)
    number = world.local_rank % torch.cuda.device_count()
    torch.cuda.set_device(number)
    used = len(set(world.local.allgather(str(torch.cuda.get_device_properties(number).uuid))))
    name = torch.cuda.get_device_name(number)
    return Device(torch.device("cuda", number), name, used, world.local_size / used, threads, source)
