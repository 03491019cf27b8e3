"""The parts of `make bench` that are a ratio on one core hold, with room for a busy machine, in every test run."""

from __future__ import annotations

import time

import pytest
from bench import loader, planning, staging
from bench.rows import Row, alternate, faster
from worlds import alone


def test_a_row_says_whether_its_aim_was_reached():
    row = Row("ours", "theirs", [0.98, 1.2, 1.0], ("≥", 0.95), figures={"bytes_per_s": 2e9})
    assert (row.ratio, row.reached) == (1.0, True)
    assert Row("ours", "theirs", [1.1], ("≤", 1.01)).reached is False
    assert Row("ours", "theirs", [1.1], None).reached is None
    assert row.record()["aim"] == "≥ 0.95"
    assert "reached" in row.line()
    assert "bytes_per_s 2e+09" in row.line()


def test_a_row_that_noise_leaves_open_says_so():
    row = Row("ours", "theirs", [0.9, 1.2, 1.0], ("≥", 0.95))
    assert (row.interval, row.reached) == ((0.9, 1.2), None)
    assert "unsure" in row.line()
    # Sign test: of 10, the 2nd and the 9th (1 + 10 of 1024 below); of 6, the extremes (1 of 64); of 20, the 6th, 15th.
    assert Row("", "", range(1, 11), ("≤", 1)).interval == (2, 9)
    assert Row("", "", range(1, 11), ("≤", 1)).confidence == 1 - 2 * 11 / 1024
    assert Row("", "", range(1, 7), ("≤", 1)).confidence == 1 - 2 / 64
    assert Row("", "", range(1, 4), ("≤", 1)).record()["confidence"] == 0.75
    assert Row("", "", range(1, 7), ("≤", 1)).interval == (1, 6)
    assert Row("", "", range(1, 21), ("≤", 1)).interval == (6, 15)
    assert Row("", "", range(1, 21), ("≤", 16)).reached is True
    assert Row("", "", range(1, 21), ("≤", 5)).reached is False


def test_turns_are_taken_and_the_first_round_is_not_counted():
    calls = []
    seconds = alternate(2, a=lambda: calls.append("a"), b=lambda: (calls.append("b"), time.sleep(0.02)))
    assert calls == ["a", "b"] * 3
    assert [len(v) for v in seconds.values()] == [2, 2]
    assert max(faster(seconds["a"], seconds["b"])) > 5


@pytest.mark.slow
def test_large_samples_come_at_the_speed_of_plain_reads():
    for row in loader.large(3):
        assert row.ratio > 0.6, row.line()


@pytest.mark.slow
def test_small_samples_come_without_python_for_each():
    for row in loader.small(2):
        assert max(row.ratios) > (5 if "DataLoader" in row.against else 0.2), row.line()


@pytest.mark.slow
def test_staging_is_not_slower_than_copying_by_hand():
    checked, plain, _ = staging.one_node(alone(), 3)
    assert checked.ratio > 1, checked.line()
    assert max(plain.ratios) > 0.3, plain.line()


@pytest.mark.slow
def test_planning_for_4096_nodes_takes_seconds_at_most():
    before = time.process_time()
    seconds, megabytes = planning.at_scale(1)
    assert time.process_time() - before < 20  # with making the index
    assert seconds.ratio < 5, seconds.line()
    assert 5 < megabytes.ratio < 100, megabytes.line()
