"""The command `report`: reads what was handed in and writes the page, and its figures and tables as files beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

import sciml_hpc
from sciml_hpc.errors import UserError
from sciml_hpc.results import source
from sciml_hpc.studies.report import commitments
from sciml_hpc.studies.report.gather import gather


def report(
    results: Sequence[Path], output: Path, contract: Path | None, folder: Path | None, nodes: Sequence[int]
) -> list[str]:
    """Write the page to the new file `output`; what to tell the user.

    `contract` is judged anew; `folder` gets every figure as SVG and PNG and every table as CSV; projections are made to
    `nodes`. Raises UserError, before anything is written, for a file that exists, results that cannot be read, a
    contract that cannot be used, and where matplotlib or jinja2 are missing.
    """
    _refuse([output])
    try:
        from sciml_hpc.studies.report import content, html, rendering
    except ImportError as error:
        if error.name and error.name.partition(".")[0] in ("matplotlib", "jinja2", "markupsafe"):
            raise UserError(f"a report needs {error.name}: pip install 'sciml_hpc[report]'") from None
        raise
    judged = commitments.judge(contract, results) if contract else None
    gathered = gather(results, nodes)
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    made = f"{now}, by sciml_hpc {sciml_hpc.__version__}, source SHA-256 {source.sha256()}"
    with rendering.style():
        page = content.page(gathered, judged, nodes, made)
        drawn = {drawing.name: rendering.svg(drawing.figure) for drawing in page.drawings()}
        files: dict[Path, bytes] = {output: html.render(page, drawn).encode()}
        if folder:
            for drawing in page.drawings():
                files[folder / f"{drawing.name}.svg"] = drawn[drawing.name].encode()
                files[folder / f"{drawing.name}.png"] = rendering.png(drawing.figure)
            for table in page.tables():
                files[folder / f"{table.name}.csv"] = table.csv().encode()
    _write(files)
    said = [f"{page.banner.word}: {page.banner.sentence}", f"{output}: {len(files[output]) / 1e6:.1f} MB"]
    if folder:
        said.append(f"{folder}: {len(files) - 1} files")
    return said


def _refuse(files: Sequence[Path]) -> None:
    for path in files:
        if path.exists() or path.is_symlink():
            raise UserError(f"{path}: exists; a report is written to new files only")


def _write(files: Mapping[Path, bytes]) -> None:
    """Write new files, all of them or none."""
    _refuse(list(files))
    made: list[Path] = []
    try:
        for path, content in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                made.append(path)
                file.write(content)
    except OSError as error:
        for path in made:
            path.unlink(missing_ok=True)
        raise UserError(f"{error.filename or made[-1]}: cannot be written: {error.strerror}") from None
