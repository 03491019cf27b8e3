"""The system a run was made on: one description per node, folded over the job, and this process's memory.

A description has three parts. `hardware` and `software` are the same on equal nodes and are compared; `own` is what
differs between equal nodes anyway (names, UUIDs, devices and space of file systems, clocks of the moment).
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from sciml_hpc.metering import hardware, software

NAMED = 64
"""Deviating nodes that are named with what differs; beyond that they are counted."""


def kernel(root: Path = hardware.ROOT) -> tuple[str, int]:
    """(the boot of the kernel this node runs on, its hardware threads): nodes with one boot are one machine."""
    return (root / "proc/sys/kernel/random/boot_id").read_text().strip(), os.cpu_count() or 1


def describe_node(
    paths: Mapping[str, Path], mpi_library: str | None = None, environ: Mapping[str, str] = os.environ, nvml: Any = None
) -> dict[str, Any]:
    """This node as it is (JSON types only). About 50 ms; for one rank per node.

    `paths`: the directories that matter by their role, as {"data": …, "scratch": …}; a missing one raises OSError.
    `mpi_library`: what MPI_Get_library_version says. `nvml` replaces pynvml in tests.
    """
    gpus, no_gpus = hardware.gpus(environ, nvml)
    systems = {role: hardware.file_system(path) for role, path in paths.items()}
    cpus, memory = os.sched_getaffinity(0), psutil.virtual_memory().total
    return {
        "hardware": {
            "cpu": hardware.cpu(),
            "memory_GiB": round(memory / 2**30),  # firmware leaves equal nodes some MiB more or less
            "gpus": [{key: value for key, value in gpu.items() if key != "uuid"} for gpu in gpus],
            "no_gpus": no_gpus,
            "networks": hardware.networks(),
            "file_systems": {
                role: {"type": system["type"], "mount_point": system["mount_point"]} for role, system in systems.items()
            },
        },
        "software": {
            "operating_system": software.operating_system(),
            "container": software.container(environ),
            "versions": software.versions(mpi_library),
            "settings": software.settings(environ),
            "limits": hardware.limits(),
            "cpus_allowed": len(cpus),
        },
        "own": {
            "host": socket.gethostname(),
            "memory_bytes": memory,
            "swap_bytes": psutil.swap_memory().total,
            "gpu_uuids": [gpu["uuid"] for gpu in gpus],
            "file_systems": systems,
            "affinity": hardware.affinity(),
            "cpu_frequency_Hz": hardware.cpu_frequency_Hz(cpus),
        },
    }


def fingerprint(node: Mapping[str, Any]) -> str:
    """SHA-256 of what must be equal on equal nodes: 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(_compared(node), sort_keys=True).encode()).hexdigest()


def describe_job(comm: Any, node: Mapping[str, Any]) -> dict[str, Any] | None:
    """All nodes, folded, on rank 0 of `comm` (one rank per node); None elsewhere. Collective.

    Rank 0 receives a name and a hash per node (about 100 bytes) and one description per kind of node, not per node.
    `comm` has mpi4py's interface: Get_rank, gather and scatter of objects.
    """
    mark = fingerprint(node)
    nodes = comm.gather((node["own"]["host"], mark))
    wanted = None
    if comm.Get_rank() == 0:
        first = {mark: rank for rank, (_, mark) in reversed(list(enumerate(nodes)))}
        wanted = [rank in first.values() for rank in range(len(nodes))]
    sent = comm.gather((mark, dict(node)) if comm.scatter(wanted) else None)
    if comm.Get_rank() != 0:
        return None
    return fold(nodes, dict(item for item in sent if item is not None))


def fold(nodes: list[tuple[str, str]], described: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Groups of equal nodes, the largest first, and by name the nodes that deviate from it, with what differs.

    `nodes`: host and fingerprint of every node; `described`: fingerprint → description of one node that has it.
    """
    hosts: dict[str, list[str]] = {}
    for host, mark in nodes:
        hosts.setdefault(mark, []).append(host)
    groups = sorted(hosts, key=lambda mark: -len(hosts[mark]))
    norm = dict(_flat(described[groups[0]]))
    deviating: dict[str, list[str]] = {}
    for mark in groups[1:]:
        other = dict(_flat(described[mark]))
        differences = [
            f"{key}: {other.get(key)} where most have {norm.get(key)}"
            for key in sorted(norm.keys() | other.keys())
            if norm.get(key) != other.get(key)
        ]
        for host in hosts[mark][: NAMED - len(deviating)]:
            deviating[host] = differences
    return {
        "nodes": len(nodes),
        "groups": [{"count": len(hosts[mark]), **_compared(described[mark])} for mark in groups],
        "deviating_nodes": len(nodes) - len(hosts[groups[0]]),
        "deviating": deviating,
        "first_node": dict(described[nodes[0][1]]["own"]),
    }


def peak_memory() -> dict[str, int | None]:
    """High-water marks of this process in bytes: resident on the host, and allocated and reserved on its GPU.

    The host's counts shared pages (the page cache mapped by the process) too. GPU figures are torch's (None without).
    """
    # Not getrusage's figure: that is the peak of the process which this one began as a copy of, if it was larger.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peaks: dict[str, int | None] = {
        "host_peak_bytes": int(status["VmHWM"].removesuffix("kB")) * 1024,
        "gpu_peak_allocated_bytes": None,
        "gpu_peak_reserved_bytes": None,
    }
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        peaks["gpu_peak_allocated_bytes"] = torch.cuda.max_memory_allocated()
        peaks["gpu_peak_reserved_bytes"] = torch.cuda.max_memory_reserved()
    return peaks


def _compared(node: Mapping[str, Any]) -> dict[str, Any]:
    return {"hardware": node["hardware"], "software": node["software"]}


def _flat(node: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """("hardware.cpu.model", "…") for every leaf that is compared."""
    waiting: list[tuple[str, Any]] = list(_compared(node).items())
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, dict):
            waiting += [(f"{key}.{name}", inner) for name, inner in value.items()]
        elif isinstance(value, list):
            waiting += [(f"{key}[{i}]", inner) for i, inner in enumerate(value)]
        else:
            yield key, value
