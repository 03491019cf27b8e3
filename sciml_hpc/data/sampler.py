"""Which samples a rank takes, in which order: the same number of steps on every rank, reproducible from a seed.

A pseudo-random permutation is computed where it is needed (a Feistel network over the sample numbers), so no rank ever
holds an order of the whole data set: memory and time are O(samples this rank reads), whatever the data set and world.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ROUNDS = 6
TABLE_SIZE = 1 << 14
"""A domain of so many numbers is worked out whole: each call of numpy costs more than these do."""
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def permute(positions: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Where a permutation of 0 … size−1 that is drawn by `seed` takes `positions` (int64, any shape).

    A balanced Feistel network over the next power of four, with cycle walking (Black and Rogaway 2002, "Ciphers with
    arbitrary finite domains"); the round function is the finaliser of SplitMix64 (Steele, Lea and Flood 2014). In a
    small domain each walk goes by a table of all of it.
    """
    half = np.uint64(max(1, (max(size - 1, 1).bit_length() + 1) // 2))
    keys = np.random.SeedSequence(seed).generate_state(ROUNDS, np.uint64)
    domain = 1 << 2 * int(half)
    table = None
    if domain <= TABLE_SIZE:
        table = _feistel(np.arange(domain, dtype=np.uint64), half, keys)
    result = positions.astype(np.uint64)
    walking = np.ones(result.shape, dtype=bool)
    while walking.any():
        result[walking] = _feistel(result[walking], half, keys) if table is None else table[result[walking]]
        walking = result >= size
    return result.astype(np.int64)


def _feistel(x: np.ndarray, half: np.uint64, keys: np.ndarray) -> np.ndarray:
    """The network once, over numbers of 2·`half` bits."""
    mask = np.uint64((1 << int(half)) - 1)
    left, right = x >> half, x & mask
    with np.errstate(over="ignore"):
        for key in keys:
            left, right = right, left ^ (_mix(right + key) & mask)
    return (left << half) | right


def _mix(x: np.ndarray) -> np.ndarray:
    x = x + _GOLDEN
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def share(total: int, parts: int, first: int, last: int) -> tuple[int, int]:
    """The part of 0 … total−1 that places `first` … `last − 1` of `parts` hold: cut as evenly as can be."""
    return total * first // parts, total * last // parts


@dataclass(frozen=True)
class Sampler:
    """Order of the training samples for one rank.

    With a whole data set on each node (`replicate`, `none`) the order is one permutation of all samples, cut into
    global batches and those into the ranks' local batches: the samples of a step do not depend on the number of ranks.
    With `partition` each node permutes the samples it holds; on a single node that is the same thing.
    """

    samples: int
    """Training samples of the data set."""
    local_batch: int
    world_size: int
    low: int
    """First sample that this rank's node holds."""
    high: int
    """One past the last."""
    position: int
    """Place of this rank among those that share the samples low … high−1."""
    sharers: int
    """How many ranks share them."""
    seed: int
    shuffle: bool

    @property
    def steps(self) -> int:
        """Steps of an epoch: whole global batches, the same on every rank."""
        return self.samples // (self.local_batch * self.world_size)

    def epoch(self, epoch: int, first_step: int = 0) -> np.ndarray:
        """Sample numbers of an epoch (counted from 1) from `first_step` on: int64, shape (steps, local_batch).

        Within a batch they are in rising order, so that neighbours are read together.
        """
        step = np.arange(first_step, self.steps)[:, None]
        batch = np.arange(self.local_batch)[None, :]
        positions = (step * self.sharers + self.position) * self.local_batch + batch
        if self.shuffle:
            positions = permute(positions, self.high - self.low, seed=hash_seed(self.seed, epoch, self.low))
        return np.sort(self.low + positions, axis=1)


def hash_seed(*numbers: int) -> int:
    """One 63-bit seed from several numbers, well mixed: for generators that take a single integer."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
