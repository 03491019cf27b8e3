"""Ranks and nodes, agreement among them, and a launcher that this MPI does not understand."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from toy import clean_environment, mpirun
from worlds import alone, world_of

from sciml_hpc.errors import RunFault, UserError

pytest_plugins = ["mpi_fixtures"]


@pytest.mark.mpi
def test_the_world_is_that_of_mpi(world):
    from mpi4py import MPI

    assert (world.rank, world.size) == (MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size)
    # All on one machine, so on one node.
    assert (world.nodes, world.node, world.places) == (1, 0, (0, world.size))
    assert (world.local_rank, world.local_size, world.place) == (world.rank, world.size, world.rank)
    assert world.hosts == (world.host,)
    assert world.host == subprocess.check_output(["hostname", "-s"], text=True).strip()
    assert (world.leaders is not None) == world.is_leader == world.is_root == (world.rank == 0)
    assert world.mpi in MPI.Get_library_version()


def test_a_process_alone_is_a_world_of_one():
    code = "from sciml_hpc.parallel.world import join; w = join(); print(w.size, w.nodes, w.places)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean_environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout == "1 1 (0, 1)\n"


@pytest.mark.mpi(min_size=4)
def test_places_count_ranks_node_by_node():
    from mpi4py import MPI

    world = world_of(MPI.COMM_WORLD, [1, 3])
    if world is not None:
        facts = world.comm.allgather((world.node, world.local_rank, world.place, world.is_leader, world.nodes))
        assert facts == [(0, 0, 0, True, 2), (1, 0, 1, True, 2), (1, 1, 2, False, 2), (1, 2, 3, False, 2)]
        assert world.gather_nodes(world.host) == (["n0", "n1"] if world.is_root else None)


# --- agreement -----------------------------------------------------------------------------------------------------


@pytest.mark.mpi
def test_once_is_done_on_rank_0_and_known_to_all(world):
    done = []

    def work() -> dict[str, int]:
        done.append(world.rank)
        return {"by": world.rank}

    assert world.once(work) == {"by": 0}
    assert done == ([0] if world.is_root else [])
    assert world.once(lambda: None) is None


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("error", "raised", "said"),
    [
        (UserError("no such file"), UserError, r"^no such file$"),
        (RunFault("it broke"), RunFault, r"^it broke$"),
        (OSError(28, "No space left on device", "/x"), RunFault, r"^rank 0 on .*: \[Errno 28\] No space .*'/x'$"),
    ],
)
def test_an_error_of_once_is_raised_on_all(world, error, raised, said):
    def work() -> None:
        raise error

    with pytest.raises(raised, match=said):
        world.once(work)
    world.comm.Barrier()  # and nobody is left in a collective


@pytest.mark.mpi
def test_together_gives_each_rank_its_own(world):
    assert world.together(lambda: world.rank * 2) == world.rank * 2


@pytest.mark.mpi(min_size=2)
def test_one_ranks_error_is_raised_on_all(world):
    last = world.size - 1

    def work() -> None:
        if world.rank == last:
            raise UserError(f"rank {world.rank} cannot")

    with pytest.raises(UserError, match=f"^rank {last} cannot$"):
        world.together(work)


@pytest.mark.mpi(min_size=2)
def test_of_several_errors_it_is_the_lowest_ranks_and_a_fault_before_a_mistake(world):
    def mistakes() -> None:
        if world.rank >= 1:
            raise UserError(f"mistake of rank {world.rank}")

    def both() -> None:
        if world.rank == world.size - 1:
            raise OSError(5, "Input/output error", "/scratch/x")
        raise UserError("the file is corrupt")  # what the others make of a failing disk

    with pytest.raises(UserError, match=r"^mistake of rank 1$"):
        world.together(mistakes)
    with pytest.raises(RunFault, match=rf"^rank {world.size - 1} on {world.host}: \[Errno 5\] .*/scratch/x"):
        world.together(both)


@pytest.mark.mpi
def test_sums_and_maxima(world):
    n = world.size
    assert world.max(-world.rank) == 0
    assert world.max(world.rank + 0.5) == n - 0.5
    assert world.sum(world.rank) == n * (n - 1) // 2
    assert world.sum([world.rank]) == list(range(n))
    assert np.array_equal(world.sum(np.array([1.0, world.rank])), [n, n * (n - 1) / 2])


def test_agreement_in_a_world_of_one():
    world = alone()
    assert world.once(lambda: 3) == world.together(lambda: 3) == world.max(3) == world.sum(3) == 3
    assert world.gather_nodes(5) == [5]
    with pytest.raises(UserError, match="x"):
        world.together(lambda: (_ for _ in ()).throw(UserError("x")))
    with pytest.raises(RunFault, match=r"rank 0 on n0: .*gone"):
        world.together(lambda: (_ for _ in ()).throw(OSError(5, "gone")))


# --- the wrong launcher --------------------------------------------------------------------------------------------

FAKED = {
    "slurm": lambda rank: {"SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": str(rank)},
    "another MPI's mpirun": lambda rank: {"PMI_SIZE": "4", "PMI_RANK": str(rank)},
    "PALS": lambda rank: {"PALS_LOCAL_SIZE": "4", "PALS_RANKID": str(rank)},
}


@pytest.mark.parametrize("launcher", FAKED)
def test_singletons_under_a_launcher_stop_and_one_says_why(launcher: str):
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "sciml_hpc", "verify", "anything"],
            env=clean_environment(**FAKED[launcher](rank)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(4)
    ]  # fmt: skip
    said = [process.communicate(timeout=60) for process in ranks]
    assert [process.returncode for process in ranks] == [2, 2, 2, 2]
    assert [out for out, _ in said] == [""] * 4
    assert [err for _, err in said[1:]] == [""] * 3
    message = said[0][1]
    assert "the launcher started 4 processes" in message
    assert "MPI sees a world of 1" in message
    assert "srun --mpi=pmix" in message


def test_a_launcher_that_tells_only_the_nodes_processes_is_believed():
    code = (
        "import os\nos.environ.pop('OMPI_COMM_WORLD_SIZE')\nos.environ.update(PALS_LOCAL_SIZE='1', PALS_RANKID='0')\n"
        "from sciml_hpc.parallel.world import join\nworld = join()\nworld.comm.Barrier()\nprint(world.size)"
    )
    done = subprocess.run(
        [*mpirun(2), "-c", code], env=clean_environment(), capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("2\n2\n", 0), done.stderr
