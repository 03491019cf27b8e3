"""The U-Net: the published size, its shapes, its initial weights."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch

from sciml_hpc.benchmarks import find
from sciml_hpc.benchmarks.cloudmask import CloudMask, Recipe
from sciml_hpc.benchmarks.cloudmask.model import UNet
from sciml_hpc.benchmarks.cloudmask.native import sample_fields


def parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_full_size_has_the_published_number_of_parameters() -> None:
    benchmark = CloudMask(Recipe(), sample_fields(256))
    assert parameters(benchmark.model()) == 1_948_609


@pytest.mark.parametrize("width", [1, 8])
def test_parameters_by_hand(width: int) -> None:
    w = width
    convolutions = [(9, w), (w, w), (w, 2 * w), (2 * w, 2 * w), (2 * w, 4 * w), (4 * w, 4 * w), (4 * w, 8 * w)]
    convolutions += [
        (8 * w, 8 * w),
        (12 * w, 4 * w),
        (4 * w, 4 * w),
        (6 * w, 2 * w),
        (2 * w, 2 * w),
        (3 * w, w),
        (w, w),
    ]
    assert parameters(UNet(9, width)) == sum(9 * a * b + b for a, b in convolutions) + w + 1


@pytest.mark.parametrize("size", [32, 64])
def test_one_logit_per_pixel_whatever_layout_and_precision(size: int) -> None:
    torch.manual_seed(0)
    model = UNet(9, 4).eval()
    image = torch.randn(2, 9, size, size)
    plain = model(image)
    assert plain.shape == (2, size, size)
    channels_last = model.to(memory_format=torch.channels_last)
    torch.testing.assert_close(channels_last(image.to(memory_format=torch.channels_last)), plain, atol=1e-4, rtol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model(image)
    torch.testing.assert_close(half.float(), plain, atol=0.05 * float(plain.detach().abs().max()), rtol=0.05)


def test_a_pixel_is_judged_by_its_surroundings() -> None:
    torch.manual_seed(0)
    image = torch.randn(1, 9, 64, 64, requires_grad=True)
    UNet(9, 8)(image)[0, 32, 32].backward()
    reach = image.grad[0].abs().sum(0).nonzero()
    assert int(reach.min()) < 16
    assert int(reach.max()) > 48


def test_weights_are_he_normal_and_biases_zero() -> None:
    torch.manual_seed(0)
    for layer in (m for m in UNet(9, 32).modules() if isinstance(m, torch.nn.Conv2d)):
        fan_in = layer.in_channels * math.prod(layer.kernel_size)
        n = layer.weight.numel()
        assert float(layer.weight.std()) == pytest.approx(math.sqrt(2 / fan_in), rel=5 / math.sqrt(2 * n))
        assert not layer.bias.any()


def test_weights_follow_from_the_seed() -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.cat([p.flatten() for p in UNet(9, 4).parameters()])

    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))


def test_mixed_scale_dense_network_instead() -> None:
    """Few parameters: 9 (9 + i) weights and a bias per layer i, 9 + depth and 1 at the end."""
    torch.manual_seed(0)
    model = CloudMask(Recipe(model="mixed-scale", depth=30), sample_fields(32)).model()
    assert parameters(model) == sum(9 * (9 + i) + 1 for i in range(30)) + 40
    assert model(torch.randn(2, 9, 32, 32)).shape == (2, 32, 32)


def test_found_by_its_folder_without_importing_torch() -> None:
    assert find("cloudmask") is CloudMask
    code = (
        "import sys; from sciml_hpc.benchmarks import find; b = find('cloudmask'); "
        "b.Recipe(); b.Generator(); print('torch' in sys.modules, 'numpy' in sys.modules, 'h5py' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "False"]
