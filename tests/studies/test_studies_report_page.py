"""The report: the numbers that were put into a study come out of it, nothing from a file becomes markup, nothing is
overwritten, and what does not count is shown as such.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import shutil
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from statistics import geometric_mean

import pytest
import yaml
from acceptance_runs import Vendor, contract, terms
from machines import Machine
from results.correct_logs import Clock
from synthetic_study import GRADIENTS, TARGET, WATTS, write_study

from sciml_hpc.errors import UserError
from sciml_hpc.results import mllog
from sciml_hpc.studies import findings
from sciml_hpc.studies.ledger import Study
from sciml_hpc.studies.report import appendix, content, figures, html, rendering
from sciml_hpc.studies.report.command import report
from sciml_hpc.studies.report.commitments import of_record
from sciml_hpc.studies.report.gather import gather
from sciml_hpc.studies.report.parts import Banner, Cell, Column, Page, Section, Table
from sciml_hpc.studies.times import PARTS, Timed

README = Path(__file__).parents[2] / "README.md"


class Seen(HTMLParser):
    """What a browser would find in a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.handlers: list[str] = []
        self.words: list[str] = []
        self._hidden = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self._hidden += tag == "style"
        if tag not in ("wbr", "code", "strong"):
            self.words.append(" ")
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
                self.links.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag == "style"

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.words.append(data)

    @property
    def text(self) -> str:
        """The words, with single blanks."""
        return " ".join("".join(self.words).split())


class Made:
    """A report of a study, with its files."""

    def __init__(self, root: Path, **options: object) -> None:
        self.root, self.study = root, root / "study"
        self.truth = write_study(self.study, **options)  # type: ignore[arg-type]
        self.said = report([self.study], root / "report.html", None, root / "files", [16])
        self.page = (root / "report.html").read_text()
        self.seen = Seen(self.page)

    def table(self, name: str) -> list[dict[str, str]]:
        """The rows of a table's file."""
        return list(csv.DictReader(io.StringIO((self.root / "files" / f"{name}.csv").read_text())))

    def runs(self, point: int) -> list[Timed]:
        """What was put into the runs of a point that count."""
        return [run for name, run in self.truth.items() if name.startswith(f"n{point}-train")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A report of a whole study, in which one run broke once."""
    machine = Machine(noise=0.01, sigma=0.03)
    return Made(tmp_path_factory.mktemp("whole"), machine=machine, more_epochs=2, faults=("n2-train-1",), pictures=True)


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A report of a study in which a run did not reach its target, without energy."""
    return Made(tmp_path_factory.mktemp("broken"), scaling="weak", invalid=("n4-train-0",), energy=False)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of one size and one run."""
    write_study(directory := tmp_path_factory.mktemp("small") / "study", points=(2,), repeats=1)
    return directory


def test_throughput_time_and_epochs_are_those_of_the_machine(made: Made) -> None:
    for row, point in zip(made.table("set1-short"), (1, 2, 4), strict=True):
        truth = made.runs(point)
        assert float(row["throughput [samples/s]"]) == pytest.approx(geometric_mean(r.samples_per_s for r in truth))
        assert float(row["time to the target [s]"]) == pytest.approx(geometric_mean(r.time_s for r in truth), rel=1e-3)
        assert int(row["runs (n)"]) == 2
        assert float(row["throughput [samples/s] 95% low"]) < float(row["throughput [samples/s]"])
    assert [float(row["epochs"]) for row in made.table("set1-quality")] == [10, 12, 14]
    rate = geometric_mean(r.samples_per_s for r in made.runs(4))
    assert re.search(rf"{rate:,.0f}"[:-1], made.seen.text)  # to the digits that its interval leaves


def test_the_factors_multiply_to_the_total(made: Made) -> None:
    for row in made.table("set1-efficiency"):
        product = 1.0
        for factor in ("staging", "throughput", "convergence", "overhead"):
            product *= float(row[factor])
        assert product == pytest.approx(float(row["total"]), rel=1e-12)
    assert float(made.table("set1-efficiency")[2]["convergence"]) == pytest.approx(10 / 14)


def test_lost_seconds_are_those_put_in_and_add_up(made: Made) -> None:
    labels = [name for name in made.table("set1-lost")[0] if name.endswith("[s]")][3:]
    for row, point in zip(made.table("set1-lost"), (2, 4), strict=True):
        assert sum(float(row[label]) for label in labels) == pytest.approx(float(row["lost [s]"]))
        truth, first = made.runs(point), made.runs(1)
        time, ideal = (sum(r.time_s for r in runs) / len(runs) for runs in (truth, first))
        assert float(row["lost [s]"]) == pytest.approx(time - ideal / point, abs=0.1)  # a millisecond a line
        waiting = sum(r.parts.communication / r.epochs for r in truth) / len(truth) * 10
        before = sum(r.parts.communication for r in first) / len(first) / point
        assert float(row["exposed communication [s]"]) == pytest.approx(waiting - before, rel=1e-3)
    assert len(labels) == len(PARTS) + 1


def test_energy_spread_staging_and_all_reduce(made: Made) -> None:
    for row, point in zip(made.table("set1-energy"), (1, 2, 4), strict=True):
        mean = sum(WATTS * r.ranks * r.time_s for r in made.runs(point)) / 2
        assert float(row["energy of the run [kJ]"]) == pytest.approx(mean / 1e3, rel=1e-3)  # the median of two
        assert float(row["mean power [W]"]) == pytest.approx(WATTS * 4 * point, rel=1e-6)
    assert [float(row["read amplification [×]"]) for row in made.table("set1-data")] == [1, 1, 1]
    assert [float(row["staging [s]"]) for row in made.table("set1-data")] == [65, 35, 20]
    for row, point in zip(made.table("set1-communication"), (1, 2, 4), strict=True):
        run = made.runs(point)[0]
        share = run.parts.communication / (run.parts.compute + run.parts.stragglers + run.parts.communication)
        assert float(row["exposed [% of a step]"]) == pytest.approx(100 * share, rel=1e-6)
    for row in made.table("set1-allreduce"):
        assert float(row["gradients [MB]"]) == GRADIENTS / 1e6
        assert 0 < float(row["bus bandwidth [GB/s]"]) < (20 if row["by"].startswith("horovod") else 8)
    assert [row["size"] for row in made.table("set1-nodes")] == ["8", "16"]


def test_every_run_is_there_with_its_hashes(made: Made) -> None:
    logs = sorted(made.study.glob("results/*/*/*/result_*.txt"))
    assert len(logs) == 3 * 3 + 1  # a warm-up and two repeats of each size, and the attempt that broke
    rows = {row["log"]: row for row in made.table("runs")}
    for log in logs:
        row = rows[str(log.relative_to(made.study))]
        content = json.loads(log.with_suffix(".json").read_text())
        for path, column in ((log, "log, SHA-256"), (log.with_suffix(".json"), "record, SHA-256")):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            assert row[column] == digest
            assert digest in made.page
        for digest in (
            content["config_sha256"],
            content["dataset"]["index_sha256"],
            content["code"]["source_sha256"],
            content["code"]["commit"],
        ):
            assert digest in made.page
    assert Counter(row["part"] for row in rows.values()) == {
        "counts": 6,
        "warm-up, dropped by design": 3,
        "does not count": 1,
    }


def test_the_page_needs_nothing_else(made: Made) -> None:
    assert made.seen.tags["script"] == 0
    assert not made.seen.handlers
    assert made.seen.links
    for link in made.seen.links:
        assert link.startswith(("#", "data:"))
    style = made.page[made.page.index("<style>") : made.page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    twice = [name for name, times in Counter(made.seen.ids).items() if times > 1]
    assert not twice
    known = set(made.seen.ids)
    assert all(link[1:] in known for link in made.seen.links if link.startswith("#"))
    assert all(name in known for name in re.findall(r"url\(#([^)]+)\)", made.page))


def test_a_figure_has_its_text_as_text_and_a_caption(made: Made) -> None:
    assert made.seen.tags["svg"] == made.seen.tags["figure"] == len(list((made.root / "files").glob("*.svg")))
    assert made.seen.tags["svg"] >= 11
    for words in ("perfect scaling", "projection, not measured", "exposed communication", "gradients of this network"):
        assert words in made.seen.text
    for label in re.findall(r'aria-labelledby="([^"]+)"', made.page):
        assert label in made.seen.ids
    for path in (made.root / "files").glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")


def test_a_whole_study_is_complete_and_names_the_attempt_that_broke(made: Made) -> None:
    assert made.said[0].startswith("COMPLETE: 6 runs are VALID and count; 3 of warm-up")
    assert "n2-train-1, attempt 0" in made.seen.text
    assert "failed with exit status 3: rank 3 on nid0002 was lost" in made.seen.text
    assert "No contract was given" in made.seen.text


def test_an_invalid_run_makes_the_study_incomplete_and_enters_no_figure(broken: Made) -> None:
    assert broken.said[0].startswith("INCOMPLETE: 5 runs are VALID")
    assert "no VALID result of n4-train-0" in broken.seen.text
    assert "INVALID: target not met: accuracy is 0.8999 after 10 epochs, must be ≥ 0.9" in broken.seen.text
    last = broken.table("set1-short")[2]
    assert last["runs (n)"] == "1"
    assert last["throughput [samples/s] 95% low"] == ""
    assert "no interval: too few runs" in broken.seen.text


def test_a_run_changed_since_it_was_valid_makes_the_study_incomplete(tmp_path: Path) -> None:
    write_study(study := tmp_path / "study", points=(1, 2))
    log, other = sorted(study.glob("results/*_n2x4/*/*/result_[12].txt"))
    log.write_text(log.read_text().replace("accuracy", "accuracy "))
    other.with_suffix(".json").write_text('{"verdict": "VALID"}')
    found = findings.of_study(Study.load(study))
    assert found.missing == ("n2-train-0", "n2-train-1")
    assert "not the one that the record names by its hash" in found.left[0].why
    assert "field 'benchmark' is missing" in found.left[1].why
    (log,) = study.glob("results/*_n1x4/*/*/result_1.txt")
    record = json.loads(log.with_suffix(".json").read_text())
    for section, instead, why in (
        ("staging", None, "lacks staging"),
        ("throughput", {}, "lacks 'samples_per_s'"),
        ("throughput", {"samples_per_s": 0.0}, "lacks a time and a throughput"),
    ):
        log.with_suffix(".json").write_text(json.dumps(record | {section: instead}))
        (left,) = (x for x in findings.of_study(Study.load(study)).left if "n1x4" in x.name)
        assert why in left.why


def test_what_was_not_measured_has_a_reason_and_is_no_zero(broken: Made) -> None:
    assert "GPUs: not measured (NVML Shared Library Not Found)" in broken.seen.text
    assert not (broken.root / "files" / "set1-energy.csv").exists()
    assert "Compute, of the measured ceiling: not measured (not asked for (measure.ceiling_s))" in broken.seen.text


HOSTILE = '<script>alert("x")</script><img src=http://example.org/x onerror=y>\u202e`{{7*7}}'


def test_names_and_messages_from_files_stay_text(tmp_path: Path) -> None:
    target = TARGET | {"source": HOSTILE}
    data = {"name": HOSTILE, "version": 1, "index_sha256": "ab" * 32, "target": target}
    slow = {"node_samples_per_s": {"min": 1.0, "median": 2.0, "max": 3.0}, "node_spread": 1.0, "slow_nodes": [HOSTILE]}
    write_study(tmp_path / "study", points=(1, 2), repeats=1, changes={"nodes": slow})
    for path in tmp_path.glob("study/results/*/*/*/result_*.json"):
        if ".config" not in path.name:
            content = json.loads(path.read_text())
            content["dataset"] = data  # no longer what the log says
            path.write_text(json.dumps(content))
    report([tmp_path / "study"], tmp_path / "first.html", None, None, [])
    for path in tmp_path.glob("study/results/*/*/*/result_*.txt"):
        content = json.loads(path.with_suffix(".json").read_text())
        log = path.read_text().replace('{"name": "small"', '{"name": ' + json.dumps(HOSTILE))
        path.write_text(log)
        content["log_sha256"] = hashlib.sha256(log.encode()).hexdigest()
        path.with_suffix(".json").write_text(json.dumps(content))
    report([tmp_path / "study"], tmp_path / "second.html", None, tmp_path / "files", [])
    for name in ("first", "second"):
        page = (tmp_path / f"{name}.html").read_text()
        seen = Seen(page)
        assert not seen.tags["script"]
        assert not seen.handlers
        assert not any("example" in link for link in seen.links)
        assert "\u202e" not in page
        assert "{{7*7}}" in page
        assert '<script>alert("x")</script>' in seen.text
    for path in (tmp_path / "files").glob("*.svg"):
        assert "<script" not in path.read_text()


def test_a_spreadsheet_computes_nothing_from_our_tables() -> None:
    row = (Cell("=cmd|' /C calc'!A0"), Cell("−1.0", raw=-1.0), Cell("+1"))
    table = Table("t", "", (Column("a", kind="text"), Column("b"), Column("c", kind="text")), (row,))
    assert table.csv() == "a,b,c\n'=cmd|' /C calc'!A0,-1.0,'+1\n"


def test_nothing_is_overwritten(small: Path, tmp_path: Path) -> None:
    output, folder = tmp_path / "r.html", tmp_path / "files"
    output.write_text("mine")
    with pytest.raises(UserError, match=r"r\.html: exists"):
        report([small], output, None, folder, [])
    assert output.read_text() == "mine"
    assert not folder.exists()
    folder.mkdir()
    (folder / "runs.csv").write_text("mine")
    with pytest.raises(UserError, match=r"runs\.csv: exists"):
        report([small], tmp_path / "new.html", None, folder, [])
    assert not (tmp_path / "new.html").exists()
    assert [path.name for path in folder.iterdir()] == ["runs.csv"]


def test_what_cannot_be_read_is_named(small: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no study and no result_N\.txt"):
        report([tmp_path], tmp_path / "r.html", None, None, [])
    with pytest.raises(UserError, match="gone: is not there"):
        report([tmp_path / "gone"], tmp_path / "r.html", None, None, [])
    with pytest.raises(UserError, match="cannot be written"):
        report([small], Path("/proc/none/r.html"), None, None, [])


def test_without_the_libraries_the_extra_is_named(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n.startswith(("matplotlib", "sciml_hpc.studies.report."))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("sciml_hpc.studies.report.figures", raising=False)
    monkeypatch.delattr("sciml_hpc.studies.report.content", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"pip install 'sciml_hpc\[report\]'"):
        report([small], tmp_path / "r.html", None, None, [])


def test_logs_given_by_hand(made: Made, tmp_path: Path) -> None:
    logs = sorted(made.study.glob("results/*_n4x4/*/*/result_*.txt"))
    copies = tmp_path / "given"
    shutil.copytree(logs[0].parent, copies)
    (copies / "result_2.json").write_text("{")
    said = report([copies], tmp_path / "r.html", None, tmp_path / "files", [])
    assert said[0].startswith("PARTLY VALID: 2 runs are VALID and count; 1 does not count")
    text = Seen((tmp_path / "r.html").read_text()).text
    assert "result_2.json: not JSON" in text
    assert "one size (4 nodes, 16 ranks)" in text
    again = gather([copies, copies / "result_0.txt", copies / "result_0.json"])
    assert len(again.logs) == 3  # each once


def test_the_same_study_gives_the_same_page(small: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        report([small], tmp_path / name, None, None, [])
    pages = [(tmp_path / name).read_text() for name in ("a", "b")]
    without_date = [re.sub(r"Made \d{4}-\d\d-\d\d \d\d:\d\d UTC", "", page) for page in pages]
    assert without_date[0] == without_date[1]


def judgement(**changes: object) -> dict:
    """A record of an acceptance, with one check met and one missed."""
    check = {"expected": "≥ 38 samples/s", "unit": "samples/s", "n": 3}
    checks = [
        {"name": "runs", "status": "PASS", "expected": "3 runs", "found": 3.0, "unit": "", "n": 3, "reasons": []},
        {"name": "min of samples_per_s", "status": "FAIL", "found": 37.25, "reasons": ["run <2> is slowest"], **check},
        {"name": "min of au", "status": "MISSING", "found": None, "reasons": ["metering was off"], **check},
    ]
    case = {
        "name": "work",
        "status": "FAIL",
        "fom": {"samples_per_s": 39.0},
        "checks": checks,
        "runs": [],
        "notes": ["a note"],
    }
    results = {"name": "results", "status": "PASS", "expected": "", "found": None, "unit": "", "n": 0, "reasons": []}
    contract = {"name": "Example", "file": "contract.yaml", "sha256": "ef" * 32}
    record = {"contract": contract, "status": "FAIL", "accepted": False, "results": results, "not_judged": []}
    return {**record, "cases": [case], **changes}


def test_a_contract_comes_first_and_each_commitment_has_a_line(small: Path) -> None:
    judged = of_record(judgement(), "FAIL: work: min of samples_per_s: not accepted", "FOM: work: 39")
    with rendering.style():
        page = content.page(gather([small]), judged, (), "now")
        drawn = {drawing.name: rendering.svg(drawing.figure) for drawing in page.drawings()}
    text = Seen(html.render(page, drawn)).text
    assert text.index("NOT ACCEPTED") < text.index("min of samples_per_s ≥ 38 samples/s") < text.rindex("In short")
    assert "Contract “Example”: 1 PASS, 1 FAIL, 1 MISSING." in text
    assert "37.25 samples/s 3 FAIL run <2> is slowest" in text
    assert "not measured 3 MISSING metering was off" in text
    assert "work: a note" in text
    assert "ef" * 32 in text


def test_a_contract_is_judged_by_the_acceptance_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(mllog, "time", clock)
    Vendor(tmp_path, clock).set()
    signed = tmp_path / "contract.yaml"
    for rate, word in ((38.0, "ACCEPTED"), (1e6, "NOT ACCEPTED")):
        checks = [{"metric": "samples_per_s", "stat": "min", "ge": rate, "unit": "samples/s"}]
        signed.write_text(yaml.safe_dump(contract(work=terms(checks=checks))))
        said = report([tmp_path / "handed-in"], tmp_path / f"{word}.html", signed, None, [])
        assert said[0].startswith(f"{word}: Contract “Example”")


def test_the_readme_and_the_report_define_the_same() -> None:
    text = README.read_text()
    part = text[text.index("## How each number is made") :]
    part = part[: part.index("\n## ")]
    rows = re.findall(r"^\| (.+?) \| (.+) \|$", part, re.MULTILINE)[1:]
    known = appendix.defined()
    assert [{"figure": a, "is": b} for a, b in rows] == known["run"]
    plain = " ".join(part.split())
    for rule in known["rules"]:
        assert " ".join(rule.split()) in plain


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.1)."""
    parts = (int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5))
    linear = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(a: str, b: str) -> float:
    """Contrast ratio of two colours (WCAG 2.1)."""
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_contrast() -> None:
    style = (Path(html.__file__).parent / "style.css").read_text()
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", style))
    grounds = dict(re.findall(r"\.banner\.(\w+) \{ background: (#[0-9a-f]{6})", style))
    assert grounds.keys() == {"good", "bad", "warn"}
    for tone, ground in grounds.items():
        assert contrast(colours[tone], ground) > 7
    assert contrast(colours["soft"], "#ffffff") > 7
    for colour in (*figures.INK.values(), figures.GREY):
        assert contrast(colour, "#ffffff") > 4.5  # lines need 3
    for fill, hatch in figures.FILLS:
        assert not hatch or contrast(fill, "#000000") > 7
    assert len({hatch for _, hatch in figures.FILLS}) == len(figures.FILLS) - 1
    assert contrast(figures.FILLS[0][0], figures.FILLS[-1][0]) > 3  # the two that have none


def test_a_page_of_nothing_is_still_a_page() -> None:
    page = Page("title", Banner("WORD", "", "warn"), (Section("a", "A"),))
    assert Seen(html.render(page, {})).tags["section"] == 2
