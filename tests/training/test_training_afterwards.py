"""What is measured on the trained model: calibration and inference, which leave it as it was."""

from __future__ import annotations

import copy
import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from trainings import NEVER, Events, prepare_toy, training_of
from worlds import alone

from sciml_hpc.parallel.engine import Single
from sciml_hpc.training import calibrate, infer
from sciml_hpc.training.loop import Training

pytest_plugins = ["toy_fixtures", "mpi_fixtures"]

OPTIONS = ("train.model=conv", "train.epochs=1", "train.dropout=0.1")


def trained(toy: Any, folder: Any, *more: str, **job: Any) -> Training:
    training = training_of(toy, prepare_toy(toy, folder) if folder else job.pop("data"), *OPTIONS, *more, **job)
    training.join()
    training.run(NEVER, Events(), None)
    return training


def everything(training: Training) -> list[torch.Tensor]:
    states = [training.model.state_dict(), *training.optimizer.state_dict()["state"].values()]
    return [v.clone() for part in states for v in part.values() if isinstance(v, torch.Tensor)]


@pytest.fixture
def training(toy, tmp_path):
    made = trained(toy, tmp_path)
    yield made
    made.close()


def test_weights_statistics_and_optimiser_are_bit_equal_afterwards(training):
    before = everything(training)
    assert len(before) == 9 + 6 * 3  # parameters and buffers; step and two moments of each parameter
    calibrate.calibrate(training, 4)
    infer.measure(training, 3)
    assert all(torch.equal(a, b) for a, b in zip(before, everything(training), strict=True))
    assert training.model.training


class SlowEngine(Single):
    """An engine whose communication takes a known time."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.steps = seconds, 0

    def wrap(self, optimizer: torch.optim.Optimizer, model: torch.nn.Module) -> torch.optim.Optimizer:
        real = optimizer.step

        def step(*arguments: Any) -> Any:
            self.steps += 1
            time.sleep(self.seconds)
            return real(*arguments)

        optimizer.step = step
        return optimizer


def test_the_time_of_communication_is_found(toy, tmp_path):
    training = trained(toy, tmp_path)
    training.engine = SlowEngine(0.3)
    found = calibrate.calibrate(training, 4)
    training.close()
    assert training.engine.steps == 4 + calibrate.WARM_UP_STEPS  # only the steps that are joined
    assert found.steps == 4
    assert found.step_s - found.step_without_allreduce_s == pytest.approx(0.3, rel=0.3)
    expected = (found.step_s - found.step_without_allreduce_s) / found.step_s
    assert found.exposed_comm_fraction == pytest.approx(expected)
    assert found.exposed_comm_fraction > 0.5
    assert found.own_step_without_allreduce_s == found.step_without_allreduce_s
    assert found.samples_per_step == 16
    assert found.gradient_bytes_per_step == 4 * (4 * 9 + 4 + 4 + 4 + 32 + 1)


@pytest.mark.parametrize(("with_", "without", "expected"), [(2.0, 1.5, 0.25), (1.0, 1.2, 0.0), (1.0, 0.0, 1.0)])
def test_exposed_fraction_by_hand(with_: float, without: float, expected: float):
    found = calibrate.Calibration(4, with_, without, without, 8, 100)
    assert found.exposed_comm_fraction == pytest.approx(expected)


@pytest.mark.parametrize(("asked", "done"), [(1, 4), (4, 4), (5, 8), (10, 12)])
def test_steps_are_those_asked_for_in_whole_blocks(training, asked: int, done: int):
    assert calibrate.calibrate(training, asked).steps == done


class SlowModel(torch.nn.Module):
    """A model that takes a known time, by batch."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds, self.batches = seconds, []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert not self.training
        assert torch.is_inference_mode_enabled()
        self.batches.append(len(x))
        time.sleep(self.seconds * len(x))
        return x.sum(1)


def test_latency_and_throughput_are_the_models(toy, tmp_path):
    training = trained(toy, tmp_path, "train.eval_batch=4")
    training.model = SlowModel(0.005)
    found = infer.measure(training, 6)
    training.close()
    assert (found.batch, found.batches) == (4, 6)
    warm = infer.WARM_UP_BATCHES
    assert training.model.batches == [1] * (6 + warm) + [4] * (6 + warm) * 2
    assert 0.005 <= found.latency_p50_s <= found.latency_p99_s < 0.05
    assert 60 < found.single_rank_samples_per_s <= 200
    assert 60 < found.all_ranks_samples_per_s <= 200


@pytest.mark.mpi(min_size=2)
def test_on_several_ranks(toy, mpi_tmp_path, world, horovod):
    data = world.once(lambda: prepare_toy(toy, mpi_tmp_path))
    batch = f"train.global_batch={8 * world.size}"
    training = trained(toy, None, batch, "train.eval_batch=4", world=world, engine=horovod, data=data)
    before = everything(training)
    calibration = calibrate.calibrate(training, 4)
    unchanged = all(torch.equal(a, b) for a, b in zip(before, everything(training), strict=True))
    training.model = SlowModel(0.005)
    inference = infer.measure(training, 4)
    training.close()
    shared = world.comm.allgather((calibration.step_s, calibration.step_without_allreduce_s, inference))
    slowest = world.max(calibration.own_step_without_allreduce_s)
    batches = world.comm.allgather(len(training.model.batches))
    assert unchanged
    assert shared == [shared[0]] * world.size
    assert calibration.step_without_allreduce_s == slowest
    assert calibration.samples_per_step == 8
    assert 0 <= calibration.exposed_comm_fraction < 1
    # One rank alone does three series, the others one; sleeping, they do not disturb each other.
    assert batches == [3 * 7] + [7] * (world.size - 1)
    assert inference.single_rank_samples_per_s <= 200
    assert inference.single_rank_samples_per_s < inference.all_ranks_samples_per_s <= 200 * world.size


@pytest.mark.mpi(min_size=2)
def test_steps_without_communication_do_not_communicate(toy, mpi_tmp_path, world, horovod, monkeypatch):
    """The copies for it learn from their own rank's samples alone, so they part."""
    data = world.once(lambda: prepare_toy(toy, mpi_tmp_path))
    training = trained(toy, None, f"train.global_batch={8 * world.size}", world=world, engine=horovod, data=data)
    copies: list[torch.nn.Module] = []

    def noted(model: torch.nn.Module) -> torch.nn.Module:
        copies.append(copy.deepcopy(model))
        return copies[-1]

    monkeypatch.setattr(calibrate, "copy", SimpleNamespace(deepcopy=noted))
    calibrate.calibrate(training, 1)
    training.close()
    joined, apart = (world.comm.allgather(copy[-2].weight.detach().numpy().tolist()) for copy in copies)
    assert all(weights == joined[0] for weights in joined)
    assert all(weights != apart[0] for weights in apart[1:])


def test_alone_in_a_world_of_one():
    assert infer.alone(alone(), lambda: 5) == 5


@pytest.mark.mpi(min_size=2)
def test_alone_is_done_on_rank_0_and_known_to_all(world):
    done = []
    assert infer.alone(world, lambda: done.append(world.rank) or "x") == "x"
    assert done == ([0] if world.is_root else [])
