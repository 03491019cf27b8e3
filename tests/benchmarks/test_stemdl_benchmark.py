"""The two benchmarks as the harness sees them."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from published import losses_of_steps

from sciml_hpc.benchmarks import classes
from sciml_hpc.benchmarks.stemdl import Classification, Reconstruction
from sciml_hpc.benchmarks.stemdl.augment import erased, one_projection, turned
from sciml_hpc.benchmarks.stemdl.settings import ClassificationGenerator, ReconstructionGenerator

SAMPLES = {"train": 6, "validation": 2}
PATTERNS = ClassificationGenerator(space_groups=(2, 62), size=32, detector=32, k_max=0.5, variants=2)
SCAN = ReconstructionGenerator(size=16, scan=2, field_A=3.0, thickness_A=(4.0, 8.0))
TINY = {
    Classification: {"blocks": (1, 1), "width": 8},
    Reconstruction: {"growth": 4, "down": (1, 1), "bottom": 1},
}


def batch_of(benchmark, generator) -> tuple[object, dict[str, torch.Tensor]]:
    """An instance with a small network, and six training samples."""
    source = benchmark.simulator(generator, SAMPLES, 1)
    instance = benchmark(benchmark.Recipe(**TINY[benchmark]), source.fields)
    return instance, {name: torch.from_numpy(v) for name, v in source.read("train", 0, 6).items()}


def test_two_tasks_classification_first_and_no_torch_to_describe_them() -> None:
    assert [(c.task, c.mllog_name) for c in classes("stemdl")] == [
        ("classification", "stemdl"),
        ("reconstruction", "stemdl"),
    ]
    code = "import sys; from sciml_hpc.benchmarks import classes; classes('stemdl'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("benchmark", classes("stemdl"))
def test_presets_change_the_recipe_only_as_it_allows(benchmark) -> None:
    assert set(benchmark.presets) == {"tiny", "small", "node", "full"}
    for preset in benchmark.presets.values():
        benchmark.Recipe(**preset.recipe)


@pytest.mark.parametrize(("benchmark", "generator"), [(Classification, PATTERNS), (Reconstruction, SCAN)])
def test_training_steps_lower_the_loss(benchmark, generator) -> None:
    instance, batch = batch_of(benchmark, generator)
    losses = losses_of_steps(instance, batch, 20)
    assert np.mean(losses[-3:]) < 0.7 * losses[0]


@pytest.mark.parametrize(("benchmark", "generator"), [(Classification, PATTERNS), (Reconstruction, SCAN)])
def test_perfect_answers_are_recognised(benchmark, generator) -> None:
    instance, batch = batch_of(benchmark, generator)
    metrics = instance.metrics()
    if benchmark is Classification:
        output = 9 * torch.nn.functional.one_hot(batch["space_group"], 231).float()
        values = metrics.compute(metrics.update(output, batch).numpy())
        assert values["f1_score"] == values["eval_accuracy"] == values["top5_accuracy"] == 1
        assert values["most_frequent_class_accuracy"] == pytest.approx(4 / 6)
        assert instance.loss(output, batch) < 0.05
    else:
        output = batch["potential"].float() / instance.recipe.unit_V_nm - 3
        values = metrics.compute(metrics.update(output, batch).numpy())
        assert values["eval_error"] == pytest.approx(0, abs=1e-9)
        assert values["correlation"] == pytest.approx(1)
        assert instance.loss(output, batch) == pytest.approx(0, abs=1e-9)


def test_reconstruction_loss_is_half_the_pairwise_error() -> None:
    """The reference's mean over all pairs of pixels of (eᵢ − eⱼ)², per sample."""
    instance, batch = batch_of(Reconstruction, SCAN)
    output = torch.randn(6, 1, 16, 16)
    error = (output - batch["potential"] / 100.0).flatten(1)
    pairs = (error[:, :, None] - error[:, None, :]).square().mean()
    assert instance.loss(output, batch).item() == pytest.approx(pairs.item() / 2, rel=1e-4)


def test_inputs_are_scaled_as_published() -> None:
    instance, batch = batch_of(Classification, PATTERNS)
    (patterns,) = instance.inputs(batch)
    assert 0 == patterns.min() < patterns.max() <= 1
    instance, batch = batch_of(Reconstruction, SCAN)
    (roots,) = instance.inputs(batch)
    stored = batch["cbed"].numpy().astype(np.float32)
    assert roots.numpy() == pytest.approx(np.sqrt(stored - stored.min((2, 3), keepdims=True)))


@pytest.mark.parametrize(("projections", "channels"), [("random", 1), ("channels", 3)])
def test_channel_treatments(projections: str, channels: int) -> None:
    _, batch = batch_of(Classification, PATTERNS)
    recipe = Classification.Recipe(projections=projections, erasing=0.0, **TINY[Classification])
    instance = Classification(recipe, Classification.simulator(PATTERNS, SAMPLES, 1).fields)
    torch.manual_seed(0)
    seen = instance.augment(batch)
    assert seen["cbed"].shape == (6, channels, 32, 32)
    assert batch["cbed"].shape == (6, 3, 32, 32)
    model = instance.model()
    for inputs in (seen, batch):  # training and evaluation
        assert model(*instance.inputs(inputs)).shape == (6, 231)


def test_projections_are_drawn_per_sample() -> None:
    torch.manual_seed(0)
    patterns = torch.arange(3.0)[None, :, None, None].expand(3000, 3, 2, 2)
    counts = one_projection(patterns)[:, 0, 0, 0].long().bincount()
    assert counts.sum() == 3000
    assert ((counts > 900) & (counts < 1100)).all()


def test_erasing() -> None:
    torch.manual_seed(0)
    patterns = torch.rand(4000, 2, 40, 40) + 1
    before = patterns.clone()
    gone = erased(patterns, 0.8) == 0
    assert torch.equal(patterns, before)
    assert torch.equal(gone[:, 0], gone[:, 1])
    hit = gone[:, 0].flatten(1).any(1)
    assert 0.77 < hit.float().mean() < 0.83
    rectangles = gone[hit, 0]
    assert torch.equal(rectangles.any(1)[:, None, :] & rectangles.any(2)[:, :, None], rectangles)
    area = rectangles.flatten(1).float().mean(1)
    assert 0.01 < area.min() < 0.025
    assert 0.3 < area.max() < 0.36
    assert 0.15 < area.mean() < 0.185
    assert rectangles.any(0).all()
    assert not (erased(patterns, 0.0) == 0).any()


def test_turned_scans_are_scans_of_the_turned_crystal() -> None:
    """Drift of the beam keeps following the slope of the potential, whatever the orientation."""
    generator = SCAN.model_copy(update={"scan": 4, "field_A": 4.0, "electrons": (1e12, 1e12)})
    source = Reconstruction.simulator(generator, SAMPLES, 1)
    batch = {name: torch.from_numpy(v) for name, v in source.read("train", 0, 6).items()}
    torch.manual_seed(0)
    many = [turned(batch["cbed"], batch["potential"]) for _ in range(4)]
    cbed, potential = (torch.cat(x).double().numpy() for x in zip(*many, strict=True))
    assert len({p.tobytes() for p in potential}) > 12
    patterns = cbed.reshape(24, 4, 4, 16, 16)
    k = np.arange(16) - 7.5
    drift = np.stack([(patterns * k[:, None]).sum((-2, -1)), (patterns * k).sum((-2, -1))])
    slope = [np.gradient(potential[:, 0], axis=i).reshape(24, 4, 4, 4, 4).mean((2, 4)) for i in (1, 2)]
    assert np.corrcoef(drift.ravel(), np.ravel(slope))[0, 1] > 0.95
