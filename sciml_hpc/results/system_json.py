"""MLCommons' system JSON from the captured system description (`metering/system.py`, `describe_job`).

All values are texts, as MLCommons' tools want them. What the description does not hold is "not captured": nothing here
is typed or guessed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

UNKNOWN = "not captured"
NONE = "none"
"""For the properties of accelerators where there are no accelerators."""


def system_json(
    name: str, description: Mapping[str, Any], *, submitter: str, nodes: int, accelerators_per_node: int
) -> dict[str, str]:
    """The fields of MLCommons' HPC system description, in its order.

    `nodes` and `accelerators_per_node` are the run's, as its log has them. The other figures are those of the largest
    group of equal nodes; `hw_notes` counts the nodes of the others.
    """
    groups = _mappings(description.get("groups"))
    hardware, software = _mapping(groups[0], "hardware"), _mapping(groups[0], "software")
    cpu, versions = _mapping(hardware, "cpu"), _mapping(software, "versions")
    system = _mapping(software, "operating_system")
    return {
        "submitter": submitter,
        "division": "open",
        "status": "research",
        "system_name": name,
        "number_of_nodes": str(nodes),
        "host_processors_per_node": _text(cpu.get("sockets")),
        "host_processor_model_name": _text(cpu.get("model")),
        "host_processor_core_count": _per(cpu.get("cores"), cpu.get("sockets")),
        "host_processor_vcpu_count": _per(cpu.get("threads"), cpu.get("sockets")),
        "host_processor_frequency": _scaled(cpu.get("max_frequency_Hz"), 1e9, "GHz (highest)"),
        "host_processor_caches": _join(f"{level}: {size}" for level, size in _mapping(cpu, "caches").items()),
        "host_processor_interconnect": UNKNOWN,
        "host_memory_capacity": _text(hardware.get("memory_GiB"), "{} GiB"),
        "host_memory_configuration": UNKNOWN,
        "host_storage_type": _join(
            f"{role}: {system.get('type') or UNKNOWN}" for role, system in _roles(hardware.get("file_systems"))
        ),
        "host_storage_capacity": _join(
            f"{role}: {_scaled(system.get('size_bytes'), 2**30, 'GiB')}"
            for role, system in _roles(_mapping(description, "first_node").get("file_systems"))
        ),
        "host_networking": _counted(
            f"{network.get('kind') or 'network'} {network.get('rate') or f'(rate {UNKNOWN})'}"
            for network in _mappings(hardware.get("networks"))
            if network
        ),
        "host_networking_topology": UNKNOWN,
        "accelerators_per_node": str(accelerators_per_node),
        **_accelerators(_mappings(hardware.get("gpus")), accelerators_per_node),
        "cooling": UNKNOWN,
        "hw_notes": _deviations(groups),
        "framework": _join(f"{title} {versions[key]}" for key, title in _FRAMEWORK.items() if versions.get(key)),
        "other_software_stack": _join(f"{title} {versions[key]}" for key, title in _STACK.items() if versions.get(key)),
        "operating_system": _join(filter(None, (system.get("name"), _prefixed("kernel ", system.get("kernel"))))),
        "sw_notes": _container(software.get("container")),
    }


_FRAMEWORK = {"torch": "PyTorch", "horovod": "Horovod"}
_STACK = {
    "mpi": "MPI:",
    "cuda": "CUDA",
    "rocm": "ROCm",
    "cudnn": "cuDNN",
    "nccl": "NCCL",
    "python": "Python",
    "mpi4py": "mpi4py",
    "h5py": "h5py",
    "numpy": "NumPy",
}


def _accelerators(gpus: Sequence[Mapping[str, Any]], count: int) -> dict[str, str]:
    empty = NONE if count == 0 else UNKNOWN
    gpus = [gpu for gpu in gpus if gpu] if count else []

    def common(values: Iterable[str]) -> str:
        """What the accelerators of a node have in common, or each value there is."""
        return ", ".join(dict.fromkeys(values)) or empty

    return {
        "accelerator_model_name": common(_text(gpu.get("name")) for gpu in gpus),
        "accelerator_host_interconnect": common(
            _text(gpu.get("pcie_generation"), f"PCIe generation {{}}, {gpu.get('pcie_width')} lanes") for gpu in gpus
        ),
        "accelerator_frequency": common(_scaled(gpu.get("max_sm_clock_Hz"), 1e6, "MHz (highest)") for gpu in gpus),
        "accelerator_on-chip_memories": empty,
        "accelerator_memory_configuration": common(
            "ECC on" if gpu.get("ecc") is True else "ECC off" if gpu.get("ecc") is False else UNKNOWN for gpu in gpus
        ),
        "accelerator_memory_capacity": common(_scaled(gpu.get("memory_bytes"), 2**30, "GiB") for gpu in gpus),
        "accelerator_interconnect": common(_text(gpu.get("nvlinks"), "{} active NVLinks") for gpu in gpus),
        "accelerator_interconnect_topology": empty,
    }


def _deviations(groups: Sequence[Mapping[str, Any]]) -> str:
    others = [str(group.get("count", "some")) for group in groups[1:]]
    return f"{' + '.join(others)} nodes differ from the ones described" if others else ""


def _container(container: Any) -> str:
    if not isinstance(container, Mapping):
        return ""
    return f"container: {container.get('runtime')} {container.get('image') or ''}".rstrip()


def _mapping(parent: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = parent.get(key)
    return value if isinstance(value, Mapping) else {}


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    """The mappings in a list; one empty mapping if there is none."""
    found = [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []
    return found or [{}]


def _roles(file_systems: Any) -> list[tuple[str, Mapping[str, Any]]]:
    """(role, description) of the file systems that a description names."""
    found = file_systems if isinstance(file_systems, Mapping) else {}
    return [(role, _mapping(found, role)) for role in found]


def _text(value: Any, form: str = "{}") -> str:
    return UNKNOWN if value is None else form.format(value)


def _prefixed(prefix: str, value: Any) -> str | None:
    return None if value is None else f"{prefix}{value}"


def _per(total: Any, count: Any) -> str:
    whole = isinstance(total, int) and isinstance(count, int) and count > 0 and total % count == 0
    return str(total // count) if whole else UNKNOWN


def _scaled(value: Any, unit: float, name: str) -> str:
    if not isinstance(value, (int, float)):
        return UNKNOWN
    return f"{str(round(value / unit, 3)).removesuffix('.0')} {name}"


def _counted(items: Iterable[str]) -> str:
    return _join(f"{count}x {item}" for item, count in Counter(items).items())


def _join(parts: Iterable[str]) -> str:
    return ", ".join(parts) or UNKNOWN
