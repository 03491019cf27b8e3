"""What runs on this node: operating system, container, package versions, the job's geometry, the commit of the code.

Environment variables are taken from a list of names, never wholesale: an environment holds secrets.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from sciml_hpc.metering.hardware import ROOT

PACKAGE = Path(__file__).resolve().parents[1]
COMMIT_FILE = "_commit"
"""Written into the package when it is installed from a checkout: the commit, and "dirty" on a second line if it was."""

PACKAGES = (
    "torch",
    "numpy",
    "h5py",
    "mpi4py",
    "horovod",
    "psutil",
    "nvidia-ml-py",
    "pydantic",
    "pyyaml",
    "mlperf-logging",
)
JOB_VARIABLES = {
    "slurm": """JOB_ID JOB_PARTITION CLUSTER_NAME JOB_NUM_NODES NTASKS NTASKS_PER_NODE CPUS_PER_TASK THREADS_PER_CORE
        CPU_BIND DISTRIBUTION GPUS GPUS_PER_NODE GPUS_PER_TASK GPUS_ON_NODE GPU_BIND MEM_PER_NODE""",
    "pbs": "JOBID QUEUE NUM_NODES NUM_PPN NP",
    "lsb": "JOBID QUEUE DJOB_NUMPROC MAX_NUM_PROCESSORS BIND_CPU_LIST",
    "flux": "JOB_ID JOB_NNODES JOB_SIZE",
}
"""Per batch system what follows its prefix in the variables' names."""
SCHEDULERS = {"slurm": "Slurm", "pbs": "PBS", "lsb": "LSF", "flux": "Flux"}
SETTINGS = """
    OMP_NUM_THREADS OMP_PROC_BIND OMP_PLACES MKL_NUM_THREADS KMP_AFFINITY
    CUDA_VISIBLE_DEVICES CUDA_DEVICE_ORDER CUDA_DEVICE_MAX_CONNECTIONS ROCR_VISIBLE_DEVICES HIP_VISIBLE_DEVICES
    CUBLAS_WORKSPACE_CONFIG NVIDIA_TF32_OVERRIDE PYTORCH_CUDA_ALLOC_CONF
    NCCL_ALGO NCCL_PROTO NCCL_SOCKET_IFNAME NCCL_IB_HCA NCCL_IB_DISABLE NCCL_NET NCCL_NET_GDR_LEVEL NCCL_P2P_DISABLE
    NCCL_CROSS_NIC NCCL_MIN_NCHANNELS NCCL_MAX_NCHANNELS NCCL_NVLS_ENABLE
    HOROVOD_FUSION_THRESHOLD HOROVOD_CYCLE_TIME HOROVOD_CACHE_CAPACITY HOROVOD_HIERARCHICAL_ALLREDUCE
    HOROVOD_NUM_NCCL_STREAMS
    UCX_TLS UCX_NET_DEVICES FI_PROVIDER FI_CXI_RX_MATCH_MODE FI_CXI_DEFAULT_CQ_SIZE
    MPICH_GPU_SUPPORT_ENABLED MPICH_OFI_NIC_POLICY OMPI_MCA_btl OMPI_MCA_pml I_MPI_FABRICS
""".split()  # noqa: SIM905 (a list of 40 quoted names is harder to read)
"""Variables that change speed or placement."""


def operating_system(root: Path = ROOT) -> dict[str, str | None]:
    """Distribution, kernel, C library and architecture."""
    fields = {}
    for path in ("etc/os-release", "usr/lib/os-release"):
        if (root / path).exists():
            lines = (line.split("=", 1) for line in (root / path).read_text().splitlines() if "=" in line)
            fields = {key: value.strip('"') for key, value in lines}
            break
    return {
        "name": fields.get("PRETTY_NAME"),
        "kernel": platform.release(),
        "libc": " ".join(platform.libc_ver()) or None,
        "architecture": platform.machine(),
    }


def container(environ: Mapping[str, str] = os.environ, root: Path = ROOT) -> dict[str, str | None] | None:
    """The container this process runs in, as {"runtime", "image"}, or None outside one."""
    for variable, runtime in (("APPTAINER_CONTAINER", "apptainer"), ("SINGULARITY_CONTAINER", "singularity")):
        if environ.get(variable):
            return {"runtime": runtime, "image": Path(environ[variable]).name}
    if (root / "run/.containerenv").exists():
        lines = (line.split("=", 1) for line in (root / "run/.containerenv").read_text().splitlines() if "=" in line)
        return {"runtime": "podman", "image": dict(lines).get("image", "").strip('"') or None}
    if (root / ".dockerenv").exists():
        return {"runtime": "docker", "image": None}
    if environ.get("PYXIS_VERSION") or environ.get("ENROOT_ROOTFS"):
        return {"runtime": "enroot", "image": Path(environ.get("ENROOT_ROOTFS", "")).name or None}
    return None


def job(environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """The batch system and its geometry of this job, from the variables it sets; {"scheduler": None} without one."""
    for prefix, names in JOB_VARIABLES.items():
        found = {
            name.lower(): environ[f"{prefix.upper()}_{name}"]
            for name in names.split()
            if f"{prefix.upper()}_{name}" in environ
        }
        if found:
            return {"scheduler": SCHEDULERS[prefix], **found}
    return {"scheduler": None}


def settings(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The settings of `SETTINGS` that are set."""
    return {name: environ[name] for name in SETTINGS if name in environ}


def versions(mpi_library: str | None = None) -> dict[str, str | None]:
    """Versions of Python, the packages and the libraries under torch; None: not installed.

    Packages are looked up, not imported. CUDA, cuDNN and NCCL are torch's own and known only once torch is loaded.
    `mpi_library` is what MPI_Get_library_version says.
    """
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    found["mpi"] = mpi_library.strip().rstrip("\0").splitlines()[0] if mpi_library else None
    torch = sys.modules.get("torch")
    if torch is not None:
        found["cuda"], found["rocm"] = torch.version.cuda, torch.version.hip
        has_cudnn = torch.cuda.is_available() and torch.backends.cudnn.is_available()
        found["cudnn"] = str(torch.backends.cudnn.version()) if has_cudnn else None
        nccl = torch.cuda.nccl.version() if torch.cuda.is_available() and torch.distributed.is_nccl_available() else ()
        found["nccl"] = ".".join(map(str, nccl)) or None
    return found


def source_commit(package: Path = PACKAGE) -> dict[str, Any]:
    """The commit of the running code: {"commit": 40 hex digits or None, "dirty": bool or None, "how": where from}.

    A checkout is asked (git); an installed package carries what pip recorded (PEP 610, installed from a repository) or
    what was written when it was built (`_commit`). Starts git once: for rank 0, not for every node.
    """
    if (package.parent / ".git").exists():
        try:
            git = ["git", "-c", f"safe.directory={package.parent}", "-C", str(package.parent)]
            commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=30, check=True)
            changed = [*git, "status", "--porcelain", "--", package.name]
            status = subprocess.run(changed, capture_output=True, text=True, timeout=60, check=True)
            return {"commit": commit.stdout.strip(), "dirty": bool(status.stdout.strip()), "how": "git checkout"}
        except (OSError, subprocess.SubprocessError) as error:
            return {"commit": None, "dirty": None, "how": f"git failed: {type(error).__name__}"}
    if (package / COMMIT_FILE).exists():
        lines = (package / COMMIT_FILE).read_text().split()
        return {"commit": lines[0], "dirty": lines[1:] == ["dirty"], "how": "recorded at installation"}
    try:
        recorded = metadata.distribution(package.name.replace("_", "-")).read_text("direct_url.json")
        commit_id = json.loads(recorded or "{}").get("vcs_info", {}).get("commit_id")
    except metadata.PackageNotFoundError:
        commit_id = None
    if commit_id:
        return {"commit": commit_id, "dirty": False, "how": "recorded by pip"}
    return {"commit": None, "dirty": None, "how": "no checkout, and nothing recorded at installation"}
