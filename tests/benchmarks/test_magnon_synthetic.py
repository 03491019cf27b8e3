"""The simulated maps: what a band sees, where detectors are, how neutrons are counted, and what depends on what."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sciml_hpc.benchmarks.magnon import Generator, synthetic
from sciml_hpc.benchmarks.magnon.synthetic import Maps

SAMPLES = {"train": 100, "validation": 30}


def maps(seed: int = 5, size: int = 32, **fields: float) -> Maps:
    return Maps(Generator(size=size, **fields), SAMPLES, seed)


def test_a_sample_does_not_depend_on_chunk_or_order() -> None:
    whole = maps().read("train", 0, 30)
    other = maps()
    late = other.read("train", 23, 7)
    pieces = [other.read("train", first, 10) for first in (10, 0)]
    for field in other.fields:
        values = whole[field.name]
        assert values.shape == (30, *field.shape)
        assert values.dtype == field.dtype
        np.testing.assert_array_equal(values[:20], np.concatenate([p[field.name] for p in pieces[::-1]]))
        np.testing.assert_array_equal(values[23:], late[field.name])


def test_seed_and_split_matter_and_counts_do_not() -> None:
    base = maps().read("train", 0, 10)["exchange"]
    assert not np.isin(maps(seed=6).read("train", 0, 10)["exchange"], base).any()
    assert not np.isin(maps().read("validation", 0, 10)["exchange"], base).any()
    larger = Maps(Generator(size=32), {"train": 10**9, "validation": 1}, 5)
    np.testing.assert_array_equal(larger.read("train", 0, 10)["exchange"], base)


def test_constants_fill_their_ranges_evenly() -> None:
    exchange = maps(counts=0.1).read("train", 0, 200)["exchange"]
    for values, (low, high) in zip(exchange.T, ((0.4, 1.0), (-0.1, 0.1)), strict=True):
        shares = np.histogram(values, 4, (low, high))[0] / len(values)
        np.testing.assert_allclose(shares, 0.25, atol=0.12)
    assert abs(np.corrcoef(exchange.T)[0, 1]) < 0.2


@pytest.mark.parametrize(("band", "low", "high"), [(0, 2.0, 3.0), (1, 3.0, 5.0), (2, 5.0, 8.0)])
def test_a_band_shows_the_cone_at_its_energy(band: int, low: float, high: float) -> None:
    """With J' = 0, ω = 4JS √((1+δ)² − γ²): along (½ + q, ½), γ = −(1 + cos 2πq)/2. The ring must lie where ω is in
    the band, and be dark inside and outside."""
    expected = maps(size=128).expected((0.9, 0.0))[band]
    h = (np.arange(128) + 0.5) / 128
    omega = 9.0 * np.sqrt(1.0048**2 - ((1 + np.cos(2 * np.pi * (h - 0.5))) / 2) ** 2)
    row = (expected[63] + expected[64]) / 2  # k = ½, but for half a pixel
    inside, outside = (omega > low + 0.5) & (omega < high - 0.5), (omega < low - 0.9) | (omega > high + 0.9)
    floor = synthetic.BACKGROUND * (high - low)
    if band > 0:  # the first is too narrow for pixels that lie inside all of it
        assert row[inside & (abs(h - 0.5) < 0.25)].min() > 20 * floor
    np.testing.assert_allclose(row[outside], floor, rtol=0.1)
    peak = abs(h[row.argmax()] - 0.5)
    ring = abs(h[np.abs(omega - (low + high) / 2).argmin()] - 0.5)
    assert peak == pytest.approx(ring, abs=0.035)


def test_bands_add_up_to_the_whole_weight_where_they_hold_all_energy() -> None:
    """At (¼, ¼), J = 0.65 and J' = 0, ω = 6.53 meV is well within the third band: f² S/2 and the background."""
    source = maps(size=128)
    i = 31  # h = k = 0.246
    h = (i + 0.5) / 128
    q = 2 * math.pi / 4.215 * h * math.sqrt(2)
    s2 = (q / 4 / math.pi) ** 2
    form = 0.422 * math.exp(-17.684 * s2) + 0.5948 * math.exp(-6.005 * s2) + 0.0043 * math.exp(0.609 * s2) - 0.0219
    gamma = math.cos(2 * math.pi * h)
    weight = 1.25 * math.sqrt((1.0048 - gamma) / (1.0048 + gamma))
    assert source.expected((0.65, 0.0))[2, i, i] == pytest.approx(form**2 * weight + 0.06, rel=1e-4)
    assert source.expected((0.65, 0.0))[0, i, i] == pytest.approx(0.02, rel=1e-4)


def test_over_all_energies_a_map_is_blind_to_j(monkeypatch: pytest.MonkeyPatch) -> None:
    """Why there are bands: without limits of energy, maps of J = 0.4 and 1.0 differ by less than their noise; with
    them, by most of the map."""
    bands = [maps().expected((j, 0.0)) for j in (0.4, 1.0)]
    assert np.abs(bands[0] - bands[1]).sum() > 0.5 * bands[0].sum()
    monkeypatch.setattr(synthetic, "BANDS_meV", ((-50.0, 50.0),))
    monkeypatch.setattr(synthetic, "TEMPERATURE_K", 0.5)
    whole = [maps().expected((j, 0.0)) for j in (0.4, 1.0)]
    np.testing.assert_allclose(whole[0], whole[1], rtol=1e-3)


def test_coarser_pixels_hold_the_same_neutrons() -> None:
    fine, coarse = (maps(size=size).expected((0.6, 0.05)) for size in (128, 32))
    np.testing.assert_allclose(fine.sum((1, 2)), coarse.sum((1, 2)), rtol=1e-12)
    np.testing.assert_allclose(fine[:, :4, 8:12].sum((1, 2)), coarse[:, 0, 2], rtol=1e-12)


def test_counts_are_poissonian_about_what_is_expected() -> None:
    """At fixed exposure: mean and variance of (n − λ)/√λ over many pixels, those of the sample's own constants."""
    source = maps(exposure_spread=1.0, counts=20.0)
    batch = source.read("train", 0, 20)
    for counts, exchange in zip(batch["counts"], batch["exchange"], strict=True):
        expected = 20 * source.expected(tuple(exchange.tolist()))[source.seen]
        z = (counts[source.seen] - expected) / np.sqrt(expected)
        assert z.mean() == pytest.approx(0, abs=5 / math.sqrt(z.size))
        assert z.var() == pytest.approx(1, abs=0.15)


def test_exposures_spread_as_asked() -> None:
    source = maps(exposure_spread=1.5, counts=50.0)
    batch = source.read("train", 0, 60)
    expected = [50 * source.expected(tuple(e.tolist()))[source.seen].sum() for e in batch["exchange"]]
    factors = np.array([c[source.seen].sum() for c in batch["counts"]]) / expected
    assert 1 / 1.52 < factors.min() < 0.75
    assert 1.35 < factors.max() < 1.52
    assert np.median(factors) == pytest.approx(1, abs=0.15)


def test_where_no_detector_stands() -> None:
    """The same pixels in every sample; nothing at small angles, whose Q grows with the energy lost: at 2θ = 3°, 25 meV
    and 6.5 meV lost, kᵢ = 3.4735 and k_f = 2.9880 Å⁻¹, Q = 0.5136 Å⁻¹."""
    source = maps(size=128)
    counts = source.read("validation", 0, 5)["counts"]
    assert ((counts == -1) == ~source.seen).all()
    h = (np.arange(128) + 0.5) / 128
    q = 2 * np.pi / 4.215 * np.hypot(h[:, None], h[None])
    sector = np.degrees(np.arctan2(h[:, None], h[None]))
    free = ((sector < 19) | (sector > 61)) & (q < 0.8) & (abs(q - 0.5136) > 1e-3)  # the first gap begins at 0.83 Å⁻¹
    np.testing.assert_array_equal(source.seen[2][free], q[free] > 0.5136)
    lost = 1 - source.seen.mean((1, 2))
    assert (lost > 0.1).all()
    assert (lost < 0.3).all()
    assert lost[0] < lost[1] < lost[2]
    assert not source.seen[:, np.abs(sector - 21.5) < 1].any()
