"""Which parts of a map raise or lower a prediction: gradient-weighted class activation mapping."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch.nn import functional

from sciml_hpc.benchmarks.base import Picture
from sciml_hpc.benchmarks.magnon import UNSEEN, BANDS_meV
from sciml_hpc.benchmarks.magnon.model import Regressor


def activation_maps(model: Regressor, maps: torch.Tensor) -> torch.Tensor:
    """Grad-CAM of each output at the last convolution, at the size of the input: (batch, outputs, size, size) float32.

    R. R. Selvaraju et al., ICCV 2017, eq. 1 and 2: the activations of the last convolution summed with weights that
    are the means over the map of the output's gradients. The paper's ReLU, which keeps what speaks for a class, is left
    out: a number has no opposite class, and what lowers it counts as much. Each map is divided by its largest
    magnitude, so that values lie between −1 and 1; a map of zeros stays so.
    """
    with torch.enable_grad():
        activation = model.features(maps).float()
        values = model.read_out(activation).sum(0)  # samples do not mix, so one backward pass serves all of them
        coarse = []
        for value in values:
            (gradient,) = torch.autograd.grad(value, activation, retain_graph=True)
            coarse.append((gradient.mean((2, 3), keepdim=True) * activation).sum(1))
    stack = torch.stack(coarse, 1).detach()
    fine = functional.interpolate(stack, size=maps.shape[-2:], mode="bilinear", align_corners=False)
    return fine / fine.abs().amax((2, 3), keepdim=True).clamp_min(torch.finfo(fine.dtype).tiny)


def pictures(model: Regressor, maps: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> tuple[Picture, ...]:
    """One picture per sample of `batch`, whose inputs are `maps`: the counts of every band, then the maps of J and J'.

    k goes up and h to the right, each from 0 to 1.
    """
    with torch.no_grad():
        predicted = model(maps).cpu().numpy()
    explained = activation_maps(model, maps).cpu().numpy()
    counts = batch["counts"].cpu().numpy()
    # log1p of −1 is −inf: what no detector saw is blanked, not drawn
    shown = np.where(counts == UNSEEN, np.nan, np.log1p(np.maximum(counts, 0)))
    panels = np.concatenate([shown, explained], axis=1).astype(np.float32)[:, :, ::-1]
    labels = (
        *(f"ln(1 + neutrons), {low:g}–{high:g} meV" for low, high in BANDS_meV),
        *(f"Grad-CAM of {name}: + raises, − lowers it" for name in ("J", "J′")),
    )
    return tuple(
        Picture(
            f"spectrum_{i}",
            f"Validation spectrum {i} over 0 ≤ h, k < 1 (h to the right, k up), J = {truth[0]:.4f} and "
            f"J′ = {truth[1]:.4f} meV, predicted {guess[0]:.4f} and {guess[1]:.4f} meV; beside the neutrons counted in "
            "three bands of energy, the class-activation maps (Grad-CAM, last convolution) of the two predictions.",
            panel,
            labels,
        )
        for i, (truth, guess, panel) in enumerate(zip(batch["exchange"].cpu().numpy(), predicted, panels, strict=True))
    )
