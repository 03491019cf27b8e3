"""Space groups against spglib, and crystals against spglib's own finding of their symmetry."""

from __future__ import annotations

import numpy as np
import pytest

from sciml_hpc.benchmarks.stemdl.crystals import CLOSEST_A, VOLUME_PER_ATOM_A3, random_crystal
from sciml_hpc.benchmarks.stemdl.settings import WELL_SEPARATED
from sciml_hpc.benchmarks.stemdl.symmetry import has_more_symmetry, space_group

FACE_CENTRED = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])


def operators(rotations: np.ndarray, translations: np.ndarray) -> set[tuple[int, ...]]:
    """Operators as a set of integers, translations in 1/24."""
    shifts = np.round(np.asarray(translations) * 24).astype(int) % 24
    return {(*map(int, r.ravel()), *map(int, t)) for r, t in zip(rotations, shifts, strict=True)}


def test_orders_are_those_of_the_international_tables() -> None:
    orders = [len(space_group(n).rotations) for n in range(1, 231)]
    assert sum(orders) == 4425
    known = {1: 1, 2: 2, 14: 4, 62: 8, 139: 32, 148: 18, 166: 36, 194: 24, 216: 96, 225: 192, 227: 192, 230: 96}
    assert {n: orders[n - 1] for n in known} == known
    centring = {1: 1, 5: 2, 22: 4, 139: 2, 148: 3, 194: 1, 225: 4, 229: 2}
    assert {n: space_group(n).centring for n in centring} == centring


def test_every_operator_is_spglibs() -> None:
    spglib = pytest.importorskip("spglib")
    seen = set()
    for hall in range(1, 531):
        number = spglib.get_spacegroup_type(hall).number
        if number in seen:
            continue
        seen.add(number)
        theirs = spglib.get_symmetry_from_database(hall)
        ours = space_group(number)
        assert operators(ours.rotations, ours.translations) == operators(theirs["rotations"], theirs["translations"])
    assert len(seen) == 230


@pytest.mark.parametrize("number", WELL_SEPARATED)
def test_crystals_have_their_label_and_nothing_more(number: int) -> None:
    spglib = pytest.importorskip("spglib")
    for i in range(3):
        crystal = random_crystal(number, np.random.default_rng([1, number, i]), most_atoms=64)
        cell = (crystal.lattice, crystal.positions, crystal.numbers)
        assert spglib.get_symmetry_dataset(cell, symprec=1e-3).number == number == crystal.space_group


@pytest.mark.slow
def test_crystals_of_all_space_groups_have_their_label() -> None:
    spglib = pytest.importorskip("spglib")
    for number in range(1, 231):
        crystal = random_crystal(number, np.random.default_rng([2, number]), most_atoms=64)
        cell = (crystal.lattice, crystal.positions, crystal.numbers)
        assert spglib.get_symmetry_dataset(cell, symprec=1e-3).number == number


@pytest.mark.parametrize("number", [1, 15, 62, 167, 225])
def test_crystals_are_chemically_possible(number: int) -> None:
    crystal = random_crystal(number, np.random.default_rng(number), most_atoms=64)
    volume_per_atom = np.linalg.det(crystal.lattice) / len(crystal.numbers)
    assert VOLUME_PER_ATOM_A3[0] <= volume_per_atom <= VOLUME_PER_ATOM_A3[1]
    shifts = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    gaps = (crystal.positions[:, None, None] - crystal.positions[None, :, None] + shifts) @ crystal.lattice
    distances = np.linalg.norm(gaps, axis=-1)
    assert distances[distances > 1e-9].min() >= CLOSEST_A


def test_a_crystal_depends_on_the_generator_alone() -> None:
    first, second = (random_crystal(62, np.random.default_rng(9)) for _ in range(2))
    assert np.array_equal(first.positions, second.positions)
    assert np.array_equal(first.lattice, second.lattice)


@pytest.mark.parametrize(
    ("number", "second_element", "second_place", "more"),
    [
        (216, 16, (0.25, 0.25, 0.25), False),  # zincblende
        (216, 30, (0.25, 0.25, 0.25), True),  # diamond: the same element on both sites, 227
        (216, 16, (0.5, 0.5, 0.5), True),  # rock salt: 225
        (225, 16, (0.5, 0.5, 0.5), False),
        (225, 30, (0.5, 0.5, 0.5), True),  # simple cubic with half the edge: 221
        (196, 16, (0.25, 0.25, 0.25), True),  # F23 has no structure as simple as zincblende
    ],
)
def test_supergroups_of_textbook_structures(number, second_element, second_place, more) -> None:
    positions = np.concatenate([FACE_CENTRED, FACE_CENTRED + second_place]) % 1
    numbers = np.repeat([30, second_element], 4)
    assert has_more_symmetry(space_group(number), 5.4 * np.eye(3), positions, numbers, 0.1) is more


@pytest.mark.parametrize(("shift_A", "more"), [(0.0, True), (0.03, True), (0.3, False)])
def test_symmetry_is_judged_within_the_tolerance(shift_A: float, more: bool) -> None:
    """Caesium chloride with its chlorine moved along the fourfold axis, P4mm, is P4/mmm if the move is too small."""
    positions = np.array([[0, 0, 0], [0.5, 0.5, 0.5 + shift_A / 4.1]])
    assert has_more_symmetry(space_group(99), 4.1 * np.eye(3), positions, np.array([55, 17]), 0.1) is more
