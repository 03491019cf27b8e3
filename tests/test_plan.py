"""What a run will do: batches per rank, weak scaling, and what is refused before anything is spent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy import entry, write_manifest

from sciml_hpc import manifest
from sciml_hpc.errors import UserError
from sciml_hpc.plan import Request, generator_of, grown, settle, source_of

pytest_plugins = ["toy_fixtures"]


@pytest.fixture
def request_(toy, toy_manifest):
    def make(*assignments: str, **more: Any) -> Request:
        return Request("toy", **({"manifest": toy_manifest} | more), assignments=list(assignments))

    return make


def test_on_one_rank_it_is_the_preset(request_, toy):
    settled = settle(request_(), 1)
    assert (settled.local_batch, settled.global_batch, settled.notes) == (16, 16, ())
    assert settled.dataset_name == "toy-tiny"
    assert settled.benchmark() is toy
    assert not settled.shipped


@pytest.mark.parametrize(("ranks", "local"), [(1, 16), (2, 8), (4, 4), (16, 1)])
def test_the_global_batch_is_shared_evenly(request_, ranks: int, local: int):
    settled = settle(request_(), ranks)
    assert (settled.local_batch, settled.global_batch, settled.notes) == (local, 16, ())


@pytest.mark.parametrize(("ranks", "local"), [(3, 6), (5, 4), (12, 2), (33, 1)])
def test_a_presets_batch_is_rounded_up_with_a_note(request_, ranks: int, local: int):
    settled = settle(request_(), ranks)
    assert (settled.local_batch, settled.global_batch) == (local, local * ranks)
    assert settled.notes == (
        f"global batch is {local * ranks}, not the preset's 16, to be shared evenly by {ranks} ranks",
    )


@pytest.mark.parametrize(
    ("batch", "ranks", "possible"), [(16, 3, "15 or 18"), (100, 7, "98 or 105"), (2, 5, "next possible: 5$")]
)
def test_a_batch_the_user_set_is_not_changed(request_, batch: int, ranks: int, possible: str):
    with pytest.raises(UserError, match=f"train.global_batch={batch} cannot be shared evenly by {ranks} .*{possible}"):
        settle(request_(f"train.global_batch={batch}"), ranks)


def test_weak_scaling_grows_samples_and_batch_with_the_ranks(request_):
    one, three = (settle(request_(options={"scaling": "weak"}), n) for n in (1, 3))
    assert (one.local_batch, one.global_batch, one.dataset_name) == (16, 16, "toy-tiny")
    assert (three.local_batch, three.global_batch, three.dataset_name) == (16, 48, "toy-tiny-x3")
    assert three.dataset.samples == {"train": 609, "validation": 111}
    assert three.dataset.fingerprint() != one.dataset.fingerprint()
    assert three.notes == ("weak scaling: 3 times the samples of toy-tiny, 16 a batch per rank",)
    assert three.config == one.config  # one experiment, one hash


def test_a_grown_data_set_forgets_the_checksum_of_the_other():
    data = manifest.Dataset.model_validate(entry() | {"index_sha256": "0" * 64, "bytes": 5})
    assert (grown(data, 3).index_sha256, grown(data, 3).bytes) == (None, 15)
    assert grown(manifest.Dataset.model_validate(entry()), 3).bytes is None


@pytest.mark.parametrize(
    ("more", "ranks", "parts"),
    [
        ({"dataset": "toy-tyny"}, 1, ["unknown data set 'toy-tyny'", "did you mean 'toy-tiny'?"]),
        ({"dataset": "other"}, 1, ["data set other belongs to benchmark uno, not to toy", "toy-tiny"]),
        ({"dataset": "tasked"}, 1, ["data set tasked is for task 'forecast' of toy; this run's is ''"]),
        ({"dataset": "odd"}, 1, ["datasets.odd.origin.parameters: unknown field 'noize'", "did you mean 'noise'?"]),
        ({"task": "forecast"}, 1, ["benchmark toy has no task 'forecast'; it has one task only"]),
        ({}, 38, ["37 samples in validation, fewer than the 38 ranks"]),
        ({"dataset": "few"}, 1, ["data set few has 15 training samples, less than one global batch of 16"]),
    ],
)
def test_what_does_not_fit_is_refused(request_, tmp_path: Path, more: dict[str, Any], ranks: int, parts: list[str]):
    odd = write_manifest(
        tmp_path / "odd.yaml",
        other=entry() | {"benchmark": "uno"},
        tasked=entry() | {"task": "forecast"},
        odd=entry(noize=1),
        few=entry({"train": 15, "validation": 3}),
    )
    with pytest.raises(UserError) as caught:
        settle(request_(manifest=odd, **more), ranks)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_an_unknown_benchmark():
    with pytest.raises(UserError, match=r"unknown benchmark 'unoo' \(did you mean 'uno'\?\); there are: "):
        settle(Request("unoo"), 1)


def test_a_shipped_data_set_is_known_as_such(request_, toy_manifest, monkeypatch):
    monkeypatch.setattr(manifest, "shipped_manifest", lambda: toy_manifest)
    assert settle(request_(manifest=None), 1).shipped


def test_the_source_of_simulated_and_of_published_samples(request_, toy, tmp_path):
    settled = settle(request_(), 1)
    simulated = source_of(toy, "toy-tiny", settled.dataset, tmp_path)
    assert simulated.samples == settled.dataset.samples

    files = {"kind": "files", "path": "published", "get": "fetch toy"}
    published = manifest.Dataset.model_validate(entry() | {"origin": files})
    with pytest.raises(UserError, match=r"published does not exist\). A centre gets it with:\n  fetch toy"):
        source_of(toy, "p", published, tmp_path)
    (tmp_path / "published").mkdir()
    toy.write_native(tmp_path / "published", generator_of(toy, "x", settled.dataset), {"train": 9, "validation": 2}, 7)
    with pytest.raises(UserError, match=r"(?s)data set p: .*'train': 9.*not .*203.*fetch toy"):
        source_of(toy, "p", published, tmp_path)
    toy.write_native(tmp_path / "published", generator_of(toy, "x", settled.dataset), settled.dataset.samples, 7)
    there = source_of(toy, "p", published, tmp_path)
    for name, array in there.read("validation", 3, 4).items():
        assert np.array_equal(array, simulated.read("validation", 3, 4)[name])
