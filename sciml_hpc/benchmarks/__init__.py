"""The benchmarks, found by their folders: adding one changes nothing here. The folder `em_denoise` is `em-denoise`."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from sciml_hpc.errors import UserError, did_you_mean

if TYPE_CHECKING:  # `--help` and a mistyped name do without
    from sciml_hpc.benchmarks.base import Benchmark


def names() -> list[str]:
    """Names of all benchmarks, sorted: the sub-packages of this one, with '-' for '_'."""
    return sorted(m.name.replace("_", "-") for m in pkgutil.iter_modules(__path__) if m.ispkg)


def classes(name: str) -> tuple[type[Benchmark], ...]:
    """The benchmark classes of a folder, one per task; UserError naming the choices if there is no such benchmark."""
    if name not in names():
        raise UserError(f"unknown benchmark {name!r}{did_you_mean(name, names())}; there are: {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}").BENCHMARKS


def find(name: str, task: str | None = None) -> type[Benchmark]:
    """The benchmark class of that name and task (None: the folder's first). Raises UserError naming the choices."""
    by_task = {c.task: c for c in classes(name)}
    if task is None:
        return next(iter(by_task.values()))
    if task not in by_task:
        tasks = [t for t in by_task if t]
        allowed = f"its tasks are: {', '.join(tasks)}" if tasks else "it has one task only"
        raise UserError(f"benchmark {name} has no task {task!r}{did_you_mean(task, tasks)}; {allowed}")
    return by_task[task]
