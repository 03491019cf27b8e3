"""The mixed-scale dense network against plain convolutions over concatenated channels, and its size."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from sciml_hpc.benchmarks.mixed_scale import MixedScaleDense


def network(channels: int, outputs: int, depth: int, width: int) -> MixedScaleDense:
    """One whose every parameter matters, in float64."""
    torch.manual_seed(0)
    model = MixedScaleDense(channels, outputs, depth, width).double()
    for parameter in (model.bias, model.output.weight, model.output.bias):
        torch.nn.init.normal_(parameter)
    return model


def plain(model: MixedScaleDense, image: torch.Tensor) -> torch.Tensor:
    """The paper's equations 1 to 4, literally."""
    maps, at = image, 0
    for i in range(model.depth):
        before = maps.shape[1]
        kernel = model.weight[at : at + 9 * model.width * before].view(model.width, before, 3, 3)
        at += kernel.numel()
        for j in range(model.width):
            number = i * model.width + j
            dilation = number % 10 + 1
            bias = model.bias[number : number + 1]
            own = functional.conv2d(maps[:, :before], kernel[j : j + 1], bias, padding=dilation, dilation=dilation)
            maps = torch.cat([maps, functional.relu(own)], 1)
    assert at == model.weight.numel()
    return model.output(maps)


@pytest.mark.parametrize(("channels", "outputs", "depth", "width"), [(1, 1, 13, 1), (3, 2, 5, 3)])
def test_output_and_gradients_are_those_of_plain_convolutions(
    channels: int, outputs: int, depth: int, width: int
) -> None:
    model = network(channels, outputs, depth, width)
    image = torch.randn(2, channels, 17, 24, dtype=torch.float64, requires_grad=True)
    ours, theirs = model(image), plain(model, image)
    torch.testing.assert_close(ours, theirs)
    weights = torch.randn_like(ours)
    wanted = [image, *model.parameters()]
    for ours_, theirs_ in zip(
        torch.autograd.grad((ours * weights).sum(), wanted),
        torch.autograd.grad((theirs * weights).sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(ours_, theirs_)


def test_gradient_in_every_direction() -> None:
    model = network(2, 1, 3, 2)
    image = torch.randn(1, 2, 7, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(model, (image,))


@pytest.mark.parametrize(("channels", "depth", "expected"), [(1, 100, 45_652), (9, 100, 52_860), (9, 30, 6_415)])
def test_parameters(channels: int, depth: int, expected: int) -> None:
    """9 (c + i) weights and a bias per layer i, c + depth and 1 at the end."""
    by_hand = sum(9 * (channels + i) + 1 for i in range(depth)) + channels + depth + 1
    assert sum(p.numel() for p in MixedScaleDense(channels, 1, depth).parameters()) == by_hand == expected


def test_initial_weights() -> None:
    torch.manual_seed(0)
    model = MixedScaleDense(3, 2, depth=40)
    n = model.weight.numel()
    assert float(model.weight.detach().std()) == pytest.approx(math.sqrt(2 / (9 * 42 + 2)), rel=5 / math.sqrt(2 * n))
    assert not any(p.any() for p in (model.bias, model.output.weight, model.output.bias))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_any_layout_and_precision(layout: torch.memory_format) -> None:
    model = network(3, 1, 12, 1).float()
    image = torch.randn(2, 3, 20, 20)
    expected = model(image)
    torch.testing.assert_close(model(image.to(memory_format=layout)), expected)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(image.to(memory_format=layout))
    assert half.dtype == torch.bfloat16
    error = (half.float() - expected).square().mean().sqrt()
    assert float((error / expected.std()).detach()) < 0.05
    half.float().sum().backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in model.parameters())


def test_operations_are_counted_and_memory_grows_with_depth_only() -> None:
    """The figures of a run rest on torch's count: two operations per weight and pixel, thrice that with gradients."""
    model, pixels = MixedScaleDense(1, 1, depth=20), 16 * 16
    image = torch.randn(1, 1, 16, 16, requires_grad=True)
    forward = 2 * pixels * (model.weight.numel() + 21)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(image)
    assert counter.get_total_flops() == forward
    kept = []
    with (
        FlopCounterMode(display=False) as counter,
        torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x),
    ):
        output = model(image)
        output.sum().backward()
    assert counter.get_total_flops() == 3 * forward
    storages = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in kept}
    assert sum(storages.values()) < 1.5 * 4 * 21 * pixels + 4 * model.weight.numel() * 2
