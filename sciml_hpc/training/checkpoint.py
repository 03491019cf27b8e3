"""Checkpoints: what a run needs to go on as if it had never stopped.

Weights, optimiser, learning-rate state, position (epoch and step) and the history so far. Random choices need no state:
the order of samples and the generators of every rank follow from seed, rank and step. So a checkpoint is one file,
written by rank 0 whatever the number of ranks, in a thread beside training, and read by rank 0 alone.
"""

from __future__ import annotations

import json
import os
import threading
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciml_hpc.errors import UserError
from sciml_hpc.parallel.engine import on_host

if TYPE_CHECKING:
    import torch


@dataclass
class State:
    """Where a run is: `step` steps of epoch `epoch` (counted from 1) are done."""

    epoch: int
    step: int
    history: dict[str, Any]
    """What later parts of the run must know of earlier ones; JSON."""
    schedule: dict[str, float]


class Checkpointer:
    """Writes checkpoints of a run to `path`, atomically and off the critical path; used on rank 0."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._thread: threading.Thread | None = None
        self._error: OSError | None = None

    def save(self, state: State, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Copy the state now, write it in a thread; waits for the checkpoint before it.

        Raises OSError if that one could not be written.
        """
        self.wait()
        content = {
            "epoch": state.epoch,
            "step": state.step,
            "history": json.dumps(state.history),
            "schedule": dict(state.schedule),
            "model": on_host(model.state_dict()),
            "optimizer": on_host(optimizer.state_dict()),
        }
        self._thread = threading.Thread(target=self._write, args=(content,), name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Wait until the last checkpoint is on storage; raises OSError if it could not be written."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _write(self, content: dict[str, Any]) -> None:
        import torch

        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            with temporary.open("wb") as file:
                torch.save(content, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(self.path)
        except OSError as error:
            self._error = error
        finally:
            temporary.unlink(missing_ok=True)


def load(path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> State:
    """Restore model and optimiser from a checkpoint (on rank 0; the engine broadcasts them).

    Only tensors and plain values are read, nothing is executed. Raises UserError if the file is missing, damaged (by
    the checksums of its parts, which torch.load does not look at) or of another model.
    """
    import torch

    try:
        with zipfile.ZipFile(path) as archive:
            if (bad := archive.testzip()) is not None:
                raise ValueError(f"the checksum of {bad} is wrong")
        content = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(content["model"])
        optimizer.load_state_dict(content["optimizer"])
        return State(content["epoch"], content["step"], json.loads(content["history"]), content["schedule"])
    except OSError as error:
        raise UserError(f"checkpoint {path} cannot be read: {error.strerror}") from None
    except Exception as error:
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"checkpoint {path} is damaged or of another model: {why}") from None
