"""The network at published size, its training, and its class-activation maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from sciml_hpc.benchmarks.magnon import Generator, Magnon, sample_fields
from sciml_hpc.benchmarks.magnon.explain import activation_maps
from sciml_hpc.benchmarks.magnon.model import Regressor


def published(maps: int = 3) -> Regressor:
    return Regressor(maps, 128, (32, 64, 32, 16), (0.7, 0.0), (0.3, 0.1))


def test_layers_are_the_published_ones() -> None:
    """Four 3×3 convolutions of 32, 64, 32 and 16 channels, ReLU, 2×2 max-pooling, dense 2: Σ (9 i + 1) o + (n + 1) 2
    parameters."""
    assert sum(p.numel() for p in published(1).parameters()) == 320 + 18_496 + 18_464 + 4_624 + 2_050
    model = Magnon(Magnon.Recipe(), sample_fields(128)).model()
    assert sum(p.numel() for p in model.parameters()) == 320 + 576 + 18_496 + 18_464 + 4_624 + 2_050
    kinds = [type(m) for m in model.modules() if not list(m.children())]
    assert kinds.count(nn.Conv2d) == kinds.count(nn.ReLU) == kinds.count(nn.MaxPool2d) == 4
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert [m.kernel_size for m in convolutions] == [(3, 3)] * 4
    torch.manual_seed(0)
    x = torch.rand(2, 3, 128, 128)
    y = x
    for m in convolutions:
        y = torch.max_pool2d(torch.relu(torch.conv2d(y, m.weight, m.bias, padding=1)), 2)
    y = y.reshape(2, -1) @ model.dense.weight.T + model.dense.bias
    torch.testing.assert_close(model(x), torch.tensor([0.7, 0.0]) + torch.tensor([0.3, 0.1]) * y)


def test_loss_is_in_half_ranges_and_masked_pixels_are_dark() -> None:
    benchmark = Magnon(Magnon.Recipe(), sample_fields(32))
    truth = torch.tensor([[0.5, 0.0], [0.9, 0.1]])
    batch = {"counts": torch.full((2, 3, 32, 32), -1, dtype=torch.int16), "exchange": truth}
    output = truth + torch.tensor([[0.3, 0.0], [-0.3, 0.1]])
    assert benchmark.loss(output, batch).item() == pytest.approx((1 + 0 + 1 + 1) / 4)
    assert benchmark.inputs(batch)[0].abs().max() == 0
    batch["counts"][0, 1, 2, 3] = 19
    assert benchmark.inputs(batch)[0].max().item() == pytest.approx(np.log(20) / 3)


def test_read_out_is_in_float32_under_autocast() -> None:
    """Outputs are not on the grid of bfloat16, whose step at 0.7 is 0.004 meV."""
    torch.manual_seed(0)
    model, x = Regressor(3, 32, (4, 4, 4, 4), (0.7, 0.0), (0.3, 0.1)), torch.rand(8, 3, 32, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode():
        low = model(x)
    assert low.dtype == torch.float32
    assert (low != low.bfloat16()).all()


def test_learns_j_from_few_maps() -> None:
    """A hundred steps on 32 maps leave less than half of the error of saying the middle (a quarter at worst, over eight
    seeds and one or two threads)."""
    benchmark = Magnon(Magnon.Recipe(channels=(8, 8, 8, 8)), sample_fields(32))
    samples = Magnon.simulator(Generator(size=32), {"train": 32}, 1).read("train", 0, 32)
    batch = {name: torch.from_numpy(values) for name, values in samples.items()}
    torch.manual_seed(1)
    model = benchmark.model()
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(100):
        optimiser.zero_grad()
        loss = benchmark.loss(model(*benchmark.inputs(batch)), batch)
        loss.backward()
        optimiser.step()
    found = benchmark.metrics().compute(
        benchmark.metrics().update(model(*benchmark.inputs(batch)), batch).detach().numpy()
    )
    assert found["mae_J_meV"] < found["mean_predictor_mae_J_meV"] / 2


def transparent() -> Regressor:
    """A network whose convolutions pass map 0 on as channel 0, map 1 as channel 1, and nothing else; J is the mean of
    channel 0 less twice that of channel 1, J' does not depend on the maps."""
    model = Regressor(2, 32, (2, 2, 2, 2), (0.0, 0.0), (1.0, 1.0))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        for module in model.features:
            if isinstance(module, nn.Conv2d):
                module.weight[0, 0, 1, 1] = module.weight[1, 1, 1, 1] = 1
        model.dense.weight[0, :4], model.dense.weight[0, 4:] = 1 / 4, -2 / 4
    return model


def test_activation_maps_of_a_transparent_network() -> None:
    """Then the map of J is the pooled map 0 less twice the pooled map 1: a bright spot where map 0 has one, twice as
    deep a hollow where map 1 has an equal one; that of J' is zero."""
    maps = torch.zeros(2, 2, 32, 32)
    maps[0, 0, 5, 6] = 1
    maps[0, 1, 21, 26] = 1
    maps[1, 0, 13, 29] = 3
    found = activation_maps(transparent().eval(), maps)
    assert found.shape == (2, 2, 32, 32)
    assert (found[:, 1] == 0).all()
    first, second = found[0, 0].numpy(), found[1, 0].numpy()
    assert np.abs(first).max() == pytest.approx(1)
    # spots lie in the 8×8 pixels that one activation of the last convolution stands for
    assert np.unravel_index(first.argmax(), first.shape) in [(y, x) for y in range(8) for x in range(8)]
    assert np.unravel_index(first.argmin(), first.shape) in [(y, x) for y in range(16, 24) for x in range(24, 32)]
    assert first.max() / -first.min() == pytest.approx(0.5, rel=0.1)  # interpolation lowers the inner one a little
    assert second.min() == 0
    assert second.max() == pytest.approx(1)
    assert np.unravel_index(second.argmax(), second.shape) in [(y, x) for y in range(8, 16) for x in range(24, 32)]


def test_pictures_show_bands_and_maps_with_k_upwards() -> None:
    benchmark = Magnon(Magnon.Recipe(channels=(4, 4, 4, 4)), sample_fields(32))
    torch.manual_seed(0)
    model = benchmark.model().eval()
    counts = torch.zeros(6, 3, 32, 32, dtype=torch.int16)
    counts[:, 0, 31, 0] = 19  # k near 1, h near 0: to be drawn at the top left
    counts[:, 1, 0, 31] = -1
    batch = {"counts": counts, "exchange": torch.tensor([[0.5, 0.01]] * 6)}
    pictures = benchmark.pictures(model, batch)
    assert len({p.name for p in pictures}) == len(pictures) == 4
    for picture in pictures:
        assert picture.panels.shape == (5, 32, 32)
        assert picture.panels.dtype == np.float32
        assert len(picture.labels) == 5
        assert "0.5000" in picture.caption
        assert picture.panels[0, 0, 0] == pytest.approx(np.log(20))
        assert np.isnan(picture.panels[1, 31, 31])
        assert np.isnan(picture.panels).sum() == 1
        assert np.abs(picture.panels[3:]).max() <= 1
