"""The physical constants against printed tables and another library's."""

from __future__ import annotations

import numpy as np
import pytest

from sciml_hpc.benchmarks.stemdl.scattering import (
    FACTORS,
    POTENTIAL_V_A2,
    SYMBOLS,
    interaction_rad_V_A,
    scattering_factor,
    wavelength_A,
)


def test_factors_are_the_international_tables() -> None:
    gemmi = pytest.importorskip("gemmi")
    assert SYMBOLS.keys() == FACTORS.keys()
    s = np.linspace(0, 2, 9)
    for number, symbol in SYMBOLS.items():
        element = gemmi.Element(number)
        assert element.name == symbol
        theirs = [element.c4322.calculate_sf(float(x) ** 2) for x in s]
        assert scattering_factor(number, 2 * s) == pytest.approx(theirs, rel=1e-6)


def test_forward_scattering_of_known_atoms() -> None:
    """f(0) in Å as P. A. Doyle and P. S. Turner, Acta Cryst. A 24, 390 (1968), give it, from other wave functions."""
    for number, forward in {8: 1.983, 14: 5.828, 26: 7.165, 82: 12.597}.items():
        assert scattering_factor(number, np.zeros(1))[0] == pytest.approx(forward, rel=0.002)


def test_displacement_factor() -> None:
    q = np.array([[0.5], [1.0]])
    ratio = scattering_factor(26, q, 0.5) / scattering_factor(26, q)
    assert ratio == pytest.approx(np.exp(-0.5 * q**2 / 4))


@pytest.mark.parametrize(
    ("energy_keV", "wavelength", "interaction"),
    [(100, 0.03701, 0.9244e-3), (200, 0.02508, 0.7288e-3), (300, 0.01969, 0.6526e-3)],
)
def test_electrons_as_tabulated(energy_keV: float, wavelength: float, interaction: float) -> None:
    """Kirkland 2010, table 5.1 and section 5.1."""
    assert wavelength_A(energy_keV) == pytest.approx(wavelength, rel=3e-4)
    assert interaction_rad_V_A(energy_keV) == pytest.approx(interaction, rel=1e-4)


def test_potential_constant() -> None:
    """h² / 2π m e = 2π e a₀ in Gaussian units: 2π × 14.3996 V Å × 0.529177 Å."""
    assert pytest.approx(2 * np.pi * 14.399645 * 0.52917721, rel=1e-6) == POTENTIAL_V_A2
