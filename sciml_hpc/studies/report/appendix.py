"""The end of the page: what does not count, the system, what each number means, and which files these were."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import yaml

from sciml_hpc.studies.report.gather import LEFT, Gathered
from sciml_hpc.studies.report.parts import Column, Section, Table, text

_DEFINITIONS = Path(__file__).with_name("definitions.yaml")


def defined() -> dict[str, Any]:
    """What each number means: rules and figures of a run (as in the README), and figures of a study."""
    return yaml.safe_load(_DEFINITIONS.read_text())


def not_counted(gathered: Gathered) -> Section:
    left = gathered.left
    if not left:
        return Section("left", "Runs that do not count", ("None: every run that was started counts.",))
    rows = tuple((text(x.name), text(x.why)) for x in left)
    table = Table(
        "left",
        "Attempts and files that enter no figure.",
        (Column("what", kind="text"), Column("why", kind="text")),
        rows,
    )
    words = "They are listed so that nobody need ask; none of their figures is used. Warm-up runs are not among them."
    return Section("left", "Runs that do not count", (words,), tables=(table,))


FIELDS = {
    "host_processors_per_node": "processors per node",
    "host_processor_model_name": "processor",
    "host_processor_core_count": "cores per processor",
    "host_processor_vcpu_count": "hardware threads per processor",
    "host_processor_frequency": "processor frequency",
    "host_processor_caches": "caches",
    "host_memory_capacity": "memory per node",
    "host_storage_type": "storage",
    "host_networking": "network",
    "accelerators_per_node": "accelerators per node",
    "accelerator_model_name": "accelerator",
    "accelerator_memory_capacity": "accelerator memory",
    "accelerator_frequency": "accelerator frequency",
    "accelerator_interconnect": "accelerator interconnect",
    "framework": "framework",
    "other_software_stack": "other software",
    "operating_system": "operating system",
    "hw_notes": "notes on hardware",
    "sw_notes": "notes on software",
}
"""What is shown of MLCommons' system description."""


def system(gathered: Gathered) -> Section:
    runs = [log.run for log in gathered.logs if log.run is not None]
    described: dict[str, dict[str, None]] = {}
    shown: dict[str, dict[str, str]] = {}
    for run in runs:
        try:
            fields = {label: run.system_json("")[name] for name, label in FIELDS.items()}
        except (KeyError, TypeError, AttributeError, IndexError):
            continue  # a run that ended before it had described its system
        same = json.dumps(fields)
        described.setdefault(same, {})[run.record.system.name] = None
        shown[same] = fields
    if not shown:
        return Section("system", "The system", ("No run describes its system.",))
    columns = (Column("", kind="text"), *(Column(", ".join(names), kind="text") for names in described.values()))
    first = next(iter(shown.values()))
    rows = tuple(
        (text(label), *(text(fields[label]) for fields in shown.values()))
        for label in first
        if any(f[label] for f in shown.values())
    )
    notes = [
        f"{run.record.system.name}, seed {run.record.seed}: nodes that differ from the others: {', '.join(deviating)}"
        for run in runs
        if (deviating := run.content["system"].get("deviating"))
    ]
    words = "As each run captured it; nothing was typed in. “Not captured” is what no tool on the nodes could tell."
    return Section(
        "system",
        "The system",
        (words,),
        tuple(notes[:5]),
        tables=(Table("system", "By name of the system that the results are filed under.", columns, rows),),
    )


def definitions() -> Section:
    columns = (Column("figure", kind="text"), Column("what it is", kind="text"))
    known = defined()
    tables = tuple(
        Table(f"definitions-{part}", caption, columns, tuple((text(d["figure"]), text(d["is"])) for d in known[part]))
        for part, caption in (("run", "Of a run."), ("study", "Of several runs together."))
    )
    return Section("definitions", "How each number is defined", tuple(known["rules"]), tables=tables)


def identity(gathered: Gathered) -> Section:
    columns = (
        Column("log", kind="text"), Column("part", kind="text"), Column("seed"),
        Column("started (UTC)", kind="short"), Column("what it ran", kind="short"),
        Column("log, SHA-256", kind="hash"), Column("record, SHA-256", kind="hash"),
    )  # fmt: skip
    kinds: dict[tuple[str, ...], str] = {}
    rows = []
    for log in gathered.logs:
        said = log.content
        code, data = _mapping(said, "code"), _mapping(said, "dataset")
        same = (
            *(str(x) if x else "not recorded" for x in (said.get("config_sha256"), data.get("index_sha256"))),
            *(str(code.get(x) or "not recorded") for x in ("source_sha256", "commit")),
            {True: "with changes", False: "unchanged"}.get(code.get("dirty"), "not known"),
            str(code.get("version", "not recorded")),
        )
        started = log.started_ms
        rows.append(
            (
                text(log.name),
                text(log.role, tone="warn" if log.role == LEFT else ""),
                text(said.get("seed", "not recorded")),
                text(_utc(started) if started else "not started"),
                text(kinds.setdefault(same, f"#{len(kinds) + 1}")),
                text(hashlib.sha256(log.log_bytes).hexdigest()),
                text(hashlib.sha256(log.record_bytes).hexdigest() if log.record_bytes else "no record"),
            )
        )
    what = (
        Column("", kind="short"), Column("configuration, SHA-256", kind="hash"),
        Column("data index, SHA-256", kind="hash"), Column("source, SHA-256", kind="hash"),
        Column("commit", kind="hash"), Column("working tree", kind="short"), Column("version", kind="short"),
    )  # fmt: skip
    versions = {
        (text(name), text("none" if value is None else value)): None
        for log in gathered.logs
        for group in _mapping(log.content, "system").get("groups") or ()
        for name, value in _mapping(_mapping(group, "software"), "versions").items()
    }
    tables = [
        Table("runs", "Every log that was found.", columns, tuple(rows)),
        Table(
            "ran",
            "What they ran: configuration (all of it but the seed), data and code.",
            what,
            tuple((text(k), *map(text, same)) for same, k in kinds.items()),
        ),
    ]
    if versions:
        named = (Column("software", kind="text"), Column("version", kind="text"))
        tables.append(Table("versions", "Versions of the software.", named, tuple(versions)))
    words = (
        "Whoever has the files can see that these are the ones: `sha256sum result_N.txt` must give the number here. "
        "Nothing is signed: the hashes bind this page to the files, not the files to their maker."
    )
    return Section("identity", "Which files, which code", (words,), tables=tuple(tables))


def _utc(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")


def _mapping(content: Any, name: str) -> dict[str, Any]:
    """A part of a record that may be anything; what is no mapping has nothing in it."""
    found = content.get(name) if isinstance(content, dict) else None
    return found if isinstance(found, dict) else {}
