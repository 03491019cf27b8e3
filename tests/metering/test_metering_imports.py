"""What the metering modules need: nothing heavy on import, and names that NVML's binding really has."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import sciml_hpc.metering

FOLDER = Path(sciml_hpc.metering.__file__).parent


def test_importing_all_of_it_loads_neither_torch_nor_mpi_nor_drivers():
    names = [path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__"]
    assert len(names) >= 12
    program = f"""
import importlib, sys
for name in {names}:
    importlib.import_module("sciml_hpc.metering." + name)
print(sorted({{"torch", "mpi4py", "horovod", "pynvml", "amdsmi", "h5py"}} & set(sys.modules)))
"""
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


@pytest.mark.parametrize("module", ["gpu_sensors", "hardware"])
def test_every_name_used_of_nvml_exists_in_its_binding(module):
    """No GPU was at hand; a mistyped function would otherwise be found on the first one."""
    pynvml = pytest.importorskip("pynvml")
    used = set(
        re.findall(r"\b(nvml(?!Return)[A-Z]\w+|NVML_(?!PERIOD)\w+|NVMLError)\b", (FOLDER / f"{module}.py").read_text())
    )
    assert len(used) > 5
    assert {name for name in used if not hasattr(pynvml, name)} == set()
    value = pynvml.c_nvmlFieldValue_t()
    assert (value.nvmlReturn, value.value.uiVal) == (0, 0)
    assert pynvml.NVMLError(pynvml.NVML_ERROR_NO_PERMISSION).value == pynvml.NVML_ERROR_NO_PERMISSION
