"""The energy meter against traces whose energy is known by hand; every number here is of a recorded trace."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_gpus import FakeNvml

from sciml_hpc.metering.energy import EnergyMeter, find_sensors
from sciml_hpc.metering.energy_report import KINDS, DeviceEnergy, JobEnergy, NodeEnergy, PhaseEnergy
from sciml_hpc.metering.gpu_sensors import NVIDIA_DRIVER, nvml_sensors
from sciml_hpc.metering.sensors import SensorError, SensorInfo, TraceSensor


class Clock:
    """A clock that is set by hand."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def info(kind="gpu", id="GPU-a", unit_J=1e-3, **more):
    return SensorInfo(kind, id, id, "NVML", "gpu", 0.1, unit_J, power_scope="gpu", **more)


def run(meter, clock, phases, step=1.0):
    """Walk through (name, seconds) phases, sampling every `step`; returns the report."""
    meter.start(phases[0][0])
    for number, (name, seconds) in enumerate(phases):
        if number:
            meter.phase(name)
        end = clock.now + seconds
        while clock.now < end - 1e-9:
            clock.now = min(end, clock.now + step)
            meter.sample()
    return meter.stop()


def seconds(n, first=0.0):
    return [first + i for i in range(n)]


def test_counter_phases_and_trapezoids_are_exact(clock):
    """100 W for 4 s, 300 W for 6 s; the counter counts what the power says."""
    watts = [100.0] * 4 + [300.0] * 7
    joules = [100 * min(t, 4) + 300 * max(0, t - 4) for t in range(11)]
    sensor = TraceSensor(info(), seconds(11), [int(j * 1000) + 77 for j in joules], watts, clock)
    meter = EnergyMeter([sensor], clock=clock, thread=False)
    report = run(meter, clock, [("staging", 4.0), ("training", 3.0), ("evaluation", 1.0), ("training", 2.0)])
    (device,) = report.devices
    assert device.energy_J == pytest.approx(4 * 100 + 6 * 300, rel=1e-12)
    assert {n: p.energy_J for n, p in device.phases.items()} == pytest.approx(
        {"staging": 400, "training": 1500, "evaluation": 300}
    )
    assert {n: (p.wall_s, p.windows) for n, p in device.phases.items()} == {
        "staging": (4.0, 1),
        "training": (5.0, 2),
        "evaluation": (1.0, 1),
    }
    # the one trapezoid over the step from 100 W to 300 W gives (100 + 300) / 2 instead of 100
    assert device.integrated_J == pytest.approx(2200 + 100)
    assert device.phases["training"].uncertainty_J == pytest.approx(2 * 0.1 * 300)
    assert device.uncertainty_J == pytest.approx(0.1 * 300)
    assert (report.wall_s, device.max_W, device.provenance) == (10.0, 300.0, "recorded trace")


@pytest.mark.parametrize("samples", [5, 50])
def test_wrap_around_is_undone_every_time(clock, samples):
    """A RAPL-like counter of 2 kJ range at 150 W wraps 3 times in 50 s; the last reading before a wrap varies."""
    true = [150 * 10**6 * t for t in range(51)]
    span = 2 * 10**9
    rapl = info("cpu", "package-0", 1e-6, wrap_counts=span, power_absent="RAPL has a counter only")
    sensor = TraceSensor(rapl, seconds(51), [(1_900_000_000 + c) % span for c in true], None, clock)
    meter = EnergyMeter([sensor], clock=clock, thread=False)
    (device,) = run(meter, clock, [("training", float(samples))]).devices
    assert device.energy_J == pytest.approx(150 * samples, rel=1e-12)
    assert device.integrated_J is None
    assert device.disagreement is None
    assert device.power_reason == "RAPL has a counter only"


def test_a_wrap_that_may_have_gone_unseen_is_no_energy(clock):
    """A range of 65 kJ lasts 65 s at 1 kW; the counter was not read for 70 s (the process was suspended, say)."""
    rapl = info("cpu", "package-0", 1e-6, wrap_counts=65_000_000_000, power_absent="RAPL has a counter only")
    sensor = TraceSensor(rapl, seconds(200), [150_000_000 * t for t in range(200)], None, clock)
    (device,) = run(EnergyMeter([sensor], clock=clock, thread=False), clock, [("training", 140.0)], step=70.0).devices
    assert device.energy_J is None
    assert device.reason == "not read for 70 s, in which the counter may have wrapped unseen"
    clock.now = 0.0
    (device,) = run(EnergyMeter([sensor], clock=clock, thread=False), clock, [("training", 120.0)], step=60.0).devices
    assert device.energy_J == pytest.approx(150 * 120)


def test_backward_counter_without_wrap_is_no_energy(clock):
    sensor = TraceSensor(info(), seconds(4), [5000, 6000, 10, 20], [1.0] * 4, clock)
    (device,) = run(EnergyMeter([sensor], clock=clock, thread=False), clock, [("training", 3.0)]).devices
    assert (device.energy_J, device.reason) == (None, "the counter went backwards")
    assert device.phases["training"].energy_J is None
    assert device.integrated_J == pytest.approx(3.0)


def test_frozen_counter_is_no_energy(clock):
    """Never moving, and stopping half way."""
    for counts in ([5000] * 41, [1000 * min(t, 10) for t in range(41)]):
        clock.now = 0.0
        sensor = TraceSensor(info(), seconds(41), counts, [1.0] * 41, clock)
        (device,) = run(EnergyMeter([sensor], clock=clock, thread=False), clock, [("training", 40.0)]).devices
        assert device.energy_J is None
        assert "stood still" in device.reason
        assert device.integrated_J == pytest.approx(40.0)


def test_window_shorter_than_the_sensors_period_is_no_energy(clock):
    sensor = TraceSensor(info(), [0.0, 1.0], [5000, 6000], [1.0, 1.0], clock)
    (device,) = run(EnergyMeter([sensor], clock=clock, thread=False), clock, [("training", 0.05)]).devices
    assert device.energy_J is None
    assert device.reason == "the counter did not advance in 0.05 s (its period is 0.1 s)"


@pytest.mark.parametrize(("share", "flagged"), [(1.0, False), (1.0499, False), (1.0501, True), (0.9499, True)])
def test_cross_check_flags_above_five_per_cent(clock, share, flagged):
    counts = [200_000 * t for t in range(11)]
    sensor = TraceSensor(info(), seconds(11), counts, [200.0 * share] * 11, clock)
    (device,) = run(EnergyMeter([sensor], clock=clock, thread=False), clock, [("training", 10.0)]).devices
    assert device.energy_J == pytest.approx(2000)
    assert device.integrated_J == pytest.approx(2000 * share)
    assert device.disagreement == pytest.approx(abs(share - 1), abs=1e-9)
    assert device.flagged is flagged


def test_power_of_another_scope_is_no_check(clock):
    module = dataclasses.replace(info(), power_scope="module")
    sensor = TraceSensor(module, seconds(11), [200_000 * t for t in range(11)], [600.0] * 11, clock)
    (device,) = run(EnergyMeter([sensor], clock=clock, thread=False), clock, [("training", 10.0)]).devices
    assert device.energy_J == pytest.approx(2000)
    assert device.integrated_J == pytest.approx(6000)
    assert (device.disagreement, device.flagged) == (None, False)


def test_idle_power_is_taken_before_the_run_and_is_no_part_of_it(clock):
    counts = [50_000 * min(t, 5) + 400_000 * max(0, t - 5) for t in range(11)]
    sensor = TraceSensor(info(), seconds(11), counts, [50.0] * 5 + [400.0] * 6, clock)
    meter = EnergyMeter([sensor], clock=clock, thread=False)
    meter.measure_idle(5.0, sleep=lambda s: setattr(clock, "now", clock.now + s))
    (device,) = run(meter, clock, [("training", 5.0)]).devices
    assert device.idle_W == pytest.approx(50.0)
    assert device.energy_J == pytest.approx(2000.0)


class Failing(TraceSensor):
    """Fails to read power once, at 3 s."""

    def power_W(self):
        if self._clock() == 3.0:
            raise SensorError("NVML: GPU is lost")
        return super().power_W()


def test_integral_with_a_missing_sample_is_no_integral(clock):
    sensor = Failing(info(), seconds(11), [200_000 * t for t in range(11)], [200.0] * 11, clock)
    (device,) = run(EnergyMeter([sensor], clock=clock, thread=False), clock, [("training", 10.0)]).devices
    assert device.energy_J == pytest.approx(2000)
    assert (device.integrated_J, device.power_reason) == (None, "NVML: GPU is lost")


def gpu(clock, letter, milliwatts):
    return {
        "uuid": f"GPU-{letter}",
        "energy_mJ": lambda: round(milliwatts * clock.now),
        "power_mW": lambda: milliwatts,
    }


def test_through_nvml_each_uuid_counts_once(clock):
    """Two GPUs at 300 W and 500 W, one of them named three times: 8 kJ in 10 s through NVML's own functions."""
    nvml = FakeNvml(gpu(clock, "a", 300_000), gpu(clock, "b", 500_000), gpu(clock, "c", 700_000))
    sensors = nvml_sensors(environ={"CUDA_VISIBLE_DEVICES": "0,1,GPU-b,1"}, nvml=nvml)
    report = run(EnergyMeter(sensors, clock=clock, thread=False), clock, [("training", 10.0)])
    assert {d.id: d.energy_J for d in report.devices} == pytest.approx({"GPU-a": 3000, "GPU-b": 5000})
    assert JobEnergy.of(report).sums["gpu"].energy_J == pytest.approx(8000)
    assert not any(d.flagged for d in report.devices)


def test_a_simulated_sensor_never_becomes_a_measured_figure(clock):
    """Not through the report, not by adding it to measured nodes, not in the record, and not by a false claim."""
    sensors = nvml_sensors(environ={}, nvml=FakeNvml(gpu(clock, "a", 300_000)))
    report = run(EnergyMeter(sensors, clock=clock, thread=False), clock, [("training", 10.0)])
    job = JobEnergy.of(report)
    assert job.sums["gpu"].energy_J == pytest.approx(3000)
    claimed = tuple(dataclasses.replace(d, provenance="measured", id="GPU-real") for d in report.devices)
    measured = JobEnergy.of(NodeEnergy(1.0, claimed, {}, 0.0))
    assert measured.record()["gpu_energy_J"] == pytest.approx(3000)
    nothing = JobEnergy.of(NodeEnergy(1.0, (), {}, 0.0))
    one_node = JobEnergy.of(NodeEnergy(1.0, claimed + report.devices, {}, 0.0))
    for total in (job, nothing + job, job + nothing, measured + job, job + measured, one_node):
        record = total.record()
        assert record["gpu_provenance"] == "recorded trace"
        assert all(value is None for key, value in record.items() if key.endswith(("_J", "_W")))
        assert record["gpu_energy_reason"] == "recorded trace, not a measurement"
    fields = dataclasses.asdict(report.devices[0])
    del fields["provenance"]
    with pytest.raises(TypeError, match="provenance"):
        DeviceEnergy(**fields)


def node(energy_J, kind="gpu", idle_W=10.0, **absent):
    device = DeviceEnergy(
        kind=kind, id=f"{kind}-{energy_J}", name="n", source="NVML", scope="gpu", power_scope="gpu", period_s=0.1,
        provenance="measured", wall_s=9.0, energy_J=energy_J, integrated_J=energy_J, disagreement=0.06, flagged=True,
        uncertainty_J=0.5,
        max_W=1.0, idle_W=idle_W, samples=3, reason=None if energy_J else "broken", power_reason=None,
        phases={"training": PhaseEnergy(9.0, 1, energy_J, energy_J, 0.1)},
    )  # fmt: skip
    return JobEnergy.of(NodeEnergy(9.0, (device,), absent, 0.01))


def test_sums_over_nodes_are_exact_and_one_null_voids_the_sum():
    job = node(100.0, cpu="denied") + node(250.0, cpu="denied") + node(50.0, cpu="denied")
    record = job.record()
    assert record["gpu_energy_J"] == 400.0
    assert record["gpu_idle_W"] == 30.0
    assert record["gpu_energy_uncertainty_J"] == 1.5
    assert record["gpu_largest_disagreement"] == 0.06
    assert record["gpu_provenance"] == "measured"
    assert record["gpu_phases_J"] == {"training": 400.0}
    assert record["gpu_devices"] == 3
    assert record["gpu_disagreeing_devices"] == ["gpu-100.0", "gpu-250.0", "gpu-50.0"]
    assert record["gpu_energy_label"] == "GPU energy (NVML; not MLPerf Power)"
    assert (record["cpu_energy_J"], record["cpu_energy_reason"]) == (None, "denied")
    json.dumps(record)
    broken = (job + node(None)).record()
    assert broken["gpu_energy_J"] is None
    assert broken["gpu_phases_J"] is None
    assert broken["gpu_energy_reason"] == "gpu-None: broken"
    absent = (job + JobEnergy.of(NodeEnergy(1.0, (), {"gpu": "no driver"}, 0.0))).record()
    assert (absent["gpu_energy_J"], absent["gpu_energy_reason"]) == (None, "no driver")


def test_a_rank_that_owns_nothing_changes_nothing():
    job = node(100.0) + JobEnergy.of(NodeEnergy(9.0, (), {}, 0.0))
    assert job.record()["gpu_energy_J"] == 100.0


def test_reasons_stay_few_however_many_nodes():
    job = node(1.0)
    for i in range(100):
        job = job + JobEnergy.of(NodeEnergy(1.0, (), {"gpu": f"no driver on {i}"}, 0.0))
    assert len(job.sums["gpu"].reasons) == 8


def test_off_meters_nothing_and_says_so():
    meter = EnergyMeter.off()
    meter.measure_idle(1e9)
    meter.start("staging")
    meter.phase("training")
    record = JobEnergy.of(meter.stop()).record()
    assert {record[f"{kind}_energy_J"] for kind in KINDS} == {None}
    assert {record[f"{kind}_energy_reason"] for kind in KINDS} == {"metering was switched off"}


def test_the_thread_samples_at_the_sensors_period():
    """Real time, a device of constant 1 kW that updates each millisecond: counter and integral agree."""
    start = time.monotonic()
    nvml = FakeNvml(
        {
            "uuid": "GPU-t",
            "energy_mJ": lambda: round((time.monotonic() - start) * 1e6),
            "power_mW": lambda: 1_000_000,
        }
    )
    meter = EnergyMeter(nvml_sensors(environ={}, nvml=nvml))
    meter.start("training")
    time.sleep(0.65)
    meter.phase("evaluation")
    report = meter.stop()
    (device,) = report.devices
    assert 6 <= device.samples <= 9  # every 0.1 s, and once at each mark
    assert device.energy_J == pytest.approx(1000 * report.wall_s, rel=0.02)
    assert device.disagreement < 0.02
    assert report.meter_cpu_s < 0.05 * report.wall_s


def test_a_binding_that_breaks_costs_the_figure_and_not_the_run(clock):
    class Broken(TraceSensor):
        def counter(self):
            return 1 / 0 if clock.now == 3.0 else super().counter()

    sensor = Broken(info(), seconds(6), [200_000 * t for t in range(6)], [200.0] * 6, clock)
    (device,) = run(EnergyMeter([sensor], clock=clock, thread=False), clock, [("training", 5.0)]).devices
    assert (device.energy_J, device.reason) == (None, "ZeroDivisionError('division by zero')")
    assert device.integrated_J == pytest.approx(1000)


def test_a_run_that_never_started_has_no_energy(clock):
    sensor = TraceSensor(info(), seconds(4), [0, 1, 2, 3], [1.0] * 4, clock)
    record = JobEnergy.of(EnergyMeter([sensor], clock=clock, thread=False).stop()).record()
    assert (record["gpu_energy_J"], record["gpu_energy_reason"]) == (None, "the run did not start")


def test_through_nvmls_real_binding(tmp_path):
    """The real pynvml on a library made here, in a process of its own: 250 W and 400 W for half a second.

    Nothing is injected, so this is also the path of a real run; without NVIDIA's driver it still is no measurement.
    """
    pytest.importorskip("pynvml")
    compiler = shutil.which("cc") or pytest.skip("no C compiler")
    library = tmp_path / "libnvidia-ml.so.1"
    source = Path(__file__).with_name("fake_nvml.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    program = """
import dataclasses, json, time
from sciml_hpc.metering.energy import EnergyMeter, find_sensors
from sciml_hpc.metering.energy_report import JobEnergy
meter = EnergyMeter(*find_sensors(node=False))
meter.start("training"); time.sleep(0.5)
report = meter.stop()
print(json.dumps([dataclasses.asdict(d) for d in report.devices])); print(json.dumps(JobEnergy.of(report).record()))
"""
    environ = os.environ | {"LD_LIBRARY_PATH": str(tmp_path), "CUDA_VISIBLE_DEVICES": "1,GPU-00000250,0"}
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environ
    ).stdout
    devices, record = map(json.loads, out.splitlines())
    assert [d["id"][:12] for d in devices] == ["GPU-00000400", "GPU-00000250"]
    for device, watts in zip(devices, (400, 250), strict=True):
        assert device["energy_J"] == pytest.approx(watts * device["wall_s"], rel=0.02)
        assert device["integrated_J"] == pytest.approx(watts * device["wall_s"], rel=0.001)
        assert not device["flagged"]
    if not NVIDIA_DRIVER.exists():
        assert record["gpu_provenance"] == "recorded trace"
        assert record["gpu_energy_J"] is None


def test_find_sensors_here_gives_each_kind_a_sensor_or_a_reason():
    sensors, absent = find_sensors()
    have = {s.info.kind for s in sensors}
    assert have | set(absent) >= {"gpu", "cpu", "node"}
    assert not have & set(absent)
    assert all(s.provenance == "measured" for s in sensors)
    assert find_sensors(gpu_uuids=[], node=False) == ([], {})
