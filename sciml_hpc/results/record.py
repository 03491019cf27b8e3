"""Where a run's results go, and the record of a run: `result_N.json` beside the log `result_N.txt`."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sciml_hpc.benchmarks.base import Picture
from sciml_hpc.config import RunConfig
from sciml_hpc.data.shards import write_atomically
from sciml_hpc.errors import UserError

SCHEMA = "sciml_hpc.result/1"


@dataclass(frozen=True)
class Paths:
    """The files of one run: `result_N.txt` (the MLPerf log) and those that share its name."""

    log: Path

    @property
    def system_name(self) -> str:
        """The system the run is filed under."""
        return self.log.parents[2].name

    def beside(self, suffix: str) -> Path:
        """`result_N<suffix>`."""
        return self.log.with_suffix(suffix)

    @property
    def record(self) -> Path:
        """The figures, with the definitions of the design page."""
        return self.beside(".json")

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.beside(".config.json")

    @property
    def system(self) -> Path:
        """The system in MLCommons' form."""
        return self.beside(".system.json")

    @property
    def steps(self) -> Path:
        """Loss of every step, as CSV."""
        return self.beside(".steps.csv")

    @property
    def pictures(self) -> Path:
        """What the trained network showed of itself."""
        return self.beside(".pictures.npz")

    @property
    def checkpoint(self) -> Path:
        """The checkpoint of a run that has not ended."""
        return self.beside(".checkpoint")


def folder(output: Path, system: str, scaling: str, benchmark: str) -> Path:
    """Directory of one benchmark's results: MLPerf HPC's layout."""
    return output / system / scaling / benchmark


def check_writable(directory: Path) -> None:
    """Raise UserError if results cannot be written to `directory`; makes it."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / f".probe.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"results cannot be written to {directory}: {error.strerror}") from None


def begin(directory: Path, config: RunConfig, identity: Mapping[str, Any], resume: bool) -> Paths:
    """The files of a new run, under the next free number (from 0, as MLPerf counts), or of the run to be resumed.

    Nothing there is ever overwritten: the configuration file is made at once and holds the number. Raises UserError if
    there is nothing to resume.
    """
    content = {"config": config.model_dump(mode="json"), "config_sha256": config.sha256(), **identity}
    if resume:
        return find_resumable(directory, json.loads(json.dumps(content)))
    number = 0
    while True:
        paths = Paths(directory / f"result_{number}.txt")
        try:
            with paths.config.open("x") as file:
                json.dump(content, file, indent=1)
            if not paths.log.exists():
                return paths
        except FileExistsError:
            pass
        number += 1


def load_reference(path: Path | None) -> dict[str, Any] | None:
    """The record of a run to compare with. Raises UserError if it is no valid run's."""
    if path is None:
        return None
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"--reference {path}: cannot be read: {error}") from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise UserError(f"--reference {path}: is not the record of a run (result_N.json)")
    if content["verdict"] != "VALID":
        raise UserError(
            f"--reference {path}: that run is {content['verdict']}, so its figures are none to compare with"
        )
    return content


def find_resumable(directory: Path, now: Mapping[str, Any]) -> Paths:
    """The last interrupted run in `directory`, if it is this run: same configuration, ranks and data.

    Raises UserError saying what differs, or that there is none.
    """
    numbered = [(int(p.name.split(".")[0].split("_")[1]), p) for p in directory.glob("result_*.checkpoint")]
    if not numbered:
        raise UserError(f"--resume: no checkpoint of an interrupted run in {directory}")
    paths = Paths(max(numbered)[1].with_suffix(".txt"))
    try:
        before = json.loads(paths.config.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"--resume: {paths.config} cannot be read: {error}") from None
    differing = [f"{name}: it was {was!r}, now it is {got!r}" for name, was, got in _differences(before, now)]
    if differing:
        raise UserError(f"--resume: {paths.log} was another run: " + "; ".join(differing))
    return paths


def _differences(before: Any, now: Any, name: str = "") -> list[tuple[str, Any, Any]]:
    if isinstance(before, dict) and isinstance(now, dict):
        keys = dict.fromkeys([*before, *now])
        return [d for k in keys for d in _differences(before.get(k), now.get(k), f"{name}.{k}".lstrip("."))]
    return [] if before == now else [(name, before, now)]


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a record atomically; a metric that is not a number (of a class that does not occur, say) becomes null."""
    write_atomically(path, json.dumps(_finite(content), indent=1, allow_nan=False) + "\n")


def write_new(path: Path, content: Any) -> None:
    """Write figures to a file that must not exist yet. Raises UserError if it does, or cannot be written."""
    try:
        with path.open("x") as file:
            json.dump(_finite(content), file, indent=1)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None


def write_steps(path: Path, losses: list[list[float]]) -> None:
    """Write the global mean loss of every step: columns epoch, step (both from 1), loss."""
    rows = [f"{e},{s},{loss!r}" for e, epoch in enumerate(losses, 1) for s, loss in enumerate(epoch, 1)]
    write_atomically(path, "\n".join(["epoch,step,loss", *rows]) + "\n")


def write_pictures(path: Path, pictures: Sequence[Picture]) -> None:
    """Write pictures as arrays by name (float32, no pickle) and their captions and labels as JSON; no file for none."""
    if not pictures:
        return
    words = {p.name: {"caption": p.caption, "labels": p.labels} for p in pictures}
    content = io.BytesIO()
    np.savez_compressed(content, words=np.array(json.dumps(words)), **{f"panels_{p.name}": p.panels for p in pictures})
    write_atomically(path, content.getvalue())


def read_pictures(path: Path) -> tuple[Picture, ...]:
    """The pictures of a run; none if it drew none. Raises UserError naming a file that is malformed."""
    if not path.exists():
        return ()
    try:
        with np.load(path, allow_pickle=False) as content:
            words = json.loads(str(content["words"]))
            return tuple(
                Picture(name, text["caption"], content[f"panels_{name}"], tuple(text["labels"]))
                for name, text in words.items()
            )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is no file of pictures: {error}") from None


def _finite(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
