"""Acceptance: contracts that are met, missed, not shown; its files; real runs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from junitparser import Error, Failure, JUnitXml
from results.correct_logs import Kind
from studies.acceptance_runs import GOAL, TARGET, contract, edit, terms
from toy import clean_environment, write_manifest

from sciml_hpc import errors
from sciml_hpc.studies import junit

TOY = Path(__file__).parents[1] / "toy.py"


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
