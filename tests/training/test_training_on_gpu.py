"""What a run does on a GPU and not on a CPU; skipped where there is none. Truth: the CPU, and the device's trace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toy as toys
from networks import networks, samples
from trainings import NEVER, Data, Events, prepare_toy, training_of

from sciml_hpc.data.loader import Loader, ShardReader
from sciml_hpc.metering import compute
from sciml_hpc.metering.energy import EnergyMeter, find_sensors
from sciml_hpc.metering.stall import StallMeter
from sciml_hpc.training import optimizer
from sciml_hpc.training.checkpoint import Checkpointer
from sciml_hpc.training.forward import forward

pytest_plugins = ["toy_fixtures"]
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")

GPU = torch.device("cuda", 0)


@pytest.fixture
def data(toy: Any, tmp_path: Path) -> Data:
    return prepare_toy(toy, tmp_path)


@pytest.fixture
def exact():
    """Products in float32, not TF32."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture
def no_waiting():
    """Operators that make the host wait for the device raise an error while this is switched on."""

    class Switch:
        def __enter__(self):
            torch.cuda.set_sync_debug_mode("error")

        def __exit__(self, *exception: object):
            torch.cuda.set_sync_debug_mode("default")

    yield Switch()
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(("kind", "model"), networks())
def test_a_step_is_that_of_the_cpu_and_the_host_never_waits(kind, model: str, exact, no_waiting):
    benchmark, held = samples(kind, model)
    there = {name: values.to(GPU) for name, values in held.items()}
    torch.manual_seed(1)
    network = benchmark.model().eval()
    on_cpu = benchmark.loss(forward(benchmark, network, held), held)
    network.to(GPU)
    on_gpu = benchmark.loss(forward(benchmark, network, there), there)
    assert on_gpu.item() == pytest.approx(on_cpu.item(), rel=2e-4)

    network.train()
    update = optimizer.build(benchmark.recipe, network)
    before = [p.detach().clone() for p in network.parameters()]

    def step(bf16: bool) -> None:
        changed = benchmark.augment(there)
        update.zero_grad()
        with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
            loss = benchmark.loss(forward(benchmark, network, changed), changed)
        loss.backward()
        update.step()

    for bf16 in (False, True):
        step(bf16)  # the first makes the optimiser's state and the libraries' handles
        with no_waiting:
            step(bf16)
    assert all(p.isfinite().all() for p in network.parameters())
    assert any((a != b).any() for a, b in zip(before, network.parameters(), strict=True))


def test_an_epoch_has_the_cpus_losses_and_copies_nothing_back_but_them(toy, data, exact):
    losses = {}
    for device in (torch.device("cpu"), GPU):
        training = training_of(toy, data, "train.precision=fp32", device=device)
        training.join()
        epochs = [training.train_epoch(epoch, Events(), None) for epoch in (1, 2)]
        losses[device.type] = [epoch.train_loss for epoch in epochs]
        training.close()
    np.testing.assert_allclose(losses["cuda"], losses["cpu"], rtol=1e-4)

    training = training_of(toy, data, device=GPU)
    training.join()
    training.train_epoch(1, Events(), None)
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as trace:
        _, steps = training.train_epoch(2, Events(), None), training.sampler.steps
    copies = [e.name for e in trace.events() if "Memcpy" in e.name]
    training.close()
    assert sum("DtoH" in name for name in copies) == steps  # the losses, nothing else
    assert not [name for name in copies if "Pageable" in name]


def test_the_loader_delivers_what_the_shards_hold(data):
    numbers = [np.arange(first, min(first + 16, 203)) for first in range(0, 203, 16)]
    found = {}
    for device in (torch.device("cpu"), GPU):
        loader = Loader(ShardReader(data.index, "train", data.directory, 0, 203, local=True), 16, device, 3, 2)
        found[device.type] = [
            {name: tensor.to("cpu", copy=True) for name, tensor in batch.items()} for batch in loader.batches(numbers)
        ]
        loader.close()
    for there, here in zip(found["cuda"], found["cpu"], strict=True):
        assert all(torch.equal(there[name], here[name]) for name in here)


def test_a_resumed_run_goes_on_as_it_was(toy, data, tmp_path):
    def run(path: Path | None, resume: bool, stop: tuple[int, int] | None) -> Any:
        training = training_of(toy, data, "train.epochs=3", device=GPU)
        training.join(path if resume else None)
        events = Events(at_step=lambda *at: os.kill(os.getpid(), 15) if at == stop else None)
        outcome = training.run(NEVER, events, Checkpointer(path) if path else None)
        training.close()
        return outcome

    whole = run(None, False, None)
    path = tmp_path / "checkpoint"
    assert run(path, False, (2, 5)).status == "interrupted"
    assert run(path, True, None).step_losses == whole.step_losses


def test_a_slow_loader_stalls_the_device_only_when_it_is_dry():
    cycles = 30_000_000  # some 20 ms
    torch.cuda._sleep(cycles)
    torch.cuda.synchronize()
    begin = time.perf_counter()
    torch.cuda._sleep(cycles)
    torch.cuda.synchronize()
    busy_s = time.perf_counter() - begin
    for host_s, expected in ((busy_s / 3, 0.0), (busy_s * 3, busy_s * 3)):
        meter = StallMeter(GPU, 10)
        for _ in range(10):
            with meter.waiting():
                time.sleep(host_s)
            torch.cuda._sleep(cycles)
            if expected:
                torch.cuda.synchronize()
            meter.step_done()
        times = meter.epoch_done()
        waited = (times.wait_s - times.first_wait_s) / 9
        assert waited == pytest.approx(expected, rel=0.05, abs=0.1 * busy_s)
        assert times.step_p50_s == pytest.approx(busy_s + expected, rel=0.05)


def test_the_energy_counter_agrees_with_integrated_power():
    sensors, absent = find_sensors(node=False)
    meter = EnergyMeter(sensors, absent)
    meter.measure_idle(1.0)
    meter.start("busy")
    a = torch.randn(8192, 8192, device=GPU, dtype=torch.bfloat16)
    begin = time.monotonic()
    while time.monotonic() - begin < 5:
        for _ in range(20):
            a @ a
        torch.cuda.synchronize()
    meter.phase("idle")
    time.sleep(2)
    (device,) = meter.stop().devices
    print(device)
    assert device.provenance == "measured"
    assert device.disagreement < 0.05
    busy, idle = (device.phases[name].energy_J / device.phases[name].wall_s for name in ("busy", "idle"))
    assert idle < busy < device.max_W * 1.05
    assert device.idle_W < busy


def test_products_do_not_outrun_the_datasheet():
    ceiling = compute.matmul_ceiling(GPU, "bf16", 1.0)
    peak = compute.datasheet_peak(torch.cuda.get_device_name(GPU), "bf16")
    print(ceiling, peak)
    if peak is None:
        pytest.skip(f"{torch.cuda.get_device_name(GPU)} is not in the table")
    assert 0.4 < ceiling.flop_per_s / peak.flop_per_s < 1.0


# --- the command ------------------------------------------------------------------------------------------------------


def command(tmp_path: Path, *arguments: str, ranks: int = 0, toy: bool = True) -> subprocess.CompletedProcess[str]:
    program = [toys.__file__] if toy else ["-m", "sciml_hpc"]
    start = toys.mpirun(ranks) if ranks else [sys.executable]
    places = ["--data", str(tmp_path / "data"), "--output", str(tmp_path / "results"), "--scratch", str(tmp_path)]
    done = subprocess.run(
        [*start, *program, *arguments, *places],
        env=toys.clean_environment(), capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    print(done.stdout, done.stderr)
    return done


def result(tmp_path: Path) -> dict[str, Any]:
    (path,) = (tmp_path / "results").rglob("result_0.json")
    return json.loads(path.read_text())


def test_a_run_to_its_verdict(tmp_path):
    done = command(tmp_path, "cloudmask", "--set", "measure.idle_s=1", toy=False)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-2] == "VALID"
    found = result(tmp_path)
    assert found["job"]["device"] == torch.cuda.get_device_name(GPU)
    assert (found["job"]["accelerators_per_node"], found["job"]["ranks_per_accelerator"]) == (1, 1.0)
    assert found["compute"]["arithmetic"] == "bf16"
    assert 0 < found["compute"]["mfu_measured"] < 1
    assert found["memory"]["gpu_peak_allocated_bytes"] > 0
    energy = found["energy"]
    assert energy["gpu_provenance"] == "measured"
    assert energy["gpu_energy_J"] == pytest.approx(energy["gpu_integrated_power_J"], rel=0.1)
    assert energy["gpu_idle_W"] * energy["energy_wall_s"] * 0.8 < energy["gpu_energy_J"]
    assert energy["gpu_J_per_sample"] > 0


def test_torchs_own_engine_with_nccl(toy_manifest, tmp_path):
    done = command(tmp_path, "toy", "--manifest", str(toy_manifest), "--set", "communication.engine=ddp")
    assert done.returncode in (0, 1)
    assert result(tmp_path)["job"]["engine_operations"] == "NCCL"


def test_ranks_that_share_a_gpu(toy_manifest, tmp_path):
    arguments = ["toy", "--manifest", str(toy_manifest), "--set", "communication.engine=ddp"]
    refused = command(tmp_path, *arguments, ranks=2)
    assert refused.returncode == 2
    assert "2 ranks share a GPU" in refused.stderr
    assert command(tmp_path, *arguments, "--set", "communication.backend=gloo", ranks=2).returncode in (0, 1)
    assert result(tmp_path)["job"]["ranks_per_accelerator"] == 2.0


@pytest.mark.parametrize("probe", ["io", "comm"])
def test_probes(toy_manifest, tmp_path, probe: str):
    arguments = [probe, "toy", "--manifest", str(toy_manifest), "--set", "communication.engine=single"]
    assert command(tmp_path, *arguments).returncode == 0
