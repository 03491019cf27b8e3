"""Sets of runs as a vendor hands them in: logs of `results/correct_logs.py` with whole records beside them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from results.correct_logs import COMMIT, DESCRIPTION, INDEX, Clock, Kind, measured, record_of, write

from sciml_hpc.benchmarks import find
from sciml_hpc.config import resolve
from sciml_hpc.results.runs import config_sha256

WORK = Kind("cloudmask", "accuracy", "max", None, (0.5, 0.6, 0.65))
TARGET = Kind("cloudmask", "accuracy", "max", 0.9, (0.85, 0.92))
GOAL = {"metric": "accuracy", "direction": "max", "value": 0.9}


class Vendor:
    """Makes runs below a directory, one after the other, each under the next free number of its folder."""

    def __init__(self, root: Path, clock: Clock) -> None:
        self.root, self.clock = root, clock

    def run(
        self,
        seed: int,
        kind: Kind = WORK,
        *,
        folder: str = "handed-in",
        epoch_s: float = 20.0,
        nodes: int = 4,
        hosts: tuple[str, ...] = (),
        settings: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> Path:
        """A run of so many seconds an epoch; its log. `settings` are its `--set`, `changes` are made to its record."""
        directory = self.root / folder
        directory.mkdir(exist_ok=True, parents=True)
        path = directory / f"result_{len(list(directory.glob('result_*.config.json')))}.txt"
        config = configuration(seed, kind, settings or {})
        size = {"nodes": nodes, "ranks": 4 * nodes, "recipe": config["train"]}
        write(path, kind, self.clock, seed=seed, epoch_s=epoch_s, configuration=size)
        system = {"name": f"machine-{nodes}", **DESCRIPTION, "nodes": nodes}
        system["groups"] = [{**DESCRIPTION["groups"][0], "count": nodes}]
        named = {"config": config, "config_sha256": config_sha256(config), "system": system}
        content = record_of(path, kind, seed, named) | measured(path, kind, seed, epoch_s, nodes, hosts) | changes
        path.with_suffix(".json").write_text(json.dumps(content, indent=1))
        path.with_suffix(".config.json").write_text(json.dumps({"config": config}))
        self.clock.pass_s(10)
        return path

    def set(self, kind: Kind = WORK, count: int = 4, **options: Any) -> list[Path]:
        """Runs with the seeds 1, 2, …, each 0.1 s an epoch slower than the one before."""
        epoch_s = options.pop("epoch_s", 20.0)
        return [self.run(n, kind, epoch_s=epoch_s + n / 10, **options) for n in range(1, count + 1)]


def configuration(seed: int, kind: Kind, settings: Mapping[str, Any]) -> dict[str, Any]:
    """A resolved configuration, as `python -m sciml_hpc cloudmask --preset small` makes it."""
    assignments = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    options = {"seed": seed, "train.global_batch": 64}
    if kind.value is None:
        options |= {"fixed_epochs": True, "train.epochs": len(kind.series)}
    config, _ = resolve(find("cloudmask"), preset="small", dataset="small", assignments=assignments, options=options)
    return config.model_dump(mode="json")


def terms(**changes: Any) -> dict[str, Any]:
    """A case that `Vendor.set()` meets: three runs of fixed work after one of warm-up, at least 38 samples/s."""
    usual = {
        "benchmark": "cloudmask",
        "nodes": 4,
        "ranks_per_node": 4,
        "global_batch": 64,
        "epochs": 3,
        "dataset": {"name": "small", "index_sha256": INDEX},
        "configuration": {"preset": "small"},
        "repeats": 3,
        "warm_up": 1,
        "checks": [{"metric": "samples_per_s", "stat": "min", "ge": 38.0, "unit": "samples/s"}],
    }
    return {name: value for name, value in (usual | changes).items() if value is not None}


def contract(**cases: Mapping[str, Any]) -> dict[str, Any]:
    """A contract with these cases (by default the one case `work`)."""
    named = {name.replace("_", "-"): dict(case) for name, case in (cases or {"work": terms()}).items()}
    return {"name": "Example", "code": {"commit": COMMIT}, "cases": named}


def gated() -> dict[str, Any]:
    """Fixed work whose figures count only if runs of their own go to the target."""
    converges = terms(epochs=None, target=GOAL, repeats=2, warm_up=0)
    return contract(work=terms(gated_by="converges"), converges=converges)


def edit(log: Path, change: Callable[[dict[str, Any]], Any], *, forge: bool = False) -> None:
    """Change the record of a run; `forge`: with hashes made anew."""
    path = log.with_suffix(".json")
    content = json.loads(path.read_text())
    change(content)
    if forge:
        content["config_sha256"] = config_sha256(content["config"])
        content["log_sha256"] = hashlib.sha256(log.read_bytes()).hexdigest()
    path.write_text(json.dumps(content, indent=1))


def rename(log: Path, number: int) -> Path:
    """Give a run another number."""
    for suffix in (".txt", ".json", ".config.json"):
        log.with_suffix(suffix).rename(log.with_name(f"result_{number}{suffix}"))
    return log.with_name(f"result_{number}.txt")


def remove(log: Path) -> None:
    """Take a run away without a trace."""
    for suffix in (".txt", ".json", ".config.json"):
        log.with_suffix(suffix).unlink()
