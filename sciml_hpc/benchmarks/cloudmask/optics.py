"""Radiation: Planck's law, the two-stream solution of a layer, and the optical constants of what SLSTR sees.

The constants of surfaces and scatterers are representative values from the literature's tables and libraries, good
enough to make the channels disagree as they do in nature; they are not a calibration.
"""

from __future__ import annotations

import numpy as np

f32 = np.float32

C1, C2 = 1.191042972e8, 1.438776877e4
"""2hc² in W µm⁴ m⁻² sr⁻¹ and hc/k in µm K (CODATA 2018, exact)."""
BANDS_UM = (0.55427, 0.65947, 0.868, 1.3748, 1.6134, 2.2557, 3.742, 10.854, 12.0225)
"""Centres of S1–S9 (ESA, SLSTR user guide, measured)."""
S4, S7 = 3, 6
SUN_K, SUN_SR = 5772.0, 6.794e-5
"""Effective temperature (IAU 2015 B3) and solid angle of the Sun: 11.7 W m⁻² µm⁻¹ of sunlight in S7."""

ALBEDO = np.array(
    [
        [0.03, 0.018, 0.01, 0.006, 0.005, 0.003],
        [0.07, 0.04, 0.42, 0.30, 0.22, 0.10],
        [0.16, 0.22, 0.30, 0.38, 0.42, 0.38],
        [0.92, 0.90, 0.82, 0.40, 0.10, 0.06],
    ]
)
"""Reflectance in S1–S6 of sea, vegetation, soil, snow or ice: representative of spectral libraries (ECOSTRESS)."""
ALBEDO_SPREAD = np.array([0.3, 0.25, 0.35, 0.08])
"""Standard deviation of its logarithm from scene to scene."""
EMISSIVITY = np.array([[0.970, 0.991, 0.986], [0.975, 0.985, 0.985], [0.86, 0.965, 0.972], [0.985, 0.992, 0.975]])
"""Emissivity of the same in S7–S9."""

AEROSOL = 0.95, 0.68
"""Single-scattering albedo and asymmetry of haze and dust, all solar bands."""
DUST_THERMAL, DUST_KM = (0.25, 0.35, 0.25), 3.0
"""Absorption of dust in S7–S9 per visible optical depth (strongest in S8: silicate), and its height."""
DROPS = (0.99999, 0.99999, 0.99999, 0.998, 0.993, 0.985, 0.90), 0.86
CRYSTALS = (0.99999, 0.99999, 0.99999, 0.99, 0.95, 0.92, 0.75), 0.78
"""Single-scattering albedo in S1–S7 and asymmetry of drops (effective radius 10 µm) and ice crystals (30 µm)."""
CLOUD_THERMAL = 0.50, 0.57
"""Absorption of clouds in S8 and S9 per visible optical depth: large particles extinguish 2, absorb 1 section."""


def planck(wavelength_um: float, temperature_K: np.ndarray | np.float32) -> np.ndarray:
    """Spectral radiance of a black body, W m⁻² sr⁻¹ µm⁻¹."""
    return f32(C1 / wavelength_um**5) / np.expm1(f32(C2 / wavelength_um) / temperature_K)


def brightness_temperature(wavelength_um: float, radiance: np.ndarray) -> np.ndarray:
    """Temperature (K) of the black body of that radiance: the inverse of `planck`."""
    return f32(C2 / wavelength_um) / np.log1p(f32(C1 / wavelength_um**5) / radiance)


def two_stream(optical_depth: np.ndarray, albedo: float, asymmetry: float) -> tuple[np.ndarray, np.ndarray]:
    """Reflectance and transmittance of a layer for diffuse light.

    Quadrature two-stream equations (Meador and Weaver 1980, J. Atmos. Sci. 37, 630); single-scattering `albedo` < 1.
    """
    a, b = np.sqrt(1 - albedo * asymmetry), np.sqrt(1 - albedo)
    infinite = (a - b) / (a + b)  # reflectance of an infinitely thick layer
    lost = -np.expm1(f32(-2 * np.sqrt(3) * a * b) * optical_depth)
    scale = 1 / (f32(1 - infinite**2) + f32(infinite**2) * lost)
    return f32(infinite) * lost * scale, f32(1 - infinite**2) * np.sqrt(1 - lost) * scale
