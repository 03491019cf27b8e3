"""The job a run is: who takes part, on what, with which software, and whether that is the same everywhere."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sciml_hpc.config import RunConfig
from sciml_hpc.data import staging
from sciml_hpc.data.shards import Index
from sciml_hpc.errors import UserError
from sciml_hpc.metering import gpu_sensors, io, software, system
from sciml_hpc.metering.energy import EnergyMeter, find_sensors
from sciml_hpc.metering.sensors import SensorError
from sciml_hpc.parallel.device import Device
from sciml_hpc.parallel.engine import Engine
from sciml_hpc.parallel.world import World
from sciml_hpc.plan import Plan
from sciml_hpc.results import source


@dataclass(frozen=True)
class Job:
    """Size and means of a run, for its record."""

    ranks: int
    nodes: int
    ranks_per_node: tuple[int, int]
    """Fewest and most."""
    hosts: tuple[str, ...]
    local_batch: int
    global_batch: int
    train_samples: int
    eval_samples: int
    data_bytes: int
    index_sha256: str
    device: str
    accelerators_per_node: int
    ranks_per_accelerator: float
    threads_per_rank: int
    threads_from: str
    allocator: str
    """What becomes of host memory that a step frees."""
    convolutions: str
    """How their algorithms are chosen."""
    loader_threads: int
    """Of each rank."""
    machines: int
    """Kernels that the nodes run on: fewer than nodes where these are containers or namespaces of one machine."""
    oversubscription: float
    """Threads of all ranks ÷ hardware threads of the machines; over 1, ranks take each other's time."""
    engine: str
    engine_version: str
    engine_operations: str
    mpi: str
    notes: tuple[str, ...]

    @classmethod
    def of(cls, plan: Plan, world: World, device: Device, engine: Engine, index: Index) -> Job:
        """The job of a plan on these ranks. Collective: one record of each node goes to all (O(nodes))."""
        kernels = world.local.bcast(dict(world.leaders.allgather(system.kernel())) if world.is_leader else None)
        oversubscription = world.sum(device.threads) / sum(kernels.values())
        notes = list(plan.notes)
        if len(kernels) < world.nodes:
            notes.append(
                f"{world.nodes} nodes are {len(kernels)} machines: what is measured is not that of {world.nodes}"
            )
        if oversubscription > 1:
            notes.append(f"the ranks' threads are {oversubscription:.3g} times the hardware's: they share its cores")
        per_node = [b - a for a, b in zip(world.places, world.places[1:], strict=False)]
        return cls(
            ranks=world.size,
            nodes=world.nodes,
            ranks_per_node=(min(per_node), max(per_node)),
            hosts=world.hosts,
            local_batch=plan.local_batch,
            global_batch=plan.global_batch,
            train_samples=index.samples("train"),
            eval_samples=index.samples("validation"),
            data_bytes=index.bytes,
            index_sha256=index.sha256,
            device=device.name,
            accelerators_per_node=device.accelerators_per_node,
            ranks_per_accelerator=device.ranks_per_accelerator,
            threads_per_rank=device.threads,
            threads_from=device.threads_from,
            allocator=device.allocator,
            convolutions=device.convolutions,
            loader_threads=plan.config.loader.threads_beside(device.torch.type),
            machines=len(kernels),
            oversubscription=oversubscription,
            engine=engine.name,
            engine_version=engine.version,
            engine_operations=engine.operations,
            mpi=world.mpi,
            notes=tuple(notes),
        )

    def identity(self) -> dict[str, Any]:
        """What must be the same when a run is resumed."""
        return {"ranks": self.ranks, "nodes": self.nodes, "index_sha256": self.index_sha256, "engine": self.engine}

    def record(self) -> dict[str, Any]:
        """All of it, in JSON types."""
        return asdict(self)


def same_code(world: World) -> None:
    """Make sure that all nodes run the same sources and versions. One leader per node reads them (about 2 MB).

    Raises UserError on all ranks, naming two nodes that differ.
    """
    mine = f"{source.sha256()} {software.versions()}" if world.is_leader else ""
    first = world.comm.bcast(mine)

    def compare() -> None:
        if mine and mine != first:
            raise UserError(
                f"{world.host} runs other code or package versions than {world.hosts[0]}: install the same environment "
                "on all nodes (python -m sciml_hpc system shows a node's)"
            )

    world.together(compare)


def describe_system(world: World, paths: Mapping[str, Path]) -> dict[str, Any] | None:
    """The nodes of the job, equal ones folded, on rank 0; None elsewhere. Collective among leaders."""
    if not world.is_leader:
        return None
    there = {
        role: next(p for p in (path.resolve(), *path.resolve().parents) if p.exists()) for role, path in paths.items()
    }
    return system.describe_job(world.leaders, system.describe_node(there, world.mpi))


def system_name(asked: str | None, world: World) -> str:
    """Name of the system as results are filed under: asked for, or cluster (or host) with nodes and ranks per node.

    Raises UserError for a name that is no plain word.
    """
    if asked is not None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", asked):
            raise UserError(f"--system {asked!r}: must be letters, digits, '-' and '_'")
        return asked
    cluster = world.once(lambda: software.job().get("cluster_name") or re.sub(r"[^A-Za-z0-9]+", "-", world.hosts[0]))
    per_node = max(b - a for a, b in zip(world.places, world.places[1:], strict=False))
    return f"{cluster}_n{world.nodes}x{per_node}"


def energy_meter(world: World, enabled: bool) -> EnergyMeter:
    """The meter of the devices this rank owns: each GPU's is the lowest local rank that sees it, the node's its leader.

    One gather within the node.
    """
    if not enabled:
        return EnergyMeter.off()
    try:
        visible = list(gpu_sensors.nvml_visible(gpu_sensors.open_nvml()))
    except SensorError:
        visible = []  # the leader's find_sensors says why
    mine = gpu_sensors.owners(world.local.allgather(visible))[world.local_rank]
    if not mine and not world.is_leader:
        return EnergyMeter()
    return EnergyMeter(*find_sensors(mine or None, node=world.is_leader))


def drop_cache(world: World, index: Index, data: Path, config: RunConfig) -> io.CacheState | None:
    """Take the shards that a node will read from the data directory out of its page cache, if the run is to start cold.

    Returns the state of all nodes together ("unknown" where they differ), or None if it was left as it was.
    """
    if not config.loader.drop_cache:
        return None
    state = None
    if world.is_leader:
        shards = index.shards
        if config.staging.mode != "none":
            steps = staging.plan(index, world.places, config.staging.mode, world.node)
            shards = tuple(s.shard for s in steps if s.head == world.node)
        state = io.drop_cache([data / s.file for s in shards])
        found = world.leaders.allreduce([state.state] if shards else [])
        agreed = found[0] if len(set(found)) == 1 else "unknown"
        how = state.how if len(set(found)) == 1 else f"{state.how}; nodes differ: {', '.join(sorted(set(found)))}"
        state = io.CacheState(agreed, how, state.files, state.bytes, state.resident_before, state.resident_after)
    return world.local.bcast(state)
