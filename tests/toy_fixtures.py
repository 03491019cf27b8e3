"""Fixtures with the toy benchmark; a test module that wants them says pytest_plugins = ["toy_fixtures"]."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from toy import FOLDER, write_manifest

from sciml_hpc import benchmarks


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The class Toy, found by the package like any benchmark."""
    monkeypatch.setattr(benchmarks, "__path__", [*benchmarks.__path__, FOLDER])
    return benchmarks.find("toy")


@pytest.fixture
def toy_manifest(tmp_path: Path) -> Path:
    """A file for --manifest."""
    return write_manifest(tmp_path / "toys.yaml")
