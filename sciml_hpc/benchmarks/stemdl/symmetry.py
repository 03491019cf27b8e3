"""Space groups: their operators, their crystal systems, and whether a structure has exactly one group's symmetry.

Fractional coordinates throughout; an operator (R, t) takes the column x to R x + t, modulo lattice translations.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np

TRANSLATION_UNIT = 24
"""Translations of all 230 groups are multiples of 1/24 in the settings used."""


@dataclass(frozen=True, eq=False)
class SpaceGroup:
    """Operators of the conventional cell, lattice centring included."""

    number: int
    symbol: str
    rotations: np.ndarray
    """(n, 3, 3) int64."""
    translations: np.ndarray
    """(n, 3) float64 in [0, 1)."""

    @property
    def system(self) -> str:
        """The crystal system, which says what cell parameters are free."""
        return next(name for last, name in _SYSTEMS if self.number <= last)

    @property
    def centring(self) -> int:
        """Lattice points of the conventional cell."""
        return int((self.rotations == np.eye(3, dtype=int)).all((1, 2)).sum())


_SYSTEMS = (
    (2, "triclinic"),
    (15, "monoclinic"),
    (74, "orthorhombic"),
    (142, "tetragonal"),
    (194, "hexagonal"),
    (230, "cubic"),
)
"""Last space group of each system; trigonal groups are described on hexagonal axes and counted there."""

_HOLOHEDRY = {
    "triclinic": 2,
    "monoclinic": 10,
    "orthorhombic": 47,
    "tetragonal": 123,
    "hexagonal": 191,
    "cubic": 221,
}
"""A space group whose rotations are all those that leave the system's conventional axes alike."""


@cache
def _table() -> dict[int, list[str]]:
    text = resources.files(__package__).joinpath("spacegroups.txt").read_text(encoding="ascii")
    rows = (line.split() for line in text.splitlines() if not line.startswith("#"))
    return {int(row[0]): row for row in rows}


def _operator(triplet: str) -> np.ndarray:
    """The (3, 4) integer matrix of a triplet such as `-y,x-y,z+1/3`; its last column in 1/24."""
    matrix = np.zeros((3, 4), dtype=np.int64)
    for row, image in zip(matrix, triplet.split(","), strict=True):
        for term in image.replace("-", "+-").split("+"):
            if term and term[-1] in "xyz":
                row["xyz".index(term[-1])] = -1 if term.startswith("-") else 1
            elif term:
                numerator, denominator = term.split("/")
                row[3] = int(numerator) * TRANSLATION_UNIT // int(denominator)
    return matrix


@cache
def space_group(number: int) -> SpaceGroup:
    """Space group `number` (1 to 230), its operators made from the generators of `spacegroups.txt`."""
    _, symbol, order, *triplets = _table()[number]
    generators = [_operator(t) for t in triplets]
    identity = np.eye(3, 4, dtype=np.int64)
    found = {identity.tobytes(): identity}
    new = [identity]
    while new:
        products = []
        for generator in generators:
            for operator in new:
                product = generator[:, :3] @ operator
                product[:, 3] = (product[:, 3] + generator[:, 3]) % TRANSLATION_UNIT
                if product.tobytes() not in found:
                    found[product.tobytes()] = product
                    products.append(product)
        new = products
    operators = np.stack(list(found.values()))
    if len(operators) != int(order):
        raise RuntimeError(f"space group {number}: {len(operators)} operators instead of {order}")
    return SpaceGroup(number, symbol, operators[:, :, :3], operators[:, :, 3] / TRANSLATION_UNIT)


@cache
def _foreign_rotations(number: int) -> np.ndarray:
    """One rotation of every coset of the group's rotations in its holohedry, the identity first: (n, 3, 3)."""
    group = space_group(number)
    own = np.unique(group.rotations, axis=0)
    covered = {r.tobytes() for r in own}
    cosets = [np.eye(3, dtype=np.int64)]
    for rotation in space_group(_HOLOHEDRY[group.system]).rotations:
        if rotation.tobytes() not in covered:
            cosets.append(rotation)
            covered |= {(rotation @ r).tobytes() for r in own}
    return np.stack(cosets)


def has_more_symmetry(
    group: SpaceGroup, lattice: np.ndarray, positions: np.ndarray, numbers: np.ndarray, tolerance_A: float
) -> bool:
    """Whether a structure that has the operators of `group` has further ones, to within `tolerance_A` (Å).

    Random coordinates often do, and then the structure belongs to a supergroup. A further operator times one of the
    group's own is a further operator too, so one rotation of each coset of the holohedry suffices; its translation
    must take an atom of the rarest element to another of that element. `lattice` (3, 3) has rows a, b, c in Å and no
    accidental symmetry beyond its system's; `positions` is (n, 3) fractional, `numbers` (n,).
    """
    elements, counts = np.unique(numbers, return_counts=True)
    rare = positions[numbers == elements[counts.argmin()]]
    for i, rotation in enumerate(_foreign_rotations(group.number)):
        shifts = rare - rotation @ rare[0]
        kept = np.ones(len(shifts), dtype=bool)
        for element in elements[counts.argsort()]:
            atoms = positions[numbers == element]
            images = atoms @ rotation.T + shifts[kept][:, None]
            gap = images[:, :, None] - atoms
            gap -= np.round(gap)
            near = np.linalg.norm(gap @ lattice, axis=-1).min(-1) < tolerance_A
            kept[kept] = near.all(-1)
            if not kept.any():
                break
        if kept.sum() > (group.centring if i == 0 else 0):
            return True
    return False
