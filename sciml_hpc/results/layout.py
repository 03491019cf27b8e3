"""What a submission package holds, as MLCommons lays it out, and what of it follows from its runs.

    systems/SYSTEM.json
    results/SYSTEM/{strong,weak}/BENCHMARK/result_N.txt, result_N.json
    benchmarks/BENCHMARK/implementations/sciml_hpc/{configuration-SYSTEM-SCALING.json, source.json, source.tar}
    package.json        sets of runs: what they have in common, their hashes, the statistics of their figures
    SHA256SUMS          of every file, for `sha256sum -c`

Runs of one system, scaling and benchmark are a set; they are numbered by the time they started. Everything but the runs
and the source follows from the runs (`derived`), and nothing depends on where or when a package is made.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sciml_hpc.results import official
from sciml_hpc.results.logfile import figures, last_mapping
from sciml_hpc.results.runs import Run, numbers, strangers
from sciml_hpc.results.statistics import summarise

SCHEMA = "sciml_hpc.package/1"
SUMS, CONTENTS = "SHA256SUMS", "package.json"
Key = tuple[str, str, str]
"""System, scaling and benchmark of a set."""


def arranged(runs: Sequence[Run]) -> dict[Key, list[Run]]:
    """The runs in their sets, each in the order in which they started; the same whatever the order they come in."""
    sets: dict[Key, list[Run]] = {}
    for run in sorted(runs, key=lambda run: (run.started_ms(), run.record.log_sha256)):
        sets.setdefault((run.record.system.name, run.record.scaling, run.record.mllog_name), []).append(run)
    return dict(sorted(sets.items()))


def numbered(sets: Mapping[Key, Sequence[Run]]) -> list[tuple[str, Run]]:
    """(path in the package without its ending, run); numbers count from 0, as MLCommons' do."""
    return [
        (f"results/{'/'.join(key)}/result_{number}", run)
        for key, runs in sets.items()
        for number, run in enumerate(runs)
    ]


def misfits(sets: Mapping[Key, Sequence[Run]], org: str, code: bytes | None) -> Iterable[str]:
    """Runs that do not belong to their set, and sets that do not belong to one package."""
    for runs in sets.values():
        yield from strangers(runs, org)
    first = next(iter(sets.values()))[0]
    described: dict[str, tuple[Run, dict[str, str]]] = {}
    for (system, *_), runs in sets.items():
        run = runs[0]
        if (run.record.code.commit, run.record.code.version) != (first.record.code.commit, first.record.code.version):
            yield f"{run.name} is of another commit than {first.name}: a package holds the runs of one"
        other, before = described.setdefault(system, (run, run.described(org)))
        for name, value in run.described(org).items():
            if value != before[name]:
                yield (
                    f"system {system} has {name} {before[name]!r} in {other.name} and {value!r} in {run.name}: "
                    "systems that differ, if only in size, need different names"
                )
        for run in runs:
            if code is None and (run.record.code.commit is None or run.record.code.dirty):
                yield (
                    f"{run.name}: its code is not known: no clean commit, and not the code installed here; "
                    "package it with the code that ran, or run from a commit"
                )


def derived(sets: Mapping[Key, Sequence[Run]], org: str, code: bytes | None) -> dict[str, bytes]:
    """The files of a package, by path, that follow from its runs; `code` is the source archive, if there is one."""
    files: dict[str, bytes] = {}
    contents = []
    for (system, scaling, benchmark), runs in sets.items():
        record = runs[0].record
        folder = f"benchmarks/{benchmark}/implementations/sciml_hpc"
        files[f"systems/{system}.json"] = _json(runs[0].system_json(org))
        config = {name: value for name, value in record.config.items() if name != "seed"}
        files[f"{folder}/configuration-{system}-{scaling}.json"] = _json(config)
        archive = None if code is None else hashlib.sha256(code).hexdigest()
        files[f"{folder}/source.json"] = _json(record.code.model_dump() | {"archive_sha256": archive})
        if code is not None:
            files[f"{folder}/source.tar"] = code
        contents.append(
            {
                "system": system,
                "scaling": scaling,
                "benchmark": benchmark,
                "command": record.benchmark,
                "config_sha256": record.config_sha256,
                "dataset": {"name": record.dataset.name, "index_sha256": record.dataset.index_sha256},
                "target": runs[0].logged("target"),
                "n": len(runs),
                "runs": [
                    {
                        "number": number,
                        "seed": run.record.seed,
                        "log_sha256": run.record.log_sha256,
                        "record_sha256": hashlib.sha256(run.record_bytes).hexdigest(),
                    }
                    for number, run in enumerate(runs)
                ],
                "statistics": statistics(runs),
            }
        )
    first = next(iter(sets.values()))[0].record.code
    top = {"schema": SCHEMA, "submitter": org, "commit": first.commit, "version": first.version, "sets": contents}
    return {**files, CONTENTS: _json(top)}


def statistics(runs: Sequence[Run]) -> dict[str, dict[str, Any]]:
    """Statistics over the runs: `log.` of the figures that follow from the logs, others of the records' figures.

    Twelve digits: the last ones of a standard deviation differ from one version of Python to the next.
    """
    tables = []
    for run in runs:
        times = figures(run.lines)
        logged = {} if times is None else {f"log.{k}": v for k, v in asdict(times).items() if v is not None}
        tables.append(logged | numbers(run.content))
    common = sorted(set.intersection(*(set(table) for table in tables)))
    summaries = {name: asdict(summarise([table[name] for table in tables])) for name in common}
    return {
        name: {k: v if v is None else float(f"{v:.12g}") if k != "n" else v for k, v in summary.items()}
        for name, summary in summaries.items()
    }


def sums(content: Mapping[str, bytes]) -> bytes:
    """The list that `sha256sum -c` reads, of all files by path."""
    return "".join(f"{hashlib.sha256(data).hexdigest()}  {path}\n" for path, data in sorted(content.items())).encode()


def tools(directory: Path, sets: Mapping[Key, Sequence[Run]]) -> tuple[list[str], list[str]]:
    """(findings, remarks) of MLCommons' package and repository checkers.

    The package checker knows the MLPerf HPC benchmarks alone, and judges them by their official targets; what it finds
    in a set with another target is a remark.
    """
    findings, remarks = [], []
    errors, skipped = official.package(directory)
    declared = {key[2]: last_mapping(runs[0].lines, "target").get("kind") for key, runs in sets.items()}
    foreign = sorted(name for name, kind in declared.items() if kind != "official" and name not in skipped)
    name = f"package_checker {official.version()}"
    (remarks if foreign else findings).extend(f"{name}: {error}" for error in errors)
    if foreign:
        remarks.append(f"{name}: does not apply to {', '.join(foreign)} without the official target")
    elif not errors:
        known = f" (it does not know {', '.join(sorted(set(skipped)))})" if skipped else ""
        remarks.append(f"{name}: SUCCESS{known}")
    errors = official.repository(directory)
    findings += [f"repo_checker {official.version()}: {error}" for error in errors]
    if not errors:
        remarks.append(f"repo_checker {official.version()}: SUCCESS")
    return findings, remarks


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()
