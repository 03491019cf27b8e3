"""The watchdog: a lost rank ends all others, the user is told once which it was, and an orderly end is no alarm."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from plain_ranks import Job, aborts_late, alone, alone_aborts, cannot_go_on, orderly, refused, sleep
from toy import clean_environment, mpirun

from sciml_hpc.errors import FAULT
from sciml_hpc.parallel import watchdog

HOST = socket.gethostname()


@pytest.fixture
def job(tmp_path) -> Iterator[Callable[..., Job]]:
    made = []

    def make(ranks: int, act: Any = sleep, ready: bool = True, **settings: float) -> Job:
        made.append(Job(ranks, tmp_path, act, **settings))
        if ready:
            assert made[-1].wait_ready() == [""] * ranks
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.mark.parametrize(("ranks", "lost"), [(2, 1), (3, 1), (5, 0)])
def test_a_killed_rank_ends_all_others_and_is_named_once(job, ranks: int, lost: int):
    running = job(ranks)
    when = running.kill(lost)
    expected = [FAULT] * ranks
    expected[lost] = -signal.SIGKILL
    assert running.ends() == expected
    reports = running.reports()
    assert set(reports) == set(range(ranks)) - {lost}
    assert {message for _, _, message in reports.values()} == {f"rank {lost} on {HOST} was lost (its process ended)"}
    assert [rank for rank, (_, speaks, _) in reports.items() if speaks] == [ranks - 1 if lost == 0 else 0]
    assert max(t for t, _, _ in reports.values()) - when < 5


@pytest.mark.parametrize("lost", [(0, 1, 2), (2, 3), (1, 3)])
def test_a_whole_node_lost(job, lost: tuple[int, ...]):
    running = job(5)
    running.kill(*lost)
    assert [status for rank, status in enumerate(running.ends()) if rank not in lost] == [FAULT] * (5 - len(lost))
    reports = running.reports()
    assert set(reports) == set(range(5)) - set(lost)
    assert all(any(f"rank {r} on {HOST} was lost" in m for r in lost) for _, _, m in reports.values())
    assert [rank for rank, (_, speaks, _) in reports.items() if speaks] == [4 if 0 in lost else 0]


def test_a_rank_that_falls_silent_is_lost_too(job):
    running = job(3, SILENCE_S=2.0, BEAT_S=0.2)
    os.kill(running.ranks[1].pid, signal.SIGSTOP)
    when = time.monotonic()
    assert running.ends(1) == [FAULT, None, FAULT]
    reports = running.reports()
    assert {message for _, _, message in reports.values()} == {f"rank 1 on {HOST} was lost (no sign of life for 2 s)"}
    assert set(reports) == {0, 2}
    assert all(1.5 < t - when < 8 for t, _, _ in reports.values())


def test_a_job_that_was_stopped_as_a_whole_goes_on(job):
    running = job(3, SILENCE_S=1.5, BEAT_S=0.2)
    for process in running.ranks:
        os.kill(process.pid, signal.SIGSTOP)
    time.sleep(3)
    for process in running.ranks:
        os.kill(process.pid, signal.SIGCONT)
    time.sleep(1.5)
    assert running.reports() == {}
    assert all(process.is_alive() for process in running.ranks)


def test_ranks_that_end_at_different_times_raise_no_alarm(job):
    running = job(4, orderly, SILENCE_S=1.0, BEAT_S=0.1)
    assert running.ends() == [0, 0, 0, 0]
    assert running.reports() == {}


def test_a_rank_that_cannot_go_on_ends_all_and_rank_0_speaks(job):
    running = job(4, cannot_go_on, ready=False)
    assert running.ends() == [FAULT] * 4
    reports = running.reports()
    assert {message for _, _, message in reports.values()} == {"rank 2 on n1: OSError: no space\nleft"}
    assert {rank: speaks for rank, (_, speaks, _) in reports.items()} == {0: True, 1: False, 2: False, 3: False}


def test_an_exception_that_follows_from_the_loss_does_not_cut_the_report_short(job):
    running = job(3, aborts_late)
    running.kill(2)
    assert running.ends() == [FAULT, FAULT, -signal.SIGKILL]
    assert {m for _, _, m in running.reports().values()} == {f"rank 2 on {HOST} was lost (its process ended)"}


def test_a_world_of_one(job):
    assert job(1, alone).ends() == [0]
    running = job(1, alone_aborts, ready=False)
    assert running.ends() == [FAULT]
    assert running.reports()[0][1:] == (True, "broken")


def test_without_tcp_nobody_watches_the_reason_is_known_and_an_abort_is_mpis(job, tmp_path, monkeypatch):
    running = job(3, refused, ready=False, CONNECT_S=0.0)
    reasons = running.wait_ready()
    assert len(set(reasons)) == 1
    assert reasons[0].startswith(f"no TCP connection from {HOST} to {HOST} (")
    assert running.ends() == [0, FAULT, 0]
    assert (tmp_path / "aborted1").exists()
    assert running.reports()[1][1:] == (True, "rank 1 broke")


def test_strangers_who_connect_are_sent_away():
    with socket.create_server(("127.0.0.1", 0), backlog=8) as server:
        server.settimeout(5)
        port = server.getsockname()[1]
        silent = socket.create_connection(("127.0.0.1", port))
        wrong = socket.create_connection(("127.0.0.1", port))
        wrong.sendall(b"GET / HTTP/1.1\r\n" * 4)
        right = watchdog._connect(HOST, 1, [], port, "t" * 32, same_host=True)
        guard = watchdog.Watchdog.__new__(watchdog.Watchdog)
        accepted = guard._accept(server, "t" * 32)
        right.sendall(b"x")
        assert accepted.recv(1) == b"x"
        for end in (silent, wrong, right, accepted):
            end.close()


def test_closing_twice_and_threads_are_gone(job):
    class World:
        rank, size, is_root, comm, host = 0, 1, True, None, "n"

    guard = watchdog.Watchdog(World(), lambda message, speaks: None)
    guard.close()
    guard.close()


SCRIPT = """
import os, sys, time
from sciml_hpc.parallel.world import join
from sciml_hpc.parallel.watchdog import Watchdog
world = join()
guard = Watchdog(world, lambda message, speaks: print(message, flush=True) if speaks else None)
assert guard.unavailable is None
print(f"pid {world.rank} {os.getpid()}", flush=True)
if sys.argv[1] == "end":
    time.sleep(world.rank)
    guard.close()
else:
    world.comm.Barrier()
    if world.rank != 1:
        world.comm.recv(source=1)  # for ever
    time.sleep(100)
"""


@pytest.mark.parametrize("what", ["end", "kill"])
def test_under_mpirun(what: str, tmp_path: Path):
    (tmp_path / "job.py").write_text(SCRIPT)
    command = [*mpirun(3), str(tmp_path / "job.py"), what]
    with subprocess.Popen(
        command, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as launched:
        pids: dict[str, int] = {}
        while len(pids) < 3:
            _, rank, pid = launched.stdout.readline().split()
            pids[rank] = int(pid)
        if what == "end":
            out, err = launched.communicate(timeout=60)
            assert launched.returncode == 0, out + err
            assert "lost" not in out
            return
        time.sleep(1)
        os.kill(pids["1"], signal.SIGKILL)
        out, err = launched.communicate(timeout=30)
        assert launched.returncode != 0
        # Open MPI's mpirun sees the loss, too, and may end the others before they have spoken.
        assert f"rank 1 on {HOST} was lost" in out or "on signal 9" in err, out + err
        for pid in pids.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(pid).wait(timeout=10)
