"""Runs that are stopped, broken or given something bad: what the user sees, and that nothing is lost."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path

import pytest
from runs.conftest import Command, ranks_of, send, wait_for

from sciml_hpc.results.consistency import contradictions
from sciml_hpc.results.runs import load

LONG = ["--epochs", "400", "--fixed-work"]


def test_a_run_ended_by_a_signal_and_resumed_has_the_losses_of_the_uninterrupted_one(sciml: Command) -> None:
    whole = Command(sciml.place, sciml.results.parent / "whole")
    assert whole("--epochs", "4", "--fixed-work", ranks=2).returncode == 0
    process = sciml.start("--epochs", "4", "--fixed-work", "--set", "loader.prefetch=1", ranks=2)
    wait_for(lambda: '"epoch_stop"' in sciml.log())
    send(ranks_of(process.pid)[:1], signal.SIGUSR1)  # one rank gets it, all stop
    stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert stdout.splitlines()[-2].startswith("INVALID: interrupted by SIGUSR1 at epoch ")
    assert "--resume" in stdout.splitlines()[-2]
    assert (sciml.folder / "result_0.checkpoint").exists()

    other = sciml("--epochs", "3", "--fixed-work", "--resume", ranks=2)  # not the same run
    assert other.returncode == 2
    assert "config.train.epochs: it was 4, now it is 3" in other.stderr
    done = sciml("--epochs", "4", "--fixed-work", "--set", "loader.prefetch=1", "--resume", ranks=2)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sciml.steps() == whole.steps()
    assert sciml.record()["metrics"] == whole.record()["metrics"]
    assert sciml.record()["time"]["interrupted_s"] > 0
    assert '"key": "resumed"' in sciml.log()
    assert list(contradictions(load(sciml.folder / "result_0.txt"))) == []
    assert not (sciml.folder / "result_0.checkpoint").exists()


def test_a_killed_rank_ends_the_run_with_its_log_kept(sciml: Command) -> None:
    process = sciml.start(*LONG, ranks=2)
    wait_for(lambda: '"epoch_stop"' in sciml.log())
    victim = next(p for p in ranks_of(process.pid) if _rank(p) == "1")
    start = time.monotonic()
    send([victim], signal.SIGKILL)
    process.communicate(timeout=60)
    assert time.monotonic() - start < 60
    assert process.returncode != 0
    assert '"key": "epoch_stop"' in sciml.log()


def test_a_loss_that_is_not_finite_names_epoch_step_and_rank(sciml: Command) -> None:
    done = sciml("--set", "train.base_lr=1e30", "--set", "train.optimizer=sgd", ranks=2)
    assert done.returncode == 3
    verdict = done.stdout.splitlines()[-2]
    assert verdict.startswith("INVALID: the loss became ")
    assert "at epoch 1, step " in verdict
    assert ", rank 0 on " in verdict or ", rank 1 on " in verdict
    assert '"key": "fault"' in sciml.log()
    assert sciml.record()["verdict"] == "INVALID"


@pytest.mark.parametrize("fault", ["missing", "truncated", "flipped"])
def test_a_bad_shard_is_named_and_nothing_stays_on_the_node(sciml: Command, tmp_path: Path, fault: str) -> None:
    shutil.copytree(sciml.place / "data", tmp_path / "data")
    shard = sorted((tmp_path / "data" / "clouds").glob("train-*.h5"))[1]
    if fault == "missing":
        shard.unlink()
    else:
        content = bytearray(shard.read_bytes())
        content[-5000] ^= 1
        shard.write_bytes(content[:-1] if fault == "truncated" else content)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    done = sciml("--data", str(tmp_path / "data"), "--scratch", str(scratch))
    assert done.returncode == (3 if fault == "flipped" else 2)  # found when the clock runs; before anything is spent
    assert shard.name in done.stderr
    told = {"missing": "No such file", "truncated": "bytes, the index says", "flipped": "SHA-256 is"}[fault]
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(scratch.rglob("*.h5"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "train.base_rl=1"], "unknown key 'train.base_rl' (did you mean 'train.base_lr'?)"),
        (["--set", "train.epochs=0"], "--set train.epochs=0: train.epochs: found 0; input should be greater than 0"),
        (["--dataset", "cloud"], "unknown data set 'cloud' (did you mean 'clouds'?)"),
        (["--preset", "huge"], "benchmark cloudmask has no preset 'huge'"),
        (["--output", "/proc/nowhere"], "results cannot be written to /proc/nowhere/here/strong/cloudmask"),
        (["--scratch", "/nowhere"], "no writable node-local directory: tried /nowhere (--scratch)"),
        (["--manifest", "/nowhere.yaml"], "/nowhere.yaml: cannot be read"),
        (["--resume"], "--resume: no checkpoint of an interrupted run"),
    ],
)
def test_a_mistake_is_one_message_and_status_2(sciml: Command, arguments: list[str], message: str) -> None:
    done = sciml(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(sciml.results.rglob("*.txt"))


def _rank(pid: int) -> str:
    environment = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(line.partition("=")[::2] for line in environment if line)["OMPI_COMM_WORLD_RANK"]
