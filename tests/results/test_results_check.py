"""`check` lets every correct log pass under all rulesets, and none of the mutated ones.

The table of mutations says who catches each: MLCommons' checker (with our rules spliced in), our own rules, or both.
`pytest -v tests/results/test_results_check.py -k mutated` prints it.
"""

from __future__ import annotations

import json
import logging
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sciml_hpc.errors import UserError
from sciml_hpc.results import official
from sciml_hpc.results.check import check
from sciml_hpc.results.keys import RULESETS
from sciml_hpc.results.logfile import TOKEN, figures, read
from sciml_hpc.results.mllog import RunLog
from sciml_hpc.results.targets import RULES

Events = list[dict]
MUTATIONS: list = []


def mutation(who: str, rule: str = "", kind: str = "cloudmask_embedded"):
    """Enter a mutation in the table: who catches it (mlcommons, ours, both), and which of our rules."""

    def enter(function: Callable[[Events], Events | bytes | None]):
        name = function.__name__
        MUTATIONS.append(pytest.param(function, who, rule, kind, id=f"{name}:{who}{f'({rule})' if rule else ''}"))
        return function

    return enter


def load(path: Path) -> Events:
    return [json.loads(line[len(TOKEN) :]) for line in path.read_text().splitlines()]


def dump(events: Events) -> bytes:
    return "".join(f"{TOKEN}{json.dumps(event)}\n" for event in events).encode()


def at(events: Events, key: str, occurrence: int = 0) -> int:
    return [i for i, event in enumerate(events) if event["key"] == key][occurrence]


def get(events: Events, key: str, occurrence: int = 0) -> dict:
    return events[at(events, key, occurrence)]


def move(events: Events, key: str, before: str) -> None:
    """Move the first `key` above the first `before`, taking over its time."""
    event = events.pop(at(events, key))
    place = at(events, before)
    events.insert(place, event | {"time_ms": events[place]["time_ms"]})


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


# What MLCommons' checker lets through


@mutation("ours", "ending")
def run_aborted(events):
    get(events, "run_stop")["metadata"]["status"] = "aborted"


@mutation("ours", "order")
def epoch_before_run_start(events):
    move(events, "epoch_start", "run_start")


@mutation("ours", "clock")
def time_goes_backwards(events):
    get(events, "epoch_stop")["time_ms"] -= 30_000


@mutation("ours", "order")
def epoch_after_run_stop(events):
    last = events[-1]["time_ms"]
    for key, kind in (("epoch_start", "INTERVAL_START"), ("epoch_stop", "INTERVAL_END")):
        events.append(get(events, key) | {"time_ms": last, "event_type": kind, "metadata": {"epoch_num": 3}})


@mutation("ours", "order")
def better_metric_after_run_stop(events):
    events.append(get(events, "eval_accuracy", 1) | {"time_ms": events[-1]["time_ms"], "value": 0.99})


@mutation("ours", "occurrence")
def seed_twice_the_same(events):
    events.insert(at(events, "seed"), get(events, "seed"))


@mutation("ours", "occurrence")
def run_start_twice(events):
    events.insert(at(events, "run_start"), get(events, "run_start"))


@mutation("ours", "intervals")
def epoch_never_stops(events):
    del events[at(events, "epoch_stop")]


@mutation("ours", "intervals")
def staging_never_stops(events):
    del events[at(events, "staging_stop")]


@mutation("ours", "intervals")
def epoch_stops_as_another(events):
    get(events, "epoch_stop")["metadata"]["epoch_num"] = 2


@mutation("ours", "epochs")
def epoch_left_out(events):
    for event in events:
        if event["metadata"].get("epoch_num") == 2:
            event["metadata"]["epoch_num"] = 3


@mutation("ours", "epochs")
def epochs_from_zero(events):
    for event in events:
        if "epoch_num" in event["metadata"]:
            event["metadata"]["epoch_num"] -= 1


@mutation("ours", "epochs")
def epoch_repeated(events):
    first, last = at(events, "epoch_start"), at(events, "epoch_start", 1)
    again = [event | {"time_ms": events[last]["time_ms"]} for event in events[first:last]]
    events[last:last] = again


@mutation("ours", "epochs", kind="resumed")
def resumed_ahead_of_its_checkpoint(events):
    get(events, "restored")["metadata"]["epoch_num"] = 4


@mutation("ours", "evaluations")
def metric_outside_an_evaluation(events):
    move(events, "eval_accuracy", "eval_start")


@mutation("ours", "order")
def metric_before_the_run(events):
    move(events, "eval_accuracy", "run_start")


@mutation("ours", "evaluations")
def evaluation_without_its_metric(events):
    del events[at(events, "eval_accuracy")]


@mutation("ours", "evaluations")
def evaluation_of_another_epoch(events):
    for key in ("eval_start", "eval_accuracy", "eval_stop"):
        get(events, key)["metadata"]["epoch_num"] = 2


@mutation("ours", "vocabulary")
def wrong_event_type(events):
    get(events, "epoch_start")["event_type"] = "POINT_IN_TIME"


@mutation("ours", "vocabulary")
def unknown_key(events):
    events.insert(5, events[5] | {"key": "submission_entry"})


@mutation("ours", "form")
def rank_before_the_event(events):
    return dump(events).replace(b":::MLLOG", b"[1,0]<stdout>: :::MLLOG", 1)


@mutation("ours", "form")
def foreign_line(events):
    return b"UserWarning: something of another library\n" + dump(events)


@mutation("ours", "form")
def field_twice_in_a_line(events):
    return dump(events).replace(b'{"namespace": "",', b'{"namespace": "", "time_ms": 1,', 1)


@mutation("ours", "form")
def field_of_no_one(events):
    events[3]["rank"] = 0


@mutation("ours", "ending")
def broken_run(events):
    fault = get(events, "seed") | {"key": "fault", "value": "rank 3 on n2 was lost"}
    events.insert(at(events, "run_stop"), fault | {"time_ms": get(events, "run_stop")["time_ms"]})


@mutation("ours", "ending", kind="resumed")
def interrupted_and_not_resumed(events):
    del events[at(events, "resumed")]


@mutation("ours", "epochs", kind="resumed")
def restored_in_the_middle_of_an_epoch_not_begun(events):
    get(events, "restored")["metadata"] |= {"epoch_num": 3, "step": 1}


@mutation("ours", "epochs", kind="resumed")
def resumed_without_its_checkpoint(events):
    del events[at(events, "restored")]


@mutation("ours", "result")
def result_better_than_its_evaluations(events):
    get(events, "result")["value"]["accuracy"] = 0.97


@mutation("ours", "result")
def result_faster_than_its_lines(events):
    get(events, "result")["value"]["time_to_convergence_s"] = 50.0


# What both find


@mutation("both", "numbers")
def metric_null(events):
    get(events, "eval_accuracy")["value"] = None


@mutation("both", "numbers")
def metric_nan(events):
    get(events, "eval_accuracy")["value"] = float("nan")


@mutation("both", "numbers")
def metric_as_text(events):
    get(events, "eval_accuracy", 1)["value"] = "0.96"


@mutation("both", "form")
def line_without_metadata(events):
    del get(events, "epoch_stop")["metadata"]


@mutation("both", "form")
def broken_line(events):
    return dump(events).replace(b'"event_type"', b'"event_type', 1)


@mutation("both", "form")
def file_cut(events):
    return dump(events)[:-40]


@mutation("both", "form")
def time_as_text(events):
    events[7]["time_ms"] = "yesterday"


@mutation("both", "occurrence")
def two_seeds(events):
    events.insert(at(events, "seed"), get(events, "seed") | {"value": 2})


@mutation("both", "order")
def staging_outside_the_run(events):
    run_start = events.pop(at(events, "run_start"))
    after = at(events, "staging_stop") + 1
    events.insert(after, run_start | {"time_ms": events[after]["time_ms"]})


@mutation("both", "evaluations")
def metric_without_its_epoch(events):
    del get(events, "eval_accuracy")["metadata"]["epoch_num"]


@mutation("both", "ending")
def success_without_the_target(events):
    get(events, "eval_accuracy", 1)["value"] = 0.94


@mutation("both", "ending")
def no_run_stop(events):
    del events[at(events, "run_stop")]


@mutation("both", "vocabulary")
def key_misspelt(events):
    get(events, "global_batch_size")["key"] = "global_batchsize"


@mutation("both", "target")
def no_target(events):
    del events[at(events, "target")]


@mutation("both", "target", kind="cloudmask_official")
def official_target_lowered(events):
    get(events, "target")["value"]["value"] = 0.8


@mutation("both", "target", kind="cloudmask_official")
def own_target_on_published_data(events):
    get(events, "target")["value"] |= {"kind": "declared", "value": 0.8}


@mutation("both", "target", kind="saxs")
def official_target_that_nobody_set(events):
    get(events, "target")["value"]["kind"] = "official"


@mutation("both", "target", kind="fixed_work")
def less_work_than_asked(events):
    get(events, "target")["value"]["epochs"] = 5


@mutation("both", "ending", kind="earthquake_official")
def efficiency_too_good_to_be_true(events):
    get(events, "eval_accuracy", 1)["value"] = 0.995
    get(events, "result")["value"]["nnse"] = 0.995


@mutation("both", "ending", kind="cloudmask_official")
def accuracy_in_percent(events):
    get(events, "eval_accuracy", 2)["value"] = 91.0


@mutation("both")
def empty_file(events):
    return b""


# What the rules, applied by MLCommons' checker, find alone


@mutation("mlcommons", kind="stemdl_official")
def accuracy_missing_beside_f1(events):
    return [event for event in events if event["key"] != "eval_accuracy"]


@mutation("mlcommons")
def count_as_text(events):
    get(events, "number_of_nodes")["value"] = "4"


@mutation("mlcommons")
def closed_division(events):
    get(events, "submission_division")["value"] = "closed"


@mutation("mlcommons")
def commit_key_missing(events):
    del events[at(events, "submission_github_commit_version")]


@mutation("mlcommons")
def commit_malformed(events):
    get(events, "submission_github_commit_version")["value"] = "v1.0"


@mutation("mlcommons")
def no_result(events):
    del events[at(events, "result")]


@mutation("mlcommons")
def cache_state_not_declared(events):
    del events[at(events, "cache_clear")]


@mutation("mlcommons")
def set_up_over_half_an_hour(events):
    for event in events[at(events, "init_stop") :]:
        event["time_ms"] += 30 * 60 * 1000


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
