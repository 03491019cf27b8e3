"""The device a rank computes on, the cores it has, and what becomes of the memory that a step frees."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sciml_hpc.parallel.world import World

if TYPE_CHECKING:
    import torch


M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of glibc's mallopt(3), from malloc.h."""


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
    allocator: str
    """What becomes of host memory that a step frees."""
    convolutions: str = "the library's choice"
    """How their algorithms are chosen."""


def choose(world: World) -> Device:
    """The GPU of this rank (by local rank among those it sees; the only one, if the launcher binds), else the CPU.

    Threads: OMP_NUM_THREADS if set, else the cores this rank may use divided by the node's ranks that may use the same
    ones. One gather within the node. On a CPU the C library is told to keep the memory that a step frees; on a GPU the
    first step tries out each convolution's algorithms, so that the last digits of a run depend on which won.
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
        return Device(torch.device("cpu"), "CPU", 0, 0.0, threads, source, _keep_freed_memory())
    number = world.local_rank % torch.cuda.device_count()
    torch.cuda.set_device(number)
    used = len(set(world.local.allgather(str(torch.cuda.get_device_properties(number).uuid))))
    name = torch.cuda.get_device_name(number)
    torch.backends.cudnn.benchmark = True
    ways = "the C library's own way", "the fastest, by trial at the first step"
    return Device(torch.device("cuda", number), name, used, world.local_size / used, threads, source, *ways)


def _keep_freed_memory() -> str:
    """Have the C library keep what is freed, for the next step, unless the environment says how it is to allocate.

    Else glibc maps every large block anew and gives it back when it is freed, and the kernel zeroes its pages at every
    step: a fifth of the time of CloudMask's at full size. Returns what was done.
    """
    said = [name for name in os.environ if name.startswith("MALLOC_") or name == "GLIBC_TUNABLES"]
    if said:
        return f"as the environment has it: {', '.join(sorted(said))}"
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return "the C library's own way: it has no mallopt"
    if not (mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1)):
        return "the C library's own way: mallopt failed"
    return "the C library was told to keep it (mallopt: no mmap, no trim)"
