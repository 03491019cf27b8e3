"""Efficiencies against known truth, their product, and their intervals against scipy."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from studies.machines import Machine

from sciml_hpc.studies.efficiency import geometric, ratio, splits, weak_metric
from sciml_hpc.studies.times import Parts, Timed


def plain(ranks: int, samples_per_s: float, epochs: int, time_s: float, staging_s: float = 0.0, **more) -> Timed:
    parts = Parts(staging_s, 0.0, time_s - staging_s, 0.0, 0.0, 0.0, 0.0, 0.0)
    return Timed("run", ranks, ranks, 64, 6400, epochs, True, samples_per_s, parts, **more)


def test_by_hand_strong():
    """DeepCAM on Piz Daint, 128 to 1024 GPUs (MLPerf HPC v1.0): epochs of 409.2 and 55.1 s, 9 and 23.2 of them."""
    before = plain(128, 1 / 409.2, 9, 61.5 * 60)
    after = replace(plain(1024, 1 / 55.1, 9, 21.9 * 60), epochs=23.2)  # type: ignore[arg-type]  # a mean of runs
    found = splits([before, after], "strong")[1]
    assert found.throughput.value == pytest.approx(0.928, abs=5e-4)
    assert found.convergence.value == pytest.approx(0.388, abs=5e-4)
    assert found.time.value == pytest.approx(0.351, abs=5e-4)
    assert found.overhead.value == pytest.approx(found.time.value / (found.throughput.value * found.convergence.value))


def test_by_hand_weak():
    found = splits([plain(1, 100, 5, 50, 10), plain(4, 360, 6, 80, 20)], "weak")[1]
    assert found.total.value == pytest.approx(50 / 80)
    assert found.time.value == pytest.approx(40 / 60)
    assert found.staging.value == pytest.approx((50 / 40) / (80 / 60))
    assert found.throughput.value == pytest.approx(0.9)
    assert found.convergence.value == pytest.approx(5 / 6)


@pytest.mark.parametrize("scaling", ["strong", "weak"])
def test_factors_multiply_exactly_whatever_the_scatter(scaling: str):
    runs = Machine(noise=0.2).study([1, 2, 8, 32], scaling, repeats=4)
    random = np.random.default_rng(0)
    runs = [replace(run, epochs=int(random.integers(5, 20))) for run in runs]
    for row in splits(runs, scaling):
        assert row.time.value * row.staging.value == pytest.approx(row.total.value, rel=1e-12)
        product = row.throughput.value * row.convergence.value * row.overhead.value
        assert product == pytest.approx(row.time.value, rel=1e-12)


def test_the_smallest_size_is_exactly_one():
    first = splits(Machine(noise=0.1).study([1, 4], "strong", repeats=3), "strong")[0]
    for name in ("total", "staging", "time", "throughput", "convergence", "overhead"):
        interval = getattr(first, name)
        assert (interval.value, interval.low, interval.high, interval.n) == (1, 1, 1, 3)


def test_a_perfect_machine_has_efficiency_one():
    perfect = Machine(compute=(0.0, 0.002), sigma=0, latency_s=0, bandwidth_s=0, staging=(0, 60), evaluation=(0, 40))
    perfect = replace(perfect, setup_s=0.0, other_s=0.0)
    for row in splits(perfect.study([1, 2, 16], "strong"), "strong"):
        assert row.total.value == pytest.approx(1, rel=1e-12)


def test_intervals_are_welchs_on_logarithms():
    a, b = [10.0, 11.0, 10.4, 12.1], [20.0, 19.0, 21.5]
    found = ratio(a, b, factor=2.0)
    test = stats.ttest_ind(np.log(a), np.log(b), equal_var=False)
    truth = test.confidence_interval(0.95)
    assert found.value == pytest.approx(2 * stats.gmean(a) / stats.gmean(b))
    # whole degrees of freedom, rounded down: a little wider
    assert 2 * math.exp(truth.low) * 0.96 < found.low <= 2 * math.exp(truth.low)
    assert 2 * math.exp(truth.high) <= found.high < 2 * math.exp(truth.high) * 1.04


def test_geometric_mean_interval():
    values = [3.0, 3.3, 2.8, 3.1]
    found = geometric(values)
    low, high = stats.t.interval(0.95, 3, np.mean(np.log(values)), stats.sem(np.log(values)))
    assert (found.low, found.high) == pytest.approx((math.exp(low), math.exp(high)))
    assert geometric([5.0]).low is None


def test_intervals_cover_the_truth_nineteen_times_in_twenty():
    machine = Machine(noise=0.05, epochs=3)
    truth = splits(Machine(epochs=3).study([1, 8], "strong"), "strong")[1].throughput.value
    hits = 0
    for seed in range(300):
        row = splits(machine.study([1, 8], "strong", repeats=4, seed=seed), "strong")[1]
        hits += row.throughput.low <= truth <= row.throughput.high
    assert 0.91 < hits / 300 <= 1


def test_energy_of_one_kind_or_none():
    cheap = {"gpu": 1000.0, "node": None, "cpu": 50.0}
    dear = {"gpu": 1500.0, "node": None, "cpu": 50.0}
    runs = [plain(1, 100, 5, 50, energy_J=cheap), plain(2, 190, 5, 27, energy_J=dear)]
    found = splits(runs, "strong")[1]
    assert found.energy.value == pytest.approx(1000 / 1500)
    assert found.energy_note.startswith("gpu energy")
    found = splits([runs[0], replace(runs[1], energy_J={"gpu": None, "node": None, "cpu": 100.0})], "strong")[1]
    assert found.energy.value == pytest.approx(0.5)
    assert found.energy_note.startswith("cpu energy")
    assert splits([runs[0], replace(runs[1], energy_J=None)], "strong")[1].energy is None


def test_fixed_work_measures_no_convergence():
    runs = [replace(plain(n, 100 * n, 5, 50 / n), converged=False) for n in (1, 2)]
    assert not splits(runs, "strong")[1].convergence_measured


def test_weak_metric_of_mlperf():
    groups = [
        {"start_s": 10.0, "stop_s": 70.0, "converged": True},
        {"start_s": 12.0, "stop_s": 130.0, "converged": True},
        {"start_s": 5.0, "stop_s": 900.0, "converged": False},
    ]
    assert weak_metric(groups, 4) == {"T": 12, "S": 4, "M": 2, "TTTa_s": 120.0, "models_per_min": 1.0}
    assert weak_metric(groups[2:], 4)["TTTa_s"] is None
