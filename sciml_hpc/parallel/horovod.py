"""The Horovod engine: gradients averaged by Horovod over MPI (or NCCL, where it was built with it)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sciml_hpc.config import Communication
from sciml_hpc.errors import UserError
from sciml_hpc.parallel.device import Device
from sciml_hpc.parallel.engine import Engine, on_host
from sciml_hpc.parallel.world import World

if TYPE_CHECKING:
    import torch


ALONE_CYCLE_MS = 100.0
"""Of a process alone: Horovod's thread has nothing to do there, and at every cycle it would interrupt the step."""


class HorovodEngine(Engine):
    """Horovod's DistributedOptimizer, with tensor fusion and, where asked for, gradients that travel as fp16."""

    name = "horovod"

    def __init__(self, settings: Communication, world: World, device: Device) -> None:
        # Horovod reads these when it starts, from every rank's environment.
        os.environ["HOROVOD_FUSION_THRESHOLD"] = str(settings.fusion_bytes)
        os.environ["HOROVOD_CYCLE_TIME"] = str(settings.cycle_ms if world.size > 1 else ALONE_CYCLE_MS)
        try:
            import horovod
            import horovod.torch as hvd
        except ImportError as error:
            raise UserError(
                f"Horovod with PyTorch is not installed ({error}); build it with modules/install-stack.sh, or run one "
                "process without it: --set communication.engine=single"
            ) from None
        hvd.init()
        if not hvd.mpi_built() or hvd.size() != world.size:
            raise UserError(
                f"this Horovod sees {hvd.size()} ranks where MPI has {world.size}; it must be built with MPI "
                "operations (HOROVOD_WITH_MPI=1) against the MPI that mpi4py uses: modules/install-stack.sh does"
            )
        self._hvd = hvd
        self._compression = getattr(hvd.Compression, settings.compression)
        self.version = horovod.__version__
        self.operations = "NCCL" if hvd.nccl_built() and device.torch.type != "cpu" else "MPI"

    def broadcast(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Give every rank rank 0's parameters, buffers and optimiser state.

        The state travels as one object. Horovod's own broadcast_optimizer_state first makes a fresh optimiser step with
        zero gradients, which counts as a step of Adam and decays weights.
        """
        if self._hvd.size() == 1:
            return
        state = self._hvd.broadcast_object(on_host(optimizer.state_dict()), root_rank=0)
        if state["state"]:
            optimizer.load_state_dict(state)
        self._hvd.broadcast_parameters(model.state_dict(), root_rank=0)

    def broadcast_buffers(self, model: torch.nn.Module) -> None:
        """Give every rank rank 0's buffers: running statistics, which each rank has gathered from its own samples."""
        if self._hvd.size() > 1 and (buffers := dict(model.named_buffers())):
            self._hvd.broadcast_parameters(buffers, root_rank=0)

    def wrap(self, optimizer: torch.optim.Optimizer, model: torch.nn.Module) -> torch.optim.Optimizer:
        """Horovod's DistributedOptimizer around `optimizer`: all-reduce overlaps the backward pass. Of a process alone,
        the optimiser itself.
        """
        if self._hvd.size() == 1:
            return optimizer
        return self._hvd.DistributedOptimizer(
            optimizer,
            named_parameters=model.named_parameters(),
            compression=self._compression,
            op=self._hvd.Average,
        )

    def allreduce(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over all ranks, on every rank."""
        return self._hvd.allreduce(tensor, op=self._hvd.Sum) if self._hvd.size() > 1 else tensor.clone()

    def close(self) -> None:
        """Horovod's own shutdown."""
        self._hvd.shutdown()
