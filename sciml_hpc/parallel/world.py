"""Who takes part in a run: ranks, the nodes they are on, and agreement among them.

MPI is started when this module is first imported, so nothing that answers at once (`list`, `info`) imports it.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, TypeVar

from sciml_hpc.errors import RunFault, UserError
from sciml_hpc.launch import expected_size, is_first_process

T = TypeVar("T")

OPEN_MPI_5_SETTLE_S = 0.25
"""Pause before the first message. In Open MPI 5.0.11 a rank that is still leaving MPI_Init crashes when a faster one's
message arrives (mca_pml_ob1_recv_frag_callback_match); on busy cores that was seen in 4 of 30 starts of 4 nodes."""

OPEN_MPI_ABORT_DELAY_S = 10
"""When a peer's connection breaks, Open MPI 5 aborts, and Slurm then kills all ranks at once: before the watchdog could
say which one was lost. So the abort waits; the watchdog, which needs two to three seconds, comes first."""


@dataclass(frozen=True)
class World:
    """The ranks of a run. `place` counts them node by node, so that the ranks of a node are neighbours in it."""

    comm: Any
    """All ranks (mpi4py Intracomm)."""
    local: Any
    """The ranks of this node."""
    leaders: Any
    """Local rank 0 of every node, in order of node; None on the other ranks."""
    rank: int
    size: int
    local_rank: int
    local_size: int
    node: int
    """Index of this rank's node."""
    places: tuple[int, ...]
    """Per node, the place of its first rank; one more entry, the world size, at the end."""
    host: str
    hosts: tuple[str, ...]
    """Host name of every node."""
    mpi: str
    """The MPI library's own description of itself."""

    @property
    def place(self) -> int:
        """Position of this rank when ranks are counted node by node."""
        return self.places[self.node] + self.local_rank

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return len(self.hosts)

    @property
    def is_root(self) -> bool:
        """Whether this is rank 0, which speaks and writes for all."""
        return self.rank == 0

    @property
    def is_leader(self) -> bool:
        """Whether this rank does its node's work: staging, sensors."""
        return self.local_rank == 0

    def once(self, work: Callable[[], T]) -> T:
        """Do `work` on rank 0 and give its result to all; a UserError or RunFault it raises is raised on all ranks, an
        OSError as a RunFault.

        One broadcast: O(log ranks).
        """
        outcome: tuple[Any, UserError | RunFault | None] = (None, None)
        if self.is_root:
            try:
                outcome = (work(), None)
            except (UserError, RunFault) as error:
                outcome = (None, error)
            except OSError as error:
                outcome = (None, RunFault(f"rank {self.rank} on {self.host}: {error}"))
        value, failure = self.comm.bcast(outcome)
        if failure is not None:
            raise failure
        return value

    def together(self, work: Callable[[], T]) -> T:
        """Do `work` on every rank; if it fails on any, all raise the same: the lowest rank's RunFault (an OSError
        becomes one), or if there is none the lowest rank's UserError.

        One reduction, and one broadcast if there was a failure: O(log ranks).
        """
        from mpi4py import MPI

        failure, value = None, None
        try:
            value = work()
        except (UserError, RunFault) as error:
            failure = error
        except OSError as error:
            failure = RunFault(f"rank {self.rank} on {self.host}: {error}")
        weight = 2 if failure is None else isinstance(failure, UserError)
        first = self.comm.allreduce(self.size * weight + self.rank, MPI.MIN)
        if first < 2 * self.size:
            raise self.comm.bcast(failure, root=first % self.size)
        return value  # type: ignore[return-value]

    def max(self, value: float) -> float:
        """The largest over all ranks."""
        from mpi4py import MPI

        return self.comm.allreduce(value, MPI.MAX)

    def sum(self, value: Any) -> Any:
        """The sum over all ranks."""
        return self.comm.allreduce(value)

    def gather_nodes(self, value: T) -> list[T] | None:
        """The leaders' values in order of node, on rank 0; None elsewhere. O(nodes) on rank 0: for small records."""
        return self.leaders.gather(value) if self.is_leader else None


class WrongWorld(UserError):
    """MPI's world is not what the launcher started. `speaks` says whether this process is to tell the user."""

    def __init__(self, message: str, speaks: bool) -> None:
        super().__init__(message)
        self.speaks = speaks


def join() -> World:
    """Start MPI and find the other ranks and this rank's node.

    Three collectives (two communicator splits, an all-gather of one host name per node): O(log ranks + nodes).
    Raises WrongWorld if the MPI world is smaller than what the launcher started.
    """
    os.environ.setdefault("OMPI_MCA_opal_abort_delay", str(OPEN_MPI_ABORT_DELAY_S))  # read by MPI_Init
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    expected, variable = expected_size()
    if comm.size < expected:
        raise WrongWorld(
            f"the launcher started {expected} processes ({variable}={expected}), but MPI sees a world of {comm.size}: "
            "every process would run alone. Start them with the launcher that this MPI was built for: "
            "under Slurm `srun --mpi=pmix` (Open MPI) or `srun --mpi=pmi2` (MPICH; `srun --mpi=list` shows what there "
            "is), or `mpirun` inside the allocation; for one process alone, `srun -n 1`.",
            speaks=is_first_process(),
        )
    if comm.size > 1 and MPI.Get_library_version().startswith("Open MPI v5"):
        time.sleep(OPEN_MPI_5_SETTLE_S)
    host = socket.gethostname().split(".")[0]
    local = comm.Split_type(MPI.COMM_TYPE_SHARED, key=comm.rank)
    leaders = comm.Split(0 if local.rank == 0 else MPI.UNDEFINED, key=comm.rank)
    if local.rank == 0:
        hosts, sizes = zip(*leaders.allgather((host, local.size)), strict=True)
        facts = (leaders.rank, hosts, (0, *accumulate(sizes)))
    else:
        facts, leaders = None, None
    node, hosts, places = local.bcast(facts)
    return World(
        comm=comm,
        local=local,
        leaders=leaders,
        rank=comm.rank,
        size=comm.size,
        local_rank=local.rank,
        local_size=local.size,
        node=node,
        places=places,
        host=host,
        hosts=tuple(hosts),
        mpi=MPI.Get_library_version().split("\n")[0].strip().rstrip("\x00"),
    )
