"""Linear spin waves of Rb2MnF4: a square lattice of spins 5/2, antiferromagnetic, moments along the tetragonal axis.

H = J Σ_nn [S·S + δ Sz Sz] + J' Σ_nnn S·S, every bond once; J between neighbours along the edges of the square, J' along
its diagonals, both positive if antiferromagnetic (T. Huberman et al., Phys. Rev. B 72, 014413 (2005), eq. 1, with J'
added). Holstein and Primakoff's bosons on the two sublattices and Bogoliubov's transformation give two degenerate
modes ω = √(A² − B²). Wave vectors (h, k, 0) are in units of 2π/a of the chemical cell: the moments order at (½, ½).

Energies in meV, wave vectors of the neutron in Å⁻¹.
"""

from __future__ import annotations

import math

import numpy as np

SPIN = 2.5
"""Of Mn²⁺, 3d⁵."""
ANISOTROPY = 0.0048
"""δ of Rb2MnF4, Huberman et al. 2005: a gap of 0.64 meV."""
LATTICE_A = 4.215
"""Edge a of the chemical cell, the distance of neighbouring Mn (Huberman et al. 2005)."""
BOLTZMANN_meV_K = 8.617333262e-2
"""CODATA 2018, exact."""
NEUTRON_meV_A2 = 2.0721247
"""ħ² / 2 mₙ: energy of a neutron = this times k² (CODATA 2018)."""

_J0 = (0.4220, 17.6840, 0.5948, 6.0050, 0.0043, -0.6090, -0.0219)
"""⟨j₀⟩ of Mn²⁺, (A, a, B, b, C, c, D), a, b, c in Å²: P. J. Brown, Magnetic form factors, International Tables for
Crystallography C, section 4.4.5."""


def lattice_sums(h: np.ndarray, k: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of exp(2πi q·r) over the four neighbours and the four next neighbours: γ and γ' at (h, k, 0)."""
    x, y = np.cos(2 * np.pi * h), np.cos(2 * np.pi * k)
    return (x + y) / 2, x * y


def energy_and_weight(
    exchange_meV: tuple[float, float], sums: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Energy of the spin wave and its weight in the neutron's cross-section, for J and J' at `lattice_sums`.

    The weight is the integral over energy of S^xx = S^yy per spin at zero temperature, (S/2)(A − B)/ω. With moments
    normal to Q and to the plane that is all a neutron sees at (h, k, 0), the two polarisation factors adding to one.
    Two-magnon scattering and the reduction of the moment, 1/S smaller, are left out. The ground state is stable, and
    ω real, while 2 J' < J.
    """
    (j, j2), (gamma, gamma2) = exchange_meV, sums
    a = 4 * SPIN * (j * (1 + ANISOTROPY) - j2 * (1 - gamma2))
    b = 4 * SPIN * j * gamma
    omega = np.sqrt((a - b) * (a + b))
    return omega, SPIN / 2 * (a - b) / omega


def creation_factor(omega: np.ndarray, temperature_K: float) -> np.ndarray:
    """n(ω) + 1: how much likelier a neutron makes a spin wave at that temperature than at 0 K."""
    return -1 / np.expm1(-omega / (BOLTZMANN_meV_K * temperature_K))


def form_factor(q: np.ndarray) -> np.ndarray:
    """Magnetic form factor of Mn²⁺ at |Q| in Å⁻¹; 1 at 0. Its orbital moment is zero, so ⟨j₀⟩ is all of it."""
    s2 = np.square(np.asarray(q) / (4 * math.pi))
    a, ea, b, eb, c, ec, d = _J0
    return a * np.exp(-ea * s2) + b * np.exp(-eb * s2) + c * np.exp(-ec * s2) + d


def scattering_angle(q: np.ndarray, incident_meV: float, transfer_meV: float) -> np.ndarray:
    """Angle 2θ in rad at which neutrons of energy `incident_meV` lose momentum `q` and energy `transfer_meV`.

    NaN where no angle is: Q² = kᵢ² + k_f² − 2 kᵢ k_f cos 2θ.
    """
    initial, final = math.sqrt(incident_meV / NEUTRON_meV_A2), math.sqrt((incident_meV - transfer_meV) / NEUTRON_meV_A2)
    cosine = (initial**2 + final**2 - np.square(q)) / (2 * initial * final)
    return np.arccos(np.where(np.abs(cosine) <= 1, cosine, np.nan))
