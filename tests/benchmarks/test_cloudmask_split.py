"""The split by granule: whole groups of neighbours, from the names alone."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from itertools import pairwise

import pytest

from sciml_hpc.benchmarks.cloudmask.native import sensing_start_s, split_scenes
from sciml_hpc.benchmarks.cloudmask.synthetic import granule_name

DAY = datetime(2019, 3, 1)


def granule(minutes: float) -> str:
    start = DAY + timedelta(minutes=minutes)
    return f"S3A_SL_1_RBT____{start:%Y%m%dT%H%M%S}_20300101T000000_20300102T000000_0179_001_002_0360_LN2_O_NT_003.hdf"


def passes(count: int, length: int, every_minutes: float = 600) -> list[str]:
    return [granule(every_minutes * i + 3 * j) for i in range(count) for j in range(length)]


def minutes(name: str) -> float:
    return (datetime.strptime(name[16:31], "%Y%m%dT%H%M%S") - DAY).total_seconds() / 60


def nearest(split: dict[str, list[str]]) -> float:
    """Smallest distance (min) between a training and a validation granule."""
    return min(abs(minutes(a) - minutes(b)) for a in split["train"] for b in split["validation"])


@pytest.mark.parametrize("seed", range(5))
def test_groups_stay_whole(seed: int) -> None:
    names = passes(20, 5)
    split = split_scenes(names, {"train": 80, "validation": 20}, seed)
    assert sorted(split["train"] + split["validation"]) == sorted(names)
    assert len(split["validation"]) == 20
    assert nearest(split) > 101


def test_order_of_the_listing_has_no_effect_and_the_seed_has() -> None:
    names = passes(20, 5)
    wanted = {"train": 80, "validation": 20}
    splits = []
    for seed in range(3):
        shuffled = names.copy()
        random.Random(seed).shuffle(shuffled)
        splits.append(split_scenes(shuffled, wanted, 7))
    assert splits[0] == splits[1] == splits[2]
    assert set(split_scenes(names, wanted, 8)["validation"]) != set(splits[0]["validation"])


def test_neighbouring_orbits_are_one_group() -> None:
    """A pass and the next one, 99 minutes later beside it, go together; ten hours on is another group."""
    names = [granule(600 * i + 100 * orbit + 3 * j) for i in range(10) for orbit in range(2) for j in range(2)]
    split = split_scenes(names, {"train": 32, "validation": 8}, 0)
    assert nearest(split) > 101
    assert len({minutes(n) // 600 for n in split["validation"]}) == 2


def test_official_counts_on_one_unbroken_run_of_granules() -> None:
    """970 granules one after the other: 15,488 + 3,840 patches with a single cut and a granule left out there."""
    names = [granule(3 * i) for i in range(970)]
    split = split_scenes(names, {"train": -(-15488 // 20), "validation": 3840 // 20}, 42)
    assert len(split["validation"]) == 192
    assert len(split["train"]) >= 775
    assert not set(split["train"]) & set(split["validation"])
    assert nearest(split) == 6
    times = sorted(minutes(n) for n in split["validation"])
    assert times[-1] - times[0] == 3 * 191


def test_at_most_one_group_is_cut() -> None:
    names = passes(30, 7)
    split = split_scenes(names, {"train": 160, "validation": 40}, 3)
    assert len(split["validation"]) == 40
    shared = {minutes(n) // 600 for n in split["train"]} & {minutes(n) // 600 for n in split["validation"]}
    assert len(shared) <= 1
    assert len(split["train"]) + 40 >= 210 - 1


def test_without_counts_a_fifth_is_validation() -> None:
    split = split_scenes(passes(10, 5), None, 0)
    assert len(split["validation"]) == 10


def test_more_scenes_than_there_are() -> None:
    with pytest.raises(ValueError, match=r"9 training and 2 validation scenes wanted, 10 found"):
        split_scenes(passes(5, 2), {"train": 9, "validation": 2}, 0)


def test_time_is_the_first_stamp_of_the_name() -> None:
    name = "S3A_SL_1_RBT____20180531T222736_20180531T223036_20180602T040456_0179_032_001_1800_LN2_O_NT_003.hdf"
    assert sensing_start_s(name) == 1527805656  # date -u -d '2018-05-31 22:27:36' +%s
    with pytest.raises(ValueError, match=r"S3A_x\.hdf: no sensing time"):
        sensing_start_s("S3A_x.hdf")


def test_simulated_names_follow_the_naming_rules_and_come_in_groups() -> None:
    names = [granule_name(k) for k in range(1000)]
    assert len(set(names)) == 1000
    assert names == sorted(names)
    assert {len(n.removesuffix(".hdf")) for n in names} == {94}  # as every S3A_SL_1_RBT product name
    steps = [sensing_start_s(b) - sensing_start_s(a) for a, b in pairwise(names)]
    assert sorted({s < 200 for s in steps}) == [False, True]
    assert min(s for s in steps if s > 200) > 101 * 60
    split = split_scenes(names, {"train": 796, "validation": 200}, 1)
    assert (
        min(abs(sensing_start_s(a) - sensing_start_s(b)) for a in split["train"] for b in split["validation"])
        > 101 * 60
    )
