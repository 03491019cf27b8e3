"""The wish to stop: known to all ranks at the same step, one call late, never blocking."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from toy import clean_environment
from worlds import alone

from sciml_hpc.training import signals
from sciml_hpc.training.signals import BROKEN, GO, STOP, StopFlag

pytest_plugins = ["mpi_fixtures"]


@pytest.fixture
def flag():
    made = StopFlag(alone())
    yield made
    made.close()


def test_without_signals_it_goes_on(flag):
    assert [flag.agree(False) for _ in range(5)] == [GO] * 5
    assert flag.settle() == GO
    assert flag.received is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_is_known_one_call_late_and_stays_known(flag, number: signal.Signals):
    assert flag.agree(False) == GO
    os.kill(os.getpid(), number)
    assert flag.received == number.name
    assert flag.agree(False) == GO
    assert [flag.agree(False) for _ in range(3)] == [STOP] * 3


def test_how_often_to_agree_follows_from_the_time_of_a_step_one_call_late(flag, monkeypatch):
    monkeypatch.setattr(signals, "LOOK_S", 0.05)
    seen = [flag.every]
    for step_s in (0.01, 0.2, 0.0, 1e-6, 0.0):
        assert flag.agree(False, step_s) == GO
        seen.append(flag.every)
    assert seen == [1, 1, 5, 1, 1, 32]  # 0: as it was
    assert flag.settle() == GO
    assert flag.every == 32


def test_settling_knows_at_once(flag):
    flag.agree(False)
    os.kill(os.getpid(), signal.SIGUSR1)
    assert flag.settle() == STOP
    assert flag.settle(broken=True) == BROKEN


def test_a_broken_loss_weighs_more_than_a_signal(flag):
    os.kill(os.getpid(), signal.SIGTERM)
    flag.agree(True)
    assert flag.agree(False) == BROKEN


def test_handlers_are_given_back():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    made = StopFlag(alone())
    assert all(signal.getsignal(number) != handler for number, handler in before.items())
    made.agree(False)
    made.close()
    assert {number: signal.getsignal(number) for number in before} == before


def test_a_second_signal_ends_the_process_at_once():
    code = (
        "import os, signal\nfrom sciml_hpc.parallel.world import join\n"
        "from sciml_hpc.training.signals import StopFlag\n"
        "flag = StopFlag(join())\n"
        "for k in range(2):\n    os.kill(os.getpid(), signal.SIGTERM); print(flag.received, flush=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean_environment(), capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("SIGTERM\n", -signal.SIGTERM)


def test_a_warning_may_come_twice(flag):
    for _ in range(3):  # from the batch system and from an operator, say
        os.kill(os.getpid(), signal.SIGUSR1)
    assert flag.received == "SIGUSR1"
    assert flag.settle() == STOP


@pytest.mark.mpi(min_size=2)
def test_a_signal_on_one_rank_stops_all_at_the_same_call(world):
    made = StopFlag(world)
    calls = [made.agree(False)]
    if world.rank == world.size - 1:
        os.kill(os.getpid(), signal.SIGUSR1)
    calls += [made.agree(False) for _ in range(3)]
    broken = [made.agree(world.rank == 0), made.agree(False)]
    received = made.received
    made.close()
    assert calls == [GO, GO, STOP, STOP]
    assert broken == [STOP, BROKEN]
    assert (received is not None) == (world.rank == world.size - 1)


@pytest.mark.mpi(min_size=2)
def test_all_ranks_agree_next_after_as_many_steps_as_the_slowest_makes_in_the_time(world, monkeypatch):
    monkeypatch.setattr(signals, "LOOK_S", 0.05)
    made = StopFlag(world)
    for _ in range(2):
        made.agree(False, 0.011 if world.rank == world.size - 1 else 0.001)
    every = made.every
    made.close()
    assert world.comm.allgather(every) == [4] * world.size
