"""The published files, and event catalogues: reader and writer.

Published layout, below one directory (`EarthquakeDec2020`):

    1950start/SC_1950-2019.freq-D-25567x2400-log_eng.multi.csv      magnitude of the day's energy in each pixel
    1950start/SC_1950-2019.freq-D-25567x2400-w_depth.multi.csv      energy-weighted depth, km
    1950start/SC_1950-2019.freq-D-25567x2400-n_shock.multi.csv      number of events
    1950start/SC_1950-2019.freq-D-25567x2400-n_shock-mag-3.29.multi.csv      number above magnitude 3.29
    pix_faults_SmallJan21.csv      fault group of each pixel, 40 rows of 60
    ValidationEARTHQN-Transformer3      (optional) fraction and counts; training locations; validation locations

The tables have a header whose first cell is empty, then a row per day: its number from 0 and 2400 values. Where the
split file is missing, the seed draws the split. Other spans are told by the numbers in the names.

Event catalogue: one or more CSV files in one directory, with columns by either convention: `time, latitude,
longitude, depth, mag` (USGS, ComCat; also `type`, of which only `earthquake` is taken) or `time_string, lat, lon,
depth, M` (CSEP). Events without a magnitude carry no energy and are left out. The record begins at the generator's
`start`.

Every process that reads parses all of it once: a table costs about 0.5 ms per day (a minute for the published
four); so few processes should prepare the shards of published data.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sciml_hpc.benchmarks.tevolop import synthetic
from sciml_hpc.benchmarks.tevolop.grid import COLUMNS, PIXELS, ROWS, Daily, Events, daily
from sciml_hpc.benchmarks.tevolop.windows import Layout, Windows, draw_order, record

if TYPE_CHECKING:
    from sciml_hpc.benchmarks.tevolop import Generator

TABLES = {"log_eng": "magnitude", "w_depth": "depth_km", "n_shock": "events", "n_shock-mag-3.29": "large"}
"""Published tables, and what of `grid.Daily` each holds."""
FAULTS = "pix_faults_SmallJan21.csv"
SPLIT = "ValidationEARTHQN-Transformer3"
COLUMN_NAMES: Mapping[str, tuple[str, ...]] = {
    "time": ("time", "time_string"),
    "latitude": ("latitude", "lat"),
    "longitude": ("longitude", "lon"),
    "depth": ("depth",),
    "magnitude": ("mag", "M"),
}


def read(path: Path, generator: Generator, samples: Mapping[str, int] | None, seed: int) -> Windows:
    """The samples of the files below `path`, of whichever of the two layouts is there.

    Raises ValueError naming file and field for what is missing or malformed, and if `samples` is not what there is.
    """
    tables = sorted(path.glob("*start/SC_*-log_eng.multi.csv"))
    catalogues = sorted(p for p in path.glob("*.csv") if p.name not in (FAULTS, "topearthquakes_20.csv"))
    if bool(tables) == bool(catalogues) or len(tables) > 1:
        raise ValueError(
            f"{path}: must hold either one set of tables (…start/SC_…-log_eng.multi.csv) or event catalogues (*.csv); "
            f"found {len(tables)} and {len(catalogues)}"
        )
    layout = Layout.of(generator.days, generator.locations, generator.split)
    counts = {split: layout.samples(split) for split in ("train", "validation")}
    if samples is not None and dict(samples) != counts:
        raise ValueError(f"{path}: holds {counts} samples, not {dict(samples)}")
    faults = np.zeros(PIXELS, int) if generator.faults == "none" else _read_faults(path / FAULTS)
    split = path / SPLIT
    order = _read_split(split, layout) if split.exists() else draw_order(layout, seed)
    days = _read_tables(tables[0], generator) if tables else _read_catalogues(catalogues, generator)
    whole = record(days, faults, layout, order)
    return Windows(layout, counts, lambda _: whole, catalogues=1)


def write(path: Path, generator: Generator, samples: Mapping[str, int], seed: int, part: int, parts: int) -> list[Path]:
    """Write the files of the simulator's first catalogue that fall to `part`: every `parts`-th of the six.

    The published 25,567 days give four tables of 245 MB (text: zeros mostly) in about 15 s each. Raises ValueError
    if `samples` is not what one catalogue holds: the published layout has no second one.
    """
    layout = Layout.of(generator.days, generator.locations, generator.split)
    counts = {split: layout.samples(split) for split in ("train", "validation")}
    if dict(samples) != counts:
        raise ValueError(f"{path}: the published layout holds one catalogue, {counts} samples, not {dict(samples)}")
    record_of_days = synthetic.days_of(seed, 0, generator.days, generator.start)
    jobs = [
        *(
            (_table(path, generator, name), lambda file, n=name: _write_table(file, record_of_days, n))
            for name in TABLES
        ),
        (path / FAULTS, lambda file: _write_rows(file, synthetic.zones(seed).reshape(ROWS, COLUMNS))),
        (path / SPLIT, lambda file: _write_split(file, layout, seed)),
    ]
    written = []
    for file, job in jobs[part::parts]:
        file.parent.mkdir(parents=True, exist_ok=True)
        job(file)
        written.append(file)
    return written


def _table(path: Path, generator: Generator, name: str) -> Path:
    """Path of a published table: the names tell the span."""
    first, last = generator.start, generator.start + timedelta(days=generator.days - 1)
    return (
        path / f"{first.year}start" / f"SC_{first.year}-{last.year}.freq-D-{generator.days}x{PIXELS}-{name}.multi.csv"
    )


def _read_tables(found: Path, generator: Generator) -> Daily:
    """The four tables beside `found`; their names must tell the generator's days."""
    if f"-D-{generator.days}x{PIXELS}-" not in found.name or not found.parent.name.startswith(
        str(generator.start.year)
    ):
        raise ValueError(
            f"{found}: the name does not tell {generator.days} days from {generator.start.year} "
            "(parameters days, start)"
        )
    files = {name: found.with_name(found.name.replace("log_eng", name)) for name in TABLES}
    for file in files.values():
        if not file.exists():
            raise ValueError(f"{file}: missing")
    columns = {name: _read_table(file, generator.days) for name, file in files.items()}
    cells = np.unique(np.concatenate([cell for cell, _ in columns.values()]))
    values = {}
    for name, (cell, value) in columns.items():
        values[name] = np.zeros(len(cells))
        values[name][np.searchsorted(cells, cell)] = value
    return Daily(
        generator.days,
        *np.divmod(cells, PIXELS),
        magnitude=values["log_eng"].astype(np.float32),
        depth_km=values["w_depth"].astype(np.float32),
        events=values["n_shock"].round().astype(np.int64),
        large=values["n_shock-mag-3.29"].round().astype(np.int64),
    )


def _read_table(file: Path, days: int) -> tuple[np.ndarray, np.ndarray]:
    """Cells (day · 2400 + pixel) that are not zero, in order, and their values."""
    cells, values = [], []
    try:
        with file.open() as lines:
            header = next(lines, "").rstrip("\n").split(",")
            if len(header) != PIXELS + 1 or header[0].strip('"'):
                raise ValueError(f"{file}: header: must be an empty cell and {PIXELS} names; found {len(header)} cells")
            day = -1
            for day, line in enumerate(lines):
                try:
                    row = np.array(line.split(","), np.float64)
                except ValueError as error:
                    raise ValueError(f"{file}: row {day}: {error}") from None
                if len(row) != PIXELS + 1 or row[0] != day:
                    raise ValueError(
                        f"{file}: row {day}: must be its number and {PIXELS} values; "
                        f"found {len(row)} cells, the first one {row[0]:g}"
                    )
                pixel = np.flatnonzero(row[1:])
                cells.append(day * PIXELS + pixel)
                values.append(row[1 + pixel])
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: cannot be read: {error}") from None
    if day + 1 != days:
        raise ValueError(f"{file}: has {day + 1} days, not {days} (parameter days)")
    return np.concatenate(cells), np.concatenate(values)


def _write_table(file: Path, record_of_days: Daily, name: str) -> None:
    """A table; numbers in the shortest form that reads back as the same float32."""
    values = [str(v) for v in getattr(record_of_days, TABLES[name])]
    ends = np.searchsorted(record_of_days.day, np.arange(record_of_days.days + 1))
    with file.open("w") as lines:
        lines.write("," + ",".join(map(str, range(PIXELS))) + "\n")
        for day in range(record_of_days.days):
            row = ["0.0"] * PIXELS
            for k in range(ends[day], ends[day + 1]):
                row[record_of_days.pixel[k]] = values[k]
            lines.write(f"{day},{','.join(row)}\n")


def _read_faults(file: Path) -> np.ndarray:
    """Fault group of each pixel, (2400,)."""
    rows = _rows(file)
    try:
        faults = np.array([[int(float(cell)) for cell in row] for row in rows])
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    if faults.shape != (ROWS, COLUMNS):
        raise ValueError(f"{file}: must be {ROWS} rows of {COLUMNS} fault groups; found shape {faults.shape}")
    return faults.ravel()


def _read_split(file: Path, layout: Layout) -> np.ndarray:
    """Training locations, then validation locations: places on the list of active pixels."""
    rows = _rows(file)
    if len(rows) != 3:
        raise ValueError(f"{file}: must have three rows: counts, training, validation; found {len(rows)}")
    try:
        training, validation = (np.array(row, int) for row in rows[1:])
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    order = np.concatenate([training, validation])
    if len(validation) != layout.group or not np.array_equal(np.sort(order), np.arange(layout.locations)):
        raise ValueError(
            f"{file}: must list each of {layout.locations} locations once, {layout.group} of them for validation; "
            f"found {len(training)} and {len(validation)}"
        )
    return order


def _write_split(file: Path, layout: Layout, seed: int) -> None:
    order = draw_order(layout, seed)
    training, validation = order[: -layout.group], order[-layout.group :]
    share = layout.group / layout.locations
    _write_rows(file, [[share, len(training), len(validation)], training, validation])


def _rows(file: Path) -> list[list[str]]:
    try:
        with file.open(newline="") as lines:
            return [row for row in csv.reader(lines) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{file}: cannot be read: {error}") from None


def _write_rows(file: Path, rows) -> None:
    with file.open("w", newline="") as lines:
        csv.writer(lines).writerows(rows)


def _read_catalogues(files: list[Path], generator: Generator) -> Daily:
    """Events of all files, each once however many files have it, on the grid."""
    events = np.unique(np.array([event for file in files for event in _read_events(file, generator.start)]), axis=0)
    if not len(events):
        raise ValueError(f"{files[0].parent}: no earthquake with a magnitude in {', '.join(f.name for f in files)}")
    return daily(Events(*events.T), generator.days)


def _read_events(file: Path, start: date) -> list[tuple[float, float, float, float, float]]:
    """Day since `start`, latitude, longitude, depth (km) and magnitude of each earthquake of a catalogue."""
    zero = datetime(start.year, start.month, start.day, tzinfo=timezone.utc)
    events = []
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            names = reader.fieldnames or ()
            column = {}
            for field, spellings in COLUMN_NAMES.items():
                column[field] = next((name for name in spellings if name in names), None)
                if column[field] is None:
                    raise ValueError(f"{file}: header: no column {' or '.join(spellings)}; found {', '.join(names)}")
            for row in reader:
                if row.get("type", "earthquake") != "earthquake" or not (row[column["magnitude"]] or "").strip():
                    continue
                for name in column.values():
                    if not row[name]:
                        raise ValueError(f"{file}: line {reader.line_num}: {name}: empty")
                try:
                    when = datetime.fromisoformat(row[column["time"]].strip().replace("Z", "+00:00"))
                    numbers = [float(row[column[f]]) for f in ("latitude", "longitude", "depth", "magnitude")]
                except ValueError as error:
                    raise ValueError(f"{file}: line {reader.line_num}: {error}") from None
                when = when if when.tzinfo else when.replace(tzinfo=timezone.utc)
                events.append(((when - zero) / timedelta(days=1), *numbers))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{file}: cannot be read: {error}") from None
    return events
