"""The Slurm job script: sbatch accepts it, and it does what it says; a stand-in for Python tells its arguments."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import pytest
from cluster.slurm_cluster import SlurmCluster

pytestmark = pytest.mark.cluster

SCRIPT = Path(__file__).parents[2] / "jobscripts/slurm/sciml_hpc.sbatch"
TELL = 'echo "$(hostname) $SLURM_PROCID/$SLURM_NTASKS $(test -d "$5" && echo scratch) $0 $*"'


def stand_in(folder: Path, commands: str) -> Path:
    """A directory for PATH whose `python` runs `commands`."""
    folder.mkdir(parents=True)
    (folder / "python").write_text(f"#!/bin/bash\n{commands}\n")
    (folder / "python").chmod(0o755)
    return folder


def submit(cluster: SlurmCluster, folder: Path, commands: str, *options: str, **variables: str) -> tuple[str, str, int]:
    """Run the job script in `folder` to its end: the job's number, output and exit status."""
    path = f"{stand_in(folder / 'bin', commands)}:/usr/sbin:/usr/bin:/sbin:/bin"
    done = cluster.run(["sbatch", "--parsable", *options], env=variables | {"PATH": path}, cwd=folder)
    assert done.returncode == 0, done.stderr
    job = done.stdout.strip()
    for _ in range(600):
        state = cluster.run(["scontrol", "show", "job", job]).stdout
        if re.search(r"JobState=(COMPLETED|FAILED|TIMEOUT|CANCELLED)", state):
            break
        time.sleep(0.3)
    log = (folder / f"sciml_hpc-{job}.log").read_text()
    log = "".join(line for line in log.splitlines(True) if not line.startswith("srun: "))  # of queueing and binding
    return job, log, int(re.search(r"ExitCode=(\d+):", state)[1])


def test_sbatch_accepts_it(cluster: SlurmCluster) -> None:
    done = cluster.run(["sbatch", "--test-only", SCRIPT])
    assert done.returncode == 0, done.stderr
    assert "using 16 processors on nodes node[1-4]" in done.stderr
    assert cluster.run(["sbatch", "--test-only", "-N", "5", SCRIPT]).returncode != 0


def test_ranks_get_the_arguments_and_node_local_storage(cluster: SlurmCluster, tmp_path: Path) -> None:
    job, log, status = submit(cluster, tmp_path, TELL, str(SCRIPT), "--preset", "tiny", "--set", "train.epochs=2")
    local = f"{cluster.dir}/local/sciml_hpc-{job}"
    words = f"-m sciml_hpc cloudmask --scratch {local} --output results/job-{job} --preset tiny --set train.epochs=2"
    ranks = [f"node{i + 1} {i}/4 scratch {tmp_path}/bin/python {words}" for i in range(4)]
    assert sorted(log.splitlines()) == ranks
    assert status == 0
    assert (tmp_path / f"results/job-{job}").is_dir()
    for node in cluster.nodes:
        assert cluster.on(node, ["test", "-e", local]).returncode == 1


def test_goes_on_from_a_checkpoint(cluster: SlurmCluster, tmp_path: Path) -> None:
    (tmp_path / "before/system/strong/cloudmask").mkdir(parents=True)
    (tmp_path / "before/system/strong/cloudmask/result_3.checkpoint").touch()
    _, log, _ = submit(cluster, tmp_path, TELL, str(SCRIPT), OUTPUT="before", BENCHMARK="uno")
    assert log.count("--output before --resume") == log.count("-m sciml_hpc uno ") == 4
    assert "a checkpoint is in before" in log


def test_a_failing_rank_ends_the_job_with_its_status(cluster: SlurmCluster, tmp_path: Path) -> None:
    commands = (  # rank 2 fails once the others are ready to be ended
        "trap 'exit 0' TERM; touch ready$SLURM_PROCID; [[ $SLURM_PROCID == 2 ]] || { sleep 100 & wait; }; "
        "until [[ -e ready0 && -e ready1 && -e ready3 ]]; do sleep 0.1; done; exit 3"
    )
    start = time.monotonic()
    _, _, status = submit(cluster, tmp_path, commands, str(SCRIPT))
    assert status == 3
    assert time.monotonic() - start < 60


def test_packed_environment_is_used_from_the_nodes(cluster: SlurmCluster, tmp_path: Path) -> None:
    stand_in(tmp_path / "env/bin", f"{TELL} $PYTHONSAFEPATH")
    (tmp_path / "env/relocate").write_text('#!/bin/sh\ntouch "$(dirname "$0")/relocated"\n')
    (tmp_path / "env/relocate").chmod(0o755)
    subprocess.run(["tar", "-C", tmp_path / "env", "-cf", tmp_path / "env.tar", "."], check=True)
    job, log, status = submit(cluster, tmp_path, "exit 9", str(SCRIPT), PACKED=str(tmp_path / "env.tar"))
    assert status == 0, log
    assert log.count(f"{cluster.dir}/local/sciml_hpc-{job}/env/bin/python -m sciml_hpc cloudmask") == 4
    assert {line.split()[-1] for line in log.splitlines()} == {"1"}


@pytest.mark.slow
def test_ranks_are_warned_before_the_time_limit(cluster: SlurmCluster, tmp_path: Path) -> None:
    commands = (
        "trap 'echo warned $SLURM_PROCID; touch results/result_0.checkpoint; sleep 3; exit 1' USR1; "
        "while :; do sleep 0.1; done"
    )
    _, log, status = submit(cluster, tmp_path, commands, "--time=2", str(SCRIPT), OUTPUT="results")
    assert {f"warned {rank}" for rank in range(4)} <= set(log.splitlines())
    assert "a checkpoint is in results" in log  # the job's shell was not signalled
    assert status != 0
