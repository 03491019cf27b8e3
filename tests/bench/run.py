"""`make bench`: is it the machine that is measured, or the benchmark? Ratios measured side by side, with their spread.

    python -m bench.run [--rounds N] [--json FILE] [PART …]     parts: startup planning loader staging ranks training
                                                                reference simulators

On a quiet machine. The interval holds the median with 95 % confidence, from six rounds on.
WebDataset and TensorFlow are compared with if installed (`pip install -e .[bench]`).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench import loader, planning, simulators, staging, startup, training
from bench.rows import Row

from sciml_hpc import benchmarks
from sciml_hpc.config import Communication
from sciml_hpc.parallel import device as devices
from sciml_hpc.parallel import engine as engines
from sciml_hpc.parallel.world import World, join


def parts(rounds: int) -> dict[str, Callable[[World], list[Row]]]:
    """By name; each returns its rows."""
    return {
        "startup": lambda world: startup.answers(rounds) + startup.first_step(rounds),
        "planning": lambda world: planning.at_scale(min(rounds, 3)),
        "loader": lambda world: loader.large(rounds) + loader.cold(rounds) + loader.small(rounds),
        "staging": lambda world: staging.one_node(world, rounds),
        "ranks": lambda world: in_processes(["mpirun", "-n", "2"], "ranks", rounds * 2),
        "training": lambda world: train(world, rounds),
        "reference": lambda world: in_processes([], "reference", rounds) if found("tensorflow") else [],
        "simulators": lambda world: simulators.rates(),
    }


def found(module: str) -> bool:
    """Whether a peer is installed."""
    return importlib.util.find_spec(module) is not None


def in_processes(launcher: list[str], module: str, rounds: int) -> list[Row]:
    """The rows that another program of this folder prints."""
    command = [*launcher, sys.executable, "-m", f"bench.{module}", str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    line = next((x for x in done.stdout.splitlines() if x.startswith("ROWS ")), None)
    if line is None:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return [Row(**{**row, "aim": tuple(row["aim"])}) for row in json.loads(line.removeprefix("ROWS "))]


def train(world: World, rounds: int) -> list[Row]:
    """The rows of all benchmarks' training steps; on a GPU, of the full-size networks, too."""
    device = devices.choose(world)
    engine = engines.start(Communication(), world, device)
    with tempfile.TemporaryDirectory() as data:
        rows = training.overhead(world, engine, rounds, benchmarks.names(), Path(data))
        if device.accelerators_per_node:
            rows += training.full_size(world, engine, rounds, Path(data))
    engine.close()
    return rows


def main() -> int:
    """Print the table; the exit status is that of the aims that are not a matter of the machine's load: always 0."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("parts", nargs="*", metavar="PART")
    options.add_argument("--rounds", type=int, default=6)
    options.add_argument("--json", type=Path)
    given = options.parse_args()
    known = parts(given.rounds)
    if strange := set(given.parts) - known.keys():
        options.error(f"no such part: {', '.join(sorted(strange))}; there are: {', '.join(known)}")
    world = join()
    devices.choose(world)
    rows: list[Row] = []
    print(f"{'what':34} {'against':38} {'median':>11} {'interval':>13} {'n':>3} {'aim':>7}")
    for name in given.parts or known:
        for row in known[name](world):
            rows.append(row)
            print(row.line(), flush=True)
    for peer in ("webdataset", "tensorflow"):
        if not found(peer):
            print(f"{peer} is not installed: no row compares with it")
    if given.json:
        given.json.write_text(json.dumps([row.record() for row in rows], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
