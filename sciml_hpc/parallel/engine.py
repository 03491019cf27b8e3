"""The engine that joins the ranks' gradients: the interface, and the engine of a process that is alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from sciml_hpc.config import Communication
from sciml_hpc.errors import UserError
from sciml_hpc.parallel.device import Device
from sciml_hpc.parallel.world import World

if TYPE_CHECKING:
    import torch


class Engine(ABC):
    """Broadcast of the first weights, averaging of gradients, and the sums that evaluation needs."""

    name: str
    version: str
    operations: str
    """The library that moves the bytes: MPI, NCCL or none."""

    @abstractmethod
    def broadcast(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Give every rank rank 0's parameters, buffers and optimiser state."""

    @abstractmethod
    def broadcast_buffers(self, model: torch.nn.Module) -> None:
        """Give every rank rank 0's buffers: running statistics, which each rank has gathered from its own samples."""

    @abstractmethod
    def wrap(self, optimizer: torch.optim.Optimizer, model: torch.nn.Module) -> torch.optim.Optimizer:
        """An optimiser whose `step` first averages the gradients over all ranks, unless `module` has done so."""

    def module(self, model: torch.nn.Module) -> torch.nn.Module:
        """What a training step calls in place of `model`: itself, or a wrapper that averages the gradients."""
        return model

    @abstractmethod
    def allreduce(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over all ranks, on every rank; the argument is left as it was."""

    @abstractmethod
    def close(self) -> None:
        """End the engine's own threads; call on every rank, before MPI ends."""


class Single(Engine):
    """One process, nothing to join: for a machine without Horovod. The log names it."""

    name = "single"
    version = "none"
    operations = "none"

    def broadcast(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Nothing: there is one rank."""

    def broadcast_buffers(self, model: torch.nn.Module) -> None:
        """Nothing: there is one rank."""

    def wrap(self, optimizer: torch.optim.Optimizer, model: torch.nn.Module) -> torch.optim.Optimizer:
        """The optimiser itself."""
        return optimizer

    def allreduce(self, tensor: torch.Tensor) -> torch.Tensor:
        """A copy."""
        return tensor.clone()

    def close(self) -> None:
        """Nothing to end."""


def on_host(tree: Any) -> Any:
    """A copy of nested dicts, lists and tuples with all tensors in the host's memory: further steps do not change it,
    and another process can unpickle it without a GPU of this number.
    """
    import torch

    if isinstance(tree, torch.Tensor):
        return tree.detach().to("cpu", copy=True)
    if isinstance(tree, dict):
        return {key: on_host(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(on_host(value) for value in tree)
    return tree


def start(settings: Communication, world: World, device: Device) -> Engine:
    """The engine that the configuration names, for ranks that compute on `device`.

    Raises UserError if it is not installed or does not fit the ranks; never takes another in its place.
    """
    engine = _named(settings, world, device)
    if engine.operations == "NCCL" and device.ranks_per_accelerator > 1:
        engine.close()
        raise UserError(
            f"{device.ranks_per_accelerator:g} ranks share a GPU ({device.name} on {world.host}), which NCCL refuses: "
            "start as many ranks per node as it has GPUs (srun --ntasks-per-node), or join the gradients by "
            "--set communication.engine=ddp --set communication.backend=gloo"
        )
    return engine


def _named(settings: Communication, world: World, device: Device) -> Engine:
    if settings.engine == "single":
        if world.size > 1:
            raise UserError(f"communication.engine=single is for one process; there are {world.size} ranks")
        return Single()
    if settings.engine == "ddp":
        from sciml_hpc.parallel.ddp import DdpEngine

        return DdpEngine(settings, world, device)
    from sciml_hpc.parallel.horovod import HorovodEngine

    return HorovodEngine(settings, world, device)
