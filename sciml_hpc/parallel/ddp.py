"""The engine of torch.distributed: gradients averaged by DistributedDataParallel over NCCL, gloo or MPI.

For comparing engines on one machine; a run that used it says so in its log and its last lines.
"""

from __future__ import annotations

import inspect
import socket
from typing import TYPE_CHECKING

from sciml_hpc.config import Communication
from sciml_hpc.errors import UserError
from sciml_hpc.parallel.device import Device
from sciml_hpc.parallel.engine import Engine, on_host
from sciml_hpc.parallel.world import World

if TYPE_CHECKING:
    import torch


class DdpEngine(Engine):
    """DistributedDataParallel: buckets of gradients are all-reduced while the backward pass goes on."""

    name = "ddp"

    def __init__(self, settings: Communication, world: World, device: Device) -> None:
        """Collective. The ranks meet at a port of rank 0's node, which MPI tells them."""
        import torch
        import torch.distributed as dist

        backend = settings.backend
        if backend == "auto":
            backend = "gloo" if device.torch.type == "cpu" else "nccl"
        if not getattr(dist, f"is_{backend}_available")():
            there = [name for name in ("nccl", "gloo", "mpi") if getattr(dist, f"is_{name}_available")()]
            raise UserError(
                f"communication.backend: this torch was built without {backend}; it has {', '.join(there) or 'none'}"
            )
        if backend == "mpi":
            dist.init_process_group("mpi")
        else:
            place = None
            if world.is_root:
                with socket.create_server(("", 0)) as free:
                    place = (socket.gethostname() if world.nodes > 1 else "127.0.0.1", free.getsockname()[1])
            host, port = world.comm.bcast(place)
            dist.init_process_group(backend, f"tcp://{host}:{port}", rank=world.rank, world_size=world.size)
        self._dist, self._settings = dist, settings
        self.version = torch.__version__
        self.operations = {"nccl": "NCCL", "gloo": "gloo", "mpi": "MPI"}[backend]

    def broadcast(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Give every rank rank 0's parameters, buffers and optimiser state; the state travels as one object."""
        state = [on_host(optimizer.state_dict())]
        self._dist.broadcast_object_list(state, src=0)
        if state[0]["state"]:
            optimizer.load_state_dict(state[0])
        for tensor in model.state_dict().values():
            self._dist.broadcast(tensor, src=0)

    def broadcast_buffers(self, model: torch.nn.Module) -> None:
        """Give every rank rank 0's buffers: running statistics, which each rank has gathered from its own samples."""
        for tensor in model.buffers():
            self._dist.broadcast(tensor, src=0)

    def wrap(self, optimizer: torch.optim.Optimizer, model: torch.nn.Module) -> torch.optim.Optimizer:
        """The optimiser itself: the gradients are joined in the backward pass (`module`)."""
        return optimizer

    def module(self, model: torch.nn.Module) -> torch.nn.Module:
        """DistributedDataParallel around `model`. Collective: rank 0's parameters are broadcast."""
        from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook
        from torch.nn.parallel import DistributedDataParallel

        known = inspect.signature(DistributedDataParallel).parameters
        word = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # its name of old
        joined = DistributedDataParallel(
            model,
            **{word: False},  # buffers are broadcast once an evaluation, as with every engine
            bucket_cap_mb=max(1, self._settings.fusion_bytes >> 20),
            gradient_as_bucket_view=True,
        )
        if self._settings.compression == "fp16":
            joined.register_comm_hook(None, fp16_compress_hook)
        return joined

    def allreduce(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over all ranks, on every rank."""
        total = tensor.clone()
        self._dist.all_reduce(total)
        return total

    def close(self) -> None:
        """End the process group; without it threads of gloo outlive the run."""
        self._dist.destroy_process_group()
