"""Energy of a run: counters of distinct devices, checked against integrated power, per phase, and honest when absent.

One rank per node owns a device's sensor (`gpu_sensors.owners`). The counters are read when the run starts and stops
and at every change of phase; a thread reads power as often as the sensor has news and integrates it by trapezoids,
which is the independent check. Cost per node: one reading of power per device and period, and one of its counter per
second, whatever the number of ranks.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

from sciml_hpc.metering.energy_report import KINDS, DeviceEnergy, NodeEnergy, PhaseEnergy
from sciml_hpc.metering.gpu_sensors import amd_sensors, nvml_sensors
from sciml_hpc.metering.sensors import Kind, Sensor, SensorError, cray_sensors, rapl_sensors

DISAGREEMENT = 0.05
"""Counter and integrated power may differ by this share, the accuracy MLPerf's power rules ask of a meter."""
FROZEN_S, FROZEN_PERIODS = 5.0, 20
"""A counter that has not moved for longer than both of these is taken to have stopped."""
COUNTER_S = 1.0
"""Between marks counters are read this often, far more often than any of them wraps; power once per period."""
HIGHEST_W = 1000.0
"""No CPU package draws more; a wrapping counter that was not read for longer than this takes to wrap is void."""


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
        self._phase, self._cpu_s = "", 0.0
        self._started: float | None = None

    @classmethod
    def off(cls) -> EnergyMeter:
        """A meter that meters nothing and says so."""
        return cls((), dict.fromkeys(KINDS, "metering was switched off"))

    def measure_idle(self, seconds: float, sleep: Callable[[float], None] = time.sleep) -> None:
        """Wait, with nothing running on the devices, and take their mean power as `idle_W`."""
        if self._accounts:
            end = self._open() + seconds
            now = self._clock()
            while now < end:
                sleep(min(COUNTER_S, end - now))
                now = self._advance()
            for account in self._accounts:
                account.close_idle(now)

    def start(self, phase: str) -> None:
        """Begin the run (`run_start`) in its first phase."""
        self._phase = phase
        self._started = self._open()
        if self._accounts and self._thread is not None:
            self._thread.start()

    def phase(self, name: str) -> None:
        """End the current phase and begin `name`; a phase may come back any number of times."""
        self._end_phase()
        self._phase = name

    def sample(self) -> None:
        """Read every sensor once; the meter's thread does this by itself."""
        self._advance()

    def stop(self) -> NodeEnergy:
        """End the run (`run_stop`) and report it; of a run that never started every figure is null."""
        if self._started is None:
            return NodeEnergy(0.0, (), dict.fromkeys(KINDS, "the run did not start") | self._absent, self._cpu_s)
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

    def _open(self) -> float:
        now = self._clock()
        with self._lock:
            for account in self._accounts:
                account.open(now)
        return now

    def _advance(self, counters: bool = True) -> float:
        began = time.thread_time()
        with self._lock:
            now = self._clock()
            for account in self._accounts:
                account.integrate(now)
                if counters:
                    account.count_on(now)
            self._cpu_s += time.thread_time() - began
        return now

    def _run(self) -> None:
        periods = [COUNTER_S] + [a.info.period_s for a in self._accounts if not a.info.power_absent]
        due = self._clock()
        while not self._done.wait(min(periods)):
            now = self._clock()
            self._advance(counters=now >= due)
            due = now + COUNTER_S if now >= due else due


class _Account:
    """Running sums of one sensor: exact counts, trapezoids of power; constant memory however long the run."""

    def __init__(self, sensor: Sensor) -> None:
        self.sensor, self.info = sensor, sensor.info
        self.failure = sensor.info.counter_absent
        self.power_failure = sensor.info.power_absent
        self.idle_W: float | None = None

    def open(self, now: float) -> None:
        self.began = self.time = self.read = self.moved = now
        self.counts = self.samples = 0
        self.integral_J = 0.0
        self.max_W: float | None = None
        self.phases: dict[str, PhaseEnergy] = {}
        self.count, self.watts = self._read_counter(), self._read_power()
        self.mark = (now, 0, 0.0)

    def count_on(self, now: float) -> None:
        """Read the counter and add what it advanced by."""
        count = self._read_counter()
        gap, self.read = now - self.read, now
        if self.count is not None and count is not None:
            step = count - self.count
            if self.info.wrap_counts is not None:
                step += self.info.wrap_counts if step < 0 else 0
                if gap * HIGHEST_W > self.info.wrap_counts * self.info.unit_J:
                    self.failure = f"not read for {gap:.0f} s, in which the counter may have wrapped unseen"
            if step < 0:
                self.failure = self.failure or "the counter went backwards"
            elif step > 0:
                self.counts += step
                self.moved = now
            elif now - self.moved > max(FROZEN_S, FROZEN_PERIODS * self.info.period_s):
                self.failure = self.failure or f"the counter stood still for {now - self.moved:.1f} s"
        self.count = count

    def integrate(self, now: float) -> None:
        """Read the power and add the trapezoid since the last reading."""
        watts = self._read_power()
        if self.watts is not None and watts is not None:
            self.integral_J += (now - self.time) * (self.watts + watts) / 2
        self.watts, self.time = watts, now
        self.samples += 1

    def _read_counter(self) -> int | None:
        """A run is not lost for a sensor, so whatever a driver's binding raises becomes the reason."""
        try:
            return self.sensor.counter()
        except Exception as error:
            self.failure = self.failure or _reason(error)
            return None

    def _read_power(self) -> float | None:
        watts = None
        try:
            watts = self.sensor.power_W()
        except Exception as error:
            self.power_failure = self.power_failure or _reason(error)
        if watts is not None:
            self.max_W = watts if self.max_W is None else max(self.max_W, watts)
        return watts

    def close_idle(self, now: float) -> None:
        if self.failure is None and now > self.began:
            self.idle_W = self.counts * self.info.unit_J / (now - self.began)

    def close_phase(self, name: str, now: float) -> None:
        began, counts, integral = self.mark
        wall = now - began
        energy = (self.counts - counts) * self.info.unit_J
        power = self._highest_W(energy, wall)
        past = self.phases.get(name) or PhaseEnergy(0.0, 0, 0.0, 0.0, 0.0)
        self.phases[name] = PhaseEnergy(
            past.wall_s + wall,
            past.windows + 1,
            past.energy_J + energy,
            past.integrated_J + self.integral_J - integral,
            past.uncertainty_J + self.info.period_s * power,
        )
        self.mark = (now, self.counts, self.integral_J)

    def _highest_W(self, energy_J: float, wall_s: float) -> float:
        """The highest power seen; of a device without a power reading the mean, which is all there is."""
        return self.max_W if self.max_W is not None else energy_J / wall_s if wall_s else 0.0

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
            uncertainty_J=None if energy is None else info.period_s * self._highest_W(energy, wall),
            samples=self.samples,
            phases=phases,
            reason=failure,
            power_reason=self.power_failure,
        )


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, SensorError) else repr(error)
