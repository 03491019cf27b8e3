"""What a user sees while a run goes on: rank 0 alone writes; a bar on a terminal, plain lines otherwise."""

from __future__ import annotations

import os
import sys
import time
from typing import TextIO

from sciml_hpc.launch import expected_size

LINE_EVERY_S = 30.0
"""Without a terminal, a line of progress within an epoch at most so often."""
BAR_WIDTH = 28


class Console:
    """Lines and progress on standard output; silent on all ranks but the one that speaks."""

    def __init__(self, speaks: bool, stream: TextIO | None = None) -> None:
        self._speaks = speaks
        self._stream = stream or sys.stdout
        self._terminal = self._stream.isatty() and _seen_by_user()
        self._bar = False
        self._last = time.monotonic()

    def line(self, text: str = "") -> None:
        """A line that stays."""
        if self._speaks:
            self._clear()
            print(text, file=self._stream, flush=True)

    def error(self, text: str) -> None:
        """A line on standard error."""
        if self._speaks:
            self._clear()
            print(text, file=sys.stderr, flush=True)

    def progress(self, what: str, done: int, total: int, more: str = "") -> None:
        """How far something is; overwritten by what follows."""
        now = time.monotonic()
        if not self._speaks or (now - self._last < (0.1 if self._terminal else LINE_EVERY_S)):
            return
        self._last = now
        if self._terminal:
            filled = BAR_WIDTH * done // max(1, total)
            bar = "█" * filled + "·" * (BAR_WIDTH - filled)
            self._stream.write(f"\r\x1b[K{what} {bar} {done}/{total} {more}")
            self._stream.flush()
            self._bar = True
        else:
            print(f"{what} {done}/{total} {more}".rstrip(), file=self._stream, flush=True)

    def _clear(self) -> None:
        if self._bar:
            self._stream.write("\r\x1b[K")
            self._bar = False


def _seen_by_user() -> bool:
    """Whether this process' terminal is the user's: mpirun gives its ranks one of their own, even into a pipe."""
    if not expected_size()[1]:
        return True
    try:
        return os.readlink(f"/proc/{os.getppid()}/fd/1").startswith("/dev/pts")
    except OSError:
        return False
