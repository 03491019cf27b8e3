"""What launchers tell a process, and the status a command ends with under them."""

from __future__ import annotations

import subprocess
import sys

import pytest
from toy import clean_environment

from sciml_hpc import errors
from sciml_hpc.launch import expected_size, is_first_process


@pytest.mark.parametrize(
    ("environment", "size", "first"),
    [
        ({}, (1, ""), True),
        ({"SLURM_NTASKS": "64", "SLURM_PROCID": "3"}, (64, "SLURM_NTASKS"), False),
        ({"SLURM_NTASKS": "64", "SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "0"}, (8, "SLURM_STEP_NUM_TASKS"), True),
        # mpirun inside an allocation: the nearest launcher counts
        (
            {"SLURM_NTASKS": "64", "SLURM_PROCID": "0", "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "2"},
            (4, "OMPI_COMM_WORLD_SIZE"),
            False,
        ),
        ({"PMI_SIZE": "4", "PMI_RANK": "1"}, (4, "PMI_SIZE"), False),
        ({"SLURM_NTASKS": ""}, (1, ""), True),
    ],
)
def test_who_started_us(environment: dict[str, str], size: tuple[int, str], first: bool):
    assert expected_size(environment) == size
    assert is_first_process(environment) is first


PALS = {"PALS_APID": "5f3c", "PALS_NODEID": "1", "PALS_RANKID": "6", "PALS_LOCAL_RANKID": "2", "PALS_LOCAL_SIZE": "4"}
PBS = {
    "PBS_JOBID": "8462.pbs01",
    "PBS_NODEFILE": "/var/spool/pbs/aux/8462.pbs01",
    "NCPUS": "64",
    "OMP_NUM_THREADS": "64",
}
LSF = {"LSB_JOBID": "8462", "LSB_DJOB_NUMPROC": "129", "LSB_MCPU_HOSTS": "launch 1 n1 64 n2 64"}
JSM = {"JSM_NAMESPACE_SIZE": "8", "JSM_NAMESPACE_RANK": "6", "JSM_NAMESPACE_LOCAL_RANK": "2", "PMIX_RANK": "6"}
OPEN_MPI = {"OMPI_COMM_WORLD_SIZE": "8", "OMPI_COMM_WORLD_RANK": "6", "OMPI_COMM_WORLD_LOCAL_RANK": "2"}
FLUX = {"FLUX_JOB_SIZE": "8", "FLUX_JOB_NNODES": "2", "FLUX_TASK_RANK": "6", "FLUX_TASK_LOCAL_ID": "2"}
PMI = {"PMI_SIZE": "8", "PMI_RANK": "6"}


@pytest.mark.parametrize(
    ("environment", "size"),
    [
        (PBS, (1, "")),
        (PBS | OPEN_MPI, (8, "OMPI_COMM_WORLD_SIZE")),
        (PBS | PALS | PMI, (8, "PMI_SIZE")),  # --pmi=cray, its default
        (PBS | PALS | {"PMIX_RANK": "6"}, (4, "PALS_LOCAL_SIZE")),  # --pmi=pmix: the least there can be
        (LSF, (1, "")),
        (LSF | OPEN_MPI, (8, "OMPI_COMM_WORLD_SIZE")),  # mpirun
        (LSF | JSM | OPEN_MPI, (8, "OMPI_COMM_WORLD_SIZE")),  # jsrun of Spectrum MPI
        (LSF | JSM, (8, "JSM_NAMESPACE_SIZE")),
        ({"FLUX_ENCLOSING_ID": "f8462", "FLUX_URI": "local:///run/flux/local"}, (1, "")),  # in the batch script
        (FLUX | PMI, (8, "PMI_SIZE")),
        (FLUX | {"PMIX_RANK": "6"}, (8, "FLUX_JOB_SIZE")),  # -o pmi=pmix
    ],
)
def test_schedulers_other_than_slurm(environment: dict[str, str], size: tuple[int, str]):
    """What PBS Pro, LSF and Flux and their launchers set for rank 6 of 8 on two nodes, and in a batch script."""
    assert expected_size(environment) == size
    assert is_first_process(environment) is (size[1] == "")


def command(work: str) -> subprocess.CompletedProcess[str]:
    code = (
        "import sys\nfrom sciml_hpc.errors import *\nfrom sciml_hpc.launch import with_world\n"
        f"def work(world):\n    {work}\nsys.exit(with_world(work))"
    )
    return subprocess.run(
        [sys.executable, "-c", code], env=clean_environment(), capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("work", "status", "said"),
    [
        ("return world.size - 1", errors.VALID, ""),
        ("return INVALID", errors.INVALID, ""),
        ("raise UserError('no such thing')", errors.USER_ERROR, "error: no such thing\n"),
        ("raise RunFault('it broke')", errors.FAULT, "error: it broke\n"),
    ],
)
def test_the_status_of_a_command(work: str, status: int, said: str):
    done = command(work)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", said)


def test_anything_unforeseen_is_a_fault_with_its_traceback():
    done = command("return 1 // 0")
    assert done.returncode == errors.FAULT
    assert "ZeroDivisionError" in done.stderr
    assert "fault: rank 0 on " in done.stderr
