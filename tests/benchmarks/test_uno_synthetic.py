"""The simulated screen: its science, its splits, and that a sample is the same however it is asked for."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import kstest, kurtosis

from sciml_hpc.benchmarks.uno import Generator, library
from sciml_hpc.benchmarks.uno.synthetic import Screen, World, curve_mean, survival

SMALL = {"genes": 20, "descriptors": 96, "cells": 60, "compounds": 50}


def screen(seed: int = 5, **fields: object) -> Screen:
    return Screen(Generator(**(SMALL | fields)), {"train": 1000, "validation": 300, "test": 300}, seed)


CURVES = [(6.0, 0.2, 1.1), (3.0, 0.0, 3.9), (11.5, 0.9, 0.3), (0.0, 0.5, 4.0), (7.7, 1.0, 2.0)]


@pytest.mark.parametrize("curve", CURVES)
def test_auc_is_the_integral_of_the_curve(curve: tuple[float, float, float]) -> None:
    bend = min(max(curve[0], 4.0), 10.0)
    integral = quad(lambda x: survival(np.float64(x), *curve), 4, 10, epsabs=1e-12, points=[bend])[0]
    assert curve_mean(*map(np.float64, curve)) == pytest.approx(integral / 6, rel=1e-9)


def test_curve_is_halfway_at_ec50_and_falls_with_concentration() -> None:
    assert survival(np.float64(6), 6.0, 0.2, 1.7) == pytest.approx(0.6)
    assert survival(np.float64(12), 6.0, 0.2, 1.7) == pytest.approx(1.0, abs=1e-9)
    assert survival(np.float64(0), 6.0, 0.2, 1.7) == pytest.approx(0.2, abs=1e-9)


@pytest.mark.parametrize("fields", [{}, {"drugs": 2}, {"split": "cells"}, {"split": "drugs", "drugs": 2}])
def test_a_sample_does_not_depend_on_chunk_or_order(fields: dict[str, object]) -> None:
    whole = screen(**fields).read("train", 0, 100)
    other = screen(**fields)
    late = other.read("train", 90, 10)
    pieces = [other.read("train", first, 15) for first in range(0, 90, 15)]
    for name, values in whole.items():
        field = {f.name: f for f in other.fields}[name]
        assert values.shape == (100, *field.shape)
        assert values.dtype == field.dtype
        assert np.isfinite(values).all()
        np.testing.assert_array_equal(values, np.concatenate([*(p[name] for p in pieces), late[name]]))


def test_seed_and_split_matter_and_counts_do_not() -> None:
    base = screen().read("train", 0, 50)["response"]
    assert not np.array_equal(screen(seed=6).read("train", 0, 50)["response"], base)
    assert not np.array_equal(screen().read("test", 0, 50)["response"], base)
    larger = Screen(Generator(**SMALL), {"train": 10**9, "validation": 7}, 5)
    np.testing.assert_array_equal(larger.read("train", 0, 50)["response"], base)
    assert larger.read("train", 10**9 - 3, 3)["response"].shape == (3,)


@pytest.mark.parametrize("threads", ["1", "4"])
def test_same_bits_whatever_the_number_of_threads(threads: str) -> None:
    code = (
        "import hashlib; from sciml_hpc.benchmarks.uno import Generator, Uno;"
        "g = Generator(genes=200, descriptors=600, cells=200, compounds=200);"
        "s = Uno.simulator(g, {'train': 64}, 3).read('train', 0, 64);"
        "print(hashlib.sha256(b''.join(v.tobytes() for v in s.values())).hexdigest())"
    )
    env = os.environ | {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
    printed = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    source = Screen(Generator(genes=200, descriptors=600, cells=200, compounds=200), {"train": 64}, 3)
    here = hashlib.sha256(b"".join(v.tobytes() for v in source.read("train", 0, 64).values())).hexdigest()
    assert printed.strip() == here


@pytest.mark.parametrize("drugs", [1, 2])
def test_no_pair_is_in_two_splits_and_shares_are_80_10_10(drugs: int) -> None:
    source, seen = screen(drugs=drugs), {}
    for split in ("train", "validation", "test"):
        chosen = source.choose(split, np.arange(20_000, dtype=np.uint64))
        seen[split] = set(zip(*(c.tolist() for c in chosen), strict=True))
        if drugs == 2:
            assert (chosen[1] < chosen[2]).all()
    assert not seen["train"] & seen["validation"]
    assert not seen["train"] & seen["test"]
    assert not seen["validation"] & seen["test"]
    if drugs == 1:  # 20,000 draws of 3,000 pairs meet nearly all of them
        shares = np.array([len(s) for s in seen.values()]) / (60 * 50)
        np.testing.assert_allclose(shares, [0.8, 0.1, 0.1], atol=0.02)


@pytest.mark.parametrize(("split", "drugs"), [("cells", 1), ("drugs", 1), ("drugs", 2)])
def test_held_out_cells_or_drugs_are_unseen(split: str, drugs: int) -> None:
    source, seen = screen(split=split, drugs=drugs), []
    for part in ("train", "validation", "test"):
        cell, *compounds = source.choose(part, np.arange(5000, dtype=np.uint64))
        seen.append(set(np.concatenate([cell] if split == "cells" else compounds).tolist()))
    assert len(set.union(*seen)) == sum(map(len, seen))
    n = 60 if split == "cells" else 50
    assert [len(s) for s in seen] == [8 * n // 10, n // 10, n // 10]


def test_features_are_those_of_the_chosen_cell_and_drug() -> None:
    source = screen()
    samples = source.read("validation", 3, 40)
    cell, drug = source.choose("validation", np.arange(3, 43, dtype=np.uint64))
    np.testing.assert_array_equal(samples["cell"], source.world.cells.features[cell])
    np.testing.assert_array_equal(samples["drug1"], source.world.drugs.features[drug])


def test_measured_ec50_has_a_normal_error_of_the_declared_deviation() -> None:
    """The error that explains a response, found by inverting the curve, sample by sample."""
    n, source = 500, screen(noise=0.2)
    found, (cell, drug) = source.read("train", 0, n)["response"], source.choose("train", np.arange(n, dtype=np.uint64))
    errors = []
    for response, *pair in zip(found.astype(float), cell, drug, strict=True):
        pec50, einf, slope = (v[0] for v in source.world.curve(*(np.array([i]) for i in pair)))
        if 4.5 < pec50 < 9.5 and einf < 0.9:  # elsewhere float32 responses hardly move with it
            errors.append(brentq(lambda e: curve_mean(pec50 + e, einf, slope) - response, -2, 2))  # noqa: B023
    assert len(errors) > 250
    assert kstest(np.array(errors) / 0.2, "norm").pvalue > 0.01


def test_without_error_a_response_is_the_truth() -> None:
    source = screen(noise=0.0)
    truth = source.world.auc(*source.choose("train", np.arange(100, dtype=np.uint64)))
    np.testing.assert_allclose(source.read("train", 0, 100)["response"], truth, rtol=1e-6)


def test_variance_of_the_published_responses_mostly_visible_in_the_features() -> None:
    """The mean predictor's error on the published AUC is 0.0237; of ours, cell and drug explain most, not all."""
    generator = Generator(genes=8, descriptors=64)
    world, rng = World(generator, 1), np.random.default_rng(0)
    cell, drug = rng.integers(0, generator.cells, 50_000), rng.integers(0, generator.compounds, 50_000)
    auc = world.auc(cell, drug)
    assert ((auc >= 0) & (auc <= 1)).all()
    assert 0.019 < auc.var() < 0.029
    world.seed = 2  # draws the part hidden from the features anew
    measured = world.auc(cell, drug, generator.noise * rng.normal(size=50_000))
    hidden = 0.5 * np.mean((world.auc(cell, drug) - auc) ** 2) + np.mean((measured - world.auc(cell, drug)) ** 2)
    assert 0.08 < hidden / auc.var() < 0.2
    grid = [i.ravel() for i in np.meshgrid(np.arange(0, 1593, 8), np.arange(0, 1779, 8), indexing="ij")]
    table = world.auc(*grid).reshape(200, 223)
    additive = table.mean(axis=0) + table.mean(axis=1)[:, None] - table.mean()
    assert np.mean((table - additive) ** 2) > 2.5 * hidden  # the means of cells and drugs are not enough


def test_paired_drugs_are_bliss_independent_where_there_is_no_interaction() -> None:
    world = screen(drugs=2).world
    cell, first, second = (np.array(v) for v in ([0, 1, 2], [3, 4, 5], [6, 7, 8]))
    doses = [np.array([5.0, 6.0, 7.0]), np.array([6.0, 6.5, 5.5])]
    alone = [survival(x, *world.curve(cell, d)) for x, d in zip(doses, (first, second), strict=True)]
    world.interaction[:] = 0.0
    np.testing.assert_allclose(world.growth(cell, [first, second], doses, [0, 0]), 2 * alone[0] * alone[1] - 1)


def test_pairs_work_together_or_against_each_other_whatever_their_order() -> None:
    source = screen(drugs=2)
    cell, first, second = source.choose("train", np.arange(2000, dtype=np.uint64))
    doses = [np.full(2000, 5.5), np.full(2000, 5.0)]
    growth = source.world.growth(cell, [first, second], doses, [0, 0])
    np.testing.assert_allclose(source.world.growth(cell, [second, first], doses[::-1], [0, 0]), growth)
    source.world.interaction[:] = 0.0
    synergy = source.world.growth(cell, [first, second], doses, [0, 0]) - growth
    assert (synergy > 0.1).mean() > 0.05
    assert (synergy < -0.1).mean() > 0.05
    assert growth.min() >= -1
    assert growth.max() <= 1


def test_descriptor_blocks_are_dragons() -> None:
    assert library.DESCRIPTORS == 5270
    atom_pairs = sum(width for name, width, _ in library.BLOCKS if name.startswith("2D atom pairs"))
    assert atom_pairs == 1596
    assert len(library.BLOCKS) == 30 + 2  # 2D atom pairs are in three parts


def test_descriptors_look_like_those_of_real_compounds() -> None:
    """Against 1,386 Mordred 1.2 descriptors of 400 NCI compounds: constant 0.11, first principal component 0.27, twenty
    0.76, median kurtosis 9.8, median |correlation| 0.10, integer columns at their commonest value 0.79 of the time."""
    x = library.compounds(400, 1054, np.random.default_rng(1)).features.astype(float)
    constant = x.std(axis=0) == 0
    assert 0.04 < constant.mean() < 0.2
    varied = x[:, ~constant]
    np.testing.assert_allclose(varied.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(varied.std(axis=0), 1, atol=1e-4)
    power = np.linalg.svd(varied, compute_uv=False) ** 2
    share = np.cumsum(power) / power.sum()
    assert 0.15 < share[0] < 0.35
    assert 0.55 < share[19] < 0.85
    assert 5 < np.median(kurtosis(varied, fisher=False)) < 20
    correlation = np.abs(np.corrcoef(varied.T)[np.triu_indices(varied.shape[1], 1)])
    assert 0.05 < np.median(correlation) < 0.2
    kinds = np.concatenate([np.full(width, kind) for _, width, kind in library.BLOCKS])
    counts = x[:, np.isin(kinds[np.arange(1054) * 5270 // 1054], ["count", "presence"])]
    assert 0.65 < np.mean(counts == counts.min(axis=0)) < 0.9
