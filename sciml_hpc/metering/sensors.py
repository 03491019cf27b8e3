"""Sensors of energy and power behind one interface: counters of the CPU (RAPL), of a Cray node, and a recorded trace.

Sensors of GPUs are in `gpu_sensors`. A sensor is a thin reader; wrap-around, integration and checks are the meter's
(`energy`). What a sensor says is `measured` only if it read the hardware's own interface at its own place: a sensor
given another directory, another library or a list of numbers is a `recorded trace`, and everything computed from it
stays one.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Provenance = Literal["measured", "recorded trace"]
Kind = Literal["gpu", "cpu", "dram", "node"]
"""What a sensor covers. A node's figure contains the others, so kinds are never added to each other."""


class SensorError(Exception):
    """A sensor cannot be used or read; the message is the reason that goes into the record."""


@dataclass(frozen=True)
class SensorInfo:
    """What a sensor measures and how its counter counts."""

    kind: Kind
    id: str
    """What tells this device from all others of the node: a GPU's UUID, a RAPL domain, a counter's file."""
    name: str
    source: str
    """The interface read: NVML, AMD SMI, RAPL, Cray pm_counters, or of whatever a trace was recorded."""
    scope: str
    """What the counter covers, in the words of the interface."""
    period_s: float
    """How often the hardware updates what is read."""
    unit_J: float
    """Joules per count."""
    wrap_counts: int | None = None
    """Counts after which the counter starts again at 0; None: not within a run."""
    power_scope: str = ""
    """What the power reading covers; where it differs from `scope`, the two cannot check each other."""
    counter_absent: str | None = None
    """Why there is no energy counter, where there is none."""
    power_absent: str | None = None
    """Why there is no power reading independent of the counter, where there is none."""


class Sensor(ABC):
    """One device's energy counter and, where the hardware has one, its independent power reading."""

    info: SensorInfo
    provenance: Provenance = "recorded trace"
    """A subclass sets "measured" on the instance where it reads the hardware's own interface."""

    @abstractmethod
    def counter(self) -> int | None:
        """The energy counter in counts of `info.unit_J`, as it stands; None without one. Raises SensorError."""

    @abstractmethod
    def power_W(self) -> float | None:
        """The power reading; None without one. Raises SensorError."""


class TraceSensor(Sensor):
    """A recording replayed: at any time of `clock` it shows its last entry, as hardware does."""

    def __init__(
        self,
        info: SensorInfo,
        times_s: Sequence[float],
        counts: Sequence[int] | None = None,
        watts: Sequence[float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.info, self._times, self._counts, self._watts, self._clock = info, times_s, counts, watts, clock

    def counter(self) -> int | None:
        return None if self._counts is None else self._counts[self._now()]

    def power_W(self) -> float | None:
        return None if self._watts is None else self._watts[self._now()]

    def _now(self) -> int:
        return max(0, bisect_right(self._times, self._clock()) - 1)


class SysfsNumber:
    """The first number of a one-line file of sysfs, read again on each call (about 2 µs)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise SensorError(f"{path}: {error.strerror}") from None

    def __call__(self) -> int:
        try:
            return int(os.pread(self._descriptor, 128, 0).split(None, 1)[0])
        except (OSError, ValueError, IndexError) as error:
            raise SensorError(f"{self.path}: {getattr(error, 'strerror', None) or 'not a number'}") from None

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


RAPL_ROOT = Path("/sys/class/powercap")


class RaplSensor(Sensor):
    """One RAPL domain of a CPU: microjoules since some start, wrapping within minutes to hours.

    Intel SDM volume 3B, section "RAPL interfaces"; Linux Documentation/power/powercap. The registers are updated about
    every millisecond. RAPL has no power reading beside the counter.
    """

    def __init__(self, kind: Kind, name: str, zone: Path, root: Path = RAPL_ROOT) -> None:
        self.provenance = "measured" if root == RAPL_ROOT else "recorded trace"
        self._energy = SysfsNumber(zone / "energy_uj")
        self.info = SensorInfo(
            kind=kind,
            id=name,
            name=name,
            source="RAPL",
            scope="CPU package" if kind == "cpu" else "memory of one CPU package",
            period_s=1e-3,
            unit_J=1e-6,
            wrap_counts=SysfsNumber(zone / "max_energy_range_uj")(),
            power_absent="RAPL has a counter only",
        )

    def counter(self) -> int | None:
        return self._energy()

    def power_W(self) -> float | None:
        return None


def rapl_sensors(root: Path = RAPL_ROOT) -> list[Sensor]:
    """The packages and their memory. Raises SensorError with the reason if there are none or they may not be read.

    Cores and uncore are inside the package, `psys` contains it, and `intel-rapl-mmio` shows the same package twice:
    none of them is taken. The counters are readable by root only unless the site allows it (since Linux 5.10,
    CVE-2020-8694).
    """
    found: dict[str, Sensor] = {}
    for zone in sorted(root.glob("intel-rapl:*")):
        parent, _, child = zone.name.removeprefix("intel-rapl:").partition(":")
        name = _text(zone / "name")
        if not child and name.startswith("package"):
            found.setdefault(name, RaplSensor("cpu", name, zone, root))
        elif child and name == "dram":
            package = _text(root / f"intel-rapl:{parent}" / "name")
            found.setdefault(f"{package}/dram", RaplSensor("dram", f"{package}/dram", zone, root))
    if not found:
        raise SensorError(f"no RAPL package under {root}")
    return list(found.values())


CRAY_ROOT = Path("/sys/cray/pm_counters")
CRAY_KINDS: dict[str, Kind] = {"": "node", "cpu_": "cpu", "memory_": "dram"}


class CraySensor(Sensor):
    """One of the node controller's counters on Cray EX and XC: joules and watts, refreshed together (10 Hz by default).

    S. Martin and M. Kappel, "Cray XC30 Power Monitoring and Management", Cray User Group 2014; HPE CSM, "User Access to
    Compute Node Power Data". `freshness` changes with each refresh, so a value read between two equal readings of it is
    whole; `startup` changes when the controller restarts, which sets the counters to 0.
    """

    def __init__(self, prefix: str, kind: Kind, root: Path = CRAY_ROOT) -> None:
        self.provenance = "measured" if root == CRAY_ROOT else "recorded trace"
        self._energy = SysfsNumber(root / f"{prefix}energy")
        self._power = SysfsNumber(root / f"{prefix}power")
        self._freshness = SysfsNumber(root / "freshness")
        self._startup = SysfsNumber(root / "startup")
        self._started = self._startup()
        name = f"{prefix}energy"
        scope = {"node": "node with everything on it", "cpu": "CPUs", "dram": "memory"}.get(kind, "accelerator card")
        rate_Hz = SysfsNumber(root / "raw_scan_hz")() if (root / "raw_scan_hz").exists() else 10
        self.info = SensorInfo(kind, name, name, "Cray pm_counters", scope, 1 / max(1, rate_Hz), 1.0, power_scope=scope)

    def counter(self) -> int | None:
        if self._startup() != self._started:
            raise SensorError("the node controller restarted and its counters with it")
        return self._whole(self._energy)

    def power_W(self) -> float | None:
        return float(self._whole(self._power))

    def _whole(self, number: SysfsNumber) -> int:
        for _ in range(10):
            before = self._freshness()
            value = number()
            if self._freshness() == before:
                return value
        raise SensorError(f"{number.path}: refreshed during each of 10 readings")


def cray_sensors(root: Path = CRAY_ROOT) -> list[Sensor]:
    """Node, CPU, memory and accelerator counters of a Cray node. Raises SensorError if it is none."""
    if not (root / "energy").exists():
        raise SensorError(f"no {root}: not a Cray node")
    kinds = {prefix: kind for prefix, kind in CRAY_KINDS.items() if (root / f"{prefix}energy").exists()}
    for file in sorted(root.glob("accel[0-9]*_energy")):
        kinds[file.name.removesuffix("energy")] = "gpu"
    return [CraySensor(prefix, kind, root) for prefix, kind in kinds.items()]


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise SensorError(f"{path}: {error.strerror}") from None
