"""The simulators: what a sample depends on, and that it is the physics it is said to be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from sciml_hpc.benchmarks.stemdl import multislice, synthetic
from sciml_hpc.benchmarks.stemdl.settings import ClassificationGenerator, ReconstructionGenerator
from sciml_hpc.benchmarks.stemdl.synthetic import Patterns, Scans, _Discs, scaled

SMALL = ClassificationGenerator(space_groups=(2, 62, 225), size=16, detector=32, k_max=0.6, variants=3)
FINE_DOSE = {"electrons": (1e12, 1e12)}
SCAN = ReconstructionGenerator(size=16, scan=4, field_A=4.0, thickness_A=(5.0, 10.0))
SAMPLES = {"train": 20, "validation": 9}


def same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("source", [Patterns(SMALL, SAMPLES, 5), Scans(SCAN, SAMPLES, 5)])
def test_samples_do_not_depend_on_chunks_order_or_threads(source) -> None:
    whole = source.read("train", 0, 10)
    for field in source.fields:
        assert whole[field.name].shape == (10, *field.shape)
        assert whole[field.name].dtype == field.dtype
    for first, count in ((7, 3), (2, 6), (0, 1)):
        piece = source.read("train", first, count)
        assert same(piece, {name: values[first : first + count] for name, values in whole.items()})
    again = type(source)(source.generator, SAMPLES, 5)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        assert same(again.read("train", 0, 3), {name: values[:3] for name, values in whole.items()})
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("kind", [(Patterns, SMALL), (Scans, SCAN)])
def test_seed_and_split_change_every_sample(kind) -> None:
    make, generator = kind
    name = "cbed"
    reads = [make(generator, SAMPLES, seed).read(split, 0, 9)[name] for seed in (1, 2) for split in SAMPLES]
    for i, one in enumerate(reads):
        for other in reads[:i]:
            assert not any(np.array_equal(a, b) for a in one for b in other)


def test_materials_come_in_runs_and_groups_in_turn() -> None:
    batch = Patterns(SMALL, SAMPLES, 5).read("train", 0, 18)
    assert batch["space_group"].tolist() == [2] * 3 + [62] * 3 + [225] * 3 + [2] * 3 + [62] * 3 + [225] * 3


def test_no_material_is_in_both_splits() -> None:
    source = Patterns(SMALL, SAMPLES, 5)
    lattices = [source.material(split, block)[0].crystal.lattice.tobytes() for split in SAMPLES for block in range(6)]
    assert len(set(lattices)) == 12


def test_scaling_as_published() -> None:
    intensity = np.array([[0.0, 1.0], [np.exp(-17.0), np.exp(-12.0)]], dtype=np.float32)[None]
    assert scaled(intensity, 2)[0] == pytest.approx(np.array([[0.0, 170.0], [0.0, 50.0]]), abs=1e-3)
    assert scaled(intensity, 1)[0] == pytest.approx(np.array([[55.0]]), abs=1e-3)
    assert scaled(np.full((1, 2, 2), 1e9, dtype=np.float32), 2).max() == 255.0
    assert scaled(intensity, 1).dtype == np.float32


def test_counts_are_whole_electrons() -> None:
    source = Patterns(SMALL.model_copy(update={"electrons": (1000.0, 1000.0)}), SAMPLES, 5)
    raw, _ = source.raw("train", 0, 3)
    counts = raw.astype(np.float64) * 1000
    assert counts == pytest.approx(np.round(counts), abs=1e-3)
    assert (counts.sum((-2, -1)) < 1100).all()
    assert (counts.sum((-2, -1)) > 500).all()


def test_noise_is_that_of_counting() -> None:
    """Deviation from the same pattern at a very high dose: variance equal to the mean count."""
    noisy, _ = Patterns(SMALL.model_copy(update={"electrons": (1e4, 1e4)}), SAMPLES, 5).raw("train", 0, 9)
    clean, _ = Patterns(SMALL.model_copy(update={"electrons": (1e12, 1e12)}), SAMPLES, 5).raw("train", 0, 3)
    first_noisy, first_clean = noisy[0, 0] * 1e4, clean[0, 0] * 1e4  # what follows depends on the random numbers used
    seen = first_clean > 5
    chi2 = ((first_noisy - first_clean)[seen] ** 2 / first_clean[seen]).mean()
    assert seen.sum() > 30
    assert 0.5 < chi2 < 1.6


def disc(points: int = 7) -> tuple[_Discs, np.ndarray]:
    """A transparent crystal: all intensity in the central disc, rising along x."""
    projection = multislice.Projection(np.diag([4.0, 6.0]), 4.0, np.zeros((1, 3)), np.array([8]), np.eye(3))
    intensity = np.zeros((16, 24, points, points), dtype=np.float32)
    intensity[0, 0] = np.linspace(0.5, 1.5, points)[:, None]
    return _Discs(projection, 0.06, 6.0, [intensity]), intensity


def test_discs_have_their_place_size_and_sum() -> None:
    discs, intensity = disc()
    image = discs.render(intensity, 0.0, 256, 0.32)
    assert image.sum() == pytest.approx(1.0, rel=2e-3)
    lit = np.argwhere(image > 0)
    pitch = 0.64 / 256
    assert np.ptp(lit[:, 0]) * pitch == pytest.approx(0.12, abs=2 * pitch)
    assert lit.mean(0) == pytest.approx([127.5, 127.5], abs=0.1)
    middle = image[:, 128]
    inside = np.flatnonzero(middle > 0)[2:-2]
    assert (np.diff(middle[inside]) > 0).all()
    shifted = np.zeros_like(intensity)
    shifted[2, -3] = intensity[0, 0]
    moved = np.argwhere(discs.render(shifted, 0.0, 256, 0.6) > 0).mean(0)
    assert (moved - 127.5) * 1.2 / 256 == pytest.approx([2 / 4, -3 / 6], abs=0.003)


def test_rotation_turns_the_pattern_and_the_stated_direction() -> None:
    discs, intensity = disc()
    upright = discs.render(intensity, 0.0, 64, 0.32)
    assert discs.render(intensity, np.pi / 2, 64, 0.32) == pytest.approx(np.rot90(upright), abs=1e-9)
    source = Patterns(SMALL, SAMPLES, 5)
    material, _ = source.material("train", 1)
    for i, zone in enumerate(material.zones):  # the image's axis is normal to the beam
        lattice = material.crystal.lattice
        assert (material.vertical[0, i] @ lattice) @ (zone @ lattice) == pytest.approx(0, abs=1e-9)
        assert np.linalg.norm(material.vertical[0, i] @ lattice) == pytest.approx(1)


def test_semi_angle_is_a_quarter_of_the_spacing() -> None:
    """As in the published sample mp-763064: 100 keV, d = 3.34336566 Å, 2.76776 mrad."""
    material, _ = Patterns(SMALL, SAMPLES, 5).material("train", 0)
    assert material.semi_angles_rad * material.spacings_A == pytest.approx([0.00276776 * 3.34336566] * 3, rel=1e-5)


def test_scan_follows_the_potential() -> None:
    """Thin foils: beams are drawn towards higher potential, and where it is high they are scattered far."""
    source = Scans(SCAN.model_copy(update=FINE_DOSE), SAMPLES, 3)
    batch = source.read("train", 0, 12)
    patterns = batch["cbed"].astype(np.float64).reshape(12, 4, 4, 16, 16)
    fine = batch["potential"][:, 0].astype(np.float64)
    field, *slope = (
        x.reshape(12, 4, 4, 4, 4).mean((2, 4)) for x in (fine, np.gradient(fine, axis=1), np.gradient(fine, axis=2))
    )
    assert patterns.mean((-2, -1)) == pytest.approx(np.ones((12, 4, 4)), abs=0.1)
    k = np.arange(16) - 7.5
    drift = np.stack([(patterns * k[:, None]).sum((-2, -1)), (patterns * k).sum((-2, -1))])
    assert np.corrcoef(drift.ravel(), np.ravel(slope))[0, 1] > 0.95
    assert abs(np.corrcoef(drift.ravel(), np.ravel(slope[::-1]))[0, 1]) < 0.3
    far = (patterns * (np.hypot(k[:, None], k) > 6)).sum((-2, -1))
    assert np.mean([np.corrcoef(f.ravel(), v.ravel())[0, 1] for f, v in zip(far, field, strict=True)]) > 0.5


def test_how_many_probes_are_simulated_at_once_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Scans(SCAN, SAMPLES, 5).read("train", 0, 2)
    monkeypatch.setattr(synthetic, "MOST_POINTS", 3 * 24 * 24)  # 16 probes on 24 × 24 points, in threes and one
    parts = Scans(SCAN, SAMPLES, 5).read("train", 0, 2)
    assert all(parts[name].tobytes() == whole[name].tobytes() for name in whole)


def test_scan_pattern_of_nothing_is_the_aperture() -> None:
    """Vacuum: a disc of the aperture's radius, everywhere alike; pixels lie symmetrically about the beam."""
    from sciml_hpc.benchmarks.stemdl.scattering import wavelength_A

    empty = SCAN.model_copy(update={"thickness_A": (1e-9, 1e-9), "size": 32, "semi_angle_mrad": 20.0, **FINE_DOSE})
    patterns = Scans(empty, SAMPLES, 3).read("train", 0, 1)["cbed"][0].astype(np.float64)
    k = (np.arange(32) - 15.5) / 8.0
    inside = np.hypot(k[:, None], k) < 0.020 / wavelength_A(100)
    assert patterns == pytest.approx(np.broadcast_to(inside * 1024 / inside.sum(), patterns.shape), rel=2e-3)


@pytest.mark.parametrize(
    "fields",
    [
        {"size": 64, "detector": 96},
        {"zones": ((1, 0, 0), (0, 1, 0))},
        {"zones": ((1, 0, 0), (0, 1, 0), (2, 2, 0))},
        {"space_groups": (0, 2)},
        {"thickness_A": (100, 50)},
        {"electrons": (0, 10)},
        {"convergence": 0.5},
    ],
)
def test_impossible_settings_are_refused(fields) -> None:
    with pytest.raises(ValidationError):
        ClassificationGenerator(**fields)
