# ruff: noqa: F403, F405 (Spack asks for the star)
from pathlib import Path

from spack.package import *
from spack_repo.builtin.build_systems.cuda import CudaPackage
from spack_repo.builtin.build_systems.python import PythonPackage


class PyScimlHpc(PythonPackage, CudaPackage):
    """Scientific machine-learning benchmarks for supercomputers, from the checkout that this file is in.

    spack repo add modules/spack/spack_repo/sciml
    spack install --deprecated py-sciml-hpc ^openmpi
    spack install --deprecated py-sciml-hpc +cuda cuda_arch=90 ^openmpi

    Spack calls Horovod deprecated for a flaw (CVE-2024-10190) of its elastic mode, which sciml_hpc does not use.
    """

    git = Path(__file__).parents[6].as_uri()

    version("main", branch="main")

    variant("report", default=True, description="Reports with pictures")

    depends_on("python@3.10:", type=("build", "run"))
    depends_on("py-setuptools@64:", type="build")
    depends_on("py-h5py@3.8:", type=("build", "run"))
    depends_on("py-mlperf-logging@4.1.68", type=("build", "run"))
    depends_on("py-mpi4py@3.1.4:", type=("build", "run"))
    depends_on("py-numpy@1.24:", type=("build", "run"))
    depends_on("py-nvidia-ml-py@12.535:", type=("build", "run"))
    depends_on("py-psutil@5.9:", type=("build", "run"))
    depends_on("py-pydantic@2.7:", type=("build", "run"))
    depends_on("py-pyyaml@6:", type=("build", "run"))
    depends_on("py-torch@2.2:", type=("build", "run"))
    with when("+report"):
        depends_on("py-jinja2@3.1:", type=("build", "run"))
        depends_on("py-matplotlib@3.7:", type=("build", "run"))

    depends_on("py-horovod@0.28.1 frameworks=pytorch controllers=mpi", type=("build", "run"))
    depends_on("py-horovod~cuda tensor_ops=mpi", when="~cuda", type=("build", "run"))
    depends_on("py-torch~cuda", when="~cuda", type=("build", "run"))
    for arch in CudaPackage.cuda_arch_values:
        with when(f"+cuda cuda_arch={arch}"):
            depends_on(f"py-horovod+cuda tensor_ops=nccl cuda_arch={arch}", type=("build", "run"))
            depends_on(f"py-torch+cuda cuda_arch={arch}", type=("build", "run"))
