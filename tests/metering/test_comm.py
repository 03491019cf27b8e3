"""All-reduce figures against nccl-tests' definition, known matrices, broken all-reduces, and real ranks over MPI."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from torch import nn

from sciml_hpc.metering import comm


@pytest.mark.parametrize(
    ("size", "seconds", "ranks", "expected"),
    [
        (1e9, 0.1, 2, 10e9),  # two ranks: every byte crosses the link once each way
        (1e9, 0.1, 8, 17.5e9),
        (536870912, 5e-3, 1024, 536870912 / 5e-3 * 1.998046875),
        (100.0, 1.0, 1, 0.0),
    ],
)
def test_bus_bandwidth_as_nccl_tests_defines_it(size, seconds, ranks, expected):
    assert comm.bus_bandwidth(size, seconds, ranks) == pytest.approx(expected)


def test_gradient_bytes_are_those_of_trained_parameters():
    model = nn.Sequential(nn.Linear(10, 20), nn.BatchNorm1d(20), nn.Linear(20, 5, bias=False))
    assert comm.gradient_bytes(model) == 4 * (10 * 20 + 20 + 2 * 20 + 20 * 5)
    model[0].requires_grad_(False)
    assert comm.gradient_bytes(model) == 4 * (2 * 20 + 20 * 5)
    assert comm.gradient_bytes(model[2].to(torch.bfloat16)) == 2 * 20 * 5


def test_exposed_fraction():
    assert comm.exposed_fraction(0.10, 0.08) == pytest.approx(0.2)
    assert comm.exposed_fraction(0.10, 0.101) == pytest.approx(-0.01)
    with pytest.raises(ValueError, match="positive"):
        comm.exposed_fraction(0.0, 0.1)


def test_sweep_sizes_contain_the_gradient_and_only_whole_floats():
    sizes = comm.sweep_sizes(1 << 20, 123_457, 2)
    assert sizes == sorted(set(sizes))
    assert 123_456 in sizes
    assert sizes[0] == 8
    assert sizes[-1] == 1 << 20
    assert all(size % 4 == 0 and size > 0 for size in sizes)


@pytest.mark.parametrize("ranks", [1, 2, 15, 16, 17, 1000, 118_000])
def test_expected_sums_are_exact_and_representable(ranks):
    values = np.arange(ranks) % comm.RANK_PATTERN
    assert comm._sum_of_rank_pattern(ranks) == values.sum()
    largest = ranks * (comm.PATTERN - 1) + int(values.sum())
    assert np.float32(largest) == largest < 2**24


def pretend(ranks, rank):
    """An all-reduce over ranks that exist only as numbers: the true sum of what they would send."""

    def allreduce(message):
        base = message - rank % comm.RANK_PATTERN
        return base * ranks + sum(r % comm.RANK_PATTERN for r in range(ranks))

    return allreduce


def sweep(allreduce, ranks, rank, sizes, **more):
    cpu = torch.device("cpu")
    return comm.allreduce_sweep(allreduce, sizes, ranks, rank, cpu, lambda: None, lambda vector: vector, **more)


def test_rows_of_a_right_allreduce():
    rows = sweep(pretend(24, 19), 24, 19, [8, 4096], repetitions=3, warmup=1)
    assert [row.bytes for row in rows] == [8, 4096]
    for row in rows:
        assert row.correct
        assert row.repetitions == 3
        assert 0 < row.time_min_s <= row.time_median_s <= row.time_max_s
        assert row.algbw_bytes_per_s == pytest.approx(row.bytes / row.time_median_s)
        assert row.busbw_bytes_per_s == pytest.approx(row.algbw_bytes_per_s * 2 * 23 / 24)


@pytest.mark.parametrize(
    "damage",
    [
        lambda sums: sums * (1 / 24),  # the mean instead of the sum
        lambda sums: torch.cat([sums[:-1], sums[-1:] + 1]),  # one element off by one
        lambda sums: sums.roll(1),
        lambda sums: sums * float("nan"),
    ],
)
def test_a_wrong_allreduce_is_found(damage):
    right = pretend(24, 3)
    (row,) = sweep(lambda m: damage(right(m)), 24, 3, [4096], repetitions=2, warmup=0)
    assert not row.correct


def test_wrong_only_once_and_only_on_another_rank_is_found():
    right, calls = pretend(24, 3), []

    def flaky(message):
        calls.append(1)
        return right(message) + (len(calls) == 3)

    (row,) = sweep(flaky, 24, 3, [64], repetitions=5, warmup=1)
    assert not row.correct
    cpu = torch.device("cpu")
    elsewhere = comm.allreduce_sweep(
        right, [64], 24, 3, cpu, lambda: None, lambda v: np.append(v[:-1], 1.0), repetitions=1
    )
    assert not elsewhere[0].correct


def test_times_are_those_of_the_slowest_rank_in_each_repetition():
    other = np.array([0.5, 0.1, 0.3, 0.0])
    cpu = torch.device("cpu")
    (row,) = comm.allreduce_sweep(
        pretend(2, 0), [1 << 20], 2, 0, cpu, lambda: None, lambda mine: np.maximum(mine, other), repetitions=3, warmup=0
    )
    assert (row.time_min_s, row.time_median_s, row.time_max_s) == (0.1, 0.3, 0.5)
    assert row.busbw_bytes_per_s == pytest.approx((1 << 20) / 0.3)


def test_measured_time_is_that_of_the_allreduce_alone():
    right = pretend(2, 0)

    def slow(message):
        time.sleep(0.02)
        return right(message)

    cpu = torch.device("cpu")
    (row,) = comm.allreduce_sweep(slow, [64], 2, 0, cpu, lambda: time.sleep(0.05), lambda v: v, repetitions=3, warmup=0)
    assert 0.02 <= row.time_min_s < 0.05


@pytest.mark.mpi(min_size=2)
def test_sweep_over_mpi():
    """Plain MPI in place, as the command does it, on real ranks."""
    from mpi4py import MPI

    world = MPI.COMM_WORLD

    def allreduce(message):
        world.Allreduce(MPI.IN_PLACE, message.numpy())
        return message

    def highest(vector):
        world.Allreduce(MPI.IN_PLACE, vector, MPI.MAX)
        return vector

    rows = comm.allreduce_sweep(
        allreduce, comm.sweep_sizes(1 << 18, 1000), world.Get_size(), world.Get_rank(), torch.device("cpu"),
        world.Barrier, highest, repetitions=3, warmup=1,
    )  # fmt: skip
    assert all(row.correct for row in rows)
    assert world.allgather(rows) == [rows] * world.Get_size()
