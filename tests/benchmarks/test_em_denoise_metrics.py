"""PSNR, SSIM and the classical filter against scikit-image, SciPy and hand-made cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from sciml_hpc.benchmarks.em_denoise import EMDenoise, Recipe
from sciml_hpc.benchmarks.em_denoise.metrics import ImageMetrics, classical, ssim
from sciml_hpc.benchmarks.em_denoise.synthetic import sample_fields


def pair(seed: int, count: int = 5, size: int = 40) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    rng = np.random.default_rng(seed)
    clean = ndimage.gaussian_filter(rng.random((count, size, size)), (0, 2, 2))
    clean = ((clean - clean.min()) / np.ptp(clean)).astype(np.float32)
    noisy, output = (clean + rng.normal(0, s, clean.shape).astype(np.float32) for s in (0.3, 0.1))
    batch = {"clean": torch.from_numpy(clean), "noisy": torch.from_numpy(noisy)}
    return torch.from_numpy(output).unsqueeze(1), batch


def in_cuts(output: torch.Tensor, batch: dict[str, torch.Tensor], cuts: list[int]) -> dict[str, float]:
    metrics, total = ImageMetrics(1.0), np.zeros(15)
    pieces = [torch.tensor_split(x, cuts) for x in (output, batch["clean"], batch["noisy"])]
    for o, c, n in zip(*pieces, strict=True):
        part = metrics.update(o, {"clean": c, "noisy": n})
        assert part.dtype == torch.float64
        total += part.numpy()
    return metrics.compute(total)


def test_psnr_and_ssim_are_those_of_scikit_image_over_any_cuts() -> None:
    measure = pytest.importorskip("skimage.metrics")
    output, batch = pair(0)
    result = in_cuts(output, batch, [0, 1, 1, 4])
    for name, image in (("", output[:, 0]), ("_noisy", batch["noisy"])):
        pairs = [(x.astype(float), y.astype(float)) for x, y in zip(image.numpy(), batch["clean"].numpy(), strict=True)]
        psnr = [measure.peak_signal_noise_ratio(y, x, data_range=1) for x, y in pairs]
        similar = [
            measure.structural_similarity(
                x, y, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
            )
            for x, y in pairs
        ]
        assert result[f"psnr{name}"] == pytest.approx(np.mean(psnr), rel=1e-9)
        assert result[f"ssim{name}"] == pytest.approx(np.mean(similar), rel=1e-9)


def test_ssim_by_its_definition() -> None:
    """One place: means, variances and covariance under an 11 × 11 Gaussian window."""
    rng = np.random.default_rng(1)
    x, y = rng.random((2, 11, 11))
    at = np.arange(-5, 6)
    window = np.exp(-(at[:, None] ** 2 + at**2) / (2 * 1.5**2))
    window /= window.sum()
    mx, my = (window * x).sum(), (window * y).sum()
    vx, vy, c = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum(), (window * (x - mx) * (y - my)).sum()
    expected = (2 * mx * my + 1e-4) * (2 * c + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))
    found = ssim(*(torch.from_numpy(a)[None, None] for a in (x, y)))
    assert float(found) == pytest.approx(expected, rel=1e-9)
    assert float(ssim(*[torch.from_numpy(x)[None, None]] * 2)) == pytest.approx(1)


def test_means_by_hand_over_any_cuts() -> None:
    output, batch = pair(2)
    whole, cut = in_cuts(output, batch, []), in_cuts(output, batch, [2, 3])
    assert whole == pytest.approx(cut, rel=1e-12)
    clean, image = batch["clean"].numpy().astype(float), output[:, 0].numpy().astype(float)
    assert whole["eval_loss"] == pytest.approx(((image - clean) ** 2).mean())
    assert whole["mae"] == pytest.approx(np.abs(image - clean).mean())
    assert whole["psnr"] == pytest.approx(np.mean(-10 * np.log10(((image - clean) ** 2).mean((1, 2)))))
    assert whole["mse_constant"] == pytest.approx(clean.var())
    assert whole["psnr_filtered"] > whole["psnr_noisy"]


def test_filter_is_scipys_median_and_gaussian() -> None:
    image = np.random.default_rng(3).random((2, 33, 40))
    expected = [
        ndimage.gaussian_filter(ndimage.median_filter(x, 3, mode="mirror"), 1.0, mode="mirror", radius=4) for x in image
    ]
    found = classical(torch.from_numpy(image).unsqueeze(1))[:, 0]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_white_of_255_gives_the_same_figures_but_for_rounding() -> None:
    output, batch = pair(4)
    bright = {name: 255 * values for name, values in batch.items()}
    one, other = ImageMetrics(1.0), ImageMetrics(255.0)
    assert other.compute(other.update(output, bright).numpy()) == pytest.approx(
        one.compute(one.update(output, batch).numpy()), rel=1e-5
    )
    benchmark = EMDenoise(Recipe(data_range=255.0), sample_fields(40))
    assert float(benchmark.loss(output, bright)) == pytest.approx(
        float((output[:, 0] - batch["clean"]).square().mean())
    )
    torch.testing.assert_close(benchmark.inputs(bright)[0][:, 0], batch["noisy"])


def test_perfect_images_and_no_images() -> None:
    _, batch = pair(5, count=2)
    metrics = ImageMetrics(1.0)
    with torch.autocast("cpu", torch.bfloat16):  # as in evaluation: must not reach the metrics
        perfect = metrics.compute(metrics.update(batch["clean"].unsqueeze(1), batch).numpy())
    assert perfect["psnr"] == pytest.approx(200)
    assert perfect["ssim"] == pytest.approx(1)
    assert perfect["eval_loss"] == 0
    assert all(math.isnan(v) for v in metrics.compute(np.zeros(15)).values())
