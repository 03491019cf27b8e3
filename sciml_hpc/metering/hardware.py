"""What this node is made of, as the kernel and the drivers tell it: CPUs, memory, GPUs, network cards, file systems.

Nothing is typed by hand and nothing is guessed: what cannot be told is None. `root` is the directory that holds `proc`
and `sys`, another one in tests.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from sciml_hpc.metering.gpu_sensors import nvml_visible, open_nvml
from sciml_hpc.metering.sensors import SensorError

ROOT = Path("/")


def cpu(root: Path = ROOT) -> dict[str, Any]:
    """Model, sockets, cores, hardware threads, NUMA nodes, caches, frequency limits and governor of the node's CPUs."""
    folder = root / "sys/devices/system/cpu"
    threads = [folder / f"cpu{i}" for i in _numbers(_read(folder / "online") or "")]
    places = [(_read(t / "topology/physical_package_id"), _read(t / "topology/core_id")) for t in threads]
    if not threads or None in places[0]:
        sockets = cores = None
    else:
        sockets, cores = len({socket for socket, _ in places}), len(set(places))
    first = folder / "cpu0"
    return {
        "model": _cpu_model(root),
        "sockets": sockets,
        "cores": cores,
        "threads": len(threads) or None,
        "numa_nodes": len(list((root / "sys/devices/system/node").glob("node[0-9]*"))) or None,
        "caches": _caches(first / "cache"),
        "max_frequency_Hz": _scaled(_read(first / "cpufreq/cpuinfo_max_freq"), 1000),
        "governor": _read(first / "cpufreq/scaling_governor"),
        "frequency_driver": _read(first / "cpufreq/scaling_driver"),
        "boost": _read(folder / "cpufreq/boost"),
    }


def cpu_frequency_Hz(cpus: Iterable[int], root: Path = ROOT) -> dict[str, float] | None:
    """Lowest, mean and highest clock right now of the given hardware threads; None where the kernel shows none.

    A snapshot: a governor moves the clocks within milliseconds.
    """
    wanted = set(cpus)
    folder = root / "sys/devices/system/cpu"
    clocks = [_scaled(_read(folder / f"cpu{i}/cpufreq/scaling_cur_freq"), 1000) for i in sorted(wanted)]
    found = [clock for clock in clocks if clock]
    if not found:
        blocks = (_read(root / "proc/cpuinfo") or "").split("\n\n")
        pairs = [(_field(block, "processor"), _field(block, "cpu MHz")) for block in blocks]
        found = [float(MHz) * 1e6 for number, MHz in pairs if number and MHz and int(number) in wanted]
    if not found:
        return None
    return {"min_Hz": min(found), "mean_Hz": sum(found) / len(found), "max_Hz": max(found)}


def affinity() -> str:
    """The hardware threads this process may run on, as "0-7,64-71"."""
    cpus = sorted(os.sched_getaffinity(0))
    starts = [c for c in cpus if c - 1 not in set(cpus)]
    ends = [c for c in cpus if c + 1 not in set(cpus)]
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))


def limits(root: Path = ROOT) -> dict[str, float | None]:
    """What control groups (a container's or a batch job's) leave this process: CPUs worth of time, bytes of memory.

    The tightest limit on the way up to the root, in both versions of control groups; None: no limit.
    """
    cpus: list[float] = []
    memory: list[float] = []
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, group = line.split(":", 2)
        for path in [group, *map(str, Path(group).parents)]:
            base = root / "sys/fs/cgroup"
            if not controllers:
                quota = (_read(base / path.strip("/") / "cpu.max") or "max").split()
                if quota[0] != "max":
                    cpus.append(int(quota[0]) / int(quota[1]))
                memory += _limit(_read(base / path.strip("/") / "memory.max"))
            elif "memory" in controllers.split(","):
                memory += _limit(_read(base / "memory" / path.strip("/") / "memory.limit_in_bytes"))
            elif "cpu" in controllers.split(","):
                folder = base / "cpu" / path.strip("/")
                microseconds = _read(folder / "cpu.cfs_quota_us")
                if microseconds and int(microseconds) > 0:
                    cpus.append(int(microseconds) / int(_read(folder / "cpu.cfs_period_us") or 100_000))
    total = psutil.virtual_memory().total
    return {
        "cpus": min(cpus, default=None),
        "memory_bytes": min((limit for limit in memory if limit < total), default=None),
    }


def gpus(environ: Mapping[str, str] = os.environ, nvml: Any = None) -> tuple[list[dict[str, Any]], str | None]:
    """The GPUs this process sees, and the reason if none can be described.

    NVIDIA's through NVML: name, UUID, memory, driver, power limit, highest clocks, MIG, ECC, PCIe link, active NVLinks.
    Others (AMD's) as far as torch knows them, once it is loaded: name, UUID, memory; the rest is None.
    """
    try:
        nvml = open_nvml(nvml)
        found = [_nvidia_gpu(nvml, uuid, gpu) for uuid, gpu in nvml_visible(nvml, environ).items()]
        reason = "no NVIDIA GPU is visible"
    except SensorError as error:
        found, reason = _torch_gpus(), str(error)
    return found, None if found else reason


def _nvidia_gpu(nvml: Any, uuid: str, gpu: Any) -> dict[str, Any]:
    def ask(function: str, *arguments: Any) -> Any:
        try:
            return getattr(nvml, function)(*arguments)
        except (nvml.NVMLError, AttributeError):
            return None

    memory, mig = ask("nvmlDeviceGetMemoryInfo", gpu), ask("nvmlDeviceGetMigMode", gpu)
    ecc = ask("nvmlDeviceGetEccMode", gpu)
    links = [ask("nvmlDeviceGetNvLinkState", gpu, link) for link in range(18)]
    return {
        "name": str(nvml.nvmlDeviceGetName(gpu)),
        "uuid": uuid,
        "memory_bytes": memory.total if memory else None,
        "driver": ask("nvmlSystemGetDriverVersion"),
        "power_limit_W": _scaled(ask("nvmlDeviceGetEnforcedPowerLimit", gpu), 1e-3),
        "max_sm_clock_Hz": _scaled(ask("nvmlDeviceGetMaxClockInfo", gpu, nvml.NVML_CLOCK_SM), 1e6),
        "max_memory_clock_Hz": _scaled(ask("nvmlDeviceGetMaxClockInfo", gpu, nvml.NVML_CLOCK_MEM), 1e6),
        "mig": bool(mig[0]) if mig else False,
        "ecc": bool(ecc[0]) if ecc else None,
        "pcie_generation": ask("nvmlDeviceGetMaxPcieLinkGeneration", gpu),
        "pcie_width": ask("nvmlDeviceGetMaxPcieLinkWidth", gpu),
        "nvlinks": sum(1 for state in links if state),
    }


def _torch_gpus() -> list[dict[str, Any]]:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    unknown = dict.fromkeys(("driver", "power_limit_W", "max_sm_clock_Hz", "max_memory_clock_Hz", "mig", "ecc"))
    unknown |= dict.fromkeys(("pcie_generation", "pcie_width", "nvlinks"))
    seen = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return [
        {"name": gpu.name, "uuid": str(getattr(gpu, "uuid", "")), "memory_bytes": gpu.total_memory, **unknown}
        for gpu in seen
    ]


def networks(root: Path = ROOT) -> list[dict[str, Any]]:
    """Network cards with a device behind them: name, driver, speed; and InfiniBand-like ports with their rate."""
    found: list[dict[str, Any]] = []
    for port in sorted((root / "sys/class/infiniband").glob("*/ports/*")):
        card = port.parent.parent
        found.append(
            {
                "name": f"{card.name}/{port.name}",
                "kind": _read(port / "link_layer"),
                "driver": _driver(card),
                "rate": _read(port / "rate"),
                "state": _read(port / "state"),
                "firmware": _read(card / "fw_ver"),
            }
        )
    for card in sorted((root / "sys/class/net").glob("*")):
        if not (card / "device").exists():
            continue  # lo, bridges, tunnels
        speed = _read(card / "speed")
        found.append(
            {
                "name": card.name,
                "kind": "Ethernet",
                "driver": _driver(card),
                "rate": f"{int(speed) / 1000:g} Gb/sec" if speed and int(speed) > 0 else None,
                "state": _read(card / "operstate"),
                "firmware": None,
            }
        )
    return found


@dataclass(frozen=True)
class Mount:
    """A mounted file system: type (ext4, lustre, gpfs, tmpfs …), what is mounted, and where."""

    type: str
    source: str
    mount_point: str


def mount_of(path: Path, root: Path = ROOT) -> Mount:
    """The mount that holds `path` (proc(5), /proc/pid/mountinfo): the last of the longest matching mount points."""
    real = os.path.realpath(path)
    best = Mount("unknown", "unknown", "")
    for line in (_read(root / "proc/self/mountinfo") or "").splitlines():
        mounted, _, described = line.partition(" - ")
        point = _unescape(mounted.split()[4])
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best.mount_point):
            kind, source = described.split()[:2]
            best = Mount(kind, _unescape(source), point)
    return best


def file_system(path: Path) -> dict[str, Any]:
    """Type, source and mount point of the file system that holds `path`, its size and what is free for this user."""
    mount = mount_of(path)
    status = os.statvfs(path)
    return {
        "type": mount.type,
        "source": mount.source,
        "mount_point": mount.mount_point,
        "size_bytes": status.f_blocks * status.f_frsize,
        "free_bytes": status.f_bavail * status.f_frsize,
    }


def _cpu_model(root: Path) -> str | None:
    text = _read(root / "proc/cpuinfo") or ""
    for name in ("model name", "cpu", "Model"):  # x86, POWER, some Arm
        if model := _field(text, name):
            return model
    if root == ROOT:  # other Arm: lscpu knows the names behind the implementers' numbers
        try:
            out = subprocess.run(["lscpu"], capture_output=True, text=True, timeout=10, check=True).stdout
        except (OSError, subprocess.SubprocessError):
            return None
        return _field(out, "Model name")
    return None


def _caches(folder: Path) -> dict[str, str]:
    """Size per cache level of one core, as {"L1d": "32K", "L1i": "32K", "L2": "1024K", "L3": "36608K"}."""
    found = {}
    for index in sorted(folder.glob("index*")):
        suffix = {"Data": "d", "Instruction": "i"}.get(_read(index / "type") or "", "")
        found[f"L{_read(index / 'level')}{suffix}"] = _read(index / "size") or "unknown"
    return found


def _driver(card: Path) -> str | None:
    link = card / "device" / "driver"
    return link.resolve().name if link.exists() else None


def _limit(text: str | None) -> list[float]:
    return [float(text)] if text and text.isdigit() else []


def _numbers(text: str) -> list[int]:
    """The numbers of a kernel list such as "0-3,8"."""
    pairs = [part.partition("-") for part in text.split(",") if part]
    return [i for low, _, high in pairs for i in range(int(low), int(high or low) + 1)]


def _field(text: str, name: str) -> str | None:
    match = re.search(rf"^{re.escape(name)}\s*:\s*(.+)$", text, re.MULTILINE)
    return match.group(1).strip() if match else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None  # absent, or a driver that refuses (speed of a card that is down)


def _scaled(value: str | float | None, factor: float) -> float | None:
    return None if value is None else float(value) * factor


def _unescape(text: str) -> str:
    return re.sub(r"\\(\d{3})", lambda m: chr(int(m.group(1), 8)), text)
