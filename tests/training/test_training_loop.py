"""Training: the numbers of a plain PyTorch loop, one model on all ranks, runs that go on as if never interrupted."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from toy import SAMPLES
from trainings import NEVER, REACHED, Data, Events, prepare_toy, training_of
from worlds import world_of

from sciml_hpc.benchmarks.base import Target
from sciml_hpc.errors import RunFault
from sciml_hpc.training import signals
from sciml_hpc.training.checkpoint import Checkpointer
from sciml_hpc.training.forward import forward
from sciml_hpc.training.loop import Outcome, Training, _step_seeds

pytest_plugins = ["toy_fixtures", "mpi_fixtures"]


@pytest.fixture
def data(toy, tmp_path) -> Data:
    return prepare_toy(toy, tmp_path)


def run(training: Training, target: Target = NEVER, events: Events | None = None, **more: Any) -> Outcome:
    training.join(more.get("resume"))
    try:
        return training.run(target, events or Events(), more.get("saver"))
    finally:
        training.close()


def state(training: Training) -> list[np.ndarray]:
    return [value.numpy().copy() for value in training.model.state_dict().values()]


def same(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def values(outcome: Outcome) -> list[dict[str, float]]:
    return [epoch.metrics for epoch in outcome.epochs]


# --- one rank ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["linear", "conv"])
def test_it_is_a_plain_pytorch_loop(toy, data, model: str):
    """The same steps written down here: order from the sampler, samples from the simulator, torch's own Adam."""
    training = training_of(toy, data, f"train.model={model}", "train.dropout=0.3", "train.epochs=2")
    outcome = run(training)

    torch.manual_seed(1)
    net = training.benchmark.model()
    optimizer = torch.optim.Adam(net.parameters(), lr=training.config.train.base_lr)
    source = toy.simulator(toy.Generator(), SAMPLES, 7).read("train", 0, 203)
    x, y = (torch.from_numpy(source[name]) for name in ("x", "y"))
    losses: list[list[float]] = []
    for epoch in (1, 2):
        losses.append([])
        seeds = _step_seeds(1, 0, range(12 * (epoch - 1), 12 * epoch))
        for numbers, seed in zip(training.sampler.epoch(epoch), seeds, strict=True):
            torch.manual_seed(seed)
            optimizer.zero_grad()
            loss = (net(x[numbers]) - y[numbers]).square().mean()
            loss.backward()
            optimizer.step()
            losses[-1].append(float(loss.detach().double()))
    assert outcome.step_losses == losses
    assert same(state(training), [v.numpy() for v in net.state_dict().values()])


def test_it_finds_the_optimum_of_least_squares(toy, data):
    training = training_of(toy, data, "train.epochs=60", "train.schedule=cosine", "train.base_lr=0.1")
    outcome = run(training)
    batch = toy.simulator(toy.Generator(), SAMPLES, 7).read("train", 0, 203)
    design = np.column_stack([batch["x"], np.ones(203)]).astype(np.float64)
    best, *_ = np.linalg.lstsq(design, batch["y"].astype(np.float64), rcond=None)
    found = np.concatenate([v.ravel() for v in state(training)])
    np.testing.assert_allclose(found, best, atol=0.01)
    assert outcome.epochs[-1].metrics["eval_loss"] == pytest.approx(0.1**2, rel=0.5)


def test_the_same_seed_is_the_same_run_bit_for_bit_and_another_is_not(toy, data):
    outcomes = [run(training_of(toy, data, "train.dropout=0.2", f"seed={s}")) for s in (1, 1, 2)]
    assert outcomes[0].step_losses == outcomes[1].step_losses
    assert values(outcomes[0]) == values(outcomes[1])
    assert outcomes[0].step_losses != outcomes[2].step_losses


def test_seeds_of_steps_are_all_different_and_one_finaliser_of_three_numbers():
    def by_hand(seed: int, rank: int, step: int) -> int:
        x = (seed * 0x9E3779B97F4A7C15 + rank * 0xBF58476D1CE4E5B9 + step * 0x94D049BB133111EB) % 2**64
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
        return (x ^ x >> 31) >> 1

    seen = set()
    for seed, rank in ((0, 0), (1, 0), (2**31 - 1, 16383)):
        found = _step_seeds(seed, rank, range(990, 1010))
        assert found == [by_hand(seed, rank, step) for step in range(990, 1010)]
        seen |= set(found)
    assert len(seen) == 60


@pytest.mark.parametrize(("most", "first", "further"), [(32, (1, 2, 12), (12,)), (5, (1, 2, 7, 12), (5, 10, 12))])
def test_how_often_ranks_agree_changes_no_number(toy, data, monkeypatch, most, first, further):
    steps, often, seldom = [], Events(), Events(at_step=lambda *at: steps.append(at))
    each = run(training_of(toy, data, *HARD), NEVER, often)
    monkeypatch.setattr(signals, "LOOK_S", 1e9)
    monkeypatch.setattr(signals, "MOST_STEPS", most)
    some = run(training_of(toy, data, *HARD), NEVER, seldom)
    assert some.step_losses == each.step_losses
    assert values(some) == values(each)
    # How long a step takes is known after the second.
    assert steps == [(epoch, step) for epoch in range(1, 5) for step in (further if epoch > 1 else first)]
    assert often.losses == [loss for losses in each.step_losses for loss in losses]
    assert seldom.losses == [often.losses[12 * (epoch - 1) + step - 1] for epoch, step in steps]


def test_threads_and_read_ahead_change_nothing(toy, data):
    one = run(training_of(toy, data))
    two = run(training_of(toy, data, "loader.threads=3", "loader.prefetch=7", "measure.enabled=false"))
    assert one.step_losses == two.step_losses


def test_it_stops_at_the_first_epoch_that_meets_the_target(toy, data):
    events = Events()
    outcome = run(training_of(toy, data), REACHED, events)
    found = [value["eval_loss"] for value in values(outcome)]
    assert outcome.status == "success"
    assert found[-1] <= 0.3 < min(found[:-1])
    last = len(found)
    assert last < 6
    expected = [f"{what} {n}" for n in range(1, last + 1) for what in ("start", "stop", "eval", "evaluated")]
    assert events.names == expected
    assert [e.epoch for e in outcome.epochs] == list(range(1, last + 1))


def test_epochs_spent_without_the_target_is_aborted(toy, data):
    outcome = run(training_of(toy, data, "train.epochs=2"), NEVER)
    assert (outcome.status, len(outcome.epochs)) == ("aborted", 2)


def test_fixed_work_is_done_whatever_the_target(toy, data):
    for target in (REACHED, NEVER):
        outcome = run(training_of(toy, data, "fixed_epochs=true", "train.epochs=5"), target)
        assert (outcome.status, len(outcome.epochs)) == ("success", 5)


def test_the_figures_of_an_epoch(toy, data):
    events = Events()
    begin = time.perf_counter()
    outcome = run(training_of(toy, data, "train.epochs=3"), NEVER, events)
    wall = time.perf_counter() - begin
    sample_bytes = 8 * 4 + 4 + 8
    for epoch in outcome.epochs:
        assert (epoch.steps, epoch.samples) == (12, 192)  # 203 // 16
        assert epoch.read_bytes == 192 * sample_bytes
        assert epoch.train_loss == pytest.approx(np.mean(outcome.step_losses[epoch.epoch - 1]))
        assert 0 < epoch.step_p50_s <= epoch.step_p95_s <= epoch.step_max_s <= epoch.train_s < wall
        assert 0 <= epoch.wait_s < epoch.train_s
        assert 0 < epoch.eval_s < wall
    assert sum(e.train_s + e.eval_s for e in outcome.epochs) < wall
    assert events.losses == [loss for epoch in outcome.step_losses for loss in epoch]
    unmetered = run(training_of(toy, data, "measure.enabled=false", "train.epochs=1")).epochs[0]
    assert (unmetered.wait_s, unmetered.step_p50_s, unmetered.step_max_s) == (None, None, None)
    assert unmetered.train_s > 0


def test_an_epoch_is_read_from_before_the_last_evaluation_on_and_none_after_the_last(toy, data):
    training, events = training_of(toy, data, "train.epochs=2"), Events()
    real = training.train_loader.batches
    training.train_loader.batches = lambda numbers: events.names.append(f"{len(numbers)} batches") or real(numbers)
    run(training, NEVER, events)
    first = ["12 batches", "start 1", "stop 1", "12 batches", "eval 1", "evaluated 1"]
    assert events.names == [*first, "start 2", "stop 2", "eval 2", "evaluated 2"]


def test_the_learning_rate_of_the_schedule_is_the_optimisers(toy, data):
    training = training_of(toy, data, "train.epochs=2", "train.warmup_epochs=1", "train.warmup_from=0.01")
    seen = []
    events = Events(at_step=lambda epoch, step: seen.append(training.optimizer.param_groups[0]["lr"]))
    outcome = run(training, NEVER, events)
    assert seen == pytest.approx([0.01 + 0.04 * k / 12 for k in range(12)] + [0.05] * 12)
    assert [e.learning_rate for e in outcome.epochs] == [seen[11], seen[23]]


@pytest.mark.parametrize("model", ["linear", "conv"])
def test_bf16_is_used_where_it_is_asked_for(toy, data, model: str):
    fp32 = run(training_of(toy, data, "train.epochs=1", f"train.model={model}", "train.precision=fp32"))
    bf16 = run(training_of(toy, data, "train.epochs=1", f"train.model={model}", "train.precision=bf16"))
    a, b = fp32.step_losses[0], bf16.step_losses[0]
    assert a != b
    assert a[:3] == pytest.approx(b[:3], rel=0.05)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_convolution_gets_and_passes_on_channels_last(channels: int):
    """An image of one channel is contiguous in either order; torch's convolution goes by the strides."""
    image = torch.rand(2, channels, 6, 8)
    network = torch.nn.Conv2d(channels, 4, 3)
    seen = forward(SimpleNamespace(inputs=lambda batch: (batch["image"],)), network, {"image": image})
    assert seen.is_contiguous(memory_format=torch.channels_last)
    assert not seen.is_contiguous()
    assert torch.allclose(seen, network(image), atol=1e-6)


@pytest.mark.parametrize(
    ("processor", "size", "kept"), [("AVX2", 256, True), ("AVX2", 250, False), ("AVX512", 256, False)]
)
def test_large_images_keep_the_default_order_without_avx512(monkeypatch, processor: str, size: int, kept: bool):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: processor)
    image, network = torch.rand(1, 3, 256, size), torch.nn.Conv2d(3, 4, 3)
    seen = forward(SimpleNamespace(inputs=lambda batch: (batch["image"],)), network, {"image": image})
    assert seen.is_contiguous() == kept
    assert torch.allclose(seen, network(image), atol=1e-5)


def test_a_compiled_network_has_the_losses_of_the_plain_one(toy, data):
    given = ("train.epochs=1", "train.model=conv")
    plain, compiled = (training_of(toy, data, *given, f"train.compile={word}") for word in ("false", "true"))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    np.testing.assert_allclose(run(compiled).step_losses, run(plain).step_losses, rtol=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


# --- a loss that is not finite -------------------------------------------------------------------------------------


def poison(training: Training, at: int, value: float = float("nan")) -> None:
    """Make the loss of the step number `at` (from 1) of this rank `value`."""
    real, calls = training.benchmark.loss, [0]

    def loss(output: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        if training.model.training:
            calls[0] += 1
        return real(output, batch) * (value if calls[0] == at else 1.0)

    training.benchmark.loss = loss


@pytest.mark.parametrize(("at", "epoch", "step"), [(1, 1, 1), (5, 1, 5), (12, 1, 12), (13, 2, 1), (24, 2, 12)])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_it_is_a_fault_that_names_epoch_step_and_rank(toy, data, at: int, epoch: int, step: int, value: float):
    training = training_of(toy, data, "train.epochs=3")
    poison(training, at, value)
    said = rf"^the loss became {value} at epoch {epoch}, step {step} of 12, rank 0 on n0 \(learning rate 0.05\); lower"
    with pytest.raises(RunFault, match=said):
        run(training)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize(("at", "epoch", "step"), [(5, 1, 5), (13, 2, 1), (20, 2, 8)])
def test_a_fault_between_two_agreements_is_named_by_its_step(toy, data, monkeypatch, at: int, epoch: int, step: int):
    monkeypatch.setattr(signals, "LOOK_S", 1e9)
    training = training_of(toy, data, "train.epochs=3")
    poison(training, at)
    with pytest.raises(RunFault, match=rf"^the loss became nan at epoch {epoch}, step {step} of 12"):
        run(training)


def test_divergence_by_too_high_a_rate_is_found(toy, data):
    training = training_of(toy, data, "train.base_lr=1.0e+30", "train.optimizer=sgd")
    with pytest.raises(RunFault, match=r"the loss became (inf|nan) at epoch 1, step \d+ of 12, .*learning rate 1e\+30"):
        run(training)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("at", [3, 12])
def test_one_ranks_nan_is_a_fault_on_all(toy, mpi_tmp_path, world, horovod, at: int):
    data = world.once(lambda: prepare_toy(toy, mpi_tmp_path, samples={"train": 16 * 12, "validation": 37}))
    training = training_of(
        toy, data, f"train.global_batch={world.size * (16 // world.size)}", world=world, engine=horovod
    )
    last = world.size - 1
    if world.rank == last:
        poison(training, at)
    # Its gradients reach all ranks in that step: the others' losses are NaN one step later.
    with pytest.raises(RunFault, match=rf"the loss became nan at epoch 1, step {at}|step {at + 1} "):
        run(training)


# --- interrupted and resumed ---------------------------------------------------------------------------------------

HARD = ("train.model=conv", "train.dropout=0.3", "train.epochs=4", "train.schedule=plateau", "train.plateau_patience=1")


def interrupt(at: tuple[int, int]) -> Events:
    def step(epoch: int, number: int) -> None:
        if (epoch, number) == at:
            os.kill(os.getpid(), signal.SIGTERM)

    return Events(at_step=step)


@pytest.mark.parametrize(
    ("at", "stopped"),
    # Two steps later; what comes in the last two steps of an epoch takes effect after its evaluation.
    [((1, 1), (1, 3)), ((2, 5), (2, 7)), ((2, 10), (3, 0)), ((2, 11), (3, 0)), ((3, 12), (4, 0)), ((4, 6), (4, 8))],
)
def test_a_resumed_run_has_the_losses_of_the_uninterrupted_one(toy, data, tmp_path, at, stopped):
    whole_training = training_of(toy, data, *HARD)
    whole = run(whole_training)

    saver = Checkpointer(tmp_path / "c")
    first = run(training_of(toy, data, *HARD, "checkpoint.every_epochs=0"), NEVER, interrupt(at), saver=saver)
    saver.wait()
    assert (first.status, first.signal) == ("interrupted", "SIGTERM")
    assert (first.epoch, first.step) == stopped
    assert first.step_losses == whole.step_losses[: stopped[0] - 1]

    events = Events()
    training = training_of(toy, data, *HARD, "checkpoint.every_epochs=0")
    resumed = run(training, NEVER, events, resume=tmp_path / "c")
    assert resumed.step_losses == whole.step_losses
    assert values(resumed) == values(whole)
    assert resumed.status == whole.status == "aborted"
    assert same(state(training), state(whole_training))
    assert events.names[0] == f"start {stopped[0]}{' resumed' if stopped[1] else ''}"
    assert [e.samples for e in resumed.epochs][stopped[0] - 1] == 192 - 16 * stopped[1]


def test_a_signal_between_two_agreements_ends_the_run_at_the_next_but_one(toy, data, tmp_path, monkeypatch):
    whole = run(training_of(toy, data, *HARD))
    monkeypatch.setattr(signals, "LOOK_S", 1e9)
    saver = Checkpointer(tmp_path / "c")
    training = training_of(toy, data, *HARD)
    poke = training.benchmark.loss  # in the fifth step of the second epoch
    calls = []

    def loss(*arguments: Any) -> torch.Tensor:
        calls.append(training.model.training)
        if sum(calls) == 17 and calls[-1]:
            os.kill(os.getpid(), signal.SIGTERM)
        return poke(*arguments)

    training.benchmark.loss = loss
    first = run(training, NEVER, saver=saver)
    assert (first.status, first.signal, first.epoch, first.step) == ("interrupted", "SIGTERM", 3, 0)
    assert run(training_of(toy, data, *HARD), NEVER, resume=tmp_path / "c").step_losses == whole.step_losses


def test_two_interruptions(toy, data, tmp_path):
    whole = run(training_of(toy, data, *HARD))
    saver = Checkpointer(tmp_path / "c")
    run(training_of(toy, data, *HARD), NEVER, interrupt((1, 3)), saver=saver)
    again = run(training_of(toy, data, *HARD), NEVER, interrupt((1, 8)), saver=saver, resume=tmp_path / "c")
    assert (again.epoch, again.step) == (1, 10)
    last = run(training_of(toy, data, *HARD), NEVER, resume=tmp_path / "c")
    assert last.step_losses == whole.step_losses
    assert values(last) == values(whole)


def test_a_signal_in_the_last_evaluation_does_not_undo_the_run(toy, data, tmp_path):
    class Late(Events):
        def eval_start(self, epoch: int) -> None:
            if epoch == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    for target, status in ((NEVER, "aborted"), (Target("eval_loss", "min", 1e9, "any"), "success")):
        epochs = "train.epochs=2" if target is NEVER else "train.epochs=5"
        events = Late() if target is NEVER else Events(at_step=lambda e, s: s == 12 and os.kill(os.getpid(), 15))
        outcome = run(training_of(toy, data, epochs), target, events, saver=Checkpointer(tmp_path / "c"))
        assert outcome.status == status


@pytest.mark.parametrize(("every", "expected"), [(1, [2, 3, 4]), (2, [3]), (0, [])])
def test_checkpoints_after_every_so_many_epochs(toy, data, tmp_path, every: int, expected: list[int]):
    saved = []

    class Saver(Checkpointer):
        def save(self, state: Any, *rest: Any) -> None:
            saved.append((state.epoch, state.step))
            super().save(state, *rest)

    saver = Saver(tmp_path / "c")
    whole = run(training_of(toy, data, *HARD, f"checkpoint.every_epochs={every}"), NEVER, saver=saver)
    saver.wait()
    assert saved == [(epoch, 0) for epoch in expected]
    if expected:  # the run was lost after its last checkpoint
        resumed = run(training_of(toy, data, *HARD), NEVER, resume=tmp_path / "c")
        assert resumed.step_losses == whole.step_losses
        assert values(resumed) == values(whole)


# --- several ranks -------------------------------------------------------------------------------------------------


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_ranks_together_do_what_one_does_alone(toy, mpi_tmp_path, world, horovod, optimizer: str):
    """At the same global batch: each step is on the same samples, and gradients are averaged."""
    if 16 % world.size:
        pytest.skip("16 samples cannot be shared evenly")
    data = world.once(lambda: prepare_toy(toy, mpi_tmp_path))
    options = (f"train.optimizer={optimizer}", "train.base_lr=0.01", "train.epochs=1", "train.weight_decay=0.01")
    together = run(training_of(toy, data, *options, world=world, engine=horovod))
    lone_world = world_of(world.comm, [1])
    lone = run(training_of(toy, data, *options, world=lone_world)) if lone_world else None
    lone = world.comm.bcast(lone)
    assert together.step_losses[0][:10] == pytest.approx(lone.step_losses[0][:10], rel=1e-5)
    assert together.epochs[0].metrics["eval_loss"] == pytest.approx(lone.epochs[0].metrics["eval_loss"], rel=1e-4)
    assert together.epochs[0].samples == lone.epochs[0].samples == 192
    assert together.epochs[0].read_bytes == lone.epochs[0].read_bytes
    assert world.comm.allgather(together.step_losses) == [together.step_losses] * world.size


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("mode", ["none", "replicate", "partition"])
def test_the_same_seed_on_the_same_ranks_is_the_same_run(toy, mpi_tmp_path, world, horovod, mode: str, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(mpi_tmp_path))
    data = world.once(lambda: prepare_toy(toy, mpi_tmp_path))
    options = (f"train.global_batch={8 * world.size}", "train.dropout=0.2", f"staging.mode={mode}", "train.epochs=2")
    runs = [run(training_of(toy, data, *options, world=world, engine=horovod)) for _ in range(2)]
    assert runs[0].step_losses == runs[1].step_losses
    assert values(runs[0]) == values(runs[1])


@pytest.mark.mpi(min_size=2)
def test_all_ranks_evaluate_one_model(toy, mpi_tmp_path, world, horovod):
    """Batch normalisation's statistics are each rank's own while it trains."""
    data = world.once(lambda: prepare_toy(toy, mpi_tmp_path))
    options = ("train.model=conv", f"train.global_batch={8 * world.size}", "train.epochs=2", "train.eval_batch=1")
    training = training_of(toy, data, *options, world=world, engine=horovod)
    outcome = run(training)
    states = world.comm.gather(state(training))
    if world.is_root:
        assert all(same(states[0], other) for other in states)
        validation = toy.simulator(toy.Generator(), SAMPLES, 7).read("validation", 0, 37)
        training.model.eval()
        with torch.inference_mode():
            output = training.model(torch.from_numpy(validation["x"])).double().numpy()
        expected = np.mean((output - validation["y"]) ** 2)
        assert outcome.epochs[-1].metrics["eval_loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("model", ["linear", "conv"])
def test_a_signal_on_one_rank_and_the_run_goes_on_as_it_was(toy, mpi_tmp_path: Path, world, horovod, model: str):
    data = world.once(lambda: prepare_toy(toy, mpi_tmp_path))
    options = (f"train.model={model}", f"train.global_batch={8 * world.size}", "train.dropout=0.2", "train.epochs=3")

    def training() -> Training:
        return training_of(toy, data, *options, world=world, engine=horovod)

    whole = run(training())
    saver = Checkpointer(mpi_tmp_path / "c") if world.is_root else None
    events = interrupt((2, 2)) if world.rank == world.size - 1 else Events()
    first = run(training(), NEVER, events, saver=saver)
    world.comm.Barrier()
    resumed = run(training(), NEVER, resume=mpi_tmp_path / "c")
    assert (first.status, first.signal, first.epoch, first.step) == ("interrupted", "SIGTERM", 2, 4)
    assert resumed.step_losses == whole.step_losses
    assert values(resumed) == values(whole)
