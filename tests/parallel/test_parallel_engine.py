"""Gradients averaged, weights and optimiser state the same everywhere: the engines against numpy and torch."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from worlds import CPU, alone

from sciml_hpc.config import Communication
from sciml_hpc.errors import UserError
from sciml_hpc.parallel import engine as engines
from sciml_hpc.parallel.horovod import HorovodEngine
from sciml_hpc.parallel.world import World

pytest_plugins = ["mpi_fixtures"]


def network(seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    first = torch.nn.Linear(6, 5, bias=False)  # a bias here would have no gradient but rounding, which Adam magnifies
    return torch.nn.Sequential(first, torch.nn.BatchNorm1d(5), torch.nn.Tanh(), torch.nn.Linear(5, 2))


def batch(rank: int, step: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1000 * step + rank)
    return torch.randn(7, 6, generator=generator), torch.randn(7, 2, generator=generator)


def gradients(model: torch.nn.Module, rank: int, step: int = 0) -> list[np.ndarray]:
    model = copy.deepcopy(model)
    model.zero_grad()
    x, y = batch(rank, step)
    (model(x) - y).square().mean().backward()
    return [p.grad.numpy().astype(np.float64) for p in model.parameters()]


def weights(model: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: value.numpy().copy() for name, value in model.state_dict().items()}


def same_everywhere(world: World, value: object) -> bool:
    import pickle

    return len(set(world.comm.allgather(pickle.dumps(value)))) == 1


@pytest.fixture(scope="session", params=["horovod", "ddp"])
def engine(request, world) -> Iterator[engines.Engine]:
    """Every engine that joins ranks must do the same."""
    if request.param == "horovod":
        yield request.getfixturevalue("horovod")
        return
    made = engines.start(Communication(engine="ddp"), world, CPU)
    yield made
    made.close()


def train(optimizer: torch.optim.Optimizer, model: torch.nn.Module, rank: int, steps: range) -> None:
    for step in steps:
        x, y = batch(rank, step)
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()


# --- the engine that a configuration names -------------------------------------------------------------------------


def test_single_is_one_process_and_does_nothing():
    engine = engines.start(Communication(engine="single"), alone(), CPU)
    assert (engine.name, engine.version, engine.operations) == ("single", "none", "none")
    model = network(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = weights(model)
    engine.broadcast(model, optimizer)
    engine.broadcast_buffers(model)
    assert engine.wrap(optimizer, model) is optimizer
    assert all(np.array_equal(before[k], v) for k, v in weights(model).items())
    tensor = torch.tensor([1.0, 2.0])
    total = engine.allreduce(tensor)
    assert torch.equal(total, tensor)
    assert total.data_ptr() != tensor.data_ptr()
    engine.close()


def test_single_is_refused_with_several_ranks():
    with pytest.raises(UserError, match=r"communication.engine=single is for one process; there are 2 ranks"):
        engines.start(Communication(engine="single"), SimpleNamespace(size=2), CPU)


def test_horovod_that_is_not_installed_is_an_error_never_another_engine(monkeypatch):
    monkeypatch.setitem(sys.modules, "horovod", None)
    with pytest.raises(UserError, match=r"Horovod with PyTorch is not installed .*communication.engine=single"):
        engines.start(Communication(), alone(), CPU)


@pytest.mark.parametrize(("built", "size"), [(True, 1), (False, 3)])
def test_a_horovod_that_does_not_see_the_ranks_is_refused(monkeypatch, built: bool, size: int):
    hvd = SimpleNamespace(init=lambda: None, mpi_built=lambda: built, size=lambda: size)
    package = SimpleNamespace(torch=hvd, __version__="0")
    monkeypatch.setitem(sys.modules, "horovod", package)
    monkeypatch.setitem(sys.modules, "horovod.torch", hvd)
    with pytest.raises(UserError, match=rf"this Horovod sees {size} ranks where MPI has 3; .*HOROVOD_WITH_MPI=1"):
        HorovodEngine(Communication(), SimpleNamespace(size=3), CPU)


@pytest.mark.parametrize(
    ("built", "kind", "operations"), [(True, "cuda", "NCCL"), (True, "cpu", "MPI"), (False, "cuda", "MPI")]
)
def test_gradients_go_by_nccl_from_gpus_of_a_horovod_that_has_it(monkeypatch, built: bool, kind: str, operations: str):
    given = _horovod_with_nccl(monkeypatch, built)
    engine = engines.start(Communication(), SimpleNamespace(size=2), replace(CPU, torch=torch.device(kind)))
    assert engine.operations == operations
    engine.close()
    assert given == ["init", "shutdown"]


def test_ranks_that_share_a_gpu_are_not_joined_by_nccl(monkeypatch):
    given = _horovod_with_nccl(monkeypatch, True)
    shared = replace(CPU, torch=torch.device("cuda"), name="GPU X", ranks_per_accelerator=2.0)
    with pytest.raises(UserError, match=r"2 ranks share a GPU \(GPU X on n1\).*communication.backend=gloo"):
        engines.start(Communication(), SimpleNamespace(size=2, host="n1"), shared)
    assert given == ["init", "shutdown"]


@pytest.mark.parametrize(("size", "cycle_ms"), [(1, 100.0), (2, 1.0)])
def test_a_process_alone_is_neither_interrupted_nor_wrapped(monkeypatch, size: int, cycle_ms: float):
    for name in ("HOROVOD_CYCLE_TIME", "HOROVOD_FUSION_THRESHOLD"):
        monkeypatch.setenv(name, "0")  # what is set is as before afterwards
    given = _horovod_with_nccl(monkeypatch, True, size)
    engine = engines.start(Communication(), SimpleNamespace(size=size), CPU)
    assert float(os.environ["HOROVOD_CYCLE_TIME"]) == cycle_ms
    if size == 1:
        model = network(1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        engine.broadcast(model, optimizer)
        engine.broadcast_buffers(model)
        assert engine.wrap(optimizer, model) is optimizer
        assert engine.allreduce(torch.ones(2)).tolist() == [1.0, 1.0]
        assert given == ["init"]


def _horovod_with_nccl(monkeypatch, built: bool, size: int = 2) -> list[str]:
    """Puts a Horovod of `size` ranks in place of the real one; returns what it is asked to do."""
    asked: list[str] = []
    hvd = SimpleNamespace(
        init=lambda: asked.append("init"), shutdown=lambda: asked.append("shutdown"), size=lambda: size,
        mpi_built=lambda: True, nccl_built=lambda: int(built), Compression=SimpleNamespace(none=None),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "horovod", SimpleNamespace(torch=hvd, __version__="0"))
    monkeypatch.setitem(sys.modules, "horovod.torch", hvd)
    return asked


def test_what_goes_to_other_processes_is_in_the_hosts_memory_and_a_copy():
    there = torch.ones(2)
    tree = {"state": {0: {"step": there, "lr": 0.1}}, "groups": [(there, "name")]}
    copied = engines.on_host(tree)
    there += 1
    assert copied["state"][0]["step"].tolist() == copied["groups"][0][0].tolist() == [1.0, 1.0]
    assert (copied["state"][0]["lr"], copied["groups"][0][1]) == (0.1, "name")
    assert all(tensor.device.type == "cpu" for tensor in (copied["state"][0]["step"], copied["groups"][0][0]))


# --- the engines that join ranks --------------------------------------------------------------------------------------


@pytest.mark.mpi
def test_who_it_is(engine):
    import horovod as package

    names = {"horovod": ("horovod", package.__version__, "MPI"), "ddp": ("ddp", torch.__version__, "gloo")}
    assert (engine.name, engine.version, engine.operations) == names[engine.name]


def test_a_backend_that_torch_lacks_is_an_error():
    with pytest.raises(UserError, match=r"communication.backend: this torch was built without mpi; it has gloo"):
        engines.start(Communication(engine="ddp", backend="mpi"), alone(), CPU)


@pytest.mark.mpi
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
def test_allreduce_is_the_sum_and_leaves_its_argument(engine, world, dtype):
    tensor = torch.arange(5, dtype=dtype) + world.rank
    before = tensor.clone()
    total = engine.allreduce(tensor)
    n = world.size
    assert total.dtype == dtype
    assert torch.equal(total, torch.arange(5, dtype=dtype) * n + n * (n - 1) // 2)
    assert torch.equal(tensor, before)


@pytest.mark.mpi
def test_a_step_uses_the_mean_of_all_ranks_gradients(engine, world):
    model = network(3)
    optimizer = engine.wrap(torch.optim.SGD(model.parameters(), lr=0.5), model)
    engine.broadcast(model, optimizer)
    before = [p.detach().numpy().astype(np.float64) for p in model.parameters()]
    every = [gradients(model, rank) for rank in range(world.size)]
    expected = [p - 0.5 * np.mean(g, axis=0) for p, g in zip(before, zip(*every, strict=True), strict=True)]
    train(optimizer, engine.module(model), world.rank, range(1))
    for parameter, value in zip(model.parameters(), expected, strict=True):
        np.testing.assert_allclose(parameter.detach().numpy(), value, rtol=2e-6, atol=2e-7)
    assert same_everywhere(world, [p.detach().numpy() for p in model.parameters()])


@pytest.mark.mpi(min_size=2)
def test_gradients_may_travel_as_fp16(engine, world, monkeypatch):
    if engine.name == "ddp":
        monkeypatch.setattr(engine, "_settings", Communication(engine="ddp", compression="fp16"))
    else:
        monkeypatch.setattr(engine, "_compression", engine._hvd.Compression.fp16)
    model = network(3)
    every = [gradients(model, rank) for rank in range(world.size)]
    before = [p.detach().numpy().copy() for p in model.parameters()]
    optimizer = engine.wrap(torch.optim.SGD(model.parameters(), lr=1.0), model)
    train(optimizer, engine.module(model), world.rank, range(1))
    steps = [b - p.detach().numpy() for b, p in zip(before, model.parameters(), strict=True)]
    means = [np.mean(g, axis=0) for g in zip(*every, strict=True)]
    for step, mean in zip(steps, means, strict=True):
        np.testing.assert_allclose(step, mean, rtol=2e-3, atol=1e-4)
    assert any(np.abs(s - m).max() > 1e-6 for s, m in zip(steps, means, strict=True))  # it was not fp32


@pytest.mark.mpi
def test_all_ranks_get_rank_0s_weights_and_buffers(engine, world):
    model = network(10 + world.rank)
    model[1].running_mean += world.rank
    model[1].num_batches_tracked += world.rank
    engine.broadcast(model, torch.optim.SGD(model.parameters(), lr=0.1))
    expected = weights(network(10))
    assert all(np.array_equal(expected[name], value) for name, value in weights(model).items())


@pytest.mark.mpi
def test_buffers_alone_can_be_broadcast(engine, world):
    model = network(10)
    model[1].running_mean += world.rank + 1
    with torch.no_grad():
        model[3].bias += world.rank
    engine.broadcast_buffers(model)
    assert torch.equal(model[1].running_mean, torch.ones(5))
    assert torch.equal(model[3].bias, network(10)[3].bias + world.rank)
    engine.broadcast_buffers(torch.nn.Linear(2, 2))


@pytest.mark.mpi
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.Adamax, torch.optim.SGD])
def test_broadcasting_does_not_count_as_a_step_of_the_optimiser(engine, world, kind):
    """Horovod's own broadcast_optimizer_state makes a step with zero gradients: weights decay, Adam counts it."""
    more = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    model, reference = network(4), network(4)
    optimizer = engine.wrap(kind(model.parameters(), lr=0.01, weight_decay=0.3, **more), model)
    engine.broadcast(model, optimizer)
    assert all(np.array_equal(a, b) for a, b in zip(weights(model).values(), weights(reference).values(), strict=True))
    assert len(optimizer.state_dict()["state"]) == 0

    plain = kind(reference.parameters(), lr=0.01, weight_decay=0.3, **more)
    for step in range(3):  # plain torch on the mean of all ranks' gradients
        every = [gradients(reference, rank, step) for rank in range(world.size)]
        for parameter, parts in zip(reference.parameters(), zip(*every, strict=True), strict=True):
            parameter.grad = torch.from_numpy(np.mean(parts, axis=0)).float()
        plain.step()
        train(optimizer, engine.module(model), world.rank, range(step, step + 1))
        for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
            np.testing.assert_allclose(ours.detach(), theirs.detach(), rtol=1e-4, atol=1e-5)
    if kind is not torch.optim.SGD:
        assert {float(s["step"]) for s in optimizer.state_dict()["state"].values()} == {3.0}


@pytest.mark.mpi
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.Adamax, torch.optim.SGD])
def test_a_restored_state_comes_to_all_ranks_and_training_goes_on_as_if_it_had_not_stopped(engine, world, kind):
    more = {"momentum": 0.9} if kind is torch.optim.SGD else {}

    def fresh(seed: int) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        model = network(seed)
        return model, engine.wrap(kind(model.parameters(), lr=0.01, **more), model)

    model, optimizer = fresh(5)
    engine.broadcast(model, optimizer)
    train(optimizer, engine.module(model), world.rank, range(4))
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    train(optimizer, engine.module(model), world.rank, range(4, 7))

    again, resumed = fresh(50 + world.rank)
    if world.is_root:  # only rank 0 reads the checkpoint
        again.load_state_dict(saved[0])
        resumed.load_state_dict(saved[1])
    engine.broadcast(again, resumed)
    train(resumed, engine.module(again), world.rank, range(4, 7))
    parameters = [name for name, _ in model.named_parameters()]
    assert all(np.array_equal(weights(model)[name], weights(again)[name]) for name in parameters)
    assert same_everywhere(world, [weights(again)[name] for name in parameters])
