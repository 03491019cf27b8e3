"""The manifest: what a malformed one says, and what the fingerprint of a data set stands for."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from toy import dataset, entry, write_manifest

from sciml_hpc import benchmarks, manifest
from sciml_hpc.errors import UserError
from sciml_hpc.manifest import Dataset, load_manifest, select, shipped_manifest


def load(path: Path, content: Any) -> str:
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    with pytest.raises(UserError) as caught:
        load_manifest(path)
    return str(caught.value)


def test_the_shipped_manifest_is_found_and_right():
    assert shipped_manifest().name == "datasets.yaml"
    for name, data in load_manifest().items():
        kinds = {kind.task: kind for kind in benchmarks.classes(data.benchmark)}
        kinds[data.task].Generator.model_validate(data.origin.parameters)
        assert name == name.lower()


def test_a_centres_own_file_adds_to_it(tmp_path):
    path = write_manifest(tmp_path / "own.yaml")
    found = load_manifest(path)
    assert set(found) == {*load_manifest(), "toy-tiny", "toy-small"}
    assert found["toy-tiny"] == dataset()
    assert found["toy-tiny"].target.as_target().met(0.02)


def test_a_date_is_what_was_written(tmp_path):
    """Unquoted, as a user writes it; the entry's hash and its records are JSON, which has no dates."""
    path = write_manifest(tmp_path / "own.yaml", own=entry(start="DATE"))
    template = path.read_text()
    hashes = set()
    for written in ("1990-01-02", "'1990-01-02'"):
        path.write_text(template.replace("DATE", written))
        found = load_manifest(path)["own"]
        assert found.origin.parameters == {"start": "1990-01-02"}
        hashes.add(found.fingerprint())
    assert len(hashes) == 1


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("datasets: {a: [1", ["own.yaml: not YAML"]),
        ("datasets: !!python/object/apply:os.getcwd []", ["own.yaml: not YAML"]),
        ("- a", ["own.yaml: must have one top-level field 'datasets'", "found list"]),
        ("", ["own.yaml: must have one top-level field 'datasets'", "found NoneType"]),
        ("dataset: {}", ["own.yaml: must have one top-level field 'datasets'", "found dataset"]),
        ("datasets: [a]", ["own.yaml: must have one top-level field 'datasets'"]),
        ("datasets: {}\nmore: 3", ["own.yaml: must have one top-level field 'datasets'", "more"]),
        ("datasets: {a: null}", ["own.yaml: datasets.a: ", "None"]),
        ("datasets: {a: 3}", ["own.yaml: datasets.a: ", "3"]),
    ],
)
def test_malformed_file(tmp_path, content: str, parts: list[str]):
    text = load(tmp_path / "own.yaml", content)
    assert all(part in text for part in parts), text


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match=r"none\.yaml: cannot be read"):
        load_manifest(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UserError, match=r"binary\.yaml: cannot be read"):
        load_manifest(tmp_path / "binary.yaml")


def changed(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """A good entry with one field changed; removed if `value` is ...; see `entry`."""
    content = copy.deepcopy(entry())
    part = content
    for name in path[:-1]:
        part = part[name]
    if value is ...:
        del part[path[-1]]
    else:
        part[path[-1]] = value
    return content


@pytest.mark.parametrize(
    ("path", "value", "parts"),
    [
        (("licence",), ..., ["field 'licence' is missing"]),
        (("benchmark",), ..., ["field 'benchmark' is missing"]),
        (("target",), ..., ["field 'target' is missing"]),
        (("target", "metric"), ..., ["field 'target.metric' is missing"]),
        (("target", "direction"), "up", ["target.direction: found 'up'", "'max' or 'min'"]),
        (("version",), "one", ["version: found 'one'", "integer"]),
        (("version",), 0, ["version: found 0", "greater than or equal to 1"]),
        (("licenses",), "x", ["unknown field 'licenses' (did you mean 'licence'?)", "allowed: benchmark, task"]),
        (
            ("target", "metrik"),
            "x",
            ["unknown field 'target.metrik' (did you mean 'metric'?)", "allowed: metric, direction"],
        ),
        (
            ("origin", "sead"),
            3,
            ["unknown field 'origin.simulator.sead' (did you mean 'seed'?)", "allowed: kind, seed"],
        ),
        (("origin", "kind"), "web", ["'web'", "'simulator', 'files'"]),
        (("origin", "seed"), -1, ["origin.simulator.seed: found -1"]),
        (("samples",), {"train": 5}, ["samples: found {'train': 5}", "'validation'"]),
        (("samples",), {"train": 5, "validation": 0}, ["samples.validation: found 0", "greater than 0"]),
        (("samples",), {"train": 5, "validation": 1, "dev": 1}, ["'dev'", "'train', 'validation' or 'test'"]),
        (("shard_bytes",), 100, ["shard_bytes: found 100", "4096"]),
        (("index_sha256",), "abc", ["index_sha256: found 'abc'"]),
    ],
)
def test_malformed_entry(tmp_path, path: tuple[str, ...], value: Any, parts: list[str]):
    text = load(tmp_path / "own.yaml", {"datasets": {"good": entry(), "bad": changed(path, value)}})
    assert text.startswith(f"{tmp_path / 'own.yaml'}: datasets.bad: "), text
    assert len(text.splitlines()) == 1, text
    assert all(part in text for part in parts), text


@pytest.mark.parametrize("name", ["../evil", "a/b", ".hidden", "a b", ""])
def test_a_name_becomes_a_directory_so_it_is_a_plain_word(tmp_path, name: str):
    assert repr(name) in load(tmp_path / "own.yaml", {"datasets": {name: entry()}})


def test_a_shipped_name_cannot_mean_something_else(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "shipped_manifest", lambda: write_manifest(tmp_path / "shipped.yaml"))
    assert "datasets.toy-small: that name belongs to the shipped manifest" in load(
        tmp_path / "own.yaml", {"datasets": {"toy-small": entry(seed=8)}}
    )


def test_choosing_a_data_set():
    sets = {"a-tiny": dataset(), "b-tiny": dataset().model_copy(update={"benchmark": "b"})}
    assert select(sets, "a-tiny", "toy") is sets["a-tiny"]
    with pytest.raises(UserError, match=r"unknown data set 'a-tyny' \(did you mean 'a-tiny'\?\); there are: a-tiny$"):
        select(sets, "a-tyny", "toy")
    with pytest.raises(UserError, match="b-tiny belongs to benchmark b, not to toy; those of toy are: a-tiny"):
        select(sets, "b-tiny", "toy")


SAME = [("licence", "other"), ("citation", "other"), ("format", "other"), ("bytes", 7), ("target", None)]


@pytest.mark.parametrize(("field", "value"), SAME)
def test_the_fingerprint_does_not_hang_on_words(field: str, value: Any):
    content = entry() | {field: value}
    if field == "target":
        content[field] = entry()["target"] | {"value": 0.5}
    assert Dataset.model_validate(content).fingerprint() == dataset().fingerprint()


def test_the_fingerprint_changes_with_whatever_changes_the_samples():
    files = {"kind": "files", "path": "p", "get": "g", "seed": 7}
    variants = [
        entry(),
        entry(seed=8),
        entry(noise=0.2),
        entry(noise=0.3),
        entry(shard_bytes=8192),
        entry({"train": 203, "validation": 38}),
        entry({"train": 204, "validation": 37}),
        entry({"train": 203, "validation": 37, "test": 1}),
        entry() | {"benchmark": "other"},
        entry() | {"task": "other"},
        entry() | {"version": 2},
        entry() | {"origin": files},
        entry() | {"origin": {**files, "seed": 8}},
    ]
    prints = [Dataset.model_validate(v).fingerprint() for v in variants]
    assert len(set(prints)) == len(variants)
    assert all(len(p) == 64 for p in prints)


def test_the_fingerprint_does_not_change_with_the_order_of_splits_or_the_place_of_the_files():
    turned = entry({"validation": 37, "train": 203})
    assert Dataset.model_validate(turned).fingerprint() == dataset().fingerprint()
    files = {"kind": "files", "path": "p", "get": "g"}
    moved = {**files, "path": "/elsewhere", "get": "h"}
    one, two = (Dataset.model_validate(entry() | {"origin": o}).fingerprint() for o in (files, moved))
    assert one == two
