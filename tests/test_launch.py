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
        ({"PALS_SIZE": "12", "PALS_RANKID": "0"}, (12, "PALS_SIZE"), True),
        ({"SLURM_NTASKS": ""}, (1, ""), True),
    ],
)
def test_who_started_us(environment: dict[str, str], size: tuple[int, str], first: bool):
    assert expected_size(environment) == size
    assert is_first_process(environment) is first


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
