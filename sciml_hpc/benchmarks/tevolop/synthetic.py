"""A catalogue of Southern California, 1950–2019, as an epidemic-type aftershock sequence (ETAS).

Background earthquakes fall where real ones do (a published forecast of California's seismicity) and every
earthquake has aftershocks of its own (Ogata 1988, 1998), drawn generation by generation. A stationary process of
this kind is hardly predictable a fortnight ahead; the real catalogue is more so, because the loading of faults and
the sensitivity of the seismic network drift over years. Hence two things on top: the background rate of each of 14
zones wanders, and small events are missing from the early decades.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

from sciml_hpc.benchmarks.tevolop.grid import COLUMNS, NORTH, PIXEL_DEGREES, PIXELS, WEST, Daily, Events, daily
from sciml_hpc.benchmarks.tevolop.windows import Layout, Record, Windows, draw_order, record

if TYPE_CHECKING:
    from sciml_hpc.benchmarks.tevolop import Generator

SMALLEST, LARGEST = 1.5, 7.9
"""Magnitudes of the truncated Gutenberg–Richter law; 7.9 is the 1857 Fort Tejon earthquake, the region's largest."""
B_VALUE = 1.0
"""Gutenberg–Richter slope of Southern California (Hutton, Woessner and Hauksson 2010)."""
RATE_PER_DAY = 60.0
"""Mean number of events of magnitude 1.5 and above per day, aftershocks included. Chosen such that 1950–2019 has about
as many events above 3.29, in as many pixels, as the published data (500 pixels pass the cuts, see `grid.activity`)."""
BRANCHING = 0.9
"""Mean number of direct aftershocks of an event; the share of aftershocks in the catalogue (Sornette and Werner
2005)."""
OMORI_C_DAYS, OMORI_P = 0.01, 1.15
"""Omori–Utsu decay of aftershocks, (t + c)^−p (Helmstetter, Kagan and Jackson 2005)."""
REACH_KM, REACH_GROWTH, REACH_Q = 0.12, 0.45, 1.8
"""Distance of aftershocks: density ∝ (r² + d²)^−q with d = 0.12 km · 10^(0.45 (m − 1.5)), growing about as the rupture
length (form: Ogata and Zhuang 2006; growth: Wells and Coppersmith 1994)."""
FARTHEST_KM = 150.0
BURN_IN_DAYS = 3650
"""Days simulated before the record begins, so that it begins with aftershocks of what came before."""
ZONES = 14
ZONE_SPREAD, ZONE_MEMORY_DAYS, ZONE_STEP_DAYS = 1.0, 730.0, 30.0
"""Standard deviation and correlation time of the logarithm of a zone's background rate (Ornstein–Uhlenbeck)."""
COMPLETENESS = ((0.0, 3.0), (27 * 365.25, 2.0), (35 * 365.25, 1.5))
"""(day since 1950, smallest magnitude recorded from then on), blurred by 0.1: the network became digital in 1977
(after Hutton, Woessner and Hauksson 2010)."""
KM_PER_DEGREE = 111.2


def source(generator: Generator, samples: Mapping[str, int], seed: int) -> Windows:
    """The simulator as a Source: catalogue r is the r-th history of the region, with a split of its own."""
    layout = Layout.of(generator.days, generator.locations, generator.split)

    def of_realisation(realisation: int) -> Record:
        days = days_of(seed, realisation, generator.days, generator.start)
        return record(days, zones(seed), layout, draw_order(layout, seed, realisation))

    return Windows(layout, samples, of_realisation, catalogues=None)


def days_of(seed: int, realisation: int, days: int, start: date) -> Daily:
    """A simulated catalogue on the grid, from `start`."""
    return daily(catalogue(seed, realisation, days, (start - date(1950, 1, 1)).days), days)


@cache
def background() -> np.ndarray:
    """Share of background events per pixel, shape (2400,): the forecast of Helmstetter, Kagan and Jackson (2007).

    The south-western corner is outside the forecast's polygon; it gets the lowest rate inside.
    """
    rate = np.loadtxt(files(__package__).joinpath("hkj_socal.txt").open(), comments="#").ravel()
    rate = np.where(rate > 0, rate, rate[rate > 0].min())
    return rate / rate.sum()


@cache
def zones(seed: int) -> np.ndarray:
    """Zone (0 … 13) of each pixel, shape (2400,): that of the nearest of 14 active pixels; the fault map of the
    data."""
    centres = np.random.default_rng([seed, 0]).choice(PIXELS, ZONES, p=background(), replace=False)
    y, x = np.divmod(np.arange(PIXELS), COLUMNS)
    distance = (y[:, None] - y[centres]) ** 2 + (x[:, None] - x[centres]) ** 2
    return distance.argmin(1)


def catalogue(seed: int, realisation: int, days: int, first_day: int = 0) -> Events:
    """Earthquakes of `days` days from `first_day` (days since 1950-01-01), in order of time.

    About 0.6 s for 70 years. Realisations are independent histories of the same region.
    """
    random = np.random.default_rng([seed, 1, realisation])
    generation = _background_events(random, zones(seed), days)
    generations = []
    while len(generation[0]):
        generations.append(generation)
        generation = _aftershocks(random, *generation, days)
    day, latitude, longitude, depth, magnitude = map(np.concatenate, zip(*generations, strict=True))
    starts, smallest = zip(*COMPLETENESS, strict=True)
    recorded = np.array(smallest)[np.searchsorted(starts, np.maximum(day + first_day, 0), side="right") - 1]
    seen = (day >= 0) & (day < days) & (magnitude >= recorded + random.normal(0, 0.1, len(day)))
    order = np.flatnonzero(seen)[np.argsort(day[seen], kind="stable")]
    return Events(
        day[order],
        latitude[order].round(4),
        longitude[order].round(4),
        depth[order].round(2),
        magnitude[order].round(2),
    )


def _background_events(
    random: np.random.Generator, zone: np.ndarray, days: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Day, latitude, longitude, depth and magnitude of the events that no other event triggered."""
    share = np.bincount(zone, background(), ZONES)
    steps = int(np.ceil((days + BURN_IN_DAYS) / ZONE_STEP_DAYS))
    keep = np.exp(-ZONE_STEP_DAYS / ZONE_MEMORY_DAYS)
    drift = random.normal(0, ZONE_SPREAD, (steps, ZONES))
    for k in range(1, steps):
        drift[k] = keep * drift[k - 1] + np.sqrt(1 - keep**2) * drift[k]
    modulation = np.exp(drift - ZONE_SPREAD**2 / 2)
    expected = RATE_PER_DAY * (1 - BRANCHING) * ZONE_STEP_DAYS * modulation * share
    count = random.poisson(expected)
    step, of_zone = (np.repeat(index.ravel(), count.ravel()) for index in np.indices(count.shape))
    # A pixel of the event's zone, by inversion: pixels sorted by zone, their shares cumulated.
    order = np.argsort(zone, kind="stable")
    cumulated = np.cumsum(background()[order])
    low = np.concatenate([[0], np.cumsum(share)])[of_zone]
    position = np.searchsorted(cumulated, low + share[of_zone] * random.random(len(step)))
    pixel = order[np.minimum(position, PIXELS - 1)]
    y, x = np.divmod(pixel, COLUMNS)
    n = len(step)
    return (
        (step + random.random(n)) * ZONE_STEP_DAYS - BURN_IN_DAYS,
        NORTH - (y + random.random(n)) * PIXEL_DEGREES,
        WEST + (x + random.random(n)) * PIXEL_DEGREES,
        _depths(random, n),
        _magnitudes(random, n),
    )


def _aftershocks(
    random: np.random.Generator,
    day: np.ndarray,
    latitude: np.ndarray,
    longitude: np.ndarray,
    depth: np.ndarray,
    magnitude: np.ndarray,
    days: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The direct aftershocks of the given events that fall into the record.

    An event of magnitude m has on average K·10^(m − 1.5) of them (productivity exponent = b; Felzer et al. 2004),
    with K such that the mean over the magnitudes is the branching ratio.
    """
    span = LARGEST - SMALLEST
    productivity = BRANCHING * (1 - 10 ** (-B_VALUE * span)) / (np.log(10) * B_VALUE * span)
    count = random.poisson(productivity * 10 ** (B_VALUE * (magnitude - SMALLEST)))
    parent = np.repeat(np.arange(len(day)), count)
    n = len(parent)
    delay = OMORI_C_DAYS * ((1 - random.random(n)) ** (-1 / (OMORI_P - 1)) - 1)
    reach = REACH_KM * 10 ** (REACH_GROWTH * (magnitude[parent] - SMALLEST))
    distance = reach * np.sqrt((1 - random.random(n)) ** (-1 / (REACH_Q - 1)) - 1)
    bearing = random.uniform(0, 2 * np.pi, n)
    kept = (day[parent] + delay < days) & (distance < FARTHEST_KM)
    parent, delay, distance, bearing = parent[kept], delay[kept], distance[kept], bearing[kept]
    n = len(parent)
    north = latitude[parent] + distance * np.sin(bearing) / KM_PER_DEGREE
    east = distance * np.cos(bearing) / (KM_PER_DEGREE * np.cos(np.deg2rad(latitude[parent])))
    return (
        day[parent] + delay,
        north,
        longitude[parent] + east,
        np.abs(depth[parent] + random.normal(0, 2.0, n)),
        _magnitudes(random, n),
    )


def _magnitudes(random: np.random.Generator, n: int) -> np.ndarray:
    """Truncated Gutenberg–Richter magnitudes, by inversion."""
    span = LARGEST - SMALLEST
    return SMALLEST - np.log10(1 - random.random(n) * (1 - 10 ** (-B_VALUE * span))) / B_VALUE


def _depths(random: np.random.Generator, n: int) -> np.ndarray:
    """Hypocentral depths, km: most between 3 and 15 km, as in Southern California (Hauksson, Yang and Shearer 2012)."""
    return random.gamma(4.0, 2.0, n)
