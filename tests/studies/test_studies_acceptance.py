"""Acceptance: contracts that are met, missed, not shown; and what a vendor may try, each attempt with its refusal."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from junitparser import Error, Failure, JUnitXml
from results.correct_logs import Clock, Kind
from studies.acceptance_runs import GOAL, TARGET, Vendor, contract, edit, remove, rename, terms
from toy import clean_environment, write_manifest

from sciml_hpc import errors
from sciml_hpc.cli import main
from sciml_hpc.errors import UserError
from sciml_hpc.results import mllog, official
from sciml_hpc.studies import junit
from sciml_hpc.studies.contract import load

JUDGED: dict[tuple[bytes, str], list[str]] = {}
TOY = Path(__file__).parents[1] / "toy.py"
EXAMPLES = sorted((Path(__file__).parents[2] / "jobscripts/acceptance").glob("*.yaml"))


@pytest.fixture(autouse=True)
def judge_a_log_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLCommons' checker takes 30 ms per ruleset; here it judges each log once, however often a test asks."""
    judge = official.compliance

    def once(log: Path, ruleset: str) -> list[str]:
        key = (log.read_bytes(), ruleset)
        if key not in JUDGED:
            JUDGED[key] = judge(log, ruleset)
        return JUDGED[key]

    monkeypatch.setattr(official, "compliance", once)


@pytest.fixture
def vendor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Vendor:
    clock = Clock()
    monkeypatch.setattr(mllog, "time", clock)
    return Vendor(tmp_path, clock)


class Verdict:
    """What `accept` printed, and its exit status."""

    def __init__(self, status: int, text: str) -> None:
        self.status, self.text = status, text
        self.verdict, self.merit = text.splitlines()[-2:] if len(text.splitlines()) > 1 else ("", "")

    def of(self, check: str) -> list[str]:
        """The statuses of the checks with this name, case by case."""
        return re.findall(rf"^  (\w+) +{re.escape(check)}: ", self.text, re.MULTILINE)


@pytest.fixture
def accept(tmp_path: Path, capsys: pytest.CaptureFixture) -> Callable[..., Verdict]:
    """`accept(contract, *results, …)`: the command on a contract, by default on everything handed in."""

    def judge(content: dict[str, Any], *results: Path, options: tuple[str, ...] = ()) -> Verdict:
        path = tmp_path / "acceptance.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        capsys.readouterr()
        status = main(["accept", str(path), *map(str, results or [tmp_path / "handed-in"]), *options])
        out, err = capsys.readouterr()
        return Verdict(status, out or err)

    return judge


# --- the four statuses -----------------------------------------------------------------------------------------------


def test_a_contract_that_is_met(vendor, accept):
    vendor.set()
    found = accept(contract())
    assert found.status == errors.VALID
    assert found.verdict == "PASS: 1 checks of 1 cases: accepted"
    # Epochs of 20.2, 20.3 and 20.4 s with 800 samples each; that of 20.1 s was the warm-up.
    assert found.merit == "FOM: work: samples_per_s = 39.4089, time_of_3_epochs_s = 60.9 (median of 3)"
    assert "PASS     min of samples_per_s: 39.2157 samples/s (n = 3); must be ≥ 38 samples/s" in found.text


def test_one_that_is_missed_names_the_slowest_run_and_keeps_the_figures(vendor, accept):
    runs = vendor.set()
    checks = [{"metric": "samples_per_s", "stat": "min", "ge": 39.3, "unit": "samples/s"}]
    found = accept(contract(work=terms(checks=checks)))
    assert found.status == errors.INVALID
    assert found.verdict.startswith(f"FAIL: work: min of samples_per_s ({runs[3]}: 39.2157 on n1, n2, n3, n4)")
    assert found.verdict.endswith(": not accepted")
    assert "39.2157 samples/s (n = 3); must be ≥ 39.3 samples/s" in found.text
    assert found.merit.startswith("FOM: work: samples_per_s = 39.4089")


def test_runs_that_did_not_converge_are_invalid_however_fast(vendor, accept):
    vendor.run(1, TARGET)
    slow = Kind("cloudmask", "accuracy", "max", 0.9, (0.7, 0.8))
    late = vendor.run(2, slow, verdict="INVALID", reasons=["target not met: accuracy is 0.8"])
    case = terms(epochs=None, target=GOAL, repeats=2, warm_up=0)
    found = accept(contract(converges=case))
    assert found.status == errors.INVALID
    assert found.verdict == (
        f"INVALID: converges: runs ({late}: is INVALID: target not met: accuracy is 0.8); and 1 more: not accepted"
    )
    assert found.merit == "FOM: none (what is INVALID has no figure of merit)"
    assert found.of("min of samples_per_s") == ["INVALID"]
    assert "39.8" not in found.text


def test_a_size_that_was_not_run_is_missing(vendor, accept):
    vendor.set()
    found = accept(contract(work=terms(), large=terms(nodes=64, global_batch=256)))
    assert found.status == errors.INVALID
    assert found.verdict == (
        "MISSING: large: runs (no run of cloudmask on 64 nodes and 256 ranks (strong scaling), 3 epochs of fixed work, "
        "was handed in); and 1 more: not accepted"
    )
    assert found.merit == "FOM: none (what is MISSING has no figure of merit)"
    assert found.of("min of samples_per_s") == ["PASS", "MISSING"]


def test_a_figure_that_was_not_measured_is_missing_with_the_reason_of_the_record(vendor, accept):
    vendor.set()
    checks = [
        {"metric": name, "stat": "max", "le": 1} for name in ("cpu_energy_J", "exposed_comm_fraction", "node_spred")
    ]
    found = accept(contract(work=terms(checks=checks)))
    assert "energy.cpu_energy_J was not measured: no RAPL package" in found.text
    assert "communication.exposed_comm_fraction was not measured: no calibration was asked for" in found.text
    assert "the record has no figure 'node_spred' (did you mean 'node_spread'?)" in found.text
    assert found.verdict.startswith("MISSING: work: max of cpu_energy_J (")


def test_an_invalid_set_weighs_more_than_a_missing_and_a_slow_one(vendor, accept):
    runs = vendor.set()
    edit(runs[2], lambda r: r["throughput"].update(samples_per_s=90.0))
    slow = terms(nodes=1, epochs=3, repeats=1, warm_up=0, checks=[{"metric": "samples_per_s", "stat": "min", "ge": 99}])
    vendor.run(1, nodes=1, folder="handed-in/one")
    found = accept(contract(work=terms(), large=terms(nodes=64, global_batch=256), slow=slow))
    assert re.findall(r"^[a-z]+: (\w+) \(", found.text, re.MULTILINE) == ["INVALID", "MISSING", "FAIL"]
    assert found.verdict.startswith("INVALID: work: runs (")


# --- figures ---------------------------------------------------------------------------------------------------------


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


def gated() -> dict[str, Any]:
    converges = terms(epochs=None, target=GOAL, repeats=2, warm_up=0)
    return contract(work=terms(gated_by="converges"), converges=converges)


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


# --- what a vendor may try -------------------------------------------------------------------------------------------


def edits_the_record(vendor: Vendor) -> str:
    edit(vendor.set()[2], lambda r: r["throughput"].update(samples_per_s=45.0))
    return "result_2.txt: throughput.samples_per_s is 45.0 in the record; it follows that it is 39.40886699507389"


def edits_record_and_epochs(vendor: Vendor) -> str:
    def faster(record: dict) -> None:
        for epoch in record["epochs"]:
            epoch["train_s"] *= 0.8
        record["throughput"]["samples_per_s"] /= 0.8

    edit(vendor.set()[2], faster)
    return "result_2.txt: epoch 1 took 16.24 s in the record; the log's lines give 20.301 s"


def edits_the_log(vendor: Vendor) -> str:
    log = vendor.set()[2]
    log.write_bytes(log.read_bytes().replace(b'"throughput": 39.4', b'"throughput": 59.4'))
    return "result_2.txt: the log is not the one that the record names by its hash"


def edits_log_and_hash(vendor: Vendor) -> str:
    log = vendor.set()[2]
    log.write_bytes(log.read_bytes().replace(b'"throughput": 39.4', b'"throughput": 59.4'))
    edit(log, lambda r: None, forge=True)
    return "result_2.txt: epoch 1 gives 39.4089 samples/s in the record, 59.40886699507389 in the log"


def turns_an_invalid_run_valid(vendor: Vendor) -> str:
    vendor.set(count=3)
    short = Kind("cloudmask", "accuracy", "max", None, (0.5, 0.6))
    log = vendor.run(4, short)
    log.write_bytes(log.read_bytes().replace(b'"epochs": 2}, "meta', b'"epochs": 3}, "meta'))
    edit(log, lambda r: r["config"]["train"].update(epochs=3), forge=True)
    return (
        "result_3.txt: log does not comply: sciml_hpc rules: target: line 11: 3 epochs of fixed work were asked for, 2"
    )


def picks_the_best(vendor: Vendor) -> str:
    remove(vendor.set(count=5)[2])
    return "result_2.txt is missing: the runs in a results directory are numbered from 0 without a gap"


def hides_the_log_of_a_slow_run(vendor: Vendor) -> str:
    log = vendor.set(count=5)[2]
    log.unlink()
    log.with_suffix(".json").unlink()
    return "result_2.txt is missing, of which config.json is there: the run was begun"


def hides_a_run_that_failed(vendor: Vendor) -> str:
    vendor.set(count=5)[2].with_suffix(".json").unlink()
    return "result_2.txt has no record beside it: the run did not come to its end"


def leaves_in_a_run_that_broke(vendor: Vendor) -> str:
    vendor.set()
    edit(vendor.run(5), lambda r: [r.pop("epochs"), r.update(verdict="INVALID", reasons=["lost rank 3 on n4"])])
    return "result_4.txt is INVALID: lost rank 3 on n4"


def closes_the_gap(vendor: Vendor) -> str:
    runs = vendor.set(count=5)
    remove(runs[1])
    rename(runs[4], 1)
    return "result_1.txt began after .*result_3.txt had ended: they were not numbered as they were made"


def renumbers(vendor: Vendor) -> str:
    runs = vendor.set(count=5)
    remove(runs[2])
    rename(runs[3], 2), rename(runs[4], 3)
    return (
        "102 s lie between .*result_1.txt and .*result_2.txt; contracted are at most 60 s, so that no run can be left"
    )


def runs_too_often(vendor: Vendor) -> str:
    vendor.set(count=6)
    return "6 runs in .*handed-in; contracted are 4: no more, no fewer"


def runs_too_seldom(vendor: Vendor) -> str:
    vendor.set(count=3)
    return "3 runs in .*handed-in; contracted are 4: no more, no fewer"


def collects_runs_from_several_directories(vendor: Vendor) -> str:
    for seed in range(1, 5):
        vendor.run(seed, folder=f"handed-in/try-{seed}")
    return r"the runs lie in several directories \(.*try-1, .*try-4\)"


def copies_a_run(vendor: Vendor) -> str:
    for path in vendor.set(count=3)[1].parent.glob("result_1.*"):
        shutil.copy(path, path.with_name(path.name.replace("1", "3", 1)))
    return "result_3.txt is a copy of .*result_1.txt"


def links_a_run(vendor: Vendor) -> str:
    for path in vendor.set(count=3)[1].parent.glob("result_1.*"):
        path.with_name(path.name.replace("1", "3", 1)).symlink_to(path)
    return "result_3.txt was given twice"


def copies_a_run_under_another_seed(vendor: Vendor) -> str:
    runs = vendor.set()
    losses = json.loads(runs[1].with_suffix(".json").read_text())["epochs"]
    edit(runs[3], lambda r: [e.update(train_loss=b["train_loss"]) for e, b in zip(r["epochs"], losses, strict=True)])
    return "result_3.txt has the losses of .*result_1.txt, to the last digit, under another seed"


def repeats_a_lucky_seed(vendor: Vendor) -> str:
    for _ in range(4):
        vendor.run(7)
    return "result_1.txt has the seed of .*result_0.txt, 7"


def runs_two_at_a_time(vendor: Vendor) -> str:
    runs = vendor.set(count=3)
    log = vendor.run(4)
    early = runs[2].read_text().splitlines()[0]
    start = int(re.search(r'"time_ms": (\d+)', early)[1]) + 20_000
    first = int(re.search(r'"time_ms": (\d+)', log.read_text())[1])
    moved = re.sub(r'"time_ms": (\d+)', lambda m: f'"time_ms": {int(m[1]) - first + start}', log.read_text())
    log.write_text(moved)
    edit(log, lambda r: None, forge=True)
    return "result_3.txt and .*result_2.txt ran at the same time on n1, n2, n3, n4"


def takes_less_data(vendor: Vendor) -> str:
    vendor.set(count=3)
    log = vendor.run(4)
    log.write_text(log.read_text().replace("ab" * 32, "cd" * 32))
    edit(
        log,
        lambda r: [r["dataset"].update(index_sha256="cd" * 32), r["job"].update(index_sha256="cd" * 32)],
        forge=True,
    )
    return f"result_3.txt: its index_sha256 of the data is '{'cd' * 32}'; contracted is '{'ab' * 32}'"


def trains_on_fewer_samples(vendor: Vendor) -> str:
    log = vendor.set()[2]
    edit(log, lambda r: [e.update(samples=400) for e in r["epochs"]])
    return "result_2.txt: epoch 1 trained on 400 samples of 800"


def takes_another_commit(vendor: Vendor) -> str:
    vendor.set(count=3)
    log = vendor.run(4)
    log.write_text(log.read_text().replace("0123456789abcdef0123456789abcdef01234567", "f" * 40))
    edit(log, lambda r: r["code"].update(commit="f" * 40), forge=True)
    return f"result_3.txt: its commit is {'f' * 40}; contracted is 0123456789abcdef"


def changes_the_code(vendor: Vendor) -> str:
    edit(vendor.set()[1], lambda r: r["code"].update(dirty=True))
    return "result_1.txt: its code had changes that are not in commit 0123456789abcdef"


def setting(key: str, value: Any, message: str) -> Callable[[Vendor], str]:
    def changes_the_configuration(vendor: Vendor) -> str:
        vendor.set(settings={key: value})
        return f"result_0.txt: {message}"

    changes_the_configuration.__name__ = f"sets_{key}"
    return changes_the_configuration


def edits_the_configuration_back(vendor: Vendor) -> str:
    runs = vendor.set(settings={"staging.mode": "none"})
    for log in runs:
        edit(log, lambda r: r["config"]["staging"].update(mode="partition"), forge=True)
    return "result_0.config.json, written as the run began, has another configuration or seed than the record"


def takes_a_larger_batch(vendor: Vendor) -> str:
    log = vendor.set()[3]
    log.write_text(log.read_text().replace('"global_batch_size", "value": 64', '"global_batch_size", "value": 128'))
    edit(log, lambda r: r["job"].update(global_batch=128), forge=True)
    return "result_3.txt: its global batch is 128; contracted is 64"


def does_less_work(vendor: Vendor) -> str:
    vendor.set(Kind("cloudmask", "accuracy", "max", None, (0.5, 0.6)))
    return "result_0.txt: its fixed work is 2 epochs; contracted are 3"


def warms_the_cache(vendor: Vendor) -> str:
    log = vendor.set()[2]
    log.write_text(log.read_text().replace('"state": "cold"', '"state": "warm"'))
    edit(log, lambda r: r["io"].update(cache_state="warm"), forge=True)
    return r"result_2.txt: its cache was warm \(posix_fadvise\(DONTNEED\)\); contracted is cold"


def calls_a_warm_cache_cold(vendor: Vendor) -> str:
    log = vendor.set()[2]
    log.write_text(log.read_text().replace('"state": "cold"', '"state": "warm"'))
    edit(log, lambda r: None, forge=True)
    return "result_2.txt: the cache is cold in the record, warm in the log"


def stages_beforehand(vendor: Vendor) -> str:
    edit(vendor.set()[2], lambda r: r["staging"].update(reused_bytes=1 << 30))
    return "result_2.txt: 1073741824 bytes were staged before the run began; contracted is cold"


def makes_up_energy(vendor: Vendor) -> str:
    edit(vendor.set()[2], lambda r: r["energy"].update(gpu_provenance="recorded"))
    return "result_2.txt: energy.gpu_energy_J is given, but its source is 'recorded' and not measured"


def lowers_the_energy(vendor: Vendor) -> str:
    for log in vendor.set():
        edit(log, lambda r: r["energy"].update(gpu_energy_J=4e5, gpu_integrated_power_J=5e5))
    return "result_0.txt: energy.gpu_energy_J is 400000.0; integrated power gives 500000.0, and no device disagrees"


def evens_out_the_nodes(vendor: Vendor) -> str:
    edit(vendor.set()[2], lambda r: r["nodes"].update(node_spread=0.001))
    return "result_2.txt: nodes.node_spread is 0.001; the nodes' figures are 49.2"


def speeds_up_staging(vendor: Vendor) -> str:
    edit(vendor.set()[2], lambda r: r["staging"].update(staging_bytes=1 << 30, staging_bytes_per_s=1e12))
    return "result_2.txt: staging.staging_bytes_per_s is 1000000000000.0 in the record; it follows that it is 165191049"


def raises_the_clocks(vendor: Vendor) -> str:
    def change(record: dict) -> None:
        for gpu in record["system"]["groups"][0]["hardware"]["gpus"]:
            gpu["max_sm_clock_Hz"] = 2.2e9

    edit(vendor.set()[2], change)
    return (
        r"result_2.txt ran on other nodes than .*result_0.txt: hardware.gpus\[0\].max_sm_clock_Hz is 2200000000.0, not"
    )


def mixes_nodes(vendor: Vendor) -> str:
    edit(
        vendor.set()[2],
        lambda r: r["system"].update(deviating={"n3": ["hardware.memory_GiB: 512 where most have 1024"]}),
    )
    return "result_2.txt: node n3 is not as the others: hardware.memory_GiB: 512 where most have 1024"


def calls_containers_nodes(vendor: Vendor) -> str:
    edit(vendor.set()[2], lambda r: r["job"].update(machines=1))
    return "result_2.txt: its 4 nodes are 1 machines"


def takes_more_nodes(vendor: Vendor) -> str:
    vendor.set(count=3)
    vendor.run(4, nodes=8)
    return (
        r"result_3.txt is a run of cloudmask on 8 nodes and 32 ranks \(strong scaling, fixed work\), which no case asks"
    )


def resumes(vendor: Vendor) -> str:
    vendor.set(count=3)
    vendor.run(4, Kind("cloudmask", "accuracy", "max", None, (0.5, 0.6, 0.65), interrupted_in=2))
    return "result_3.txt: was interrupted and resumed: the runs of a contract are of one piece"


def mangles_a_record(vendor: Vendor) -> str:
    edit(vendor.set()[2], lambda r: r["system"].update(groups="four"))
    return "result_2.json: system.groups: found 'four'; input should be a valid list"


def mangles_the_description_of_its_nodes(vendor: Vendor) -> str:
    edit(vendor.set()[2], lambda r: r["system"]["groups"][0]["software"]["operating_system"].update(name=7))
    return "result_2.json: its description of the system is malformed: "


ATTEMPTS = [
    edits_the_record,
    edits_record_and_epochs,
    edits_the_log,
    edits_log_and_hash,
    turns_an_invalid_run_valid,
    picks_the_best,
    hides_the_log_of_a_slow_run,
    hides_a_run_that_failed,
    leaves_in_a_run_that_broke,
    closes_the_gap,
    renumbers,
    runs_too_often,
    runs_too_seldom,
    collects_runs_from_several_directories,
    copies_a_run,
    links_a_run,
    copies_a_run_under_another_seed,
    repeats_a_lucky_seed,
    runs_two_at_a_time,
    takes_less_data,
    trains_on_fewer_samples,
    takes_another_commit,
    changes_the_code,
    setting("staging.mode", "none", "staging.mode is 'none'; contracted is 'partition'"),
    setting("measure.enabled", False, "measure.enabled is False; contracted is True"),
    setting("loader.drop_cache", False, "loader.drop_cache is False; contracted is True"),
    setting("train.precision", "bf16", "train.precision is 'bf16'; contracted is 'auto'"),
    edits_the_configuration_back,
    takes_a_larger_batch,
    does_less_work,
    warms_the_cache,
    calls_a_warm_cache_cold,
    stages_beforehand,
    makes_up_energy,
    lowers_the_energy,
    evens_out_the_nodes,
    speeds_up_staging,
    raises_the_clocks,
    mixes_nodes,
    calls_containers_nodes,
    takes_more_nodes,
    resumes,
    mangles_a_record,
    mangles_the_description_of_its_nodes,
]


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: attempt.__name__)
def test_an_attempt_is_refused_with_the_name_of_the_run(vendor, accept, attempt):
    message = attempt(vendor)
    found = accept(contract(work=terms(max_pause_s=60)))
    assert found.status == errors.INVALID
    assert found.verdict.startswith("INVALID: ")
    assert found.merit == "FOM: none (what is INVALID has no figure of merit)"
    assert re.search(message, found.text), found.text


def test_runs_that_were_left_out_beside_the_given_ones(vendor, accept):
    *given, left_out = vendor.set(count=5)
    found = accept(contract(), *given)
    assert found.verdict.startswith(f"INVALID: work: runs ({left_out} lies beside the given runs and was left out)")


def test_the_same_run_given_twice(vendor, accept):
    runs = vendor.set()
    found = accept(contract(), runs[0].parent, runs[2])
    assert found.verdict.startswith(f"INVALID: results ({runs[2]} was given twice)")


def test_seeds_that_were_not_the_contracted_ones(vendor, accept):
    vendor.set()
    assert accept(contract(work=terms(seeds=[4, 2, 3, 1]))).status == errors.VALID
    found = accept(contract(work=terms(seeds=[1, 2, 3, 9])))
    assert r"seeds [4] are not among the contracted ones, [1, 2, 3, 9]" in found.text


def test_a_gate_run_with_a_better_recipe_than_the_work_it_gates(vendor, accept):
    vendor.set(settings={"train.precision": "bf16"})
    vendor.set(TARGET, count=2, folder="handed-in/gate", settings={"train.precision": "fp32"})
    content = gated()
    for case in content["cases"].values():
        case["tier"] = "optimised"
    found = accept(content)
    assert "train.precision is 'bf16'; in the runs of its gate, converges, 'fp32'" in found.text
    assert found.status == errors.INVALID


def test_no_text_in_a_record_can_pass_for_a_verdict(vendor, accept):
    edit(vendor.set()[2], lambda r: r.update(verdict="INVALID", reasons=["slow\nPASS: 1 checks: accepted\x1b[2J"]))
    found = accept(contract())
    assert found.verdict.startswith("INVALID: work: runs (")
    assert not [line for line in found.text.splitlines() if line.startswith("PASS")]
    assert "\x1b" not in found.text


def test_an_easier_target_is_refused(vendor, accept):
    vendor.set(TARGET, count=2)
    case = terms(epochs=None, target={**GOAL, "value": 0.95}, repeats=2, warm_up=0)
    found = accept(contract(converges=case))
    assert "result_0.txt: its target is accuracy ≥ 0.9; contracted is accuracy ≥ 0.95" in found.text


def test_what_the_tiers_leave_open(vendor, accept):
    vendor.set(settings={"loader.threads": 4, "communication.fusion_bytes": 1 << 20})
    assert accept(contract()).status == errors.INVALID
    assert accept(contract(work=terms(tier="ported"))).status == errors.VALID
    work = terms(configuration={"preset": "small", "may_differ": ["loader.threads", "communication"]})
    assert accept(contract(work=work)).status == errors.VALID
    digest = json.loads((vendor.root / "handed-in/result_0.json").read_text())["config_sha256"]
    assert accept(contract(work=terms(configuration={"sha256": digest}))).status == errors.VALID
    found = accept(contract(work=terms(configuration={"sha256": "0" * 64})))
    assert f"its configuration is {digest}; contracted is {'0' * 64}" in found.text


def test_contracted_hardware(vendor, accept):
    vendor.set()
    content = contract() | {"system": {"hardware.gpus[*].max_sm_clock_Hz": 1.98e9, "hardware.memory_GiB": 1024}}
    assert accept(content).status == errors.VALID
    content["system"] = {"hardware.gpus[*].max_sm_clock_Hz": 1.7e9, "hardware.cpu.governor": "performance"}
    found = accept(content)
    assert "hardware.gpus[3].max_sm_clock_Hz of its nodes is 1980000000.0; contracted is 1700000000.0" in found.text
    assert "its nodes have no hardware.cpu.governor; contracted is 'performance'" in found.text


def test_energy_that_two_sensors_do_not_agree_on_is_no_figure(vendor, accept):
    edit(vendor.set()[2], lambda r: r["energy"].update(gpu_disagreeing_devices=["GPU-1"]))
    check = {"metric": "gpu_energy_J", "stat": "max", "le": 6e5, "unit": "J"}
    found = accept(contract(work=terms(checks=[*terms()["checks"], check])))
    assert found.of("max of gpu_energy_J") == ["INVALID"]
    assert "result_2.txt: counter and integrated power of GPU-1 are more than 5 % apart" in found.text
    assert found.of("min of samples_per_s") == ["PASS"]


def test_screening_names_the_slow_node_and_refuses_a_node_run_twice(vendor, accept):
    times = {"n1": 20.0, "n2": 20.1, "n3": 25.0, "n4": 20.2}
    for seed, (host, epoch_s) in enumerate(times.items()):
        vendor.run(seed, nodes=1, hosts=(host,), epoch_s=epoch_s)
    check = {"metric": "samples_per_s", "stat": "range_over_mean", "le": 0.05}
    case = terms(nodes=1, repeats=4, warm_up=0, distinct_hosts=True, checks=[check])
    found = accept(contract(screening=case))
    assert found.status == errors.INVALID
    assert re.search(r"FAIL: screening: range_over_mean of samples_per_s \(.*result_2.txt: 32 on n3\)", found.verdict)
    vendor.run(5, nodes=1, hosts=("n1",))
    found = accept(contract(screening={**case, "repeats": 5}))
    assert "result_4.txt and " in found.text
    assert "result_0.txt both ran on n1; each must have its own" in found.text


def test_a_pause_long_enough_for_a_run_is_noted(vendor, accept):
    vendor.set(count=2)
    vendor.clock.pass_s(3600)
    vendor.run(3), vendor.run(4)
    found = accept(contract())
    assert found.status == errors.VALID
    assert re.search(r"note: 36\d\d s lie between .*result_1.txt and .*result_2.txt: time for a run", found.text)


def test_runs_of_other_sizes_in_their_own_directories_are_listed_and_not_judged(vendor, accept):
    vendor.set()
    other = vendor.run(1, nodes=8, folder="handed-in/eight")
    broken = vendor.run(1, nodes=2, folder="handed-in/two")
    broken.with_suffix(".json").unlink()
    found = accept(contract())
    assert found.status == errors.VALID
    assert f"note: not judged, as no case asks for them: {other}, {broken}" in found.text
    assert f"INVALID: results ({broken} has no record beside it" in accept(contract(), other.parent, broken).verdict
    assert f"INVALID: results ({other} is a run of cloudmask on 8 nodes" in accept(contract(), other).verdict


# --- files -----------------------------------------------------------------------------------------------------------


def test_the_junit_file_is_read_by_another_tool(vendor, accept, tmp_path):
    edit(vendor.set()[2], lambda r: None)
    slow = {"metric": "samples_per_s", "stat": "min", "ge": 99, "unit": "<samples> & s"}
    cases = {
        "work": terms(checks=[*terms()["checks"], slow, {"metric": "cpu_energy_J", "stat": "max", "le": 1}]),
        "large": terms(nodes=64, global_batch=256),
    }
    accept(contract(**cases), options=("--junit", str(tmp_path / "accept.xml")))
    read = JUnitXml.fromfile(str(tmp_path / "accept.xml"))
    assert (read.name, read.tests, read.failures, read.errors) == ("Example", 7, 1, 3)
    suites = {suite.name: list(suite) for suite in read}
    assert list(suites) == ["results", "work", "large"]
    kinds = {case.name + str(i): case.result for i, case in enumerate(suites["work"])}
    assert kinds["runs0"] == kinds["min of samples_per_s1"] == []
    (failure,), (error,) = kinds["min of samples_per_s2"], kinds["max of cpu_energy_J3"]
    assert isinstance(failure, Failure)
    assert "must be ≥ 99 <samples> & s" in failure.message
    assert "result_3.txt: 39.2157 on n1" in failure.text
    assert (type(error), error.type) == (Error, "MISSING")


def test_junit_survives_what_xml_cannot_hold():
    made = junit.document("a\x00b", [junit.Suite("s", (junit.Test("t", "INVALID", "\x1b[31m ]]> é", ("\ud800",)),))])
    (suite,) = JUnitXml.fromstring(made)
    (case,) = suite
    assert case.result[0].message == "\ufffd[31m ]]> é"


def test_the_json_file_names_every_run_by_its_hashes(vendor, accept, tmp_path):
    import hashlib

    runs = vendor.set()
    accept(contract(), options=("--json", str(tmp_path / "accept.json")))
    found = json.loads((tmp_path / "accept.json").read_text())
    assert (found["schema"], found["status"], found["accepted"]) == ("sciml_hpc.acceptance/1", "PASS", True)
    assert found["contract"]["sha256"] == hashlib.sha256((tmp_path / "acceptance.yaml").read_bytes()).hexdigest()
    (case,) = found["cases"]
    assert [run["log_sha256"] for run in case["runs"]] == [hashlib.sha256(r.read_bytes()).hexdigest() for r in runs]
    assert [run["warm_up"] for run in case["runs"]] == [True, False, False, False]
    assert case["fom"]["time_of_3_epochs_s"] == pytest.approx(60.9)


def test_files_are_new_and_are_refused_before_a_run_is_read(vendor, accept, tmp_path, monkeypatch):
    vendor.set()
    monkeypatch.setattr("sciml_hpc.studies.acceptance.search", lambda results: pytest.fail("runs were read"))
    there, other = tmp_path / "there.xml", tmp_path / "other.json"
    there.write_text("mine")
    for junit_file, message in ((there, "File exists"), (tmp_path / "no/where.xml", "No such file")):
        found = accept(contract(), options=("--json", str(other), "--junit", str(junit_file)))
        assert found.status == errors.USER_ERROR
        assert f"error: {junit_file}: cannot be written: {message}" in found.text
        assert not other.exists()
    assert there.read_text() == "mine"


def test_nothing_is_left_behind_by_a_mistake(vendor, accept, tmp_path):
    vendor.set()
    out = ("--json", str(tmp_path / "a.json"), "--junit", str(tmp_path / "a.xml"))
    found = accept(contract(), tmp_path / "nowhere", options=out)
    assert (found.status, found.text) == (errors.USER_ERROR, f"error: {tmp_path}/nowhere: is not there\n")
    ambiguous = terms(checks=[{"metric": "staging_s", "stat": "max", "le": 9}])
    found = accept(contract(work=ambiguous), options=out)
    assert "metric 'staging_s' could be staging.staging_s or time.staging_s: the contract must say which" in found.text
    assert not list(tmp_path.glob("a.*"))


# --- contracts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_load_and_judge_nothing_before_they_are_filled_in(path, accept, tmp_path, capsys):
    assert load(path).contract.template
    assert main(["accept", str(path), str(tmp_path)]) == errors.USER_ERROR
    assert "template: this file's figures are placeholders" in capsys.readouterr().err


def test_there_are_three_examples():
    assert len(EXAMPLES) == 3


def with_check(repeats: int = 3, **check: Any) -> dict[str, Any]:
    return contract(work=terms(repeats=repeats, checks=[{"metric": "samples_per_s", "stat": "min", **check}]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("cases: [", "not YAML: while parsing"),
        ("name: a\nname: b\n", "not YAML: 'name' is there twice"),
        ("[]", "must be a mapping with name, template,"),
        ({"name": "x"}, "field 'cases' is missing"),
        (contract() | {"clauses": 1}, "unknown field 'clauses'"),
        (contract(work=terms(node=4)), "unknown field 'cases.work.node' (did you mean 'nodes'?); allowed: benchmark"),
        (with_check(gee=1), "unknown field 'cases.work.checks.0.gee' (did you mean 'ge'?); allowed: metric, stat, ge"),
        (with_check(ge="fast"), "cases.work.checks.0.ge: found 'fast'; input should be a valid number"),
        (with_check(ge=float("nan")), "cases.work.checks.0.ge: found nan"),
        (with_check(stat="best", ge=1), "cases.work.checks.0.stat: found 'best'; input should be 'min', 'median'"),
        (with_check(), "cases.work.checks.0: needs ge, le or reference"),
        (with_check(ge=2, le=1), "cases.work.checks.0: ge: found 2.0, above le, 1.0: no value would do"),
        (with_check(reference=[1, 0.1, 0.2, "s"]), "must be from −1 to 0, and from 0 up"),
        (with_check(reference=[0, -0.1, 0.2, "s"]), "reference: found 0; tolerances are fractions of it"),
        (with_check(reference=[1, None, None, "s"]), "both tolerances are null: nothing is asked"),
        (with_check(reference=[1, 0, 0, "s"], ge=1), "reference: stands alone"),
        (with_check(ge=1, against="work"), "against: goes with throughput_efficiency"),
        (with_check(metric="time_efficiency", ge=1), "against: goes with throughput_efficiency"),
        (with_check(metric="node_samples_per_s", stat="cv", le=1), "records have min, median, max and range_over_mean"),
        (contract(work=terms(checks=[])), "cases.work.checks: found []; tuple should have at least 1 item"),
        (with_check(metric="run_s", stat="olympic_mean", le=1, repeats=2), "olympic_mean needs at least 3 repeats"),
        (contract(work=terms(benchmark="clodmask")), "unknown benchmark 'clodmask' (did you mean 'cloudmask'?)"),
        (contract(work=terms(benchmark="stemdl")), "cases.work.task: found ''; stemdl needs one, as '"),
        (contract(work=terms(tier="fast")), "cases.work.tier: found 'fast'; input should be 'baseline', 'ported' or"),
        (contract(work=terms(ranks=16)), "cases.work.ranks: needs either ranks or ranks_per_node"),
        (contract(work=terms(ranks=6, ranks_per_node=None)), "ranks: found 6; must be a multiple of the 4 nodes"),
        (contract(work=terms(global_batch=100)), "global_batch: found 100; must be shared evenly by the 16 ranks"),
        (contract(work=terms(target=GOAL)), "cases.work.epochs: needs either epochs (fixed work) or target"),
        (contract(work=terms(seeds=[1, 2])), "cases.work.seeds: found 2; must be one for each of the 4 runs"),
        (contract(work=terms(seeds=[1, 2, 3, 3])), "cases.work.seeds: one is there twice"),
        (contract(work=terms(configuration={})), "cases.work.configuration: needs either sha256 or preset"),
        (
            contract(work=terms(configuration={"preset": "small", "set": {"train.base_rl": 1}})),
            "cases.work.configuration: --set train.base_rl=1: unknown key 'train.base_rl' (did you mean",
        ),
        (
            contract(work=terms(configuration={"preset": "small", "set": {"train.epochs": 9}})),
            "configuration.set: train.epochs is not set here: it follows from epochs",
        ),
        (
            contract(work=terms(configuration={"preset": "small", "may_differ": ["train.presicion"]})),
            "configuration.may_differ: unknown key 'train.presicion' (did you mean 'train.precision'?)",
        ),
        *(
            (
                contract(work=terms(configuration={"preset": "small", "may_differ": [name]})),
                f"configuration.may_differ: {name} cannot be left open",
            )
            for name in ("measure.enabled", "measure", "train", "loader", "dataset", "train.global_batch")
        ),
        (contract(work=terms(dataset={"name": "small", "index_sha256": "ab"})), "dataset.index_sha256: found 'ab'"),
        (contract() | {"code": {}}, "code: needs commit or source_sha256"),
        (contract() | {"code": None}, "cases.work.code: needs a commit or source_sha256, here or for"),
        (contract(work=terms(), again=terms()), "cases.again: asks for the same runs as cases.work"),
        (contract(work=terms(gated_by="gates")), "cases.work.gated_by: found 'gates'; must be another case: "),
        (
            contract(work=terms(gated_by="other"), other=terms(nodes=8, global_batch=128)),
            "cases.work.gated_by: other does fixed work; a gate is a case with a target",
        ),
        (
            contract(work=terms(gated_by="gate"), gate=terms(epochs=None, target=GOAL, global_batch=128)),
            "cases.work.gated_by: gate has another global_batch: 128, not 64",
        ),
        (contract(**{"a b": terms()}), "cases: a name must be letters, digits, '.', '-' and '_'; found 'a b'"),
    ],
)  # fmt: skip
def test_a_malformed_contract_is_one_message(tmp_path, content, message):
    path = tmp_path / "acceptance.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(UserError) as refused:
        load(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert message in str(refused.value)


def test_cases_that_lean_on_each_other_in_a_circle(tmp_path):
    def leaning(nodes: int, on: str) -> dict[str, Any]:
        check = {"metric": "throughput_efficiency", "stat": "min", "ge": 0.8, "against": on}
        return terms(nodes=nodes, checks=[check])

    path = tmp_path / "acceptance.yaml"
    path.write_text(yaml.safe_dump(contract(a=leaning(1, "b"), b=leaning(2, "a"))))
    with pytest.raises(UserError, match=r"cases\.a: leans on itself: a → b → a"):
        load(path)


def test_a_contract_that_is_not_there(accept, tmp_path, capsys):
    assert main(["accept", str(tmp_path / "no.yaml"), str(tmp_path)]) == errors.USER_ERROR
    assert capsys.readouterr().err == f"error: {tmp_path}/no.yaml: cannot be read: No such file or directory\n"


# --- real runs -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two runs of the toy benchmark, from the command line."""
    folder = tmp_path_factory.mktemp("real")
    write_manifest(folder / "toys.yaml")
    for seed in ("3", "4"):
        asked = ["toy", "--manifest", "toys.yaml", "--system", "here", "--engine", "single", "--seed", seed]
        toy(folder, *asked, "--set", "measure.ceiling_s=0.1")
    return folder


def toy(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """`python -m sciml_hpc ARGUMENTS`, with the toy among the benchmarks."""
    command = [sys.executable, str(TOY), *arguments]
    return subprocess.run(command, cwd=folder, env=clean_environment(), capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_real_runs_are_accepted_and_an_edited_one_is_not(real, tmp_path):
    log = real / "results/here/strong/toy/result_0.txt"
    record = json.loads(log.with_suffix(".json").read_text())
    case = {
        "benchmark": "toy",
        "nodes": 1,
        "ranks": 1,
        "global_batch": 16,
        "target": {name: record["dataset"]["target"][name] for name in ("metric", "direction", "value")},
        "dataset": {name: record["dataset"][name] for name in ("name", "index_sha256")},
        "configuration": {"preset": "tiny", "set": {"communication.engine": "single", "measure.ceiling_s": 0.1}},
        "repeats": 2,
        "seeds": [3, 4],
        "cache": "cold" if record["io"]["cache_state"] == "cold" else "any",
        "checks": [
            {"metric": "samples_per_s", "stat": "min", "ge": 1, "unit": "samples/s"},
            {"metric": "eval_loss", "stat": "max", "le": 0.02, "gate": True},
            {"metric": "read_amplification", "stat": "max", "le": 1},
            {"metric": "log.time_to_convergence_s", "stat": "mean", "le": 3600, "unit": "s"},
        ],
    }
    code = {"source_sha256": record["code"]["source_sha256"]}
    content = {"name": "Toys", "code": code, "cases": {"toy": case}}
    path = tmp_path / "acceptance.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    done = toy(real, "accept", str(path), "results")
    assert done.returncode == errors.VALID, done.stdout + done.stderr
    assert done.stdout.splitlines()[-2] == "PASS: 4 checks of 1 cases: accepted"

    forged = tmp_path / "results"
    shutil.copytree(real / "results", forged)
    edit(next(forged.rglob("result_1.txt")), lambda r: r["throughput"].update(samples_per_s=1e9))
    done = toy(real, "accept", str(path), str(forged))
    assert done.returncode == errors.INVALID
    assert "throughput.samples_per_s is 1000000000.0 in the record, " in done.stdout
