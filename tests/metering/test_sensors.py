"""Sensors of CPU and node on hand-made trees of sysfs files: no machine with RAPL or Cray counters was at hand."""

from __future__ import annotations

import pytest

from sciml_hpc.metering.sensors import (
    CRAY_ROOT,
    RAPL_ROOT,
    SensorError,
    SensorInfo,
    TraceSensor,
    cray_sensors,
    rapl_sensors,
)


def zone(root, name, content, energy_uj=0, range_uj=262143328850):
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "name").write_text(content + "\n")
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    (folder / "max_energy_range_uj").write_text(f"{range_uj}\n")
    return folder


@pytest.fixture
def powercap(tmp_path):
    """Two sockets as a Xeon server shows them, with everything that must not be counted a second time."""
    zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    zone(tmp_path, "intel-rapl:0:0", "core", 7)
    zone(tmp_path, "intel-rapl:0:1", "dram", 2_000)
    zone(tmp_path, "intel-rapl:1", "package-1", 3_000_000)
    zone(tmp_path, "intel-rapl:1:0", "dram", 4_000, range_uj=65712999613)
    zone(tmp_path, "intel-rapl:2", "psys", 9_000_000)
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 1_000_000)
    return tmp_path


def test_rapl_takes_each_package_and_its_memory_once(powercap):
    sensors = {s.info.id: s for s in rapl_sensors(powercap)}
    assert sorted(sensors) == ["package-0", "package-0/dram", "package-1", "package-1/dram"]
    assert [sensors[i].info.kind for i in sorted(sensors)] == ["cpu", "dram", "cpu", "dram"]
    joules = {i: s.counter() * s.info.unit_J for i, s in sensors.items()}
    assert joules == pytest.approx({"package-0": 1, "package-1": 3, "package-0/dram": 2e-3, "package-1/dram": 4e-3})
    assert sensors["package-1/dram"].info.wrap_counts == 65712999613


def test_rapl_reads_the_file_anew_each_time(powercap):
    sensor = rapl_sensors(powercap)[0]
    assert sensor.counter() == 1_000_000
    (powercap / "intel-rapl:0" / "energy_uj").write_text("1234567\n")
    assert sensor.counter() == 1_234_567
    (powercap / "intel-rapl:0" / "energy_uj").write_text("\n")
    with pytest.raises(SensorError, match="not a number"):
        sensor.counter()


def test_rapl_without_permission_or_zones_says_so(powercap, tmp_path_factory, monkeypatch):
    with monkeypatch.context() as patch:

        def denied(path, flags):
            raise PermissionError(13, "Permission denied", str(path))

        patch.setattr("os.open", denied)
        with pytest.raises(SensorError, match=r"intel-rapl:0/energy_uj: Permission denied"):
            rapl_sensors(powercap)
    (powercap / "intel-rapl:1" / "energy_uj").unlink()
    with pytest.raises(SensorError, match=r"intel-rapl:1/energy_uj: No such file"):
        rapl_sensors(powercap)
    with pytest.raises(SensorError, match="no RAPL package"):
        rapl_sensors(tmp_path_factory.mktemp("empty"))


def cray(root):
    for name, value in {
        "freshness": "100",
        "startup": "1700000000",
        "raw_scan_hz": "10",
        "energy": "1000 J 1700000000000000 us",
        "power": "500 W 1700000000000000 us",
        "cpu_energy": "300 J 1 us",
        "cpu_power": "90 W 1 us",
        "memory_energy": "40 J 1 us",
        "memory_power": "9 W 1 us",
        "accel0_energy": "200 J 1 us",
        "accel0_power": "100 W 1 us",
        "accel1_energy": "210 J 1 us",
        "accel1_power": "101 W 1 us",
    }.items():
        (root / name).write_text(value + "\n")
    return root


def test_cray_counters_with_units_and_time_stamps(tmp_path):
    sensors = {s.info.id: s for s in cray_sensors(cray(tmp_path))}
    assert {i: (s.info.kind, s.counter(), s.power_W()) for i, s in sensors.items()} == {
        "energy": ("node", 1000, 500.0),
        "cpu_energy": ("cpu", 300, 90.0),
        "memory_energy": ("dram", 40, 9.0),
        "accel0_energy": ("gpu", 200, 100.0),
        "accel1_energy": ("gpu", 210, 101.0),
    }
    assert all(s.info.period_s == 0.1 for s in sensors.values())


def test_cray_value_refreshed_during_the_reading_is_read_again(tmp_path, monkeypatch):
    node = cray_sensors(cray(tmp_path))[0]
    fresh = iter([7, 8, 8, 8])
    monkeypatch.setattr(node, "_freshness", lambda: next(fresh))
    reads = iter([1010, 1020])
    monkeypatch.setattr(node, "_energy", lambda: next(reads))
    assert node.counter() == 1020


def test_cray_value_that_never_holds_still_is_refused(tmp_path, monkeypatch):
    node = cray_sensors(cray(tmp_path))[0]
    fresh = iter(range(100))
    monkeypatch.setattr(node, "_freshness", lambda: next(fresh))
    with pytest.raises(SensorError, match="refreshed during each"):
        node.counter()


def test_cray_controller_restart_is_noticed(tmp_path):
    node = cray_sensors(cray(tmp_path))[0]
    (tmp_path / "startup").write_text("1700009999\n")
    with pytest.raises(SensorError, match="restarted"):
        node.counter()


def test_not_a_cray(tmp_path):
    with pytest.raises(SensorError, match="not a Cray node"):
        cray_sensors(tmp_path)


def test_only_the_hardwares_own_place_is_measured(powercap, tmp_path_factory):
    assert str(RAPL_ROOT) == "/sys/class/powercap"
    assert str(CRAY_ROOT) == "/sys/cray/pm_counters"
    fakes = rapl_sensors(powercap) + cray_sensors(cray(tmp_path_factory.mktemp("cray")))
    assert {s.provenance for s in fakes} == {"recorded trace"}


def test_trace_shows_the_last_update_as_hardware_does():
    now = [0.0]
    info = SensorInfo("gpu", "GPU-x", "x", "NVML", "gpu", 0.1, 1e-3)
    trace = TraceSensor(info, [1.0, 2.0, 3.0], [10, 20, 30], [1.0, 2.0, 3.0], lambda: now[0])
    shown = []
    for t in (0.5, 1.0, 1.99, 2.0, 9.0):
        now[0] = t
        shown.append((trace.counter(), trace.power_W()))
    assert shown == [(10, 1.0), (10, 1.0), (10, 1.0), (20, 2.0), (30, 3.0)]
    assert trace.provenance == "recorded trace"
