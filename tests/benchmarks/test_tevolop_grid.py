"""Events on the grid, against sums written out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sciml_hpc.benchmarks.tevolop.grid import (
    PIXELS,
    Daily,
    Events,
    activity,
    daily,
    energy_of,
    fortnights,
    magnitude_of,
    pixel_of,
)


@pytest.mark.parametrize(
    ("latitude", "longitude", "pixel"),
    [
        (35.95, -119.95, 0),
        (35.95, -114.05, 59),
        (32.05, -119.95, 2340),
        (32.05, -114.05, 2399),
        (35.77, -117.60, 60 * 2 + 24),  # Ridgecrest; the edge −117.6 belongs to the eastern pixel
        (35.8, -117.7, 60 * 1 + 23),  # both on an edge: north of it and east of it
        (32.0, -120.0, 2340),
        (36.0, -117.0, -1),
        (34.0, -114.0, -1),
        (31.99, -117.0, -1),
    ],
)
def test_pixel_of_a_place(latitude: float, longitude: float, pixel: int) -> None:
    assert pixel_of(np.array([latitude]), np.array([longitude])).tolist() == [pixel]


def test_every_decimal_edge_is_an_edge() -> None:
    west = np.array([float(f"{-120 + k / 10:.1f}") for k in range(60)])
    south = np.array([float(f"{36 - (k + 1) / 10:.1f}") for k in range(40)])
    assert pixel_of(np.full(60, 35.95), west).tolist() == list(range(60))
    assert pixel_of(south, np.full(40, -119.95)).tolist() == [60 * k for k in range(40)]


def test_events_of_a_day_and_pixel_add_their_energies() -> None:
    events = Events(
        day=np.array([0.2, 3.1, 3.9, 3.95, 9.0, 11.0]),
        latitude=np.array([35.95, 34.05, 34.06, 34.05, 40.0, 34.05]),
        longitude=np.array([-119.95, -117.05, -117.04, -116.95, -117.05, -117.05]),
        depth_km=np.array([5.0, 4.0, 12.0, 7.0, 1.0, 1.0]),
        magnitude=np.array([2.0, 3.0, 4.0, 3.29, 6.0, 6.0]),
    )
    record = daily(events, days=10)
    assert record.day.tolist() == [0, 3, 3]  # outside the region, and after the end: left out
    assert record.pixel.tolist() == [0, 60 * 19 + 29, 60 * 19 + 30]
    assert record.events.tolist() == [1, 2, 1]
    assert record.large.tolist() == [0, 1, 0]  # 3.29 itself is not above 3.29
    energies = [10**4.5, 10**6.0]
    assert record.magnitude[1] == pytest.approx(math.log10(sum(energies)) / 1.5)
    assert record.depth_km[1] == pytest.approx((4 * energies[0] + 12 * energies[1]) / sum(energies))
    assert record.magnitude.dtype == np.float32


def test_fortnights_are_the_published_sums() -> None:
    """Against the published preparation written as it is described: 14 daily values, zeros among them."""
    random = np.random.default_rng(0)
    days = 3 + 5 * 14
    cells = np.sort(random.choice(days * PIXELS, 4000, replace=False))
    values = random.uniform(0, 5, 4000).astype(np.float32)
    depths = random.uniform(-2, 20, 4000).astype(np.float32)
    counts = random.integers(1, 9, 4000)
    record = Daily(days, *np.divmod(cells, PIXELS), values, depths, counts, counts // 2)
    tables = np.zeros((4, days, PIXELS))
    tables[:, record.day, record.pixel] = values, depths, counts, counts // 2
    series = fortnights(record)
    for step in range(5):
        magnitude, depth, number, large = tables[:, 3 + 14 * step : 3 + 14 * (step + 1)]
        weight = 10 ** (1.5 * magnitude)
        np.testing.assert_allclose(magnitude_of(series.energy[step]), np.log10(weight.sum(0)) / 1.5, rtol=1e-12)
        np.testing.assert_allclose(series.depth_km[step], (weight * depth).sum(0) / weight.sum(0), atol=1e-12)
        np.testing.assert_array_equal(series.events[step], number.sum(0))
        np.testing.assert_array_equal(series.large[step], large.sum(0))


def test_an_empty_step_has_the_published_magnitude() -> None:
    """0.764 and, over 2 … 104 steps, 0.965 … 2.109: the smallest values the original's notebook prints."""
    nothing = Daily(28, *(np.zeros(0, int) for _ in range(2)), *(np.zeros(0, np.float32) for _ in range(4)))
    assert magnitude_of(fortnights(nothing).energy).round(3).tolist() == [[0.764] * PIXELS] * 2
    smallest = [round(float(magnitude_of(14.0 * n)), 3) for n in (2, 4, 7, 13, 26, 52, 104)]
    assert smallest == [0.965, 1.165, 1.327, 1.507, 1.707, 1.908, 2.109]


def test_energy_and_magnitude_are_inverse() -> None:
    magnitudes = np.array([-0.5, 0, 3.29, 7.9])
    np.testing.assert_allclose(magnitude_of(energy_of(magnitudes)), magnitudes, atol=1e-12)


def test_activity_is_the_published_cut() -> None:
    """Against a loop over pixels with the block of 3 × 3 shifted inwards at the edges."""
    large = np.random.default_rng(1).poisson(3.4, PIXELS)
    kept = activity(large) >= 1
    for pixel in range(PIXELS):
        y, x = divmod(pixel, 60)
        top, left = min(max(y - 1, 0), 37), min(max(x - 1, 0), 57)
        block = sum(large[60 * (top + i) + left + j] for i in range(3) for j in range(3))
        assert kept[pixel] == (large[pixel] >= 7.1 or block >= 34.1)
    assert 0 < kept.sum() < PIXELS
