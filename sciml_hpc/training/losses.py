"""The losses of an epoch's steps: they stay on the device and come to the host some at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

LAG_STEPS = 4
"""The host goes so many steps ahead of a GPU, and no further. Small, as every step in flight has its batch there."""


class StepLosses:
    """One rank's losses of an epoch, `before` being those of steps done in an earlier part of the run."""

    def __init__(self, steps: int, before: Sequence[float], device: torch.device) -> None:
        import torch

        self._on_gpu = device.type == "cuda"
        self._host = torch.zeros(steps, dtype=torch.float64, pin_memory=self._on_gpu)
        self.values = self._host.numpy()
        """float64, (steps,): what has come; all of it once the device has done all it was given."""
        self.given = self._come = self._told = len(before)
        self.values[: self.given] = before
        self._fresh: list[torch.Tensor] = []
        self._flying: deque[tuple[torch.cuda.Event, int]] = deque()

    def add(self, loss: torch.Tensor, send: bool) -> None:
        """The loss of a step, a scalar on the device; `send`: it and those before it are copied to the host. On a GPU
        nothing waits for that; but this waits for the step `LAG_STEPS` before.
        """
        self._fresh.append(loss)
        self.given += 1
        if not self._on_gpu:
            if send:
                self.values[self.given - len(self._fresh) : self.given] = list(map(float, self._fresh))
                self._fresh.clear()
                self._come = self.given
            return
        import torch

        if send:  # copied as one type, or the host would wait for it
            part = self._host[self.given - len(self._fresh) : self.given]
            part.copy_(torch.stack(self._fresh).double(), non_blocking=True)
            self._fresh.clear()
        self._flying.append((torch.cuda.Event(blocking=True), self.given - len(self._fresh)))
        self._flying[-1][0].record()
        if len(self._flying) > LAG_STEPS:
            event, self._come = self._flying.popleft()
            event.synchronize()

    def news(self) -> list[float]:
        """Those that have come since the last call."""
        told, self._told = self._told, self._come
        return self.values[told : self._come].tolist()
