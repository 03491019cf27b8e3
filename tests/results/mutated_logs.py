"""What can go wrong with a log: the table of mutations, each with who catches it.

That is MLCommons' checker (with our rules spliced in), our own rules, or both.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sciml_hpc.results.logfile import TOKEN

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
