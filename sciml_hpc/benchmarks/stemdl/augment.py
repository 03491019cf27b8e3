"""Random changes to training samples.

Of classification as ORNL's reference makes them (there with torchvision); of reconstruction the symmetries of a scan.
"""

from __future__ import annotations

import math

import torch

_AREA = (0.02, 0.33)
"""Share of the pattern that is erased (Z. Zhong et al., AAAI 2020, the defaults of torchvision)."""
_ASPECT = (0.3, 3.3)
"""Height over width of the rectangle, drawn uniformly in the logarithm."""


def one_projection(patterns: torch.Tensor) -> torch.Tensor:
    """One of the projections of each sample at random: (batch, 3, h, w) → (batch, 1, h, w)."""
    batch, count = patterns.shape[:2]
    chosen = torch.randint(count, (batch,), device=patterns.device)
    return patterns[torch.arange(batch, device=patterns.device), chosen].unsqueeze(1)


def erased(patterns: torch.Tensor, probability: float) -> torch.Tensor:
    """Zeroes a random rectangle in each sample with `probability`: (batch, channels, h, w) → the same.

    Rectangles longer than the pattern are cut to it; torchvision draws them again.
    """
    batch, _, height, width = patterns.shape

    def draw(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(batch, 1, device=patterns.device)

    area, aspect = height * width * draw(*_AREA), draw(*map(math.log, _ASPECT)).exp()
    rows = (area * aspect).sqrt().round().clamp(1, height)
    columns = (area / aspect).sqrt().round().clamp(1, width)
    top, left = ((draw(0, 1) * (edge - size + 1)).floor() for edge, size in ((height, rows), (width, columns)))
    y, x = (torch.arange(n, device=patterns.device) for n in (height, width))
    in_rows, in_columns = (y >= top) & (y < top + rows), (x >= left) & (x < left + columns)
    hit = in_rows[:, :, None] & in_columns[:, None, :] & (draw(0, 1) < probability)[:, :, None]
    return patterns.masked_fill(hit[:, None], 0)


def turned(cbed: torch.Tensor, potential: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Each sample rotated by a multiple of 90° and possibly mirrored: scan, patterns and potential together.

    `cbed` (batch, scan², size, size), `potential` (batch, 1, size, size). What comes out is what the microscope would
    have seen of the rotated or mirrored crystal.
    """
    batch, channels, *image = cbed.shape
    scan = math.isqrt(channels)
    grid = cbed.reshape(batch, scan, scan, *image)
    turned_cbed, turned_potential = torch.empty_like(grid), torch.empty_like(potential)
    for i, kind in enumerate(torch.randint(8, (batch,)).tolist()):  # drawn on the host: a GPU is not waited for
        patterns, field = (x[i].rot90(kind % 4, (-2, -1)) for x in (grid, potential))
        patterns = patterns.rot90(kind % 4, (0, 1))
        if kind >= 4:
            patterns, field = patterns.transpose(-2, -1).transpose(0, 1), field.transpose(-2, -1)
        turned_cbed[i], turned_potential[i] = patterns, field
    return turned_cbed.reshape(cbed.shape), turned_potential
