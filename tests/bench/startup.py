"""How long it takes to be told something, and to come to the first step."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.rows import Row


def _run(*words: str, cwd: str | None = None) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, *words], capture_output=True, check=False, cwd=cwd)
    return time.perf_counter() - begin


def answers(rounds: int) -> list[Row]:
    """Wall time of what does not train."""
    rows = []
    for arguments in (["list"], ["--help"], ["clodmask"]):
        _run("-m", "sciml_hpc", *arguments)
        spent = [_run("-m", "sciml_hpc", *arguments) for _ in range(rounds)]
        rows.append(Row(f"python -m sciml_hpc {arguments[0]}", "wall time", spent, ("≤", 0.3), "s"))
    return rows


def first_step(rounds: int) -> list[Row]:
    """From the start of the process to the first step (the log's first epoch), against importing torch and Horovod."""
    rounds = min(rounds, 3)
    with tempfile.TemporaryDirectory() as place:
        command = ["-m", "sciml_hpc", "cloudmask", "--preset", "tiny", "--epochs", "1", "--fixed-work"]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        subprocess.run(
            [sys.executable, "-m", "sciml_hpc", "prepare", "cloudmask"], cwd=place, check=True, env=environment
        )
        ratios, imports = [], []
        for turn in range(rounds + 1):
            imported = _run("-c", "import torch, torch._dynamo, horovod.torch; import mpi4py.MPI")
            began_ms = time.time() * 1000
            subprocess.run([sys.executable, *command], cwd=place, check=True, capture_output=True, env=environment)
            log = sorted(Path(place).glob("results/*/strong/cloudmask/result_*.txt"))[-1].read_text()
            lines = [json.loads(line.removeprefix(":::MLLOG ")) for line in log.splitlines()]
            first = next(line["time_ms"] for line in lines if line["key"] == "epoch_start")
            if turn:
                ratios.append((first - began_ms) / 1000 / imported)
                imports.append(imported)
    return [
        Row("start to first step, tiny", "importing torch and Horovod", ratios, ("≤", 1.3),
            figures={"imports_s": statistics.median(imports)})
    ]  # fmt: skip
