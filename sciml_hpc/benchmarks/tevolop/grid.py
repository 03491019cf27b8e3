"""Earthquakes on the benchmark's grid: events, their sum per day and pixel, and the fortnightly series.

The region is Southern California, 32–36° N and 120–114° W, in 40 × 60 pixels of 0.1°; pixel = 60·y + x with y = 0 in
the north and x = 0 in the west. Several events in one cell of space and time become one number by their energy, which
grows as 10^(1.5·magnitude) (Gutenberg and Richter 1956): the magnitude that releases as much, log10(Σ 10^(1.5 m))/1.5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NORTH, WEST = 36.0, -120.0
"""Corner of pixel 0, degrees."""
ROWS, COLUMNS = 40, 60
PIXELS = ROWS * COLUMNS
PIXEL_DEGREES = 0.1
BIN_DAYS = 14
"""Days in one time step of the benchmark."""
LARGE = 3.29
"""Magnitude above which events are counted apart: the completeness of the early catalogue (Rundle et al. 2021)."""


@dataclass(frozen=True)
class Events:
    """Earthquakes in order of time; every array has shape (n,), float64."""

    day: np.ndarray
    """Days since the beginning of the record, with fraction."""
    latitude: np.ndarray
    longitude: np.ndarray
    depth_km: np.ndarray
    magnitude: np.ndarray


@dataclass(frozen=True)
class Daily:
    """What happened in each pixel on each day: only cells with events, in order of (day, pixel); arrays of shape (n,).

    The magnitudes and depths are float32 because that is what the published files are read as: a record that is
    written to files and read again is the same record.
    """

    days: int
    """Length of the record."""
    day: np.ndarray
    pixel: np.ndarray
    magnitude: np.ndarray
    """Energy sum of the cell as a magnitude, float32."""
    depth_km: np.ndarray
    """Energy-weighted mean, float32."""
    events: np.ndarray
    """Number of events, int64."""
    large: np.ndarray
    """Number of events above magnitude 3.29, int64."""


@dataclass(frozen=True)
class Fortnights:
    """The record in steps of 14 days, all pixels; arrays of shape (steps, 2400), float64."""

    energy: np.ndarray
    """Σ 10^(1.5 m) over the 14 daily magnitudes; a day without events counts as magnitude 0, as in the published
    preparation, so that an empty step has energy 14 and magnitude log10(14)/1.5 = 0.764."""
    depth_km: np.ndarray
    """Energy-weighted mean of the daily depths (0 km on days without events)."""
    events: np.ndarray
    large: np.ndarray


def magnitude_of(energy: np.ndarray) -> np.ndarray:
    """Magnitude that releases `energy` (in units of a magnitude-0 event)."""
    return np.log10(energy) / 1.5


def energy_of(magnitude: np.ndarray) -> np.ndarray:
    """Energy of `magnitude` in units of a magnitude-0 event, in double precision."""
    return 10.0 ** (1.5 * np.asarray(magnitude, np.float64))


def pixel_of(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """Pixel of each place, −1 outside the region. An edge belongs to the pixel north of it and to the one east of it.

    Coordinates are compared at 1e-9°, so that a decimal edge (such as −117.7) is an edge whatever its binary rounding.
    """
    x = np.floor((np.asarray(longitude) - WEST) / PIXEL_DEGREES + 1e-8).astype(int)
    y = np.ceil((NORTH - np.asarray(latitude)) / PIXEL_DEGREES - 1e-8).astype(int) - 1
    inside = (x >= 0) & (x < COLUMNS) & (y >= 0) & (y < ROWS)
    return np.where(inside, COLUMNS * y + x, -1)


def daily(events: Events, days: int) -> Daily:
    """Sum the events of each day and pixel; events outside region or record are left out."""
    pixel, day = pixel_of(events.latitude, events.longitude), np.floor(events.day).astype(int)
    inside = (pixel >= 0) & (day >= 0) & (day < days)
    cells, cell = np.unique(day[inside] * PIXELS + pixel[inside], return_inverse=True)
    magnitude = events.magnitude[inside]
    energy = energy_of(magnitude)
    total = np.bincount(cell, energy, len(cells))
    return Daily(
        days,
        *np.divmod(cells, PIXELS),
        magnitude_of(total).astype(np.float32),
        (np.bincount(cell, energy * events.depth_km[inside], len(cells)) / total).astype(np.float32),
        np.bincount(cell, minlength=len(cells)),
        np.bincount(cell, magnitude > LARGE, len(cells)).astype(np.int64),
    )


def fortnights(record: Daily) -> Fortnights:
    """Add up the days in steps of 14; the days that do not fill a step are dropped at the beginning, as published."""
    steps, dropped = divmod(record.days, BIN_DAYS)
    kept = record.day >= dropped
    cell = (record.day[kept] - dropped) // BIN_DAYS * PIXELS + record.pixel[kept]
    energy = energy_of(record.magnitude[kept])

    def total(weights: np.ndarray) -> np.ndarray:
        return np.bincount(cell, weights, steps * PIXELS).reshape(steps, PIXELS)

    sums = BIN_DAYS + total(energy - 1)
    return Fortnights(
        sums,
        total(energy * record.depth_km[kept]) / sums,
        total(record.events[kept]),
        total(record.large[kept]),
    )


def activity(large: np.ndarray) -> np.ndarray:
    """How far each pixel passes the published cuts, shape (2400,): 1 or more is kept.

    A pixel is kept with 7.1 events above magnitude 3.29, or 34.1 in its block of 3 × 3 (shifted inwards at the edges
    of the region): 500 pixels of the published data (MLCommons Science, earthquake notebook, cell 37). `large` has
    shape (2400,).
    """
    count = large.reshape(ROWS, COLUMNS)
    blocks = np.lib.stride_tricks.sliding_window_view(count, (3, 3)).sum((-2, -1))
    block = np.pad(blocks, 1, mode="edge")
    return np.maximum(count / 7.1, block / 34.1).ravel()
