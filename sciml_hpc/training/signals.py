"""The wish to stop: a signal on any rank ends the run on all ranks at the same step.

Ranks agree not at every step but about every quarter of a second: where steps are short, starting and ending the
reduction would take a fiftieth of them.
"""

from __future__ import annotations

import signal
from types import FrameType

import numpy as np

from sciml_hpc.parallel.world import World

GO, STOP, BROKEN = 0, 1, 2
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""Slurm sends SIGTERM at the time limit or on `scancel`; `--signal=USR1@120` asks for a warning before it."""

LOOK_S = 0.25
"""How much time of steps lies between two agreements; a step at least. What ends a run waits for two of them."""
MOST_STEPS = 32
"""And so many steps at most: should they become slow, the run can still be ended soon."""


class StopFlag:
    """Agreement on going on, one call late: a non-blocking all-reduce of two numbers, hidden behind the steps."""

    def __init__(self, world: World) -> None:
        self._comm = world.comm.Dup()
        self._mine = np.zeros(2)  # what this rank knows, and how long its steps take in s
        self._all = np.zeros(2)  # the greatest of all ranks
        self._last = (GO, 0.0)  # the same of a rank that is alone
        self.every = 1
        """After how many steps to agree the next time; the same on all ranks."""
        self._request, self._alone = None, world.size == 1
        self.received: str | None = None
        """Name of the signal this rank got."""
        self._before = {s: signal.signal(s, self._note) for s in SIGNALS}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        if number != signal.SIGUSR1:  # a warning may come twice; a second wish to end ends the process at once
            signal.signal(number, self._before[number])

    def agree(self, broken: bool, step_s: float = 0.0) -> int:
        """GO, STOP or BROKEN, the same on all ranks: the worst that any rank knew one call ago.

        `step_s`: seconds of a step since the last call, which settle `every`; 0 leaves it as it is.
        """
        mine = (BROKEN if broken else STOP if self.received else GO, step_s)
        if self._alone:
            (agreed, longest_s), self._last = self._last, mine
        else:
            from mpi4py import MPI

            if self._request is not None:
                self._request.Wait()
            agreed, longest_s = self._all.tolist()
            self._mine[:] = mine
            self._request = self._comm.Iallreduce(self._mine, self._all, MPI.MAX)
        if longest_s:
            self.every = max(1, min(MOST_STEPS, int(LOOK_S / longest_s)))
        return int(agreed)

    def settle(self, broken: bool = False) -> int:
        """The same, with what the ranks know now (a blocking all-reduce): between epochs."""
        self.agree(broken)
        return self.agree(broken)

    def close(self) -> None:
        """Give the signals back."""
        if self._request is not None:
            self._request.Wait()
            self._request = None
        for number, handler in self._before.items():
            signal.signal(number, handler)
