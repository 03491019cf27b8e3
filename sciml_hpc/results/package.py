"""Making and examining a submission package (its layout: `layout.py`).

The hashes show that a package is whole, not who made it: note the hash of SHA256SUMS elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sciml_hpc.errors import UserError
from sciml_hpc.results import source
from sciml_hpc.results.check import check
from sciml_hpc.results.consistency import contradictions
from sciml_hpc.results.layout import CONTENTS, SCHEMA, SUMS, Key, arranged, derived, misfits, numbered, sums, tools
from sciml_hpc.results.runs import NAME, Run, faults, load

_RESULT = re.compile(r"results/[^/]+/(strong|weak)/[^/]+/result_\d+\.txt")


@dataclass(frozen=True)
class Package:
    """A package as it was made."""

    directory: Path
    sha256: str
    """Of SHA256SUMS: stands for every byte of the package."""
    sets: Mapping[Key, int]
    """Runs in each set."""
    official: tuple[str, ...]
    """What MLCommons' package and repository checkers say."""

    def lines(self) -> list[str]:
        """What is printed."""
        sets = [f"  {'/'.join(key)}: {count} runs" for key, count in self.sets.items()]
        tools = [f"  {line}" for line in self.official]
        return [str(self.directory), *sets, *tools, f"  SHA-256 of {SUMS}: {self.sha256}"]


@dataclass(frozen=True)
class Verification:
    """What was found in a package; nothing: it is whole."""

    directory: Path
    sha256: str | None
    """Of SHA256SUMS, to be compared with the one noted when the package was made."""
    runs: int
    findings: tuple[str, ...]
    remarks: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def lines(self) -> list[str]:
        """What is printed."""
        verdict = f"{self.runs} runs, nothing found" if self.ok else f"{len(self.findings)} findings"
        return [
            f"{self.directory}: {verdict}",
            *(f"  {finding}" for finding in self.findings),
            *(f"  {remark}" for remark in self.remarks),
            f"  SHA-256 of {SUMS}: {self.sha256}",
        ]


def package(result_files: Iterable[Path], out_dir: Path, org: str) -> Package:
    """Make `out_dir`, the package of `org` with the runs whose logs are `result_files` (records beside them).

    Raises UserError, having left nothing behind, if `out_dir` exists; naming the run, if one is not valid, does not
    comply, or does not belong with the others; or with what MLCommons' tools find in the package.
    """
    files = list(result_files)
    if out_dir.exists():
        raise UserError(f"{out_dir}: exists; a package is never changed")
    if not re.fullmatch(NAME, org):
        raise UserError(f"organisation {org!r}: must be letters, digits and _ . + - (it becomes a directory's name)")
    if not files:
        raise UserError("a package needs at least one result file")
    runs = [load(path) for path in files]
    found = [f"{run.name}: {fault}" for run in runs for fault in (*faults(run), *contradictions(run))]
    for run in runs:
        if run.logged("submission_org") not in (org, "unknown"):
            found.append(f"{run.name}: is a run of {run.logged('submission_org')}, not of {org}")
    sets = arranged(runs)
    code = source.archive()
    carried = code if {run.record.code.source_sha256 for run in runs} == {hashlib.sha256(code).hexdigest()} else None
    found = found or list(misfits(sets, org, carried))
    found = found or [complaint for run in runs for complaint in _complaints(run)]
    if found:
        raise UserError("\n".join(found))

    content = {f"{path}{end}": data for path, run in numbered(sets) for end, data in _files_of(run).items()}
    content |= derived(sets, org, carried)
    try:
        out_dir.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".package-", dir=out_dir.parent) as scratch:
            draft = Path(scratch, "package")
            for path, data in {**content, SUMS: sums(content)}.items():
                (draft / path).parent.mkdir(parents=True, exist_ok=True)
                (draft / path).write_bytes(data)
            findings, remarks = tools(draft, sets)
            if findings:
                raise UserError("\n".join(findings))
            draft.rename(out_dir)
    except OSError as error:
        raise UserError(f"{out_dir}: cannot be written: {error.strerror}") from None
    digest = hashlib.sha256(sums(content)).hexdigest()
    return Package(out_dir, digest, {key: len(members) for key, members in sets.items()}, tuple(remarks))


def verify(directory: Path) -> Verification:
    """Examine the package in `directory`, and run every check on its logs again. Raises UserError if it is none."""
    try:
        listed = (directory / SUMS).read_bytes()
    except OSError as error:
        raise UserError(f"{directory}: is no package: {SUMS}: {error.strerror}") from None
    present, findings = _files(directory)
    findings += _compare(directory, listed, present)
    runs, unreadable = _runs(directory, present)
    findings += unreadable
    findings += [f"{run.name}: {fault}" for run in runs for fault in (*faults(run), *contradictions(run))]
    findings += [complaint for run in runs for complaint in _complaints(run)]
    remarks: list[str] = []
    if runs and not unreadable:
        found, remarks = _together(directory, runs, present)
        findings += found
    elif not runs:
        findings.append("run missing: there are none")
    return Verification(directory, hashlib.sha256(listed).hexdigest(), len(runs), tuple(findings), tuple(remarks))


def _complaints(run: Run) -> list[str]:
    """What `check` finds in a run's log."""
    verdicts = check(run.log).verdicts
    return [f"{run.name}: log does not comply: {v.tool}: {finding}" for v in verdicts for finding in v.findings]


def _files_of(run: Run) -> dict[str, bytes]:
    return {".txt": run.log_bytes, ".json": run.record_bytes}


def _files(directory: Path) -> tuple[set[str], list[str]]:
    """Paths of the regular files of a package, less the list of hashes, and what else there is."""
    present, odd = set(), []
    for folder, folders, files in os.walk(directory):
        base = Path(folder).relative_to(directory)
        odd += [f"extra: {base / name} is a link" for name in folders if (Path(folder) / name).is_symlink()]
        if not folders and not files:
            odd.append(f"extra: {base} is an empty directory")
        for name in files:
            path = Path(folder) / name
            if path.is_symlink() or not path.is_file():
                odd.append(f"extra: {base / name} is not a regular file")
            else:
                present.add((base / name).as_posix())
    return present - {SUMS}, odd


def _compare(directory: Path, listed: bytes, present: set[str]) -> Iterator[str]:
    """Files against the list of hashes."""
    digests: dict[str, str] = {}
    for number, line in enumerate(listed.decode("utf-8", "replace").splitlines(), start=1):
        digest, space, path = line.partition("  ")
        if not space or not re.fullmatch("[0-9a-f]{64}", digest) or path in digests:
            yield f"changed: {SUMS} line {number} is malformed or repeats a file"
        digests[path] = digest
    yield from (f"missing: {path}" for path in sorted(digests.keys() - present))
    yield from (f"extra: {path} is not listed" for path in sorted(present - digests.keys()))
    for path in sorted(present & digests.keys()):
        if hashlib.sha256((directory / path).read_bytes()).hexdigest() != digests[path]:
            yield f"changed: {path}"


def _runs(directory: Path, present: set[str]) -> tuple[list[Run], list[str]]:
    runs, unreadable = [], []
    for path in sorted(present):
        if _RESULT.fullmatch(path):
            try:
                runs.append(load(directory / path, path))
            except UserError as error:
                unreadable.append(str(error).replace(f"{directory}/", ""))
    return runs, unreadable


def _together(directory: Path, runs: list[Run], present: set[str]) -> tuple[list[str], list[str]]:
    """Whether the runs are all there, where they should be, belong together, and gave the rest of the package."""
    findings: list[str] = []
    try:
        content = json.loads((directory / CONTENTS).read_bytes())
        if content["schema"] != SCHEMA:
            return [f"{CONTENTS} has schema {content['schema']!r}; this version reads {SCHEMA}"], []
        org = str(content["submitter"])
        declared = {(s["system"], s["scaling"], s["benchmark"]): int(s["n"]) for s in content["sets"]}
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        return [f"{CONTENTS} cannot be read: {type(error).__name__}: {error}"], []
    sets = arranged(runs)
    for key in sorted(sets.keys() | declared.keys()):
        there, said = len(sets.get(key, ())), declared.get(key, 0)
        if there < said:
            names = (f"results/{'/'.join(key)}/result_{number}.txt" for number in range(min(said, there + 10)))
            gaps = ", ".join(name for name in names if name not in present)
            findings.append(f"run missing: {gaps}; the set has {there} of {said} runs")
        elif there > said:
            findings.append(f"run extra: {'/'.join(key)} has {there} of {said} runs")
    for path, run in numbered(sets):
        if f"{path}.txt" != run.name:
            findings.append(f"does not belong: {run.name} should be {path}.txt by its record and its time")
    archives = sorted(path for path in present if path.endswith("/implementations/sciml_hpc/source.tar"))
    code = (directory / archives[0]).read_bytes() if archives else None
    recorded = {run.record.code.source_sha256 for run in runs}
    if code is not None and recorded != {hashlib.sha256(code).hexdigest()}:
        findings.append(f"changed: {archives[0]} is not the code that the runs were made with")
    findings += [f"does not belong: {misfit}" for misfit in misfits(sets, org, code)]
    expected = derived(sets, org, code)
    for path, data in sorted(expected.items()):
        if path not in present:
            findings.append(f"missing: {path}, which follows from the runs")
        elif (directory / path).read_bytes() != data:
            findings.append(f"does not follow from the runs: {path}{_where(directory / path, data)}")
    logs = {f"{path}{end}" for path, _ in numbered(sets) for end in (".txt", ".json")}
    findings += [f"extra: {path} belongs to no run" for path in sorted(present - expected.keys() - logs)]
    errors, remarks = tools(directory, sets)
    return findings + errors, remarks


def _where(path: Path, data: bytes) -> str:
    """The first line that is not as it should be."""
    found = path.read_bytes().decode("utf-8", "replace").splitlines()
    for number, (has, wanted) in enumerate(zip(found, data.decode("utf-8", "replace").splitlines(), strict=False), 1):
        if has != wanted:
            return f", line {number}: {has.strip()[:60]!r}, not {wanted.strip()[:60]!r}"
    return ", which has another length"
