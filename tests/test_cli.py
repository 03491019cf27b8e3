"""The command line as others script against it: exit statuses, messages, help, and answers at once."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from toy import clean_environment, write_manifest

from sciml_hpc import benchmarks, errors
from sciml_hpc.cli import COMMANDS, main, parser

pytest_plugins = ["toy_fixtures"]

HERE = Path(__file__).parent


def command(
    *arguments: str, program: tuple[str, ...] = ("-m", "sciml_hpc"), **more: Any
) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *program, *arguments],
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
        **more,
    )


def toy_command(*arguments: str, **more: Any) -> subprocess.CompletedProcess:
    return command(*arguments, program=(str(HERE / "toy.py"),), **more)


def said(capsys: pytest.CaptureFixture, *arguments: str) -> str:
    """The message of a mistake."""
    assert main(arguments) == errors.USER_ERROR
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    return err


# --- what it says --------------------------------------------------------------------------------------------------


def test_without_arguments_it_explains_itself(capsys):
    assert main([]) == errors.VALID
    out, err = capsys.readouterr()
    assert err == ""
    for word in (*benchmarks.names(), *COMMANDS, "exit status", "srun -N 64"):
        assert word in out


@pytest.mark.parametrize(
    "arguments", [["--help"], *([name, "--help"] for name in ("list", "info", "verify", "cloudmask"))]
)
def test_help_documents_the_exit_statuses(capsys, arguments: list[str]):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    out = capsys.readouterr().out
    for status in (
        "0  VALID",
        "1  it ran, but the result is INVALID",
        "2  the user's input is wrong",
        "3  a fault of the run",
    ):
        assert status in out


def test_every_command_and_benchmark_has_help_and_work():
    (choices,) = [a.choices for a in parser()._actions if a.dest == "command"]
    assert set(choices) == {*benchmarks.names(), *COMMANDS}
    for name, made in choices.items():
        assert made.description, name
        assert made.get_default("work"), name


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["clodmask"], ["unknown benchmark or command 'clodmask' (did you mean 'cloudmask'?)", "commands: list"]),
        (["lst"], ["'lst' (did you mean 'list'?)"]),
        (["list", "--frobnicate"], ["unrecognized arguments: --frobnicate", "usage: python -m sciml_hpc"]),
        (["info"], ["the following arguments are required: NAME"]),
        (["info", "clodmask"], ["no benchmark or data set is called 'clodmask' (did you mean 'cloudmask'?)"]),
        (["cloudmask", "--epochs", "many"], ["argument --epochs: invalid int value: 'many'"]),
        (["list", "--manifest", "/no/such.yaml"], ["/no/such.yaml: cannot be read"]),
        (["--frobnicate"], ["--frobnicate"]),
        (["--"], ["usage: python -m sciml_hpc"]),  # what argparse says of it differs from one Python to the next
        (["check", "/no/such/result_0.txt"], ["/no/such/result_0.txt"]),
    ],
)  # fmt: skip
def test_a_mistake_is_one_message(capsys, arguments: list[str], parts: list[str]):
    message = said(capsys, *arguments)
    assert all(part in message for part in parts), message


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("sciml_hpc 0.")


def test_only_the_first_process_of_a_job_speaks(capsys, monkeypatch):
    monkeypatch.setenv("SLURM_PROCID", "3")
    assert main(["clodmask"]) == errors.USER_ERROR
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("SLURM_PROCID", "0")
    said(capsys, "clodmask")


def test_a_pipe_that_is_closed_is_no_fault():
    shell = f"{sys.executable} -m sciml_hpc info cloudmask | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], env=clean_environment(), capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 1


# --- at once -------------------------------------------------------------------------------------------------------

QUICK = [["list"], ["info", "cloudmask"], ["--help"], ["cloudmask", "--help"], ["clodmask"], ["info", "nothing"]]


@pytest.mark.parametrize("arguments", QUICK, ids=" ".join)
def test_what_answers_at_once_imports_neither_torch_nor_mpi(arguments: list[str]):
    heavy = {"torch", "mpi4py", "horovod", "h5py", "matplotlib", "mlperf_logging"}
    if arguments[0] not in ("list", "info"):
        heavy |= {"pydantic", "yaml"}
    code = (
        "import sys; from sciml_hpc.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        f"print('imported', sorted({heavy!r} & set(sys.modules)))"
    )
    done = command(*arguments, program=("-c", code))
    assert done.stdout.splitlines()[-1] == "imported []"


def cpu_time_s(run: Callable[[], object]) -> float:
    """CPU time of the child process that `run` starts: the least of three, since others may be using the caches."""
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    return min(spent)


@pytest.mark.parametrize(("arguments", "most"), [(["list"], 7), (["clodmask"], 4)])
def test_it_takes_no_time(arguments: list[str], most: float):
    """A few times what the two libraries need alone that read what a user wrote (seen: 3.5 and 2); torch needs 15."""
    libraries = cpu_time_s(lambda: command(program=("-c", "import yaml, pydantic; pydantic.BaseModel")))
    ours = cpu_time_s(lambda: command(*arguments))
    print(f"CPU time of {' '.join(arguments)}: {ours:.2f} s, of importing pydantic and yaml: {libraries:.2f} s")
    assert ours < most * libraries


# --- statuses of whole commands ------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_manifest(tmp_path / "toys.yaml")
    return tmp_path


def test_prepare_verify_and_a_damaged_shard(folder):
    options = ("--manifest", "toys.yaml")
    first = toy_command("verify", "toy-tiny", *options, cwd=folder)
    assert first.returncode == errors.USER_ERROR
    assert first.stderr == "error: data set toy-tiny has not been prepared below data\n"

    made = toy_command("prepare", "toy", *options, cwd=folder)
    assert made.returncode == errors.VALID, made.stderr
    assert "data set toy-tiny: 203 train, 37 validation samples in 4 shards" in made.stdout

    right = toy_command("verify", "toy-tiny", *options, cwd=folder)
    assert (right.returncode, right.stdout.splitlines()[-1]) == (errors.VALID, "4 of 4 shards are intact")

    shard = folder / "data" / "toy-tiny" / "train-000001.h5"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x55")
    wrong = toy_command("verify", "toy-tiny", *options, cwd=folder)
    assert wrong.returncode == errors.INVALID
    assert wrong.stdout.splitlines()[0] == "BAD  data/toy-tiny/train-000001.h5: its SHA-256 is not that of the index"
    assert wrong.stdout.splitlines()[-1] == "3 of 4 shards are intact"


def test_simulate_writes_files_and_the_entry_to_read_them_with(folder):
    options = ("--manifest", "toys.yaml")
    made = toy_command("simulate", "toy", *options, "--output", "native", cwd=folder)
    assert made.returncode == errors.VALID, made.stderr
    assert "wrote 6 files in the published format to native" in made.stdout
    (folder / "own.yaml").write_text(made.stdout.partition("--manifest):\n\n")[2])
    own = toy_command("prepare", "toy", "--manifest", "own.yaml", "--dataset", "my-toy-tiny", cwd=folder)
    assert own.returncode == errors.VALID, own.stderr
    toy_command("prepare", "toy", *options, cwd=folder)
    ours, theirs = (sorted((folder / "data" / name).glob("*.h5")) for name in ("my-toy-tiny", "toy-tiny"))
    assert len(ours) == len(theirs) == 4

    again = toy_command("simulate", "toy", *options, "--output", "native", cwd=folder)
    assert again.returncode == errors.USER_ERROR
    assert again.stderr == "error: --output native: exists; files are only written to a new directory\n"


def test_published_data_that_is_not_there_is_an_error_with_the_command_to_get_it(folder):
    entry = {"kind": "files", "path": "published", "get": "aws s3 cp s3://toys ."}
    from toy import entry as simulated

    write_manifest(folder / "toys.yaml", real=simulated() | {"origin": entry})
    for arguments in (("prepare", "toy"), ("toy",)):
        done = toy_command(*arguments, "--manifest", "toys.yaml", "--dataset", "real", cwd=folder)
        assert done.returncode == errors.USER_ERROR
        assert "aws s3 cp s3://toys ." in done.stderr
        assert "Traceback" not in done.stderr
    hint = "  python -m sciml_hpc prepare toy --dataset real --data data --manifest FILE"
    assert done.stderr.splitlines()[-1] == hint


def test_a_mistake_in_a_run_is_found_before_anything_is_made(folder):
    for arguments, part in (
        (["--set", "train.epoch=3"], "did you mean 'train.epochs'?"),
        (["--dataset", "toy-tyny"], "did you mean 'toy-tiny'?"),
        (["--preset", "full"], "it has: tiny, small"),
        (["--set", "train.global_batch=5000"], "203 training samples, less than one global batch of 5000"),
    ):
        done = toy_command("toy", "--manifest", "toys.yaml", *arguments, cwd=folder)
        assert done.returncode == errors.USER_ERROR, done.stderr
        assert part in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert sorted(os.listdir(folder)) == ["toys.yaml"]
