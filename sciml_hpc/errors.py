"""The two ways a run can end early, and the exit status each gives."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, get_args

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

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


def explain(where: str, error: ValidationError, model: type[BaseModel] | None = None, section: str = "") -> UserError:
    """A UserError naming file (`where`), field, what was found and what is allowed, for each fault pydantic saw.

    Names are given below `section`. With `model`, an unknown field is compared with the fields of that model, or of the
    part of it that it stands in.
    """
    lines = []
    for fault in error.errors(include_url=False):
        name = section + ".".join(str(part) for part in fault["loc"]) or "(top level)"
        if fault["type"] == "extra_forbidden":
            *there, last = fault["loc"]
            allowed = _fields(model, there)
            known = f"; allowed: {', '.join(allowed)}" if allowed else ""
            lines.append(f"{where}: unknown field {name!r}{did_you_mean(str(last), allowed)}{known}")
        elif fault["type"] == "missing":
            lines.append(f"{where}: field {name!r} is missing")
        else:
            lines.append(f"{where}: {name}: found {fault['input']!r}; {fault['msg'][0].lower()}{fault['msg'][1:]}")
    return UserError("\n".join(lines))


def _fields(model: Any, location: Sequence[str | int]) -> list[str]:
    """Fields of the model at a location of pydantic's below `model`; of a union, the member with such a `kind`; of a
    mapping or a sequence, its elements'.
    """
    for part in location:
        if part in getattr(model, "model_fields", {}):
            model = model.model_fields[part].annotation
        else:
            inner = [m for m in get_args(model) if hasattr(m, "model_fields")]
            kinds = {
                k: m for m in inner if "kind" in m.model_fields for k in get_args(m.model_fields["kind"].annotation)
            }
            model = kinds.get(part) if kinds else next(iter(inner), None)
    models = [m for m in (model, *get_args(model)) if hasattr(m, "model_fields")]
    return list(models[0].model_fields) if models else []
