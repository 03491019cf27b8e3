"""Messages for what a user got wrong, and the exit statuses others script against."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError

from sciml_hpc import errors
from sciml_hpc.benchmarks.base import Settings


class Circle(Settings):
    kind: Literal["circle"]
    radius: float = Field(gt=0)


class Square(Settings):
    kind: Literal["square"]
    side: float


class Picture(Settings):
    title: str
    pages: int = 1
    shape: Annotated[Circle | Square, Field(discriminator="kind")]
    frame: Square | None = None


def message(content: object) -> str:
    with pytest.raises(ValidationError) as caught:
        Picture.model_validate(content)
    return str(errors.explain("f.yaml", caught.value, Picture))


CIRCLE = {"kind": "circle", "radius": 1}


def test_exit_statuses_are_those_documented():
    assert (errors.VALID, errors.INVALID, errors.USER_ERROR, errors.FAULT) == (0, 1, 2, 3)


def test_unknown_field_names_the_close_one_and_what_is_allowed():
    text = message({"title": "t", "shape": CIRCLE, "pagges": 3})
    assert text == "f.yaml: unknown field 'pagges' (did you mean 'pages'?); allowed: title, pages, shape, frame"


def test_unknown_field_of_a_part_is_compared_with_the_fields_of_that_part():
    text = message({"title": "t", "shape": {**CIRCLE, "radios": 3}})
    assert "unknown field 'shape.circle.radios' (did you mean 'radius'?); allowed: kind, radius" in text
    assert "title" not in text
    assert "allowed: kind, side" in message({"title": "t", "shape": CIRCLE, "frame": {"kind": "square", "sde": 1}})


def test_missing_wrong_type_out_of_range_and_wrong_choice():
    text = message({"pages": "many", "shape": {"kind": "circle", "radius": -2}})
    assert "f.yaml: field 'title' is missing" in text
    assert "f.yaml: pages: found 'many'; input should be a valid integer" in text
    assert "radius: found -2; input should be greater than 0" in text
    assert len(text.splitlines()) == 3
    assert "'triangle'" in (text := message({"title": "t", "shape": {"kind": "triangle"}}))
    assert "'circle', 'square'" in text


def test_an_entry_that_is_no_mapping():
    assert message(None).startswith("f.yaml: (top level): found None; ")


@pytest.mark.parametrize(("word", "meant"), [("clodmask", " (did you mean 'cloudmask'?)"), ("zzz", "")])
def test_did_you_mean(word: str, meant: str):
    assert errors.did_you_mean(word, ["uno", "cloudmask"]) == meant
