"""What a page is made of: sections of sentences, tables and drawings. Tables are CSV files as well."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from sciml_hpc.studies import wording
from sciml_hpc.studies.efficiency import Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Tone = Literal["", "good", "bad", "warn"]


@dataclass(frozen=True)
class Cell:
    """What stands in one place of a table."""

    text: str
    below: str = ""
    """Smaller, under it: an interval, a range, a reason."""
    raw: float | int | str | Interval | None = None
    """For the CSV file; by default the text."""
    tone: Tone = ""

    @property
    def why(self) -> bool:
        """Whether what stands below is a reason: words, that may be broken into lines."""
        return self.text == NOT_MEASURED


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    title: str
    unit: str = ""
    kind: Literal["number", "text", "short", "hash"] = "number"
    """`short`: text on one line."""


@dataclass(frozen=True)
class Table:
    """A table; `name` is a word for file names."""

    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether it stays on one sheet of paper: it is short, and has no long texts."""
        return len(self.rows) <= 24 and all(len(cell.text) < 200 for row in self.rows for cell in row)

    def csv(self) -> str:
        """As CSV: a column with intervals becomes four, text that a spreadsheet would compute is quoted."""
        spread = [any(isinstance(row[k].raw, Interval) for row in self.rows) for k in range(len(self.columns))]
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        titles: list[str] = []
        for column, wide in zip(self.columns, spread, strict=True):
            title = column.title + (f" [{column.unit}]" if column.unit else "")
            titles += [f"{title}{end}" for end in ("", " 95% low", " 95% high", " n")] if wide else [title]
        writer.writerow(map(_inert, titles))
        for row in self.rows:
            cells: list[object] = []
            for cell, wide in zip(row, spread, strict=True):
                x = cell.raw
                if isinstance(x, Interval):
                    cells += [x.value, x.low, x.high, x.n]
                else:
                    cells += [cell.text if x is None else x, *([""] * 3 if wide else [])]
            writer.writerow(_inert(c) if isinstance(c, str) else c for c in cells)
        return out.getvalue()


@dataclass(frozen=True)
class Drawing:
    """A figure; `name` is a word for file names and unique on the page."""

    name: str
    caption: str
    figure: Figure


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    id: str
    title: str
    text: tuple[str, ...] = ()
    """Paragraphs; words between backticks are names."""
    notes: tuple[str, ...] = ()
    """What must not be overlooked."""
    drawings: tuple[Drawing, ...] = ()
    tables: tuple[Table, ...] = ()
    sections: tuple[Section, ...] = ()


@dataclass(frozen=True)
class Banner:
    """The verdict."""

    word: str
    sentence: str
    tone: Tone
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Page:
    """The whole."""

    title: str
    banner: Banner
    sections: tuple[Section, ...]
    made: str = ""
    """When and by what."""
    names: tuple[str, ...] = field(default=())
    """What it is about, beside the title."""

    def all_sections(self) -> list[Section]:
        """Every section, those within others after the one they are in."""
        return [x for section in self.sections for x in (section, *section.sections)]

    def drawings(self) -> list[Drawing]:
        """Every figure in the order of the page."""
        return [d for section in self.all_sections() for d in section.drawings]

    def tables(self) -> list[Table]:
        """Every table in the order of the page."""
        return [t for section in self.all_sections() for t in section.tables]


NOT_MEASURED = "not measured"


def missing(reason: str) -> Cell:
    """A figure that there is none of."""
    return Cell(NOT_MEASURED, reason, raw="")


def text(value: object, below: str = "", tone: Tone = "") -> Cell:
    """Words."""
    return Cell(str(value), below, tone=tone)


def count(value: int) -> Cell:
    """A whole number."""
    return Cell(f"{value:,}", raw=value)


def measured(x: Interval | None, reason: str = "", most: int = 4) -> Cell:
    """A mean with its interval, at `most` so many digits after the point."""
    if x is None:
        return missing(reason)
    value, between = wording.pair(x, most)
    below = between or ("no interval: too few runs" if x.low is None else "")
    return Cell(value, below, raw=x)


def figure(value: float | None, reason: str = "", scale: float = 1.0) -> Cell:
    """One number, shown ÷ `scale`."""
    return missing(reason) if value is None else Cell(wording.number(value / scale), raw=value / scale)


def median(values: Sequence[float | None], reason: str = "", scale: float = 1.0, digits: int = 3) -> Cell:
    """Median and range of the values of several runs, shown ÷ `scale`; one that is not there leaves no figure."""
    known = sorted(v / scale for v in values if v is not None)
    if not known or len(known) < len(values):
        return missing(reason)
    half = len(known) // 2
    middle = known[half] if len(known) % 2 else (known[half - 1] + known[half]) / 2
    low, high = wording.number(known[0], digits), wording.number(known[-1], digits)
    return Cell(wording.number(middle, digits), f"{low}–{high}" if low != high else "", raw=middle)


def tidy(table: Table) -> Table:
    """The table without the columns in which nothing was measured, which its notes name instead."""
    empty = [
        bool(table.rows) and all(row[k].text == NOT_MEASURED for row in table.rows) for k in range(len(table.columns))
    ]
    titles: dict[str, list[str]] = {}
    for k, column in enumerate(table.columns):
        if empty[k]:
            titles.setdefault("; ".join(dict.fromkeys(row[k].below for row in table.rows)), []).append(column.title)
    notes = [f"{wording.capital(', '.join(some))}: {NOT_MEASURED} ({why})." for why, some in titles.items()]
    return Table(
        table.name,
        table.caption,
        tuple(c for c, gone in zip(table.columns, empty, strict=True) if not gone),
        tuple(tuple(c for c, gone in zip(row, empty, strict=True) if not gone) for row in table.rows),
        (*table.notes, *notes),
    )


def _inert(cell: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{cell}" if cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell
