"""The toy benchmark (toy_benchmarks/toy): its data sets, and the command line with it, for the tests.

`python tests/toy.py ARGUMENTS` is `python -m sciml_hpc ARGUMENTS` with the benchmark `toy` among the others.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from sciml_hpc import benchmarks
from sciml_hpc.manifest import Dataset

FOLDER = str(Path(__file__).parent / "toy_benchmarks")
SAMPLES = {"train": 203, "validation": 37}


def entry(samples: Mapping[str, int] = SAMPLES, seed: int = 7, shard_bytes: int = 4096, **more: Any) -> dict[str, Any]:
    """A manifest entry of simulated toy samples; `more` are fields of the Generator."""
    return {
        "benchmark": "toy",
        "version": 1,
        "origin": {"kind": "simulator", "seed": seed, "parameters": more},
        "format": "regressors and a response",
        "samples": dict(samples),
        "shard_bytes": shard_bytes,
        "licence": "none",
        "citation": "none",
        "target": {"metric": "eval_loss", "direction": "min", "value": 0.02, "source": "noise² is 0.01"},
    }


def write_manifest(path: Path, **entries: Mapping[str, Any]) -> Path:
    """A manifest with toy-tiny and toy-small, and `entries` (`_` in their names for `-`) besides or instead."""
    datasets = {"toy-tiny": entry(), "toy-small": entry({"train": 2048, "validation": 256}, shard_bytes=1 << 16)}
    datasets |= {name.replace("_", "-"): dict(content) for name, content in entries.items()}
    path.write_text(yaml.safe_dump({"datasets": datasets}))
    return path


def dataset(**options: Any) -> Dataset:
    """The same as the package has it."""
    return Dataset.model_validate(entry(**options))


def clean_environment(**more: str) -> dict[str, str]:
    """The environment less what an MPI library or a launcher left in it, for a process that starts afresh."""
    prefixes = ("OMPI_", "PMIX_", "PMI_", "PRTE_", "SLURM_", "HOROVOD_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(prefixes)}
    root = str(Path(benchmarks.__file__).parents[2])
    path = os.pathsep.join(filter(None, [root, kept.get("PYTHONPATH", "")]))
    return kept | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"} | more


def mpirun(ranks: int, *more: str) -> list[str]:
    """The beginning of a command under mpirun, of the MPI that this Python has."""
    beside = Path(sys.executable).parent / "mpirun"
    options = ["--allow-run-as-root", "--oversubscribe", "--mca", "mpi_yield_when_idle", "1"]
    return [str(beside) if beside.exists() else "mpirun", *options, *more, "-n", str(ranks), sys.executable]


if __name__ == "__main__":
    benchmarks.__path__.append(FOLDER)
    from sciml_hpc.cli import main

    sys.exit(main(sys.argv[1:]))
