"""Published tables and event catalogues, written and read."""

from __future__ import annotations

import csv
import importlib.util
import json
import math
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from toy import clean_environment

from sciml_hpc.benchmarks.tevolop import Generator, TEvolOp
from sciml_hpc.benchmarks.tevolop.grid import activity, fortnights, magnitude_of
from sciml_hpc.benchmarks.tevolop.native import FAULTS, SPLIT, _read_catalogues, _read_tables
from sciml_hpc.benchmarks.tevolop.windows import Layout

DAYS = 14 * 80 + 5
SETTINGS = Generator(start="1990-01-01", days=DAYS, locations=20)
LAYOUT = Layout.of(DAYS, 20, "space")
SIZES = {split: LAYOUT.samples(split) for split in ("train", "validation")}
SEED = 3


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("EarthquakeDec2020")
    written = [f for part in range(3) for f in TEvolOp.write_native(path, SETTINGS, SIZES, SEED, part, 3)]
    assert sorted(written) == sorted(p for p in path.rglob("*") if p.is_file())
    return path


@pytest.fixture
def files(published: Path, tmp_path: Path) -> Path:
    """A copy by links, to change single files of."""
    for file in published.rglob("*"):
        if file.is_file():
            target = tmp_path / file.relative_to(published)
            target.parent.mkdir(exist_ok=True)
            target.symlink_to(file)
    return tmp_path


def replace(file: Path, content: str) -> None:
    file.unlink()
    file.write_text(content)


def table(path: Path, name: str) -> Path:
    return path / "1990start" / f"SC_1990-1993.freq-D-{DAYS}x2400-{name}.multi.csv"


def test_the_published_layout_reads_back_bit_for_bit(published: Path) -> None:
    native = TEvolOp.native(published, SETTINGS, SIZES, seed=99)  # the split is that of the file, not of the seed
    simulated = TEvolOp.simulator(SETTINGS, SIZES, SEED)
    assert native.samples == simulated.samples == SIZES
    assert native.fields == simulated.fields
    for split, count in SIZES.items():
        a, b = native.read(split, 0, count), simulated.read(split, 0, count)
        for field in native.fields:
            assert a[field.name].dtype == field.dtype
            assert a[field.name].tobytes() == b[field.name].tobytes()


def test_the_tables_are_in_the_published_form(published: Path) -> None:
    for name in ("log_eng", "w_depth", "n_shock", "n_shock-mag-3.29"):
        with table(published, name).open() as file:
            header = file.readline().rstrip("\n").split(",")
            rows = file.read().splitlines()
        assert header[0] == ""
        assert len(header) == 2401
        assert len(rows) == DAYS
        assert [row.split(",", 1)[0] for row in rows] == [str(k) for k in range(DAYS)]
    with (published / FAULTS).open() as file:
        assert np.array(list(csv.reader(file)), int).shape == (40, 60)
    with (published / SPLIT).open() as file:
        counts, training, validation = csv.reader(file)
    assert [float(c) for c in counts] == [0.2, 16, 4]
    assert sorted(map(int, training + validation)) == list(range(20))


def test_without_split_file_the_seed_draws_it(files: Path) -> None:
    (files / SPLIT).unlink()
    first = {s: TEvolOp.native(files, SETTINGS, None, s).read("validation", 0, 1)["static"] for s in (SEED, SEED + 1)}
    of_writer = TEvolOp.simulator(SETTINGS, SIZES, SEED).read("validation", 0, 1)["static"]
    np.testing.assert_array_equal(first[SEED], of_writer)
    assert not np.array_equal(first[SEED + 1], of_writer)


def test_malformed_tables_are_named(files: Path) -> None:
    file = table(files, "w_depth")
    lines = file.read_text().splitlines()
    for content, message in [
        (["day" + lines[0], *lines[1:]], r"w_depth.*header: must be an empty cell"),
        ([lines[0], lines[1] + ",1.0", *lines[2:]], r"w_depth.*row 0: must be its number and 2400 values; found 2402"),
        ([lines[0], lines[2]], r"w_depth.*row 0: .* the first one 1"),
        (lines[:-1], rf"w_depth.*has {DAYS - 1} days, not {DAYS}"),
        ([lines[0], lines[1][:-3] + "low", *lines[2:]], r"w_depth.*row 0: could not convert"),
        ([], r"w_depth.*header"),
    ]:
        replace(file, "\n".join(content) + "\n")
        with pytest.raises(ValueError, match=message):
            TEvolOp.native(files, SETTINGS, SIZES, SEED)


def test_other_malformed_files_are_named(files: Path) -> None:
    for file, content, message in [
        (FAULTS, "1,2\n", r"pix_faults_SmallJan21.csv: must be 40 rows of 60"),
        (FAULTS, "x\n", r"pix_faults_SmallJan21.csv: could not convert"),
        (SPLIT, "0.2,2\n", r"ValidationEARTHQN-Transformer3: must have three rows"),
        (
            SPLIT,
            "0.2,16,4\n0,1\n2,2\n",
            r"must list each of 20 locations once, 4 of them for validation; found 2 and 2",
        ),
    ]:
        original = (files / file).resolve()
        replace(files / file, content)
        with pytest.raises(ValueError, match=message):
            TEvolOp.native(files, SETTINGS, SIZES, SEED)
        (files / file).unlink()
        (files / file).symlink_to(original)


def test_missing_files_and_wrong_counts_are_named(files: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds .*'train': \d+.* samples, not .*5"):
        TEvolOp.native(files, SETTINGS, {"train": 5, "validation": 1}, SEED)
    with pytest.raises(ValueError, match=r"one catalogue, .* not"):
        TEvolOp.write_native(tmp_path / "more", SETTINGS, {"train": 10**6, "validation": 1}, SEED)
    longer = SETTINGS.model_copy(update={"days": 25567})
    with pytest.raises(ValueError, match=r"does not tell 25567 days from 1990"):
        TEvolOp.native(files, longer, None, SEED)
    table(files, "n_shock").unlink()
    with pytest.raises(ValueError, match=r"n_shock.multi.csv: missing"):
        TEvolOp.native(files, SETTINGS, SIZES, SEED)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"must hold either .* found 0 and 0"):
        TEvolOp.native(tmp_path / "empty", SETTINGS, None, SEED)


COMCAT = """\
time,latitude,longitude,depth,mag,magType,nst,gap,dmin,rms,net,id,updated,place,type
2019-07-06T03:19:53.040Z,35.7695,-117.5993,8,7.1,mw,,,,,ci,ci38457511,,"Ridgecrest, CA",earthquake
2019-07-06T03:22:35.630Z,35.6167,-117.4302,9.35,4.73,ml,,,,,ci,b,,,earthquake
2019-07-06T12:00:00.000Z,35.65,-117.45,1.0,2.0,ml,,,,,ci,c,,,quarry blast
2019-07-06T12:00:00.000Z,35.65,-117.45,1.0,,ml,,,,,ci,d,,,earthquake
2019-07-07T00:00:00.000Z,35.65,-117.45,-1.0,2.5,ml,,,,,ci,e,,,earthquake
"""


def test_an_event_catalogue_in_usgs_columns(tmp_path: Path) -> None:
    (tmp_path / "query.csv").write_text(COMCAT)
    (tmp_path / "again.csv").write_text("\n".join(COMCAT.splitlines()[:3]))  # events of two files count once
    settings = Generator(start="2019-07-06", days=28)
    record = _read_catalogues(sorted(tmp_path.glob("*.csv")), settings)
    assert record.day.tolist() == [0, 0, 1]
    assert record.pixel.tolist() == [60 * 2 + 24, 60 * 3 + 25, 60 * 3 + 25]
    np.testing.assert_allclose(record.magnitude, [7.1, 4.73, 2.5], rtol=1e-6)
    np.testing.assert_allclose(record.depth_km, [8, 9.35, -1], rtol=1e-6)
    assert record.large.tolist() == [1, 1, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("latitude", "breite"), r"query.csv: header: no column latitude or lat; found time, breite"),
        (("-117.5993", "west"), r"query.csv: line 2: could not convert string to float: 'west'"),
        (("2019-07-06T03:22", "6 July 3:22"), r"query.csv: line 3: Invalid isoformat"),
        (("35.6167", ""), r"query.csv: line 3: latitude: empty"),
    ],
)
def test_malformed_catalogues_are_named(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    (tmp_path / "query.csv").write_text(COMCAT.replace(*change))
    with pytest.raises(ValueError, match=message):
        TEvolOp.native(tmp_path, Generator(start="2019-01-01", days=14 * 90, faults="none"), None, 0)


def test_a_catalogue_of_simulated_events_gives_the_samples_of_its_tables(tmp_path: Path, published: Path) -> None:
    """The two layouts of one history: binning the events is what the tables hold."""
    from sciml_hpc.benchmarks.tevolop import synthetic

    first = 14610  # 1990-01-01 in days since 1950
    events = synthetic.catalogue(SEED, 0, DAYS, first)
    zero = np.datetime64("1990-01-01")
    times = zero + (events.day * 86400e6).astype("timedelta64[us]")
    with (tmp_path / "events.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["time", "latitude", "longitude", "depth", "mag"])
        columns = (events.latitude, events.longitude, events.depth_km, events.magnitude)
        writer.writerows(zip(map("{}Z".format, times), *(c.tolist() for c in columns), strict=True))
    (tmp_path / FAULTS).symlink_to(published / FAULTS)
    (tmp_path / SPLIT).symlink_to(published / SPLIT)
    a = TEvolOp.native(tmp_path, SETTINGS, SIZES, 0).read("train", 0, 8)
    b = TEvolOp.native(published, SETTINGS, SIZES, 0).read("train", 0, 8)
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=2e-6, err_msg=name)


def test_real_events_of_ridgecrest_against_pycsep(tmp_path: Path) -> None:
    """829 real ComCat events of July 2019: pixel counts and magnitudes against pyCSEP's own gridding of them."""
    csep = pytest.importorskip("csep")
    from csep.core.regions import CartesianGrid2D
    from csep.utils import datasets

    catalogue = csep.load_catalog(datasets.comcat_example_catalog_fname)
    assert catalogue.event_count == 829
    (tmp_path / "ridgecrest.csv").write_bytes(Path(datasets.comcat_example_catalog_fname).read_bytes())
    settings = Generator(start="2017-07-01", days=14 * 90, locations=5, faults="none")
    record = _read_catalogues([tmp_path / "ridgecrest.csv"], settings)

    corners = np.array([(-120 + x / 10, 36 - (y + 1) / 10) for y in range(40) for x in range(60)])
    region = CartesianGrid2D.from_origins(corners.round(1), dh=0.1)
    catalogue.filter_spatial(region, in_place=True)
    by_csep = np.zeros((40, 60))
    origins = region.origins()
    counts = catalogue.spatial_counts()
    rows, columns = (36 - origins[:, 1]).round(1) * 10 - 1, (origins[:, 0] + 120).round(1) * 10
    by_csep[rows.round().astype(int), columns.round().astype(int)] = counts
    ours = np.bincount(record.pixel, record.events, 2400).reshape(40, 60)
    np.testing.assert_array_equal(ours, by_csep)
    assert ours.sum() == catalogue.event_count

    series = fortnights(record)
    total = magnitude_of((10 ** (1.5 * catalogue.get_magnitudes())).sum())
    assert series.energy.sum() - 14 * series.energy.size == pytest.approx(10 ** (1.5 * total), rel=1e-6)

    layout = Layout.of(settings.days, settings.locations, settings.split)
    source = TEvolOp.native(tmp_path, settings, {s: layout.samples(s) for s in ("train", "validation")}, 0)
    samples = source.read("train", 0, layout.samples("train"))
    busiest = np.argsort(-activity(series.large.sum(0)), kind="stable")[:5]
    largest = max(samples["history"][..., 0].max(), samples["future"][..., 0].max())
    assert largest == pytest.approx(magnitude_of(series.energy[:, busiest]).max(), rel=1e-6)
    assert largest > 5


@pytest.fixture
def ridgecrest() -> list[dict[str, str]]:
    """Rows of the 829 real ComCat events of 6 to 13 July 2019 that pyCSEP ships."""
    package = importlib.util.find_spec("csep")
    if package is None:
        pytest.skip("pycsep is not installed (for the events alone: pip install --no-deps pycsep)")
    file = Path(package.submodule_search_locations[0], "artifacts/ObservedCatalogs/sample_comcat_catalog.csv")
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == 829
    return rows


REAL = """\
datasets:
  ridgecrest:
    benchmark: tevolop
    version: 1
    origin:
      kind: files
      path: comcat
      get: pip install pycsep
      parameters: {start: 2017-05-01, days: 1260, locations: 5, faults: none}
    format: as published
    samples: {train: 56, validation: 14}
    licence: public domain
    citation: U.S. Geological Survey, ComCat
    target: {metric: average_nnse_1year_h0, direction: max, value: 0.5, source: a test}
"""


@pytest.mark.slow
def test_real_events_go_through_the_whole_job(tmp_path: Path, ridgecrest: list[dict[str, str]]) -> None:
    """From ComCat's CSV to the log, by the command line; persistence in the record is that of sums made here."""
    (tmp_path / "own.yaml").write_text(REAL)
    (tmp_path / "data/comcat").mkdir(parents=True)
    with (tmp_path / "data/comcat/query.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["time", "latitude", "longitude", "depth", "mag", "magType", "type"])
        for row in ridgecrest:
            writer.writerow(
                [row["time_string"] + "Z", row["lat"], row["lon"], row["depth"], row["M"], "ml", "earthquake"]
            )
    run = "--system here --engine single --model lstm --epochs 2 --set train.width=8 --set measure.ceiling_s=0"
    for command, options in (("prepare tevolop", ""), ("tevolop", run)):
        done = subprocess.run(
            f"{sys.executable} -m sciml_hpc {command} --dataset ridgecrest --manifest own.yaml {options}".split(),
            cwd=tmp_path,
            env=clean_environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "results/here/strong/tevolop/result_0.json").read_text())
    assert result["verdict"] == "VALID"
    assert (result["job"]["train_samples"], result["job"]["eval_samples"]) == (56, 14)

    energy, large = np.full((90, 40, 60), 14.0), np.zeros((40, 60))
    cells: dict[tuple[int, int, int], float] = {}
    for row in ridgecrest:
        day = (datetime.fromisoformat(row["time_string"]) - datetime(2017, 5, 1)).days
        south, east = round((36 - float(row["lat"])) * 10, 6), round((float(row["lon"]) + 120) * 10, 6)
        y, x = math.ceil(south) - 1, math.floor(east)  # an edge belongs to the north and to the east
        cells[day, y, x] = cells.get((day, y, x), 0) + 10 ** (1.5 * float(row["M"]))
        large[y, x] += float(row["M"]) > 3.29
    for (day, y, x), released in cells.items():
        energy[day // 14, y, x] += released - 1
    block = np.pad(np.lib.stride_tricks.sliding_window_view(large, (3, 3)).sum((-2, -1)), 1, mode="edge")
    busiest = np.argsort(-np.maximum(large / 7.1, block / 34.1).ravel(), kind="stable")[:5]
    magnitude = np.log10(energy.reshape(90, -1)[25:, busiest]) / 1.5
    seen, came = magnitude[25:39], magnitude[26:40]  # the last step of each of 14 windows, and the next one
    variation = ((came - came.mean(0)) ** 2).sum(0)
    persistence = variation / (variation + ((came - seen) ** 2).sum(0))
    found = result["metrics"]["persistence_average_nnse_2weeks_h0"]
    assert np.abs(persistence - found).min() < 1e-6


def test_the_tables_hold_the_cells_of_the_catalogue(published: Path) -> None:
    from sciml_hpc.benchmarks.tevolop import synthetic

    found = _read_tables(table(published, "log_eng"), SETTINGS)
    expected = synthetic.days_of(SEED, 0, DAYS, SETTINGS.start)
    for name, value in vars(expected).items():
        np.testing.assert_array_equal(getattr(found, name), value, err_msg=name)
