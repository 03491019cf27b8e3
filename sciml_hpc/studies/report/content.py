"""What the page says, from findings, logs and a judgement; how it looks is the template's and the figures' part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from sciml_hpc.studies import wording
from sciml_hpc.studies.efficiency import Interval
from sciml_hpc.studies.findings import Findings
from sciml_hpc.studies.report import appendix, sections
from sciml_hpc.studies.report.commitments import Judged
from sciml_hpc.studies.report.figures import Scale
from sciml_hpc.studies.report.gather import GATE, WARM_UP, Gathered
from sciml_hpc.studies.report.parts import Banner, Cell, Column, Page, Section, Table, count, measured, missing, text
from sciml_hpc.studies.wording import capital, plural

SHOWN = 5
"""So many reasons of one check stand on the page; the CSV file has all."""
TONES = {"PASS": "good", "FAIL": "bad", "INVALID": "bad", "MISSING": "warn"}


def page(gathered: Gathered, judged: Judged | None, nodes: Sequence[int], made: str) -> Page:
    """The whole page; `nodes` were asked to be projected to, `made` says when and by what it was made."""
    sets = gathered.sets
    judged = judged and judged.below(gathered.root)
    first = (_commitments(judged), _in_short(gathered)) if judged else (_in_short(gathered), _commitments(None))
    studies = tuple(sections.of_set(found, f"set{k}", nodes) for k, found in enumerate(sets, 1))
    return Page(
        title="What was measured",
        names=tuple(found.title for found in sets),
        banner=_judged_banner(judged) if judged else _banner(gathered),
        sections=(
            *first,
            *studies,
            appendix.not_counted(gathered),
            appendix.system(gathered),
            appendix.definitions(),
            appendix.identity(gathered),
        ),
        made=made,
    )


# Verdict


def _judged_banner(judged: Judged) -> Banner:
    counts = ", ".join(f"{judged.count(s)} {s}" for s in TONES if judged.count(s))
    return Banner(
        "ACCEPTED" if judged.accepted else "NOT ACCEPTED",
        f"Contract “{judged.contract}”: {counts or 'no check'}.",
        "good" if judged.accepted else "bad",
        (judged.sentence, judged.merit),
    )


def _banner(gathered: Gathered) -> Banner:
    sets = gathered.sets
    counts = sum(len(found.runs) for found in sets)
    studies = [found for found in sets if found.design]
    incomplete = [found for found in studies if not found.complete]
    reasons = [_completeness(found) for found in studies]
    roles = Counter(log.role for log in gathered.logs)
    words = f"{counts} {plural(counts, 'run')} {'is VALID and counts' if counts == 1 else 'are VALID and count'}"
    if roles[WARM_UP] + roles[GATE]:
        parts = [
            f"{roles[r]} {what}" for r, what in ((WARM_UP, "of warm-up"), (GATE, "to show convergence")) if roles[r]
        ]
        words += f"; {' and '.join(parts)} enter no figure, by design"
    left = len(gathered.left)
    words += f"; {left} {'does' if left == 1 else 'do'} not count." if left else "; nothing was left out."
    if not counts:
        return Banner("NOTHING COUNTS", words, "bad", tuple(reasons))
    if incomplete:
        return Banner("INCOMPLETE", words, "bad", tuple(reasons))
    if studies:
        return Banner("COMPLETE", words, "good", tuple(reasons))
    return Banner("VALID" if not left else "PARTLY VALID", words, "warn" if left else "good", tuple(reasons))


def _completeness(found: Findings) -> str:
    if found.complete:
        return f"{capital(found.title)}: complete; every size has all its repeats."
    return f"{capital(found.title)}: INCOMPLETE; no VALID result of {', '.join(found.missing)}."


# In short


def _in_short(gathered: Gathered) -> Section:
    sentences = [line for found in gathered.sets for line in _sentences(found)]
    tables = tuple(_at_a_glance(found, f"set{k}") for k, found in enumerate(gathered.sets, 1) if found.splits)
    return Section("short", "In short", text=tuple(sentences), tables=tables)


def _sentences(found: Findings) -> Iterator[str]:
    if not found.splits:
        yield f"{capital(found.title)}: no run counts, so there are no figures."
        return
    scale, first, last = Scale.of(found), found.splits[0], found.splits[-1]
    rates, times = found.throughput(), found.time()
    goal = "time to the target" if found.converged else "time of the fixed work"
    if first is last:
        yield (
            f"{capital(found.title)}, one size ({scale.name(first.ranks)}): "
            f"{wording.interval(rates[first.ranks])} training samples per second; {goal} "
            f"{wording.seconds(times[first.ranks].value)} ({first.total.n} {plural(first.total.n, 'run')})."
        )
        return
    grown = last.ranks / first.ranks
    yield (
        f"{capital(found.title)}: on {grown:,.3g} times the machine ({scale.name(first.ranks)} to "
        f"{scale.name(last.ranks)}) training went {wording.number(rates[last.ranks].value / rates[first.ranks].value)} "
        f"times as fast: {_percent(last.throughput)} of perfect throughput. The {goal} went from "
        f"{wording.seconds(times[first.ranks].value)} to {wording.seconds(times[last.ranks].value)}: "
        f"{_percent(last.total)} of perfect scaling, all told."
    )
    yield f"{found.attributions[-1].sentence()}."


def _percent(x: Interval) -> str:
    """An efficiency in per cent with its interval."""
    shown = Interval(100 * x.value, *(None if e is None else 100 * e for e in (x.low, x.high)), x.n)
    value, between = wording.pair(shown)
    return f"{value} %" + (f" (95 % interval {between})" if between else "")


def _at_a_glance(found: Findings, key: str) -> Table:
    scale, rates, times = Scale.of(found), found.throughput(), found.time()
    rows = tuple(
        (
            Cell(scale.name(s.ranks), raw=s.ranks),
            count(s.total.n),
            measured(rates[s.ranks]),
            measured(times[s.ranks]),
            sections.efficiency_cell(s, "throughput"),
            sections.efficiency_cell(s, "total"),
        )
        for s in found.splits
    )
    columns = (
        Column("size", kind="short"),
        Column("runs (n)"),
        Column("throughput", "samples/s"),
        Column("time to the target" if found.converged else "time of the fixed work", "s"),
        Column("efficiency of throughput", "1: perfect"),
        Column("efficiency in all", "1: perfect"),
    )
    caption = f"{capital(found.title)}. Geometric means; below each its 95 % interval."
    return Table(f"{key}-short", caption, columns, rows)


# Commitments


def _commitments(judged: Judged | None) -> Section:
    if judged is None:
        return Section(
            "commitments",
            "Commitments",
            text=("No contract was given to judge by (`--acceptance`): nothing here says whether a promise was kept.",),
        )
    columns = (
        Column("case", kind="text"), Column("figure", kind="text"), Column("committed", kind="text"),
        Column("measured"), Column("n"), Column("status", kind="text"), Column("why", kind="text"),
    )  # fmt: skip
    rows = []
    for c in judged.commitments:
        found = missing("")
        if c.found is not None:
            shown = f"{c.found:,.0f}" if c.found == int(c.found) else wording.number(c.found, 4)
            found = Cell(f"{shown} {c.unit}".strip(), raw=c.found)
        status = Cell(c.status, tone=TONES.get(c.status, "warn"))  # type: ignore[arg-type]
        reasons = c.reasons or ("met",) * (c.status == "PASS")
        more = [f"and {len(reasons) - SHOWN} more"] if len(reasons) > SHOWN else []
        why = Cell("; ".join((*reasons[:SHOWN], *more)), raw="; ".join(reasons))
        rows.append((text(c.case), text(c.name), text(c.expected), found, count(c.n), status, why))
    caption = f"Contract “{judged.contract}” ({judged.file}), SHA-256 {judged.sha256}."
    return Section(
        "commitments",
        "Commitments",
        text=(
            "Each line is a figure that was signed for. PASS: measured and met. FAIL: measured and missed. INVALID: "
            "the runs are not those contracted, or did not converge. MISSING: nothing was handed in, or not measured.",
        ),
        tables=(Table("commitments", caption, columns, tuple(rows), tuple(f"Note: {n}." for n in judged.notes)),),
    )
