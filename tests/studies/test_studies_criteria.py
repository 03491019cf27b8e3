"""The figures that acceptance judges: statistics, bounds, gates, efficiencies."""

from __future__ import annotations

import json

import pytest
from studies.acceptance_runs import TARGET, contract, edit, gated, remove, terms

from sciml_hpc import errors


@pytest.mark.parametrize(
    ("check", "status", "figure"),
    [
        # Epochs of 20.2, 20.3 and 20.4 s, of which two in each run are steady: 800 samples each.
        ({"metric": "throughput.samples_per_s", "stat": "median", "ge": 39.4}, "PASS", 800 / 20.3),
        ({"metric": "samples_per_s", "stat": "max", "le": 39.6}, "FAIL", 800 / 20.2),
        ({"metric": "samples_per_s", "stat": "olympic_mean", "ge": 39.4}, "PASS", 800 / 20.3),
        ({"metric": "epoch_s", "stat": "mean", "le": 20.31}, "PASS", 20.3),
        ({"metric": "epochs.wait_s", "stat": "max", "le": 0.9}, "FAIL", 1.0),
        ({"metric": "epoch_s", "stat": "cv", "le": 0.01}, "PASS", (6 * 0.1**2 * 2 / 3 / 5) ** 0.5 / 20.3),
        ({"metric": "time.train_s", "stat": "range_over_mean", "le": 0.005}, "FAIL", 0.2 / 20.3),
        ({"metric": "time.train_s", "stat": "min", "reference": [50.0, None, 0.25, "s"]}, "PASS", 60.6),
        ({"metric": "time.train_s", "stat": "min", "reference": [50.0, -0.1, 0.2, "s"]}, "FAIL", 60.6),
        ({"metric": "time.train_s", "stat": "min", "reference": [80.0, -0.2, 0.2, "s"]}, "FAIL", 60.6),
        ({"metric": "node_samples_per_s", "stat": "range_over_mean", "le": 0.02}, "PASS", 0.02 / 1.005),
        ({"metric": "node_samples_per_s", "stat": "min", "ge": 49.1}, "FAIL", 1000 / 20.4),
        ({"metric": "log.epochs", "stat": "min", "ge": 3}, "PASS", 3),
        ({"metric": "metrics.accuracy", "stat": "min", "ge": 0.65}, "PASS", 0.65),
    ],
    ids=lambda value: f"{value['stat']} of {value['metric']}" if isinstance(value, dict) else None,
)
def test_statistics_and_bounds_against_those_computed_by_hand(vendor, accept, tmp_path, check, status, figure):
    vendor.set()
    found = accept(contract(work=terms(checks=[check])), options=("--json", str(tmp_path / "out.json")))
    (_, judged) = json.loads((tmp_path / "out.json").read_text())["cases"][0]["checks"]
    assert judged["status"] == status, found.text
    assert judged["found"] == pytest.approx(figure)


def test_the_warm_up_is_the_first_by_time_and_not_the_slowest(vendor, accept):
    for seed, epoch_s in ((1, 20.0), (2, 30.0), (3, 20.0), (4, 20.0)):
        vendor.run(seed, epoch_s=epoch_s)
    found = accept(contract())
    assert found.status == errors.INVALID
    assert "min of samples_per_s: 26.6667 samples/s (n = 3)" in found.text


def test_an_efficiency_is_measured_against_the_median_run_of_its_reference(vendor, accept):
    vendor.set(epoch_s=5.0)
    vendor.set(folder="handed-in/one", nodes=1, count=3, epoch_s=15.9)
    checks = [{"metric": "throughput_efficiency", "stat": "median", "ge": 0.75, "against": "one"}]
    cases = {"work": terms(checks=checks), "one": terms(nodes=1, warm_up=0)}
    cases["one"]["checks"] = [{"metric": "samples_per_s", "stat": "min", "ge": 49}]
    found = accept(contract(**cases))
    # X(4)·1 ÷ (X(1)·4) with medians of 5.3 and 16.1 s.
    assert f"median of throughput_efficiency against one: {16.1 / 5.3 / 4:.6g} (n = 3)" in found.text
    assert found.status == errors.VALID

    remove(vendor.root / "handed-in/one/result_2.txt")
    found = accept(contract(**cases))
    assert found.of("median of throughput_efficiency against one") == ["INVALID"]
    assert "its reference, one, is INVALID" in found.text


def test_a_gate_makes_a_miss_invalid_and_not_slow(vendor, accept):
    vendor.set()
    quality = {"metric": "metrics.accuracy", "stat": "min", "ge": 0.7}
    fast = terms()["checks"][0]
    found = accept(contract(work=terms(checks=[fast, quality])))
    assert found.of("min of samples_per_s") == ["PASS"]
    assert found.verdict.startswith("FAIL: work: min of metrics.accuracy")
    found = accept(contract(work=terms(checks=[fast, {**quality, "gate": True}])))
    assert found.of("min of samples_per_s") == ["INVALID"]
    assert "min of metrics.accuracy: 0.65 (n = 3); must be ≥ 0.7 (a gate)" in found.verdict
    assert found.merit.startswith("FOM: none")


def test_fixed_work_counts_only_if_the_separate_runs_of_its_gate_converge(vendor, accept):
    vendor.set()
    vendor.set(TARGET, count=2, folder="handed-in/gate")
    assert accept(gated()).status == errors.VALID
    edit(vendor.root / "handed-in/gate/result_1.txt", lambda r: r.update(verdict="INVALID", reasons=["not met"]))
    found = accept(gated())
    assert "its gate, converges, is INVALID: nothing shows that this work converges" in found.text
    assert found.of("min of samples_per_s") == ["INVALID", "INVALID"]


def test_a_gate_in_the_same_directory_as_the_work(vendor, accept):
    vendor.set()
    for seed in (1, 2):
        vendor.run(seed, TARGET)
    assert accept(gated()).status == errors.VALID
