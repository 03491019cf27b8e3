"""A watchdog of our own: when a rank is lost, all others end within a minute and the user is told which one it was.

Under plain `srun` a killed rank leaves the others in a collective operation for ever. Here every rank keeps one TCP
connection to the next rank and one to the one before, in a ring. A rank that dies closes its connections at once (its
kernel does); one whose node is gone falls silent. Its neighbours then send word around the ring, both ways. Each rank
has two connections whatever the size of the job, and nothing is written to shared storage.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import selectors
import socket
import threading
import time
from collections.abc import Callable

import psutil

from sciml_hpc.errors import FAULT
from sciml_hpc.parallel.world import World

BEAT_S = 3.0
SILENCE_S = 40.0
"""A neighbour not heard for so long counts as lost; with the spreading of the word, all are gone in under 60 s."""
GRACE_S = 2.0
"""Time between sending word on and ending, in which rank 0 writes the end of the log."""
LOOK_S = 0.5
"""So long the last rank looks whether rank 0 is gone, before it leaves it to rank 0 to tell the user."""
CONNECT_S = 10.0
STRANGER_S = 1.0
"""Time in which who connects must say that it is one of this job's ranks."""


class Watchdog:
    """Watches the neighbours of this rank in the ring; `report` is what a rank does when it learns of a fault.

    `report(message, speaks)` is called once, in the watchdog's thread; `speaks` is true on the one rank that is to tell
    the user (rank 0, or the last one when rank 0 is gone). Afterwards the process ends with status 3.

    `unavailable` is the reason why nothing is watched (no TCP between nodes, say), or None. Costs two sockets and two
    messages of a few bytes every 3 s per rank; the ring is set up with two point-to-point messages and a reduction.
    """

    def __init__(self, world: World, report: Callable[[str, bool], None]) -> None:
        self._world = world
        self._report = report
        self._names: dict[socket.socket, tuple[int, str]] = {}
        self._heard: dict[socket.socket, float] = {}
        self._partial: dict[socket.socket, bytes] = {}
        self._done: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._ended = False
        self._wake = socket.socketpair()
        self.unavailable = self._join_ring() if world.size > 1 else None
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        if world.size > 1 and self.unavailable is None:
            self._thread.start()

    def abort(self, message: str) -> None:
        """End the whole job with `message`: called by a rank that cannot go on. Does not return."""
        self._end(message, source=None)
        time.sleep(2 * GRACE_S)  # the watchdog's own thread is ending this process already
        os._exit(FAULT)

    def close(self) -> None:
        """The run came to its end on this rank: its silence from now on is no fault."""
        with self._lock:
            self._ended = True
        self._send("bye", but=None)
        self._wake[1].send(b"x")
        if self._thread.is_alive():
            self._thread.join(timeout=BEAT_S)

    def _join_ring(self) -> str | None:
        world, comm = self._world, self._world.comm
        after, before = (world.rank + 1) % world.size, (world.rank - 1) % world.size
        token = comm.bcast(secrets.token_hex(16))
        failure = ""
        with socket.create_server(("", 0), backlog=4) as server:
            server.settimeout(CONNECT_S)
            mine = (world.host, world.rank, _addresses(), server.getsockname()[1])
            theirs = comm.sendrecv(mine, dest=before, source=after)
            host_before = comm.sendrecv(world.host, dest=after, source=before)
            try:
                down = _connect(*theirs, token, same_host=theirs[0] == world.host)
            except OSError as error:
                down, failure = None, f"no TCP connection from {world.host} to {theirs[0]} ({error})"
            try:
                up = self._accept(server, token)
            except OSError as error:
                up, failure = (
                    None,
                    failure or f"no TCP connection from {host_before} to {world.host} ({error})",
                )
        # Everybody watches or nobody does: a broken ring would take a healthy run down.
        reasons = comm.allreduce([failure] if failure else [])
        if reasons:
            for end in (up, down):
                if end is not None:
                    end.close()
            return reasons[0]
        for end, name in ((up, (before, host_before)), (down, (after, theirs[0]))):
            self._names[end], self._heard[end], self._partial[end] = name, time.monotonic(), b""
        return None

    def _accept(self, server: socket.socket, token: str) -> socket.socket:
        deadline = time.monotonic() + CONNECT_S
        while time.monotonic() < deadline:
            connection, _ = server.accept()
            connection.settimeout(STRANGER_S)
            with contextlib.suppress(OSError):
                if connection.recv(len(token), socket.MSG_WAITALL) == token.encode():
                    return connection
            connection.close()  # not one of ours
        raise TimeoutError("timed out")

    def _watch(self) -> None:
        with selectors.DefaultSelector() as ready:
            ready.register(self._wake[0], selectors.EVENT_READ)
            for end in self._names:
                ready.register(end, selectors.EVENT_READ)
            beat = 0.0
            while not self._ended:
                if (now := time.monotonic()) >= beat:
                    self._send("beat", but=None)
                    beat = now + BEAT_S
                for key, _ in ready.select(timeout=max(0.0, beat - now)):
                    if key.fileobj is not self._wake[0] and not self._read(key.fileobj):
                        ready.unregister(key.fileobj)
                if time.monotonic() - now > SILENCE_S / 2:  # this process itself was stopped, maybe the whole job
                    self._heard = dict.fromkeys(self._heard, time.monotonic())
                for end, heard in self._heard.items():
                    if end not in self._done and time.monotonic() - heard > SILENCE_S:
                        self._lost(end, f"no sign of life for {SILENCE_S:.0f} s")

    def _read(self, end: socket.socket) -> bool:
        """Take what came from a neighbour; False when there will be no more."""
        try:
            data = end.recv(65536)
        except OSError:
            data = b""
        if not data:
            if end not in self._done:
                self._lost(end, "its process ended")
            return False
        self._heard[end] = time.monotonic()
        *lines, self._partial[end] = (self._partial[end] + data).split(b"\n")
        for line in lines:
            if line == b"bye":
                self._done.add(end)
            elif line.startswith(b"abort "):
                self._end(json.loads(line[6:]), source=end)
        return True

    def _lost(self, end: socket.socket, how: str) -> None:
        rank, host = self._names[end]
        self._end(f"rank {rank} on {host} was lost ({how})", source=end)

    def _end(self, message: str, source: socket.socket | None) -> None:
        with self._lock:
            if self._ended:
                return
            self._ended = True
        world = self._world
        self._send("abort " + json.dumps(message), but=source)
        speaks = world.is_root or self.unavailable is not None
        if world.rank == world.size - 1 and not speaks:
            speaks = any(self._root_is_gone() or time.sleep(LOOK_S / 10) for _ in range(10))
        try:
            self._report(message, speaks)
        finally:
            time.sleep(GRACE_S)
            if self.unavailable is not None:
                world.comm.Abort(FAULT)
            os._exit(FAULT)

    def _root_is_gone(self) -> bool:
        """Whether rank 0, this rank's neighbour, has ended or missed two beats: with its whole node, say."""
        for end, (rank, _) in self._names.items():
            if rank == 0:
                end.setblocking(False)  # everything has been said already
                try:
                    while end.recv(65536):
                        pass
                except BlockingIOError:
                    return time.monotonic() - self._heard[end] > 2 * BEAT_S
                except OSError:
                    pass
                return True
        return False

    def _send(self, text: str, but: socket.socket | None) -> None:
        for end in self._names:
            if end is not but:
                with contextlib.suppress(OSError):
                    end.sendall(text.encode() + b"\n")


def _addresses() -> list[str]:
    """This node's IPv4 addresses that others may reach."""
    found = [a.address for card in psutil.net_if_addrs().values() for a in card if a.family == socket.AF_INET]
    return [a for a in found if not a.startswith("127.")]


def _connect(host: str, rank: int, addresses: list[str], port: int, token: str, same_host: bool) -> socket.socket:
    """A connection to a rank, by the first of its names and addresses that answers."""
    error: OSError = OSError("no address")
    for address in ["127.0.0.1"] if same_host else [host, *addresses]:
        try:
            connection = socket.create_connection((address, port), timeout=CONNECT_S)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(token.encode())
            return connection
        except OSError as failure:
            error = failure
    raise error
