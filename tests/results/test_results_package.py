"""Packages: whole, reproducible wherever they are made, and `verify` finds what was done to them."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import scipy.stats
from correct_logs import COMMIT, DESCRIPTION, Clock, judge_each_log_once, run_writer

from sciml_hpc.benchmarks.base import Recipe
from sciml_hpc.config import RunConfig
from sciml_hpc.errors import UserError
from sciml_hpc.results import mllog, source
from sciml_hpc.results.layout import CONTENTS, SUMS
from sciml_hpc.results.package import package, verify
from sciml_hpc.results.runs import config_sha256

KIND = "cloudmask_embedded"
SET = "results/machine-4/strong/cloudmask"
OTHER = "f" * 40


@pytest.fixture(autouse=True)
def judge_a_log_once(monkeypatch) -> None:
    judge_each_log_once(monkeypatch)


@pytest.fixture
def five(write_run) -> list[Path]:
    return [write_run(KIND, seed) for seed in range(1, 6)]


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    """A package of five runs."""
    folder = tmp_path_factory.mktemp("original")
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mllog, "time", clock)
        write_run = run_writer(folder, clock)
        package([write_run(KIND, seed) for seed in range(1, 6)], folder / "package", "Centre")
    return folder / "package"


@pytest.fixture
def made(original, tmp_path) -> Path:
    """A copy of it that a test may change."""
    return Path(shutil.copytree(original, tmp_path / "package"))


def files(directory: Path) -> dict[str, bytes]:
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def sum_up(directory: Path) -> None:
    """Make the list of hashes anew, as a forger would."""
    listed = sorted((n, d) for n, d in files(directory).items() if n != SUMS)
    (directory / SUMS).write_text("".join(f"{hashlib.sha256(d).hexdigest()}  {n}\n" for n, d in listed))


def edit(path: Path, change: Callable[[dict], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content, indent=1) + "\n")


def test_a_package_of_five_runs(five, tmp_path):
    made = package(reversed(five), tmp_path / "out" / "package", "Centre")
    assert made.sets == {("machine-4", "strong", "cloudmask"): 5}
    assert made.official == (
        "package_checker 4.1.68: SUCCESS (it does not know cloudmask)",
        "repo_checker 4.1.68: SUCCESS",
    )
    assert sorted(files(made.directory)) == sorted(
        [
            SUMS,
            CONTENTS,
            "systems/machine-4.json",
            *(f"{SET}/result_{n}.{end}" for n in range(5) for end in ("txt", "json")),
            "benchmarks/cloudmask/implementations/sciml_hpc/configuration-machine-4-strong.json",
            "benchmarks/cloudmask/implementations/sciml_hpc/source.json",
        ]
    )
    assert (made.directory / SET / "result_3.txt").read_bytes() == five[3].read_bytes()
    assert hashlib.sha256((made.directory / SUMS).read_bytes()).hexdigest() == made.sha256
    assert verify(made.directory).ok
    assert verify(made.directory).sha256 == made.sha256


def test_sha256sum_reads_the_list(made):
    done = subprocess.run(["sha256sum", "--check", "--strict", SUMS], cwd=made, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert len(done.stdout.splitlines()) == len(files(made)) - 1


def test_the_statistics_are_those_of_the_runs(made):
    (content,) = json.loads((made / CONTENTS).read_text())["sets"]
    rates = [800 / (20 + seed) for seed in range(1, 6)]
    found = content["statistics"]["throughput.samples_per_s"]
    assert found["n"] == 5
    assert found["olympic_mean"] == pytest.approx(scipy.stats.trim_mean(rates, 0.2), rel=1e-11)
    low, high = scipy.stats.t.interval(0.95, 4, loc=sum(rates) / 5, scale=scipy.stats.sem(rates))
    assert (found["ci95_low"], found["ci95_high"]) == pytest.approx((low, high), rel=1e-11)
    # 7 s of staging, two epochs of 20 s + seed and two evaluations of 3 s; a millisecond for each line.
    converged = content["statistics"]["log.time_to_convergence_s"]
    assert (converged["min"], converged["median"], converged["max"]) == pytest.approx((55, 59, 63), abs=0.05)


def test_a_package_does_not_depend_on_where_and_how_it_is_made(five, tmp_path, monkeypatch):
    first = package(five, tmp_path / "a", "Centre")
    moved = tmp_path / "somewhere" / "else [1]"
    shutil.copytree(five[0].parent, moved)
    for path in moved.iterdir():
        path.rename(path.with_name(path.name.replace("result", "run")))
    monkeypatch.chdir(moved)
    second = package([Path(f"run_{n}.txt") for n in (3, 1, 4, 0, 2)], tmp_path / "b b", "Centre")
    assert second.sha256 == first.sha256
    assert files(second.directory) == files(first.directory)
    assert verify(second.directory).ok
    assert not any(str(tmp_path).encode() in content for content in files(first.directory).values())


def test_sets_of_several_benchmarks_and_sizes(write_run, tmp_path):
    runs = [write_run(KIND, seed) for seed in (1, 2)] + [write_run("uno_official", seed) for seed in (1, 2, 3)]
    runs += [write_run(KIND, seed, scaling="weak") for seed in (1, 2)]
    made = package(runs, tmp_path / "package", "Centre")
    assert list(made.sets.values()) == [2, 3, 2]
    assert verify(made.directory).ok


def test_the_source_is_included_when_it_is_what_ran(write_run, tmp_path):
    code = {"commit": None, "version": "sciml_hpc 1.0", "dirty": None, "source_sha256": source.sha256()}
    runs = [write_run(KIND, seed, code=code) for seed in (1, 2)]
    made = package(runs, tmp_path / "package", "Centre")
    (archive,) = made.directory.rglob("source.tar")
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == source.sha256()
    with tarfile.open(archive) as tar:
        assert "sciml_hpc/results/source.py" in tar.getnames()
        assert {(entry.mtime, entry.uid, entry.uname) for entry in tar} == {(0, 0, "")}
    assert verify(made.directory).ok
    archive.write_bytes(archive.read_bytes().replace(b"olympic", b"optimal"))
    sum_up(made.directory)
    assert any("is not the code that the runs were made with" in finding for finding in verify(made.directory).findings)


def test_the_hash_of_a_configuration_is_that_of_the_run():
    config = RunConfig(benchmark="cloudmask", preset="tiny", dataset="tiny", seed=3, train=Recipe(base_lr=1 / 3))
    written = json.loads(json.dumps(config.model_dump(mode="json")))
    assert config_sha256(written) == config.sha256()


# What is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"verdict": "INVALID", "reasons": ["target not met"]}, "is INVALID: target not met"),
        ({"log_sha256": "0" * 64}, "not the one that the record names"),
        ({"config": {"seed": 6, "train": {"base_lr": 1.0}}}, "configuration is not the one|base_lr of the recipe"),
        ({"seed": 7}, "seed is 6 in the log, 7 in the record"),
        ({"dataset": {"name": "small", "index_sha256": "0" * 64}}, "data set is .* in the log"),
        ({"code": {"commit": OTHER, "version": "sciml_hpc 1.0", "dirty": False}}, "another commit"),
        ({"code": {"commit": COMMIT, "version": "sciml_hpc 1.0", "dirty": True}}, "its code is not known"),
        ({"time": {"time_to_convergence_s": 1.0}}, "time_to_convergence_s is 1.0 in the record"),
        ({"system": {"name": "machine-4"}}, "another system description"),
        ({"system": {"name": "a/../b"}}, "system.name"),
        ({"scaling": "sideways"}, "scaling"),
        ({"schema": "another/1"}, "schema"),
    ],
)
def test_a_run_that_cannot_be_packaged_is_named(five, write_run, tmp_path, changes, message):
    sixth = write_run(KIND, 6, **changes)
    with pytest.raises(UserError, match=message) as refused:
        package([*five, sixth], tmp_path / "package", "Centre")
    assert "result_5" in str(refused.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["runs"]


def test_equal_seeds_are_refused(five, write_run, tmp_path):
    with pytest.raises(UserError, match=r"result_5\.txt has the seed of .*result_1\.txt, 2"):
        package([*five, write_run(KIND, 2)], tmp_path / "package", "Centre")


def test_another_cache_state_or_size_does_not_belong(five, write_run, tmp_path):
    run = write_run(KIND, 6)
    run.write_bytes(run.read_bytes().replace(b'"number_of_nodes", "value": 4', b'"number_of_nodes", "value": 8'))
    digest = hashlib.sha256(run.read_bytes()).hexdigest()
    edit(
        run.with_suffix(".json"),
        lambda r: (r.update(log_sha256=digest), r["job"].update(nodes=8, hosts=list("abcdefgh"))),
    )
    with pytest.raises(UserError, match=r"result_5\.txt has another number_of_nodes than .*result_0"):
        package([*five, run], tmp_path / "package", "Centre")


def test_systems_that_differ_need_different_names(five, write_run, tmp_path):
    smaller = {"name": "machine-4", **DESCRIPTION, "groups": [{**DESCRIPTION["groups"][0], "software": {}}]}
    runs = [write_run("uno_official", 1, system=smaller)]
    with pytest.raises(UserError, match="systems that differ, if only in size, need different names"):
        package([*five, *runs], tmp_path / "package", "Centre")


def test_a_package_holds_one_commit(five, write_run, tmp_path):
    code = {"commit": OTHER, "version": "sciml_hpc 1.0", "dirty": False}
    with pytest.raises(UserError, match="is of another commit than"):
        package([*five, write_run("uno_official", 1, code=code)], tmp_path / "package", "Centre")


def test_nothing_is_overwritten(made, five):
    before = files(made)
    with pytest.raises(UserError, match="exists"):
        package(five, made, "Centre")
    assert files(made) == before


def test_other_mistakes_of_the_user(five, tmp_path):
    with pytest.raises(UserError, match="at least one"):
        package([], tmp_path / "package", "Centre")
    with pytest.raises(UserError, match="'A Centre': must be letters"):
        package(five, tmp_path / "package", "A Centre")
    with pytest.raises(UserError, match="is a run of Centre, not of Vendor"):
        package(five, tmp_path / "package", "Vendor")
    with pytest.raises(UserError, match=r"nowhere\.txt: cannot be read"):
        package([tmp_path / "nowhere.txt"], tmp_path / "package", "Centre")
    with pytest.raises(UserError, match="is no package"):
        verify(tmp_path)


# Tampering, first by somebody who leaves the list of hashes alone, then by one who makes it anew


def flip_a_bit(made):
    path = made / SET / "result_2.txt"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)


def remove_a_run(made):
    for end in ("txt", "json"):
        (made / SET / f"result_2.{end}").unlink()


def add_a_file(made):
    (made / SET / "notes.md").write_text("by hand\n")


def put_a_link(made):
    path = made / SET / "result_2.json"
    shutil.copy(path, made.parent / "aside.json")
    path.unlink()
    path.symlink_to(made.parent / "aside.json")


def add_a_directory(made):
    (made / "results" / "machine-5").mkdir()


def swap_two_runs(made):
    for end in ("txt", "json"):
        first, second = made / SET / f"result_1.{end}", made / SET / f"result_2.{end}"
        content = first.read_bytes()
        first.write_bytes(second.read_bytes())
        second.write_bytes(content)


def foreign_run(**changes):
    def replace_a_run(made, write_run):
        run = write_run(KIND, 6, folder="foreign", **changes)
        for end in ("txt", "json"):
            shutil.copy(run.with_suffix(f".{end}"), made / SET / f"result_4.{end}")

    return replace_a_run


def other_config():
    config = {"benchmark": "cloudmask", "seed": 6, "train": {"global_batch": 64, "base_lr": 1e-3, "dropout": 0.1}}
    return {"config": config, "config_sha256": config_sha256(config)}


def copy_a_run(made):
    for end in ("txt", "json"):
        shutil.copy(made / SET / f"result_1.{end}", made / SET / f"result_5.{end}")


def better_statistics(made):
    edit(made / CONTENTS, lambda c: c["sets"][0]["statistics"]["throughput.samples_per_s"].update(olympic_mean=50.0))


def better_record(made):
    edit(made / SET / "result_1.json", lambda r: r["time"].update(time_to_convergence_s=10.0))


def better_rate(made):
    """In the record, whose hash stands nowhere but in the list: it is the epochs that say otherwise."""
    edit(made / SET / "result_1.json", lambda r: r["throughput"].update(samples_per_s=99.0))


def better_metric(made):
    log = made / SET / "result_1.txt"
    log.write_bytes(log.read_bytes().replace(b'"value": 0.96', b'"value": 0.94'))
    digest = hashlib.sha256(log.read_bytes()).hexdigest()
    edit(log.with_suffix(".json"), lambda r: r.update(log_sha256=digest))


def better_log(made):
    log = made / SET / "result_1.txt"
    log.write_bytes(log.read_bytes().replace(b'"time_ms": 17000', b'"time_ms": 16000', 30))


def better_system(made):
    edit(made / "systems" / "machine-4.json", lambda s: s.update(accelerator_model_name="a slower one"))


def fewer_runs_declared(made):
    edit(made / CONTENTS, lambda c: c["sets"][0].update(n=4))


def no_contents(made):
    (made / CONTENTS).write_text("[]")


def malformed_record(made):
    (made / SET / "result_1.json").write_text('{"schema": NaN}')


@pytest.mark.parametrize(
    ("tamper", "forge", "finding"),
    [
        (flip_a_bit, False, f"changed: {SET}/result_2.txt"),
        (remove_a_run, False, f"missing: {SET}/result_2.txt"),
        (add_a_file, False, f"extra: {SET}/notes.md is not listed"),
        (put_a_link, False, f"extra: {SET}/result_2.json is not a regular file"),
        (add_a_directory, False, "extra: results/machine-5 is an empty directory"),
        (flip_a_bit, True, "not the one that the record names"),
        (remove_a_run, True, f"run missing: {SET}/result_2.txt; the set has 4 of 5 runs"),
        (add_a_file, True, f"extra: {SET}/notes.md belongs to no run"),
        (swap_two_runs, True, f"should be {SET}/result_2.txt by its record and its time"),
        (copy_a_run, True, "has the seed of"),
        (foreign_run(code={"commit": OTHER, "version": "sciml_hpc 1.0", "dirty": False}), True, "another commit"),
        (foreign_run(**other_config()), True, "another configuration"),
        (foreign_run(system={"name": "machine-8", **DESCRIPTION}), True, "should be results/machine-8"),
        (foreign_run(dataset={"name": "small", "index_sha256": "0" * 64}), True, "another data hash"),
        (foreign_run(verdict="INVALID", reasons=["lost rank"]), True, "is INVALID: lost rank"),
        (better_statistics, True, "does not follow from the runs: package.json, line"),
        (better_rate, True, "throughput.samples_per_s is 99.0 in the record; it follows that it is 36.36"),
        (better_record, True, "time.time_to_convergence_s is 10.0 in the record"),
        (better_metric, True, "ending: .*the target was never met"),
        (better_log, True, "the log is not the one that the record names"),
        (better_system, True, "does not follow from the runs: systems/machine-4.json"),
        (fewer_runs_declared, True, "run extra: machine-4/strong/cloudmask has 5 of 4 runs"),
        (no_contents, True, "package.json cannot be read"),
        (malformed_record, True, "not JSON: NaN is no number"),
    ],
    ids=lambda value: {True: "hashes_made_anew", False: "hashes_left"}.get(value) or getattr(value, "__name__", None),
)
def test_verify_finds_tampering(made, write_run, tamper, forge, finding):
    tamper(made, write_run) if tamper.__name__ == "replace_a_run" else tamper(made)
    if forge:
        sum_up(made)
    found = verify(made)
    assert not found.ok
    assert any(re.search(finding, line) for line in found.findings), found.lines()
