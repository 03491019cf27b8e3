"""The networks: published size, shapes, how they are found."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from sciml_hpc.benchmarks import find
from sciml_hpc.benchmarks.em_denoise import EMDenoise, Recipe
from sciml_hpc.benchmarks.em_denoise.synthetic import sample_fields


def model(size: int = 32, **recipe: object) -> torch.nn.Module:
    return EMDenoise(Recipe(**recipe), sample_fields(size)).model()


def test_published_size() -> None:
    """3×3 convolutions with biases, batch normalisations with two numbers per channel."""
    pairs = [(1, 8), (8, 8), (8, 16), (16, 16), (16, 32), (32, 32), (32, 64), (64, 64)]
    pairs += [(96, 32), (32, 32), (48, 16), (16, 16), (24, 8), (8, 8)]
    expected = sum(9 * a * b + 3 * b for a, b in pairs) + 9 * 8 + 1
    assert sum(p.numel() for p in model().parameters()) == expected == 122_737
    assert sum(p.numel() for p in model(model="mixed-scale").parameters()) == 45_652


@pytest.mark.parametrize("name", ["autoencoder", "mixed-scale"])
def test_shape_whatever_size_and_layout(name: str) -> None:
    torch.manual_seed(0)
    network = model(model=name, depth=5, width=2).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    image = torch.randn(2, 1, 40, 40)
    assert network(image).shape == (2, 1, 40, 40)
    channels_last = network(image.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(channels_last, network(image), atol=1e-4, rtol=1e-4)


def test_pictures_show_what_was_recorded_and_what_is_true() -> None:
    benchmark = EMDenoise(Recipe(width=2, data_range=2.0), sample_fields(32))
    batch = {name: torch.rand(3, 32, 32) for name in ("noisy", "clean")}
    (picture,) = benchmark.pictures(benchmark.model().eval(), batch)
    assert picture.panels.shape == (4, 32, 32)
    assert len(picture.labels) == 4
    torch.testing.assert_close(torch.from_numpy(picture.panels[[0, 3]]), torch.stack([batch[n][0] / 2 for n in batch]))


def test_found_by_its_command_without_importing_torch() -> None:
    assert find("em-denoise") is EMDenoise
    code = (
        "import sys; from sciml_hpc.benchmarks import find; b = find('em-denoise'); "
        "b.Recipe(); b.Generator(); print('torch' in sys.modules, 'numpy' in sys.modules, 'h5py' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "False"]
