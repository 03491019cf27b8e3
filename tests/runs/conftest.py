"""Whole runs as a user starts them: `python -m sciml_hpc …` alone, under mpirun, or under srun on the test cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml

ANY_MACHINE = {
    "OMP_NUM_THREADS": "1",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_MCA_mpi_yield_when_idle": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "PRTE_MCA_hwloc_default_binding_policy": "none",
}
"""Open MPI would refuse root and more ranks than cores."""

QUICK = ["--dataset", "clouds", "--set", "train.width=4", "--set", "train.global_batch=16"]
"""A run of a second or two: 128 patches, a U-Net of 30,000 parameters."""


def dataset(parameters: dict | None = None, **changes: object) -> dict:
    """A manifest entry of CloudMask: 128 + 44 patches of 32 × 32, in ten or so shards."""
    return {
        "benchmark": "cloudmask",
        "version": 1,
        "origin": {"kind": "simulator", "seed": 3, "parameters": {"patch": 32, **(parameters or {})}},
        "format": "as CloudMask's",
        "samples": {"train": 128, "validation": 44},
        "shard_bytes": 650_000,
        "licence": "none",
        "citation": "none",
        "target": {"metric": "eval_accuracy", "direction": "max", "value": 0.3, "source": "a test"},
    } | changes


def environment() -> dict[str, str]:
    """The tests' environment, without the traces of a launcher that started them, and with this Python first."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMPI_COMM", "PMIX_", "PMI_", "SLURM_", "PRTE_"))}
    package = Path(__file__).parents[2]
    path = f"{Path(sys.executable).parent}:{clean['PATH']}"
    return {**clean, **ANY_MACHINE, "PATH": path, "PYTHONPATH": str(package)}


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a manifest (`own.yaml`) whose data set `clouds` is prepared in `data`."""
    place = tmp_path_factory.mktemp("runs")
    (place / "own.yaml").write_text(yaml.safe_dump({"datasets": {"clouds": dataset()}}))
    prepare = ["prepare", "cloudmask", "--dataset", "clouds", "--manifest", "own.yaml"]
    subprocess.run([sys.executable, "-m", "sciml_hpc", *prepare], cwd=place, env=environment(), check=True)
    return place


class Command:
    """Runs the command line in a directory of its own that shares the prepared data."""

    def __init__(self, place: Path, own: Path) -> None:
        self.place, self.results = place, own / "results"

    def arguments(self, *arguments: str) -> list[str]:
        """`cloudmask` with the manifest, data and results of this test."""
        where = ["--manifest", str(self.place / "own.yaml"), "--data", str(self.place / "data")]
        return ["cloudmask", *where, "--output", str(self.results), "--system", "here", *QUICK, *arguments]

    def start(self, *arguments: str, ranks: int = 1) -> subprocess.Popen[str]:
        """Start a run on so many ranks."""
        launcher = ["mpirun", "-n", str(ranks)] if ranks > 1 else []
        command = [*launcher, sys.executable, "-m", "sciml_hpc", *self.arguments(*arguments)]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, cwd=self.place, env=environment(), text=True, **pipes)

    def __call__(self, *arguments: str, ranks: int = 1) -> subprocess.CompletedProcess[str]:
        """Do a run and wait for its end."""
        process = self.start(*arguments, ranks=ranks)
        stdout, stderr = process.communicate(timeout=240)
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    @property
    def folder(self) -> Path:
        """Where the results are."""
        return self.results / "here" / "strong" / "cloudmask"

    def record(self, number: int = 0) -> dict:
        """The record of a run."""
        return json.loads((self.folder / f"result_{number}.json").read_text())

    def steps(self, number: int = 0) -> list[str]:
        """Epoch, step and loss of every step, as written."""
        return (self.folder / f"result_{number}.steps.csv").read_text().splitlines()

    def log(self, number: int = 0) -> str:
        """The log as it is now; empty if there is none yet."""
        path = self.folder / f"result_{number}.txt"
        return path.read_text() if path.exists() else ""


@pytest.fixture
def sciml(place: Path, tmp_path: Path) -> Command:
    """The command line, with prepared data and an empty results directory."""
    return Command(place, tmp_path)


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    """Wait until something is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def ranks_of(process_id: int) -> Sequence[int]:
    """Process ids of the ranks below a launcher."""
    import psutil

    below = psutil.Process(process_id).children(recursive=True)
    return [p.pid for p in below if "sciml_hpc" in p.cmdline() and "python" in p.name()]


def send(process_ids: Sequence[int], number: signal.Signals) -> None:
    """Send a signal to processes."""
    for pid in process_ids:
        os.kill(pid, number)
