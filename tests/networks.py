"""Every network there is, with a few samples of what it is trained on."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch

from sciml_hpc import benchmarks
from sciml_hpc.benchmarks.base import Benchmark
from sciml_hpc.config import resolve
from sciml_hpc.manifest import load_manifest
from sciml_hpc.plan import generator_of


def networks() -> list[Any]:
    """Parameters (class, name of the model) of all benchmarks and tasks; the name is empty where there is one model."""
    found = []
    for name in benchmarks.names():
        for kind in benchmarks.classes(name):
            field = kind.Recipe.model_fields.get("model")
            for model in get_args(field.annotation) if field else ("",):
                found.append(pytest.param(kind, model, id=" ".join(filter(None, (kind.name, kind.task, model)))))
    return found


def samples(kind: type[Benchmark], model: str) -> tuple[Benchmark, dict[str, torch.Tensor]]:
    """A benchmark at `tiny`, and its first four training samples."""
    config, _ = resolve(kind, preset="tiny", assignments=[f"train.model={model}"] if model else [])
    entry = load_manifest()[config.dataset]
    source = kind.simulator(generator_of(kind, config.dataset, entry), entry.samples, entry.origin.seed)
    batch = {name: torch.from_numpy(values) for name, values in source.read("train", 0, 4).items()}
    return kind(config.train, source.fields), batch
