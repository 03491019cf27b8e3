"""How long steps took, and how much of that they waited for data: AU = 1 − stall, as MLPerf Storage names it.

On a CPU the host's clock tells both. On a GPU the host runs ahead of the device, and a host that waits for a batch
stalls nobody as long as the device has work. There, three events per step are put into the device's own queue: when it
has done all that came before the wait, when it may start on the batch (arrived, and copied), and when the step is done.
The device was dry between the first and the second; between thirds lie the steps. Nothing waits for the device until
the epoch ends.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class EpochTimes:
    """One rank's steps of an epoch; every figure is NaN if nothing was metered."""

    steps: int
    wall_s: float
    """From the first wait to the end of the last step: the sum of all steps, waits included."""
    wait_s: float
    """Of which the device (on a CPU: the process) had nothing to do for want of data."""
    first_wait_s: float
    """The first step's share of `wait_s`: what reading ahead of the epoch has left of it."""
    step_p50_s: float
    step_p95_s: float
    step_max_s: float

    @property
    def stall_fraction(self) -> float:
        """Time waited for data ÷ step time, over the epoch."""
        return self.wait_s / self.wall_s

    @property
    def au(self) -> float:
        """Accelerator utilisation in MLPerf Storage's sense, from real steps."""
        return 1 - self.stall_fraction


class StallMeter:
    """Times the steps of one epoch on one rank, without a word to any other.

        with meter.waiting():
            batch = next(batches)
        …
        meter.step_done()
        …
        times = meter.epoch_done()

    A wait that no step follows (the iterator was exhausted) counts for nothing. Costs a few µs per step: three readings
    of the clock on a CPU, three event records on a GPU, and 16 bytes of memory. `clock` and `event` replace the host's
    clock and the device's events in tests.
    """

    def __init__(
        self,
        device: torch.device,
        steps: int,
        enabled: bool = True,
        clock: Callable[[], float] = time.perf_counter,
        event: Callable[[], Any] | None = None,
    ) -> None:
        self._recorder: _Recorder
        if not enabled:
            self._recorder = _Recorder(0)
        elif device.type == "cuda":
            self._recorder = _OnDevice(steps, event or _cuda_event)
        else:
            self._recorder = _OnHost(steps, clock)

    def waiting(self) -> AbstractContextManager[None]:
        """The context in which the next batch is taken."""
        return self._recorder

    def step_done(self) -> None:
        """The step has been done (on a GPU: has been queued)."""
        self._recorder.step_done()

    def epoch_done(self) -> EpochTimes:
        """The figures; waits for the device."""
        recorder = self._recorder
        recorder.finish()
        count = recorder.count
        steps, waits = recorder.steps[:count], recorder.waits[:count]
        if count == 0:
            return EpochTimes(0, *[float("nan")] * 6)
        p50, p95, longest = np.quantile(steps, (0.5, 0.95, 1.0))
        return EpochTimes(
            count, float(steps.sum()), float(waits.sum()), float(waits[0]), float(p50), float(p95), float(longest)
        )


class _Recorder(AbstractContextManager):
    """Records nothing: the meter switched off."""

    def __init__(self, steps: int) -> None:
        self.steps, self.waits, self.count = np.zeros(steps), np.zeros(steps), 0

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exception: object) -> None:
        pass

    def step_done(self) -> None:
        pass

    def finish(self) -> None:
        pass


class _OnHost(_Recorder):
    def __init__(self, steps: int, clock: Callable[[], float]) -> None:
        super().__init__(steps)
        self._clock, self._last = clock, -1.0

    def __enter__(self) -> None:
        self._entered = self._clock()
        if self._last < 0:
            self._last = self._entered

    def __exit__(self, *exception: object) -> None:
        self._wait = self._clock() - self._entered

    def step_done(self) -> None:
        now = self._clock()
        self.steps[self.count] = now - self._last
        self.waits[self.count] = self._wait
        self.count += 1
        self._last = now


class _OnDevice(_Recorder):
    """Events are used again as soon as the device has passed them, so their number is that of steps in flight."""

    def __init__(self, steps: int, event: Callable[[], Any]) -> None:
        super().__init__(steps)
        self._new, self._free = event, []
        self._last: Any = None
        self._flying: deque[tuple[Any, Any, Any, Any]] = deque()

    def __enter__(self) -> None:
        self._dry = self._record()
        if self._last is None:
            self._last = self._dry

    def __exit__(self, *exception: object) -> None:
        self._fed = self._record()

    def step_done(self) -> None:
        done = self._record()
        self._flying.append((self._last, self._dry, self._fed, done))
        self._last = done
        while self._flying and self._flying[0][3].query():
            self._land()

    def finish(self) -> None:
        if self._flying:
            self._flying[-1][3].synchronize()
        while self._flying:
            self._land()

    def _record(self) -> Any:
        event = self._free.pop() if self._free else self._new()
        event.record()
        return event

    def _land(self) -> None:
        before, dry, fed, done = self._flying.popleft()
        self.steps[self.count] = before.elapsed_time(done) * 1e-3
        self.waits[self.count] = dry.elapsed_time(fed) * 1e-3
        self.count += 1
        self._free += [dry, fed] if before is dry else [before, dry, fed]


def _cuda_event() -> Any:
    import torch

    return torch.cuda.Event(enable_timing=True)
