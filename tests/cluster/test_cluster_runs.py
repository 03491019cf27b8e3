"""The main job under srun on four nodes, each with its own name, network and storage; and when one is lost."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.slurm_cluster import SlurmCluster
from runs.conftest import Command, environment, place, wait_for  # noqa: F401 (place is a fixture)

pytestmark = pytest.mark.cluster

SRUN = ["srun", "-N", "4", "--ntasks-per-node=1"]
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONPATH": environment()["PYTHONPATH"]}


@pytest.fixture
def sciml(place: Path, tmp_path: Path) -> Iterator[Command]:  # noqa: F811
    return Command(place, tmp_path)


def run(cluster: SlurmCluster, sciml: Command, *arguments: str, options: tuple[str, ...] = ()):
    command = [*SRUN, *options, sys.executable, "-m", "sciml_hpc", *sciml.arguments(*arguments)]
    return cluster.run(command, env=ENVIRONMENT, cwd=sciml.place, timeout=280)


@pytest.mark.timeout(900)
def test_the_literal_command_runs_to_valid_on_four_nodes(cluster: SlurmCluster, tmp_path: Path) -> None:
    """As the README has it: `srun -N 4 python -m sciml_hpc cloudmask`, nothing else; the data are made first."""
    command = ["srun", "-N", "4", "python", "-m", "sciml_hpc", "cloudmask"]
    done = cluster.run(command, env=ENVIRONMENT, cwd=tmp_path, timeout=800)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-2] == "VALID"
    assert done.stdout.splitlines()[-1].startswith("FOM: time_to_convergence_s = ")
    record = json.loads(next(tmp_path.glob("results/*/strong/cloudmask/result_0.json")).read_text())
    assert record["job"]["hosts"] == cluster.nodes
    assert record["job"]["ranks"] == 4
    assert record["staging"]["read_amplification"] == 1.0


@pytest.mark.parametrize("mode", ["partition", "replicate"])
def test_every_shard_is_read_once_from_shared_storage(cluster: SlurmCluster, sciml: Command, mode: str) -> None:
    done = run(cluster, sciml, "--epochs", "1", "--staging", mode)
    assert done.returncode == 0, done.stdout + done.stderr
    record = sciml.record()
    data = record["job"]["data_bytes"]
    assert record["job"]["hosts"] == cluster.nodes
    assert record["staging"]["shared_read_bytes"] == data
    assert record["staging"]["read_amplification"] == 1.0
    if mode == "replicate":
        assert record["staging"]["written_bytes"] == 4 * data
        assert record["staging"]["received_bytes"] == 3 * data
    else:
        assert data <= record["staging"]["written_bytes"] < 2 * data
    for node in cluster.nodes:  # nothing stays behind
        assert cluster.on(node, ["find", str(cluster.dir / "local"), "-name", "*.h5"]).stdout == ""


@pytest.mark.parametrize("options", [(), ("--kill-on-bad-exit=1",)], ids=["plain", "kill-on-bad-exit"])
def test_a_lost_rank_is_named_and_all_are_gone_in_a_minute(
    cluster: SlurmCluster, sciml: Command, options: tuple[str, ...]
) -> None:
    command = [*SRUN, *options, sys.executable, "-m", "sciml_hpc", *sciml.arguments("--epochs", "900", "--fixed-work")]
    process = cluster.popen(command, env=ENVIRONMENT, cwd=sciml.place)
    wait_for(lambda: '"epoch_stop"' in sciml.log())
    start = time.monotonic()
    killed = cluster.on("node3", ["pkill", "--signal", str(int(signal.SIGKILL)), "-f", "sciml_hpc cloudmask"])
    assert killed.returncode == 0
    done = cluster.finish(process, timeout=60)
    assert time.monotonic() - start < 60
    assert done.returncode != 0
    if not options:  # else Slurm may end rank 0 before it has written
        assert "rank 2 on node3 was lost" in done.stdout + done.stderr
        assert "rank 2 on node3 was lost" in sciml.log()
        assert sciml.record()["verdict"] == "INVALID"
    assert '"key": "epoch_stop"' in sciml.log()
    wait_for(lambda: "-m sciml_hpc" not in cluster.on("node1", ["ps", "-A", "-o", "args"]).stdout, 30)


def test_the_wrong_pmi_is_stopped_with_the_remedy(cluster: SlurmCluster, sciml: Command) -> None:
    done = run(cluster, sciml, options=("--mpi=pmi2",))
    assert done.returncode == 2
    assert done.stderr.count("but MPI sees a world of 1") == 1
    assert "srun --mpi=pmix" in done.stderr
    assert not list(sciml.results.rglob("*.txt"))


def test_the_time_limit_signal_leaves_a_run_that_resumes(cluster: SlurmCluster, sciml: Command) -> None:
    command = [*SRUN, sys.executable, "-m", "sciml_hpc", *sciml.arguments("--epochs", "900", "--fixed-work")]
    process = cluster.popen(command, env=ENVIRONMENT, cwd=sciml.place)
    wait_for(lambda: '"epoch_stop"' in sciml.log())
    job = cluster.run(["squeue", "--noheader", "--format=%i"]).stdout.split()[0]
    assert cluster.run(["scancel", "--signal=USR1", f"{job}.0"]).returncode == 0
    done = cluster.finish(process, timeout=60)
    assert done.returncode == 1
    assert "INVALID: interrupted by SIGUSR1" in done.stdout
    assert (sciml.folder / "result_0.checkpoint").exists()
