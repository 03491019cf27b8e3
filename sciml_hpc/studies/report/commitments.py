"""The judgement of an acceptance contract, as the page shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Commitment:
    """One check of one case."""

    case: str
    name: str
    expected: str
    found: float | None
    unit: str
    n: int
    status: str
    """PASS, FAIL, INVALID or MISSING."""
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Judged:
    """A contract judged."""

    contract: str
    file: str
    sha256: str
    accepted: bool
    status: str
    sentence: str
    """The verdict in words."""
    merit: str
    """The figures of merit, or that there are none."""
    commitments: tuple[Commitment, ...]
    notes: tuple[str, ...]

    def below(self, root: str) -> Judged:
        """The same with files named from the directory `root`."""
        prefix = f"{root}/"

        def short(words: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(w.replace(prefix, "") for w in words)

        commitments = tuple(replace(c, reasons=short(c.reasons)) for c in self.commitments)
        return replace(
            self, sentence=self.sentence.replace(prefix, ""), commitments=commitments, notes=short(self.notes)
        )

    def count(self, status: str) -> int:
        """Checks with that status."""
        return sum(c.status == status for c in self.commitments)


def judge(path: Path, results: Sequence[Path]) -> Judged:
    """Judge results by the contract in `path`, anew. Raises UserError for a contract that cannot be used."""
    from sciml_hpc.studies.acceptance import accept

    judgement = accept(path, results)
    return of_record(judgement.record(), judgement.verdict(), judgement.merit())


def of_record(record: Mapping[str, Any], sentence: str, merit: str) -> Judged:
    """The judgement in a record of the schema sciml_hpc.acceptance/1; its last two lines in words."""
    whole = record["results"]
    checks = [("all", whole)] if whole["reasons"] else []
    checks += [(case["name"], check) for case in record["cases"] for check in case["checks"]]
    notes = [f"{case['name']}: {note}" for case in record["cases"] for note in case["notes"]]
    if record["not_judged"]:
        notes.append(f"not judged, as no case asks for them: {', '.join(record['not_judged'])}")
    return Judged(
        contract=record["contract"]["name"],
        file=record["contract"]["file"],
        sha256=record["contract"]["sha256"],
        accepted=record["accepted"],
        status=record["status"],
        sentence=sentence,
        merit=merit,
        commitments=tuple(
            Commitment(case, c["name"], c["expected"], c["found"], c["unit"], c["n"], c["status"], tuple(c["reasons"]))
            for case, c in checks
        ),
        notes=tuple(notes),
    )
