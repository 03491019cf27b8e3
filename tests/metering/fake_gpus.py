"""Stand-ins for NVML and AMD SMI that replay recorded traces behind the vendors' own function names.

No GPU was at hand: the traces are made by hand, so that the right answer is known exactly.
"""

from __future__ import annotations

from types import SimpleNamespace

NOT_SUPPORTED, NO_PERMISSION, NOT_FOUND = 3, 4, 12


class NVMLError(Exception):
    def __init__(self, value):
        self.value = value
        super().__init__({NOT_SUPPORTED: "Not Supported", NO_PERMISSION: "Insufficient Permissions"}.get(value, "?"))


class FakeNvml:
    """The part of pynvml that is used. A GPU is a dict: uuid, name, energy_mJ() and power_mW(), mig, denied, module."""

    NVMLError = NVMLError
    NVML_SUCCESS = 0
    NVML_ERROR_NOT_SUPPORTED, NVML_ERROR_NO_PERMISSION = NOT_SUPPORTED, NO_PERMISSION
    NVML_CLOCK_SM, NVML_CLOCK_MEM = 1, 2
    NVML_FI_DEV_POWER_INSTANT, NVML_POWER_SCOPE_GPU, NVML_POWER_SCOPE_MODULE = 186, 0, 1

    def __init__(self, *gpus, driver_missing=False):
        self.gpus, self.driver_missing, self.reads = gpus, driver_missing, 0

    def nvmlInit(self):
        if self.driver_missing:
            raise NVMLError(NOT_FOUND)

    def nvmlDeviceGetCount(self):
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index):
        if self.gpus[index].get("denied"):
            raise NVMLError(NO_PERMISSION)
        return self.gpus[index]

    def nvmlDeviceGetUUID(self, gpu):
        return gpu["uuid"]

    def nvmlDeviceGetName(self, gpu):
        return gpu.get("name", "NVIDIA H100 80GB HBM3")

    def nvmlDeviceGetMigMode(self, gpu):
        if "mig" not in gpu:
            raise NVMLError(NOT_SUPPORTED)
        return [int(gpu["mig"]), int(gpu["mig"])]

    def nvmlDeviceGetTotalEnergyConsumption(self, gpu):
        self.reads += 1
        if "energy_mJ" not in gpu:
            raise NVMLError(NOT_SUPPORTED)
        return gpu["energy_mJ"]()

    def nvmlDeviceGetPowerUsage(self, gpu):
        if gpu.get("power_denied"):
            raise NVMLError(NO_PERMISSION)
        return gpu["power_mW"]()

    def nvmlDeviceGetFieldValues(self, gpu, fields):
        ((field, scope),) = fields
        assert field == self.NVML_FI_DEV_POWER_INSTANT
        offered = {"gpu": 0, "module": 1}.get(gpu.get("instant"))
        if scope != offered:
            return [SimpleNamespace(nvmlReturn=NOT_SUPPORTED, value=SimpleNamespace(uiVal=0))]
        return [SimpleNamespace(nvmlReturn=0, value=SimpleNamespace(uiVal=gpu["power_mW"]()))]


class AmdSmiException(Exception):
    pass


class FakeAmdSmi:
    """The part of amdsmi that is used. A GPU is a dict: uuid, name, count(), watts() (or None)."""

    AmdSmiException = AmdSmiException

    def __init__(self, *gpus, counter="energy_accumulator"):
        self.gpus, self.key = gpus, counter

    def amdsmi_init(self):
        pass

    def amdsmi_get_processor_handles(self):
        return list(self.gpus)

    def amdsmi_get_gpu_device_uuid(self, gpu):
        return gpu["uuid"]

    def amdsmi_get_gpu_asic_info(self, gpu):
        return {"market_name": gpu.get("name", "AMD Instinct MI300X")}

    def amdsmi_get_energy_count(self, gpu):
        return {self.key: gpu["count"](), "counter_resolution": 15.3, "timestamp": 1}

    def amdsmi_get_power_info(self, gpu):
        watts = gpu["watts"]() if "watts" in gpu else "N/A"
        return {"current_socket_power": "N/A", "average_socket_power": watts}
