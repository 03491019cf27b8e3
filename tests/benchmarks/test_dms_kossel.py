"""Lines against Ewald's construction in closed form, symmetries of the patterns, triple intersections."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from numpy.linalg import norm

from sciml_hpc.benchmarks.dms import kossel
from sciml_hpc.benchmarks.dms.crystal import Cell, site_factors, structure_factor
from sciml_hpc.benchmarks.dms.kossel import Detector, expected, lines, orientation

WAVELENGTH_A, DISTANCE_MM, TWO_THETA_DEG, PIXEL_MM = 0.70, 200.0, 38.0, 0.172
TETRAGONAL, MONOCLINIC = Cell(4.037, 4.138), Cell(4.037, 4.138, 1.0)
FULL, COARSE = Detector(), Detector(61, 25)


def pixel_of(k: np.ndarray) -> np.ndarray:
    """(row, column) in real pixels where rays k (n, 3) hit the detector: ray and plane, on their own geometry."""
    tilt = np.radians(TWO_THETA_DEG)
    normal = np.array([np.cos(tilt), 0, np.sin(tilt)])
    hit = k * (DISTANCE_MM / (k @ normal))[:, None] - DISTANCE_MM * normal
    down, right = hit @ [np.sin(tilt), 0, -np.cos(tilt)], -hit[:, 1]
    return np.stack([243 + down / PIXEL_MM, 97 + right / PIXEL_MM], axis=1)


def cone(g: np.ndarray, points: int) -> np.ndarray:
    """Unit vectors with k·Ĝ = λ|G|/2, all round the cone: (points, 3)."""
    axis = g / norm(g)
    one = np.cross(axis, [0.3, 0.5, 0.8])
    one /= norm(one)
    phi = np.linspace(0, 2 * np.pi, points)[:, None]
    sine = WAVELENGTH_A * norm(g) / 2
    return sine * axis + np.sqrt(1 - sine**2) * (np.cos(phi) * one + np.sin(phi) * np.cross(axis, one))


def on_detector(k: np.ndarray, margin: float = 0.0) -> np.ndarray:
    """(row, column) of those of the rays (n, 3) that hit the detector, `margin` pixels from its edge or more."""
    at = pixel_of(k[k @ FULL.field_of_view[0] > 0.9 * norm(k, axis=1)])
    return at[((at > margin - 0.5) & (at < np.array([486.5, 194.5]) - margin)).all(1)]


def reciprocal(cell: Cell, azimuth_deg: float) -> np.ndarray:
    return cell.reciprocal() @ orientation(azimuth_deg).T


def pattern(cell: Cell, azimuth_deg: float, detector: Detector = COARSE) -> np.ndarray:
    return expected(detector, cell.vectors(), orientation(azimuth_deg))


def only(monkeypatch, *hkl: tuple[int, int, int]) -> None:
    monkeypatch.setattr(kossel, "reflections", lambda wavelength_A: np.array(hkl).reshape(-1, 3))


def test_directions_are_those_of_the_pixels() -> None:
    rng = np.random.default_rng(1)
    row, column = rng.uniform(0, 486, 50), rng.uniform(0, 194, 50)
    k = FULL.directions(row, column)
    assert norm(k, axis=1) == pytest.approx(np.ones(50))
    assert pixel_of(k) == pytest.approx(np.stack([row, column], axis=1), abs=1e-9)
    middle = FULL.directions(np.array(243.0), np.array(97.0))
    assert np.degrees(np.arccos(middle[0])) == pytest.approx(TWO_THETA_DEG)


def test_larger_pixels_have_the_same_field_of_view() -> None:
    corners = [np.array([-0.5, 486.5]), np.array([-0.5, 194.5])]
    small = Detector(61, 25).directions(np.array([-0.5, 60.5]), np.array([-0.5, 24.5]))
    assert small == pytest.approx(FULL.directions(*corners))
    pitch_rad = 8 * PIXEL_MM / DISTANCE_MM
    assert Detector(61, 25).sigma_rad == pytest.approx(np.hypot(kossel.WIDTH_RAD, pitch_rad / np.sqrt(12)), rel=0.02)


@pytest.mark.parametrize("azimuth_deg", [13.0, 71.0])
def test_lines_are_where_the_bragg_condition_holds(monkeypatch, azimuth_deg: float) -> None:
    """Of a steep line, which crosses a row once, the brightest pixel of every row is on the cone."""
    lattice = reciprocal(TETRAGONAL, azimuth_deg)
    found = lines(FULL, lattice)
    only(monkeypatch)
    dark = pattern(TETRAGONAL, azimuth_deg, FULL)
    tested = 0
    for hkl in found.hkl[np.argsort(-found.strength)]:
        at = on_detector(cone(hkl @ lattice, 4000), margin=10)
        if len(at) < 3 or np.ptp(at[:, 0]) < max(100, np.ptp(at[:, 1])):
            continue
        only(monkeypatch, tuple(hkl))
        excess = pattern(TETRAGONAL, azimuth_deg, FULL) / dark
        rows = np.arange(np.ceil(at[:, 0].min()), at[:, 0].max()).astype(int)
        where = np.interp(rows, *at[np.argsort(at[:, 0])].T)
        assert np.abs(excess[rows].argmax(1) - where).max() < 0.75
        tested += 1
        if tested == 4:
            return
    pytest.fail(f"only {tested} steep lines in view")


def test_rays_on_a_line_are_diffracted_elastically() -> None:
    """k and k − G, the diffuse ray before diffraction, both end on the Ewald sphere."""
    found = lines(FULL, reciprocal(MONOCLINIC, 20.0))
    assert len(found.g) > 100
    for g in found.g[::20]:
        k = cone(g, 12) / WAVELENGTH_A
        assert norm(k - g, axis=1) == pytest.approx(np.full(12, 1 / WAVELENGTH_A))
    assert found.sin_theta == pytest.approx(WAVELENGTH_A / 2 * norm(found.g, axis=1))


def test_no_line_in_view_is_missed() -> None:
    """Every strong enough reflection whose cone, followed all round, meets the detector is among the lines."""
    lattice = reciprocal(TETRAGONAL, 33.0)
    seen = {tuple(hkl) for hkl in lines(FULL, lattice).hkl}
    meets = set()
    for hkl in kossel.reflections(WAVELENGTH_A)[::8]:
        if len(on_detector(cone(hkl @ lattice, 1000))):
            meets.add(tuple(hkl))
    assert len(meets) > 10
    assert meets <= seen


def test_intensities_are_the_formula_at_every_pixel() -> None:
    """The whole sum in double precision, reflection by reflection, without blocks, at pixels drawn at random."""
    rng = np.random.default_rng(4)
    cell, rotation = Cell(4.05, 4.15, 0.6), orientation(40.0, (0.002, -0.001))
    image = expected(FULL, cell.vectors(), rotation)
    row, column = rng.integers(0, 487, 400), rng.integers(0, 195, 400)
    k = FULL.directions(row, column) / WAVELENGTH_A

    def source(q: np.ndarray) -> np.ndarray:
        q2 = (q**2).sum(-1)
        pb, b, o = site_factors(q2 / 4)
        return q2 * (pb + b + 3 * o) ** 2

    axes, q = cell.vectors() @ rotation.T, k - [1 / WAVELENGTH_A, 0, 0]
    total = source(q)
    hkl = kossel.reflections(WAVELENGTH_A)
    for index, g in zip(hkl, hkl @ np.linalg.inv(axes).T, strict=True):
        theta = np.arcsin(WAVELENGTH_A * norm(g) / 2)
        off = (k @ g * WAVELENGTH_A / norm(g) - np.sin(theta)) / np.cos(theta) / FULL.sigma_rad
        height = np.maximum((1 + off**2) ** -1.5 - (1 + kossel.CUT**2) ** -1.5, 0) / (2 * FULL.sigma_rad)
        factor = structure_factor(index[None], np.array([(np.sin(theta) / WAVELENGTH_A) ** 2]))[0]
        total += kossel.LINE_GAIN * factor**2 / np.sin(2 * theta) * height * source(q - g)
    total /= kossel.KAPPA**2 + (np.sin(np.pi * q @ axes.T) ** 2).sum(1) / np.pi**2
    ratio = image[row, column] / total
    assert ratio == pytest.approx(np.full(400, np.median(ratio)), rel=3e-3)
    assert image.mean() == pytest.approx(1, rel=1e-5)
    assert image.dtype == np.float32


def test_profile() -> None:
    angle = np.linspace(-0.01, 0.01, 20_001).astype(np.float32)
    p = kossel.profile(angle, 1e-3)
    assert np.trapezoid(p, angle) == pytest.approx(0.96, abs=0.01)
    assert angle[p.argmax()] == pytest.approx(0, abs=1e-6)
    assert (p[np.abs(angle) > kossel.CUT * 1.001e-3] == 0).all()
    assert (p[np.abs(angle) < kossel.CUT * 0.999e-3] > 0).all()


@pytest.mark.parametrize("azimuth_deg", [0.0, 8.0, 45.0])
def test_tetragonal_patterns_have_a_fourfold_axis_and_mirrors(azimuth_deg: float) -> None:
    one = pattern(TETRAGONAL, azimuth_deg)
    for turns in (1, 2, 3):
        assert pattern(TETRAGONAL, azimuth_deg + 90 * turns) == pytest.approx(one, rel=5e-3)
    assert pattern(TETRAGONAL, -azimuth_deg)[:, ::-1] == pytest.approx(one, rel=5e-3)
    on_mirror = azimuth_deg in (0.0, 45.0)
    assert (np.abs(one[:, ::-1] / one - 1).max() < 5e-3) == on_mirror


def test_monoclinic_patterns_keep_one_mirror_only() -> None:
    """That of [110] and c, in the plane of scattering at an azimuth of −45° or 135°; no turn but the full one."""
    at = {azimuth: pattern(MONOCLINIC, azimuth) for azimuth in (-45.0, 45.0, 135.0, 225.0, 315.0, 0.0)}
    assert at[315.0] == pytest.approx(at[-45.0], rel=5e-3)
    for azimuth in (-45.0, 135.0):
        assert at[azimuth][:, ::-1] == pytest.approx(at[azimuth], rel=5e-3)
    for azimuth in (45.0, 225.0, 0.0):
        assert np.abs(at[azimuth][:, ::-1] / at[azimuth] - 1).max() > 0.2
    for other in (45.0, 135.0, 225.0):
        assert np.abs(at[other] / at[-45.0] - 1).max() > 0.2


def meeting_point(g1: np.ndarray, g2: np.ndarray) -> np.ndarray:
    """The k with k·G = |G|²/2 for both and |k| = 1/λ that is nearer the detector, in closed form."""
    across = np.cross(g1, g2)
    in_plane = np.linalg.solve(np.stack([g1, g2, across]), [g1 @ g1 / 2, g2 @ g2 / 2, 0])
    out = np.sqrt(1 / WAVELENGTH_A**2 - in_plane @ in_plane) * across / norm(across)
    return max(in_plane + out, in_plane - out, key=lambda k: k @ FULL.field_of_view[0])


def triple(cell: Cell, azimuth_deg: float, first, second) -> tuple[np.ndarray, float]:
    """Pixel where the lines of two reflections meet, and by how much their sum misses its own Bragg condition (rad)."""
    g1, g2 = (np.array(hkl) @ reciprocal(cell, azimuth_deg) for hkl in (first, second))
    k, g3 = meeting_point(g1, g2), g1 + g2
    angle = np.arcsin(k @ g3 / norm(g3) * WAVELENGTH_A) - np.arcsin(WAVELENGTH_A * norm(g3) / 2)
    return pixel_of(k[None])[0], angle


@functools.cache
def in_view() -> list[tuple[float, tuple[int, int, int], tuple[int, int, int]]]:
    """Azimuths and pairs h00, 00l (or hh0, 00l) whose lines meet on the detector."""
    found = []
    for azimuth in range(0, 360, 15):
        lattice = reciprocal(TETRAGONAL, azimuth)
        for first in ((1, 0, 0), (0, 1, 0), (1, 1, 0), (-1, 1, 0), (2, 0, 0), (0, 2, 0)):
            for second in ((0, 0, 1), (0, 0, 2), (0, 0, 3), (0, 0, 4)):
                k = meeting_point(np.array(first) @ lattice, np.array(second) @ lattice)
                if len(on_detector(k[None], margin=12)):
                    found.append((float(azimuth), first, second))
    return found


def test_triple_intersections_of_the_tetragonal_cell(monkeypatch) -> None:
    """Lines of G₁, G₂ and G₁ + G₂ meet in a point if, and only if, G₁ ⊥ G₂: the nodes are then on one circle.

    Three Bragg conditions are solved at once, and the pattern is brightest there.
    """
    cases = in_view()
    assert len(cases) >= 3
    for azimuth, first, second in cases[:2]:
        at, miss = triple(TETRAGONAL, azimuth, first, second)
        assert miss == pytest.approx(0, abs=1e-12)
        only(monkeypatch)
        dark = pattern(TETRAGONAL, azimuth, FULL)
        only(monkeypatch, first, second, tuple(np.add(first, second)))
        excess = pattern(TETRAGONAL, azimuth, FULL) / dark
        row, column = np.round(at).astype(int)
        window = excess[row - 8 : row + 9, column - 8 : column + 9]
        assert np.abs(np.array(np.unravel_index(window.argmax(), window.shape)) - 8).max() <= 1


def test_the_monoclinic_shear_parts_the_lines() -> None:
    misses = np.array([triple(MONOCLINIC, *case)[1] for case in in_view()])
    half = np.array([triple(Cell(4.037, 4.138, 0.5), *case)[1] for case in in_view()])
    assert np.abs(misses).max() > 3 * FULL.sigma_rad
    parted = np.abs(misses) > 1e-6
    assert half[parted] == pytest.approx(misses[parted] / 2, rel=0.05)


def test_diffuse_scattering_is_interpolated_well() -> None:
    q2 = np.random.default_rng(2).uniform(0, (2 / WAVELENGTH_A) ** 2, 200)
    pb, b, o = site_factors(q2 / 4)
    assert kossel.amplitude(q2) == pytest.approx(q2 * (pb + b + 3 * o) ** 2, rel=1e-3, abs=1)
