"""The crystals: lead zirconate titanate PbZr₀.₅₂Ti₀.₄₈O₃ near its phase boundary, tetragonal and monoclinic.

Cells: B. Noheda et al., Appl. Phys. Lett. 74, 2059 (1999), abstract: tetragonal a = 4.037 Å, c = 4.138 Å; below 250 K
monoclinic a = 5.717 Å, b = 5.703 Å, c = 4.143 Å, β = 90.53° (at 20 K). The monoclinic axes a and b lie along the
diagonals of the tetragonal cell's base, so both phases are described here by the perovskite cell of five atoms.

Atoms sit on the ideal perovskite's places in both phases: the ferroelectric displacements of a few per cent of the cell
change intensities, not places of lines, and are left out. So is anomalous dispersion.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FORM_FACTORS: dict[str, tuple[tuple[float, ...], tuple[float, ...], float]] = {
    "O": (
        (2.960427, 2.508818, 0.637853, 0.722838, 1.142756),
        (14.182259, 5.936858, 0.112726, 34.958481, 0.390240),
        0.027014,
    ),
    "Ti": (
        (9.818524, 1.522646, 1.703101, 1.768774, 7.082555),
        (8.001879, 0.029763, 39.885422, 120.157997, 0.532405),
        0.102473,
    ),
    "Zr": (
        (17.859772, 10.911038, 5.821115, 3.512513, 0.746965),
        (1.310692, 12.319285, 0.104353, 91.777542, 0.104353),
        1.124859,
    ),
    "Pb": (
        (16.419567, 32.738590, 6.530247, 2.342742, 19.916475),
        (0.105499, 1.055049, 25.025890, 80.906593, 6.664449),
        4.049824,
    ),
}
"""Neutral atoms: (a, b in Å², c) of f(s) = c + Σ aᵢ exp(−bᵢ s²), s = sin θ / λ < 6 Å⁻¹ (D. Waasmaier, A. Kirfel, Acta
Cryst. A 51, 416 (1995))."""

TITANIUM = 0.48
"""Share of titanium on the perovskite's B site."""
B_ISO_A2 = {"Pb": 1.0, "B": 0.5, "O": 0.8}
"""Displacement factors B: of the order usual in perovskites at room temperature; a choice."""
A_TETRAGONAL_A, C_TETRAGONAL_A = 4.037, 4.138
A_MONOCLINIC_A, B_MONOCLINIC_A, BETA_DEG = 5.717, 5.703, 90.53


def form_factor(element: str, s2: np.ndarray) -> np.ndarray:
    """X-ray form factor in electrons of a neutral atom at rest; `s2` = (sin θ / λ)² in Å⁻², any shape."""
    a, b, c = FORM_FACTORS[element]
    return c + sum(ai * np.exp(-bi * s2) for ai, bi in zip(a, b, strict=True))


def site_factors(s2: np.ndarray) -> np.ndarray:
    """Form factors of the sites Pb, B and O, displacements included: shape (3, *s2.shape), electrons."""
    mixed = (1 - TITANIUM) * form_factor("Zr", s2) + TITANIUM * form_factor("Ti", s2)
    sites = {"Pb": form_factor("Pb", s2), "B": mixed, "O": form_factor("O", s2)}
    return np.stack([f * np.exp(-B_ISO_A2[site] * s2) for site, f in sites.items()])


def structure_factor(hkl: np.ndarray, s2: np.ndarray) -> np.ndarray:
    """F in electrons per cell of reflections `hkl` (n, 3), integers, at `s2` (n,): real, for the cell has a centre.

    Pb at 0 0 0, B at ½ ½ ½, three O at the middles of the faces.
    """
    pb, b, o = site_factors(s2)
    h, k, l = (1 - 2 * (hkl.T % 2)).astype(float)  # noqa: E741 (the name crystallography has)
    return pb + h * k * l * b + (h * k + h * l + k * l) * o


@dataclass(frozen=True)
class Cell:
    """A perovskite cell, described as a distorted tetragonal one."""

    a_A: float
    """Edge of the base's square."""
    c_A: float
    """Length of the third axis."""
    distortion: float = 0.0
    """0 is tetragonal; 1 has the published monoclinic phase's angle β and ratio of diagonals, at the same area of the
    base."""

    def vectors(self) -> np.ndarray:
        """(3, 3) float64: rows a, b, c in Å. The base is in the plane of x and y; a mirror plane holds [110] and z."""
        ratio = (A_MONOCLINIC_A / B_MONOCLINIC_A) ** (self.distortion / 2)
        beta = np.radians(90 + (BETA_DEG - 90) * self.distortion)
        along, across = np.array([1, 1, 0]) / np.sqrt(2), np.array([1, -1, 0]) / np.sqrt(2)
        long, short = self.a_A * ratio / np.sqrt(2) * along, self.a_A / ratio / np.sqrt(2) * across
        return np.stack([long + short, long - short, self.c_A * (np.cos(beta) * along + [0, 0, np.sin(beta)])])

    def reciprocal(self) -> np.ndarray:
        """(3, 3) float64: rows a*, b*, c* in Å⁻¹ (without 2π); c* is along z."""
        return np.linalg.inv(self.vectors()).T
