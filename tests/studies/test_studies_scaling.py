"""The runner: every step once, failures retried once and kept, a killed study resumed: nothing lost or done twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from sciml_hpc.console import Console
from sciml_hpc.errors import UserError
from sciml_hpc.studies.allocation import Allocation
from sciml_hpc.studies.design import Design, Step, order
from sciml_hpc.studies.ledger import Study
from sciml_hpc.studies.scaling import commands_of, run, settled, succeeded

HERE = Path(__file__).parent


def design(**fields: object) -> Design:
    return Design(
        schema="sciml_hpc.study/1",
        **{"scaling": "strong", "benchmark": "cloudmask", "unit": "ranks", "points": (1, 2), "repeats": 2, **fields},
    )


class Place:
    """A directory with a stand-in for mpirun, and a study."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        shutil.copy(HERE / "stand_in_mpirun.py", directory)
        self.plan()
        launcher = directory / "mpirun"
        launcher.write_text(f'#!/bin/bash\nexec "{sys.executable}" "{directory}/stand_in_mpirun.py" "$@"\n')
        launcher.chmod(0o755)
        self.allocation = Allocation("local", launcher=str(launcher))

    def plan(self, **attempts: list[str]) -> None:
        """What runs do; keys as s3r2 (seed 3 on 2 ranks)."""
        named = {key.replace("r", "@").lstrip("s"): does for key, does in attempts.items()}
        (self.directory / "plan.json").write_text(json.dumps(named))

    def calls(self) -> Counter[str]:
        """How often each run was started."""
        return Counter((self.directory / "calls").read_text().split())

    def study(self, made: Design) -> Study:
        """The study, new or gone on with."""
        return Study.open(self.directory / "study", made)

    def run(self, made: Design, only: tuple[int, ...] | None = None) -> bool:
        """Run it."""
        return run(self.study(made), self.allocation, only or made.points, Console(False))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_points_are_interleaved_up_and_down():
    steps = [(s.kind, s.point, s.repeat) for s in order(design(points=(1, 2, 4), repeats=2))]
    assert steps[:9] == [
        ("warm-up", 1, 0), ("warm-up", 2, 0), ("warm-up", 4, 0),
        ("train", 4, 0), ("train", 2, 0), ("train", 1, 0),
        ("train", 1, 1), ("train", 2, 1), ("train", 4, 1),
    ]  # fmt: skip
    assert steps[9:] == [(kind, n, 0) for kind in ("io", "comm") for n in (1, 2, 4)]


def test_a_steady_drift_looks_like_no_scaling():
    """Over an even number of repeats every point has the same mean place in time."""
    trains = list(order(design(points=(1, 2, 4, 8), repeats=4, warm_ups=0, probes=False)))
    places = {n: [k for k, s in enumerate(trains) if s.point == n] for n in (1, 2, 4, 8)}
    assert len({sum(where) for where in places.values()}) == 1


def test_seeds_are_equal_across_points_and_never_used_twice_at_one():
    made = design(repeats=3, warm_ups=2, gates=2, instances=2, scaling="weak")
    seeds = {
        n: [x for s in order(made) if s.point == n and s.kind not in ("io", "comm") for x in s.seeds(made)]
        for n in (1, 2)
    }
    assert sorted(seeds[1]) == sorted(seeds[2]) == list(range(1, 15))


def test_every_step_is_run_once(place: Place):
    made = design(probes=True)
    assert place.run(made)
    assert place.calls() == {f"{run}@{n}": 1 for run in (1, 2, 3, "io", "comm") for n in (1, 2)}
    tried = place.study(made).attempts()
    assert all(len(t) == 1 and settled(t) and succeeded(t) for t in tried.values())
    logs = [log for step, t in tried.items() if step.kind in ("train", "warm-up") for log in t[0].results]
    assert len(set(logs)) == 6
    assert all((place.directory / "study" / log).exists() for log in logs)
    assert place.run(made)  # nothing is left to do
    assert max(place.calls().values()) == 1


def test_a_fault_is_retried_once_and_kept(place: Place):
    made = design(probes=False)
    place.plan(s2r1=["fault"], s3r2=["fault", "fault", "valid"])
    assert not place.run(made)
    assert place.calls()["2@1"] == 2
    assert place.calls()["3@2"] == 2
    tried = place.study(made).attempts()
    assert [a.status for a in tried[Step(1, "train", 0)]] == [3, 0]
    assert [a.status for a in tried[Step(2, "train", 1)]] == [3, 3]
    for attempt in tried[Step(1, "train", 0)]:
        (log,) = attempt.results  # the failed attempt's log is kept under its own number
        assert (place.directory / "study" / log).exists()
    assert not place.run(made)
    assert place.calls()["3@2"] == 2


def test_an_invalid_run_is_a_result_and_is_not_tried_again(place: Place):
    place.plan(s2r2=["invalid"])
    assert not place.run(design(probes=False))
    assert place.calls()["2@2"] == 1


def test_a_mistake_of_the_user_stops_the_study_at_once(place: Place):
    place.plan(s1r1=["user error"])
    with pytest.raises(UserError, match=r"r1-warm-up-0: error: train\.width: found 0"):
        place.run(design())
    assert place.calls() == {"1@1": 1}


def test_points_can_be_run_by_themselves(place: Place):
    made = design(probes=False)
    assert place.run(made, (2,))
    assert {name.split("@")[1] for name in place.calls()} == {"2"}
    assert place.run(made)
    assert max(place.calls().values()) == 1


PROGRAM = """
import sys
from sciml_hpc.console import Console
from sciml_hpc.studies.allocation import Allocation
from sciml_hpc.studies.ledger import Study
from sciml_hpc.studies.scaling import Stopped, run
from pathlib import Path
study = Study.load(Path("study"))
try:
    run(study, Allocation("local", launcher=str(Path("mpirun").resolve())), study.design.points, Console(True))
except Stopped as stopped:
    sys.exit(f"stopped by {stopped}")
"""


def start(place: Place, made: Design) -> subprocess.Popen:
    place.study(made)
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        cwd=place.directory,
        env={**os.environ, "PYTHONPATH": str(HERE.parents[1])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    for _ in range(600):
        if (place.directory / "hangs").exists():
            return process
        time.sleep(0.05)
    raise TimeoutError("the run did not begin")


def test_a_study_told_to_stop_ends_its_run_and_goes_on(place: Place):
    made = design(probes=False)
    place.plan(s2r2=["hang"])
    process = start(place, made)
    process.send_signal(signal.SIGTERM)
    assert "stopped by SIGTERM" in process.communicate(timeout=60)[1]
    assert process.returncode == 1
    tried = place.study(made).attempts()
    assert tried[Step(2, "train", 0)][0].interrupted
    assert place.run(made)
    assert {name: n for name, n in place.calls().items() if n != 1} == {"2@2": 2}
    assert [a.interrupted for a in place.study(made).attempts()[Step(2, "train", 0)]] == [True, False]


def test_a_killed_study_goes_on_and_its_unfinished_run_is_made_anew(place: Place):
    made = design(probes=False)
    place.plan(s2r2=["hang"])
    process = start(place, made)
    process.kill()
    process.wait()
    with pytest.raises(
        UserError, match="point r1 is being run by another process, or by a run that a killed study left"
    ):
        place.run(made)
    subprocess.run(["pkill", "-f", f"{place.directory}/stand_in_mpirun.py"], check=True)
    time.sleep(0.2)
    assert place.run(made)
    assert {name: n for name, n in place.calls().items() if n != 1} == {"2@2": 2}


def test_a_killed_study_takes_the_run_that_ended_without_it(place: Place):
    made = design(probes=False)
    place.plan(s2r2=["slow"])
    process = start(place, made)
    process.kill()
    process.wait()
    time.sleep(3)  # the run comes to its verdict by itself
    assert place.run(made)
    assert max(place.calls().values()) == 1
    (attempt,) = place.study(made).attempts()[Step(2, "train", 0)]
    assert attempt.status == 0
    assert len(attempt.results) == 1


def test_a_line_that_was_cut_is_no_loss(place: Place):
    made = design(probes=False)
    place.run(made, (1,))
    file = place.directory / "study/points/r1.jsonl"
    whole = file.read_text()
    file.write_text(whole[: -len(whole.splitlines()[-1]) // 2])
    assert place.run(made)
    assert max(place.calls().values()) == 1  # the cut line's run has a verdict, and is taken
    for line in file.read_text().splitlines():
        json.loads(line)


def test_another_design_is_refused(place: Place):
    place.study(design())
    with pytest.raises(UserError, match=r"holds another study \(repeats: it is 2, now 5\)"):
        place.study(design(repeats=5))
    (place.directory / "full").mkdir()
    (place.directory / "full/letter").touch()
    with pytest.raises(UserError, match="is not empty and holds no study"):
        Study.open(place.directory / "full", design())


def test_a_ledger_that_was_written_in_is_named(place: Place):
    made = design(probes=False)
    place.run(made, (1,))
    file = place.directory / "study/points/r1.jsonl"
    file.write_text("hello\n" + file.read_text())
    with pytest.raises(UserError, match=r"r1\.jsonl: line 1 is not an entry"):
        place.study(made).attempts()


# --- commands ---------------------------------------------------------------------------------------------------------

SLURM = Allocation("slurm", ("a1", "a2", "a3", "a4"), 8, "srun")


def words(step: Step, made: Design, allocation: Allocation = SLURM) -> list[str]:
    return [" ".join(command) for command in commands_of(step, made, allocation, Path("/study"), 0)]


def test_a_run_under_slurm():
    made = design(unit="nodes", points=(1, 2, 4), ranks_per_node=2, arguments=("--preset", "small"))
    (command,) = words(Step(2, "train", 0), made)
    assert command.startswith("srun --nodes=2 --ntasks=4 --ntasks-per-node=2 --nodelist=a1,a2 --cpus-per-task=4 ")
    assert command.endswith("-m sciml_hpc cloudmask --preset small --output /study/results --seed 2")


def test_weak_scaling_and_held_local_batches():
    assert "--weak" in words(Step(2, "train", 0), design(scaling="weak"))[0].split()
    held = design(points=(2, 8), fixed_local_batch=True, global_batch=64)
    assert "--set train.global_batch=256" in words(Step(8, "train", 0), held)[0]


def test_instances_are_on_nodes_of_their_own_and_train_the_whole_problem():
    made = design(scaling="weak", unit="nodes", points=(1, 2), instances=2)
    first, second = words(Step(2, "train", 1), made)
    assert "--nodelist=a1,a2" in first
    assert "--nodelist=a3,a4" in second
    assert "--weak" not in first
    assert first.rpartition(" ")[2] != second.rpartition(" ")[2]  # seeds


def test_gates_do_no_fixed_work_and_lie_apart():
    made = design(gates=1, arguments=("--fixed-work", "--epochs", "16"))
    gate, train = words(Step(1, "gate", 0), made)[0], words(Step(1, "train", 0), made)[0]
    assert "--fixed-work" not in gate
    assert "/study/gates" in gate
    assert "--fixed-work" in train


def test_probes_write_their_figures(tmp_path: Path):
    (command,) = commands_of(Step(2, "io", 0), design(), SLURM, tmp_path, 1)
    assert command[-2:] == ["--json", str(tmp_path / "probes/r2-io-0.1.json")]
    assert command[command.index("sciml_hpc") + 1 :][:2] == ["io", "cloudmask"]
