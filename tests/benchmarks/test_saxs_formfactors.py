"""Form factors against closed forms, brute-force averages over orientations, and sasmodels."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad, simpson
from scipy.optimize import brentq

from sciml_hpc.benchmarks.saxs.formfactors import parallelepiped, polydisperse, sphere

BOXES = [(40.0, 60.0, 90.0), (20.0, 20.0, 60.0), (100.0, 100.0, 100.0), (180.0, 30.0, 120.0)]


def brute_force(q: float, edges: tuple[float, float, float]) -> float:
    """The average over orientations by Simpson's rule on a grid far finer than any oscillation."""
    nodes = 201 + 6 * int(q * np.linalg.norm(edges))
    theta = np.linspace(0, np.pi / 2, nodes)[:, np.newaxis]
    phi = np.linspace(0, np.pi / 2, nodes)
    direction = (np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta) + 0 * phi)
    amplitude = np.prod([np.sinc(q * edge * n / 2 / np.pi) for edge, n in zip(edges, direction, strict=True)], axis=0)
    return simpson(simpson(amplitude**2, x=phi, axis=1) * np.sin(theta[:, 0]), x=theta[:, 0]) / (np.pi / 2)


@pytest.mark.parametrize("edges", BOXES)
def test_parallelepiped_is_the_average_over_orientations(edges: tuple[float, float, float]) -> None:
    q = np.array([0.3, 4.0, 30.0, 120.0, 250.0]) / np.linalg.norm(edges)
    expected = [brute_force(k, edges) for k in q]
    np.testing.assert_allclose(parallelepiped(q, edges), expected, rtol=3e-5)


@pytest.mark.parametrize("edges", BOXES)
def test_a_value_does_not_depend_on_the_others(edges: tuple[float, float, float]) -> None:
    """Whatever band it falls into: the nodes suffice anywhere in one."""
    q = np.geomspace(1e-3, 250 / np.linalg.norm(edges), 200)
    alone = np.concatenate([parallelepiped(q[i : i + 1], edges) for i in range(len(q))])
    np.testing.assert_allclose(parallelepiped(q, edges), alone, rtol=3e-5)


def test_a_cube_has_no_first_and_no_last_edge() -> None:
    q = np.geomspace(0.005, 1.0, 100)
    nearly = [parallelepiped(q, edges) for edges in ((80.0, 80.001, 80.002), (80.002, 80.0, 80.001))]
    np.testing.assert_array_equal(*nearly)
    np.testing.assert_allclose(parallelepiped(q, (80.0, 80.0, 80.0)), nearly[0], rtol=1e-2)


def test_sphere_is_the_transform_of_a_ball() -> None:
    """P = [3/R³ ∫ r² sin(qr)/(qr) dr]²."""
    radius = 40.0
    for q in (0.01, 0.1, 0.2, 0.35):
        amplitude = 3 / radius**3 * quad(lambda r, q=q: r * np.sin(q * r) / q, 0, radius, epsabs=1e-9)[0]
        assert float(sphere(np.array([q]), radius)[0]) == pytest.approx(amplitude**2, rel=1e-6)


def test_zeros_of_a_sphere_are_where_tan_x_is_x() -> None:
    zeros = [brentq(lambda x: np.sin(x) - x * np.cos(x), np.pi * (n + 0.01), np.pi * (n + 0.5)) for n in (1, 2, 5, 20)]
    assert zeros[0] == pytest.approx(4.4934, abs=1e-4)
    x = np.array(zeros)
    assert (sphere(x / 50, 50.0) < 1e-20).all()
    assert (sphere((x + 0.5) / 50, 50.0) > 1e-7).all()


@pytest.mark.parametrize("edges", [None, *BOXES])
def test_guinier(edges: tuple[float, float, float] | None) -> None:
    """ln P = −q²Rg²/3 at small q, with Rg² = 3/5 R² of a ball and a twelfth of the edges' squares of a box."""
    gyration = np.sqrt(0.6) * 50 if edges is None else np.sqrt(np.square(edges).sum() / 12)
    q = np.array([0.02, 0.05, 0.1]) / gyration
    p = sphere(q, 50.0) if edges is None else parallelepiped(q, edges)
    np.testing.assert_allclose(np.log(p), -((q * gyration) ** 2) / 3, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("edges", [None, *BOXES[:3]])
def test_porod(edges: tuple[float, float, float] | None) -> None:
    """q⁴P oscillates about 2πS/V² at large q (S the surface), whatever the shape."""
    if edges is None:
        surface, volume, reach = 4 * np.pi * 50**2, 4 / 3 * np.pi * 50**3, 50.0
    else:
        a, b, c = edges
        surface, volume, reach = 2 * (a * b + b * c + c * a), a * b * c, min(edges)
    q = np.linspace(20 * np.pi, 60 * np.pi, 4000) / reach
    if edges is not None:
        q = q[q * np.linalg.norm(edges) < 400]
    p = sphere(q, 50.0) if edges is None else parallelepiped(q, edges)
    assert (q**4 * p).mean() == pytest.approx(2 * np.pi * surface / volume**2, rel=0.03)


SASMODELS_Q = np.array([0.005, 0.05, 0.1, 0.2, 0.4])
SASMODELS = {
    (40.0, 60.0, 90.0): [21.401405141929853, 8.58253517705764, 0.8462067359819283, 0.03562411512480, 0.0037613820740],
    (20.0, 20.0, 60.0): [2.392679829016933, 1.784176313443666, 0.8422218774688013, 0.15006075407562, 0.0048958931654],
    (100.0, 100.0, 100.0): [97.93566043923168, 8.60330387595, 0.6818599256622, 0.010815521455318767, 0.0021065401090],
    (30.0, 120.0, 180.0): [62.69092255109431, 6.373965415347225, 0.9548329585264912, 0.01705533837, 0.00140881255415],
}
"""What sasmodels 1.1.0 gives for unit contrast and no background: 1e-4·V·P."""


@pytest.mark.parametrize("edges", SASMODELS)
def test_values_computed_with_sasmodels(edges: tuple[float, float, float]) -> None:
    found = 1e-4 * np.prod(edges) * parallelepiped(SASMODELS_Q, edges)
    np.testing.assert_allclose(found, SASMODELS[edges], rtol=1e-4)


def test_agreement_with_sasmodels() -> None:
    core = pytest.importorskip(
        "sasmodels.core", reason="sasmodels (PyPI) is not installed; some of its values are above"
    )
    from sasmodels.direct_model import call_kernel

    q = np.geomspace(0.005, 0.4, 100)
    common = {"scale": 1, "background": 0, "sld": 1, "sld_solvent": 0}
    kernel = core.load_model("sphere", dtype="double", platform="dll").make_kernel([q])
    for radius in (20.0, 50.0, 77.0):
        volume = 4 / 3 * np.pi * radius**3
        theirs = call_kernel(kernel, {**common, "radius": radius})
        np.testing.assert_allclose(1e-4 * volume * sphere(q, radius), theirs, rtol=1e-5, atol=1e-9 * theirs[0])
    kernel = core.load_model("parallelepiped", dtype="double", platform="dll").make_kernel([q])
    rng = np.random.default_rng(1)
    for edges in rng.uniform(20, 150, (20, 3)):
        theirs = call_kernel(kernel, {**common, **dict(zip(("length_a", "length_b", "length_c"), edges, strict=True))})
        ours = 1e-4 * edges.prod() * parallelepiped(q, tuple(edges))
        np.testing.assert_allclose(ours, theirs, rtol=1e-4)


@pytest.mark.parametrize("sigma", [0.0, 0.02, 0.1, 0.2])
def test_polydispersity_is_the_integral_over_sizes(sigma: float) -> None:
    lowest, step, points, radius = 0.005, np.log(80) / 299, 300, 40.0
    found = polydisperse(lambda q: sphere(q, radius), lowest, step, points, sigma)
    assert found.shape == (points,)
    for i in (0, 150, 200, 240, 299):
        q = lowest * np.exp(i * step)
        if sigma == 0:
            expected = float(sphere(np.array([q]), radius)[0])
        else:
            t = np.exp(np.linspace(-8 * sigma, 8 * sigma + 6 * sigma**2, 20001))
            number = np.exp(-0.5 * (np.log(t) / sigma) ** 2) / t
            expected = simpson(number * t**6 * sphere(q * t, radius), x=t) / simpson(number * t**6, x=t)
        assert found[i] == pytest.approx(expected, rel=5e-3), i


def test_guinier_of_a_spread_of_sizes() -> None:
    """The apparent squared radius of gyration is Rg²⟨t⁸⟩/⟨t⁶⟩ = Rg² exp(14 σ²)."""
    gyration, sigma, q, step = 20.0, 0.15, 1e-3, 0.01
    found = polydisperse(lambda q: sphere(q, gyration / np.sqrt(0.6)), q, step, 2, sigma)[0]
    assert -3 * np.log(found) / q**2 == pytest.approx(gyration**2 * np.exp(14 * sigma**2), rel=2e-3)
