"""A scaling study inside a Slurm allocation: every point is a job step on a sub-set of the nodes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from cluster.slurm_cluster import SlurmCluster
from cluster.test_cluster_runs import ENVIRONMENT, sciml  # noqa: F401 (sciml is a fixture)
from runs.conftest import Command, place  # noqa: F401 (place is a fixture)

pytestmark = pytest.mark.cluster


@pytest.mark.timeout(600)
def test_a_strong_study_in_an_allocation(cluster: SlurmCluster, sciml: Command, tmp_path: Path) -> None:  # noqa: F811
    data = [
        word
        for word in sciml.arguments()
        if word not in ("cloudmask", "--output", str(sciml.results), "--system", "here")
    ]
    study = ["scaling", "strong", "cloudmask", "--nodes", "1,2,4", "--repeats", "1", "--warm-ups", "0", "--no-probes"]
    command = [sys.executable, "-m", "sciml_hpc", *study, "--study", str(tmp_path / "study"), *data, "--epochs", "2"]
    done = cluster.run(["salloc", "-N", "4", "--exclusive", *command], env=ENVIRONMENT, cwd=sciml.place, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "COMPLETE: every point has all its repeats"
    assert "points n1, n2, n4, 1 repeats, 0 warm-up; by srun" in lines[0]
    records = [json.loads(path.read_text()) for path in tmp_path.glob("study/results/*/strong/cloudmask/result_0.json")]
    by_nodes = {record["job"]["nodes"]: record for record in records}
    assert {n: record["job"]["hosts"] for n, record in by_nodes.items()} == {n: cluster.nodes[:n] for n in (1, 2, 4)}
    assert {record["job"]["global_batch"] for record in records} == {16}
    assert {record["job"]["machines"] for record in records} == {1}
    if by_nodes[4]["job"]["oversubscription"] > 1:
        assert "times as many threads as there are cores" in done.stdout
    assert "the 4 nodes are 1 machine(s)" in done.stdout
    again = cluster.run(["salloc", "-N", "4", "--exclusive", *command], env=ENVIRONMENT, cwd=sciml.place, timeout=100)
    assert again.returncode == 0
    assert "going on: 3 of 3 steps are done" in again.stdout
