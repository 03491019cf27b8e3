"""Clock offsets against clocks whose offset is known: simulated nodes in threads, and real MPI ranks."""

from __future__ import annotations

import math
import queue
import threading
import time

import numpy as np
import pytest

from sciml_hpc.metering.clock import clock_offset


class ThreadComm:
    """Messages between threads behind mpi4py's interface; the way to a parent takes `slow` seconds longer."""

    def __init__(self, rank, size, boxes, slow):
        self.rank, self.size, self.boxes, self.slow = rank, size, boxes, slow
        self.sent = 0

    def Get_rank(self):
        return self.rank

    def Get_size(self):
        return self.size

    def Send(self, buffer, dest, tag):
        self.sent += 1
        if dest < self.rank:
            time.sleep(self.slow)
        self.boxes[self.rank, dest].put(np.array(buffer))

    def Recv(self, buffer, source, tag):
        buffer[:] = self.boxes[source, self.rank].get(timeout=20)


def offsets(shifts_s, exchanges=6, slow=0.0):
    size = len(shifts_s)
    boxes = {(a, b): queue.Queue() for a in range(size) for b in range(size)}
    comms = [ThreadComm(rank, size, boxes, slow) for rank in range(size)]
    results = [None] * size

    def node(rank):
        shift = round(shifts_s[rank] * 1e9)
        results[rank] = clock_offset(comms[rank], exchanges, lambda: time.monotonic_ns() + shift)

    threads = [threading.Thread(target=node, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results, comms


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 13])
def test_offset_is_found_within_its_own_bound(size):
    shifts = [0.7 * rank * (-1) ** rank for rank in range(size)]
    results, _ = offsets(shifts)
    assert results[0].offset_s == results[0].uncertainty_s == 0
    for shift, result in zip(shifts, results, strict=True):
        assert abs(result.offset_s + shift - shifts[0]) <= result.uncertainty_s + 1e-9
        assert result.hops == bin(shifts.index(shift)).count("1")
        assert result.uncertainty_s < 0.2


def test_one_way_slower_than_the_other_stays_within_the_bound():
    results, _ = offsets([0.0, 3.0], exchanges=3, slow=0.02)
    assert 0.01 <= results[1].uncertainty_s < 0.1
    assert abs(results[1].offset_s + 3.0) <= results[1].uncertainty_s


def test_messages_per_node_grow_with_the_logarithm_only():
    exchanges = 2
    _, comms = offsets([0.0] * 32, exchanges)
    sent = [comm.sent for comm in comms]
    assert max(sent) == sent[0] == 5 * (exchanges + 1)  # log2(32) children: answers and one result each
    assert math.fsum(sent) == 31 * (2 * exchanges + 1)  # every node but one asks once


@pytest.mark.mpi(min_size=2)
def test_offset_over_mpi():
    """Real messages between ranks of one machine (one true clock), shifted by a known amount per rank."""
    from mpi4py import MPI

    rank = MPI.COMM_WORLD.Get_rank()
    result = clock_offset(MPI.COMM_WORLD, now_ns=lambda: time.time_ns() + rank * 10**9)
    assert abs(result.offset_s + rank) <= result.uncertainty_s + 1e-6
    assert result.uncertainty_s < 0.05
