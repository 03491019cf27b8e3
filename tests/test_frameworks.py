"""The ReFrame test and the JUBE file: what they make of a result, and one real run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from toy import clean_environment

JOBSCRIPTS = Path(__file__).parents[1] / "jobscripts"
SETTINGS = """site_configuration = {
    "systems": [{"name": "here", "hostnames": [".*"], "partitions": [
        {"name": "cpu", "scheduler": "local", "launcher": "mpirun", "environs": ["builtin"]}]}],
    "environments": [{"name": "builtin"}],
}
"""
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
REFRAME, JUBE = shutil.which("reframe", path=PATH), shutil.which("jube", path=PATH)
needs_reframe = pytest.mark.skipif(REFRAME is None, reason="ReFrame (reframe-hpc) is not installed")
needs_jube = pytest.mark.skipif(JUBE is None, reason="JUBE is not installed")


def result(verdict: str = "VALID") -> str:
    reasons = [] if verdict == "VALID" else ["the target was not met"]
    time = {"time_to_convergence_s": None, "steady_epoch_s": 1.5, "staging_s": 0.25}
    content = {
        "verdict": verdict,
        "reasons": reasons,
        "time": time,
        "throughput": {"samples_per_s": 640.5},
        "io": {"data_stall_fraction": 0.08, "au": 0.92},
        "communication": {"exposed_comm_fraction": 0.25},
        "energy": {"gpu_energy_J": None},
    }
    return json.dumps(content, indent=1)


def stand_in(folder: Path, commands: str) -> dict[str, str]:
    """An environment in which `mpirun` and `sbatch` write down their arguments and run `commands`."""
    (folder / "bin").mkdir()
    for name in ("mpirun", "sbatch"):
        path = folder / "bin" / name
        path.write_text(f'#!/bin/bash\necho "{name} $*" >>{folder}/calls\n{commands}\n')
        path.chmod(0o755)
    return clean_environment(PATH=f"{folder}/bin:{PATH}")


def leaving(folder: Path, content: str, status: int = 0) -> str:
    """Commands that leave a result file as a run does, and exit."""
    (folder / "result.json").write_text(content)
    into = "results/system/strong/cloudmask"
    return f"mkdir -p {into} && cp {folder}/result.json {into}/result_0.json; exit {status}"


def reframe(folder: Path, environment: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "settings.py").write_text(SETTINGS)
    check = JOBSCRIPTS / "reframe/sciml_hpc_checks.py"
    command = [REFRAME, "-C", "settings.py", "-c", check, "-r", "--nocolor", "--prefix", folder / "reframe", *options]
    return subprocess.run(
        command, cwd=folder, env=environment | {"HOME": str(folder)}, capture_output=True, text=True, timeout=280
    )


@needs_reframe
def test_reframe_reports_the_figures_of_a_valid_run(tmp_path: Path) -> None:
    environment = stand_in(tmp_path, leaving(tmp_path, result()))
    done = reframe(
        tmp_path, environment,
        "-P", "nodes=1,2", "-S", "num_tasks_per_node=4", "-S", "preset=full", "-S", "options=--epochs=2,--fixed-work",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "Ran 2/2 test case(s)" in done.stdout
    for line in ("P: samples_per_s: 640.5 1/s", "P: steady_epoch_s: 1.5 s", "P: staging_s: 0.25 s", "P: au: 0.92 1"):
        assert line in done.stdout
    assert "P: time_to_convergence_s" not in done.stdout  # this run has none
    run = f"python -m sciml_hpc cloudmask --preset full --data {tmp_path}/data --output results --epochs=2 --fixed-work"
    calls = (tmp_path / "calls").read_text().splitlines()
    assert sorted(calls) == [f"mpirun -np {ranks} {run}" for ranks in (4, 8)]


@needs_reframe
@pytest.mark.parametrize(
    ("verdict", "said"), [("INVALID", "the target was not met"), (None, "there is no result file")]
)
def test_reframe_fails_what_is_not_valid(tmp_path: Path, verdict: str | None, said: str) -> None:
    commands = "exit 3" if verdict is None else leaving(tmp_path, result(verdict), 1)
    done = reframe(tmp_path, stand_in(tmp_path, commands))
    assert done.returncode == 1
    assert said in done.stdout
    assert "P: samples_per_s" not in done.stdout


@needs_reframe
@pytest.mark.slow
def test_reframe_runs_a_benchmark(tmp_path: Path) -> None:
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_mpi_yield_when_idle": "1"}
    crowded = {
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
        "PRTE_MCA_hwloc_default_binding_policy": "none",
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
        "OMPI_MCA_hwloc_base_binding_policy": "none",
    }
    done = reframe(
        tmp_path, clean_environment(PATH=PATH, **root, **crowded),
        "-S", "benchmark=uno", "-S", "preset=tiny", "-S", "num_tasks_per_node=2",
        "-S", "options=--epochs=2,--fixed-work,--set=measure.enabled=false",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "P: samples_per_s: " in done.stdout


@needs_jube
@pytest.mark.parametrize("tag", ["", "slurm"])
def test_jube_tables_the_figures(tmp_path: Path, tag: str) -> None:
    """One node: VALID; two: INVALID, with status 1; four: failed, with status 3."""
    for verdict in ("VALID", "INVALID"):
        (tmp_path / f"{verdict}.json").write_text(result(verdict))
    into = "results/system/strong/cloudmask"
    commands = f"""
        [[ $* =~ (-n |nodes=)([0-9]) ]] && nodes=${{BASH_REMATCH[2]}}
        ((nodes < 4)) || exit 3
        mkdir -p {into}
        ((nodes == 1)) && cp {tmp_path}/VALID.json {into}/result_0.json && exit 0
        cp {tmp_path}/INVALID.json {into}/result_0.json && exit 1"""
    environment = stand_in(tmp_path, commands)
    for command in (["run", JOBSCRIPTS / "jube/sciml_hpc.yaml", "--outpath", "runs"], ["result", "runs", "--analyse"]):
        options = ["--tag", tag] if tag and command[0] == "run" else []
        done = subprocess.run(
            [JUBE, *command, *options], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
        )
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if "VALID" in line]
    assert rows == [
        ["1", "1", "VALID", "640.5", "", "1.5", "0.08", "0.25", ""],
        ["2", "2", "INVALID", "640.5", "", "1.5", "0.08", "0.25", ""],
    ]
    data = JOBSCRIPTS / "jube/../../data"
    if tag:
        script = JOBSCRIPTS / "jube/../slurm/sciml_hpc.sbatch"
        first = f"sbatch --wait --nodes=1 --ntasks-per-node=1 {script} --preset node --data {data}"
    else:
        first = f"mpirun -n 1 python -m sciml_hpc cloudmask --output results --preset node --data {data}"
    assert (tmp_path / "calls").read_text().splitlines()[0] == first
