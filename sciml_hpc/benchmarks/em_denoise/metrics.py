"""PSNR, SSIM and errors of images as additive sums, and the classical filter they are compared with."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch.nn import functional

SSIM_SIGMA, SSIM_RADIUS = 1.5, 5
"""Gaussian window of 11 × 11 pixels (Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli, IEEE Trans. Image Process.
13, 600 (2004), section III C)."""
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2
"""(K₁ L)² and (K₂ L)², the same section, for a range L of 1."""
FILTER_SIGMA, FILTER_RADIUS = 1.0, 4
"""Gaussian of the classical filter, in pixels: of 1, 1.5, 2, 3, 4 that with the best PSNR on simulated micrographs."""

_PARTS = ("mse", "mae", "psnr", "ssim")


class ImageMetrics:
    """Means over images of squared and absolute error, PSNR (dB) and SSIM, for images from 0 to 1.

    Beside those of the network, those of the recorded image itself (`…_noisy`) and of the classical filter
    (`…_filtered`), and the squared error of the best constant (`mse_constant`). PSNR is 10 lg(1 / mse) of each image;
    an image without any error counts as 200 dB. Everything is computed in float64.
    """

    def __init__(self, data_range: float) -> None:
        self.data_range = data_range

    def update(self, output: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """[images, Σ mean of clean, Σ mean of clean², then four sums each of network, recorded image and filter]."""
        with torch.autocast(output.device.type, enabled=False):
            clean, noisy = (batch[name].double().unsqueeze(1) / self.data_range for name in ("clean", "noisy"))
            sums = [clean.new_tensor(len(clean)), clean.mean((1, 2, 3)).sum(), clean.square().mean((1, 2, 3)).sum()]
            for image in (output.double(), noisy, classical(noisy)):
                error = image - clean
                mse = error.square().mean((1, 2, 3))
                psnr = -10 * mse.clamp(min=1e-20).log10()
                sums += [x.sum() for x in (mse, error.abs().mean((1, 2, 3)), psnr, ssim(image, clean))]
            return torch.stack(sums)

    def compute(self, total: np.ndarray) -> dict[str, float]:
        """By name; not a number if there was no image."""
        if not total[0]:
            total = np.full_like(total, math.nan)
        mean = total[1:] / total[0]
        network, noisy, filtered = (dict(zip(_PARTS, m.tolist(), strict=True)) for m in mean[2:].reshape(3, 4))
        values = {"psnr": network["psnr"], "ssim": network["ssim"], "eval_loss": network["mse"], "mae": network["mae"]}
        for name, baseline in (("noisy", noisy), ("filtered", filtered)):
            values |= {f"{part}_{name}": baseline[part] for part in _PARTS}
        return values | {"mse_constant": float(mean[1] - mean[0] ** 2)}


def ssim(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Structural similarity of images (batch, 1, P, P) from 0 to 1: (batch,), mean where the window lies inside."""
    moments = torch.cat([x, y, x * x, y * y, x * y], 1)
    mean_x, mean_y, xx, yy, xy = _blurred(moments, SSIM_SIGMA, SSIM_RADIUS).unbind(1)
    var_x, var_y, covariance = xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y
    similar = (2 * mean_x * mean_y + SSIM_C1) * (2 * covariance + SSIM_C2)
    similar = similar / ((mean_x**2 + mean_y**2 + SSIM_C1) * (var_x + var_y + SSIM_C2))
    return similar.mean((1, 2))


def classical(image: torch.Tensor) -> torch.Tensor:
    """Median of 3 × 3 pixels, which removes dead ones, then a Gaussian; (batch, 1, P, P), continued by mirroring."""
    padded = functional.pad(image, (1, 1, 1, 1), mode="reflect")
    median = functional.unfold(padded, 3).median(1).values.view_as(image)
    return _blurred(functional.pad(median, (FILTER_RADIUS,) * 4, mode="reflect"), FILTER_SIGMA, FILTER_RADIUS)


def _blurred(images: torch.Tensor, sigma: float, radius: int) -> torch.Tensor:
    """Each channel convolved with a Gaussian, where that lies inside: edges become shorter by 2 · `radius`."""
    at = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    window = torch.exp(-at.square() / (2 * sigma**2))
    window = (window / window.sum()).expand(images.shape[1], 1, -1)
    down = functional.conv2d(images, window.unsqueeze(3), groups=images.shape[1])
    return functional.conv2d(down, window.unsqueeze(2), groups=images.shape[1])
