"""The benchmarks, found by their folders: adding one changes nothing here."""

from __future__ import annotations

import importlib
import pkgutil

from sciml_hpc.benchmarks.base import Benchmark
from sciml_hpc.errors import UserError, did_you_mean


def names() -> list[str]:
    """Names of all benchmarks, sorted: the sub-packages of this one."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.ispkg)


def find(name: str, task: str | None = None) -> type[Benchmark]:
    """The benchmark class of that name and task (None: the folder's first).

    Raises UserError naming the choices.
    """
    if name not in names():
        raise UserError(f"unknown benchmark {name!r}{did_you_mean(name, names())}; there are: {', '.join(names())}")
    classes: tuple[type[Benchmark], ...] = importlib.import_module(f"{__name__}.{name}").BENCHMARKS
    if task is None:
        return classes[0]
    by_task = {c.task: c for c in classes if c.task}
    if task not in by_task:
        allowed = f"its tasks are: {', '.join(by_task)}" if by_task else "it has one task only"
        raise UserError(f"benchmark {name} has no task {task!r}; {allowed}")
    return by_task[task]
