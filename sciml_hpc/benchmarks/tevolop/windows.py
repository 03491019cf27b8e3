"""Samples: a window in time of a group of locations, cut from the fortnightly series of one catalogue.

A sample is one window (26 steps seen, 26 to be forecast) of one *group* of locations, a fifth of all: 100 of the
500 of the published data. Four groups are for training, one is for validation. Why not one location a sample, as
the original has it: the attention of the science transformer needs all locations of a moment at once; the score of
the region's sum needs them too, and becomes a sum over samples; the score of each location needs no location
numbers; and a sample of 100 kB is read at the storage's bandwidth, one of 1 kB at its latency. For LSTM and TFT a
sample is simply 100 windows of the batch. The windows overlap 26-fold, as they do in the original; stored whole
(1.3 GB for the published data) they can be read in any order by any number of ranks without knowing the series.
What the original's transformer has otherwise: it attends over all 400 training locations in training and all 100
others in validation; here over 100 in both.

Values are in physical units, with the scaler (fitted on the training part only) beside them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from sciml_hpc.benchmarks.base import SampleField
from sciml_hpc.benchmarks.tevolop.grid import COLUMNS, PIXELS, ROWS, Daily, activity, fortnights, magnitude_of

SEEN, FORECAST = 26, 26
"""Steps of a window before and after the moment of the forecast: a year each."""
WARM_UP = 25
"""Steps at the beginning of a record that only serve the backward sums of a year."""
GROUPS = 5
"""Groups of locations; the last one is for validation."""
HELD_OUT = 0.2
"""Part of the record, at its end, that the split in time keeps for validation."""

BACKWARD = (1, 2, 4, 7, 13, 26)
"""Steps over which the inputs sum magnitudes backward in time: 2 and 4 weeks, 2, 3 and 6 months, a year."""
DYNAMIC = ("magnitude", "depth", "events", "events above 3.29", *(f"magnitude of {n}" for n in BACKWARD[1:]))
"""The nine dynamic inputs, in the published order."""
TARGET_STEPS = (1, 7, 13, 26)
"""Backward sums that the TFT forecasts for each of the 26 steps ahead."""
TARGETS = tuple(DYNAMIC.index(name) for name in ("magnitude", "magnitude of 7", "magnitude of 13", "magnitude of 26"))
"""Where those stand among the dynamic inputs."""
AHEAD = ((1, 0), (2, 1), (4, 3), (7, 6), (13, 12), (26, 25), (52, 51), (104, 103), (26, 51), (52, 103))
"""The ten magnitudes that LSTM and science transformer forecast, as (steps summed, steps from the first one ahead
to the last one summed): the next 2 weeks … 4 years, the second year, and the third and fourth year."""
SUMS = (1, 2, 4, 7, 13, 26, 52, 104)
"""All lengths of backward sums, in steps."""
SCALED = (*DYNAMIC, "magnitude of 52", "magnitude of 104")
"""What the scaler covers, in order."""
PERIODS = (8, 16, 32, 64)
KNOWN = 5 + 2 * len(PERIODS)
"""Inputs known for all times: Legendre polynomials P0 … P4 of time (P0 as 0.5, P1 from 0 to 1), cosine and sine of four
periods. With the location's place on the list they are the 14 known inputs."""
FAULT_LABELS = 4


def scaled_index(steps: int) -> int:
    """Where the magnitude summed over `steps` stands in SCALED (and, up to a year, in DYNAMIC)."""
    return SCALED.index("magnitude" if steps == 1 else f"magnitude of {steps}")


@dataclass(frozen=True)
class Layout:
    """Which windows of a record are for training and which for validation; follows from the settings alone."""

    steps: int
    """Length of the series after the warm-up."""
    locations: int
    in_time: bool
    """Whether the validation part is later (time) or elsewhere (space)."""

    @classmethod
    def of(cls, days: int, locations: int, split: str) -> Layout:
        """Raises ValueError for a record too short to have both parts."""
        layout = cls(days // 14 - WARM_UP, locations, split == "time")
        if locations % GROUPS or layout.windows("validation") < 1 or layout.windows("train") < 1:
            raise ValueError(
                f"days={days}, locations={locations}: {GROUPS} must divide the locations, and the record must hold "
                f"{WARM_UP} fortnights of warm-up, then windows of {SEEN + FORECAST} of each split"
            )
        return layout

    @property
    def group(self) -> int:
        """Locations in a sample."""
        return self.locations // GROUPS

    @property
    def cut(self) -> int:
        """First step that training must not see."""
        return self.steps - round(HELD_OUT * self.steps) if self.in_time else self.steps

    def first(self, split: str) -> int:
        """First step of the first window: a validation window of the split in time forecasts what comes after the
        cut."""
        return self.cut - SEEN if self.in_time and split == "validation" else 0

    def end(self, split: str) -> int:
        """First step that no value of the split may come from."""
        return self.cut if split == "train" else self.steps

    def windows(self, split: str) -> int:
        """Windows of one group."""
        return self.end(split) - self.first(split) - (SEEN + FORECAST) + 1

    def groups(self, split: str) -> range:
        """Groups of the split: the split in time trains on all locations, the split in space on four groups of five."""
        if split == "validation":
            return range(GROUPS - 1, GROUPS)
        return range(GROUPS if self.in_time else GROUPS - 1)

    def samples(self, split: str) -> int:
        """Samples of one record."""
        return self.windows(split) * len(self.groups(split))


@dataclass(frozen=True)
class Record:
    """One catalogue as series, locations in the order of the groups; float32."""

    layout: Layout
    dynamic: np.ndarray
    """(locations, steps, 9)"""
    targets: np.ndarray
    """Those of the dynamic inputs that the TFT forecasts: (locations, steps, 4)"""
    sums: np.ndarray
    """Backward magnitude sums over SUMS steps: (locations, steps, 8), NaN where the record does not reach back."""
    static: np.ndarray
    """Four fault labels and the place on the list, from 0 to 1: (locations, 5)."""
    known: np.ndarray
    """(steps, 13)"""
    scale: np.ndarray
    """Smallest value and range of each of SCALED over the training part: (2, 11)."""


def fields(layout: Layout) -> tuple[SampleField, ...]:
    """The arrays of a sample; about 144 kB with 100 locations."""
    n = layout.group
    units = "magnitude (depth: km, events: 1)"
    return (
        SampleField("history", (n, SEEN, len(DYNAMIC)), "float32", units, "dynamic inputs: " + ", ".join(DYNAMIC)),
        SampleField(
            "future",
            (n, FORECAST, len(TARGETS)),
            "float32",
            "magnitude",
            f"at each step ahead, the magnitude of the last {TARGET_STEPS} steps; NaN: not observed",
        ),
        SampleField(
            "ahead",
            (n, len(AHEAD)),
            "float32",
            "magnitude",
            f"of the coming steps, as (summed, last): {AHEAD}; NaN: not observed",
        ),
        SampleField("static", (n, FAULT_LABELS + 1), "float32", "1", "fault labels; place on the list of locations"),
        SampleField("known", (SEEN + FORECAST, KNOWN), "float32", "1", "functions of time: P0–P4; cos, sin of 8–64"),
        SampleField("scale", (2, len(SCALED)), "float32", units, "smallest value and range in the training part"),
    )


def draw_order(layout: Layout, seed: int, realisation: int = 0) -> np.ndarray:
    """Random order of the list of locations; the first four fifths are for training, the last for validation."""
    return np.random.default_rng([seed, 2, realisation]).permutation(layout.locations)


def record(daily: Daily, faults: np.ndarray, layout: Layout, order: np.ndarray) -> Record:
    """The series of a catalogue. `faults`: label of each pixel, (2400,); `order`: permutation of the list of locations.

    The list is of the most active pixels (`grid.activity`) in ascending order. With the split in time, activity and
    scaler know the training years only; with the split in space, the scaler knows the training locations only.
    """
    series = fortnights(daily)
    trained = slice(0, WARM_UP + layout.cut)
    score = activity(series.large[trained].sum(0))
    active = np.sort(np.argsort(-score, kind="stable")[: layout.locations])
    place = active[order]
    energy = series.energy[:, place].T
    sums = np.stack([magnitude_of(_backward_sum(energy, n)) for n in SUMS], -1)[:, WARM_UP:].astype(np.float32)
    others = np.stack([s[WARM_UP:, place].T for s in (series.depth_km, series.events, series.large)], -1)
    dynamic = np.concatenate([sums[..., :1], others, sums[..., 1 : len(BACKWARD)]], -1, dtype=np.float32)
    known_places = layout.locations if layout.in_time else layout.locations - layout.group
    seen = np.concatenate([dynamic, sums[..., len(BACKWARD) :]], -1)[:known_places, : layout.cut]
    # The sums of two and four years are NaN at the beginning, and throughout a short record.
    low, high = (extreme.reduce(seen.reshape(-1, len(SCALED))) for extreme in (np.fmin, np.fmax))
    static = np.column_stack([fault_labels(faults)[place], order / layout.locations])
    return Record(
        layout,
        dynamic,
        np.ascontiguousarray(dynamic[..., list(TARGETS)]),
        sums,
        static.astype(np.float32),
        time_encodings(layout.steps).astype(np.float32),
        np.stack([np.nan_to_num(low), np.where(high > low, high - low, 1)]).astype(np.float32),
    )


def _backward_sum(series: np.ndarray, steps: int) -> np.ndarray:
    """Sum over the last `steps` steps (last axis); NaN before there are that many."""
    total = np.full(series.shape, np.nan)
    if series.shape[-1] >= steps:
        total[..., steps - 1 :] = np.lib.stride_tricks.sliding_window_view(series, steps, -1).sum(-1)
    return total


def time_encodings(steps: int) -> np.ndarray:
    """The 13 functions of time, (steps, 13): see KNOWN."""
    x = np.linspace(-1, 1, steps)
    legendre = np.polynomial.legendre.legvander(x, 4)
    legendre[:, 0], legendre[:, 1] = 0.5, (x + 1) / 2
    angle = 2 * np.pi * np.arange(steps)[:, None] / np.array(PERIODS)
    waves = np.stack([np.cos(angle), np.sin(angle)], -1).reshape(steps, -1)
    return np.concatenate([legendre, waves], 1)


def fault_labels(faults: np.ndarray) -> np.ndarray:
    """Four numberings of the fault map (2400,), from 0 to 1: shape (2400, 4).

    Fault groups are numbered in the order in which a space-filling curve meets them, so that near numbers mean near
    faults; the curve is mirrored in both directions for four numberings (notebook, cell 32).
    """
    curve = np.array(list(_space_filling_curve(0j, complex(COLUMNS), complex(0, ROWS))))
    x, y = curve.real.astype(int), curve.imag.astype(int)
    labels = []
    for along_x, along_y in ((x, y), (x, ROWS - 1 - y), (COLUMNS - 1 - x, y), (COLUMNS - 1 - x, ROWS - 1 - y)):
        values, first, group = np.unique(faults[COLUMNS * along_y + along_x], return_index=True, return_inverse=True)
        label = np.empty(PIXELS)
        label[COLUMNS * along_y + along_x] = np.argsort(np.argsort(first))[group]
        labels.append(label / max(len(values) - 1, 1))
    return np.stack(labels, -1)


def _space_filling_curve(corner: complex, major: complex, minor: complex) -> Iterator[complex]:
    """Generalised Hilbert curve through the rectangle that two axis-parallel vectors span (Červený's construction)."""
    long, short = int(abs(major)), int(abs(minor))
    along, across = major / long, minor / short
    if short == 1 or long == 1:
        yield from (corner + k * (along if short == 1 else across) for k in range(max(long, short)))
        return
    half_long, half_short = (complex(v.real // 2, v.imag // 2) for v in (major, minor))
    if 2 * long > 3 * short:
        if abs(half_long) % 2 and long > 2:
            half_long += along
        yield from _space_filling_curve(corner, half_long, minor)
        yield from _space_filling_curve(corner + half_long, major - half_long, minor)
        return
    if abs(half_short) % 2 and short > 2:
        half_short += across
    yield from _space_filling_curve(corner, half_short, half_long)
    yield from _space_filling_curve(corner + half_short, major, minor - half_short)
    far = corner + (major - along) + (half_short - across)
    yield from _space_filling_curve(far, -half_short, half_long - major)


class Windows:
    """The samples of one catalogue or of several: a Source.

    Training samples are those of catalogue 0, then of catalogue 1 and so on; validation samples are of catalogue 0.
    Within a catalogue they come in an order in which any first n are spread evenly over time and groups. Reading in
    order makes each catalogue once.
    """

    def __init__(
        self,
        layout: Layout,
        samples: Mapping[str, int],
        of_realisation: Callable[[int], Record],
        catalogues: int | None,
    ) -> None:
        """`catalogues`: how many there are, None for any number. Raises ValueError for more samples than they hold."""
        limits = {
            "train": catalogues and catalogues * layout.samples("train"),
            "validation": layout.samples("validation"),
        }
        for split, limit in limits.items():
            if limit is not None and samples[split] > limit:
                raise ValueError(f"samples.{split}: {samples[split]}, but there are {limit} of these settings")
        self.fields = fields(layout)
        self.samples = {split: samples[split] for split in limits}
        self._layout, self._of_realisation = layout, of_realisation
        self._last: tuple[int, Record] | None = None

    def read(self, split: str, first: int, count: int) -> dict[str, np.ndarray]:
        """Samples `first` … `first + count - 1` of a split."""
        of_one = self._layout.samples(split)
        parts = []
        while count:
            realisation, start = divmod(first, of_one)
            here = min(count, of_one - start)
            parts.append(self._cut(self._record(realisation), split, np.arange(start, start + here)))
            first, count = first + here, count - here
        return {f.name: np.concatenate([p[f.name] for p in parts]) for f in self.fields}

    def _record(self, realisation: int) -> Record:
        if self._last is None or self._last[0] != realisation:
            self._last = realisation, self._of_realisation(realisation)
        return self._last[1]

    def _cut(self, record: Record, split: str, index: np.ndarray) -> dict[str, np.ndarray]:
        layout, n = self._layout, len(index)
        total = layout.samples(split)
        window, group = np.divmod(index * _stride(total) % total, len(layout.groups(split)))
        now = layout.first(split) + window + SEEN - 1
        place = (group + layout.groups(split).start)[:, None] * layout.group + np.arange(layout.group)

        def stretch(series: np.ndarray, start: np.ndarray, length: int) -> np.ndarray:
            """`length` steps of the sample's locations from step `start` on: one contiguous block per location."""
            width = series.shape[-1]
            blocks = np.lib.stride_tricks.sliding_window_view(series.reshape(len(series), -1), length * width, -1)[
                :, ::width
            ]
            return blocks[place, start[:, None]].reshape(n, layout.group, length, width)

        ahead = np.full((n, layout.group, len(AHEAD)), np.nan, np.float32)
        for k, (steps, last) in enumerate(AHEAD):
            observed = np.flatnonzero(now + 1 + last < layout.end(split))
            then = (now[observed] + 1 + last)[:, None]
            ahead[observed, :, k] = record.sums[place[observed], then, SUMS.index(steps)]
        return {
            "history": stretch(record.dynamic, now + 1 - SEEN, SEEN),
            "future": stretch(record.targets, now + 1, FORECAST),
            "ahead": ahead,
            "static": record.static[place],
            "known": record.known[now[:, None] + np.arange(1 - SEEN, 1 + FORECAST)],
            "scale": np.broadcast_to(record.scale, (n, *record.scale.shape)).copy(),
        }


def _stride(total: int) -> int:
    """Step that visits all of 0 … total − 1, any stretch of it spread evenly: the golden section, made coprime."""
    stride = max(1, round(total * (math.sqrt(5) - 1) / 2))
    while math.gcd(stride, total) > 1:
        stride += 1
    return stride
