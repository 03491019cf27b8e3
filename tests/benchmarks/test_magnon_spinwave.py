"""The spin waves against closed forms, published figures, other software, and a diagonalisation from the bonds up."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sciml_hpc.benchmarks.magnon import spinwave

S = 2.5
CONSTANTS = [(0.65, 0.01), (0.4, 0.1), (0.4, -0.1), (1.0, 0.07), (1.0, -0.1)]


def modes(h: float, k: float, exchange: tuple[float, float]) -> tuple[float, float]:
    """Energy and weight at one wave vector."""
    sums = spinwave.lattice_sums(np.array(h), np.array(k))
    energy, weight = spinwave.energy_and_weight(exchange, sums)
    return float(energy), float(weight)


def diagonalised(h: float, k: float, j: float, j2: float, delta: float) -> tuple[np.ndarray, float]:
    """Energies of both modes and S^xx per spin at zero temperature, from the bonds of the square lattice.

    Moments of sublattice B are turned about x, so that in local axes all point along z and S^x = √(S/2) (a + a†) on
    both. Of the bosons (a_k, b_k, a†_−k, b†_−k), the quadratic form is diagonalised para-unitarily by Colpa's method
    (J. H. P. Colpa, Physica A 93 (1978) 327): Cholesky, then an ordinary eigenproblem.
    """
    form = np.zeros((4, 4), complex)
    up = {0: 1, 1: -1}  # sign of the moment on A and on B
    bonds = [((dx, dy), j, 1 + delta) for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1))]
    bonds += [((dx, dy), j2, 1.0) for dx, dy in ((1, 1), (1, -1), (-1, 1), (-1, -1))]
    for site in (0, 1):
        for (dx, dy), exchange, along_z in bonds:
            other = (site + dx + dy) % 2
            sign = up[site] * up[other]
            phase = np.exp(2j * np.pi * (h * dx + k * dy))
            # In local axes S·S = S^x S^x + sign (S^y S^y + S^z S^z), and in bosons
            #   ½ (1 + sign) S (a†b + ab†) + ½ (1 − sign) S (ab + a†b†) − sign S (n_a + n_b)
            hop, pair = exchange * S * (1 + sign) / 2, exchange * S * (1 - sign) / 2
            onsite = -along_z * exchange * S * sign
            form[site, site] += onsite
            form[site + 2, site + 2] += onsite
            form[site, other] += hop * phase
            form[site + 2, other + 2] += hop * phase
            form[site, other + 2] += pair * phase
            form[site + 2, other] += pair * phase
    metric = np.diag([1.0, 1.0, -1.0, -1.0])
    root = np.linalg.cholesky(form).conj().T
    values, unitary = np.linalg.eigh(root @ metric @ root.conj().T)
    order = np.argsort(-values)
    values, unitary = values[order], unitary[:, order]
    energies = (metric @ np.diag(values)).diagonal().real
    transform = np.linalg.solve(root, unitary @ np.diag(np.sqrt(energies)))
    # S^x of the whole, per site: √(S/2) (a + b + a† + b†) / √2; its matrix elements to the one-boson states
    elements = np.sqrt(S / 2) * np.ones(4) @ transform[:, :2] / np.sqrt(2)
    return energies[:2], float(np.square(np.abs(elements)).sum())


@pytest.mark.parametrize("exchange", CONSTANTS)
def test_equal_to_a_numerical_diagonalisation(exchange: tuple[float, float]) -> None:
    rng = np.random.default_rng(1)
    for h, k in [*rng.random((20, 2)), (0.5, 0.5), (0.0, 0.0), (0.5, 0.0), (0.25, 0.25)]:
        energies, weight = diagonalised(h, k, *exchange, spinwave.ANISOTROPY)
        ours = modes(h, k, exchange)
        np.testing.assert_allclose(energies, ours[0], rtol=1e-6)
        assert weight == pytest.approx(ours[1], rel=1e-6)


@pytest.mark.parametrize(("j", "j2"), CONSTANTS)
def test_energies_at_points_of_symmetry(j: float, j2: float) -> None:
    """Gap 4JS √(δ(2 + δ)) at both zone centres whatever J'; at the zone boundary 4JS(1 + δ) − 8J'S at (½, 0) and
    4JS(1 + δ) − 4J'S at (¼, ¼)."""
    delta = 0.0048
    for centre in ((0, 0), (1, 0), (0.5, 0.5)):
        assert modes(*centre, (j, j2))[0] == pytest.approx(4 * j * S * math.sqrt(delta * (2 + delta)), rel=1e-9)
    assert modes(0.5, 0, (j, j2))[0] == pytest.approx(10 * j * (1 + delta) - 20 * j2)
    assert modes(0.25, 0.25, (j, j2))[0] == pytest.approx(10 * j * (1 + delta) - 10 * j2)


def test_weight_vanishes_at_the_nuclear_and_peaks_at_the_magnetic_zone_centre() -> None:
    small = math.sqrt(0.0048 / 2.0048)
    assert modes(0, 0, (0.65, 0.0))[1] == pytest.approx(S / 2 * small)
    assert modes(0.5, 0.5, (0.65, 0.0))[1] == pytest.approx(S / 2 / small)
    assert modes(0.25, 0.25, (0.65, 0.03))[1] == pytest.approx(S / 2)


def test_figures_of_huberman_2005() -> None:
    """Rb2MnF4, J = 0.648 meV: a gap of 0.64 meV, and zero-point fluctuations that reduce the moment by ΔS = 0.167
    (Phys. Rev. B 72, 014413). ΔS = ⟨(A/ω − 1)/2⟩, and S^xx at q and at q + (½, ½) have the mean (S/2) A/ω."""
    assert modes(0.5, 0.5, (0.648, 0.0))[0] == pytest.approx(0.64, abs=0.005)
    q = (np.arange(1024) + 0.5) / 1024
    weight = spinwave.energy_and_weight((0.648, 0.0), spinwave.lattice_sums(q[None], q[:, None]))[1]
    a_over_omega = 2 / S * (weight + np.roll(weight, (512, 512), (0, 1))) / 2
    assert (a_over_omega.mean() - 1) / 2 == pytest.approx(0.167, abs=5e-4)


def test_equal_to_pyspinw(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers that pyspinw 1.1.0b2 (`Hamiltonian.energies_and_intensities`) gives for S = 5/2, J = 0.65, J' = 0.05 meV
    and no anisotropy: energy in meV, and intensity of a mode. At (0, 0.3) its modes are not separated, and their
    intensities differ in the fourth digit."""
    monkeypatch.setattr(spinwave, "ANISOTROPY", 0.0)
    for (h, k), energy, weight in [
        ((0.025, 0.075), 2.04781644, 0.20403444),
        ((0.075, 0.175), 4.40002452, 0.52017151),
        ((0.15, 0.35), 5.82725425, 1.25),
        ((0.0, 0.3), 5.39690892, None),
        ((0.0, 0.5), 5.5, 1.25),
        ((0.225, 0.225), 5.92562647, 1.05377294),
    ]:
        ours = modes(h, k, (0.65, 0.05))
        assert ours[0] == pytest.approx(energy, abs=1e-7)
        if weight is not None:
            assert ours[1] == pytest.approx(weight, rel=1e-6)


def test_form_factor_of_mn2() -> None:
    """Brown's sum of Gaussians at s = Q/4π, worked out by hand at s = 0.1 Å⁻¹ with the coefficients of periodictable
    2.1.0; ⟨j₀⟩ is normalised to 1 at Q = 0 and falls."""
    by_hand = 0.422 * math.exp(-0.17684) + 0.5948 * math.exp(-0.06005) + 0.0043 * math.exp(0.00609) - 0.0219
    assert spinwave.form_factor(0.4 * np.pi) == pytest.approx(by_hand, rel=1e-12)
    assert spinwave.form_factor(0.0) == pytest.approx(1, abs=2e-3)
    assert (np.diff(spinwave.form_factor(np.linspace(0, 8, 50))) < 0).all()


def test_detailed_balance() -> None:
    """n(ω) + 1 over n(ω) is exp(ω / k_B T); 1 meV is 11.6045 K."""
    factor = float(spinwave.creation_factor(np.array(2.0), 5.0))
    assert factor / (factor - 1) == pytest.approx(math.exp(2.0 * 11.604518 / 5.0), rel=1e-6)
    assert spinwave.creation_factor(np.array(10.0), 1e-3) == 1


def test_kinematics() -> None:
    """Elastic: Q = 2k sin θ; at 2θ = 0 and 180° Q is the difference and the sum of the wave numbers. A neutron of
    25.3 meV has a wavelength of 1.798 Å."""
    k = 2 * np.pi / 1.7982
    assert float(spinwave.scattering_angle(2 * k * math.sin(0.3), 25.3, 0.0)) == pytest.approx(0.6, rel=1e-4)
    lost = 0.75 * 25.3  # leaves half the wave number
    assert float(spinwave.scattering_angle(0.5001 * k, 25.3, lost)) == pytest.approx(0, abs=0.05)
    assert float(spinwave.scattering_angle(1.4999 * k, 25.3, lost)) == pytest.approx(math.pi, abs=0.05)
    assert np.isnan(spinwave.scattering_angle(np.array([0.49, 1.51]) * k, 25.3, lost)).all()
