"""Windows cut from a record, against values looked up one by one."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from sciml_hpc.benchmarks.tevolop import synthetic
from sciml_hpc.benchmarks.tevolop.grid import PIXELS, Daily, activity, fortnights, magnitude_of
from sciml_hpc.benchmarks.tevolop.windows import (
    AHEAD,
    BACKWARD,
    DYNAMIC,
    SCALED,
    TARGET_STEPS,
    Layout,
    Windows,
    draw_order,
    fault_labels,
    record,
    time_encodings,
)

DAYS, LOCATIONS = 14 * 160 + 3, 20


def some_days(days: int = DAYS) -> Daily:
    """Random cells, more of them in the north."""
    random = np.random.default_rng(5)
    cells = np.unique(random.integers(0, days, 60000) * PIXELS + random.geometric(0.01, 60000).clip(max=PIXELS) - 1)
    n = len(cells)
    values = random.uniform(1, 6, (2, n)).astype(np.float32)
    return Daily(days, *np.divmod(cells, PIXELS), *values, random.integers(1, 5, n), random.integers(0, 2, n))


FAULTS = np.random.default_rng(6).integers(3, 9, PIXELS)


def made(split: str) -> tuple[Layout, Windows]:
    layout = Layout.of(DAYS, LOCATIONS, split)
    whole = record(some_days(), FAULTS, layout, draw_order(layout, seed=1))
    counts = {s: layout.samples(s) for s in ("train", "validation")}
    return layout, Windows(layout, counts, lambda _: whole, catalogues=1)


def test_the_published_record_gives_the_published_numbers() -> None:
    """1801 steps, 500 locations in 400 and 100; 1750 windows: 700,000 and 175,000 of single locations."""
    layout = Layout.of(25567, 500, "space")
    assert layout.steps == 1801
    assert layout.samples("train") * layout.group == 700_000
    assert layout.samples("validation") * layout.group == 175_000


@pytest.mark.parametrize("split", ["space", "time"])
def test_every_value_of_every_sample(split: str) -> None:
    """Each sample against sums over its own fortnights, found by matching its last step."""
    layout, source = made(split)
    series = fortnights(some_days())
    trained = slice(0, 25 + layout.cut)
    active = np.sort(np.argsort(-activity(series.large[trained].sum(0)), kind="stable")[:LOCATIONS])
    pixels = active[draw_order(layout, seed=1)].reshape(5, -1)
    assert (layout.cut < layout.steps) == (split == "time")

    def total(pixel: np.ndarray, last: int, steps: int) -> np.ndarray:
        return magnitude_of(series.energy[25 + last - steps + 1 : 25 + last + 1, pixel].sum(0))

    encodings = time_encodings(layout.steps).astype(np.float32)
    seen = set()
    for part in ("train", "validation"):
        samples = source.read(part, 0, layout.samples(part))
        for k in range(layout.samples(part)):
            first = int(np.flatnonzero((encodings == samples["known"][k, 0]).all(1))[0])
            now = first + 25
            np.testing.assert_array_equal(samples["known"][k], encodings[first : first + 52])
            place = samples["static"][k, :, -1] * LOCATIONS
            pixel = active[place.round().astype(int)]
            group = next(g for g in range(5) if np.array_equal(pixels[g], pixel))
            seen.add((part, first, group))
            if k % 7:  # a seventh of the samples is enough for the values
                continue
            for step in (0, 13, 25):
                at = first + step
                row = samples["history"][k, :, step]
                others = (series.depth_km, series.events, series.large)
                expected = [total(pixel, at, 1), *(s[25 + at, pixel] for s in others)]
                expected += [total(pixel, at, n) for n in BACKWARD[1:]]
                np.testing.assert_allclose(row, np.stack(expected, -1), rtol=1e-6)
                ahead = [total(pixel, now + 1 + step, n) for n in TARGET_STEPS]
                np.testing.assert_allclose(samples["future"][k, :, step], np.stack(ahead, -1), rtol=1e-6)
            for column, (steps, last) in enumerate(AHEAD):
                found = samples["ahead"][k, :, column]
                if now + 1 + last < layout.end(part):
                    np.testing.assert_allclose(found, total(pixel, now + 1 + last, steps), rtol=1e-6)
                else:
                    assert np.isnan(found).all()
    windows = {p: layout.windows(p) for p in ("train", "validation")}
    expected = {("validation", layout.first("validation") + w, 4) for w in range(windows["validation"])}
    expected |= {("train", w, g) for w in range(windows["train"]) for g in layout.groups("train")}
    assert seen == expected


def test_the_split_in_time_keeps_the_future_from_training() -> None:
    layout = Layout.of(25567, 500, "time")
    assert layout.cut == 1441
    assert layout.first("train") + layout.windows("train") - 1 + 52 == layout.cut  # the last target seen
    assert layout.first("validation") + 26 == layout.cut  # the first target to be forecast
    assert list(layout.groups("train")) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("split", ["space", "time"])
def test_the_scaler_sees_only_the_training_part(split: str) -> None:
    """Smallest and largest training input are 0 and 1; a change of validation data changes no scaler."""
    layout, source = made(split)
    train = source.read("train", 0, layout.samples("train"))
    low, span = train["scale"][0]
    scaled = (train["history"] - low[: len(DYNAMIC)]) / span[: len(DYNAMIC)]
    assert scaled.min() == pytest.approx(0, abs=1e-6)
    assert scaled.max() <= 1 + 1e-6
    days = some_days()
    order = draw_order(layout, seed=1)
    base = record(days, FAULTS, layout, order)
    if split == "space":  # the pixels of the last group, through all the record
        series = fortnights(days)
        active = np.sort(np.argsort(-activity(series.large.sum(0)), kind="stable")[:LOCATIONS])
        held_out = np.isin(days.pixel, active[order[-layout.group :]])
    else:  # all that happened after the cut
        held_out = days.day >= 3 + 14 * (25 + layout.cut)
    assert held_out.any()
    louder = Daily(
        days.days,
        days.day,
        days.pixel,
        days.magnitude + held_out * np.float32(3),
        days.depth_km,
        days.events,
        days.large,
    )
    changed = record(louder, FAULTS, layout, order)
    np.testing.assert_array_equal(changed.scale, base.scale)
    assert (changed.dynamic != base.dynamic).any()
    assert len(SCALED) == base.scale.shape[1]


def test_samples_do_not_depend_on_how_they_are_read() -> None:
    """Chunks, order of calls, and more catalogues than one."""
    layout = Layout.of(DAYS, LOCATIONS, "space")

    def of_realisation(realisation: int):
        return record(some_days(), np.roll(FAULTS, realisation), layout, draw_order(layout, 1, realisation))

    n = 2 * layout.samples("train") + 5
    sizes = {"train": n, "validation": 3}
    whole = Windows(layout, sizes, of_realisation, None).read("train", 0, n)
    source = Windows(layout, sizes, of_realisation, None)
    cuts = [0, 7, layout.samples("train") - 1, layout.samples("train") + 4, n]
    for first, end in reversed(list(pairwise(cuts))):
        piece = source.read("train", first, end - first)
        for field in source.fields:
            np.testing.assert_array_equal(piece[field.name], whole[field.name][first:end])
            assert piece[field.name].shape == (end - first, *field.shape)
            assert piece[field.name].dtype == field.dtype
    assert not np.array_equal(whole["history"][0], whole["history"][layout.samples("train")])


def test_the_first_samples_are_spread_over_the_years() -> None:
    layout = Layout.of(25567, 20, "space")
    whole = record(some_days(25567), FAULTS, layout, draw_order(layout, 1))
    source = Windows(layout, {"train": 80, "validation": 40}, lambda _: whole, None)
    linear_time = source.read("train", 0, 80)["known"][:, 25, 1]
    counts, _ = np.histogram(linear_time, bins=10, range=(0, 1))
    assert counts.min() >= 6


def test_more_samples_than_there_are_is_refused() -> None:
    layout = Layout.of(DAYS, LOCATIONS, "space")
    with pytest.raises(ValueError, match=r"samples.validation: 999"):
        Windows(layout, {"train": 1, "validation": 999}, lambda _: None, None)
    with pytest.raises(ValueError, match=r"samples.train: 99999"):
        Windows(layout, {"train": 99999, "validation": 1}, lambda _: None, 1)


@pytest.mark.parametrize(("days", "locations"), [(14 * 70, 20), (14 * 160, 21)])
def test_impossible_settings_are_refused(days: int, locations: int) -> None:
    with pytest.raises(ValueError, match=f"days={days}, locations={locations}"):
        Layout.of(days, locations, "space")


def test_time_encodings() -> None:
    known = time_encodings(1801)
    x = np.linspace(-1, 1, 1801)
    np.testing.assert_allclose(known[:, 0], 0.5)
    np.testing.assert_allclose(known[:, 1], np.arange(1801) / 1800)
    np.testing.assert_allclose(known[:, 4], (35 * x**4 - 30 * x**2 + 3) / 8, atol=1e-12)
    np.testing.assert_allclose(known[:, 6], np.sin(2 * np.pi * np.arange(1801) / 8), atol=1e-9)
    np.testing.assert_allclose(known[:, 11], np.cos(2 * np.pi * np.arange(1801) / 64), atol=1e-9)


def test_fault_labels_follow_a_space_filling_curve() -> None:
    """With a fault group of its own for each pixel the label is the place on the curve."""
    labels = fault_labels(np.arange(PIXELS) * 3)
    place = (labels * (PIXELS - 1)).round().astype(int)
    for column in place.T:
        assert sorted(column) == list(range(PIXELS))
        y, x = np.divmod(np.argsort(column), 60)
        assert (np.abs(np.diff(y)) + np.abs(np.diff(x)) == 1).all()
    starts = [divmod(int(np.argmin(column)), 60) for column in place.T]
    assert starts == [(0, 0), (39, 0), (0, 59), (39, 59)]
    few = fault_labels(synthetic.zones(1))
    assert {len(np.unique(column)) for column in few.T} == {synthetic.ZONES}
    assert few.min() == 0
    assert few.max() == 1
    assert (fault_labels(np.zeros(PIXELS, int)) == 0).all()
