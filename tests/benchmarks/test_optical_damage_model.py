"""The autoencoder: published size, its bottleneck, how it is found."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from sciml_hpc.benchmarks import find
from sciml_hpc.benchmarks.optical_damage import OpticalDamage, Recipe
from sciml_hpc.benchmarks.optical_damage.synthetic import sample_fields


def by_hand(latent: int) -> int:
    """At 200 pixels and width 16; 50 × 50 pixels at the bottleneck."""
    three_by_three = [(1, 64), (64, 32), (32, 16), (16, 16), (16, 32), (32, 32), (32, 64), (64, 64)]
    normalised = [64, 32, 16, 16, 16, 32, 32, 64, 64]
    inner = 50 * 50 * 16
    dense = inner * latent + latent + latent * inner + inner
    return sum(9 * a * b + b for a, b in three_by_three) + 2 * sum(normalised) + dense + 64 + 1


@pytest.mark.parametrize(("latent", "expected"), [(512, 41_096_609), (2000, 160_138_097)])
def test_parameters_at_full_size(latent: int, expected: int) -> None:
    """The publisher's page says 160 million, which his model has at latent size 2000, its default; he runs 512."""
    with torch.device("meta"):
        model = OpticalDamage(Recipe(latent=latent), sample_fields(200)).model()
    assert sum(p.numel() for p in model.parameters()) == by_hand(latent) == expected


@pytest.mark.parametrize("edge", [32, 40])
def test_shape_and_bottleneck(edge: int) -> None:
    torch.manual_seed(0)
    model = OpticalDamage(Recipe(latent=5, width=2), sample_fields(edge)).model().eval()
    image = torch.randn(9, 1, edge, edge)
    with torch.no_grad():
        assert model(image).shape == image.shape
        assert model.encoder(image).shape == (9, 5)
    layer = model.decoder[0]
    assert torch.linalg.matrix_rank(layer.weight.detach()) == 5


def test_loss_is_the_mean_squared_error() -> None:
    benchmark = OpticalDamage(Recipe(), sample_fields(32))
    image, output = torch.rand(3, 32, 32), torch.rand(3, 1, 32, 32)
    loss = benchmark.loss(output.bfloat16(), {"image": image})
    assert loss.dtype == torch.float32
    expected = ((output.bfloat16().double()[:, 0] - image) ** 2).mean()
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


def test_picture_is_of_the_first_damaged_optic() -> None:
    benchmark = OpticalDamage(Recipe(latent=2, width=1), sample_fields(32))
    batch = {"image": torch.rand(3, 32, 32), "damaged": torch.tensor([0, 1, 1], dtype=torch.uint8)}
    (picture,) = benchmark.pictures(benchmark.model().eval(), batch)
    np.testing.assert_array_equal(picture.panels[0], batch["image"][1])
    np.testing.assert_allclose(picture.panels[2], (picture.panels[0] - picture.panels[1]) ** 2, rtol=1e-5)
    assert len(picture.labels) == 3


def test_found_by_its_command_without_importing_torch() -> None:
    assert find("optical-damage") is OpticalDamage
    code = (
        "import sys; from sciml_hpc.benchmarks import find; b = find('optical-damage'); "
        "b.Recipe(); b.Generator(); print('torch' in sys.modules, 'numpy' in sys.modules, 'h5py' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "False"]
