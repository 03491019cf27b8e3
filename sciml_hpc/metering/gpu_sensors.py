"""Energy counters of GPUs: NVIDIA's through NVML, AMD's through AMD SMI, per distinct device of this job.

Which devices belong to a rank is what the CUDA or HIP runtime would show it. Several ranks of a node may see the same
device, or (where the batch system confines each task) only their own: `owners` gives every device one metering rank.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from sciml_hpc.metering.sensors import Sensor, SensorError, SensorInfo

NVML_PERIOD_S = 0.1
"""Update period of power and energy on A100 and H100 (V100: 0.02 s): Yang, Adamek, Armour, arXiv 2312.02741."""

NVIDIA_DRIVER = Path("/dev/nvidiactl")
"""Through it NVML reaches the driver. Where it is missing, a library that answers as NVML answers from elsewhere."""


def owners(seen: Sequence[Collection[str]]) -> list[list[str]]:
    """Which of the devices each local rank meters: every device once, by the lowest local rank that can see it.

    `seen[r]` are the ids local rank r can read. Local rank 0 gets all where nothing confines the ranks.
    """
    taken: set[str] = set()
    shares = []
    for ids in seen:
        share = sorted(set(ids) - taken)
        taken.update(share)
        shares.append(share)
    return shares


def open_nvml(nvml: Any = None) -> Any:
    """NVML's Python binding, initialised. `nvml` replaces it in tests. Raises SensorError where there is none."""
    if nvml is None:
        try:
            nvml = importlib.import_module("pynvml")
        except ImportError:
            raise SensorError("NVML: the package nvidia-ml-py is not installed") from None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        raise SensorError(f"NVML: {error}") from None
    return nvml


def nvml_visible(nvml: Any, environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """UUID → NVML handle of the GPUs CUDA shows this process, in the order of CUDA's ordinals.

    CUDA_VISIBLE_DEVICES (CUDA C++ Programming Guide, "CUDA environment variables"): ordinals or UUIDs, which may be
    shortened; the list ends at the first entry that names nothing; a device named twice is an error there and one
    device here. Raises SensorError for a MIG instance, and where an ordinal is ambiguous to NVML because the GPUs
    differ and CUDA_DEVICE_ORDER is not PCI_BUS_ID. GPUs the batch system's device cgroup withholds do not count.
    """
    handles = []
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            handles.append(nvml.nvmlDeviceGetHandleByIndex(index))
        except nvml.NVMLError as error:
            if error.value != nvml.NVML_ERROR_NO_PERMISSION:
                raise
    uuids = [str(nvml.nvmlDeviceGetUUID(handle)) for handle in handles]
    wanted = environ.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return dict(zip(uuids, handles, strict=True))
    entries = [part.strip() for part in wanted.split(",")]
    if any(map(str.isdigit, entries)) and environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        names = sorted({str(nvml.nvmlDeviceGetName(handle)) for handle in handles})
        if len(names) > 1:
            raise SensorError(
                f"GPUs of this node differ ({', '.join(names)}) and CUDA orders them by speed: "
                "set CUDA_DEVICE_ORDER=PCI_BUS_ID"
            )
    visible = {}
    for entry in entries:
        if entry.startswith("MIG-"):
            raise SensorError(f"{entry} is a MIG instance: energy is counted for the whole GPU only")
        if entry.isdigit():
            matches = [int(entry)] if int(entry) < len(uuids) else []
        else:
            matches = [i for i, uuid in enumerate(uuids) if entry and uuid.startswith(entry)]
        if len(matches) != 1:
            break
        visible[uuids[matches[0]]] = handles[matches[0]]
    return visible


class NvmlSensor(Sensor):
    """One NVIDIA GPU: millijoules since the driver was loaded (Volta and newer), and its power reading.

    Power is the instantaneous reading where the driver has it (field POWER_INSTANT), else nvmlDeviceGetPowerUsage, an
    average over 1 s from Ampere on (but GA100). On Grace Hopper some drivers give power for the whole module only,
    which `power_scope` says; the counter is the GPU's.
    """

    def __init__(self, handle: Any, uuid: str, nvml: Any, measured: bool) -> None:
        self.provenance = "measured" if measured else "recorded trace"
        self._nvml, self._handle = nvml, handle
        if self._mig():
            raise SensorError(f"{uuid}: MIG is enabled, energy is counted for the whole GPU only")
        counter_absent = self._why_not(lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle))
        power_scope, power_absent = self._choose_power()
        self.info = SensorInfo(
            kind="gpu",
            id=uuid,
            name=str(nvml.nvmlDeviceGetName(handle)),
            source="NVML",
            scope="gpu",
            period_s=NVML_PERIOD_S,
            unit_J=1e-3,
            power_scope=power_scope,
            counter_absent=counter_absent,
            power_absent=power_absent,
        )

    def counter(self) -> int | None:
        if self.info.counter_absent:
            return None
        try:
            return int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))
        except self._nvml.NVMLError as error:
            raise SensorError(f"NVML: {error}") from None

    def power_W(self) -> float | None:
        if self.info.power_absent:
            return None
        try:
            return self._read_power()
        except self._nvml.NVMLError as error:
            raise SensorError(f"NVML: {error}") from None

    def _mig(self) -> bool:
        try:
            return self._nvml.nvmlDeviceGetMigMode(self._handle)[0] == 1
        except self._nvml.NVMLError:
            return False  # a GPU that has no MIG

    def _choose_power(self) -> tuple[str, str | None]:
        """The scope of the best power reading this GPU has, or why it has none; sets `_read_power`."""
        nvml = self._nvml
        self._read_power = lambda: self._field(nvml.NVML_POWER_SCOPE_GPU)
        if self._why_not(self._read_power) is None:
            return "gpu", None
        self._read_power = lambda: self._field(nvml.NVML_POWER_SCOPE_MODULE)
        if self._why_not(self._read_power) is None:
            return "module", None
        self._read_power = lambda: nvml.nvmlDeviceGetPowerUsage(self._handle) * 1e-3
        return "gpu", self._why_not(self._read_power)

    def _field(self, scope: int) -> float:
        value = self._nvml.nvmlDeviceGetFieldValues(self._handle, [(self._nvml.NVML_FI_DEV_POWER_INSTANT, scope)])[0]
        if value.nvmlReturn != self._nvml.NVML_SUCCESS or value.value.uiVal == 0:
            raise self._nvml.NVMLError(value.nvmlReturn or self._nvml.NVML_ERROR_NOT_SUPPORTED)
        return value.value.uiVal * 1e-3

    def _why_not(self, read: Any) -> str | None:
        try:
            read()
        except self._nvml.NVMLError as error:
            return f"NVML: {error}"
        return None


def nvml_sensors(
    uuids: Collection[str] | None = None, environ: Mapping[str, str] = os.environ, nvml: Any = None
) -> list[Sensor]:
    """Sensors of the GPUs `uuids`, by default of all that this process's CUDA sees.

    Raises SensorError with the reason if there is no NVML, no such GPU, or one of them cannot be metered: energy of
    some of a job's GPUs is no figure of the job.
    """
    measured = nvml is None and NVIDIA_DRIVER.exists()
    nvml = open_nvml(nvml)
    try:
        visible = nvml_visible(nvml, environ)
        missing = sorted(set(uuids or ()) - set(visible))
        if missing:
            raise SensorError(f"GPUs not visible to the metering rank: {', '.join(missing)}")
        chosen = visible if uuids is None else {uuid: visible[uuid] for uuid in sorted(set(uuids))}
        if not chosen:
            raise SensorError("no NVIDIA GPU is visible to this job")
        return [NvmlSensor(handle, uuid, nvml, measured) for uuid, handle in chosen.items()]
    except nvml.NVMLError as error:
        raise SensorError(f"NVML: {error}") from None


class AmdSensor(Sensor):
    """One AMD GPU through AMD SMI: an accumulator in units of about 15.3 µJ, and the socket's power.

    AMD SMI Python API reference, amdsmi_get_energy_count and amdsmi_get_power_info. On MI250 and MI250X the first die
    reports for both dies of its card; the second die's accumulator stays 0 and it has no sensor of its own.
    """

    def __init__(self, handle: Any, uuid: str, smi: Any, measured: bool) -> None:
        self.provenance = "measured" if measured else "recorded trace"
        self._smi, self._handle = smi, handle
        try:
            self.info = SensorInfo(
                kind="gpu",
                id=uuid,
                name=str(smi.amdsmi_get_gpu_asic_info(handle).get("market_name", "AMD GPU")),
                source="AMD SMI",
                scope="card",
                period_s=1e-2,
                unit_J=float(smi.amdsmi_get_energy_count(handle)["counter_resolution"]) * 1e-6,
                power_scope="card",
                power_absent=None if self._socket_power() is not None else "AMD SMI gives no socket power",
            )
        except smi.AmdSmiException as error:
            raise SensorError(f"AMD SMI, {uuid}: {error}") from None

    def counter(self) -> int | None:
        try:
            count = self._smi.amdsmi_get_energy_count(self._handle)
        except self._smi.AmdSmiException as error:
            raise SensorError(f"AMD SMI: {error}") from None
        return int(count.get("energy_accumulator", count.get("power")))  # named "power" before ROCm 6.4

    def power_W(self) -> float | None:
        try:
            return self._socket_power()
        except self._smi.AmdSmiException as error:
            raise SensorError(f"AMD SMI: {error}") from None

    def _socket_power(self) -> float | None:
        info = self._smi.amdsmi_get_power_info(self._handle)
        for key in ("current_socket_power", "average_socket_power"):
            if isinstance(info.get(key), int | float) and 0 < info[key] < 0xFFFF:
                return float(info[key])
        return None


def amd_visible(smi: Any, environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """UUID → AMD SMI handle of the GPUs HIP shows this process (ROCR_VISIBLE_DEVICES, then HIP_VISIBLE_DEVICES)."""
    visible = [(str(smi.amdsmi_get_gpu_device_uuid(handle)), handle) for handle in smi.amdsmi_get_processor_handles()]
    for name in ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
        wanted = environ.get(name, environ.get("CUDA_VISIBLE_DEVICES") if name.startswith("HIP") else None)
        if wanted is None:
            continue
        chosen = []
        for entry in (part.strip() for part in wanted.split(",")):
            if entry.isdigit():
                chosen += visible[int(entry) : int(entry) + 1]
            else:
                chosen += [pair for pair in visible if entry and entry.removeprefix("GPU-") in pair[0]]
        visible = chosen
    return dict(visible)


def amd_sensors(
    uuids: Collection[str] | None = None, environ: Mapping[str, str] = os.environ, smi: Any = None
) -> list[Sensor]:
    """Sensors of the AMD GPUs `uuids`, by default of all that this process's HIP sees; as `nvml_sensors`."""
    measured = smi is None
    if smi is None:
        try:
            smi = importlib.import_module("amdsmi")
        except (ImportError, OSError, KeyError) as error:  # its wrapper loads the library and reads ROCM_PATH on import
            raise SensorError(f"AMD SMI is not installed ({type(error).__name__})") from None
    try:
        smi.amdsmi_init()
        visible = amd_visible(smi, environ)
        missing = sorted(set(uuids or ()) - set(visible))
        if missing:
            raise SensorError(f"GPUs not visible to the metering rank: {', '.join(missing)}")
        chosen = visible if uuids is None else {uuid: visible[uuid] for uuid in sorted(set(uuids))}
        sensors = [AmdSensor(handle, uuid, smi, measured) for uuid, handle in chosen.items()]
    except smi.AmdSmiException as error:
        raise SensorError(f"AMD SMI: {error}") from None
    sensors = [s for s in sensors if s.counter() or "MI250" not in s.info.name]
    if not sensors:
        raise SensorError("no AMD GPU that counts energy is visible to this job")
    return list(sensors)
