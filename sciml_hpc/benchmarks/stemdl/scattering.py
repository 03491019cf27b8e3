"""Electron scattering by atoms: the numbers that turn a structure into a potential.

Scattering factors: L.-M. Peng, G. Ren, S. L. Dudarev, M. J. Whelan, Acta Cryst. A 52, 257 (1996), printed as
International Tables for Crystallography C, table 4.3.2.2: f(s) = Σ aᵢ exp(−bᵢ s²), s = sin θ / λ = q / 2 < 2 Å⁻¹,
neutral atoms, f in Å, b in Å². Gaussians take a Debye–Waller factor without further ado.
"""

from __future__ import annotations

import math

import numpy as np

FACTORS: dict[int, tuple[tuple[float, ...], tuple[float, ...]]] = {
    8: ((0.0974, 0.2921, 0.691, 0.699, 0.2039), (0.2067, 1.3815, 4.6943, 12.7105, 32.4726)),
    9: ((0.1083, 0.3175, 0.6487, 0.5846, 0.1421), (0.2057, 1.3439, 4.2788, 11.3932, 28.7881)),
    11: ((0.2142, 0.6853, 0.7692, 1.6589, 1.4482), (0.3334, 2.3446, 10.083, 48.3037, 138.27)),
    12: ((0.2314, 0.6866, 0.9677, 2.1882, 1.1339), (0.3278, 2.272, 10.9241, 39.2898, 101.9748)),
    13: ((0.239, 0.6573, 1.2011, 2.5586, 1.2312), (0.3138, 2.1063, 10.4163, 34.4552, 98.5344)),
    14: ((0.2519, 0.6372, 1.3795, 2.5082, 1.05), (0.3075, 2.0174, 9.6746, 29.3744, 80.4732)),
    16: ((0.2497, 0.5628, 1.3899, 2.1865, 0.7715), (0.2681, 1.6711, 7.0267, 19.5377, 50.3888)),
    17: ((0.2443, 0.5397, 1.3919, 2.0197, 0.6621), (0.2468, 1.5242, 6.1537, 16.6687, 42.3086)),
    19: ((0.4115, 1.4031, 2.2784, 2.6742, 2.2162), (0.3703, 3.3874, 13.1029, 68.9592, 194.4329)),
    20: ((0.4054, 1.388, 2.1602, 3.7532, 2.2063), (0.3499, 3.0991, 11.9608, 53.9353, 142.3892)),
    22: ((0.3825, 1.2598, 2.0008, 3.0617, 2.0694), (0.304, 2.4863, 9.2783, 39.0751, 109.4583)),
    25: ((0.3796, 1.2094, 1.7815, 2.542, 1.5937), (0.2699, 2.0455, 7.4726, 31.0604, 91.5622)),
    26: ((0.3946, 1.2725, 1.7031, 2.314, 1.4795), (0.2717, 2.0443, 7.6007, 29.9714, 86.2265)),
    28: ((0.386, 1.1765, 1.5451, 2.073, 1.3814), (0.2478, 1.766, 6.3107, 25.2204, 74.3146)),
    30: ((0.4288, 1.2646, 1.4472, 1.8294, 1.0934), (0.2593, 1.7998, 6.75, 25.586, 73.5284)),
    38: ((0.6703, 1.4926, 3.3368, 4.46, 3.1501), (0.319, 2.2287, 10.3504, 52.3291, 151.2216)),
    40: ((0.6719, 1.4684, 3.1668, 3.9557, 2.892), (0.3036, 2.1249, 8.9236, 36.8458, 108.2049)),
    47: ((0.6377, 1.379, 2.8294, 2.3631, 1.4553), (0.2466, 1.6974, 5.7656, 20.0943, 76.7372)),
    56: ((0.9049, 2.6076, 4.8498, 5.1603, 4.7388), (0.3066, 2.4363, 12.1821, 54.6135, 161.9978)),
    57: ((0.8405, 2.3863, 4.6139, 5.1514, 4.7949), (0.2791, 2.141, 10.34, 41.9148, 132.0204)),
    74: ((0.9853, 2.1167, 3.357, 3.7981, 2.2798), (0.2569, 1.6745, 7.0098, 26.9234, 81.391)),
    82: ((1.0891, 2.1867, 3.616, 3.8031, 1.8994), (0.2552, 1.7174, 6.5131, 23.917, 74.7039)),
}
"""Atomic number → (a in Å, b in Å²)."""

SYMBOLS = {
    8: "O",
    9: "F",
    11: "Na",
    12: "Mg",
    13: "Al",
    14: "Si",
    16: "S",
    17: "Cl",
    19: "K",
    20: "Ca",
    22: "Ti",
    25: "Mn",
    26: "Fe",
    28: "Ni",
    30: "Zn",
    38: "Sr",
    40: "Zr",
    47: "Ag",
    56: "Ba",
    57: "La",
    74: "W",
    82: "Pb",
}
"""Chemical symbols of the elements of `FACTORS`."""

# CODATA 2018, exact but for the electron's mass.
_H_J_S = 6.62607015e-34
_E_C = 1.602176634e-19
_M_KG = 9.1093837015e-31
_C_M_S = 299792458.0

POTENTIAL_V_A2 = _H_J_S**2 / (2 * math.pi * _M_KG * _E_C) * 1e20
"""h² / 2π m e = 47.878 V Å²: Fourier transform of an atom's potential (V Å³) per Å of scattering factor."""


def scattering_factor(number: int, q: np.ndarray, b_iso_A2: float = 0.0) -> np.ndarray:
    """Scattering factor in Å of element `number` at q = 2 s (Å⁻¹), times exp(−B q² / 4)."""
    a, b = (np.array(x)[:, None] for x in FACTORS[number])
    s2 = np.square(q).reshape(1, -1) / 4
    return (a * np.exp(-(b + b_iso_A2) * s2)).sum(0).reshape(np.shape(q))


def wavelength_A(energy_keV: float) -> float:
    """Relativistic wavelength of the electron in Å."""
    e_J = energy_keV * 1e3 * _E_C
    return _H_J_S * _C_M_S / math.sqrt(e_J * (2 * _M_KG * _C_M_S**2 + e_J)) * 1e10


def interaction_rad_V_A(energy_keV: float) -> float:
    """σ = 2π m e λ / h², relativistic: phase in rad per V Å of projected potential (Kirkland 2010, eq. 5.6)."""
    e_J = energy_keV * 1e3 * _E_C
    rest_J = _M_KG * _C_M_S**2
    energy_V = energy_keV * 1e3
    return 2 * math.pi / (wavelength_A(energy_keV) * energy_V) * (rest_J + e_J) / (2 * rest_J + e_J)
