"""The test cluster is what tests take it for: separate hosts under a real Slurm, and nothing left afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from cluster.slurm_cluster import SlurmCluster, unavailable

pytestmark = pytest.mark.cluster

EACH = ["srun", "-N", "4", "--ntasks-per-node=1"]


def wait_until(true: Callable[[], object], timeout: float) -> None:
    end = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < end, f"not within {timeout} s"
        time.sleep(0.1)


def traces(directory: str) -> list[str]:
    """Processes and mounts on this machine that name the cluster's directory, and the directory itself."""
    found = [directory] if Path(directory).exists() else []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), *process.environ().values()]
        except psutil.Error:
            continue
        if process.pid != os.getpid() and any(directory in word for word in words):
            found.append(f"{process.pid} {process.name()}")
    return found + [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if directory in line]


def test_each_task_has_a_host_of_its_own(cluster: SlurmCluster) -> None:
    probe = "hostname; hostname -I; readlink /proc/self/ns/net /proc/self/ns/pid; ls /sys/class/net | xargs"
    done = cluster.run([*EACH, "--label", "sh", "-c", probe])
    assert done.returncode == 0, done.stderr
    lines = [[line[3:] for line in done.stdout.splitlines() if line.startswith(f"{task}: ")] for task in range(4)]
    names, addresses, nets, pids, interfaces = zip(*lines, strict=True)
    assert sorted(names) == cluster.nodes
    for different in (addresses, nets, pids):
        assert len(set(different)) == 4
    assert set(interfaces) == {"eth0 lo"}


def test_nodes_reach_each_other_by_name(cluster: SlurmCluster) -> None:
    serve = "import socket; s = socket.create_server(('', 9999)); s.accept()[0].sendall(socket.gethostname().encode())"
    server = cluster.popen([sys.executable, "-c", serve], node="node3")
    fetch = "import socket; s = socket.create_connection(('node3', 9999)); print(s.recv(99).decode(), *s.getsockname())"
    for _ in range(50):
        client = cluster.on("node1", [sys.executable, "-c", fetch])
        if client.returncode == 0:
            break
        time.sleep(0.1)
    assert client.stdout.split()[:2] == ["node3", "10.77.0.2"], client.stderr
    assert cluster.finish(server).returncode == 0


def test_mpi_spans_the_nodes(cluster: SlurmCluster, tmp_path: Path) -> None:
    script = tmp_path / "world.py"
    script.write_text(
        textwrap.dedent("""
            from mpi4py import MPI
            world = MPI.COMM_WORLD
            print(world.size, world.allreduce(2**world.rank), *sorted(world.allgather(MPI.Get_processor_name())))
        """)
    )
    done = cluster.run([*EACH, sys.executable, script])
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["4 15 node1 node2 node3 node4"] * 4
    assert done.stderr == ""  # no PMIx security noise


def test_node_local_storage_is_private(cluster: SlurmCluster) -> None:
    for name in ("$TMPDIR/mark", "/dev/shm/mark", "/run/mark"):
        assert cluster.on("node2", ["sh", "-c", f"touch {name}"]).returncode == 0
        seen = cluster.run([*EACH, "sh", "-c", f"test -e {name} && hostname; true"])
        assert seen.stdout.split() == ["node2"]
        assert cluster.run(["sh", "-c", f"test -e {name}"]).returncode == 1


def test_other_files_are_shared(cluster: SlurmCluster, tmp_path: Path) -> None:
    assert cluster.run([*EACH, "sh", "-c", f"touch {tmp_path}/$(hostname)"]).returncode == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == cluster.nodes


def test_exit_status_passes_through(cluster: SlurmCluster) -> None:
    assert cluster.run(["srun", "-N", "4", "sh", "-c", "exit 7"]).returncode == 7


def test_sbatch_runs_a_script(cluster: SlurmCluster, tmp_path: Path) -> None:
    (tmp_path / "job.sh").write_text("#!/bin/sh\nsrun --ntasks-per-node=1 hostname\n")
    submitted = cluster.run(["sbatch", "--parsable", "-N", "3", "-o", "job.log", "job.sh"], cwd=tmp_path)
    assert submitted.returncode == 0, submitted.stderr
    wait_until(lambda: not cluster.run(["squeue", "-h", "-j", submitted.stdout.strip()]).stdout, 60)
    assert sorted((tmp_path / "job.log").read_text().split()) == ["node1", "node2", "node3"]


def test_a_hanging_command_is_ended_with_its_jobs(cluster: SlurmCluster) -> None:
    with pytest.raises(TimeoutError, match="started"):
        cluster.run([*EACH, "sh", "-c", "echo started; sleep 1000"], timeout=5)
    wait_until(lambda: not cluster.run(["squeue", "-h"]).stdout, 30)


def test_signal_reaches_the_command(cluster: SlurmCluster) -> None:
    process = cluster.popen(["sh", "-c", "trap 'echo caught; exit 5' USR1; echo ready; while :; do sleep 0.1; done"])
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    cluster.signal(process, signal.SIGUSR1)
    done = cluster.finish(process)
    assert (done.returncode, done.stdout) == (5, "caught\n")


def test_a_node_dies_and_returns(cluster: SlurmCluster) -> None:
    cluster.on("node3", ["sh", "-c", "touch $TMPDIR/before"])
    job = cluster.popen(["srun", "-N", "1", "-w", "node3", "sh", "-c", "echo started; sleep 1000"])
    assert job.stdout is not None
    assert job.stdout.readline() == "started\n"
    cluster.kill("node3")
    try:
        assert cluster.on("node3", ["true"]).returncode != 0
        # Slurm notices by itself; the message is all there is to check, as srun's exit status can be 0 even then
        assert "Node failure on node3" in cluster.finish(job, timeout=90).stderr
    finally:
        cluster.boot("node3")
    names = cluster.run([*EACH, "hostname"])
    assert sorted(names.stdout.split()) == cluster.nodes, names.stderr
    assert cluster.on("node3", ["sh", "-c", "test -e $TMPDIR/before"]).returncode == 1


def test_two_clusters_do_not_meet_and_down_leaves_nothing(cluster: SlurmCluster) -> None:
    other = SlurmCluster(nodes=2, CLUSTER_CPUS=3, CLUSTER_SCRATCH_MIB=5, CLUSTER_GPUS=2)
    try:
        assert other.dir != cluster.dir
        assert other.run(["sinfo", "-h", "-o", "%D %c %G"]).stdout.split() == ["2", "3", "gpu:2"]
        size = other.on("node1", ["df", "--output=size", "-B1", str(other.dir / "local")])
        assert int(size.stdout.split()[1]) == 5 * 2**20
        gpus = other.run(
            ["srun", "-n2", "--gpus-per-task=1", "--ntasks-per-node=2", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES"]
        )
        assert sorted(gpus.stdout.split()) == ["0", "1"], gpus.stderr
        assert cluster.run(["sinfo", "-h", "-o", "%D"]).stdout.split() == ["4"]
        assert traces(str(other.dir))
    finally:
        other.down()
    assert traces(str(other.dir)) == []


def test_the_cluster_ends_when_its_tests_are_killed() -> None:
    if reason := unavailable():
        pytest.skip(reason)
    program = (
        "import time; from cluster.slurm_cluster import SlurmCluster as C; print(C(1).dir, flush=True); time.sleep(99)"
    )
    tests = Path(__file__).parents[1]
    owner = subprocess.Popen([sys.executable, "-c", program], cwd=tests, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    directory = owner.stdout.readline().strip()
    try:
        assert traces(directory)
    finally:
        owner.kill()
    wait_until(lambda: not traces(directory), 20)
