"""What `list`, `info` and `system` print. Answers at once: torch and MPI are not imported."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

from sciml_hpc import benchmarks, errors
from sciml_hpc.benchmarks.base import Benchmark
from sciml_hpc.errors import UserError, did_you_mean
from sciml_hpc.manifest import Dataset, load_manifest

WIDTH = 110


def print_list(manifest: Path | None) -> int:
    """Every benchmark with its presets and data sets."""
    datasets = load_manifest(manifest)
    for name in benchmarks.names():
        for kind in benchmarks.classes(name):
            print(f"{kind.name}{f' --task {kind.task}' if kind.task else ''}: {kind.title}")
            there = [f"{p} ({preset.dataset})" for p, preset in kind.presets.items() if preset.dataset in datasets]
            presets = ", ".join(there) or "none: the manifest has no data set for it yet"
            print(_wrapped(presets, WIDTH, initial_indent="  presets: ", subsequent_indent=" " * 11))
            for key, entry in datasets.items():
                if (entry.benchmark, entry.task) == (kind.name, kind.task):
                    row = f"{key:24} {_origin(entry):9} {_counts(entry)}; {_size(entry)}; {_target(entry)}"
                    print(_wrapped(row, WIDTH, initial_indent="  ", subsequent_indent=" " * 37))
        print()
    print("details: python -m sciml_hpc info NAME (a benchmark or a data set)")
    return errors.VALID


def print_info(name: str, manifest: Path | None) -> int:
    """All that is known of a benchmark or data set. Raises UserError for a name that is neither."""
    datasets = load_manifest(manifest)
    if name in datasets:
        _print_dataset(name, datasets[name])
    elif name in benchmarks.names():
        for kind in benchmarks.classes(name):
            _print_benchmark(kind)
    else:
        known = [*benchmarks.names(), *datasets]
        raise UserError(f"no benchmark or data set is called {name!r}{did_you_mean(name, known)}; see the command list")
    return errors.VALID


def print_system() -> int:
    """This node and its software, as a run would record them."""
    from sciml_hpc.metering import system

    library = None
    try:
        from mpi4py import MPI

        library = MPI.Get_library_version().split("\n")[0].strip("\x00 ")
    except (ImportError, RuntimeError) as error:
        print(f"MPI: not usable ({error})")
    node = system.describe_node({"here": Path.cwd(), "tmp": Path("/tmp")}, library)
    print(f"Horovod: {horovod_build()}")
    print(json.dumps(node, indent=2))
    return errors.VALID


def horovod_build() -> str:
    """What Horovod was built with, or why it cannot be used."""
    try:
        import horovod
        import horovod.torch as hvd
    except ImportError as error:
        return f"not usable with torch ({error})"
    operations = [
        name for name in ("mpi", "nccl", "gloo", "ddl", "ccl", "cuda", "rocm") if getattr(hvd, f"{name}_built")()
    ]
    return f"{horovod.__version__}, built with {', '.join(operations) or 'nothing'}"


def _print_benchmark(kind: type[Benchmark]) -> None:
    from sciml_hpc.config import describe_keys

    print(f"{kind.name}{f' --task {kind.task}' if kind.task else ''}: {kind.title}\n")
    print(_wrapped(" ".join(kind.science.split()), WIDTH))
    print()
    print(_wrapped(f"citation: {kind.citation}", WIDTH, subsequent_indent="  "))
    print("\npresets:")
    for name, preset in kind.presets.items():
        changes = ", ".join(f"{k}={v}" for k, v in preset.recipe.items()) or "the published configuration"
        print(_wrapped(f"{name:6} {preset.dataset}: {changes}", WIDTH, initial_indent="  ", subsequent_indent=" " * 9))
    if kind.published:
        print("\npublished figures:")
        for figure in kind.published:
            print(
                _wrapped(
                    f"{figure.what}: {figure.value} ({figure.source})",
                    WIDTH,
                    initial_indent="  ",
                    subsequent_indent="    ",
                )
            )
    print("\nwhat --set KEY=VALUE and a --config file can change (default):")
    for key, default, meaning in describe_keys(kind):
        print(_wrapped(f"{key} ({default}): {meaning}", WIDTH, initial_indent="  ", subsequent_indent="    "))
    print()


def _print_dataset(name: str, entry: Dataset) -> None:
    rows: list[tuple[str, Any]] = [
        ("data set", f"{name}, version {entry.version}, for {entry.benchmark} {entry.task}".rstrip()),
        (
            "origin",
            "the embedded simulator" if entry.origin.kind == "simulator" else f"published files in {entry.origin.path}",
        ),
        ("seed", entry.origin.seed),
        ("parameters", ", ".join(f"{k}={v}" for k, v in entry.origin.parameters.items()) or "the simulator's defaults"),
        ("samples", _counts(entry)),
        ("size", _size(entry)),
        ("format", entry.format),
        ("target", f"{_target(entry)} ({'official' if entry.target.official else 'declared'}: {entry.target.source})"),
        ("index", entry.index_sha256 or "SHA-256 recorded at preparation"),
        ("licence", entry.licence),
        ("citation", entry.citation),
    ]
    if entry.origin.kind == "files":
        rows.insert(2, ("get it with", entry.origin.get))
    for label, value in rows:
        print(
            f"{label:12}{value}"  # a command is not broken
            if label == "get it with"
            else _wrapped(str(value), WIDTH, initial_indent=f"{label:12}", subsequent_indent=" " * 12)
        )


def _wrapped(text: str, width: int, **indents: str) -> str:
    """Text in lines that break no name at its hyphens."""
    return textwrap.fill(text, width, break_on_hyphens=False, **indents)


def _origin(entry: Dataset) -> str:
    return "simulated" if entry.origin.kind == "simulator" else "published"


def _counts(entry: Dataset) -> str:
    return ", ".join(f"{count:,} {split}" for split, count in entry.samples.items())


def _size(entry: Dataset) -> str:
    if entry.bytes is None:
        return "size ?"
    for factor, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if entry.bytes >= factor:
            return f"{entry.bytes / factor:.3g} {unit}"
    return f"{entry.bytes / 1e3:.3g} kB"


def _target(entry: Dataset) -> str:
    return f"{entry.target.metric} {'≥' if entry.target.direction == 'max' else '≤'} {entry.target.value:g}"
