"""Checkpoints: bit-equal, atomic, and nothing in them is ever executed."""

from __future__ import annotations

import os
import pickle
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from sciml_hpc.errors import UserError
from sciml_hpc.training.checkpoint import Checkpointer, State, load


def made(kind: type = torch.optim.Adam, width: int = 8, seed: int = 1) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(4, width), torch.nn.BatchNorm1d(width), torch.nn.Linear(width, 1))
    more = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    return model, kind(model.parameters(), lr=0.01, **more)


def train(model: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        (model(x) - x.sum(1, keepdim=True)).square().mean().backward()
        optimizer.step()


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


STATE = State(
    epoch=3,
    step=7,
    history={"epochs": [{"epoch": 1, "train_loss": 0.1 + 0.2}], "step_losses": [[1 / 3, 2.0]], "partial": [0.25]},
    schedule={"factor": 0.5, "best": float("inf"), "waited": 2},
)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.Adamax, torch.optim.SGD])
def test_everything_comes_back_bit_for_bit_and_training_goes_on_the_same(tmp_path, kind):
    model, optimizer = made(kind)
    train(model, optimizer, range(5))
    saver = Checkpointer(tmp_path / "c")
    saver.save(STATE, model, optimizer)
    saver.wait()
    again, resumed = made(kind, seed=2)
    assert load(tmp_path / "c", again, resumed) == STATE
    assert equal(model.state_dict(), again.state_dict())
    assert equal(optimizer.state_dict(), resumed.state_dict())
    for each in ((model, optimizer), (again, resumed)):
        train(*each, range(5, 9))
    assert equal(model.state_dict(), again.state_dict())


def test_what_is_saved_is_the_state_at_that_moment(tmp_path, monkeypatch):
    """Writing goes on in a thread while training changes the weights."""
    model, optimizer = made()
    train(model, optimizer, range(3))
    go = threading.Event()
    real = torch.save

    def slow(*arguments: Any, **more: Any) -> None:
        go.wait(10)
        real(*arguments, **more)

    monkeypatch.setattr(torch, "save", slow)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    saver = Checkpointer(tmp_path / "c")
    begin = time.perf_counter()
    saver.save(STATE, model, optimizer)
    assert time.perf_counter() - begin < 5  # it did not wait for the file
    train(model, optimizer, range(3, 6))
    assert not (tmp_path / "c").exists()
    go.set()
    saver.wait()
    again, resumed = made()
    load(tmp_path / "c", again, resumed)
    assert equal(before, again.state_dict())
    assert not equal(before, model.state_dict())


def test_a_write_that_fails_leaves_the_one_before_and_is_told(tmp_path, monkeypatch):
    model, optimizer = made()
    saver = Checkpointer(tmp_path / "c")
    saver.save(STATE, model, optimizer)
    saver.wait()
    content = (tmp_path / "c").read_bytes()

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    train(model, optimizer, range(1))
    saver.save(STATE, model, optimizer)
    with pytest.raises(OSError, match="No space left"):
        saver.wait()
    assert (tmp_path / "c").read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == ["c"]
    monkeypatch.undo()
    saver.save(STATE, model, optimizer)  # told once; the next may work
    saver.wait()
    assert (tmp_path / "c").read_bytes() != content


def test_an_error_of_the_last_write_is_told_by_the_next(tmp_path):
    model, optimizer = made()
    saver = Checkpointer(tmp_path / "no" / "such" / "folder")
    saver.save(STATE, model, optimizer)
    with pytest.raises(OSError, match="No such file"):
        saver.save(STATE, model, optimizer)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    model, optimizer = made(width=300)
    train(model, optimizer, range(2))
    saver = Checkpointer(tmp_path / "c")
    saver.save(STATE, model, optimizer)
    saver.wait()
    return tmp_path / "c"


def mistake(path: Path, width: int = 300) -> str:
    with pytest.raises(UserError) as caught:
        load(path, *made(width=width))
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_missing_file(tmp_path):
    assert "cannot be read: No such file" in mistake(tmp_path / "none")


def test_another_model(saved):
    assert "is damaged or of another model: " in mistake(saved, width=7)


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.99])
def test_a_truncated_file(saved, keep: float):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(len(content) * keep)])
    assert "is damaged or of another model: " in mistake(saved)


def test_a_flipped_bit_in_the_weights_is_found(saved):
    content = bytearray(saved.read_bytes())
    weight = made(width=300)[0][0].weight
    model, optimizer = made(width=300)
    load(saved, model, optimizer)
    position = content.find(model[0].weight.detach().numpy().tobytes())
    assert position > 0
    assert weight.numel() == 1200
    content[position + 1001] ^= 4
    saved.write_bytes(content)
    assert "is damaged or of another model: " in mistake(saved)


def test_other_content(saved, tmp_path):
    for content in ([1, 2], {"epoch": 1}, {"model": 3, "optimizer": 4}):
        torch.save(content, tmp_path / "other")
        assert "is damaged or of another model: " in mistake(tmp_path / "other")
    (tmp_path / "other").write_text("hello")
    assert "is damaged or of another model: " in mistake(tmp_path / "other")


class Payload:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {Payload.file}",)


def test_nothing_in_a_file_is_executed(saved, tmp_path):
    Payload.file = tmp_path / "executed"
    (tmp_path / "evil").write_bytes(pickle.dumps(Payload()))
    mistake(tmp_path / "evil")
    torch.save({"model": Payload()}, tmp_path / "evil")
    assert "weights" in mistake(tmp_path / "evil").lower()
    assert not (tmp_path / "executed").exists()
