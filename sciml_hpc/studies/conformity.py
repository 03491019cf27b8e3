"""Whether runs are those that a case of a contract asks for, and go together; each fault with what is asked."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sciml_hpc.results.logfile import last_mapping
from sciml_hpc.results.runs import strangers
from sciml_hpc.studies.contract import Case, Contract, covers, flat
from sciml_hpc.studies.evidence import Evidence, leaves

NAMED = 8
"""Nodes that a note names."""


def complaints(e: Evidence, contract: Contract, case: Case) -> Iterator[str]:
    """What in a run is not as contracted; each with what was found and what is asked."""
    run, record, content = e.run, e.run.record, e.run.content
    code = contract.code_of(case)
    if code.source_sha256 is not None and record.code.source_sha256 != code.source_sha256:
        yield f"its code is {record.code.source_sha256} (source_sha256); contracted is {code.source_sha256}"
    if code.commit is not None and record.code.commit != code.commit:
        yield f"its commit is {record.code.commit}; contracted is {code.commit}"
    elif code.source_sha256 is None and record.code.dirty is not False:
        yield f"its code had changes that are not in commit {record.code.commit}"
    if contract.submitter is not None and run.logged("submission_org") != contract.submitter:
        yield f"is a run of {run.logged('submission_org')}; contracted is {contract.submitter}"
    for what, found, asked in (
        ("data set", record.dataset.name, case.dataset.name),
        ("index_sha256 of the data", record.dataset.index_sha256, case.dataset.index_sha256),
        ("global batch", run.logged("global_batch_size"), case.global_batch),
    ):
        if found != asked:
            yield f"its {what} is {found!r}; contracted is {asked!r}"
    spread = content["job"]["ranks_per_node"]
    if spread != [case.size // case.nodes] * 2:
        yield f"it had {spread[0]} to {spread[1]} ranks on a node; contracted are {case.size // case.nodes}"
    target = last_mapping(run.lines, "target")
    if case.target is not None:
        asked = case.target.model_dump()
        found = {
            name: target.get(key) for name, key in (("metric", "name"), ("direction", "direction"), ("value", "value"))
        }
        if found != asked:
            yield f"its target is {_goal(found)}; contracted is {_goal(asked)}"
    elif target.get("epochs") != case.epochs:
        yield f"its fixed work is {target.get('epochs')} epochs; contracted are {case.epochs}"
    yield from _configuration(e, case)
    if case.cache == "cold":
        io = content["io"]
        if io.get("cache_state") != "cold":
            yield f"its cache was {io.get('cache_state')} ({io.get('cache_how')}); contracted is cold"
        if reused := content["staging"].get("reused_bytes"):
            yield f"{reused} bytes were staged before the run began; contracted is cold"
    yield from _nodes(e, contract)


def _configuration(e: Evidence, case: Case) -> Iterator[str]:
    asked = case.config()
    if asked is None:
        if e.run.record.config_sha256 != case.configuration.sha256:
            yield f"its configuration is {e.run.record.config_sha256}; contracted is {case.configuration.sha256}"
        return
    found = config_of(e)
    for key in sorted(found.keys() | asked.keys()):
        if not covers(case.free(), key) and found.get(key) != asked.get(key):
            yield f"{key} is {found.get(key)!r}; contracted is {asked.get(key)!r} (tier {case.tier})"


def _nodes(e: Evidence, contract: Contract) -> Iterator[str]:
    """Nodes that differ from each other, or from what is contracted."""
    system = e.run.content["system"]
    job = e.run.content["job"]
    if (machines := job.get("machines")) is not None and machines < job["nodes"]:
        yield f"its {job['nodes']} nodes are {machines} machines"
    if len(system["groups"]) > 1:
        yield f"its nodes are of {len(system['groups'])} kinds"
    for host, differences in system.get("deviating", {}).items():
        yield f"node {host} is not as the others: {'; '.join(differences)}"
    groups = [dict(leaves(group)) for group in system["groups"]]
    for name, asked in contract.system.items():
        # [*] stands for every element of a list; everything else for itself.
        pattern = re.compile(re.escape(name).replace(re.escape("[*]"), r"\[\d+\]"))
        found = [(key, value) for group in groups for key, value in group.items() if pattern.fullmatch(key)]
        if not found:
            yield f"its nodes have no {name}; contracted is {asked!r}"
        for key, value in dict.fromkeys(found):
            if value != asked:
                yield f"{key} of its nodes is {value!r}; contracted is {asked!r}"


def together(case: Case, runs: Sequence[Evidence]) -> Iterator[str]:
    """Runs that do not go together, that are one run under two names, or that come in the wrong order or number."""
    yield from strangers([e.run for e in runs], "")
    first = runs[0]
    for e in runs[1:]:
        yield from (f"{e.run.name} ran on other nodes than {first.run.name}: {u}" for u in other_nodes(first, e))
    for e, other in _pairs(runs):
        if e.run.record.log_sha256 == other.run.record.log_sha256 or e.run.log_bytes == other.run.log_bytes:
            yield f"{e.run.name} is a copy of {other.run.name}"
        elif e.run.started_ms() == other.run.started_ms() and set(e.hosts) & set(other.hosts):
            yield f"{e.run.name} started in the same millisecond as {other.run.name}"
        elif (losses := _losses(e)) and losses == _losses(other):
            yield f"{e.run.name} has the losses of {other.run.name}, to the last digit, under another seed"
        shared = sorted(set(e.hosts) & set(other.hosts))
        if shared and e.began_ms < other.ended_ms and other.began_ms < e.ended_ms:
            yield f"{e.run.name} and {other.run.name} ran at the same time on {', '.join(shared[:4])}"
        if shared and case.distinct_hosts:
            yield f"{e.run.name} and {other.run.name} both ran on {', '.join(shared[:4])}; each must have its own"
        early, late = sorted((e, other), key=lambda x: x.number)
        if early.number >= 0 and early.began_ms > late.ended_ms:
            yield f"{early.run.name} began after {late.run.name} had ended: they were not numbered as they were made"
    if case.seeds is not None:
        asked, found = Counter(case.seeds), Counter(e.run.record.seed for e in runs)
        if extra := sorted((found - asked).elements()):
            yield f"seeds {extra} are not among the contracted ones, {sorted(case.seeds)}"
    if case.max_pause_s is not None:
        for before, after, pause_s in _pauses(runs):
            if pause_s > case.max_pause_s:
                yield (
                    f"{pause_s:.0f} s lie between {before.run.name} and {after.run.name}; contracted are at most "
                    f"{case.max_pause_s:g} s, so that no run can be left out"
                )


def _pairs(runs: Sequence[Evidence]) -> Iterator[tuple[Evidence, Evidence]]:
    return ((late, early) for i, late in enumerate(runs) for early in runs[:i])


def _pauses(runs: Sequence[Evidence]) -> Iterator[tuple[Evidence, Evidence, float]]:
    """(run, the next, seconds from the end of all before to its beginning); runs come in the order of their start."""
    until = runs[0]
    for e in runs[1:]:
        yield until, e, (e.began_ms - until.ended_ms) / 1000
        until = max(until, e, key=lambda x: x.ended_ms)


def notes(case: Case, runs: Sequence[Evidence]) -> Iterator[str]:
    for before, after, pause_s in _pauses(runs):
        shortest_s = min((e.ended_ms - e.began_ms) / 1000 for e in runs)
        if case.max_pause_s is None and pause_s > shortest_s:
            yield (
                f"{pause_s:.0f} s lie between {before.run.name} and {after.run.name}: time for a run of "
                f"{shortest_s:.0f} s; only the batch system knows whether there was one (or contract max_pause_s)"
            )
    slow = Counter(host for e in runs for host in e.run.content["nodes"].get("slow_nodes", ()))
    if slow:
        names = ", ".join(f"{host} (in {count} runs)" for host, count in slow.most_common(NAMED))
        yield f"nodes over 5 % below the median: {names}"


def other_nodes(first: Evidence, second: Evidence) -> Iterator[str]:
    """What differs between the nodes of two runs in hardware and software."""
    a, b = (dict(leaves(e.run.content["system"]["groups"][0])) for e in (first, second))
    for key in sorted(a.keys() | b.keys()):
        if key != "count" and a.get(key) != b.get(key):
            yield f"{key} is {b.get(key)!r}, not {a.get(key)!r}"


def _losses(e: Evidence) -> tuple[float, ...]:
    """The training loss of every epoch: two runs have the same only with the same seed."""
    return tuple(epoch["train_loss"] for epoch in e.run.content["epochs"])


def config_of(e: Evidence) -> dict[str, Any]:
    return flat({name: value for name, value in e.run.record.config.items() if name != "seed"})


def _goal(target: Mapping[str, Any]) -> str:
    return f"{target['metric']} {'≥' if target['direction'] == 'max' else '≤'} {target['value']}"


def asked_for(case: Case) -> str:
    work = f"{case.epochs} epochs of fixed work" if case.epochs else f"to {_goal(case.target.model_dump())}"
    name = f"{case.benchmark}{' ' + case.task if case.task else ''}"
    return f"{name} on {case.nodes} nodes and {case.size} ranks ({case.scaling} scaling), {work},"


def described(e: Evidence) -> str:
    benchmark, task, nodes, ranks, scaling, fixed = e.key()
    work = "fixed work" if fixed else "to its target"
    name = f"{benchmark}{' ' + task if task else ''}"
    return f"a run of {name} on {nodes} nodes and {ranks} ranks ({scaling} scaling, {work})"
