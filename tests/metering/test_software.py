"""Operating system, container, job and commit, against environments and checkouts made by hand."""

from __future__ import annotations

import json
import platform
import subprocess
from importlib import metadata

import pytest

from sciml_hpc.metering import software


def test_operating_system(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text('NAME="SLES"\nPRETTY_NAME="SUSE Linux Enterprise Server 15 SP5"\n\n')
    told = software.operating_system(tmp_path)
    assert told["name"] == "SUSE Linux Enterprise Server 15 SP5"
    assert told["kernel"] == platform.uname().release
    assert software.operating_system(tmp_path / "none")["name"] is None


def test_containers(tmp_path):
    assert software.container({}, tmp_path) is None
    inside = {"APPTAINER_CONTAINER": "/project/images/sciml.sif"}
    assert software.container(inside, tmp_path) == {"runtime": "apptainer", "image": "sciml.sif"}
    (tmp_path / ".dockerenv").touch()
    assert software.container({}, tmp_path) == {"runtime": "docker", "image": None}
    (tmp_path / "run").mkdir()
    (tmp_path / "run/.containerenv").write_text('engine="podman-4.9"\nimage="localhost/sciml:1"\n')
    assert software.container({}, tmp_path) == {"runtime": "podman", "image": "localhost/sciml:1"}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (
            {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "64", "SLURM_NTASKS": "256", "SLURM_JWT": "secret"},
            {"scheduler": "Slurm", "job_id": "7", "job_num_nodes": "64", "ntasks": "256"},
        ),
        ({"PBS_JOBID": "7.pbs", "PBS_O_PATH": "x"}, {"scheduler": "PBS", "jobid": "7.pbs"}),
        ({"LSB_JOBID": "7", "LSB_DJOB_NUMPROC": "8"}, {"scheduler": "LSF", "jobid": "7", "djob_numproc": "8"}),
        ({"FLUX_JOB_ID": "f7", "FLUX_JOB_NNODES": "2"}, {"scheduler": "Flux", "job_id": "f7", "job_nnodes": "2"}),
        ({"HOME": "/root"}, {"scheduler": None}),
    ],
)
def test_job_geometry(environ, expected):
    assert software.job(environ) == expected


def test_only_listed_variables_are_taken():
    environ = {"NCCL_ALGO": "Ring", "AWS_SECRET_ACCESS_KEY": "x", "OMPI_MCA_orte_precondition_transports": "key"}
    assert software.settings(environ) == {"NCCL_ALGO": "Ring"}
    assert not [n for n in software.SETTINGS if any(w in n for w in ("KEY", "TOKEN", "SECRET", "PASS", "URI"))]


def test_versions_are_those_of_the_packages():
    import numpy

    found = software.versions("Open MPI v5.0.11, package: x\nmore\0")
    assert found["numpy"] == numpy.__version__
    assert found["python"] == platform.python_version()
    assert found["mpi"] == "Open MPI v5.0.11, package: x"
    import torch

    assert software.versions()["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert software.versions()["cuda"] == torch.version.cuda


def git(*words, at):
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    out = subprocess.run(["git", *identity, *words], cwd=at, capture_output=True, text=True, check=True)
    return out.stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    package = tmp_path / "sciml_hpc"
    package.mkdir()
    (package / "a.py").write_text("1\n")
    git("init", "-q", at=tmp_path)
    git("add", ".", at=tmp_path)
    git("commit", "-q", "-m", "x", at=tmp_path)
    return package


def test_commit_of_a_checkout_and_whether_the_package_was_changed(checkout):
    head = git("rev-parse", "HEAD", at=checkout)
    (checkout.parent / "notes.txt").write_text("outside the package\n")
    assert software.source_commit(checkout) == {"commit": head, "dirty": False, "how": "git checkout"}
    assert len(head) == 40
    (checkout / "a.py").write_text("2\n")
    assert software.source_commit(checkout)["dirty"] is True
    git("checkout", "-q", "a.py", at=checkout)
    (checkout / "new.py").write_text("3\n")
    assert software.source_commit(checkout)["dirty"] is True


def test_commit_of_an_installed_package(tmp_path, monkeypatch):
    package = tmp_path / "sciml_hpc"
    package.mkdir()

    class Installed:
        def read_text(self, name):
            return json.dumps({"url": "https://example.org/x.git", "vcs_info": {"vcs": "git", "commit_id": "ab" * 20}})

    monkeypatch.setattr(metadata, "distribution", lambda name: Installed())
    assert software.source_commit(package) == {"commit": "ab" * 20, "dirty": False, "how": "recorded by pip"}
    (package / "_commit").write_text("cd" * 20 + "\ndirty\n")
    assert software.source_commit(package) == {
        "commit": "cd" * 20,
        "dirty": True,
        "how": "recorded at installation",
    }


def test_unknown_commit_is_null(tmp_path, monkeypatch):
    def unknown(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", unknown)
    assert software.source_commit(tmp_path / "sciml_hpc")["commit"] is None
