"""A training step of any network leaves the device to itself: the host sends it nothing and asks it nothing.

Otherwise it would wait for a GPU at every step. Here the device is torch's `meta`, on which nothing is computed; every
operator is looked at. (With a GPU: tests/training/test_training_on_gpu.py.)
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from networks import networks, samples
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sciml_hpc.benchmarks.base import Benchmark
from sciml_hpc.training.forward import forward

META = torch.device("meta")


ASKING = {
    getattr(torch.Tensor, name)
    for name in ("__bool__", "__float__", "__int__", "cpu", "item", "nonzero", "numpy", "tolist")
}
"""What the host asks of a tensor, and waits for."""


class CrossingError(Exception):
    """Something goes between host and device."""


class Operators(TorchDispatchMode):
    """Finds operators with tensors of host and device; a number (of no dimensions) may pass to the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        given, made = (
            [x for x in tree_leaves(tree) if isinstance(x, torch.Tensor)] for tree in ((args, kwargs), result)
        )
        on_host = any(x.dim() for x in given if x.device != META) or (given and any(x.device != META for x in made))
        if on_host and any(x.device == META for x in (*given, *made)):
            raise CrossingError(f"{func} has tensors of both")
        return result


class Calls(TorchFunctionMode):
    """Finds what never becomes an operator on `meta`: constants made there, lists and masks as indices, questions."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") == META:
            raise CrossingError("a constant is sent to the device")
        there = bool(args) and isinstance(args[0], torch.Tensor) and args[0].device == META
        if there and func is torch.Tensor.new_tensor:
            raise CrossingError("a constant is sent to the device")
        if there and func in ASKING:
            raise CrossingError(f"the host asks for {func.__name__}")
        if there and func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            if any(isinstance(x, list) or getattr(x, "dtype", None) == torch.bool for x in index):
                raise CrossingError("an index has to be sent, or its length asked for")
        return func(*args, **kwargs)


def step(benchmark: Benchmark, network: torch.nn.Module, batch: dict[str, torch.Tensor]) -> None:
    changed = benchmark.augment(batch)
    benchmark.loss(forward(benchmark, network, changed), changed).backward()


@pytest.mark.parametrize(("kind", "model"), networks())
def test_the_host_sends_nothing_and_asks_nothing(kind, model: str, monkeypatch):
    benchmark, batch = samples(kind, model)
    network = benchmark.model().to(META)
    there = {name: values.to(META) for name, values in batch.items()}
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)  # it does not know `meta`
    monkeypatch.setattr(torch, "autocast", lambda *arguments, **named: nullcontext())
    with Operators(), Calls():
        step(benchmark, network, there)


WAITING: dict[str, Callable[[torch.Tensor], Any]] = {
    "a constant": lambda x: x * x.new_tensor([1.0, 2.0]),
    "a scalar": lambda x: x * torch.tensor(2.0, device=x.device),
    "a table": lambda x: x * torch.from_numpy(np.ones(2, np.float32)).to(x.device),
    "a list as index": lambda x: x[:, [1, 0]],
    "a mask as index": lambda x: x[x > 0],
    "a mask assigned to": lambda x: x.__setitem__(x > 0, x[:1]),
    "a number": lambda x: x * float(x.sum()),
    "a condition": lambda x: x if x.sum() > 0 else -x,
    "a copy": lambda x: x.cpu(),
}


@pytest.mark.parametrize("way", WAITING)
def test_it_would_be_found(way: str):
    x = torch.zeros(3, 2, device=META)
    with pytest.raises(CrossingError), Operators(), Calls():
        WAITING[way](x)
