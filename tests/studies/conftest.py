"""A vendor who hands in runs, and the command that judges them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from results.correct_logs import Clock, judge_each_log_once
from studies.acceptance_runs import Vendor

from sciml_hpc.cli import main
from sciml_hpc.results import mllog


@pytest.fixture(autouse=True)
def judge_a_log_once(monkeypatch: pytest.MonkeyPatch) -> None:
    judge_each_log_once(monkeypatch)


@pytest.fixture
def vendor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Vendor:
    clock = Clock()
    monkeypatch.setattr(mllog, "time", clock)
    return Vendor(tmp_path, clock)


class Verdict:
    """What `accept` printed, and its exit status."""

    def __init__(self, status: int, text: str) -> None:
        self.status, self.text = status, text
        self.verdict, self.merit = text.splitlines()[-2:] if len(text.splitlines()) > 1 else ("", "")

    def of(self, check: str) -> list[str]:
        """The statuses of the checks with this name, case by case."""
        return re.findall(rf"^  (\w+) +{re.escape(check)}: ", self.text, re.MULTILINE)


@pytest.fixture
def accept(tmp_path: Path, capsys: pytest.CaptureFixture) -> Callable[..., Verdict]:
    """`accept(contract, *results, …)`: the command on a contract, by default on everything handed in."""

    def judge(content: dict[str, Any], *results: Path, options: tuple[str, ...] = ()) -> Verdict:
        path = tmp_path / "acceptance.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        capsys.readouterr()
        status = main(["accept", str(path), *map(str, results or [tmp_path / "handed-in"]), *options])
        out, err = capsys.readouterr()
        return Verdict(status, out or err)

    return judge
