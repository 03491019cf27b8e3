"""Fixtures that write correct logs and runs (`correct_logs.py`) for one test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from correct_logs import KINDS, Clock, run_writer, write

from sciml_hpc.results import mllog


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of every RunLog of this test."""
    clock = Clock()
    monkeypatch.setattr(mllog, "time", clock)
    return clock


@pytest.fixture
def write_log(tmp_path: Path, clock: Clock) -> Callable[..., Path]:
    """`write_log(kind, name="result_0.txt", **options)`: a correct log of that kind."""

    def make(kind: str, name: str = "result_0.txt", **options) -> Path:
        return write(tmp_path / name, KINDS[kind], clock, **options)

    return make


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """The name of each kind of log in turn."""
    return request.param


@pytest.fixture
def write_run(tmp_path: Path, clock: Clock) -> Callable[..., Path]:
    """The `run_writer` of this test."""
    return run_writer(tmp_path, clock)
