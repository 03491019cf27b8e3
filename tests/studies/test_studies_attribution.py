"""The attribution of lost time: exact on machines whose losses are known, and always adding up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from studies.machines import Machine, slower

from sciml_hpc.studies.attribution import SHARED_CORES, attribute, attributions
from sciml_hpc.studies.times import PARTS, divide

PERFECT = Machine(
    compute=(0.0, 0.002), sigma=0, latency_s=0, bandwidth_s=0, staging=(0, 60), evaluation=(0, 40), setup_s=0, other_s=0
)


@pytest.mark.parametrize("part", [*PARTS, None])
def test_a_loss_is_found_where_it_was_put(part: str | None):
    one, four = PERFECT.study([1, 4], "strong")
    if part:
        four = slower(four, **{part: 7.5})
    found = attribute([four], [one], "strong")
    for name, seconds in found.parts_s.items():
        assert seconds == pytest.approx(7.5 if name == part else 0, abs=1e-9)
    assert found.loss_s == pytest.approx(7.5 if part else 0, abs=1e-9)
    if part:
        assert found.largest == part
        assert "7.50 s" in found.sentence()


@pytest.mark.parametrize("scaling", ["strong", "weak"])
def test_parts_add_up_to_the_loss(scaling: str):
    random = np.random.default_rng(3)
    runs = Machine(noise=0.1, stall_s=0.001).study([1, 2, 8, 64], scaling, repeats=3)
    runs = [replace(slower(run, other=random.random()), epochs=int(random.integers(5, 30))) for run in runs]
    for found in attributions(runs, scaling):
        assert sum(found.parts_s.values()) == pytest.approx(found.loss_s, rel=1e-9, abs=1e-9)
        assert found.time_s - found.ideal_s == pytest.approx(found.loss_s)


def test_more_epochs_are_a_cause_of_their_own():
    one = PERFECT.study([1], "strong")[0]
    four = replace(PERFECT, epochs=15).study([4], "strong")[0]
    found = attribute([four], [one], "strong")
    grows = four.parts.compute + four.parts.evaluation
    assert found.parts_s["epochs"] == pytest.approx(grows / 3)
    assert found.loss_s == pytest.approx(grows / 3)
    assert found.largest == "epochs"


def test_known_machine_strong():
    machine = Machine(stall_s=0.0005)
    one, many = machine.study([1, 16], "strong")
    found = attribute([many], [one], "strong").parts_s
    steps = machine.epochs * 65536 / 256
    assert found["compute"] == pytest.approx(steps * 0.004 * (1 - 1 / 16))  # what does not shrink with the batch
    assert found["stragglers"] == pytest.approx(many.parts.stragglers)
    assert found["data_stall"] == pytest.approx(steps * 0.0005 * (1 - 1 / 16))
    assert found["setup"] == pytest.approx(2 * (1 - 1 / 16))
    assert found["staging"] == pytest.approx(5 * (1 - 1 / 16))


def test_oversubscription_is_named():
    one, four = (replace(r, machines=1, oversubscription=r.nodes / 2) for r in PERFECT.study([1, 4], "strong"))
    found = attribute([slower(four, compute=30)], [one], "strong")
    assert found.labels["compute"] == SHARED_CORES
    assert SHARED_CORES in found.sentence()
    assert any("2 times as many threads as there are cores" in note for note in found.notes)
    assert any("the 4 nodes are 1 machine(s)" in note for note in found.notes)
    assert attribute([four], [replace(one, oversubscription=2.0)], "strong").labels["compute"] == "computing"


def test_better_than_perfect_is_a_negative_loss():
    one, two = PERFECT.study([1, 2], "strong")
    found = attribute([slower(two, compute=-3)], [one], "strong")
    assert found.loss_s == pytest.approx(-3)
    assert found.largest == ""
    assert "no loss" in found.sentence()


def test_a_run_is_divided():
    epochs = [{"train_s": 10.0, "wait_s": 1.0, "eval_s": 2.0}, {"train_s": 9.0, "wait_s": 0.0, "eval_s": 2.0}]
    rates = {"node_samples_per_s": {"min": 90.0, "median": 100.0, "max": 101.0}}
    parts = divide(30.0, 3.0, 1.5, epochs, {"exposed_comm_fraction": 0.25}, rates)
    assert parts.total == pytest.approx(30)
    assert parts.data_stall == pytest.approx(1)
    assert parts.communication == pytest.approx(0.25 * 18)
    assert parts.stragglers == pytest.approx(0.1 * 0.75 * 18)
    assert parts.compute == pytest.approx(0.9 * 0.75 * 18)
    assert parts.other == pytest.approx(30 - 3 - 1.5 - 19 - 4)
    unmeasured = divide(30.0, 3.0, 1.5, [{**e, "wait_s": None} for e in epochs], {"exposed_comm_fraction": None}, {})
    assert unmeasured.compute == pytest.approx(19)
    assert unmeasured.total == pytest.approx(30)


def test_the_sentence_says_no_more_than_is_so():
    one, four = PERFECT.study([1, 4], "strong")
    won = attribute([slower(four, compute=-9.0, staging=2.0)], [one], "strong")
    assert won.loss_s == pytest.approx(-7.0)
    assert won.sentence() == "16 ranks: no loss against perfect scaling"
    spread = attribute([slower(four, compute=400.0, staging=500.0, evaluation=450.0)], [one], "strong")
    assert "1,350 s of 1,472 s lost against perfect scaling, the largest part of it to staging" in spread.sentence()
