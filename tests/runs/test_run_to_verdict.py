"""From the command to the verdict, on one and several ranks."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from runs.conftest import Command, dataset, environment


def losses(steps: list[str]) -> np.ndarray:
    return np.array([float(row["loss"]) for row in csv.DictReader(io.StringIO("\n".join(steps)))])


def test_two_ranks_run_to_valid_and_the_log_passes_the_official_checker(sciml: Command) -> None:
    done = sciml("--epochs", "3", ranks=2)
    assert done.returncode == 0, done.stdout + done.stderr
    verdict, merit = done.stdout.splitlines()[-2:]
    record = sciml.record()
    assert verdict == "VALID"
    assert merit.startswith("FOM: time_to_convergence_s = ")
    assert f"samples_per_s = {record['fom']['samples_per_s']:.6g}" in merit
    assert record["job"]["engine"] == "horovod"
    assert record["job"]["ranks"] == 2
    assert record["staging"]["read_amplification"] == 1.0
    assert [line.split()[-1] for line in record["compliance"][:4]] == ["SUCCESS"] * 4
    assert record["log_sha256"] == hashlib.sha256(sciml.log().encode()).hexdigest()
    assert record["time"]["time_to_convergence_s"] >= record["time"]["staging_s"] > 0
    assert not list(sciml.folder.glob("*.checkpoint"))


def test_the_same_seed_twice_gives_identical_losses_and_another_does_not(sciml: Command) -> None:
    for seed in ("1", "1", "2"):
        assert sciml("--epochs", "1", "--seed", seed, ranks=2).returncode == 0
    assert sciml.steps(0) == sciml.steps(1) != sciml.steps(2)


def test_two_ranks_see_the_losses_of_one_at_the_same_global_batch(sciml: Command) -> None:
    plain = ("--set", "train.optimizer=sgd")  # Adam divides by the gradients' sizes: rounding in small ones grows
    for ranks in (1, 2):
        assert sciml("--epochs", "1", "--system", f"n{ranks}", *plain, ranks=ranks).returncode == 0
    one, two = (
        losses((sciml.results / f"n{n}/strong/cloudmask/result_0.steps.csv").read_text().splitlines()) for n in (1, 2)
    )
    np.testing.assert_allclose(two, one, rtol=2e-5)


def test_a_missed_target_is_invalid_and_has_no_figure_of_merit(sciml: Command) -> None:
    manifest = sciml.results.parent / "own.yaml"
    hard = dataset(target={"metric": "eval_accuracy", "direction": "max", "value": 0.9999, "source": "a test"})
    manifest.write_text(yaml.safe_dump({"datasets": {"clouds": hard}}))
    done = sciml("--epochs", "1", "--manifest", str(manifest))
    assert done.returncode == 1
    verdict, merit = done.stdout.splitlines()[-2:]
    assert verdict.startswith("INVALID: target not met: eval_accuracy is 0.")
    assert merit.startswith("FOM: none")
    assert sciml.record()["fom"] is None
    assert '"status": "aborted"' in sciml.log()


def test_fixed_work_does_all_epochs_whatever_the_target(sciml: Command) -> None:
    done = sciml("--epochs", "2", "--fixed-work", "--engine", "single", "--staging", "none")
    assert done.returncode == 0, done.stdout + done.stderr
    verdict, merit = done.stdout.splitlines()[-2:]
    assert "no Horovod" in verdict  # nothing falls back in silence
    assert "not staged" in verdict
    assert merit.startswith("FOM: samples_per_s = ")
    assert sciml.record()["time"]["epochs"] == 2


def test_files_in_the_published_format_give_the_run_of_the_embedded_path(sciml: Command, tmp_path: Path) -> None:
    def command(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "sciml_hpc", *arguments],
            cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=240,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    own = str(sciml.place / "own.yaml")
    told = command("simulate", "cloudmask", "--dataset", "clouds", "--manifest", own, "--output", "granules")
    files = list((tmp_path / "granules").rglob("S3A*.hdf"))
    assert len(files) >= 10  # 7 scenes of 20 patches for training, 3 for validation, and those kept apart between them
    (tmp_path / "files.yaml").write_text(told[told.index("datasets:") :])
    command("prepare", "cloudmask", "--manifest", "files.yaml", "--dataset", "my-clouds")
    assert sciml("--epochs", "1").returncode == 0
    own_files = ["--manifest", str(tmp_path / "files.yaml"), "--dataset", "my-clouds", "--data", str(tmp_path / "data")]
    assert sciml("--epochs", "1", *own_files).returncode == 0
    assert sciml.steps(0) == sciml.steps(1)
    assert sciml.record(0)["metrics"] == sciml.record(1)["metrics"]


def test_a_batch_that_the_ranks_cannot_share_is_refused_once_before_anything_is_done(sciml: Command) -> None:
    done = sciml("--epochs", "1", ranks=3)
    assert done.returncode == 2
    assert done.stderr.count("error: train.global_batch=16 cannot be shared evenly by 3 ranks") == 1
    assert not sciml.results.exists()


def test_io_and_comm_measure_parts_of_a_run_on_their_own(sciml: Command, tmp_path: Path) -> None:
    figures = {}
    for command in ("io", "comm"):
        arguments = [command, *sciml.arguments("--json", str(tmp_path / f"{command}.json"))]
        done = subprocess.run(
            ["mpirun", "-n", "2", sys.executable, "-m", "sciml_hpc", *arguments],
            cwd=sciml.place, env=environment(), capture_output=True, text=True, timeout=240,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        figures[command] = json.loads((tmp_path / f"{command}.json").read_text())
    cold, warm = figures["io"]["cold"], figures["io"]["warm"]
    epoch_bytes = 128 * (9 * 4 + 1) * 32 * 32  # every training sample once: nine float32 channels and a mask
    assert cold["app_read_bytes"] == warm["app_read_bytes"] == epoch_bytes
    if cold["cache_state"] == "cold":  # not where the temporary directory is memory
        assert cold["device_read_bytes"] >= 0.9 * epoch_bytes
    assert warm["device_read_bytes"] == 0
    by = {row["by"] for row in figures["comm"]}
    assert by == {"horovod (MPI)", "plain MPI"}
    assert all(row["correct"] for row in figures["comm"])
    gradients = {row["bytes"] for row in figures["comm"] if row["gradient"]}
    assert len(gradients) == 1
    for row in figures["comm"]:  # nccl-tests: 2(n - 1)/n = 1 for two ranks
        assert row["busbw_bytes_per_s"] == pytest.approx(row["bytes"] / row["time_median_s"])
