"""MLCommons' own tools (mlperf-logging), run inside this process with what they say captured.

Inside the process, because a run checks its own log before it gives its verdict, and starting another process from an
MPI rank is not safe everywhere. The tools report through the root logger, and three of them return success whatever
they find, so their text is what counts. Not for several threads at once.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sciml_hpc.results.keys import RULESETS
from sciml_hpc.results.targets import RULES

PINNED = "4.1.68"
"""The version of mlperf-logging whose internals `rules/common.yaml` leans on."""

LATEST = RULESETS[-1]


def version() -> str:
    """Version of the installed mlperf-logging."""
    return importlib.metadata.version("mlperf-logging")


def compliance(log: Path, ruleset: str) -> list[str]:
    """What the compliance checker finds against an HPC ruleset with our rules spliced in; empty: SUCCESS.

    A log that makes the checker itself stop (a null metric does) is a finding, too.
    """
    from mlperf_logging.compliance_checker import mlp_compliance

    mlp_compliance.enqueued_configs.clear()  # a global of theirs; a log that stopped the checker leaves entries in it
    checker = mlp_compliance.make_checker("hpc", ruleset, quiet=False, werror=False)
    said: list[str] = []
    with _captured(said):
        try:
            valid, *_ = mlp_compliance.main(str(log), str((RULES / "common.yaml").resolve()), checker)
        except Exception as error:
            return [f"the checker stops: {type(error).__name__}: {error}"]
    if valid:
        return []
    return [_short(m) for m in (*checker.overwritable.values(), *checker.not_overwritable)] or said


def package(directory: Path) -> tuple[list[str], list[str]]:
    """(errors, skipped benchmarks) of the package checker for HPC's latest ruleset."""
    from mlperf_logging.package_checker import package_checker

    said: list[str] = []
    with _captured(said), _plain(directory) as folder:
        try:
            package_checker.check_training_package(
                folder,
                "hpc",
                LATEST,
                quiet=True,
                werror=False,
                rcp_bypass=False,
                rcp_bert_train_samples=False,
                seed_checker_bypass=False,
                log_output="",
            )
        except Exception as error:
            return [f"the checker stops: {type(error).__name__}: {error}"], []
    skipped = [m.split(": ")[1] for m in said if "Skipping benchmark: " in m]
    if any("FOUND NO ERRORS, SUCCESS" in m for m in said):
        return [], skipped
    return [m.replace(f"{folder}/", "") for m in said if m.startswith("ERROR")] or said, skipped


def repository(directory: Path) -> list[str]:
    """What the repository checker (names, sizes, links that git would not take) finds."""
    from mlperf_logging.repo_checker import repo_checker

    said: list[str] = []
    with _captured(said), _plain(directory) as folder:
        repo_checker.run_checks(folder)
        errors = [m.replace(f"{folder}/", "") for m in said if m.startswith("ERROR")] or said
    return [] if any("ALL CHECKS PASSED" in m for m in said) else errors


def system_description(file: Path) -> list[str]:
    """What the system description checker finds in a system JSON."""
    from mlperf_logging.system_desc_checker import system_desc_checker

    said: list[str] = []
    with _captured(said):
        try:
            valid, *_ = system_desc_checker.check_system_desc(str(file), "hpc", LATEST)
        except Exception as error:
            return [f"the checker stops: {type(error).__name__}: {error}"]
    return [] if valid else [m for m in said if m.startswith("ERROR")] or said


@contextlib.contextmanager
def _plain(directory: Path) -> Iterator[str]:
    """Another name for a directory: the tools judge the directory's own name and take it for a pattern, too."""
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder, "package")
        link.symlink_to(directory.resolve(), target_is_directory=True)
        yield str(link)


def _short(message: str) -> str:
    """A message of the compliance checker without the dump of its state."""
    lines = [line for line in message.splitlines() if not line.startswith(":::MLLOG")]
    end = next((i for i, line in enumerate(lines) if line.startswith("current ")), len(lines))
    return " ".join(" ".join(lines[:end]).split())


@contextlib.contextmanager
def _captured(said: list[str]) -> Iterator[None]:
    """Append to `said` ("LEVEL text") what is logged to the root logger, which is where the tools report, in place of
    handling it; what the tools print is dropped.
    """
    root = logging.getLogger()
    level = root.level

    def take(record: logging.LogRecord) -> bool:
        said.append(f"{record.levelname} {record.getMessage().strip()}")
        return False

    silent = logging.NullHandler()  # a root logger without handlers would be given one that prints
    root.addHandler(silent)
    root.addFilter(take)
    root.setLevel(logging.INFO)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        root.setLevel(level)
        root.removeFilter(take)
        root.removeHandler(silent)
