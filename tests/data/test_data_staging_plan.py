"""The plan of staging: which shards a node needs, the way each takes, and that every node sees the same."""

from __future__ import annotations

import itertools
import time
import tracemalloc
from collections import Counter

import numpy as np
import pytest

from sciml_hpc.data import staging
from sciml_hpc.data.sampler import share
from sciml_hpc.data.shards import Index, Shard


def index_of(shards: int, samples: int) -> Index:
    """Shards without content, of uneven sizes, in two splits."""
    made = []
    for split, count, total in (("train", shards, samples), ("validation", max(1, shards // 5), max(1, samples // 5))):
        cuts = np.linspace(0, 1, count + 1) ** 1.3 * (total - count) // 1
        cuts = cuts.astype(int) + np.arange(count + 1)  # every shard has a sample
        made += [
            Shard(f"{split}-{k:06d}.h5", split, int(a), int(b - a), 1 << 20)
            for k, (a, b) in enumerate(itertools.pairwise(cuts))
        ]
    return Index("d", "b", "f", {}, (), tuple(made))


PLACES = [(0, 1), (0, 4), (0, 1, 2), (0, 2, 4, 6, 8), (0, 1, 4, 9), tuple(range(0, 257, 8))]


@pytest.mark.parametrize("places", PLACES, ids=lambda p: f"{len(p) - 1} nodes")
@pytest.mark.parametrize("mode", ["partition", "replicate"])
@pytest.mark.parametrize(("shards", "samples"), [(1, 500), (7, 500), (200, 5000)])
def test_every_shard_is_read_by_exactly_one_node(mode: str, places: tuple[int, ...], shards: int, samples: int):
    index, nodes = index_of(shards, samples), len(places) - 1
    readers = Counter()
    for node in range(nodes):
        readers.update(s.shard.file for s in staging.plan(index, places, mode, node) if s.head == node)
    assert readers == {s.file: 1 for s in index.shards}


@pytest.mark.parametrize("places", PLACES, ids=lambda p: f"{len(p) - 1} nodes")
def test_a_node_gets_exactly_the_shards_of_its_samples(places: tuple[int, ...]):
    index = index_of(40, 3000)
    for node in range(len(places) - 1):
        needed = set()
        for split in ("train", "validation"):
            low, high = share(index.samples(split), places[-1], places[node], places[node + 1])
            needed |= {s.file for s in index.of(split) if s.first < high and low < s.first + s.count}
        assert {s.shard.file for s in staging.plan(index, places, "partition", node)} == needed
        assert len(staging.plan(index, places, "replicate", node)) == len(index.shards)


@pytest.mark.parametrize("mode", ["partition", "replicate"])
def test_the_nodes_agree_on_the_way_of_each_shard(mode: str):
    index, places = index_of(9, 3000), (0, 2, 3, 5, 6, 9)
    ways: dict[int, dict[int, tuple[int | None, int | None]]] = {}
    for node in range(5):
        steps = staging.plan(index, places, mode, node)
        assert [s.number for s in steps] == sorted(s.number for s in steps)  # the same order everywhere: no deadlock
        for step in steps:
            ways.setdefault(step.number, {})[node] = step.neighbours(node)
    for number, neighbours in ways.items():
        (head,) = [node for node, (before, _) in neighbours.items() if before is None]
        visited, node = [], head
        while node is not None:
            before = visited[-1] if visited else None
            visited.append(node)
            assert neighbours[node][0] == before
            node = neighbours[node][1]
        assert sorted(visited) == sorted(neighbours), number


def test_reading_is_spread_evenly():
    index, places = index_of(400, 10**6), tuple(range(0, 65, 4))
    for mode in ("partition", "replicate"):
        reads = [sum(s.head == node for s in staging.plan(index, places, mode, node)) for node in range(16)]
        if mode == "replicate":
            assert max(reads) - min(reads) <= 1
    even = Index("d", "b", "f", {}, (), tuple(Shard(f"t{k}", "train", k * 10, 10) for k in range(400)))
    reads = [sum(s.head == n for s in staging.plan(even, places, "partition", n)) for n in range(16)]
    assert reads == [25] * 16


@pytest.mark.parametrize("mode", ["partition", "replicate"])
def test_4096_nodes_and_100_000_shards(mode: str):
    index = Index("d", "b", "f", {}, (), tuple(Shard(f"t{k:06d}", "train", 90 * k, 90, 1) for k in range(100_000)))
    places = tuple(range(0, 4096 * 8 + 1, 8))
    begin = time.process_time()
    steps = staging.plan(index, places, mode, 4095)
    spent = time.process_time() - begin
    assert len(steps) == (100_000 if mode == "replicate" else 25)
    assert spent < 1
    tracemalloc.start()
    staging.plan(index, places, mode, 17)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100e6
