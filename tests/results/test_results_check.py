"""`check` lets every correct log pass under all rulesets, and none of the mutated ones.

The table of mutations (`mutated_logs`) says who catches each: MLCommons' checker, our own rules, or both.
`pytest -v tests/results/test_results_check.py -k mutated` prints it.
"""

from __future__ import annotations

import json
import logging
import random
import subprocess
import sys

import pytest
from mutated_logs import MUTATIONS, at, dump, load

from sciml_hpc.errors import UserError
from sciml_hpc.results import official
from sciml_hpc.results.check import check
from sciml_hpc.results.keys import RULESETS
from sciml_hpc.results.logfile import figures, read
from sciml_hpc.results.mllog import RunLog
from sciml_hpc.results.targets import RULES


def test_correct_logs_pass_every_ruleset(kind, write_log):
    report = check(write_log(kind))
    assert report.ok, report.lines()
    assert [v.tool for v in report.verdicts[:-1]] == [f"compliance_checker 4.1.68 hpc {r}" for r in RULESETS]
    assert sum("SUCCESS" in line for line in report.lines()) == 4


@pytest.mark.parametrize("ruleset", RULESETS)
def test_anybody_gets_the_same_verdict_from_mlcommons_command(write_log, tmp_path, ruleset):
    path = write_log("cloudmask_embedded")
    command = [sys.executable, "-m", "mlperf_logging.compliance_checker", "--usage", "hpc", "--ruleset", ruleset]
    command += ["--config", str(RULES / "common.yaml"), "--log_output", str(tmp_path / "said"), str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr.split()[-1]) == (0, "SUCCESS")
    path.write_bytes(path.read_bytes().replace(b'"value": 0.96', b'"value": 0.94'))
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "target_was_met()" in done.stderr


def test_the_outcome_says_what_the_run_was_judged_by(write_log):
    assert check(write_log("uno_official", "a")).outcome == (
        "official target eval_error ≤ 0.0054 (a test): met in epoch 2 (0.0053) after 53.015 s"
    )
    assert "declared target eval_accuracy ≥ 0.95" in check(write_log("cloudmask_embedded", "b")).outcome
    assert check(write_log("fixed_work", "c")).outcome.startswith("fixed work, no target: 3 of 3 epochs in 76.0")


def test_an_unknown_commit_is_said_and_does_not_fail(write_log):
    report = check(write_log("cloudmask_embedded", commit=None))
    assert report.ok
    assert any("commit is unknown" in line for line in report.lines())


def test_a_resumed_run_counts_both_parts_and_not_the_time_between(write_log):
    path = write_log("resumed")
    found = figures(read(path)[0])
    # Staging 7 s, three epochs of 20 s and evaluations of 3 s, and a millisecond for each of the lines between.
    assert found.time_to_convergence_s == pytest.approx(7 + 3 * 23, abs=0.05)
    assert found.interrupted_s == pytest.approx(3600, abs=0.05)
    assert (found.converged_epoch, found.epochs) == (3, 3)
    assert found.staging_s == pytest.approx(7, abs=0.01)
    assert any("resumed 1 time(s)" in line for line in check(path).lines())


def test_a_killed_run_goes_on_from_an_older_checkpoint_and_all_its_time_counts(write_log, clock):
    """Killed in epoch 2 of 3 without a word; its checkpoint was made in the middle of epoch 1, which is done again."""
    path = write_log("cloudmask_official")
    events = load(path)
    path.write_bytes(dump(events[: at(events, "epoch_start", 1) + 1]))
    clock.pass_s(1000)
    log = RunLog(path, resume=True)
    log.staging_start()
    log.staging_stop()
    log.resumed(1, 3)
    for epoch, accuracy in ((1, 0.8), (2, 0.92)):
        if epoch > 1:
            log.epoch_start(epoch)
        log.epoch_stop(epoch)
        log.eval_start(epoch)
        log.metrics({"accuracy": accuracy}, epoch)
        log.eval_stop(epoch)
    log.run_stop("success")
    log.result({"accuracy": 0.92})
    report = check(path)
    assert report.ok, report.lines()
    assert figures(read(path)[0]).interrupted_s == 0
    assert figures(read(path)[0]).run_s > 1000
    assert "after a part that broke off, where all time counts" in report.notes[0]


@pytest.mark.parametrize(("mutate", "who", "rule", "kind"), MUTATIONS)
def test_mutated_logs_fail(mutate, who, rule, kind, write_log):
    path = write_log(kind)
    events = load(path)
    result = mutate(events)
    path.write_bytes(result if isinstance(result, bytes) else dump(events if result is None else result))
    report = check(path, rulesets=("2.0.0", "3.0.0"))  # 1.0.0 is 2.0.0
    *theirs, ours = report.verdicts
    assert not report.ok
    caught = [name for name, verdicts in (("mlcommons", theirs), ("ours", [ours])) if any(not v.ok for v in verdicts)]
    assert ("both" if len(caught) == 2 else caught[0]) == who, report.lines()
    if rule:
        assert any(finding.startswith(f"{rule}: ") for finding in ours.findings), report.lines()


def test_enough_mutations():
    assert len(MUTATIONS) >= 25
    assert sum(param.values[1] == "ours" for param in MUTATIONS) >= 4


def test_no_content_stops_the_checker(write_log):
    """Values of any type anywhere in a log are judged, not stumbled over."""
    path = write_log("resumed")
    good, draw = load(path), random.Random(1)
    odd = [None, True, -1, 1e400, "text", [], {}, [1, "a"], {"metric": []}, 2**62]
    for attempt in range(200):
        events = json.loads(json.dumps(good))
        for event in draw.sample(events, 3):
            field = draw.choice(["value", "key", "metadata", "time_ms", "epoch_num", "inner"])
            if field == "epoch_num":
                event["metadata"]["epoch_num"] = draw.choice(odd)
            elif field == "inner" and isinstance(event["value"], dict):
                event["value"][draw.choice(list(event["value"]) or ["x"])] = draw.choice(odd)
            else:
                event[field] = draw.choice(odd)
        path.write_bytes(dump(events))
        check(path, rulesets=("3.0.0",) if attempt % 20 == 0 else ())


def test_a_file_that_cannot_be_read_is_the_users_mistake(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.txt: cannot be read"):
        check(tmp_path / "nowhere.txt")


def test_the_checker_leaves_logging_and_the_screen_as_they_were(write_log, capsys):
    root = logging.getLogger()
    before = (root.level, list(root.handlers), list(root.filters))
    path = write_log("cloudmask_embedded")
    path.write_bytes(path.read_bytes().replace(b'"seed"', b'"sead"'))
    assert not check(path).ok
    assert (root.level, list(root.handlers), list(root.filters)) == before
    assert capsys.readouterr() == ("", "")


def test_another_version_of_mlperf_logging_is_a_finding(write_log, monkeypatch):
    monkeypatch.setattr(official, "version", lambda: "5.0.0")
    report = check(write_log("cloudmask_embedded"))
    assert not report.ok
    assert "version: mlperf-logging is 5.0.0; the rules are made for 4.1.68" in report.verdicts[-1].findings
