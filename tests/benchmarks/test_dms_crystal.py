"""The crystals: form factors against other tables, cells and structure factors against what is published of them."""

from __future__ import annotations

import numpy as np
import pytest

from sciml_hpc.benchmarks.dms.crystal import Cell, form_factor, site_factors, structure_factor
from sciml_hpc.benchmarks.stemdl.scattering import scattering_factor

NUMBERS = {"O": 8, "Ti": 22, "Zr": 40, "Pb": 82}
MOTT_BETHE_A = 0.0239336610
"""m e² / 8π ε₀ h² = 1 / 8π² a₀ in Å⁻¹: f_e = 0.0239… (Z − f_x) / s²."""


@pytest.mark.parametrize("element", NUMBERS)
def test_form_factors_agree_with_electron_scattering(element: str) -> None:
    """By the Mott–Bethe relation, with the electron scattering factors of Peng et al. (an independent calculation)."""
    number, s = NUMBERS[element], np.array([0.1, 0.2, 0.3, 0.5, 0.7, 1.0])
    from_electrons = number - s**2 * scattering_factor(number, 2 * s) / MOTT_BETHE_A
    assert form_factor(element, s**2) == pytest.approx(from_electrons, abs=0.012 * number)


@pytest.mark.parametrize(
    ("element", "expected"),
    [
        ("O", [7.9997, 5.6228, 2.3379, 1.3770, 0.6733]),
        ("Ti", [21.9981, 16.0457, 9.1420, 5.7426, 2.2962]),
        ("Zr", [39.9763, 31.3684, 20.8951, 11.8577, 5.5460]),
        ("Pb", [81.9974, 69.5338, 48.9667, 30.2496, 15.2979]),
    ],
)
def test_form_factors_are_those_of_xraydb(element: str, expected: list[float]) -> None:
    """xraydb 4.5's f0 (Waasmaier and Kirfel) at s = 0, 0.2, 0.5, 1 and 2 Å⁻¹."""
    values = form_factor(element, np.square([0.0, 0.2, 0.5, 1.0, 2.0]))
    assert values == pytest.approx(expected, abs=1e-4)
    assert values[0] == pytest.approx(NUMBERS[element], rel=1e-3)


def test_published_cells() -> None:
    a, b, c = Cell(4.037, 4.138).vectors()
    assert [a, b, c] == [pytest.approx(v) for v in np.diag([4.037, 4.037, 4.138])]
    a, b, c = Cell(np.sqrt(5.717 * 5.703 / 2), 4.143, distortion=1.0).vectors()
    long, short = a + b, a - b
    assert np.linalg.norm(long) == pytest.approx(5.717, abs=1e-6)
    assert np.linalg.norm(short) == pytest.approx(5.703, abs=1e-6)
    assert np.linalg.norm(c) == pytest.approx(4.143)
    beta = np.degrees(np.arccos(long @ c / np.linalg.norm(long) / np.linalg.norm(c)))
    assert beta == pytest.approx(90.53)
    assert short @ long == pytest.approx(0, abs=1e-9)
    assert short @ c == pytest.approx(0, abs=1e-9)


def test_reciprocal_lattice() -> None:
    cell = Cell(4.03, 4.15, 0.7)
    assert cell.vectors() @ cell.reciprocal().T == pytest.approx(np.eye(3), abs=1e-12)
    assert cell.reciprocal()[2, :2] == pytest.approx([0, 0], abs=1e-12)


def test_structure_factors_are_sums_over_atoms() -> None:
    sites = np.array([(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)])
    hkl = np.random.default_rng(1).integers(-9, 10, (40, 3))
    s2 = np.linspace(0.02, 1.7, 40)
    pb, b, o = site_factors(s2)
    atoms = np.stack([pb, b, o, o, o], axis=1)
    direct = (atoms * np.exp(2j * np.pi * hkl @ sites.T)).sum(1)
    assert structure_factor(hkl, s2) == pytest.approx(direct.real, rel=1e-12)
    assert direct.imag == pytest.approx(np.zeros(40), abs=1e-9)
