"""What a study says of itself when its files are not as they were written."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic_study import write_study

from sciml_hpc.errors import UserError
from sciml_hpc.studies import findings
from sciml_hpc.studies.ledger import Study


@pytest.mark.parametrize("content", [None, "", '{"cold": '])
def test_figures_of_a_probe_that_are_gone_or_cut_are_named(tmp_path: Path, content: str | None):
    write_study(tmp_path / "study", points=(1, 2), repeats=1)
    findings.of_study(Study.load(tmp_path / "study"))
    file = sorted((tmp_path / "study/probes").glob("*-io-*.json"))[0]
    if content is None:
        file.unlink()
    else:
        file.write_text(content)
    with pytest.raises(UserError, match=f"{file}: cannot be read as the figures of a probe"):
        findings.of_study(Study.load(tmp_path / "study"))
