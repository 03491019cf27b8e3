"""Operations against formulae by hand, and the ceiling against what it must obey. Run on the CPU."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn

from sciml_hpc.metering.compute import (
    DATASHEET,
    arithmetic,
    datasheet_peak,
    flops_per_sample,
    matmul_ceiling,
    mfu,
)


def count(model, *shape, samples, grad_input=False):
    x = torch.randn(*shape, requires_grad=grad_input)

    def forward_backward():
        out = model(x)
        (out[0] if isinstance(out, tuple) else out).sum().backward()

    return flops_per_sample(forward_backward, samples)


def test_linear_layers_by_hand():
    """Two layers I → H → O: forward 2·I·H + 2·H·O; backward both weights and the hidden layer, not the input."""
    inputs, hidden, outputs = 7, 11, 5
    model = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))
    forward = 2 * (inputs * hidden + hidden * outputs)
    backward = 2 * (inputs * hidden + 2 * hidden * outputs)
    assert count(model, 4, inputs, samples=4).per_sample == forward + backward
    with_input = count(model, 4, inputs, samples=4, grad_input=True)
    assert with_input.per_sample == forward + backward + 2 * inputs * hidden
    assert with_input.total == 4 * with_input.per_sample
    assert sum(with_input.by_operator.values()) == with_input.total


@pytest.mark.parametrize(("dims", "conv"), [(1, nn.Conv1d), (2, nn.Conv2d), (3, nn.Conv3d)])
def test_convolutions_by_hand(dims, conv):
    """2 · Cin · Cout · k^d · (outputs), three times: forward, weight gradient, input gradient."""
    cin, cout, k, size = 3, 8, 3, 10
    forward = 2 * cin * cout * k**dims * (size - k + 1) ** dims
    shape = (2, cin) + (size,) * dims
    assert count(conv(cin, cout, k), *shape, samples=2, grad_input=True).per_sample == 3 * forward
    assert count(conv(cin, cout, k), *shape, samples=2).per_sample == 2 * forward


def test_strided_and_transposed_convolutions_by_hand():
    """Stride 2, padding 1: 5 × 5 outputs of 10 × 10. Transposed: every input meets every weight once."""
    strided = count(nn.Conv2d(4, 6, 3, stride=2, padding=1), 1, 4, 10, 10, samples=1)
    assert strided.per_sample == 2 * (2 * 4 * 6 * 9 * 25)
    transposed = count(nn.ConvTranspose2d(4, 6, 2, stride=2), 1, 4, 5, 5, samples=1, grad_input=True)
    assert transposed.per_sample == 3 * (2 * 4 * 6 * 4 * 25)


@pytest.mark.parametrize(("layer", "gates"), [(nn.LSTM, 4), (nn.GRU, 3)])
def test_recurrent_layers_by_hand_though_their_kernels_are_fused(layer, gates):
    """Per step 2·gates·H·(I + H) forward, the same backward for weights, and for all hidden states but the first."""
    batch, steps, inputs, hidden = 3, 7, 5, 4
    got = count(layer(inputs, hidden, batch_first=True), batch, steps, inputs, samples=batch)
    weights = 2 * steps * gates * hidden * (inputs + hidden)
    states = 2 * (steps - 1) * gates * hidden * hidden
    assert got.per_sample == 2 * weights + states
    assert got.uncounted == ()


def test_attention_by_hand_though_its_kernel_is_fused():
    """Two products of 2·L²·d per head forward, four backward."""
    batch, heads, length, width = 2, 4, 16, 8
    q, k, v = (torch.randn(batch, heads, length, width, requires_grad=True) for _ in range(3))
    was = torch.backends.cuda.flash_sdp_enabled()
    got = flops_per_sample(lambda: nn.functional.scaled_dot_product_attention(q, k, v).sum().backward(), batch)
    assert got.per_sample == 6 * heads * 2 * length**2 * width
    assert got.uncounted == ()
    assert torch.backends.cuda.flash_sdp_enabled() == was


def test_what_is_not_counted_is_named():
    x = torch.randn(2, 8, 8, requires_grad=True)
    got = flops_per_sample(lambda: torch.fft.rfft2(x).abs().sum().backward(), 2)
    assert got.total == 0
    assert any("_fft_r2c" in name for name in got.uncounted)


def test_count_agrees_with_a_count_on_another_batch_size():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10))
    one, eight = count(model, 1, 3, 8, 8, samples=1), count(model, 8, 3, 8, 8, samples=8)
    assert one.per_sample == eight.per_sample > 0


def test_ceiling_of_a_product_of_known_duration(monkeypatch):
    """Products slowed to a known time each: the rate is 2·n³ over it, and the ceiling is the best size's."""
    took = {64: [], 128: []}

    def slow(a, b, out, real=torch.mm):
        begin = time.perf_counter()
        real(a, b, out=out)
        time.sleep(0.004)
        took[len(a)].append(time.perf_counter() - begin)

    monkeypatch.setattr(torch, "mm", slow)
    ceiling = matmul_ceiling(torch.device("cpu"), "fp32", seconds=0.4, sizes=(64, 128))
    for size, rate in ceiling.flop_per_s_by_size.items():
        assert 2 * size**3 / max(took[size]) * 0.95 <= rate <= 2 * size**3 / min(took[size])
    assert (ceiling.size, ceiling.flop_per_s) == (128, ceiling.flop_per_s_by_size[128])
    assert 0.3 < ceiling.seconds < 3


def test_ceiling_leaves_the_precision_setting_alone():
    torch.set_float32_matmul_precision("medium")
    try:
        matmul_ceiling(torch.device("cpu"), "tf32", seconds=0.01, sizes=(32,))
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize(
    ("name", "kind", "tflops"),
    [
        ("NVIDIA A100-SXM4-40GB", "bf16", 312),
        ("NVIDIA A100 80GB PCIe", "tf32", 156),
        ("NVIDIA H100 80GB HBM3", "bf16", 989.4),
        ("NVIDIA H200", "bf16", 989.4),
        ("NVIDIA GH200 120GB", "tf32", 494.7),
        ("AMD Instinct MI250X", "bf16", 191.5),
        ("Tesla V100-SXM2-32GB", "fp16", 125),
        ("Tesla V100-SXM2-32GB", "bf16", None),  # Volta has none
        ("NVIDIA A100-SXM-64GB", "bf16", None),  # a custom part of another speed
        ("NVIDIA H200 NVL", "bf16", None),
        ("NVIDIA GeForce RTX 4090", "bf16", None),
        ("CPU", "fp32", None),
    ],
)
def test_datasheet_knows_a_device_exactly_or_not_at_all(name, kind, tflops):
    peak = datasheet_peak(name, kind)
    assert (peak and peak.flop_per_s) == (tflops and pytest.approx(tflops * 1e12))


def test_every_peak_has_a_source_and_a_sensible_order():
    for peaks in DATASHEET.values():
        assert all("atasheet" in p.source or "sheet" in p.source or "white paper" in p.source for p in peaks.values())
        assert peaks["fp64"].flop_per_s <= peaks["fp32"].flop_per_s < peaks["fp16"].flop_per_s


def test_arithmetic_and_mfu():
    cpu = torch.device("cpu")
    assert [arithmetic(p, cpu) for p in ("fp32", "bf16")] == ["fp32", "bf16"]
    assert mfu(50e12, 200e12) == 0.25
    assert mfu(50e12, None) is None
