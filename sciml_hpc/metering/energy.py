"""Energy of a run: counters of distinct devices, checked against integrated power, per phase, and honest when absent.

One rank per node owns a device's sensor (`gpu_sensors.owners`). The counters are read when the run starts and stops
and at every change of phase; a thread reads power as often as the sensor has news and integrates it by trapezoids,
which is the independent check. Cost per node: one reading of each sensor per period, whatever the number of ranks.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sciml_hpc.metering.gpu_sensors import amd_sensors, nvml_sensors
from sciml_hpc.metering.sensors import Kind, Provenance, Sensor, SensorError, cray_sensors, rapl_sensors

DISAGREEMENT = 0.05
"""Counter and integrated power may differ by this share, the accuracy MLPerf's power rules ask of a meter."""
FROZEN_S, FROZEN_PERIODS = 5.0, 20
"""A counter that has not moved for longer than both of these is taken to have stopped."""
SLOWEST_SAMPLING_S = 1.0
"""Counters without a power reading are read this often, far more often than any of them wraps."""
KINDS: tuple[Kind, ...] = ("gpu", "cpu", "dram", "node")


def find_sensors(
    gpu_uuids: Collection[str] | None = None, node: bool = True, environ: Mapping[str, str] = os.environ
) -> tuple[list[Sensor], dict[str, str]]:
    """The sensors this rank owns and, per kind, why there is none.

    `gpu_uuids`: the GPUs this rank meters (none: no GPU is this rank's; None: all it can see). `node`: whether this
    rank meters the node itself. RAPL and NVML or AMD SMI are preferred to Cray's counters of CPU and accelerators.
    """
    sensors: list[Sensor] = []
    absent: dict[str, str] = {}

    def take(kinds: Iterable[Kind], found: Callable[[], list[Sensor]]) -> None:
        wanted = [kind for kind in kinds if not any(s.info.kind == kind for s in sensors)]
        try:
            sensors.extend(s for s in found() if s.info.kind in wanted)
        except SensorError as error:
            for kind in wanted:
                absent[kind] = f"{absent[kind]}; {error}" if kind in absent else str(error)

    if gpu_uuids is None or gpu_uuids:
        take(["gpu"], lambda: nvml_sensors(gpu_uuids, environ))
        take(["gpu"], lambda: amd_sensors(gpu_uuids, environ))
    if node:
        take(["cpu", "dram"], rapl_sensors)
        take(["cpu", "dram", "node"] + (["gpu"] if gpu_uuids is None else []), cray_sensors)
    have = {s.info.kind for s in sensors}
    return sensors, {kind: reason for kind, reason in absent.items() if kind not in have}


@dataclass(frozen=True)
class PhaseEnergy:
    """What one device spent in all windows of one phase."""

    wall_s: float
    windows: int
    energy_J: float | None
    integrated_J: float | None
    uncertainty_J: float | None
    """Counters are up to a period old when read: windows × period × the highest power seen (mean power without one)."""


@dataclass(frozen=True)
class DeviceEnergy:
    """What one device spent between start and stop."""

    kind: Kind
    id: str
    name: str
    source: str
    scope: str
    power_scope: str
    period_s: float
    provenance: Provenance
    wall_s: float
    energy_J: float | None
    """From the counter, from start to stop."""
    integrated_J: float | None
    """Trapezoids over sampled power, from start to stop; None without a power reading at every sample."""
    disagreement: float | None
    """|integrated − counter| ÷ counter; None where the two do not exist or do not cover the same."""
    flagged: bool
    """Whether the disagreement is above 5 %."""
    max_W: float | None
    idle_W: float | None
    """Mean power in the idle window before the run, from the counter."""
    samples: int
    phases: Mapping[str, PhaseEnergy]
    reason: str | None
    """Why `energy_J` is null, where it is."""
    power_reason: str | None
    """Why `integrated_J` is null, where it is."""


@dataclass(frozen=True)
class NodeEnergy:
    """The energy of the devices one rank owns."""

    wall_s: float
    devices: tuple[DeviceEnergy, ...]
    absent: Mapping[str, str]
    """Kind → why it was not metered."""
    meter_cpu_s: float
    """Processor time the metering itself took."""


@dataclass(frozen=True)
class Sum:
    """A sum over devices of one kind that is null as soon as one part is."""

    devices: int = 0
    energy_J: float | None = 0.0
    integrated_J: float | None = 0.0
    idle_W: float | None = 0.0
    phases_J: Mapping[str, float | None] = field(default_factory=dict)
    scopes: frozenset[str] = frozenset()
    """Source and scope of every device's figure, as "NVML: gpu"."""
    flagged: tuple[str, ...] = ()
    """Devices whose two figures differ by more than 5 %: the first eight ids."""
    reasons: tuple[str, ...] = ()
    """Why there is no figure: the first eight different ones."""

    def __add__(self, other: Sum) -> Sum:
        phases = set(self.phases_J) | set(other.phases_J)
        return Sum(
            self.devices + other.devices,
            _add(self.energy_J, other.energy_J),
            _add(self.integrated_J, other.integrated_J),
            _add(self.idle_W, other.idle_W),
            {p: _add(self.phases_J.get(p, 0.0), other.phases_J.get(p, 0.0)) for p in sorted(phases)},
            self.scopes | other.scopes,
            (self.flagged + other.flagged)[:8],
            tuple(dict.fromkeys(self.reasons + other.reasons))[:8],
        )


@dataclass(frozen=True)
class JobEnergy:
    """Sums per kind over nodes: `+` adds two of them, so a tree reduction over nodes moves a few hundred bytes.

    Kinds overlap (a node's figure contains its GPUs) and are never added to each other. Measured and recorded figures
    are never added either: ValueError.
    """

    provenance: Provenance
    wall_s: float
    sums: Mapping[str, Sum]

    @classmethod
    def of(cls, node: NodeEnergy) -> JobEnergy:
        """The figures of one node. A node without any device is "measured": its figures are null."""
        provenances = {d.provenance for d in node.devices}
        if len(provenances) > 1:
            raise ValueError("measured and recorded figures of one node cannot be added")
        sums = {kind: Sum() for kind in KINDS}
        for device in node.devices:
            sums[device.kind] += Sum(
                1,
                device.energy_J,
                device.integrated_J,
                device.idle_W,
                {name: phase.energy_J for name, phase in device.phases.items()},
                frozenset({f"{device.source}: {device.scope}"}),
                (device.id,) if device.flagged else (),
                (f"{device.id}: {device.reason}",) if device.reason else (),
            )
        for kind, reason in node.absent.items():
            sums[kind] += Sum(0, None, None, None, reasons=(reason,))
        return cls(provenances.pop() if provenances else "measured", node.wall_s, sums)

    def __add__(self, other: JobEnergy) -> JobEnergy:
        if self.provenance != other.provenance:
            raise ValueError("measured and recorded figures cannot be added")
        sums = {kind: self.sums[kind] + other.sums[kind] for kind in KINDS}
        return replace(self, wall_s=max(self.wall_s, other.wall_s), sums=sums)

    def record(self) -> dict[str, Any]:
        """The figures for the log: `gpu_energy_J`, `cpu_energy_J`, … each a number or null with its reason.

        Only measured figures are figures: of a recorded trace every `_J` and `_W` is null and the reason says so.
        """
        sources = sorted({scope.partition(":")[0] for scope in self.sums["gpu"].scopes})
        label = f"GPU energy ({', '.join(sources) or 'none'}; not MLPerf Power)"
        entry: dict[str, Any] = {"provenance": self.provenance, "gpu_energy_label": label, "wall_s": self.wall_s}
        for kind, total in self.sums.items():
            simulated = self.provenance != "measured"
            void = simulated or total.devices == 0
            reason = "recorded trace, not a measurement" if simulated else "; ".join(total.reasons) or "no such sensor"
            entry[f"{kind}_devices"] = total.devices
            entry[f"{kind}_energy_J"] = None if void else total.energy_J
            entry[f"{kind}_integrated_power_J"] = None if void else total.integrated_J
            entry[f"{kind}_idle_W"] = None if void else total.idle_W
            entry[f"{kind}_phases_J"] = None if void else _joules(total)
            entry[f"{kind}_scope"] = sorted(total.scopes)
            entry[f"{kind}_disagreeing_devices"] = list(total.flagged)
            entry[f"{kind}_energy_reason"] = reason if entry[f"{kind}_energy_J"] is None else None
        return entry


class EnergyMeter:
    """Meters the devices of one owner from `start` to `stop`, in phases.

        meter = EnergyMeter(*find_sensors(uuids))
        meter.measure_idle(5)
        meter.start("staging"); meter.phase("training"); meter.phase("evaluation"); …; report = meter.stop()

    Work queued on a GPU must have finished (synchronise) where a phase ends, or its energy falls into the next one.
    With no sensors, no thread runs and every call is free. `thread=False` leaves sampling to calls of `sample`.
    """

    def __init__(
        self,
        sensors: Iterable[Sensor] = (),
        absent: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
        thread: bool = True,
    ) -> None:
        self._clock, self._absent = clock, dict(absent or {})
        self._accounts = [_Account(sensor) for sensor in sensors]
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="energy", daemon=True) if thread else None
        self._phase, self._started, self._cpu_s = "", 0.0, 0.0

    @classmethod
    def off(cls) -> EnergyMeter:
        """A meter that meters nothing and says so."""
        return cls((), dict.fromkeys(KINDS, "metering was switched off"))

    def measure_idle(self, seconds: float, sleep: Callable[[float], None] = time.sleep) -> None:
        """Wait, with nothing running on the devices, and take their mean power as `idle_W`."""
        if self._accounts:
            self._open(sample=False)
            sleep(seconds)
            now = self._advance()
            for account in self._accounts:
                account.close_idle(now)

    def start(self, phase: str) -> None:
        """Begin the run (`run_start`) in its first phase."""
        self._phase = phase
        self._started = self._open(sample=True)

    def phase(self, name: str) -> None:
        """End the current phase and begin `name`; a phase may come back any number of times."""
        self._end_phase()
        self._phase = name

    def sample(self) -> None:
        """Read every sensor once; the meter's thread does this by itself."""
        self._advance()

    def stop(self) -> NodeEnergy:
        """End the run (`run_stop`) and report it."""
        self._done.set()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join()
        wall = self._end_phase() - self._started
        devices = tuple(account.report() for account in self._accounts)
        return NodeEnergy(wall, devices, self._absent, self._cpu_s)

    def _end_phase(self) -> float:
        now = self._advance()
        for account in self._accounts:
            account.close_phase(self._phase, now)
        return now

    def _open(self, sample: bool) -> float:
        now = self._clock()
        with self._lock:
            for account in self._accounts:
                account.open(now)
        if sample and self._accounts and self._thread is not None:
            self._thread.start()
        return now

    def _advance(self) -> float:
        began = time.thread_time()
        with self._lock:
            now = self._clock()
            for account in self._accounts:
                account.advance(now)
            self._cpu_s += time.thread_time() - began
        return now

    def _run(self) -> None:
        periods = [SLOWEST_SAMPLING_S] + [a.info.period_s for a in self._accounts if not a.info.power_absent]
        while not self._done.wait(min(periods)):
            self._advance()


class _Account:
    """Running sums of one sensor: exact counts, trapezoids of power; constant memory however long the run."""

    def __init__(self, sensor: Sensor) -> None:
        self.sensor, self.info = sensor, sensor.info
        self.failure = sensor.info.counter_absent
        self.power_failure = sensor.info.power_absent
        self.idle_W: float | None = None

    def open(self, now: float) -> None:
        self.began = self.time = self.moved = now
        self.counts = self.samples = 0
        self.integral_J = 0.0
        self.max_W: float | None = None
        self.phases: dict[str, PhaseEnergy] = {}
        self.count, self.watts = self._read()
        self.mark = (now, 0, 0.0)

    def advance(self, now: float) -> None:
        count, watts = self._read()
        if self.count is not None and count is not None:
            step = count - self.count
            if step < 0 and self.info.wrap_counts is not None:
                step += self.info.wrap_counts
            if step < 0:
                self.failure = self.failure or "the counter went backwards"
            elif step > 0:
                self.counts += step
                self.moved = now
            elif now - self.moved > max(FROZEN_S, FROZEN_PERIODS * self.info.period_s):
                self.failure = self.failure or f"the counter stood still for {now - self.moved:.1f} s"
        if self.watts is not None and watts is not None:
            self.integral_J += (now - self.time) * (self.watts + watts) / 2
        self.count, self.watts, self.time = count, watts, now
        self.samples += 1

    def _read(self) -> tuple[int | None, float | None]:
        count = watts = None
        try:
            count = self.sensor.counter()
        except SensorError as error:
            self.failure = self.failure or str(error)
        try:
            watts = self.sensor.power_W()
        except SensorError as error:
            self.power_failure = self.power_failure or str(error)
        if watts is not None:
            self.max_W = watts if self.max_W is None else max(self.max_W, watts)
        return count, watts

    def close_idle(self, now: float) -> None:
        if self.failure is None and now > self.began:
            self.idle_W = self.counts * self.info.unit_J / (now - self.began)

    def close_phase(self, name: str, now: float) -> None:
        began, counts, integral = self.mark
        wall = now - began
        energy = (self.counts - counts) * self.info.unit_J
        power = self.max_W if self.max_W is not None else energy / wall if wall else 0.0
        past = self.phases.get(name) or PhaseEnergy(0.0, 0, 0.0, 0.0, 0.0)
        self.phases[name] = PhaseEnergy(
            past.wall_s + wall,
            past.windows + 1,
            past.energy_J + energy,
            past.integrated_J + self.integral_J - integral,
            past.uncertainty_J + self.info.period_s * power,
        )
        self.mark = (now, self.counts, self.integral_J)

    def report(self) -> DeviceEnergy:
        info, failure = self.info, self.failure
        wall = self.time - self.began
        if failure is None and self.counts == 0:
            failure = f"the counter did not advance in {wall:.3g} s (its period is {info.period_s:.3g} s)"
        energy = None if failure else self.counts * info.unit_J
        integrated = None if self.power_failure else self.integral_J
        comparable = energy and integrated is not None and info.power_scope == info.scope
        disagreement = abs(integrated - energy) / energy if comparable else None
        phases = {
            name: replace(
                phase,
                energy_J=None if failure else phase.energy_J,
                uncertainty_J=None if failure else phase.uncertainty_J,
                integrated_J=None if integrated is None else phase.integrated_J,
            )
            for name, phase in self.phases.items()
        }
        return DeviceEnergy(
            kind=info.kind,
            id=info.id,
            name=info.name,
            source=info.source,
            scope=info.scope,
            power_scope=info.power_scope,
            period_s=info.period_s,
            provenance=self.sensor.provenance,
            wall_s=wall,
            energy_J=energy,
            integrated_J=integrated,
            disagreement=disagreement,
            flagged=disagreement is not None and disagreement > DISAGREEMENT,
            max_W=self.max_W,
            idle_W=self.idle_W,
            samples=self.samples,
            phases=phases,
            reason=failure,
            power_reason=self.power_failure,
        )


def _add(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a + b


def _joules(total: Sum) -> dict[str, float | None]:
    """Energy per phase; a kind without a total has none per phase either."""
    return {name: None if total.energy_J is None else joules for name, joules in total.phases_J.items()}
