"""The two ways a run can end early, and the exit status each gives."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

VALID, INVALID, USER_ERROR, FAULT = 0, 1, 2, 3
"""Exit statuses: valid result; ran but invalid; the user's input is wrong; a fault of the run."""


class UserError(Exception):
    """Something the user wrote cannot be used; the message names it and the way out. Exit status 2."""


class RunFault(Exception):
    """The run broke: a lost rank, storage, a number that is not finite. Exit status 3."""


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """`" (did you mean 'x'?)"` for the closest allowed word, or nothing."""
    close = difflib.get_close_matches(word, list(allowed), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
