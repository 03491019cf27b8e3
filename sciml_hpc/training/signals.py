"""The wish to stop: a signal on any rank ends the run on all ranks at the same step."""

from __future__ import annotations

import signal
from types import FrameType

import numpy as np

from sciml_hpc.parallel.world import World

GO, STOP, BROKEN = 0, 1, 2
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""Slurm sends SIGTERM at the time limit or on `scancel`; `--signal=USR1@120` asks for a warning before it."""


class StopFlag:
    """Agreement on going on, one step late: a non-blocking all-reduce of one number, hidden behind the step."""

    def __init__(self, world: World) -> None:
        self._comm = world.comm.Dup()
        self._mine = np.zeros(1, dtype=np.int32)
        self._all = np.zeros(1, dtype=np.int32)
        self._request, self._alone = None, world.size == 1
        self.received: str | None = None
        """Name of the signal this rank got."""
        self._before = {s: signal.signal(s, self._note) for s in SIGNALS}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        if number != signal.SIGUSR1:  # a warning may come twice; a second wish to end ends the process at once
            signal.signal(number, self._before[number])

    def agree(self, broken: bool) -> int:
        """GO, STOP or BROKEN, the same on all ranks: the worst that any rank knew one call ago."""
        if self._request is not None:
            self._request.Wait()
        agreed = int(self._all[0])
        self._mine[0] = BROKEN if broken else (STOP if self.received else GO)
        if self._alone:
            self._all[0] = self._mine[0]
        else:
            from mpi4py import MPI

            self._request = self._comm.Iallreduce(self._mine, self._all, MPI.MAX)
        return agreed

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
