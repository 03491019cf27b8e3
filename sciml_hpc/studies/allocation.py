"""The nodes a study has, and the command that starts a run on some of them: Slurm, PBS, LSF, Flux, or this machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sciml_hpc.errors import UserError

Scheduler = Literal["slurm", "pbs", "lsf", "flux", "local"]
JOB_VARIABLES: dict[Scheduler, str] = {
    "flux": "FLUX_JOB_ID",  # first: a Flux instance may run inside another scheduler's job
    "slurm": "SLURM_JOB_ID",
    "pbs": "PBS_JOBID",
    "lsf": "LSB_JOBID",
}
"""The variable by which a process knows that it is in a job of that scheduler."""
SUBMIT: dict[Scheduler, str] = {"slurm": "sbatch", "pbs": "qsub", "lsf": "bsub", "flux": "flux"}


@dataclass(frozen=True)
class Allocation:
    """Where runs can be started."""

    scheduler: Scheduler
    hosts: tuple[str, ...] = ()
    """The nodes of the allocation, in its order; none on this machine alone."""
    cores_per_node: int | None = None
    """Where the scheduler says so."""
    launcher: str = "mpirun"
    """The program that starts the ranks."""

    def start(self, first: int, nodes: int, ranks_per_node: int) -> list[str]:
        """Words before the program that start it on `nodes` nodes, counted from the `first` of the allocation.

        On this machine: `ranks_per_node` ranks.
        """
        ranks = nodes * ranks_per_node
        hosts = self.hosts[first : first + nodes]
        if self.scheduler == "slurm":
            cores = max(1, (self.cores_per_node or ranks_per_node) // ranks_per_node)
            return [
                "srun", f"--nodes={nodes}", f"--ntasks={ranks}", f"--ntasks-per-node={ranks_per_node}",
                f"--nodelist={','.join(hosts)}", f"--cpus-per-task={cores}", "--cpu-bind=cores", "--exact",
                *(["--gpu-bind=none"] if os.environ.get("SLURM_GPUS_ON_NODE") else []),
            ]  # fmt: skip
        if self.scheduler == "flux":
            return ["flux", "run", f"--nodes={nodes}", f"--ntasks={ranks}", "--exclusive"]
        if self.launcher == "jsrun":
            return [
                "jsrun", f"--nrs={nodes}", "--rs_per_host=1", f"--tasks_per_rs={ranks_per_node}",
                "--cpu_per_rs=ALL_CPUS", "--gpu_per_rs=ALL_GPUS", "--bind=none",
            ]  # fmt: skip
        if self.scheduler == "local":
            return [self.launcher, "-n", str(ranks)]
        if self.launcher == "mpiexec (PALS)":
            return ["mpiexec", "-n", str(ranks), "--ppn", str(ranks_per_node), "--hosts", ",".join(hosts)]
        if self.launcher == "mpiexec (Hydra)":
            return ["mpiexec", "-n", str(ranks), "-ppn", str(ranks_per_node), "-hosts", ",".join(hosts)]
        places = ",".join(f"{host}:{ranks_per_node}" for host in hosts)
        mapping = ["--map-by", f"ppr:{ranks_per_node}:node", "--bind-to", "none"]
        return [self.launcher, "-n", str(ranks), "--host", places, *mapping]


def find(environ: Mapping[str, str] = os.environ, ask: Callable[[Sequence[str]], str] | None = None) -> Allocation:
    """The allocation this process is in, by the variables that the scheduler sets; else this machine.

    `ask` runs a command and returns what it prints (replaced in tests). Raises UserError if an allocation's nodes
    cannot be found out.
    """
    ask = ask or _ask
    here = scheduler_here(environ)
    if here == "slurm":
        hosts = ask(["scontrol", "show", "hostnames", environ.get("SLURM_JOB_NODELIST", "")]).split()
        cores = re.match(r"\d+", environ.get("SLURM_JOB_CPUS_PER_NODE", environ.get("SLURM_CPUS_ON_NODE", "")))
        return Allocation("slurm", tuple(hosts), int(cores[0]) if cores else None, "srun")
    if here == "flux":
        hosts = ask(["flux", "resource", "list", "--no-header", "--format={nodelist}"]).split()
        names = ask(["flux", "hostlist", "--expand", *hosts]).split() if hosts else []
        return Allocation("flux", tuple(names), launcher="flux run")
    if here == "pbs":
        file = environ.get("PBS_NODEFILE", "")
        try:
            with open(file) as lines:
                hosts = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
        except OSError as error:
            raise UserError(f"PBS_NODEFILE={file}: cannot be read: {error.strerror}") from None
        return Allocation("pbs", tuple(hosts), launcher=_mpiexec(ask))
    if here == "lsf":
        words = environ.get("LSB_MCPU_HOSTS", "").split()
        slots = dict(zip(words[::2], map(int, words[1::2]), strict=True))
        if shutil.which("jsrun"):  # the first host, with one slot, is the one the job's script runs on
            hosts = [host for k, (host, count) in enumerate(slots.items()) if k or count > 1]
            return Allocation("lsf", tuple(hosts), launcher="jsrun")
        return Allocation("lsf", tuple(slots), launcher=_mpiexec(ask))
    return Allocation("local", launcher=local_launcher())


def scheduler_here(environ: Mapping[str, str] = os.environ) -> Scheduler | None:
    """Whose allocation this process is in; None outside of any."""
    return next((name for name, variable in JOB_VARIABLES.items() if variable in environ), None)


def local_launcher() -> str:
    """What starts ranks on this machine. Raises UserError if nothing does."""
    launcher = next((name for name in ("mpirun", "mpiexec") if shutil.which(name)), None)
    if launcher is None:
        raise UserError("neither mpirun nor mpiexec is in PATH: nothing can start the ranks")
    return launcher


def submitter() -> Scheduler | None:
    """The scheduler whose command to submit jobs is in PATH, if there is one."""
    return next((name for name, command in SUBMIT.items() if shutil.which(command)), None)


def _mpiexec(ask: Callable[[Sequence[str]], str]) -> str:
    """Which mpiexec this is, as they name nodes in different ways."""
    version = ask(["mpiexec", "--version"])
    if "PALS" in version:
        return "mpiexec (PALS)"
    if "HYDRA" in version or "Intel" in version:
        return "mpiexec (Hydra)"
    return "mpirun" if shutil.which("mpirun") else "mpiexec"


def _ask(command: Sequence[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", None) or error
        raise UserError(f"{' '.join(command)} failed: {str(detail).strip()}") from None
