"""Job scripts of a study, one per point, for a machine where one is not inside an allocation."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from sciml_hpc.errors import UserError
from sciml_hpc.studies.allocation import Scheduler
from sciml_hpc.studies.ledger import Study

ENDINGS = {"slurm": "sbatch", "pbs": "pbs", "lsf": "lsf", "flux": "flux"}


def script(
    scheduler: Scheduler, study: Study, point: int, arguments: Sequence[str], time_limit: str, options: Sequence[str]
) -> str:
    """The job script that runs one point: the same command again, inside an allocation of its size.

    `options` are further words for the scheduler (--account=…), one directive each.
    """
    design = study.design
    nodes, name = point * max(1, design.instances), f"{design.benchmark}-{design.scaling}-{design.name(point)}"
    log = study.directory / "jobs" / f"{design.name(point)}.log"
    per_node = design.ranks_per_node
    hours, minutes, *_ = time_limit.split(":")
    directives = {
        "slurm": (
            "#SBATCH",
            [
                f"--job-name={name}", f"--nodes={nodes}", f"--ntasks-per-node={per_node}", "--exclusive",
                f"--time={time_limit}", f"--output={log}", "--open-mode=append",
            ],
        ),
        "pbs": (
            "#PBS",
            [
                f"-N {name[:15]}", f"-l select={nodes}:mpiprocs={per_node}", "-l place=scatter:excl",
                f"-l walltime={time_limit}", "-j oe", f"-o {log}",
            ],
        ),
        "lsf": ("#BSUB", [f"-J {name}", f"-nnodes {nodes}", f"-W {hours}:{minutes}", f"-o {log}", "-x"]),
        "flux": (
            "# flux:",
            [
                f"--job-name={name}", f"--nodes={nodes}", "--exclusive", f"--output={log}",
                f"--time-limit={_seconds(time_limit)}s",
            ],
        ),
    }  # fmt: skip
    prefix, words = directives[scheduler]
    command = [sys.executable, "-m", "sciml_hpc", *arguments, "--only", str(point)]
    return "\n".join(
        [
            "#!/bin/bash",
            f"# Point {design.name(point)} of the study in {study.directory}",
            "# Submitted again, it goes on where it stopped.",
            *(f"{prefix} {word}" for word in (*words, *options)),
            "set -euo pipefail",
            f"cd {shlex.quote(str(Path.cwd()))}",
            f"exec {shlex.join(command)}",
            "",
        ]
    )


def write(
    scheduler: Scheduler, study: Study, arguments: Sequence[str], time_limit: str, options: Sequence[str]
) -> list[Path]:
    """Write the job scripts of all points below the study's directory; scripts that are there already stay."""
    folder = study.directory / "jobs"
    folder.mkdir(exist_ok=True)
    paths = []
    for point in study.design.points:
        path = folder / f"{study.design.name(point)}.{ENDINGS[scheduler]}"
        content = script(scheduler, study, point, arguments, time_limit, options)
        if path.exists() and path.read_text() != content:
            raise UserError(f"{path}: exists and differs from what would be written: remove it or take another study")
        path.write_text(content)
        paths.append(path)
    return paths


def submit(scheduler: Scheduler, path: Path) -> str:
    """Submit a job script; what the scheduler says. Raises UserError with its complaint."""
    words = {"slurm": ["sbatch"], "pbs": ["qsub"], "lsf": ["bsub"], "flux": ["flux", "batch"]}[scheduler]
    stdin = path.open() if scheduler == "lsf" else subprocess.DEVNULL  # bsub reads a script with directives from there
    command = words if scheduler == "lsf" else [*words, str(path)]
    try:
        done = subprocess.run(command, stdin=stdin, capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"{' '.join(command)}: {error}") from None
    if done.returncode:
        raise UserError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()


def _seconds(time_limit: str) -> int:
    hours, minutes, *seconds = map(int, time_limit.split(":"))
    return hours * 3600 + minutes * 60 + (seconds[0] if seconds else 0)
