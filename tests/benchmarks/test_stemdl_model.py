"""The networks: published sizes, and what goes in and out."""

from __future__ import annotations

import pytest
import torch

from sciml_hpc.benchmarks.stemdl.model import FCDenseNet, ResNet


def parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("channels", "count"), [(1, 23_975_079), (3, 23_981_351)])
def test_resnet50_has_the_published_size(channels: int, count: int) -> None:
    assert parameters(ResNet(channels, 231)) == count


def test_resnet50_of_1000_classes_is_torchvisions() -> None:
    """25,557,032 parameters, as its documentation has it; 320 tensors with running means, variances and counts."""
    model = ResNet(3, 1000)
    assert parameters(model) == 25_557_032
    assert len(model.state_dict()) == 320


def test_one_channel_averages_the_logits_of_projections() -> None:
    torch.manual_seed(0)
    model = ResNet(1, 7, blocks=(1, 1), width=8, dropout=0.5).eval()
    patterns = torch.randn(5, 3, 32, 32)
    with torch.no_grad():
        together = model(patterns)
        apart = torch.stack([model(patterns[:, i : i + 1]) for i in range(3)]).mean(0)
    assert together.shape == (5, 7)
    assert torch.allclose(together, apart, atol=1e-6)


def test_three_channels_are_one_image() -> None:
    torch.manual_seed(0)
    model = ResNet(3, 7, blocks=(1, 1), width=8).eval()
    patterns = torch.randn(5, 3, 32, 32)
    with torch.no_grad():
        assert model(patterns).shape == (5, 7)
        assert not torch.allclose(model(patterns), model(patterns.flip(1)), atol=1e-4)


def test_dropout_is_on_the_logits_in_training_only() -> None:
    torch.manual_seed(0)
    model = ResNet(1, 200, blocks=(1,), width=8, dropout=0.5)
    patterns = torch.randn(4, 1, 32, 32)
    dropped = (model(patterns) == 0).float().mean()
    assert 0.35 < dropped < 0.65
    assert (model.eval()(patterns) != 0).all()


def test_densenet_has_the_size_of_its_layer_list() -> None:
    """The reference's network file, layer by layer: (in, out, kernel), normalisations, with 1024 probe positions."""
    convolutions = [(1024, 128, 3)]
    convolutions += [(128 + 128 * i, 128, 3) for i in range(2)] + [(384, 384, 1)]
    convolutions += [(384 + 128 * i, 128, 3) for i in range(2)] + [(640, 640, 1)]
    convolutions += [(640 + 128 * i, 128, 3) for i in range(3)] + [(1024, 1024, 1)]
    convolutions += [(1024 + 128 * i, 128, 3) for i in range(4)] + [(512, 512, 2)]
    convolutions += [(512 + 1024 + 128 * i, 128, 3) for i in range(3)] + [(384, 384, 2)]
    convolutions += [(384 + 640 + 128 * i, 128, 3) for i in range(2)] + [(256, 256, 2)]
    convolutions += [(256 + 384 + 128 * i, 128, 3) for i in range(2)] + [(896, 1, 1)]
    weights = sum(i * o * k * k for i, o, k in convolutions)
    biases, normalisations = 128, 2 * (384 + 640 + 1024)
    assert parameters(FCDenseNet(1024)) == weights + biases + normalisations == 24_302_592


@pytest.mark.parametrize(("down", "size"), [((2, 2, 3), 16), ((1,), 8), ((1, 1), 12)])
def test_densenet_keeps_the_image_size_and_uses_every_parameter(down: tuple[int, ...], size: int) -> None:
    torch.manual_seed(0)
    model = FCDenseNet(9, growth=4, down=down, bottom=2)
    output = model(torch.rand(2, 9, size, size))
    assert output.shape == (2, 1, size, size)
    output.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
