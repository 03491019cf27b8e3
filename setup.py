"""Installs sciml_hpc; `pip install .` is all that a centre with its own MPI, torch and Horovod needs.

Horovod is not among the requirements: its release does not compile against today's torch as it is, so an installation
that started to build it would fail. modules/install-stack.sh builds it; whoever has it already needs nothing more.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent


class BuildWithDatasets(build_py):
    """Puts datasets.yaml, which lies beside the package in a checkout, inside the package that is built."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            shutil.copyfile(HERE / "datasets.yaml", Path(self.build_lib, "sciml_hpc", "datasets.yaml"))


setup(
    name="sciml_hpc",
    version=re.search(r'__version__ = "(.+)"', (HERE / "sciml_hpc/__init__.py").read_text())[1],
    description="Scientific machine-learning benchmarks for supercomputers",
    packages=find_packages(include=["sciml_hpc", "sciml_hpc.*"]),
    package_data={"": [f"**/*.{kind}" for kind in ("yaml", "txt", "csv", "npz", "html", "css", "js", "j2", "svg")]},
    cmdclass={"build_py": BuildWithDatasets},
    python_requires=">=3.10",
    install_requires=[
        "h5py>=3.8",
        "mlperf-logging==4.1.68",  # its rules decide whether a log complies, so the version is part of the result
        "mpi4py>=3.1.4",
        "numpy>=1.24",
        "nvidia-ml-py>=12.535",
        "psutil>=5.9",
        "pydantic>=2.7",
        "pyyaml>=6.0",
        "torch>=2.2",
    ],
    extras_require={
        "bench": ["tensorflow-cpu>=2.16", "webdataset>=0.2.100"],
        "horovod": ["horovod>=0.28.1"],
        # What tests compare with; without it they are skipped. And, for its data alone: pip install --no-deps pycsep
        "peers": ["gemmi", "pillow", "reframe-hpc>=4.6", "sasmodels>=1.0.9", "scikit-image", "spglib>=2.1", "tables"],
        "report": ["jinja2>=3.1", "matplotlib>=3.7"],
        "test": [
            "junitparser>=3.1",
            "pytest>=8.0",
            "pytest-mpi>=0.6",
            "pytest-timeout>=2.2",
            "ruff>=0.5",
            "scikit-learn>=1.3",
            "scipy>=1.10",
        ],
    },
)
