"""Descriptions of nodes: captured here, compared and folded over a job."""

from __future__ import annotations

import copy
import json
import os
import socket
import subprocess
import sys

import numpy as np
import psutil
import pytest
from fake_gpus import FakeNvml

from sciml_hpc.metering.system import describe_job, describe_node, fingerprint, fold, peak_memory


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    paths = {"data": tmp_path_factory.mktemp("data"), "scratch": tmp_path_factory.mktemp("scratch")}
    nvml = FakeNvml({"uuid": "GPU-a"}, {"uuid": "GPU-b"})
    environ = {"OMP_NUM_THREADS": "8", "API_TOKEN": "hush"}
    return describe_node(paths, "Open MPI v5.0.11", environ, nvml)


def test_this_node_agrees_with_psutil(node):
    assert node["own"]["host"] == socket.gethostname()
    assert node["own"]["memory_bytes"] == psutil.virtual_memory().total
    assert node["hardware"]["cpu"]["threads"] == psutil.cpu_count()
    assert node["hardware"]["cpu"]["cores"] == psutil.cpu_count(logical=False)
    assert node["software"]["cpus_allowed"] == len(os.sched_getaffinity(0))
    assert node["own"]["gpu_uuids"] == ["GPU-a", "GPU-b"]
    assert "hush" not in json.dumps(node)


def test_missing_directory_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        describe_node({"data": tmp_path / "absent"})


def other(node, host, **changes):
    """The same node under another name; "hardware.cpu.governor" = value changes what it has."""
    twin = copy.deepcopy(node)
    twin["own"]["host"] = host
    for key, value in changes.items():
        *path, last = key.split("__")
        inside = twin
        for name in path:
            inside = inside[name]
        inside[last] = value
    return twin


def test_what_belongs_to_one_node_does_not_make_it_different(node):
    twin = other(node, "n2", own__gpu_uuids=["GPU-c"], own__memory_bytes=1)
    assert fingerprint(twin) == fingerprint(node)
    assert fingerprint(other(node, "n3", hardware__cpu__governor="powersave")) != fingerprint(node)


def test_equal_nodes_fold_and_deviating_ones_are_named(node):
    nodes = [other(node, f"n{i}") for i in range(62)]
    slow = other(node, "n62", hardware__cpu__governor="powersave")
    lame = other(node, "n63", hardware__gpus=node["hardware"]["gpus"][:1])
    everyone = [slow, *nodes, lame]
    told = fold([(n["own"]["host"], fingerprint(n)) for n in everyone], {fingerprint(n): n for n in everyone})
    assert (told["nodes"], told["deviating_nodes"]) == (64, 2)
    assert [g["count"] for g in told["groups"]] == [62, 1, 1]
    assert told["groups"][0]["hardware"] == node["hardware"]
    assert told["deviating"]["n62"] == [
        f"hardware.cpu.governor: powersave where most have {node['hardware']['cpu']['governor']}"
    ]
    assert "hardware.gpus[1].name: None where most have NVIDIA H100 80GB HBM3" in told["deviating"]["n63"]
    assert sorted(told["deviating"]) == ["n62", "n63"]


def test_a_thousand_deviating_nodes_are_counted_not_listed(node):
    bad = other(node, "x", hardware__cpu__governor="powersave")
    names = [(f"n{i}", fingerprint(node)) for i in range(1500)] + [(f"b{i}", fingerprint(bad)) for i in range(1000)]
    told = fold(names, {fingerprint(node): node, fingerprint(bad): bad})
    assert told["deviating_nodes"] == 1000
    assert len(told["deviating"]) == 64
    assert len(json.dumps(told)) < 40_000


def test_peak_memory_rises_by_what_is_touched():
    before = peak_memory()
    block = np.ones(200 << 20, np.uint8)
    after = peak_memory()
    assert after["host_peak_bytes"] >= psutil.Process().memory_info().rss * 0.95
    assert after["host_peak_bytes"] - before["host_peak_bytes"] <= (200 << 20) * 1.1
    assert after["host_peak_bytes"] > block.nbytes
    assert after["gpu_peak_allocated_bytes"] is None


def test_peak_memory_is_not_that_of_the_parent():
    block = np.ones(400 << 20, np.uint8)
    code = "from sciml_hpc.metering.system import peak_memory; print(peak_memory()['host_peak_bytes'])"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 5 << 20 < int(child.stdout) < block.nbytes / 2


@pytest.mark.mpi(min_size=2)
def test_describe_job_over_mpi(node):
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    last = comm.Get_rank() == comm.Get_size() - 1
    base = comm.bcast(node)
    mine = other(base, f"n{comm.Get_rank()}", **({"hardware__cpu__governor": "odd"} if last else {}))
    told = describe_job(comm, mine)
    if comm.Get_rank():
        assert told is None
    else:
        assert [g["count"] for g in told["groups"]] == [comm.Get_size() - 1, 1]
        if comm.Get_size() > 2:
            assert list(told["deviating"]) == [f"n{comm.Get_size() - 1}"]
