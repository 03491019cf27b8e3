"""Which GPUs are counted, once each, and what is said of those that cannot be (NVML and AMD SMI replayed, no GPU)."""

from __future__ import annotations

import sys

import pytest
from fake_gpus import FakeAmdSmi, FakeNvml

from sciml_hpc.metering.gpu_sensors import amd_sensors, nvml_sensors, owners
from sciml_hpc.metering.sensors import SensorError


def gpu(letter, **more):
    uuid = f"GPU-{letter * 8}-0000-0000-0000-000000000000"
    return {"uuid": uuid, "energy_mJ": lambda: 5000, "power_mW": lambda: 300_000, **more}


A, B, C, D = (gpu(letter)["uuid"] for letter in "abcd")
FOUR = [gpu(letter) for letter in "abcd"]


def ids(sensors):
    return [s.info.id for s in sensors]


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, [A, B, C, D]),
        ("0,1,2,3", [A, B, C, D]),
        ("2,0", [C, A]),
        (f"{B},{D}", [B, D]),
        ("GPU-bbbb", [B]),
        ("1,1,GPU-bb", [B]),  # the same device named three times
        ("0,-1,2", [A]),  # CUDA ends the list at the first invalid entry
        ("0,9,2", [A]),
    ],
)
def test_cuda_visible_devices(visible, expected):
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert ids(nvml_sensors(environ=environ, nvml=FakeNvml(*FOUR))) == expected


@pytest.mark.parametrize("visible", ["", "-1", "NoDevFiles"])
def test_no_visible_gpu_is_said(visible):
    with pytest.raises(SensorError, match="no NVIDIA GPU is visible"):
        nvml_sensors(environ={"CUDA_VISIBLE_DEVICES": visible}, nvml=FakeNvml(*FOUR))


def test_four_ranks_that_see_four_gpus_meter_each_once():
    shares = owners([[A, B, C, D]] * 4)
    assert shares == [[A, B, C, D], [], [], []]


def test_confined_ranks_meter_their_own_and_shared_gpus_once():
    assert owners([[A], [B], [A, B], [D]]) == [[A], [B], [], [D]]
    assert owners([]) == []


def test_only_asked_for_uuids_and_duplicates_once():
    assert ids(nvml_sensors([D, B, D], {}, FakeNvml(*FOUR))) == [B, D]
    with pytest.raises(SensorError, match=f"not visible to the metering rank: {D}"):
        nvml_sensors([A, D], {"CUDA_VISIBLE_DEVICES": "0,1"}, FakeNvml(*FOUR))


def test_gpus_withheld_by_the_device_cgroup_do_not_shift_into_the_count():
    gpus = [gpu("a", denied=True), gpu("b"), gpu("c")]
    assert ids(nvml_sensors(environ={"CUDA_VISIBLE_DEVICES": "0"}, nvml=FakeNvml(*gpus))) == [B]


def test_mig_is_refused_with_the_reason():
    with pytest.raises(SensorError, match="MIG is enabled"):
        nvml_sensors(environ={}, nvml=FakeNvml(gpu("a", mig=False), gpu("b", mig=True)))
    with pytest.raises(SensorError, match="MIG-4f2 is a MIG instance"):
        nvml_sensors(environ={"CUDA_VISIBLE_DEVICES": "MIG-4f2"}, nvml=FakeNvml(*FOUR))


def test_mixed_gpus_need_the_pci_order():
    mixed = FakeNvml(gpu("a", name="NVIDIA A100-SXM4-40GB"), gpu("b"))
    with pytest.raises(SensorError, match="CUDA_DEVICE_ORDER=PCI_BUS_ID"):
        nvml_sensors(environ={"CUDA_VISIBLE_DEVICES": "0"}, nvml=mixed)
    environ = {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert ids(nvml_sensors(environ=environ, nvml=mixed)) == [B]


def test_no_driver():
    with pytest.raises(SensorError, match="NVML"):
        nvml_sensors(environ={}, nvml=FakeNvml(driver_missing=True))


def test_counter_and_power_in_their_units():
    (sensor,) = nvml_sensors(environ={}, nvml=FakeNvml(gpu("a", instant="gpu")))
    assert sensor.counter() * sensor.info.unit_J == pytest.approx(5.0)
    assert sensor.power_W() == pytest.approx(300.0)
    assert sensor.info.scope == sensor.info.power_scope == "gpu"


def test_grace_hopper_power_of_the_module_is_recorded_as_such():
    (sensor,) = nvml_sensors(environ={}, nvml=FakeNvml(gpu("a", instant="module")))
    assert (sensor.info.scope, sensor.info.power_scope) == ("gpu", "module")


def test_old_gpu_without_counter_and_power_without_permission():
    old = gpu("a")
    del old["energy_mJ"]
    (sensor,) = nvml_sensors(environ={}, nvml=FakeNvml(old))
    assert sensor.counter() is None
    assert sensor.info.counter_absent == "NVML: Not Supported"
    (sensor,) = nvml_sensors(environ={}, nvml=FakeNvml(gpu("a", power_denied=True)))
    assert sensor.power_W() is None
    assert sensor.info.power_absent == "NVML: Insufficient Permissions"
    assert sensor.counter() == 5000


def test_a_library_given_in_is_never_measured():
    assert {s.provenance for s in nvml_sensors(environ={}, nvml=FakeNvml(*FOUR))} == {"recorded trace"}
    smi = FakeAmdSmi({"uuid": "x", "count": lambda: 1})
    assert {s.provenance for s in amd_sensors(environ={}, smi=smi)} == {"recorded trace"}


def amd(letter, **more):
    return {"uuid": f"{letter * 4}74a1-0000", "count": lambda: 2_000_000, "watts": lambda: 410, **more}


@pytest.mark.parametrize("counter", ["energy_accumulator", "power"])  # renamed in ROCm 6.4
def test_amd_accumulator_and_power(counter):
    (sensor,) = amd_sensors(environ={}, smi=FakeAmdSmi(amd("a"), counter=counter))
    assert sensor.counter() * sensor.info.unit_J == pytest.approx(2_000_000 * 15.3e-6)
    assert sensor.power_W() == 410.0


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "abcd"),
        ({"ROCR_VISIBLE_DEVICES": "1,3"}, "bd"),
        ({"ROCR_VISIBLE_DEVICES": "1,3", "HIP_VISIBLE_DEVICES": "1"}, "d"),
        ({"ROCR_VISIBLE_DEVICES": "GPU-cccc74a1"}, "c"),
        ({"CUDA_VISIBLE_DEVICES": "2,2"}, "c"),
    ],
)
def test_rocr_selects_first_and_hip_among_those(environ, expected):
    smi = FakeAmdSmi(*(amd(letter) for letter in "abcd"))
    assert [i[0] for i in ids(amd_sensors(environ=environ, smi=smi))] == list(expected)


def test_second_die_of_a_mi250x_is_not_counted_again():
    first = amd("a", name="AMD Instinct MI250X")
    second = {"uuid": "bbbb", "count": lambda: 0, "name": "AMD Instinct MI250X"}
    assert ids(amd_sensors(environ={}, smi=FakeAmdSmi(first, second))) == [first["uuid"]]


def test_amd_smi_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "amdsmi", None)
    with pytest.raises(SensorError, match="AMD SMI is not installed"):
        amd_sensors(environ={})
