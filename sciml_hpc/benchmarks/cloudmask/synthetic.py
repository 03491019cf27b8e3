"""Simulated SLSTR scenes, from equations: surface, atmosphere, cloud layers, instrument, Bayesian mask.

A scene is 1200 km along the track and 1500 km across, on a grid of 256/P km. Land, temperature, vegetation, dust and
clouds are Gaussian random fields with power-law spectra. Reflectances (S1–S6) come from a two-stream solution of
each layer, added layer by layer; brightness temperatures (S7–S9) from Planck's law with grey emission of each
layer. By night the reflectances are zero. What makes it hard is what makes the real task hard: the same reflectance
and temperature mean cloud in one place and snow, desert, dust, glint or a colder sea in another, so that a pixel
has to be judged by its surroundings.

What it is not: no angular scattering, no three-dimensional effects, no instrument artefacts, no real geography; the
optical constants are representative values, not line-by-line calculations.

Scene k follows from (seed, k) alone. Only NumPy is used, whose FFT and random streams do not depend on the number of
threads; another processor or NumPy version may differ in the last bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from math import pi
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from sciml_hpc.benchmarks.cloudmask.native import (
    ORBIT_S,
    PatchSource,
    scene_shape,
    scenes_for,
    split_scenes,
    write_scene,
)
from sciml_hpc.benchmarks.cloudmask.optics import (
    AEROSOL,
    ALBEDO,
    ALBEDO_SPREAD,
    BANDS_UM,
    CLOUD_THERMAL,
    CRYSTALS,
    DROPS,
    DUST_KM,
    DUST_THERMAL,
    EMISSIVITY,
    S4,
    S7,
    SUN_K,
    SUN_SR,
    brightness_temperature,
    f32,
    planck,
    two_stream,
)

if TYPE_CHECKING:
    from sciml_hpc.benchmarks.cloudmask import Generator

HEIGHT_KM = 815.0
"""Height of the orbit."""
REF_NOISE, BT_NOISE_K = 0.005 / 20, (0.08, 0.05, 0.05)
"""Mission requirements: signal to noise 20 at 0.5 % reflectance in S1–S6; noise of S7–S9 at 270 K."""
LAPSE_K_PER_KM, VAPOUR_KM = 6.5, 2.0
"""Standard atmosphere: temperature lapse; scale height of water vapour."""
DETECTABLE = 0.2
"""Visible optical depth that the mask takes for cloud as often as for clear sky."""


@dataclass(frozen=True)
class Layer:
    """A kind of cloud; pairs are the ranges from which a scene draws."""

    top_km: tuple[float, float]
    amount: tuple[float, float]
    """Cloud is where the field is above −amount standard deviations."""
    stretch: tuple[float, float]
    """Along-track over across-track size of its structures."""
    optical_depth: float
    """Visible optical depth (median) one standard deviation above that level."""


LAYERS = {
    "low": Layer((0.6, 2.2), (-1.2, 0.4), (0.7, 1.4), 12.0),
    "middle": Layer((2.5, 6.0), (-2.2, -0.2), (0.7, 1.4), 8.0),
    "cirrus": Layer((7.0, 13.0), (-1.8, 0.0), (0.4, 2.5), 2.0),
}


@lru_cache(maxsize=1)
def _quantiles() -> np.ndarray:
    """The normal distribution at 65,536 equally likely points, so that two random bytes make a variate (±4.3 σ)."""
    return np.array([NormalDist().inv_cdf((i + 0.5) / 65536) for i in range(65536)], f32)


@lru_cache(maxsize=1)
def _wavenumbers(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Squared wavenumbers along and across the track, (cycles per 1000 km)², of the half spectrum of a scene."""
    along = np.fft.fftfreq(rows, 1.2 / rows)[:, np.newaxis]
    across = np.arange(columns // 2 + 1)[np.newaxis] / 1.5
    return (along**2).astype(f32), (across**2).astype(f32)


class Dice:
    """The random numbers of one scene, and fields of its shape."""

    def __init__(self, shape: tuple[int, int], seed: int, number: int) -> None:
        self.shape = shape
        self.rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, number))))

    def uniform(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def normal(self, *shape: int) -> np.ndarray:
        """Independent normal variates, float32; without arguments one per pixel."""
        shape = shape or self.shape
        return _quantiles().take(self.rng.integers(0, 65536, shape, dtype=np.uint16), mode="wrap")

    def field(self, slope: float, stretch: float = 1.0, outer_km: float = np.inf) -> np.ndarray:
        """A Gaussian field of variance 1 and spectral density (k² + outer⁻²)^(−slope/2), without mean, periodic."""
        rows, columns = self.shape
        along, across = _wavenumbers(rows, columns)
        density = along + across * f32(stretch**2) + f32((1000 / outer_km) ** 2)
        density[0, 0] = np.inf
        amplitude = density ** f32(-slope / 4)
        edges = [0, -1] if columns % 2 == 0 else [0]  # columns that mirror themselves: half the variance comes back
        amplitude[:, edges] *= f32(np.sqrt(2))
        power = (amplitude**2).sum(0, dtype=np.float64)
        variance = (4 * power.sum() - 3 * power[edges].sum()) / (rows * columns) ** 2
        modes = self.normal(rows, columns // 2 + 1, 2).view(np.complex64)[..., 0] * amplitude
        return np.fft.irfft2(modes, s=self.shape).astype(f32, copy=False) * f32(variance**-0.5)


def _step(x: np.ndarray, width: float) -> np.ndarray:
    """From 0 to 1 over some ±`width` around x = 0."""
    return f32(0.5) + f32(0.5) * np.tanh(x * f32(1 / width))


@dataclass(frozen=True)
class View:
    """How a scene is seen: by day or night, cosine of the sun's and of each column's view zenith angle."""

    day: bool
    latitude: np.ndarray
    sun: float
    look: np.ndarray


@dataclass(frozen=True)
class Ground:
    """The surface: shares of the four kinds, S1–S6 reflectances (by day), temperature and glint."""

    share: np.ndarray
    refs: list[np.ndarray]
    kelvin: np.ndarray
    glint: np.ndarray


def seen_from_above(dice: Dice, day: bool, centre: float) -> View:
    """The view of a scene around latitude `centre` (degrees, north positive)."""
    rows, columns = dice.shape
    zenith = min(80.0, 0.9 * abs(centre) + dice.uniform(5, 25))
    latitude = f32(centre) + np.linspace(-5.4, 5.4, rows, dtype=f32)[:, np.newaxis]  # 1200 km
    across_km = np.linspace(-550, 950, columns, dtype=f32)[np.newaxis]  # the swath lies to one side of the track
    return View(day, latitude, float(np.cos(np.deg2rad(zenith))), HEIGHT_KM / np.hypot(f32(HEIGHT_KM), across_km))


def _ground(dice: Dice, view: View) -> Ground:
    relief, sea_warmth, land_warmth = dice.field(3.0), dice.field(3.4), dice.field(3.4)
    climate_K = f32(301.15 + dice.uniform(-4, 4)) - f32(0.0085) * view.latitude**2
    sea_K = np.maximum(climate_K, f32(271.5)) + f32(2.5) * sea_warmth
    sun_K = dice.uniform(0, 14) if view.day else dice.uniform(-14, 2)
    land_K = climate_K + f32(sun_K) + f32(6) * land_warmth - f32(9) * np.maximum(relief - f32(0.5), 0)

    land = _step(relief - f32(dice.uniform(-1.4, 1.8)), 0.06)
    green = _step(f32(0.9) * land_warmth + f32(1.5) * dice.field(3.0) + f32(dice.uniform(-2, 2)), 2.0)
    snow = _step(f32(2) * (relief - f32(0.8)) + (273 - land_K) / 3, 0.6)
    polar = climate_K.mean() < 273.15
    ice = _step(f32(dice.uniform(-0.5, 1.2)) - sea_warmth, 0.2) if polar else np.zeros_like(land)
    bare = land * (1 - snow)
    share = np.stack([(1 - land) * (1 - ice), bare * green, bare * (1 - green), land * snow + (1 - land) * ice])

    kelvin = land * land_K + (1 - land) * np.where(ice > 0.5, np.minimum(sea_K, f32(271)), sea_K)
    kelvin += (f32(1.2) * land + f32(0.15)) * dice.normal()  # what differs within and between pixels

    refs, glint = [], np.zeros_like(land)
    if view.day:
        if dice.chance(0.4):
            x = np.linspace(-1, 1, dice.shape[1], dtype=f32) - f32(dice.uniform(-1, 1))
            stripe = f32(dice.uniform(0.03, 0.35)) * np.exp(-((x / f32(0.3)) ** 2))
            glint = share[0] * stripe * np.maximum(1 + f32(0.3) * dice.field(1.4), 0)
        common, own = dice.rng.standard_normal((4, 1)), dice.rng.standard_normal((4, 6))
        albedo = np.minimum(ALBEDO * np.exp(ALBEDO_SPREAD[:, np.newaxis] * (0.8 * common + 0.6 * own)), 0.97)
        texture = np.exp(f32(0.25) * dice.field(3.0)) + f32(0.08) * land * dice.normal()
        for band in albedo.T.astype(f32):
            bright = _mixed(band, share) * (texture + f32(0.07) * land * dice.normal()) + glint
            refs.append(np.clip(bright, 0, f32(0.97)))
    return Ground(share, refs, kelvin, glint)


def _mixed(values: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Mean of the four kinds' values, weighted by their shares (no BLAS, whose rounding may depend on threads)."""
    return sum(f32(value) * part for value, part in zip(values, share, strict=True))


@dataclass(frozen=True)
class _Air:
    """Water vapour above a height: transmission of S7–S9 along the view, of S4 both ways, and its temperature."""

    thermal: list[np.ndarray]
    s4: float
    kelvin: np.float32


def _air(view: View, ground_K: float, vapour_cm: float, height_km: float) -> _Air:
    """Vapour thins out with height; representative absorption per centimetre of precipitable water."""
    above = np.exp(-height_km / VAPOUR_KM)
    depths = (0.06 + 0.02 * vapour_cm, 0.03 + 0.055 * vapour_cm, 0.05 + 0.10 * vapour_cm)
    return _Air(
        [np.exp(f32(-depth * above) / view.look) for depth in depths],
        float(np.exp(-2 * (3 + 2 * vapour_cm) * above)),
        f32(ground_K - LAPSE_K_PER_KM * (height_km + VAPOUR_KM)),
    )


def _clear_sky(dice: Dice, view: View, ground: Ground, air: _Air) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Reflectances S1–S6 (none by night) and radiances S7–S9 above a cloudless atmosphere."""
    haze = f32(dice.uniform(0.02, 0.25)) * np.exp(f32(0.6) * dice.field(3.0))
    dust = np.zeros_like(haze)
    if dice.chance(0.5):
        dust = f32(dice.uniform(0.5, 2)) * np.maximum(dice.field(3.6) - f32(dice.uniform(-1, 1)), 0)

    refs = []
    for band, surface in enumerate(ground.refs):
        if band == S4:  # vapour hides everything below
            refs.append(f32(air.s4) * surface)
            continue
        x = BANDS_UM[band]
        rayleigh = 0.008569 * x**-4 * (1 + 0.0113 * x**-2 + 0.00013 * x**-4)  # Hansen and Travis 1974
        fine, coarse = f32((x / 0.55) ** -1.2), f32((x / 0.55) ** -0.2)  # Ångström's law
        scattered = two_stream(fine * haze + coarse * dust, *AEROSOL)[0] + f32(rayleigh / (2 + rayleigh))
        gas = f32(np.exp(-2 * (0.03, 0.02, 0.01, 0, 0.02, 0.03)[band]))
        refs.append(scattered + gas * (1 - scattered) ** 2 * surface / (1 - scattered * surface))

    radiances = []
    grey = 1 - (1 - EMISSIVITY) * np.exp(0.4 * dice.rng.standard_normal(EMISSIVITY.shape))
    dust_K = air.kelvin + f32(LAPSE_K_PER_KM * (VAPOUR_KM - DUST_KM))
    for i, clear in enumerate(air.thermal):
        x = BANDS_UM[S7 + i]
        emissivity = _mixed(grey[:, i], ground.share)
        radiance = clear * emissivity * planck(x, ground.kelvin) + (1 - clear) * planck(x, air.kelvin)
        if S7 + i == S7:
            radiance += clear**2 * (1 - emissivity) * f32(_sunlight(view) / pi)
        through = np.exp(f32(-DUST_THERMAL[i]) * dust / view.look)
        radiances.append(through * radiance + (1 - through) * planck(x, dust_K))
    return refs, radiances


def _sunlight(view: View) -> float:
    """Solar irradiance of the ground in S7, W m⁻² µm⁻¹."""
    return float(planck(BANDS_UM[S7], f32(SUN_K))) * SUN_SR * view.sun if view.day else 0.0


def _cover(
    dice: Dice,
    layer: Layer,
    view: View,
    refs: list[np.ndarray],
    radiances: list[np.ndarray],
    ground_K: float,
    vapour_cm: float,
) -> np.ndarray:
    """Lay one cloud layer over `refs` and `radiances` (changed in place); returns its visible optical depth."""
    top_km = dice.uniform(*layer.top_km)
    air = _air(view, ground_K, vapour_cm, top_km)
    # spectra between k^-8/3 (one-dimensional −5/3, as liquid water paths have) and k^-11/3 (smooth decks)
    shape = dice.field(dice.uniform(8 / 3, 11 / 3), dice.uniform(*layer.stretch), dice.uniform(100, 300))
    region = dice.field(3.5)
    excess = np.maximum(shape + f32(dice.uniform(*layer.amount)) + f32(0.8) * region, 0)
    depth = f32(layer.optical_depth * np.exp(dice.uniform(-0.7, 0.7))) * excess * np.sqrt(excess)

    warmer_K = dice.uniform(0, 8) if top_km < 2.5 and dice.chance(0.4) else 0.0  # under an inversion
    top_K = ground_K - LAPSE_K_PER_KM * top_km + dice.uniform(-3, 3) + warmer_K
    albedo, asymmetry = CRYSTALS if top_K < 253 else DROPS
    kelvin = f32(top_K) + region

    reflected, passed = two_stream(depth, albedo[0], asymmetry)
    for band, below in enumerate(refs):
        if albedo[band] != albedo[0]:
            reflected, passed = two_stream(depth, albedo[band], asymmetry)
        if band == S4:
            refs[band] = f32(air.s4) * reflected + passed**2 * below
        else:
            refs[band] = reflected + passed**2 * below / (1 - reflected * below)
    reflected, passed = two_stream(depth, albedo[S7], asymmetry)
    for i, below in enumerate(radiances):
        x = BANDS_UM[S7 + i]
        if S7 + i > S7:
            passed = np.exp(f32(-CLOUD_THERMAL[i - 1]) * depth / view.look)
            reflected = 0
        emitted = air.thermal[i] * planck(x, kelvin) + (1 - air.thermal[i]) * planck(x, air.kelvin)
        radiances[i] = passed * below + (1 - reflected - passed) * emitted
        if S7 + i == S7:
            radiances[i] += air.thermal[i] ** 2 * reflected * f32(_sunlight(view) / pi)
    return depth


@dataclass(frozen=True)
class Scene:
    """One simulated scene, float32: `refs` (6, r, c), `bts` (3, r, c) in K, `bayes` and `optical_depth` (r, c)."""

    refs: np.ndarray
    bts: np.ndarray
    bayes: np.ndarray
    """Posterior probability of cloud where it is at least ½, else exactly 0: `bayes` > 0 is the mask, as published."""
    optical_depth: np.ndarray
    """The truth behind the mask: visible optical depth of all clouds."""


def observe(dice: Dice, view: View, ground: Ground) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the instrument measures of a ground under a random atmosphere and clouds, float32: reflectances S1–S6
    (6, r, c), brightness temperatures S7–S9 (3, r, c) in K, and the truth: the clouds' visible optical depth (r, c).
    """
    ground_K = float(ground.kelvin.mean(dtype=np.float64))
    # saturation follows Clausius and Clapeyron, doubling every 11 K; 4 cm in the tropics
    vapour_cm = float(np.clip(4 * np.exp((ground_K - 300) / 16) * dice.uniform(0.7, 1.3), 0.1, 6))

    refs, radiances = _clear_sky(dice, view, ground, _air(view, ground_K, vapour_cm, 0.0))
    depth = np.zeros(dice.shape, f32)
    for layer in LAYERS.values():
        depth += _cover(dice, layer, view, refs, radiances, ground_K, vapour_cm)

    seen = np.zeros((6, *dice.shape), f32)
    for band, ref in enumerate(refs):  # none by night
        seen[band] = ref + f32(REF_NOISE) * dice.normal()
    bts = np.empty((3, *dice.shape), f32)
    for i, radiance in enumerate(radiances):
        bts[i] = brightness_temperature(BANDS_UM[S7 + i], radiance) + f32(BT_NOISE_K[i]) * dice.normal()
    return seen, bts, depth


def simulate(patch: int, night_fraction: float, seed: int, number: int) -> Scene:
    """Scene `number` of the data set `seed`, for patches of `patch` pixels."""
    dice = Dice(scene_shape(patch), seed, number)
    day = not dice.chance(night_fraction)
    centre = np.rad2deg(np.arcsin(dice.uniform(-0.92, 0.95)))  # uniform over the globe's area, 67° S to 72° N
    view = seen_from_above(dice, day, centre)
    ground = _ground(dice, view)
    refs, bts, depth = observe(dice, view, ground)
    # Bayesian detection errs smoothly with its prior fields, and towards cloud over snow, ice and strong glint
    doubt = f32(0.5) * dice.field(1.8) + f32(0.8) * (ground.share[3] + (ground.glint > 0.12))
    logit = f32(2.5) * np.log((depth + f32(1e-4)) / f32(DETECTABLE)) + doubt
    bayes = np.where(logit >= 0, 1 / (1 + np.exp(-np.abs(logit))), f32(0))
    return Scene(refs, bts, bayes, depth)


PASS_SCENES, PASS_ORBITS = 4, 2
"""Simulated granules come in passes of four, a pass every other orbit."""
FIRST_PASS = datetime(2019, 1, 1, tzinfo=timezone.utc)
STAMP = "%Y%m%dT%H%M%S"


def granule_name(number: int) -> str:
    """File name of simulated scene `number`, by ESA's rules: sensing start and stop, cycle, orbit, seconds along it."""
    orbit, in_pass = PASS_ORBITS * (number // PASS_SCENES), number % PASS_SCENES
    along_s = 900 + 180 * in_pass
    start = FIRST_PASS + timedelta(seconds=orbit * ORBIT_S + along_s)
    times = "_".join(t.strftime(STAMP) for t in (start, start + timedelta(seconds=180), start + timedelta(days=1)))
    return f"S3A_SL_1_RBT____{times}_0179_{40 + orbit // 385:03d}_{1 + orbit % 385:03d}_{along_s:04d}_SIM_O_NT_001.hdf"


def schedule(samples: Mapping[str, int]) -> dict[str, int]:
    """Names and numbers of the scenes simulated for so many samples; those from "test" on come last.

    Training and validation share one more scene than they need, so that a pass may be cut (`split_scenes`).
    """
    wanted = scenes_for(samples)
    count = wanted["train"] + wanted["validation"] + 1
    return {granule_name(k): k for k in range(count + wanted.get("test", 0))}


class Simulated(PatchSource):
    """The simulator's samples; the scene last used is kept, so reading in order makes every scene once."""

    def __init__(self, generator: Generator, samples: Mapping[str, int], seed: int) -> None:
        self._generator, self._seed = generator, seed
        self._numbers = schedule(samples)
        names = list(self._numbers)
        held_out = len(names) - scenes_for(samples).get("test", 0)
        scenes = split_scenes(names[:held_out], scenes_for(samples), seed)
        super().__init__(generator.patch, {**scenes, "test": names[held_out:]}, samples)
        self._name, self._scene = "", None

    def region(self, scene: str, rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if scene != self._name:
            self._scene = simulate(self.patch, self._generator.night_fraction, self._seed, self._numbers[scene])
            self._name = scene
        return (
            self._scene.refs[:, rows, columns],
            self._scene.bts[:, rows, columns],
            self._scene.bayes[rows, columns],
        )


def write_published(
    root: Path, generator: Generator, samples: Mapping[str, int], seed: int, part: int, parts: int
) -> list[Path]:
    """Write every `parts`-th scene from the `part`-th below `root` as published files; returns their paths."""
    scenes = list(schedule(samples).items())[part::parts]
    attributes = {"source": "sciml_hpc cloudmask simulator", "seed": seed}
    return write_scenes(root, Simulated(generator, samples, seed), scenes, attributes)


def write_scenes(
    root: Path, source: PatchSource, scenes: Iterable[tuple[str, int]], attributes: Mapping[str, str | int]
) -> list[Path]:
    """Write whole scenes (granule name, number) of a simulated source below `root` as published files, those of "test"
    in `inference`, the others in `training`; returns their paths.
    """
    everything, test, paths = slice(None), set(source.scenes["test"]), []
    for name, number in scenes:
        path = root / ("inference" if name in test else "training") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_scene(path, *source.region(name, everything, everything), {**attributes, "scene": number})
        paths.append(path)
    return paths
