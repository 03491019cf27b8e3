"""The system JSON: MLCommons' checker accepts it, and nothing in it is invented."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import psutil
import pytest
from correct_logs import DESCRIPTION, GPU

from sciml_hpc.metering import system
from sciml_hpc.results import official
from sciml_hpc.results.system_json import UNKNOWN, system_json


def checked(tmp_path: Path, content: dict) -> list[str]:
    path = tmp_path / "system.json"
    path.write_text(json.dumps(content))
    return official.system_description(path)


def test_a_gpu_system(tmp_path):
    found = system_json("machine-4", DESCRIPTION, submitter="Centre", nodes=4, accelerators_per_node=4)
    assert checked(tmp_path, found) == []
    expected = {
        "submitter": "Centre",
        "division": "open",
        "number_of_nodes": "4",
        "host_processors_per_node": "2",
        "host_processor_core_count": "96",
        "host_processor_vcpu_count": "192",
        "host_processor_frequency": "3.707 GHz (highest)",
        "host_memory_capacity": "1024 GiB",
        "host_storage_type": "data: lustre, scratch: xfs",
        "host_storage_capacity": f"data: 1048576 GiB, scratch: {UNKNOWN}",
        "host_networking": "4x InfiniBand 400 Gb/sec",
        "host_networking_topology": UNKNOWN,
        "accelerators_per_node": "4",
        "accelerator_model_name": "NVIDIA H200",
        "accelerator_memory_capacity": "140.401 GiB",
        "accelerator_host_interconnect": "PCIe generation 5, 16 lanes",
        "accelerator_interconnect": "18 active NVLinks",
        "framework": "PyTorch 2.7.0, Horovod 0.28.1",
        "other_software_stack": "MPI: Open MPI v5.0.7",
        "sw_notes": "container: apptainer sciml.sif",
    }
    assert {name: found[name] for name in expected} == expected


def test_nothing_captured_is_said_and_accepted(tmp_path):
    found = system_json("x", {}, submitter="Centre", nodes=1, accelerators_per_node=2)
    assert checked(tmp_path, found) == []
    given = {"submitter", "division", "status", "system_name", "number_of_nodes", "accelerators_per_node"}
    assert {value for name, value in found.items() if name not in given} == {UNKNOWN, ""}


def test_no_accelerators_are_not_unknown_accelerators():
    found = system_json("x", {}, submitter="Centre", nodes=1, accelerators_per_node=0)
    assert {v for k, v in found.items() if k.startswith("accelerator_")} == {"none"}


def test_nodes_that_differ_are_counted():
    group = DESCRIPTION["groups"][0]
    other = {**group, "count": 1, "hardware": {**group["hardware"], "gpus": [GPU] * 3}}
    found = system_json("x", {"groups": [group, other]}, submitter="Centre", nodes=5, accelerators_per_node=4)
    assert found["hw_notes"] == "1 nodes differ from the ones described"


def test_this_machine(tmp_path):
    node = system.describe_node({"data": tmp_path})
    mark = system.fingerprint(node)
    job = system.fold([(node["own"]["host"], mark)], {mark: node})
    found = system_json("here", job, submitter="Centre", nodes=1, accelerators_per_node=0)
    assert checked(tmp_path, found) == []
    assert found["host_processor_model_name"] == node["hardware"]["cpu"]["model"]
    memory_GiB = float(found["host_memory_capacity"].removesuffix(" GiB"))
    assert memory_GiB == pytest.approx(psutil.virtual_memory().total / 2**30, abs=2)


def test_the_checker_finds_what_is_missing(tmp_path):
    found = system_json("x", {}, submitter="Centre", nodes=1, accelerators_per_node=0)
    del found["cooling"]
    assert "Missing field cooling" in checked(tmp_path, found)[0]
    found["framework"] = 5  # the checker itself fails on numbers in its table
    assert "TypeError" in checked(tmp_path, found)[0]
    assert logging.getLogger().filters == []
