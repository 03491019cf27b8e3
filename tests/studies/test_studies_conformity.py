"""What a vendor may try, each attempt with its refusal; and what the tiers of a contract leave open."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from typing import Any

import pytest
from results.correct_logs import Kind
from studies.acceptance_runs import GOAL, TARGET, Vendor, contract, edit, gated, remove, rename, terms

from sciml_hpc import errors


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
