"""The job scripts for PBS Pro, LSF and Flux, with stand-ins for the launchers (Slurm's: cluster/)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

JOBSCRIPTS = Path(__file__).parents[1] / "jobscripts"

LAUNCHER = r"""#!/bin/bash
# Any launcher: writes down its arguments, runs the command once, and hands SIGUSR1 on to it, as Open MPI's does.
name=${0##*/}
case "$name $1" in
    *" --version") echo "$VERSION" && exit ;;
    "flux job") echo "${4#f}" && exit ;;
    "flux resource") echo "2 8" && exit ;;
    "flux exec" | "flux run") name+=" $1" && shift ;;
esac
echo "$name $*" >>"$CALLS"
while [[ $1 == -* ]]; do
    case $1 in
        --*=* | --exclusive | --noinput) shift ;;
        *) shift 2 ;;
    esac
done
trap 'kill -USR1 $child' USR1
"$@" &
child=$!
wait $child
status=$?
while kill -0 $child 2>/dev/null; do wait $child; status=$?; done
exit $status
"""
QSTAT = r"""#!/bin/bash
printf '%s\n' "Job Id: $2" '    resources_used.walltime = 00:00:00' '    Resource_List.mpiprocs = 8' \
    '    Resource_List.ncpus = 128' "    Resource_List.walltime = $WALLTIME"
"""
PYTHON = (
    '#!/bin/bash\necho "rank: $0 $* threads=$OMP_NUM_THREADS safe=$PYTHONSAFEPATH $([[ -d $5 ]] && echo scratch)"\n'
)


class Job:
    """A job script with stand-ins in PATH and what its scheduler puts into the environment, as recorded from one."""

    def __init__(self, folder: Path, kind: str, launcher: str) -> None:
        self.folder = folder
        self.script = JOBSCRIPTS / kind / f"sciml_hpc.{kind}"
        self.calls = folder / "calls"
        hosts = folder / "hosts"
        self.environment = {
            "pbs": {
                "PBS_JOBID": "8462.pbs01",
                "PBS_O_WORKDIR": str(folder),
                "PBS_NODEFILE": str(hosts),
                "NCPUS": "64",
                "OMP_NUM_THREADS": "64",
                "WALLTIME": "01:00:00",
            },
            "lsf": {"LSB_JOBID": "8462", "LSB_DJOB_HOSTFILE": str(hosts)},
            "flux": {"FLUX_ENCLOSING_ID": "f8462", "FLUX_URI": "local:///run/flux/local"},
        }[kind]
        lines = {"pbs": "n1\n" * 4 + "n2\n" * 4, "lsf": "n1\n" * 64 + "n2\n" * 64, "flux": ""}[kind]
        hosts.write_text(("launch\n" if launcher == "jsrun" else "") + lines)
        (folder / "bin").mkdir()
        (folder / "tmp").mkdir()
        self.stand_in("python", PYTHON)
        self.stand_in("qstat", QSTAT)
        self.stand_in(launcher, LAUNCHER)
        self.environment |= {
            "PATH": f"{folder}/bin:/usr/bin:/bin",
            "TMPDIR": f"{folder}/tmp",
            "CALLS": str(self.calls),
            "VERSION": "mpiexec version 1.3.4 revision 0",
        }

    def stand_in(self, name: str, text: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(text)
        path.chmod(0o755)

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", self.script, *arguments],
            env=self.environment | variables,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __call__(self, *arguments: str, **variables: str) -> tuple[list[str], int]:
        """Lines of its output, and exit status."""
        process = self.start(*arguments, **variables)
        out, err = process.communicate(timeout=60)
        assert err == ""
        return out.splitlines(), process.returncode


KINDS = [("pbs", "mpiexec"), ("lsf", "jsrun"), ("lsf", "mpirun"), ("flux", "flux")]


@pytest.fixture(params=KINDS, ids="-".join)
def job(request: pytest.FixtureRequest, tmp_path: Path) -> Job:
    return Job(tmp_path, *request.param)


def test_ranks_get_the_arguments_and_node_local_storage(job: Job) -> None:
    given = ["--preset", "tiny", "--set", "train.epochs=2"]
    variables = {} if job.script.suffix == ".flux" else {"ARGS": " ".join(given)}
    lines, status = job(*([] if variables else given), **variables, BENCHMARK="uno", RANKS_PER_NODE="4")
    threads = "" if job.script.suffix == ".flux" else "16"
    local = f"{job.folder}/tmp/sciml_hpc-8462"
    words = f"-m sciml_hpc uno --scratch {local} --output results/job-8462 {' '.join(given)}"
    assert lines == [f"rank: {job.folder}/bin/python {words} threads={threads} safe= scratch"]
    assert status == 0
    assert (job.folder / "results/job-8462").is_dir()
    assert not Path(local).exists()


@pytest.mark.parametrize(
    ("kind", "launcher", "version", "nodes", "ranks"),
    [
        (
            "pbs",
            "mpiexec",
            "mpiexec version 1.3.4 revision 0",
            "mpiexec -n 2 --ppn 1 ",
            "mpiexec -n 8 --ppn 4 --depth 16 --cpu-bind depth ",
        ),
        *(
            (
                "pbs",
                "mpiexec",
                version,
                "mpiexec -n 2 --map-by ppr:1:node ",
                "mpiexec -n 8 --map-by ppr:4:node:PE=16 --bind-to core -x OMP_NUM_THREADS ",
            )
            for version in ("mpiexec (Open MPI) 5.0.11", "mpiexec (OpenRTE) 4.1.6")
        ),
        (
            "lsf",
            "mpirun",
            "",
            "mpirun -n 2 --map-by ppr:1:node ",
            "mpirun -n 8 --map-by ppr:4:node:PE=16 --bind-to core -x OMP_NUM_THREADS ",
        ),
        (
            "lsf",
            "jsrun",
            "",
            "jsrun --nrs 2 --rs_per_host 1 --tasks_per_rs 1 --cpu_per_rs 1 --gpu_per_rs 0 ",
            "jsrun --nrs 2 --rs_per_host 1 --tasks_per_rs 4 --cpu_per_rs ALL_CPUS --gpu_per_rs ALL_GPUS "
            "--launch_distribution packed --bind packed:16 --exit_on_error 1 ",
        ),
        (
            "flux",
            "flux",
            "",
            "flux exec --noinput ",
            "flux run --nodes=2 --tasks-per-node=4 --exclusive -o cpu-affinity=per-task -o exit-on-error ",
        ),
    ],
)
def test_launchers_are_told_the_shape_of_the_job(
    tmp_path: Path, kind: str, launcher: str, version: str, nodes: str, ranks: str
) -> None:
    job = Job(tmp_path, kind, launcher)
    variables = {"RANKS_PER_NODE": "4"} if kind == "lsf" else {}
    _, status = job(**variables, VERSION=version)
    assert status == 0
    calls = job.calls.read_text().splitlines()
    assert len(calls) == 3
    assert calls[0].startswith(nodes + "mkdir -p ")
    assert calls[1].startswith(ranks)
    assert calls[2].startswith(nodes + "rm -rf ")


def test_goes_on_from_a_checkpoint(job: Job) -> None:
    (job.folder / "before/system/strong/cloudmask").mkdir(parents=True)
    (job.folder / "before/system/strong/cloudmask/result_3.checkpoint").touch()
    (rank, remark), _ = job(OUTPUT="before")
    assert " -m sciml_hpc cloudmask " in rank
    assert " --output before --resume " in rank
    assert remark.startswith("a checkpoint is in before: ")


def test_status_is_that_of_the_run(job: Job) -> None:
    job.stand_in("python", "#!/bin/bash\nexit 3\n")
    assert job() == ([], 3)


def test_packed_environment_is_used_from_the_nodes(job: Job) -> None:
    (job.folder / "env/bin").mkdir(parents=True)
    shutil.move(job.folder / "bin/python", job.folder / "env/bin/python")
    job.stand_in("python", "#!/bin/bash\nexit 9\n")
    (job.folder / "env/relocate").write_text("#!/bin/sh\ntouch relocated\n")
    (job.folder / "env/relocate").chmod(0o755)
    subprocess.run(["tar", "-C", job.folder / "env", "-cf", job.folder / "env.tar", "."], check=True)
    (line,), status = job(PACKED="env.tar")
    assert status == 0
    assert line.startswith(f"rank: {job.folder}/tmp/sciml_hpc-8462/env/bin/python -m sciml_hpc cloudmask ")
    assert " safe=1 " in line
    assert (job.folder / "relocated").exists()


def test_ranks_are_warned_once_and_their_job_outlives_the_warning(job: Job) -> None:
    """As each scheduler warns: PBS Pro not at all, LSF every process, Flux the ranks and the script's process group."""
    job.stand_in(
        "python",
        "#!/bin/bash\ntrap 'echo warned' USR1\ntouch ready\nfor i in {1..20}; do sleep 0.1; done\n"
        "touch results/job-8462/result_0.checkpoint\nexit 1\n",
    )
    process = job.start(WALLTIME="00:02:01")  # PBS Pro: in a second
    deadline = time.monotonic() + 30
    while not (job.folder / "ready").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    members = _processes(process.pid)
    if job.script.suffix == ".lsf":
        for member in members:
            os.kill(member, signal.SIGURG)
    elif job.script.suffix == ".flux":
        os.killpg(process.pid, signal.SIGUSR1)
        (rank,) = (m for m in members if "sciml_hpc" in _command(m) and f"{job.folder}/bin/python" in _command(m))
        os.kill(rank, signal.SIGUSR1)
    out, err = process.communicate(timeout=30)
    lines = out.splitlines()
    assert lines[0] == "warned"
    assert lines[1].startswith("a checkpoint is in results/job-8462: ")
    assert (len(lines), err, process.returncode) == (2, "", 1)


def _processes(root: int) -> list[int]:
    """A process and all its descendants."""
    children = Path(f"/proc/{root}/task/{root}/children").read_text().split()
    return [root, *(p for child in children for p in _processes(int(child)))]


def _command(process: int) -> str:
    return Path(f"/proc/{process}/cmdline").read_text()
