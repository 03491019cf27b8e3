"""Worlds and devices to test in: parts of the MPI job as worlds of their own, and several "nodes" on one machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from sciml_hpc.parallel.device import Device
from sciml_hpc.parallel.world import World

CPU = Device(torch.device("cpu"), "CPU", 0, 0.0, 1, "the tests", "the tests")
"""A device to hand to an engine."""


def world_of(comm: Any, ranks_per_node: Sequence[int]) -> World | None:
    """A world over the first ranks of `comm`, the first so many on node 0, the next on node 1, …; None on the others.

    Collective over `comm`. The nodes are called n0, n1, … as far as the package can see.
    """
    from mpi4py import MPI

    size = sum(ranks_per_node)
    part = comm.Split(0 if comm.rank < size else MPI.UNDEFINED, key=comm.rank)
    if part == MPI.COMM_NULL:
        return None
    places = tuple(sum(ranks_per_node[:k]) for k in range(len(ranks_per_node) + 1))
    node = next(k for k in range(len(ranks_per_node)) if part.rank < places[k + 1])
    local = part.Split(node, key=part.rank)
    leaders = part.Split(0 if local.rank == 0 else MPI.UNDEFINED, key=part.rank)
    hosts = tuple(f"n{k}" for k in range(len(ranks_per_node)))
    return World(
        comm=part,
        local=local,
        leaders=leaders if local.rank == 0 else None,
        rank=part.rank,
        size=part.size,
        local_rank=local.rank,
        local_size=local.size,
        node=node,
        places=places,
        host=hosts[node],
        hosts=hosts,
        mpi="MPI of the tests",
    )


def alone() -> World:
    """A world of this process only."""
    from mpi4py import MPI

    world = world_of(MPI.COMM_SELF, [1])
    assert world is not None
    return world
