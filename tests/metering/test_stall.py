"""Stall and step times against loaders of known delay: exact on clocks set by hand, within 5 % in real time.

The device is a queue simulated by hand that hands out events as CUDA does; no GPU was at hand.
"""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import torch

from sciml_hpc.metering.stall import StallMeter

CPU, GPU = torch.device("cpu"), torch.device("cuda")


class Host:
    """A host clock that work advances."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def spend(self, seconds):
        self.now += seconds


class Queue:
    """A device that does queued work in order, and events that record when it reached them."""

    def __init__(self, host):
        self.host, self.idle_from, self.made = host, 0.0, 0

    def launch(self, seconds):
        self.idle_from = max(self.idle_from, self.host.now) + seconds

    def event(self):
        self.made += 1
        return Event(self)


class Event:
    def __init__(self, queue):
        self.queue = queue

    def record(self):
        self.at = max(self.queue.idle_from, self.queue.host.now)

    def query(self):
        return self.at <= self.queue.host.now

    def synchronize(self):
        self.queue.host.now = max(self.queue.host.now, self.at)

    def elapsed_time(self, later):
        assert self.query()
        assert later.query()
        return (later.at - self.at) * 1e3


def test_host_times_are_exact():
    host = Host()
    meter = StallMeter(CPU, 10, clock=host)
    waits = [5.0, 1.0, 1.0, 1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    for i, wait in enumerate(waits):
        with meter.waiting():
            host.spend(wait)
        host.spend(3.0 + i)
        meter.step_done()
        host.spend(0.5)  # between the steps: part of the next one
    times = meter.epoch_done()
    steps = np.array([w + 3 + i for i, w in enumerate(waits)]) + np.array([0.0] + [0.5] * 9)
    assert times.steps == 10
    assert times.wall_s == pytest.approx(steps.sum())
    assert times.wait_s == pytest.approx(10.0)
    assert times.first_wait_s == pytest.approx(5.0)
    assert times.stall_fraction == pytest.approx(10 / steps.sum())
    assert times.au == pytest.approx(1 - 10 / steps.sum())
    ordered = np.sort(steps)
    assert times.step_p50_s == pytest.approx((ordered[4] + ordered[5]) / 2)
    assert times.step_max_s == pytest.approx(ordered[-1])
    assert ordered[8] <= times.step_p95_s <= ordered[9]


def test_the_wait_for_the_end_of_the_iterator_is_no_stall():
    host = Host()
    meter = StallMeter(CPU, 3, clock=host)
    batches = iter([1.0, 1.0])

    def fetch():
        wait = next(batches, 50.0)
        host.spend(wait)
        if wait == 50.0:
            raise StopIteration
        return wait

    while True:
        try:
            with meter.waiting():
                fetch()
        except StopIteration:
            break
        host.spend(1.0)
        meter.step_done()
    times = meter.epoch_done()
    assert (times.steps, times.wait_s, times.wall_s) == (2, pytest.approx(2.0), pytest.approx(4.0))


def device_run(fetch, compute, copy=0.0, launch=0.001, steps=50):
    """Host fetches a batch, queues its copy and the step, and goes on at once."""
    host = Host()
    queue = Queue(host)
    meter = StallMeter(GPU, steps, event=queue.event)
    for _ in range(steps):
        with meter.waiting():
            host.spend(fetch)
            if copy:
                queue.launch(copy)  # the step's stream waits for the copy
        host.spend(launch)
        queue.launch(compute)
        meter.step_done()
    return meter.epoch_done(), queue


def test_a_host_that_waits_while_the_device_works_stalls_nobody():
    times, _ = device_run(fetch=0.010, compute=0.030)
    assert times.first_wait_s == pytest.approx(0.010)
    assert times.wait_s == pytest.approx(0.010)  # only the first batch found the device dry
    assert times.wall_s == pytest.approx(0.011 + 50 * 0.030)
    assert times.step_p50_s == pytest.approx(0.030)


def test_the_wait_counts_from_when_the_device_ran_dry():
    """Fetching takes 30 ms and launching 1 ms, computing 10 ms of them: the device is dry for 20 ms of each 31."""
    times, _ = device_run(fetch=0.030, compute=0.010)
    assert times.step_p50_s == pytest.approx(0.031)
    assert (times.wait_s - times.first_wait_s) / 49 == pytest.approx(0.020)
    assert times.stall_fraction == pytest.approx((0.030 + 49 * 0.020) / times.wall_s)


def test_a_copy_that_the_device_waits_for_is_a_stall():
    times, _ = device_run(fetch=0.0, compute=0.010, copy=0.002)
    assert (times.wait_s - times.first_wait_s) / 49 == pytest.approx(0.002)
    assert times.step_p50_s == pytest.approx(0.012)


def test_slow_launches_are_no_stall_for_data():
    times, _ = device_run(fetch=0.0, compute=0.001, launch=0.020)
    assert times.wait_s == pytest.approx(0.0, abs=1e-12)
    assert times.step_p50_s == pytest.approx(0.020)


def test_events_are_used_again():
    _, queue = device_run(fetch=0.010, compute=0.009, steps=1000)
    assert queue.made < 20


def spin(seconds):
    """Work of so long (sleeping would oversleep); returns how long it was, as the core may be taken away."""
    begin = now = time.perf_counter()
    while now < begin + seconds:
        now = time.perf_counter()
    return now - begin


@pytest.mark.parametrize(("delay", "work"), [(0.004, 0.012), (0.010, 0.002)])
def test_an_artificially_slowed_loader_in_real_time(delay, work):
    """40 batches, each late by a known delay: the measured stall is within 5 % of the truth."""
    delays, works = [], []

    def slowed():
        for i in range(40):
            delays.append(spin(delay))
            yield i

    meter = StallMeter(CPU, 40)
    batches = slowed()
    for _ in range(40):
        with meter.waiting():
            next(batches)
        works.append(spin(work))
        meter.step_done()
    times = meter.epoch_done()
    assert sum(delays) >= 40 * delay
    assert times.stall_fraction == pytest.approx(sum(delays) / (sum(delays) + sum(works)), rel=0.05)


def test_off_measures_nothing_and_says_nan():
    meter = StallMeter(CPU, 5, enabled=False, clock=lambda: pytest.fail("read the clock"))
    for _ in range(5):
        with meter.waiting():
            pass
        meter.step_done()
    times = meter.epoch_done()
    assert times.steps == 0
    assert all(math.isnan(v) for v in (times.wait_s, times.wall_s, times.stall_fraction, times.step_max_s))
