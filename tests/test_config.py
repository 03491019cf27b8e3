"""The configuration: what wins over what, what every mistake says, and what the hash stands for."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel
from toy import clean_environment

from sciml_hpc.benchmarks.base import Recipe
from sciml_hpc.config import RunConfig, describe_keys, resolve
from sciml_hpc.errors import UserError

pytest_plugins = ["toy_fixtures"]


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def mistake(toy: Any, **given: Any) -> str:
    with pytest.raises(UserError) as caught:
        resolve(toy, **given)
    return str(caught.value)


def test_without_anything_it_is_the_tiny_preset(toy):
    config, given = resolve(toy)
    assert given == frozenset()
    assert (config.benchmark, config.preset, config.dataset, config.seed) == ("toy", "tiny", "toy-tiny", 1)
    assert isinstance(config.train, toy.Recipe)
    assert (config.train.global_batch, config.train.base_lr, config.train.schedule) == (16, 0.05, "constant")


def test_preset_then_file_then_set_then_option(toy, tmp_path):
    file = write(tmp_path / "c.yaml", {"train": {"epochs": 11, "global_batch": 22, "min_lr": 0.5}, "seed": 33})
    sets = ["train.epochs=111", "train.global_batch=222", "loader.threads=3"]
    config, given = resolve(toy, file=file, assignments=sets, options={"train.epochs": 1111, "seed": None})
    assert config.train.epochs == 1111  # all four
    assert config.train.global_batch == 222  # preset, file, --set
    assert config.train.min_lr == 0.5  # file
    assert config.seed == 33  # file; the option was not given
    assert config.train.base_lr == 0.05  # preset
    assert config.loader.threads == 3
    assert given == {"train.epochs", "train.global_batch", "train.min_lr", "seed", "loader.threads"}


def test_threads_that_read_leave_cores_that_compute_alone_but_not_those_beside_a_gpu(toy):
    config = resolve(toy, assignments=["loader.prefetch=5"])[0].loader
    assert (config.threads_beside("cpu"), config.threads_beside("cuda")) == (1, 5)
    config = resolve(toy, assignments=["loader.threads=3"])[0].loader
    assert (config.threads_beside("cpu"), config.threads_beside("cuda")) == (3, 3)


def test_the_last_of_two_assignments_wins(toy):
    assert resolve(toy, assignments=["seed=3", "seed=4"])[0].seed == 4


def test_preset_and_dataset_of_a_file_give_way_to_the_options(toy, tmp_path):
    file = write(tmp_path / "c.yaml", {"preset": "small", "dataset": "from-file"})
    config, _ = resolve(toy, file=file)
    assert (config.preset, config.dataset, config.train.global_batch) == ("small", "from-file", 64)
    config, _ = resolve(toy, file=file, preset="tiny", dataset="from-option")
    assert (config.preset, config.dataset, config.train.global_batch) == ("tiny", "from-option", 16)
    config, _ = resolve(toy, assignments=["preset=small"])
    assert (config.preset, config.dataset) == ("small", "toy-small")


def test_a_presets_changes_for_one_model_apply_to_that_model_and_yield_to_the_user(toy):
    assert resolve(toy, assignments=["train.model=conv"])[0].train.base_lr == 0.01
    assert resolve(toy, assignments=["train.model=conv", "train.base_lr=0.3"])[0].train.base_lr == 0.3


def test_a_saved_configuration_gives_the_same_run_again(toy, tmp_path):
    before, _ = resolve(toy, preset="small", assignments=["train.dropout=0.25", "staging.mode=replicate"])
    file = tmp_path / "c.yaml"
    file.write_text(json.dumps(before.model_dump(mode="json")))
    after, _ = resolve(toy, file=file)
    assert after == before
    assert after.sha256() == before.sha256()


def test_numbers_in_the_usual_spellings(toy):
    assert resolve(toy, assignments=["train.base_lr=1e-3"])[0].train.base_lr == 1e-3
    assert resolve(toy, assignments=["train.warmup_from=null"])[0].train.warmup_from is None


# --- mistakes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("assignment", "parts"),
    [
        (
            "train.epoch=3",
            [
                "--set train.epoch=3: unknown key 'train.epoch'",
                "did you mean 'train.epochs'?",
                "allowed: ",
                "staging.mode",
            ],
        ),
        ("epochs=3", ["--set epochs=3: unknown key 'epochs'", "train.epochs"]),
        ("train.epochs=three", ["--set train.epochs=three", "epochs: found 'three'", "integer"]),
        ("train.epochs=0", ["--set train.epochs=0", "epochs: found 0", "greater than 0"]),
        ("train.optimizer=adm", ["--set train.optimizer=adm", "'adm'", "'adam', 'adamw', 'adamax' or 'sgd'"]),
        (
            "staging.mode=copy",
            ["--set staging.mode=copy", "staging.mode: found 'copy'", "'partition', 'replicate' or 'none'"],
        ),
        ("train.model=transformer", ["'transformer'", "'linear' or 'conv'"]),
        ("seed=-1", ["--set seed=-1", "seed: found -1", "greater than or equal to 0"]),
        ("train.base_lr=.nan", ["--set train.base_lr=.nan", "nan"]),
        ("train.base_lr=.inf", ["--set train.base_lr=.inf", "inf", "finite"]),
        ("train.epochs", ["--set train.epochs: must have the form key=value"]),
        ("=3", ["--set =3: must have the form key=value"]),
        ("train.epochs=[1", ["--set train.epochs=[1: the value is not YAML"]),
        ("train={epochs: 3}", ["--set train={epochs: 3}: unknown key 'train'"]),
        ("staging=null", ["--set staging=null: unknown key 'staging'"]),
        ("preset=huge", ["no preset 'huge'", "it has: tiny, small"]),
        ("preset=[tiny]", ["no preset", "it has: tiny, small"]),
        ("preset=smal", ["did you mean 'small'?"]),
        ("benchmark=uno", ["--set benchmark=uno: benchmark is 'uno', but the command runs 'toy'"]),
        ("dataset=[a]", ["--set dataset=[a]", "dataset: found ['a']", "string"]),
    ],
)
def test_a_mistake_in_set_is_named(toy, assignment: str, parts: list[str]):
    text = mistake(toy, assignments=[assignment])
    assert all(part in text for part in parts), text


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("train: {epochs: -3}", ["c.yaml: train.epochs: found -3", "greater than 0"]),
        ("trian: {epochs: 3}", ["c.yaml: unknown key 'trian.epochs'", "did you mean 'train.epochs'?"]),
        ("train: {epochs: 3", ["c.yaml: not YAML"]),
        ("- 1\n- 2", ["c.yaml: must be a mapping of configuration keys; found list"]),
        ("", ["c.yaml: must be a mapping of configuration keys; found NoneType"]),
        ("1: 2", ["c.yaml: unknown key '1'"]),
        ("train: {epochs: !!python/object/apply:os.getcwd []}", ["c.yaml: not YAML"]),
    ],
)
def test_a_mistake_in_a_file_is_named(toy, tmp_path, content: str, parts: list[str]):
    text = mistake(toy, file=write(tmp_path / "c.yaml", content))
    assert all(part in text for part in parts), text


def test_a_file_that_cannot_be_read(toy, tmp_path):
    assert "nowhere.yaml: cannot be read: " in mistake(toy, file=tmp_path / "nowhere.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x81")
    assert "binary.yaml: cannot be read: " in mistake(toy, file=tmp_path / "binary.yaml")


def test_a_mistake_in_an_option_and_several_at_once(toy, tmp_path):
    assert mistake(toy, options={"train.epochs": -1}).startswith("command line: train.epochs: found -1; ")
    file = write(tmp_path / "c.yaml", {"train": {"epochs": "x"}})
    text = mistake(toy, file=file, assignments=["train.dropout=2"])
    assert len(text.splitlines()) == 2
    assert "c.yaml" in text
    assert "--set train.dropout=2" in text


# --- the hash ------------------------------------------------------------------------------------------------------


def test_the_hash_is_the_same_for_repeats_and_in_another_process(toy):
    first = resolve(toy, options={"seed": 1})[0].sha256()
    assert first == resolve(toy, options={"seed": 2})[0].sha256()
    assert len(first) == 64
    code = (
        "from sciml_hpc import benchmarks; import toy; benchmarks.__path__.append(toy.FOLDER)\n"
        "from sciml_hpc.config import resolve; print(resolve(benchmarks.find('toy'))[0].sha256())"
    )
    environment = clean_environment(PYTHONHASHSEED="7")
    environment["PYTHONPATH"] += f":{Path(__file__).parent}"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == first


def other_value(value: Any, annotation: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value / 2 if value else 0.5
    if value is None:
        return 3 if int in annotation.__args__ else 0.125
    return next(choice for choice in annotation.__args__ if choice != value)


def test_the_hash_depends_on_every_key_but_the_seed(toy):
    base = resolve(toy)[0]
    content = base.model_dump()
    changed = set()
    for key, _, _ in describe_keys(toy):
        section, _, name = key.rpartition(".")
        part = getattr(base, section) if section else base
        annotation = type(part).model_fields[name].annotation
        other = other_value(content[section][name] if section else content[name], annotation)
        if resolve(toy, options={key: other})[0].sha256() != base.sha256():
            changed.add(key)
    assert changed == {key for key, _, _ in describe_keys(toy)} - {"seed"}
    assert resolve(toy, dataset="other")[0].sha256() != base.sha256()
    assert resolve(toy, preset="small", dataset="toy-tiny")[0].sha256() != base.sha256()


# --- describe_keys -------------------------------------------------------------------------------------------------


def leaves(model: Any, prefix: str = "") -> set[str]:
    found = set()
    for name in type(model).model_fields:
        value = getattr(model, name)
        found |= leaves(value, f"{prefix}{name}.") if isinstance(value, BaseModel) else {f"{prefix}{name}"}
    return found


def test_all_keys_are_described_and_can_be_set(toy):
    config = resolve(toy)[0]
    rows = {key: (default, meaning) for key, default, meaning in describe_keys(toy)}
    assert set(rows) == leaves(config) - {"benchmark", "task", "preset", "dataset"}
    assert all(meaning for key, (_, meaning) in rows.items() if key != "train.model"), rows
    assert rows["train.dropout"][0] == "0.0"
    for key in rows:
        section, _, name = key.rpartition(".")
        value = getattr(getattr(config, section) if section else config, name)
        text = "null" if value is None else json.dumps(value)
        assert resolve(toy, assignments=[f"{key}={text}"])[0] == config


def test_a_configuration_is_frozen_and_writes_as_json(toy):
    config = resolve(toy)[0]
    with pytest.raises(Exception, match="frozen"):
        config.seed = 3
    assert json.loads(json.dumps(config.model_dump(mode="json"), allow_nan=False))["train"]["dropout"] == 0.0
    assert isinstance(config, RunConfig)
    assert isinstance(config.train, Recipe)
    assert math.isfinite(config.train.base_lr)
