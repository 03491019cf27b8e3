"""What a user sees: lines that stay, and progress that does not fill a log."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys

import pytest
from toy import clean_environment

from sciml_hpc import console
from sciml_hpc.console import Console


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def test_ranks_that_do_not_speak_are_silent(capsys, clock):
    silent = Console(False)
    silent.line("x")
    silent.error("x")
    clock[0] += 1000
    silent.progress("x", 1, 2)
    assert capsys.readouterr() == ("", "")


def test_lines_and_errors(capsys):
    speaking = Console(True)
    speaking.line("found")
    speaking.line()
    speaking.error("wrong")
    assert capsys.readouterr() == ("found\n\n", "wrong\n")


def test_into_a_file_progress_is_a_plain_line_now_and_then(clock):
    out = io.StringIO()
    speaking = Console(True, out)
    for second in range(1, 101):
        clock[0] = 100.0 + second
        speaking.progress("epoch 1/9", second, 100, "loss 1.0")
    assert out.getvalue().splitlines() == [f"epoch 1/9 {s}/100 loss 1.0" for s in (30, 60, 90)]
    assert "\x1b" not in out.getvalue()
    assert "\r" not in out.getvalue()


def test_on_a_terminal_it_is_a_bar_that_the_next_line_replaces(clock, monkeypatch):
    monkeypatch.setattr(console, "_seen_by_user", lambda: True)
    out = Terminal()
    speaking = Console(True, out)
    for k in range(5):
        clock[0] += 0.06
        speaking.progress("shards", k, 4)
    bars = out.getvalue().split("\r\x1b[K")[1:]
    assert len(bars) == 2  # at most one in 0.1 s
    assert bars[0] == "shards " + "█" * 7 + "·" * 21 + " 1/4 "
    speaking.line("done")
    assert out.getvalue().endswith("\r\x1b[Kdone\n")
    speaking.line("more")
    assert out.getvalue().endswith("done\nmore\n")


def test_a_bar_in_a_real_terminal_but_not_in_mpiruns_own(tmp_path):
    code = (
        "from sciml_hpc import console; console.LINE_EVERY_S = 0; c = console.Console(True); c._last = 0\n"
        "c.progress('p', 1, 2)"
    )

    def shown(**environment: str) -> bytes:
        master, slave = pty.openpty()
        # The parent's own output (here: this process') goes to a file or pipe under pytest.
        with subprocess.Popen(
            [sys.executable, "-c", code], env=clean_environment(**environment), stdout=slave
        ) as child:
            os.close(slave)
            child.wait()
        text = os.read(master, 10_000)
        os.close(master)
        return text

    assert shown() == "\r\x1b[Kp ██████████████·············· 1/2 ".encode()
    if not os.readlink("/proc/self/fd/1").startswith("/dev/pts"):
        assert shown(OMPI_COMM_WORLD_SIZE="2") == b"p 1/2\r\n"
