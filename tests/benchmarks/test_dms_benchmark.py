"""The two benchmarks as the harness sees them, and their networks."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from published import losses_of_steps

from sciml_hpc.benchmarks import classes
from sciml_hpc.benchmarks.dms import Azimuth, Structure
from sciml_hpc.benchmarks.dms.model import AzimuthNet, StructureNet
from sciml_hpc.benchmarks.dms.settings import AzimuthGenerator, StructureGenerator
from sciml_hpc.manifest import load_manifest

SAMPLES = {"train": 6, "validation": 2}
CASES = [
    (Azimuth, AzimuthGenerator(rows=31, columns=17), {"width": 8, "dropout": 0.0}),
    (Structure, StructureGenerator(rows=31, columns=17), {"hidden": 16, "dropout": 0.0}),
]


def batch_of(benchmark, generator, recipe) -> tuple[object, dict[str, torch.Tensor]]:
    """An instance with a small network, and six training samples."""
    source = benchmark.simulator(generator, SAMPLES, 1)
    instance = benchmark(benchmark.Recipe(**recipe), source.fields)
    return instance, {name: torch.from_numpy(v) for name, v in source.read("train", 0, 6).items()}


def test_two_tasks_azimuth_first_and_no_torch_to_describe_them() -> None:
    assert [(c.task, c.mllog_name) for c in classes("dms")] == [("azimuth", "dms"), ("structure", "dms")]
    code = "import sys; from sciml_hpc.benchmarks import classes; classes('dms'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("benchmark", classes("dms"))
def test_presets_have_data_sets_and_recipes(benchmark) -> None:
    datasets = load_manifest()
    assert set(benchmark.presets) == {"tiny", "small", "node", "full"}
    for preset in benchmark.presets.values():
        benchmark.Recipe(**preset.recipe)
        dataset = datasets[preset.dataset]
        assert (dataset.benchmark, dataset.task) == ("dms", benchmark.task)
        generator = benchmark.Generator(**dataset.origin.parameters)
        if dataset.origin.kind == "simulator":
            fields = benchmark.simulator(generator, dataset.samples, 1).fields
            sample = sum(int(np.prod(f.shape, dtype=int)) * np.dtype(f.dtype).itemsize for f in fields)
            assert dataset.bytes == sample * sum(dataset.samples.values())


@pytest.mark.parametrize(("benchmark", "generator", "recipe"), CASES)
def test_training_steps_lower_the_loss(benchmark, generator, recipe) -> None:
    instance, batch = batch_of(benchmark, generator, recipe)
    losses = losses_of_steps(instance, batch, 30)
    assert np.mean(losses[-3:]) < 0.5 * losses[0]


def test_perfect_answers_are_recognised() -> None:
    instance, batch = batch_of(*CASES[0])
    for periods in (0, 3):
        output, metrics = batch["azimuth"] / 90 + periods, instance.metrics()
        assert instance.loss(output, batch) == pytest.approx(0, abs=1e-6)
        values = metrics.compute(metrics.update(output, batch).numpy())
        assert values["mae_deg"] == pytest.approx(0, abs=1e-4)
    instance, batch = batch_of(*CASES[1])
    output, metrics = 9 * torch.nn.functional.one_hot(batch["phase"], 2).float(), instance.metrics()
    assert instance.loss(output, batch) < 1e-3
    values = metrics.compute(metrics.update(output, batch).numpy())
    assert values["eval_accuracy"] == values["f1_score"] == 1
    assert values["majority_accuracy"] == 0.5


def test_azimuth_loss_is_half_the_squared_fourfold_angle() -> None:
    instance, batch = batch_of(*CASES[0])
    loss = instance.loss((batch["azimuth"] + 1) / 90, batch)
    assert loss.item() == pytest.approx(np.radians(4 * 1) ** 2 / 2, rel=1e-3)
    assert instance.loss((batch["azimuth"] + 45) / 90, batch).item() == pytest.approx(2)


def test_structure_loss_is_the_references() -> None:
    """sciml-bench: binary cross-entropy of the softmax of both outputs against one-hot labels, mean over all."""
    instance, batch = batch_of(*CASES[1])
    torch.manual_seed(0)
    output = torch.randn(6, 2)
    one_hot = torch.nn.functional.one_hot(batch["phase"], 2).float()
    reference = torch.nn.functional.binary_cross_entropy(output.softmax(1), one_hot)
    assert instance.loss(output, batch).item() == pytest.approx(reference.item(), rel=1e-5)


def test_pictures_are_scaled_as_the_recipes_say() -> None:
    instance, batch = batch_of(*CASES[0])
    (image,) = instance.inputs(batch)
    assert image.dtype == torch.float32
    assert abs(image.mean()) < 0.5
    assert 0.5 < image.std() < 2
    instance, batch = batch_of(*CASES[1])
    assert torch.equal(instance.inputs(batch)[0], batch["image"])
    instance, batch = batch_of(*CASES[1][:2], {"standardise": True})
    (image,) = instance.inputs({"image": torch.cat([3 * batch["image"] + 7, torch.ones(1, 3, 17, 31)])})
    for picture in image[:6].double():
        assert picture.mean().item() == pytest.approx(0, abs=1e-4)
        assert picture.std().item() == pytest.approx(1, abs=1e-4)
    assert torch.equal(image[6], torch.zeros(3, 17, 31))


def test_published_sizes() -> None:
    """Layer by layer; the first dense layer of dms_structure has the 87,584 inputs that its code states."""
    with torch.device("meta"):
        structure, azimuth = StructureNet(195, 487), AzimuthNet(487, 195)
    dense = [m for m in structure.layers if isinstance(m, torch.nn.Linear)]
    assert [(m.in_features, m.out_features) for m in dense] == [(87_584, 512), (512, 256), (256, 2)]
    convolutions = 3 * 8 * 16 + 8 + 8 * 16 * 16 + 16 + 2 * 8 + 2 * 16
    parameters = [sum(p.numel() for p in m.parameters()) for m in (structure, azimuth)]
    assert parameters[0] == convolutions + 87_584 * 512 + 512 + 512 * 256 + 256 + 256 * 2 + 2 == 44_977_866
    flat = 64 * 120 * 47
    assert parameters[1] == 9 * 32 + 32 + 32 * 9 * 64 + 64 + flat * 32 + 32 + 32 * 16 + 16 + 17 == 11_570_113


@pytest.mark.parametrize(("rows", "columns"), [(16, 16), (61, 25), (50, 31)])
def test_networks_fit_any_size(rows: int, columns: int) -> None:
    assert AzimuthNet(rows, columns, width=4)(torch.randn(3, rows, columns)).shape == (3,)
    assert StructureNet(columns, rows, hidden=8)(torch.randn(3, 3, columns, rows)).shape == (3, 2)
