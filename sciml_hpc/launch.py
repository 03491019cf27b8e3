"""How a command meets its launcher: srun, mpirun or nothing, all the same."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from sciml_hpc import errors
from sciml_hpc.errors import RunFault, UserError

if TYPE_CHECKING:
    from sciml_hpc.parallel.world import World

LAUNCHERS = (
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ("PMI_SIZE", "PMI_RANK"),
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
    ("SLURM_NTASKS", "SLURM_PROCID"),
    ("PALS_LOCAL_SIZE", "PALS_RANKID"),
    ("JSM_NAMESPACE_SIZE", "JSM_NAMESPACE_RANK"),
    ("FLUX_JOB_SIZE", "FLUX_TASK_RANK"),
)
"""Variables in which launchers tell a process how many there are and which one it is; the nearest launcher first.

HPE's mpiexec (PALS) has none for all processes, unless it serves PMI-1 too (`PMI_SIZE`): only for those of a node.
"""


def expected_size(environment: Mapping[str, str] = os.environ) -> tuple[int, str]:
    """(processes the launcher started, or at least, the variable that says so); (1, "") without a launcher."""
    for size, _ in LAUNCHERS:
        if environment.get(size, "").isdigit():
            return int(environment[size]), size
    return 1, ""


def is_first_process(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this is the launcher's first process (or the only one): known before MPI is."""
    return next((environment[rank] for _, rank in LAUNCHERS if rank in environment), "0") == "0"


def with_world(work: Callable[[World], int]) -> int:
    """Join the other ranks and do `work`; its exit status.

    A UserError or RunFault that all ranks raise together is told by rank 0. Anything else is a fault of one rank alone:
    MPI ends the others.
    """
    from sciml_hpc.parallel.world import join

    world = join()
    try:
        return work(world)
    except (UserError, RunFault) as error:
        if world.is_root:
            print(f"error: {error}", file=sys.stderr, flush=True)
        return errors.USER_ERROR if isinstance(error, UserError) else errors.FAULT
    except Exception:
        traceback.print_exc()
        print(f"fault: rank {world.rank} on {world.host} failed; the job ends", file=sys.stderr, flush=True)
        sys.stdout.flush()
        world.comm.Abort(errors.FAULT)
        raise
