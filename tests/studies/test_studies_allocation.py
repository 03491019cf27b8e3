"""Allocations by the variables that schedulers set, the commands that start runs in them, and job scripts."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from sciml_hpc.cli import main
from sciml_hpc.errors import USER_ERROR, VALID, UserError
from sciml_hpc.studies import allocation, jobs
from sciml_hpc.studies.allocation import Allocation, find
from sciml_hpc.studies.design import Design
from sciml_hpc.studies.ledger import Study


def answers(**by_command: str):
    """Stands in for the schedulers' commands."""

    def ask(command: Sequence[str]) -> str:
        return by_command[command[0]]

    return ask


def line(where: Allocation, first: int, nodes: int, ranks_per_node: int) -> str:
    return " ".join(where.start(first, nodes, ranks_per_node))


def test_slurm():
    environment = {
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "n[1-3]",
        "SLURM_JOB_CPUS_PER_NODE": "64(x3)",
    }
    found = find(environment, answers(scontrol="n1\nn2\nn3\n"))
    assert found == Allocation("slurm", ("n1", "n2", "n3"), 64, "srun")
    assert "--nodes=2 --ntasks=8 --ntasks-per-node=4 --nodelist=n2,n3 --cpus-per-task=16" in line(found, 1, 2, 4)


def test_pbs_with_open_mpi_hydra_and_pals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "nodes").write_text("x1\nx1\nx2\nx2\nx3\n")
    environment = {"PBS_JOBID": "7.server", "PBS_NODEFILE": str(tmp_path / "nodes")}
    found = find(environment, answers(mpiexec="HYDRA build details:"))
    assert found.hosts == ("x1", "x2", "x3")
    assert line(found, 1, 2, 4) == "mpiexec -n 8 -ppn 4 -hosts x2,x3"
    found = find(environment, answers(mpiexec="mpiexec version 1.2.4 (PALS)"))
    assert line(found, 0, 2, 4) == "mpiexec -n 8 --ppn 4 --hosts x1,x2"
    monkeypatch.setattr(allocation.shutil, "which", lambda name: f"/bin/{name}" if name == "mpirun" else None)
    found = find(environment, answers(mpiexec="mpiexec (OpenRTE) 4.1.4"))
    assert line(found, 0, 2, 4).startswith("mpirun -n 8 --host x1:4,x2:4 --map-by ppr:4:node")
    with pytest.raises(UserError, match="PBS_NODEFILE=/no/such: cannot be read"):
        find({"PBS_JOBID": "7", "PBS_NODEFILE": "/no/such"}, answers())


def test_lsf_with_and_without_jsrun(monkeypatch: pytest.MonkeyPatch):
    environment = {"LSB_JOBID": "7", "LSB_MCPU_HOSTS": "batch1 1 h1 42 h2 42"}
    monkeypatch.setattr(allocation.shutil, "which", lambda name: "/bin/jsrun" if name == "jsrun" else None)
    found = find(environment, answers())
    assert found.hosts == ("h1", "h2")
    assert line(found, 0, 2, 6).startswith("jsrun --nrs=2 --rs_per_host=1 --tasks_per_rs=6 --cpu_per_rs=ALL_CPUS")
    monkeypatch.setattr(allocation.shutil, "which", lambda name: None)
    found = find({"LSB_JOBID": "7", "LSB_MCPU_HOSTS": "h1 42 h2 42"}, answers(mpiexec="Intel(R) MPI Library"))
    assert line(found, 0, 2, 6) == "mpiexec -n 12 -ppn 6 -hosts h1,h2"


def test_flux_comes_before_the_scheduler_it_runs_in():
    environment = {"FLUX_JOB_ID": "f7", "FLUX_URI": "local:///x", "SLURM_JOB_ID": "7"}

    def ask(command: Sequence[str]) -> str:
        return "c[1-2]\n" if command[1] == "resource" else "c1 c2\n"

    found = find(environment, ask)
    assert found.hosts == ("c1", "c2")
    assert line(found, 0, 2, 4) == "flux run --nodes=2 --ntasks=8 --exclusive"


def test_this_machine():
    assert allocation.scheduler_here({}) is None
    assert line(Allocation("local", launcher="mpirun"), 0, 1, 2) == "mpirun -n 2"


# --- job scripts ------------------------------------------------------------------------------------------------------


@pytest.fixture
def study(tmp_path: Path) -> Study:
    made = Design(
        schema="sciml_hpc.study/1", scaling="weak", benchmark="cloudmask", points=(1, 4), ranks_per_node=8, instances=2
    )
    return Study.open(tmp_path / "study", made)


@pytest.mark.parametrize("scheduler", ["slurm", "pbs", "lsf", "flux"])
def test_a_job_script_asks_for_the_nodes_and_repeats_the_command(study: Study, scheduler: str, tmp_path: Path):
    arguments = ["scaling", "weak", "cloudmask", "--set", "train.width=8", "--study", "a b"]
    text = jobs.script(scheduler, study, 4, arguments, "02:30:00", ["--account=x y"])
    lines = text.splitlines()
    assert lines[0] == "#!/bin/bash"
    prefix = {"slurm": "#SBATCH ", "pbs": "#PBS ", "lsf": "#BSUB ", "flux": "# flux: "}[scheduler]
    said = [line.removeprefix(prefix) for line in lines if line.startswith(prefix)]
    nodes = {"slurm": "--nodes=8", "pbs": "-l select=8:mpiprocs=8", "lsf": "-nnodes 8", "flux": "--nodes=8"}
    limit = {"slurm": "--time=02:30:00", "pbs": "-l walltime=02:30:00", "lsf": "-W 02:30", "flux": "--time-limit=9000s"}
    assert {nodes[scheduler], limit[scheduler], "--account=x y"} <= set(said)
    (tmp_path / "job").write_text(text.replace("exec ", "printf '%s|' ", 1))
    done = subprocess.run(["bash", tmp_path / "job"], capture_output=True, text=True, check=True)
    assert done.stdout.split("|")[1:-1] == ["-m", "sciml_hpc", *arguments, "--only", "4"]


def test_job_scripts_are_not_overwritten(study: Study):
    first, second = jobs.write("slurm", study, ["scaling"], "01:00:00", [])
    assert (first.name, second.name) == ("n1.sbatch", "n4.sbatch")
    jobs.write("slurm", study, ["scaling"], "01:00:00", [])
    with pytest.raises(UserError, match=r"n1\.sbatch: exists and differs"):
        jobs.write("slurm", study, ["scaling"], "02:00:00", [])


def test_a_job_is_submitted_and_a_refusal_is_told(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, *_ = jobs.write("slurm", study, ["scaling"], "01:00:00", [])
    stand_in = tmp_path / "bin/sbatch"
    stand_in.parent.mkdir()
    stand_in.write_text('#!/bin/bash\necho "Submitted batch job 7: $*"\n')
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{stand_in.parent}:{os.environ['PATH']}")
    assert jobs.submit("slurm", path) == f"Submitted batch job 7: {path}"
    stand_in.write_text("#!/bin/bash\necho no such account >&2; exit 1\n")
    with pytest.raises(UserError, match="no such account"):
        jobs.submit("slurm", path)


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["strong", "clodmask", "--ranks", "1"], "unknown benchmark 'clodmask' (did you mean 'cloudmask'?)"),
        (["stronk", "cloudmask", "--ranks", "1"], "invalid choice: 'stronk'"),
        (["strong", "cloudmask"], "one of the arguments --nodes --ranks is required"),
        (["strong", "cloudmask", "--ranks", "1,x"], "must be whole numbers with commas between them, found '1,x'"),
        (["strong", "cloudmask", "--ranks", "0,1"], "points"),
        (["strong", "cloudmask", "--ranks", "1", "--repeats", "0"], "repeats"),
        (["strong", "cloudmask", "--ranks", "1", "--presett", "tiny"], "unrecognized arguments: --presett"),
        (["strong", "cloudmask", "--ranks", "1", "--set", "train.widht=8"], "unknown key 'train.widht'"),
        (["strong", "cloudmask", "--ranks", "1", "--output", "x"], "--output is not for scaling"),
        (["strong", "cloudmask", "--ranks", "1", "--weak"], "--weak is not for scaling"),
        (["strong", "cloudmask", "--ranks", "1,2", "--gates", "1"], "--gates is for --fixed-work"),
        (["strong", "cloudmask", "--ranks", "1", "--instances", "2"], "MLPerf's weak scaling"),
        (["weak", "cloudmask", "--ranks", "1", "--fixed-local-batch"], "for strong scaling"),
        (["strong", "cloudmask", "--ranks", "1,4000"], "fewer than the 4000 ranks"),
        (["strong", "cloudmask", "--ranks", "1,2", "--only", "4"], "--only 4: the study's points are 1, 2"),
    ],
)  # fmt: skip
def test_mistakes_are_told_before_anything_is_made(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert main(["scaling", *arguments]) == USER_ERROR
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_outside_an_allocation_jobs_are_written(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    for variable in allocation.JOB_VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(allocation.shutil, "which", lambda name: None)
    words = ["scaling", "strong", "cloudmask", "--nodes", "1,2"]
    assert main(words) == USER_ERROR
    assert "no scheduler's command is here" in capsys.readouterr().err
    assert main([*words, "--scheduler", "pbs", "--job-option=-q gpu"]) == VALID
    script = (tmp_path / "studies/cloudmask-strong/jobs/n2.pbs").read_text()
    assert "#PBS -q gpu" in script
    assert script.rstrip().endswith("--only 2")
