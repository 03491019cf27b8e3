"""A Slurm cluster of several nodes on this machine, as a Python object; `cluster.sh` beside it does the work."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

SCRIPT = Path(__file__).with_name("cluster.sh")
COMMANDS = ("slurmctld", "slurmd", "srun", "munged", "ip", "unshare", "nsenter")


def unavailable() -> str | None:
    """Why no cluster can be brought up on this machine, or None."""
    if os.geteuid() != 0:
        return "needs root (namespaces, slurmd)"
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    if missing := [command for command in COMMANDS if not shutil.which(command, path=path)]:
        return f"not installed: {', '.join(missing)} (tests/cluster/install-tools.sh)"
    trial = subprocess.run(
        ["unshare", "--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "mount", "-t", "sysfs", "sysfs", "/sys"],
        capture_output=True,
        text=True,
    )
    return f"namespaces are not allowed here: {trial.stderr.strip()}" if trial.returncode else None


class SlurmCluster:
    """Nodes `node1` … `nodeN` under one controller; commands run on the login node unless said otherwise.

    They see the tests' environment and files, with the running Python first in PATH. The cluster ends with `down`,
    and also with this process, however that dies: its standard input is a pipe that only this process holds.
    """

    def __init__(self, nodes: int = 4, **settings: object) -> None:
        """`settings` are the variables of cluster.sh: CLUSTER_CPUS, CLUSTER_MEMORY_MIB, …"""
        self.nodes = [f"node{i}" for i in range(1, nodes + 1)]
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin"
        self._env = {**os.environ, "PATH": path, **{key: str(value) for key, value in settings.items()}}
        self._server = subprocess.Popen(
            [SCRIPT, "serve", str(nodes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self._env,
            start_new_session=True,  # Ctrl-C reaches pytest, which then calls `down`
        )
        assert self._server.stdout is not None
        assert self._server.stderr is not None
        ready = self._server.stdout.readline().strip()
        if not ready:
            raise RuntimeError(f"the Slurm cluster did not come up:\n{self._server.stderr.read()}")
        self.dir = Path(ready.removeprefix("export CLUSTER_DIR="))
        """State and logs, on every node; `dir / "local"` is each node's own file system (TMPDIR)."""
        self._env["CLUSTER_DIR"] = str(self.dir)

    def popen(
        self,
        command: Sequence[str | Path],
        *,
        node: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.Popen[str]:
        """Start `command`, its output in pipes; send signals with `signal`, wait with `finish`."""
        where = ["on", node] if node else ["run"]
        return subprocess.Popen(
            [SCRIPT, *where, *map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**self._env, **(env or {})},
            cwd=cwd,
            start_new_session=True,
        )

    def finish(self, process: subprocess.Popen[str], timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Wait for a process of `popen`; after `timeout` seconds end it and every job, and raise TimeoutError."""
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            stdout, stderr = process.communicate()
            self.run(["scancel", "--user=root"], timeout=60)
            command = " ".join(map(str, process.args[1:]))
            raise TimeoutError(f"{timeout} s: {command}\n--- stdout\n{stdout}\n--- stderr\n{stderr}") from None
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    def run(
        self,
        command: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        timeout: float = 120,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run `command` (srun, sbatch, mpirun …) on the login node; its exit status, stdout and stderr."""
        return self.finish(self.popen(command, env=env, cwd=cwd), timeout)

    def on(self, node: str, command: Sequence[str | Path], *, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run `command` on `node`, outside any job."""
        return self.finish(self.popen(command, node=node), timeout)

    def signal(self, process: subprocess.Popen[str], signum: int) -> None:
        """Send a signal to the command of `popen` itself (not to the nsenter around it)."""
        (child,) = psutil.Process(process.pid).children()
        child.send_signal(signum)

    def kill(self, node: str) -> None:
        """Power `node` off; Slurm takes up to half a minute to call it DOWN."""
        subprocess.run([SCRIPT, "kill", node], env=self._env, check=True)

    def boot(self, node: str) -> None:
        """Power `node` on, with an empty node-local file system, and wait until Slurm uses it again."""
        subprocess.run([SCRIPT, "boot", node], env=self._env, check=True)

    def down(self) -> None:
        """End every process of the cluster and remove its directory."""
        with contextlib.suppress(BrokenPipeError):
            self._server.communicate(timeout=30)
