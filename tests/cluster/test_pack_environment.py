"""A packed environment, sent to the nodes with sbcast, runs there without a look at where it came from."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from cluster.slurm_cluster import SlurmCluster

pytestmark = pytest.mark.cluster

REPOSITORY = Path(__file__).parents[2]
MOST_BYTES = 20 << 20
"""Packages above this stay behind, but for NumPy: torch alone would make it gigabytes, and the nodes have one each."""


def big(folder: str, names: list[str]) -> list[str]:
    """What of a folder is not packed."""
    if Path(folder).name != "site-packages":
        return ["__pycache__"]
    packages = [path for path in (Path(folder, name) for name in names) if path.is_dir() and "numpy" not in path.name]
    return [p.name for p in packages if sum(f.stat().st_size for f in p.rglob("*") if f.is_file()) > MOST_BYTES]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This environment less its big packages, packed; the copy itself is gone."""
    folder = tmp_path_factory.mktemp("pack")
    venv = folder / "venv"
    shutil.copytree(sys.prefix, venv, symlinks=True, ignore=big)
    (venv / "bin/tool").write_text(f"#!{venv}/bin/python3\nimport sys; print(sys.prefix)\n")
    (venv / "bin/tool").chmod(0o755)
    done = subprocess.run(
        [REPOSITORY / "modules/pack-environment.sh", folder / "env.tar", venv], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    shutil.rmtree(venv)
    return folder / "env.tar"


def test_runs_from_node_local_storage(cluster: SlurmCluster, packed: Path, tmp_path: Path) -> None:
    program = tmp_path / "where.py"
    program.write_text(
        textwrap.dedent("""
            import os, socket, sys
            import numpy, sciml_hpc
            from mpi4py import MPI
            from sciml_hpc.manifest import shipped_manifest
            top = sys.argv[1] + "/"
            libraries = {line.split()[-1] for line in open("/proc/self/maps") if ".so" in line}
            origins = [m.__file__ for m in list(sys.modules.values()) if getattr(m, "__file__", None)]
            found = [*libraries, *origins, str(shipped_manifest())]
            ours = [p for p in found if not p.startswith(("/usr/", "/lib", sys.argv[0]))]
            strangers = [p for p in ours if not p.startswith(top)]
            print(socket.gethostname(), MPI.COMM_WORLD.size, sys.prefix == sys.argv[1], len(ours) > 50, strangers)
        """)
    )
    local = cluster.dir / "local"
    each = ["srun", "-N", "4", "--ntasks-per-node=1"]
    script = tmp_path / "job.sh"
    script.write_text(
        textwrap.dedent(f"""\
            #!/bin/bash
            set -e
            sbcast --force {packed} {local}/env.tar
            {" ".join(each)} sh -c 'mkdir {local}/env && tar -xf {local}/env.tar -C {local}/env && {local}/env/relocate'
            {" ".join(each)} {local}/env/bin/python {program} {local}/env
            {" ".join(each)} sh -c 'PATH={local}/env/bin:$PATH tool'
            {" ".join(each)} rm -r {local}/env {local}/env.tar
        """)
    )
    done = cluster.run(["salloc", "-Q", "-N", "4", "bash", script], env={"PYTHONSAFEPATH": "1"}, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert sorted(lines[:4]) == [f"{node} 4 True True []" for node in cluster.nodes]
    assert lines[4:] == [f"{local}/env"] * 4  # scripts of the environment run too


def test_no_environment_is_a_message(tmp_path: Path) -> None:
    done = subprocess.run(
        [REPOSITORY / "modules/pack-environment.sh", tmp_path / "env.tar", tmp_path], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert f"no environment in {tmp_path}" in done.stderr
    assert os.listdir(tmp_path) == []
