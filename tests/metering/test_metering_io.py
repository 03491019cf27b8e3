"""Bytes against files of known size: what the kernel counts, what the cache holds, what dropping it does.

Runs on the file system of the tests' temporary directory; the parts that need a device are skipped on tmpfs.
"""

from __future__ import annotations

import mmap
import os
import subprocess
import sys

import pytest

from sciml_hpc.metering import io
from sciml_hpc.metering.hardware import mount_of

SIZES = [3 << 20, (5 << 20) + 12345, 17]


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f"shard-{i}" for i in range(len(SIZES))]
    for path, size in zip(paths, SIZES, strict=True):
        path.write_bytes(os.urandom(size))
    return paths


@pytest.fixture
def on_device(tmp_path):
    if mount_of(tmp_path).type in io.IN_MEMORY | {"overlay", "nfs", "nfs4", "fuse", "9p"}:
        pytest.skip("the temporary directory is not on a block device")


def test_raw_read_reads_every_byte(files, monkeypatch):
    counts = []
    monkeypatch.setattr(os, "preadv", lambda *a, real=os.preadv: counts.append(real(*a)) or counts[-1])
    for block, threads in ((1 << 20, 1), (1 << 16, 4), (1 << 30, 8)):
        counts.clear()
        read = io.raw_read(files, block, threads)
        assert read.bytes == sum(counts) == sum(SIZES)
        assert read.bytes_per_s == pytest.approx(read.bytes / read.wall_s)


@pytest.mark.usefixtures("on_device")
def test_cold_read_comes_from_the_device_and_the_second_from_the_cache(files):
    dropped = io.drop_cache(files)
    assert (dropped.state, dropped.resident_before, dropped.resident_after) == ("cold", 1.0, 0.0)
    assert (dropped.files, dropped.bytes) == (3, sum(SIZES))
    assert dropped.how == "fdatasync, posix_fadvise(DONTNEED)"
    cold = io.raw_read(files)
    pages = sum(-(-size // mmap.PAGESIZE) for size in SIZES) * mmap.PAGESIZE
    assert sum(SIZES) <= cold.device_read_bytes <= pages + (1 << 20)  # whole pages, and little metadata
    assert cold.resident_before == 0.0
    assert cold.counted
    assert io.cache_hit_fraction(cold.bytes, cold.device_read_bytes) == pytest.approx(0, abs=0.12)
    warm = io.raw_read(files)
    assert warm.device_read_bytes == 0
    assert warm.counted is None
    assert io.cache_hit_fraction(warm.bytes, warm.device_read_bytes) == 1.0
    assert io.cache_state(files).state == "warm"


@pytest.mark.usefixtures("on_device")
def test_resident_share_is_weighted_by_pages(tmp_path):
    paths = [tmp_path / "one", tmp_path / "three"]
    for path, pages in zip(paths, (100, 300), strict=True):
        path.write_bytes(bytes(pages * mmap.PAGESIZE))
    io.drop_cache(paths)
    paths[0].read_bytes()
    assert io.resident_fraction(paths) == pytest.approx(0.25)
    assert io.cache_state(paths).state == "unknown"


@pytest.mark.usefixtures("on_device")
def test_pages_in_use_elsewhere_stay_and_the_state_says_so(files):
    with open(files[1], "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        sum(mapped[:: mmap.PAGESIZE])
        assert io.drop_cache([files[1]]).state == "warm"


def test_another_users_file_is_not_verified(files, monkeypatch):
    """The kernel tells strangers that everything is resident; that must not pass for an answer."""
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    monkeypatch.setattr(os, "access", lambda *_: False)
    state = io.drop_cache(files)
    assert (state.state, state.resident_after) == ("unknown", None)
    assert "not verified" in state.how


def test_memory_file_systems_cannot_be_cold(files, monkeypatch):
    monkeypatch.setattr(io, "mount_of", lambda _: mount_of(files[0]).__class__("tmpfs", "tmpfs", "/dev/shm"))
    state = io.drop_cache(files)
    assert state.state == "warm"
    assert "tmpfs is memory" in state.how


def test_counters_of_a_known_program(tmp_path):
    """A process of its own that reads 3 MiB and writes 1 MiB, between two readings of its counters."""
    program = """
import sys
from pathlib import Path
from sciml_hpc.metering.io import io_counters
source, target = map(Path, sys.argv[1:])
a = io_counters(); b = io_counters()
data = source.read_bytes(); target.write_bytes(data[:1 << 20])
c = io_counters()
own = b - a
d = c - b
print(d.rchar_bytes - own.rchar_bytes, d.wchar_bytes)
"""
    (tmp_path / "in").write_bytes(bytes(3 << 20))
    command = [sys.executable, "-c", program, str(tmp_path / "in"), str(tmp_path / "out")]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert abs(int(out[0]) - (3 << 20)) < 64  # the counters' own text may have grown by a digit
    assert int(out[1]) == 1 << 20


def test_counters_absent_or_in_a_known_file(tmp_path):
    assert io.io_counters(tmp_path / "none") is None
    text = "rchar: 10\nwchar: 20\nsyscr: 1\nsyscw: 2\nread_bytes: 4096\nwrite_bytes: 8192\ncancelled_write_bytes: 0\n"
    (tmp_path / "io").write_text(text)
    assert io.io_counters(tmp_path / "io") == io.IoCounters(10, 20, 4096, 8192)


@pytest.mark.parametrize(
    ("app", "device", "expected"),
    [(1000, 0, 1.0), (1000, 250, 0.75), (1000, 1000, 0.0), (1000, 1100, -0.1), (0, 0, None), (1000, None, None)],
)
def test_cache_hit_fraction(app, device, expected):
    assert io.cache_hit_fraction(app, device) == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("device", "resident", "counted"),
    [(0, 0.0, False), (400, 0.0, False), (990, 0.0, True), (0, 1.0, None), (5, 0.9, True), (None, 0.0, False)],
)
def test_whether_the_file_system_counts_reads(device, resident, counted):
    assert io.RawRead(1000, 1.0, 1000.0, device, resident, 1, 1).counted is counted
