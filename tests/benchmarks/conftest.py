"""What the tests of several benchmarks are given."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def files(written: Path, tmp_path: Path) -> Path:
    """A copy of the module's `written` files, that a test may damage."""
    return shutil.copytree(written, tmp_path / "files")
