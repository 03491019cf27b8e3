"""Ranks as plain processes, without MPI or a launcher: what happens to them is the watchdog's doing alone."""

from __future__ import annotations

import multiprocessing as mp
import os
import queue
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil

from sciml_hpc.parallel import watchdog


class PipeComm:
    """The few operations of mpi4py's communicator that setting up a ring needs, over queues between processes."""

    def __init__(self, rank: int, inboxes: list[Any], folder: Path) -> None:
        self.rank, self.size, self._inboxes, self._folder = rank, len(inboxes), inboxes, folder
        self._waiting: dict[int, list[Any]] = {}

    def _send(self, value: Any, dest: int) -> None:
        self._inboxes[dest].put((self.rank, value))

    def _receive(self, source: int) -> Any:
        while not self._waiting.get(source):
            sender, value = self._inboxes[self.rank].get(timeout=60)
            self._waiting.setdefault(sender, []).append(value)
        return self._waiting[source].pop(0)

    def sendrecv(self, value: Any, dest: int, source: int) -> Any:
        self._send(value, dest)
        return self._receive(source)

    def bcast(self, value: Any, root: int = 0) -> Any:
        if self.rank != root:
            return self._receive(root)
        for dest in range(self.size):
            if dest != root:
                self._send(value, dest)
        return value

    def allreduce(self, value: Any) -> Any:
        if self.rank:
            self._send(value, 0)
            return self._receive(0)
        for source in range(1, self.size):
            value = value + self._receive(source)
        return self.bcast(value)

    def Abort(self, status: int) -> None:
        (self._folder / f"aborted{self.rank}").touch()
        os._exit(status)


def rank_main(
    rank: int, inboxes: list[Any], folder: Path, act: Callable[..., None], settings: dict[str, float]
) -> None:
    """One rank: joins the ring, writes when it was ready and what it reported, and does `act`."""
    for name, value in settings.items():
        setattr(watchdog, name, value)
    comm = PipeComm(rank, inboxes, folder)
    world = SimpleNamespace(comm=comm, rank=rank, size=comm.size, host=socket.gethostname(), is_root=rank == 0)

    def report(message: str, speaks: bool) -> None:
        (folder / f"report{rank}").write_text(f"{time.monotonic()}\n{speaks}\n{message}")

    guard = watchdog.Watchdog(world, report)
    (folder / f"ready{rank}").write_text(guard.unavailable or "")
    act(guard, rank)


def sleep(guard: watchdog.Watchdog, rank: int) -> None:
    """A rank that waits in a collective for ever."""
    time.sleep(120)


def orderly(guard: watchdog.Watchdog, rank: int) -> None:
    time.sleep(0.6 * rank)
    guard.close()
    time.sleep(0.6 * ((3 * rank) % 4))


def cannot_go_on(guard: watchdog.Watchdog, rank: int) -> None:
    if rank == 2:
        guard.abort("rank 2 on n1: OSError: no space\nleft")
    time.sleep(120)


def aborts_late(guard: watchdog.Watchdog, rank: int) -> None:
    """The loss of another rank shows in this one's main thread, too, as an exception of the communication library."""
    while rank == 1 and not guard._ended:
        time.sleep(0.01)
    if rank == 1:
        guard.abort("rank 1: HorovodInternalError")
    time.sleep(120)


def alone(guard: watchdog.Watchdog, rank: int) -> None:
    guard.close()


def alone_aborts(guard: watchdog.Watchdog, rank: int) -> None:
    guard.abort("broken")


def refused(guard: watchdog.Watchdog, rank: int) -> None:
    if rank == 1:
        guard.abort("rank 1 broke")
    guard.close()


class Job:
    """So many ranks; `act` is what each does once the ring stands."""

    def __init__(self, ranks: int, folder: Path, act: Callable[..., None] = sleep, **settings: float) -> None:
        context = mp.get_context("forkserver")
        context.set_forkserver_preload(["plain_ranks"])
        self.folder = folder
        self._inboxes = [context.Queue() for _ in range(ranks)]
        arguments = (self._inboxes, folder, act, {"GRACE_S": 0.8, "LOOK_S": 0.3} | settings)
        self.ranks = [context.Process(target=rank_main, args=(r, *arguments)) for r in range(ranks)]
        for process in self.ranks:
            process.start()

    def wait_ready(self) -> list[str]:
        """Why each rank is not watched ("" if it is), when all have joined."""
        files = [self.folder / f"ready{r}" for r in range(len(self.ranks))]
        deadline = time.monotonic() + 60
        while not all(f.exists() for f in files):
            if time.monotonic() > deadline:
                raise queue.Empty("the ring was not ready in 60 s")
            time.sleep(0.02)
        time.sleep(0.3)
        return [f.read_text() for f in files]

    def kill(self, *ranks: int) -> float:
        """kill -9 at one time, as a node's end is: stopped first, so that none sees another go; returns when."""
        for rank in ranks:
            os.kill(self.ranks[rank].pid, signal.SIGSTOP)
        for rank in ranks:
            while psutil.Process(self.ranks[rank].pid).status() != psutil.STATUS_STOPPED:
                time.sleep(0.001)
        for rank in ranks:
            self.ranks[rank].kill()
        return time.monotonic()

    def ends(self, *but: int, timeout: float = 30) -> list[int | None]:
        """Exit statuses, when all `but` those have ended (negative: the signal that ended it; None: still there)."""
        deadline = time.monotonic() + timeout
        for rank, process in enumerate(self.ranks):
            if rank not in but:
                process.join(max(0.0, deadline - time.monotonic()))
        return [process.exitcode for process in self.ranks]

    def reports(self) -> dict[int, tuple[float, bool, str]]:
        """By rank: when it reported, whether it was to speak, and the message."""
        found = {}
        for rank in range(len(self.ranks)):
            if (file := self.folder / f"report{rank}").exists():
                when, speaks, message = file.read_text().split("\n", 2)
                found[rank] = (float(when), speaks == "True", message)
        return found

    def close(self) -> None:
        """End what is left."""
        for process in self.ranks:
            if process.is_alive():
                process.kill()
                process.join()
