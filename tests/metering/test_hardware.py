"""The description of a node against hand-made trees of /proc and /sys of machines that were not at hand."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import pytest
from fake_gpus import FakeNvml

from sciml_hpc.metering import hardware


def write(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")


def two_sockets(root, cores=4, cpuinfo="model name\t: AMD EPYC 7763 64-Core Processor"):
    """Two sockets of `cores` cores with two threads each, as Linux numbers them: second threads last."""
    cpus = 4 * cores
    write(root, {"proc/cpuinfo": cpuinfo, "sys/devices/system/cpu/online": f"0-{cpus - 1}"})
    for i in range(cpus):
        core = i % (2 * cores)
        write(
            root,
            {
                f"sys/devices/system/cpu/cpu{i}/topology/physical_package_id": str(core // cores),
                f"sys/devices/system/cpu/cpu{i}/topology/core_id": str(core % cores),
                f"sys/devices/system/cpu/cpu{i}/cpufreq/scaling_cur_freq": str(2_000_000 + 100_000 * i),
            },
        )
    for node in range(8):
        (root / f"sys/devices/system/node/node{node}").mkdir(parents=True)
    first = "sys/devices/system/cpu/cpu0"
    write(
        root,
        {
            f"{first}/cpufreq/cpuinfo_max_freq": "3529052",
            f"{first}/cpufreq/scaling_governor": "performance",
            f"{first}/cpufreq/scaling_driver": "acpi-cpufreq",
            "sys/devices/system/cpu/cpufreq/boost": "1",
            f"{first}/cache/index0/level": "1",
            f"{first}/cache/index0/type": "Data",
            f"{first}/cache/index0/size": "32K",
            f"{first}/cache/index3/level": "3",
            f"{first}/cache/index3/type": "Unified",
            f"{first}/cache/index3/size": "32768K",
        },
    )
    return root


def test_cpu_of_a_two_socket_node(tmp_path):
    assert hardware.cpu(two_sockets(tmp_path)) == {
        "model": "AMD EPYC 7763 64-Core Processor",
        "sockets": 2,
        "cores": 8,
        "threads": 16,
        "numa_nodes": 8,
        "caches": {"L1d": "32K", "L3": "32768K"},
        "max_frequency_Hz": 3529052e3,
        "governor": "performance",
        "frequency_driver": "acpi-cpufreq",
        "boost": "1",
    }


def test_cpu_model_of_power_and_nothing_known(tmp_path):
    assert hardware.cpu(two_sockets(tmp_path, cpuinfo="cpu\t\t: POWER9, altivec"))["model"] == "POWER9, altivec"
    empty = hardware.cpu(tmp_path / "nothing")
    assert {key: value for key, value in empty.items() if value} == {}


def test_frequencies_of_the_allowed_cpus_only(tmp_path):
    clocks = hardware.cpu_frequency_Hz([1, 3], two_sockets(tmp_path))
    assert clocks == pytest.approx({"min_Hz": 2.1e9, "mean_Hz": 2.2e9, "max_Hz": 2.3e9})
    write(tmp_path / "vm", {"proc/cpuinfo": "processor: 0\ncpu MHz: 2500.5\n\nprocessor: 1\ncpu MHz: 1000"})
    assert hardware.cpu_frequency_Hz([0], tmp_path / "vm")["mean_Hz"] == pytest.approx(2500.5e6)
    assert hardware.cpu_frequency_Hz([0], tmp_path / "none") is None


@pytest.mark.parametrize(
    ("cpus", "text"), [({0}, "0"), ({0, 1, 2, 3, 64, 65}, "0-3,64-65"), ({1, 3, 5}, "1,3,5"), ({7, 8}, "7-8")]
)
def test_affinity(cpus, text, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: cpus)
    assert hardware.affinity() == text


def test_tightest_cgroup_limit_counts(tmp_path):
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/system.slice/slurmstepd/job_7/step_0",
            "sys/fs/cgroup/system.slice/slurmstepd/job_7/memory.max": "4000000",
            "sys/fs/cgroup/system.slice/slurmstepd/job_7/step_0/memory.max": "max",
            "sys/fs/cgroup/system.slice/cpu.max": "1600000 100000",
            "sys/fs/cgroup/system.slice/slurmstepd/job_7/step_0/cpu.max": "400000 100000",
        },
    )
    assert hardware.limits(tmp_path) == {"cpus": 4.0, "memory_bytes": 4_000_000.0}
    old = tmp_path / "v1"
    write(
        old,
        {
            "proc/self/cgroup": "9:memory:/slurm/job_7\n3:cpu,cpuacct:/slurm/job_7\n2:freezer:/",
            "sys/fs/cgroup/memory/slurm/job_7/memory.limit_in_bytes": "5000000",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            "sys/fs/cgroup/cpu/slurm/job_7/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu/slurm/cpu.cfs_quota_us": "250000",
            "sys/fs/cgroup/cpu/slurm/cpu.cfs_period_us": "100000",
        },
    )
    assert hardware.limits(old) == {"cpus": 2.5, "memory_bytes": 5_000_000.0}
    assert hardware.limits(tmp_path / "none") == {"cpus": None, "memory_bytes": None}


def test_networks_of_an_infiniband_and_a_slingshot_node(tmp_path):
    write(
        tmp_path,
        {
            "sys/class/infiniband/mlx5_0/ports/1/rate": "200 Gb/sec (4X HDR)",
            "sys/class/infiniband/mlx5_0/ports/1/state": "4: ACTIVE",
            "sys/class/infiniband/mlx5_0/ports/1/link_layer": "InfiniBand",
            "sys/class/infiniband/mlx5_0/fw_ver": "20.31.1014",
            "sys/class/net/hsn0/speed": "200000",
            "sys/class/net/hsn0/operstate": "up",
            "sys/class/net/lo/operstate": "unknown",
            "sys/class/net/eth0/speed": "-1",
            "sys/class/net/eth0/operstate": "down",
        },
    )
    for card, driver in (("infiniband/mlx5_0", "mlx5_core"), ("net/hsn0", "cxi_ss1"), ("net/eth0", "igb")):
        (tmp_path / f"sys/drivers/{driver}").mkdir(parents=True)
        (tmp_path / f"sys/class/{card}/device").mkdir()
        (tmp_path / f"sys/class/{card}/device/driver").symlink_to(tmp_path / f"sys/drivers/{driver}")
    found = hardware.networks(tmp_path)
    assert [(n["name"], n["kind"], n["driver"], n["rate"], n["state"]) for n in found] == [
        ("mlx5_0/1", "InfiniBand", "mlx5_core", "200 Gb/sec (4X HDR)", "4: ACTIVE"),
        ("eth0", "Ethernet", "igb", None, "down"),
        ("hsn0", "Ethernet", "cxi_ss1", "200 Gb/sec", "up"),
    ]
    assert found[0]["firmware"] == "20.31.1014"


MOUNTS = """22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
40 27 0:50 / /scratch rw,noatime shared:3 - lustre 10.0.0.1@o2ib:10.0.0.2@o2ib:/scratch rw
41 40 0:51 / /scratch/project\\040x rw - gpfs /dev/fs1 rw
42 27 0:52 / /scratchy rw - tmpfs tmpfs rw
43 42 0:53 / /scratchy rw - xfs /dev/nvme0n1 rw"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/scratch/data/x", ("lustre", "10.0.0.1@o2ib:10.0.0.2@o2ib:/scratch", "/scratch")),
        ("/scratch", ("lustre", "10.0.0.1@o2ib:10.0.0.2@o2ib:/scratch", "/scratch")),
        ("/scratch/project x/run", ("gpfs", "/dev/fs1", "/scratch/project x")),
        ("/scratchy/a", ("xfs", "/dev/nvme0n1", "/scratchy")),  # mounted over the tmpfs
        ("/scratchier", ("ext4", "/dev/vda", "/")),
    ],
)
def test_mount_of(tmp_path, path, expected):
    write(tmp_path, {"proc/self/mountinfo": MOUNTS})
    assert hardware.mount_of(path, tmp_path) == hardware.Mount(*expected)


def test_file_system_here_agrees_with_stat(tmp_path):
    told = hardware.file_system(tmp_path)
    assert os.stat(told["mount_point"]).st_dev == os.stat(tmp_path).st_dev
    assert 0 < told["free_bytes"] <= told["size_bytes"]


def test_gpus_through_nvml():
    """What a driver refuses is None, not an error (NVML replayed, no GPU)."""
    nvml = FakeNvml({"uuid": "GPU-a", "mig": False}, {"uuid": "GPU-b", "mig": True})
    nvml.nvmlSystemGetDriverVersion = lambda: "550.54.15"
    nvml.nvmlDeviceGetEnforcedPowerLimit = lambda gpu: 700_000
    nvml.nvmlDeviceGetMaxClockInfo = lambda gpu, kind: {1: 1980, 2: 2619}[kind]
    nvml.nvmlDeviceGetNvLinkState = lambda gpu, link: int(link < 6)
    found, reason = hardware.gpus({}, nvml)
    assert reason is None
    assert [g["uuid"] for g in found] == ["GPU-a", "GPU-b"]
    assert [g["mig"] for g in found] == [False, True]
    assert found[0] | {"uuid": ""} == {
        "name": "NVIDIA H100 80GB HBM3",
        "uuid": "",
        "memory_bytes": None,
        "driver": "550.54.15",
        "power_limit_W": 700.0,
        "max_sm_clock_Hz": 1.98e9,
        "max_memory_clock_Hz": 2.619e9,
        "mig": False,
        "ecc": None,
        "pcie_generation": None,
        "pcie_width": None,
        "nvlinks": 6,
    }
    assert hardware.gpus({}, FakeNvml(driver_missing=True)) == ([], "NVML: ?")


def test_gpus_that_only_torch_knows(monkeypatch):
    """An AMD GPU as torch on ROCm shows it (a stand-in, no GPU)."""
    seen = SimpleNamespace(name="AMD Instinct MI250X", total_memory=64 << 30)
    cuda = SimpleNamespace(is_available=lambda: True, device_count=lambda: 1, get_device_properties=lambda i: seen)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    (gpu,), reason = hardware.gpus({}, FakeNvml(driver_missing=True))
    assert reason is None
    assert (gpu["name"], gpu["memory_bytes"], gpu["power_limit_W"]) == ("AMD Instinct MI250X", 64 << 30, None)
