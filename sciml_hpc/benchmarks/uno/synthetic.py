"""A simulated drug screen: Hill dose-response curves whose parameters follow from latent factors of cell and drug.

The response of a (cell, drug) pair has a part that follows from the cell's pathways and the drug's chemistry, both
visible in the features; a part that does not (mutations, targets that no descriptor shows), fixed for the pair; and
the error of the measured EC50. Features therefore explain most of the variance, not all.

Response curve: S(x) = Einf + (1 - Einf) / (1 + 10^(h (pEC50 - x))) with x = -log10(concentration in mol/L), the
three-parameter form of PharmacoDB (Smirnov et al., Nucleic Acids Research 46 (2018) D994) with which CANDLE fitted its
screens. Response of one drug: the mean of S over x from 4 to 10 (CANDLE's AUC). Response of two drugs: growth 2 S - 1
with S of Bliss independence (Bliss, Annals of Applied Biology 26 (1939) 585) times a synergy term.

Every random number of a sample is a hash of (seed, split, index), and every latent factor follows from the seed: a
sample is the same in whatever order or chunk it is read. Its last bits may depend on the processor through numpy's
exp and log.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from sciml_hpc.benchmarks.uno import library, sample_fields

if TYPE_CHECKING:
    from sciml_hpc.benchmarks.uno import Generator

SPLITS = ("train", "validation", "test")
DOSE_RANGE = (4.0, 10.0)
"""-log10(mol/L) over which CANDLE integrates the response curve."""
DOSES = np.arange(5.0, 8.6, 0.5)
"""Concentrations of paired drugs, -log10(mol/L): around ALMANAC's medians of 6.5 to 7 (Pilot1/Uno README)."""
HELD_OUT = 0.1
"""Share of pairs, cells or drugs for validation, and the same for test: the published 80/10/10."""


class Screen:
    """The samples of a simulated screen (a `base.Source`).

    Within a split a pair may come again, as a replicate with an error of its own; no pair is in two splits. So there
    are as many samples as anybody wants from libraries of any size. Cost: the libraries once per process (1 s, 45 MB
    at the published size), then copying: 25 kB per sample.
    """

    def __init__(self, generator: Generator, samples: Mapping[str, int], seed: int) -> None:
        self.generator, self.samples, self.seed = generator, dict(samples), seed
        self.fields = sample_fields(generator)

    @cached_property
    def world(self) -> World:
        """The libraries and the response model, made when the first sample is read."""
        return World(self.generator, self.seed)

    def read(self, split: str, first: int, count: int) -> dict[str, np.ndarray]:
        """Samples `first` … `first + count - 1`, as `base.Source` says."""
        index = np.arange(first, first + count, dtype=np.uint64)
        cell, *drugs = self.choose(split, index)
        errors = [self.generator.noise * _normal(self.seed, split, index, f"error{i}") for i in range(len(drugs))]
        world = self.world
        result = {"cell": world.cells.features[cell]}
        result |= {f"drug{i}": world.drugs.features[d] for i, d in enumerate(drugs, 1)}
        if self.generator.drugs == 1:
            response = world.auc(cell, drugs[0], errors[0])
        else:
            doses = [DOSES[_hash(self.seed, split, index, f"dose{i}") % np.uint64(len(DOSES))] for i in (1, 2)]
            result |= {f"dose{i}": d.astype(np.float32) for i, d in enumerate(doses, 1)}
            response = world.growth(cell, drugs, doses, errors)
        result["response"] = response.astype(np.float32)
        return {f.name: result[f.name] for f in self.fields}

    def choose(self, split: str, index: np.ndarray) -> list[np.ndarray]:
        """Cell and drug (or two drugs, the lower number first) of each sample: drawn until they belong to the split."""
        g = self.generator
        counts = [g.cells] + [g.compounds] * g.drugs
        chosen = [np.empty(len(index), np.int64) for _ in counts]
        open_ = np.arange(len(index))
        attempt = 0
        while len(open_):
            draw = [
                (_hash(self.seed, split, index[open_], f"choice{k}", attempt) % np.uint64(n)).astype(np.int64)
                for k, n in enumerate(counts)
            ]
            draw[1:] = list(np.sort(draw[1:], axis=0))
            for target, values in zip(chosen, draw, strict=True):
                target[open_] = values
            open_ = open_[~self._belongs(split, draw)]
            attempt += 1
        return chosen

    def _belongs(self, split: str, draw: list[np.ndarray]) -> np.ndarray:
        """Which drawn combinations belong to `split`; two equal drugs are no pair."""
        cell, *drugs = draw
        if self.generator.split == "pairs":
            code = cell.astype(np.uint64)
            for drug in drugs:
                code = code * np.uint64(self.generator.compounds) + drug.astype(np.uint64)
            member = _side(_uniform(_hash(self.seed, "pairs", code))) == SPLITS.index(split)
        else:
            items = [cell] if self.generator.split == "cells" else drugs
            member = np.all([self._side_of_item[i] == SPLITS.index(split) for i in items], axis=0)
        return member & (drugs[0] != drugs[-1]) if len(drugs) == 2 else member

    @cached_property
    def _side_of_item(self) -> np.ndarray:
        """Split of each cell (or drug): exact tenths of a random order, so that none is empty."""
        g = self.generator
        n = g.cells if g.split == "cells" else g.compounds
        order = np.random.default_rng([self.seed, 4]).permutation(n)
        return _side((order + 0.5) / n)


class World:
    """The latent truth of a screen: what `Screen` measures, with error.

    The coefficients are this simulator's own. They give the AUC of the full libraries a variance of 0.022 (published:
    0.0237), of which drugs' means explain 0.010, cells' means 0.002 and the two together in interaction 0.010; the
    last two are what a network must find in the features. 0.0012 and the error's 0.0016 nobody can find.
    """

    def __init__(self, generator: Generator, seed: int) -> None:
        self.seed = seed
        self.cells = library.cells(generator.cells, generator.genes, np.random.default_rng([seed, 1]))
        self.drugs = library.compounds(generator.compounds, generator.descriptors, np.random.default_rng([seed, 2]))
        rng = np.random.default_rng([seed, 3])
        # Structure to mechanism: a random one-layer network, smooth but not linear in the chemistry.
        hidden = np.tanh(library.matmul(self.drugs.latent, rng.normal(0, 0.16, (library.CHEMISTRY, 64))))
        affinity = np.exp(library.matmul(hidden, rng.normal(0, 0.25, (64, library.PATHWAYS))))
        affinity -= 0.6 * affinity.mean(axis=0)  # part of it stays common: some cells are sensitive to everything
        self.mechanism = affinity / np.linalg.norm(affinity, axis=1, keepdims=True)
        pull = rng.normal(size=(library.PATHWAYS, library.PATHWAYS))
        self.interaction = pull + pull.T
        potency = _unit(library.matmul(hidden, rng.normal(size=(64, 1)))[:, 0])
        self.pathways = _unit(self.cells.latent)
        robustness = _unit(library.matmul(self.pathways, rng.normal(size=(library.PATHWAYS, 1)))[:, 0])
        # To what features show, each drug and cell adds something of its own that they do not.
        self.robustness = robustness + 0.3 * rng.normal(size=len(robustness))
        self.pec50 = 5.4 + 0.75 * potency + 0.1 * rng.normal(size=len(potency))
        self.efficacy = -1.1 - 0.45 * potency + 0.5 * rng.normal(size=len(potency))
        self.slope = np.minimum(np.exp(rng.normal(0.1, 0.35, len(potency))), 4.0)

    def curve(
        self, cell: np.ndarray, drug: np.ndarray, error: float | np.ndarray = 0.0
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """pEC50 (-log10 mol/L) measured with `error`, Einf and Hill slope of each (cell, drug); bounds as in CANDLE's
        fits: 0 to 12, 0 to 1, 0 to 4."""
        effect = np.einsum("ik,ik->i", self.pathways[cell], self.mechanism[drug])
        hidden = _normal(self.seed, "pair", cell.astype(np.uint64) << np.uint64(32) | drug.astype(np.uint64))
        resistance = self.robustness[cell]
        pec50 = np.clip(self.pec50[drug] + 0.7 * effect - 0.25 * resistance + 0.3 * hidden + error, 0.0, 12.0)
        einf = 1.0 / (1.0 + np.exp(-(self.efficacy[drug] - 0.5 * effect + 0.3 * resistance)))
        return pec50, einf, self.slope[drug]

    def auc(self, cell: np.ndarray, drug: np.ndarray, error: float | np.ndarray = 0.0) -> np.ndarray:
        """Mean of the response curve over `DOSE_RANGE`, its pEC50 measured with `error`: float64 (n,), 0 to 1."""
        return curve_mean(*self.curve(cell, drug, error))

    def growth(
        self, cell: np.ndarray, drugs: list[np.ndarray], doses: list[np.ndarray], errors: Sequence[float | np.ndarray]
    ) -> np.ndarray:
        """Growth -1 to 1 under two drugs at two doses, their pEC50 measured with `errors`: float64 (n,)."""
        pairs = zip(drugs, doses, errors, strict=True)
        alone = [survival(dose, *self.curve(cell, drug, error)) for drug, dose, error in pairs]
        meeting = np.einsum("ik,kl,il->i", self.mechanism[drugs[0]], self.interaction, self.mechanism[drugs[1]])
        synergy = np.exp(-2.0 * np.tanh(4.0 * meeting) * (1.0 - alone[0]) * (1.0 - alone[1]))
        return 2.0 * np.clip(alone[0] * alone[1] * synergy, 0.0, 1.0) - 1.0


def survival(x: np.ndarray, pec50: np.ndarray, einf: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Surviving fraction at concentration 10^-x mol/L."""
    return einf + (1.0 - einf) / (1.0 + 10.0 ** (slope * (pec50 - x)))


def curve_mean(pec50: np.ndarray, einf: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Mean of `survival` over `DOSE_RANGE`, in closed form: d/dx [x + log10(1 + 10^(h (p - x))) / h] = 1 / (1 + …)."""
    low, high = (x + np.logaddexp(0.0, np.log(10.0) * slope * (pec50 - x)) / np.log(10.0) / slope for x in DOSE_RANGE)
    return einf + (1.0 - einf) * (high - low) / (DOSE_RANGE[1] - DOSE_RANGE[0])


def _unit(x: np.ndarray) -> np.ndarray:
    """Columns to mean 0 and standard deviation 1 over the library, so that every seed is about as hard."""
    return (x - x.mean(axis=0)) / x.std(axis=0)


def _side(u: np.ndarray) -> np.ndarray:
    """Number of the split for each of uniform [0, 1): test below 0.1, validation below 0.2, else train."""
    return np.where(u < HELD_OUT, SPLITS.index("test"), np.where(u < 2 * HELD_OUT, SPLITS.index("validation"), 0))


def _hash(seed: int, *words: str | int | np.ndarray) -> np.ndarray:
    """64 random bits for each combination of seed and words (text, integers, arrays of uint64 that broadcast): each is
    mixed in by the finaliser of SplitMix64 (Steele, Lea & Flood, OOPSLA 2014)."""
    state = np.array([seed], np.uint64)  # an array, for unlike scalars arrays wrap around without a warning
    for word in words:
        if isinstance(word, str):
            word = zlib.crc32(word.encode())
        state = state + np.asarray(word, np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = state ^ (state >> np.uint64(31))
    return state


def _uniform(bits: np.ndarray) -> np.ndarray:
    """Uniform in [0, 1): the upper 53 of 64 bits."""
    return (bits >> np.uint64(11)) * 2.0**-53


def _normal(seed: int, *words: str | np.ndarray) -> np.ndarray:
    """One standard normal per combination of `words`, by Box and Muller."""
    radius = np.sqrt(-2.0 * np.log1p(-_uniform(_hash(seed, *words, "radius"))))
    return radius * np.cos(2.0 * np.pi * _uniform(_hash(seed, *words, "angle")))
