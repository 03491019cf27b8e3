"""Arithmetic: operations counted, a ceiling measured on the device itself, and the datasheet's where it is known."""

from __future__ import annotations

import contextlib
import re
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

FUSED_RNN = ("aten._cudnn_rnn", "aten.miopen_rnn", "aten.mkldnn_rnn_layer")
UNCOUNTED = (
    *FUSED_RNN,
    "aten._fft_",
    "aten.grid_sampler",
    "aten._trilinear",
    "aten._cdist",
    "aten._scaled_dot_product_",
)
"""Beginnings of the names of operators that hide multiplications from the counter where it does not know them."""


@dataclass(frozen=True)
class FlopCount:
    """Floating-point operations of one forward and backward pass."""

    total: int
    per_sample: float
    by_operator: dict[str, int]
    uncounted: tuple[str, ...] = field(default=())
    """Operators with multiplications that the counter does not know: the total is too low by theirs."""


def flops_per_sample(forward_backward: Callable[[], object], samples: int) -> FlopCount:
    """Count what `forward_backward` does to a batch of `samples`: the loss of the model and `backward()` of it.

    By torch's FlopCounterMode: products of matrices, convolutions and attention, two operations per multiply-add, in
    both passes as executed (no gradient of the input if none is wanted). Not in it, by the usual convention of MFU:
    element-wise work, normalisation, pooling, and the optimiser. Attention is counted as its two products (and their
    four in the backward pass), recurrent layers by their matrix products; for both, the fused kernels are switched
    off while counting, because the counter does not see into them. The count is the same on every device. Takes about
    as long as the pass itself, so one sample will do. The callable is called again from its start if a fused recurrent
    layer is met; gradients it leaves are the caller's to clear.
    """
    from torch.backends import cudnn, mkldnn

    try:
        return _count(forward_backward, samples, refused=FUSED_RNN)
    except _Refused:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # oneDNN's flags speak of Intel GPUs on every machine
            with cudnn.flags(enabled=False), mkldnn.flags(enabled=False):
                return _count(forward_backward, samples, refused=())


class _Refused(Exception):
    """An operator was met that is not to be counted as it is."""


def _count(forward_backward: Callable[[], object], samples: int, refused: tuple[str, ...]) -> FlopCount:
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import FlopCounterMode, flop_registry

    counted = {str(operator) for operator in flop_registry}
    seen = set()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            name = str(func.overloadpacket)
            if refused and name.startswith(refused):
                raise _Refused
            seen.add(name)
            return func(*args, **(kwargs or {}))

    counter = FlopCounterMode(display=False)
    with _plain_attention(), counter, Watch():
        forward_backward()
    by_operator = {str(k).removeprefix("aten."): v for k, v in counter.get_flop_counts().get("Global", {}).items()}
    hidden = sorted(name for name in seen - counted if name.startswith(UNCOUNTED))
    total = counter.get_total_flops()
    return FlopCount(total, total / samples, by_operator, tuple(hidden))


@contextlib.contextmanager
def _plain_attention() -> Iterator[None]:
    """Attention as matrix products, by whatever switches this torch has."""
    from torch.backends import cuda

    kernels = [name for name in ("flash", "mem_efficient", "cudnn") if hasattr(cuda, f"enable_{name}_sdp")]
    were = {name: getattr(cuda, f"{name}_sdp_enabled")() for name in kernels}
    try:
        for name in kernels:
            getattr(cuda, f"enable_{name}_sdp")(False)
        yield
    finally:
        for name, on in were.items():
            getattr(cuda, f"enable_{name}_sdp")(on)


def arithmetic(precision: str, device: torch.device) -> str:
    """What the products of a run are computed in: "bf16", "fp16", "fp64", "fp32" or "tf32".

    `precision` is "fp32" or "bf16" (a recipe's), or another of these names. On NVIDIA GPUs from Ampere on, torch
    computes fp32 convolutions in TF32 unless told otherwise; the ceiling of such a run is TF32's.
    """
    import torch

    if precision != "fp32" or device.type != "cuda" or torch.version.hip:
        return precision
    allowed = torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32
    return "tf32" if allowed and torch.cuda.get_device_capability(device)[0] >= 8 else "fp32"


@dataclass(frozen=True)
class MatmulCeiling:
    """The fastest square matrix product found on one device."""

    flop_per_s: float
    size: int
    """Rows and columns."""
    arithmetic: str
    flop_per_s_by_size: dict[int, float]
    seconds: float
    """Time it took to find out."""


def matmul_ceiling(device: torch.device, kind: str, seconds: float = 2.0, sizes: tuple[int, ...] = ()) -> MatmulCeiling:
    """Measure the rate of products of random square matrices in `kind` (see `arithmetic`), about `seconds` long.

    Each size is warmed up and then repeated for its share of the time; its rate is the median over blocks of products,
    the ceiling is the best size's. Sizes too large for their share are left out. Random numbers, not zeros: zeros draw
    less power and clock higher. On a GPU this is what large products sustain, below the datasheet's peak.
    """
    import numpy as np
    import torch

    began = time.perf_counter()
    gpu = device.type == "cuda"
    sizes = sizes or ((2048, 4096, 8192, 16384) if gpu else (256, 512, 1024, 2048))
    dtype = getattr(torch, {"fp64": "float64", "fp16": "float16", "bf16": "bfloat16"}.get(kind, "float32"))
    generator = torch.Generator(device).manual_seed(0)
    rates: dict[int, float] = {}

    def block(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor, products: int) -> float:
        start = time.perf_counter()
        for _ in range(products):
            torch.mm(a, b, out=out)
        if gpu:
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if kind == "tf32" else "highest")
    try:
        for size in sizes:
            a, b = (torch.randn(size, size, device=device, generator=generator).to(dtype) for _ in range(2))
            out = torch.empty_like(a)
            share = seconds / len(sizes)
            block(a, b, out, 2)
            products = max(1, int(share / 10 / max(block(a, b, out, 1), 1e-7)))
            times, spent = [], 0.0
            while not times or (spent < share and len(times) < 100):
                times.append(block(a, b, out, products))
                spent += times[-1]
            rates[size] = 2 * size**3 * products / float(np.median(times))
            if 8 * min(times) / products > share:
                break  # on a slow device the next size alone would outlast the time
    finally:
        torch.set_float32_matmul_precision(before)
    best = max(rates, key=rates.__getitem__)
    return MatmulCeiling(rates[best], best, kind, rates, time.perf_counter() - began)


@dataclass(frozen=True)
class Peak:
    """A vendor's figure for dense (not sparse) matrix arithmetic of one device as torch sees it."""

    flop_per_s: float
    source: str


def _tera(source: str, **tflops: float) -> dict[str, Peak]:
    return {kind: Peak(value * 1e12, source) for kind, value in tflops.items()}


_HOPPER = {"fp64": 66.9, "fp32": 66.9, "tf32": 494.7, "fp16": 989.4, "bf16": 989.4}
DATASHEET: dict[str, dict[str, Peak]] = {
    r"Tesla V100-SXM2-(16|32)GB": _tera("NVIDIA V100 datasheet (2020), SXM2", fp64=7.8, fp32=15.7, fp16=125),
    r"Tesla V100-PCIE-(16|32)GB": _tera("NVIDIA V100 datasheet (2020), PCIe", fp64=7.0, fp32=14, fp16=112),
    r"NVIDIA A100-(SXM4|PCIE)-(40|80)GB|NVIDIA A100 80GB PCIe": _tera(
        "NVIDIA A100 datasheet (2021); fp64 by tensor cores", fp64=19.5, fp32=19.5, tf32=156, fp16=312, bf16=312
    ),
    r"NVIDIA H100 80GB HBM3": _tera("NVIDIA H100 architecture white paper (2022), SXM5, dense", **_HOPPER),
    r"NVIDIA H100 PCIe": _tera(
        "NVIDIA H100 architecture white paper (2022), PCIe, dense", fp64=51.2, fp32=51.2, tf32=378, fp16=756, bf16=756
    ),
    r"NVIDIA H200": _tera("NVIDIA H200 datasheet (2024), SXM, sparse figures halved: as H100 SXM5", **_HOPPER),
    r"NVIDIA GH200 (480GB|120GB|144G HBM3e)": _tera(
        "NVIDIA GH200 datasheet (2023), sparse figures halved: as H100 SXM5", **_HOPPER
    ),
    r"NVIDIA B200": _tera(
        "NVIDIA Blackwell datasheet (2025), HGX B200, sparse figures halved",
        fp64=37, fp32=75, tf32=1100, fp16=2250, bf16=2250,
    ),
    r"AMD Instinct MI250X": _tera(
        "AMD Instinct MI250X datasheet (2021), matrix, half a card: torch sees its two dies", fp64=47.85, fp32=47.85,
        fp16=191.5, bf16=191.5,
    ),
    r"AMD Instinct MI300A": _tera(
        "AMD Instinct MI300A data sheet (2023), matrix, dense", fp64=122.6, fp32=122.6, fp16=980.6, bf16=980.6
    ),
    r"AMD Instinct MI300X": _tera(
        "AMD Instinct MI300X data sheet (2023), matrix, dense", fp64=163.4, fp32=163.4, fp16=1307.4, bf16=1307.4
    ),
}  # fmt: skip
"""Device name as torch gives it (whole name, a regular expression) → kind of arithmetic → peak. Names that also cover
parts of another speed (custom A100s, other memory sizes) are left out."""


def datasheet_peak(device_name: str, kind: str) -> Peak | None:
    """The vendor's peak of a device for a kind of arithmetic; None if it is not known, never a guess."""
    for pattern, peaks in DATASHEET.items():
        if re.fullmatch(pattern, device_name):
            return peaks.get(kind)
    return None


def mfu(flop_per_s: float, ceiling_flop_per_s: float | None) -> float | None:
    """Share of a ceiling that one device's rate (operations per sample × its samples per second) reaches."""
    return flop_per_s / ceiling_flop_per_s if ceiling_flop_per_s else None
