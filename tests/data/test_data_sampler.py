"""The order of samples: permutations, shared out exactly, reproducible, random enough, and never held as a whole."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from scipy import stats
from toy import clean_environment

from sciml_hpc.data.sampler import Sampler, hash_seed, permute, share


def sampler(**change: object) -> Sampler:
    facts = {
        "samples": 1000, "local_batch": 8, "world_size": 1, "low": 0, "high": 1000,
        "position": 0, "sharers": 1, "seed": 1, "shuffle": True,
    }  # fmt: skip
    return Sampler(**(facts | change))


def global_order(samples: int, ranks: int, global_batch: int, epoch: int, **more: object) -> np.ndarray:
    """The samples of every step over all ranks when every node holds all: shape (steps, global batch), sorted."""
    parts = [
        sampler(
            samples=samples, high=samples, local_batch=global_batch // ranks, world_size=ranks,
            position=rank, sharers=ranks, **more
        ).epoch(epoch)
        for rank in range(ranks)
    ]  # fmt: skip
    assert len({p.shape for p in parts}) == 1  # the same number of steps on every rank
    return np.sort(np.concatenate(parts, axis=1), axis=1)


# --- the permutation -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 16, 17, 63, 64, 65, 1000, 4096, 4097, 100_003])
def test_it_is_a_permutation(size: int):
    for seed in (0, 1, 2**62):
        assert np.array_equal(np.sort(permute(np.arange(size), size, seed)), np.arange(size))


def test_each_place_can_be_computed_alone():
    whole = permute(np.arange(1000), 1000, 5)
    assert np.array_equal(permute(np.array([[3, 999], [0, 500]]), 1000, 5), whole[[[3, 999], [0, 500]]])
    assert whole.dtype == np.int64


@pytest.mark.parametrize("size", [1, 5, 320, 1000, 16_384])
def test_a_table_of_the_domain_changes_nothing(size: int, monkeypatch):
    by_table = permute(np.arange(size), size, 5)
    monkeypatch.setattr("sciml_hpc.data.sampler.TABLE_SIZE", 0)
    assert np.array_equal(permute(np.arange(size), size, 5), by_table)


def test_sizes_beyond_32_bits():
    size = 10**12 + 39
    found = permute(np.arange(size - 50_000, size), size, 3)
    assert found.min() >= 0
    assert found.max() < size
    assert len(np.unique(found)) == 50_000
    assert stats.kstest(found / size, "uniform").pvalue > 1e-4


def test_samples_are_as_likely_in_every_place_and_in_every_order():
    size, draws = 24, 1200
    counts = np.zeros((size, size))
    orders = dict.fromkeys(itertools.permutations(range(5)), 0)
    for seed in range(draws):
        order = permute(np.arange(size), size, seed)
        counts[np.arange(size), order] += 1
        orders[tuple(order[:5].argsort().tolist())] += 1
    # Row and column sums are fixed: (size − 1)² degrees of freedom.
    chi2 = ((counts - draws / size) ** 2 / (draws / size)).sum() * (size - 1) / size
    assert 1e-4 < stats.chi2.sf(chi2, (size - 1) ** 2) < 1 - 1e-4
    assert stats.chisquare(list(orders.values())).pvalue > 1e-4


@pytest.mark.parametrize("size", [1000, 4096, 65_537])
def test_places_and_samples_are_not_correlated(size: int):
    orders = [permute(np.arange(size), size, hash_seed(9, epoch)) for epoch in range(3)]
    for a, b in [(np.arange(size), orders[0]), (orders[0], orders[1]), (orders[1], orders[2])]:
        assert abs(stats.spearmanr(a, b).statistic) < 4 / math.sqrt(size)
        assert abs(stats.spearmanr(a[:-1], b[1:]).statistic) < 4 / math.sqrt(size)
    # Neighbours stay neighbours about twice in a random order (Poisson with mean 2).
    together = int((np.abs(np.diff(orders[0])) == 1).sum())
    assert stats.poisson.sf(together - 1, 2) > 1e-5


# --- shares --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("total", "parts"), [(10, 3), (3, 10), (1000, 7), (0, 4), (10**15 + 1, 64)])
def test_shares_are_contiguous_complete_and_even(total: int, parts: int):
    cuts = [share(total, parts, k, k + 1) for k in range(parts)]
    assert cuts[0][0] == 0
    assert cuts[-1][1] == total
    assert all(a[1] == b[0] for a, b in itertools.pairwise(cuts))
    sizes = [high - low for low, high in cuts]
    assert max(sizes) - min(sizes) <= 1
    assert share(total, parts, 0, parts) == (0, total)


# --- ranks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("samples", "ranks", "local_batch"), [(1000, 1, 8), (1000, 3, 7), (1000, 4, 250), (1001, 8, 5), (37, 4, 3)]
)
def test_with_all_samples_on_each_node_ranks_are_disjoint(samples: int, ranks: int, local_batch: int):
    seen = global_order(samples, ranks, ranks * local_batch, epoch=1)
    assert seen.shape == (samples // (ranks * local_batch), ranks * local_batch)
    assert len(np.unique(seen)) == seen.size
    assert 0 <= seen.min() <= seen.max() < samples


def test_the_samples_of_a_step_do_not_depend_on_the_number_of_ranks():
    orders = [global_order(1003, ranks, 24, epoch=2) for ranks in (1, 2, 3, 4, 6, 24)]
    assert all(np.array_equal(orders[0], other) for other in orders[1:])


@pytest.mark.parametrize("places", [(0, 2, 4), (0, 1, 2, 3, 4, 5), (0, 3, 4, 9), (0, 5)])
@pytest.mark.parametrize("samples", [101, 1000])
def test_partitioned_ranks_take_their_nodes_samples_only_each_once(places: tuple[int, ...], samples: int):
    ranks, seen = places[-1], []
    for first, last in itertools.pairwise(places):
        low, high = share(samples, ranks, first, last)
        for position in range(last - first):
            part = sampler(
                samples=samples, local_batch=4, world_size=ranks, low=low, high=high,
                position=position, sharers=last - first,
            ).epoch(3)  # fmt: skip
            assert part.shape == (samples // (4 * ranks), 4)
            assert low <= part.min() <= part.max() < high
            seen.append(part.ravel())
    joined = np.concatenate(seen)
    assert len(np.unique(joined)) == len(joined)
    assert len(joined) > samples - 4 * ranks  # less than one global batch is left out


def test_samples_left_out_differ_from_epoch_to_epoch():
    left = [set(range(1003)) - set(global_order(1003, 2, 64, epoch).ravel().tolist()) for epoch in range(1, 6)]
    assert all(len(part) == 1003 % 64 for part in left)
    assert len(set.union(*left)) > 2 * (1003 % 64)


def test_reproducible_and_different_by_seed_and_epoch():
    first = sampler().epoch(1)
    assert np.array_equal(first, sampler().epoch(1))
    assert not np.array_equal(first, sampler().epoch(2))
    assert not np.array_equal(first, sampler(seed=2).epoch(1))
    code = (
        "from sciml_hpc.data.sampler import Sampler\n"
        "print(Sampler(1000, 8, 1, 0, 1000, 0, 1, 1, True).epoch(1)[:3].tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean_environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(first[:3].tolist())


def test_neighbours_are_read_together_and_steps_can_be_skipped():
    whole = sampler().epoch(4)
    assert (np.diff(whole, axis=1) > 0).all()
    assert np.array_equal(sampler().epoch(4, first_step=100), whole[100:])
    assert sampler().epoch(4, first_step=125).shape == (0, 8)


def test_without_shuffling_it_is_the_order_of_the_data_set():
    assert np.array_equal(global_order(100, 4, 20, epoch=7, shuffle=False), np.arange(100).reshape(5, 20))


def test_a_thousand_million_samples_are_never_held():
    tracemalloc.start()
    part = sampler(samples=10**9, high=10**9, local_batch=8, world_size=4096, position=77, sharers=4096).epoch(1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert part.shape == (10**9 // (8 * 4096), 8)
    assert peak < 16 * part.nbytes < 40e6
    assert len(np.unique(part)) == part.size
