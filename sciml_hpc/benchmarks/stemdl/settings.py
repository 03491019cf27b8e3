"""What a user may set of the simulators and readers: the `parameters` of a data set in the manifest."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from sciml_hpc.benchmarks.base import Settings


def _increasing(limits: tuple[float, float]) -> tuple[float, float]:
    if not 0 < limits[0] <= limits[1]:
        raise ValueError("two positive numbers, the smaller first")
    return limits


def _lattice_direction(zone: tuple[int, int, int]) -> tuple[int, int, int]:
    if math.gcd(*zone) != 1 or max(map(abs, zone)) > 3:
        raise ValueError("three integers from -3 to 3 without a common factor")
    return zone


Range = Annotated[tuple[float, float], AfterValidator(_increasing)]
Zone = Annotated[tuple[int, int, int], AfterValidator(_lattice_direction)]
SpaceGroupNumber = Annotated[int, Field(ge=1, le=230)]

CLASSES = 231
"""Outputs of the classifier: the space group's number is the index, 0 is unused, as published."""

WELL_SEPARATED = (2, 14, 62, 139, 148, 194, 216, 225)
"""One or two frequent groups of every crystal system, all of different point groups."""


class ClassificationGenerator(Settings):
    """Convergent-beam patterns of random crystals."""

    space_groups: tuple[SpaceGroupNumber, ...] = Field(WELL_SEPARATED, min_length=2)
    """Space groups that occur, in equal shares."""
    zones: tuple[Zone, ...] = Field(((1, 0, 0), (0, 1, 0), (0, 0, 1)), min_length=3)
    """Lattice directions [uvw] the beam may take; a material is seen along three, drawn if there are more."""
    size: int = Field(128, ge=8)
    """Pixels along the edge of a sample."""
    detector: int = Field(128, ge=8)
    """Pixels along the edge of the simulated detector, a multiple of `size`: the logarithm is averaged over areas."""
    k_max: float = Field(1.2, gt=0)
    """Spatial frequency at the middle of the detector's edge in 1/Å."""
    energy_keV: float = Field(100.0, gt=0)
    """Energy of the electrons."""
    convergence: float = Field(0.25, gt=0, le=0.42)
    """Semi-angle of convergence over λ/d, d the widest spacing of lattice planes in view; 1/4 in the published data."""
    disc_points: int = Field(7, ge=3)
    """Incident directions across a disc that are simulated; between them intensities are interpolated."""
    variants: int = Field(8, ge=1)
    """Samples of the same material in the same directions, which differ in thickness, rotation and noise."""
    thickness_A: Range = (50.0, 150.0)
    """Least and largest thickness of the crystal."""
    slice_A: float = Field(2.0, gt=0)
    """Thickness of a slice of the simulation, about."""
    b_iso_A2: Range = (0.3, 0.8)
    """Least and largest thermal displacement factor B."""
    tilt_mrad: float = Field(3.0, ge=0)
    """Largest misalignment of a zone axis and the beam."""
    rotation_deg: float = Field(180.0, ge=0, le=180)
    """Largest rotation of a pattern about the beam, either way."""
    electrons: Range = (1e5, 1e7)
    """Least and largest number of electrons in a pattern, drawn uniformly in the logarithm; counting noise follows."""
    most_atoms: int = Field(64, ge=16)
    """Atoms in the conventional cell; a few groups take more."""
    layout: Literal["npz", "hdf5"] = "npz"
    """Published form: processed samples, or raw detector images with attributes."""
    train_part: str = "train"
    """Directory of the training samples."""
    validation_part: str = "test"
    """Directory of the validation samples."""
    split: Literal["publisher", "material"] = "publisher"
    """Raw form: parts as published, refused if a material is in both; or all samples divided anew by material."""
    validation_fraction: float = Field(0.25, gt=0, lt=1)
    """Share of the materials that a new division takes for validation."""

    @model_validator(mode="after")
    def _whole_pixels(self) -> ClassificationGenerator:
        if self.detector % self.size:
            raise ValueError(f"detector {self.detector} is no multiple of size {self.size}")
        return self


class ReconstructionGenerator(Settings):
    """Scans of a focused probe over random crystals, and the projected potential under the scan."""

    space_groups: tuple[SpaceGroupNumber, ...] = Field(WELL_SEPARATED, min_length=1)
    """Space groups that occur, in equal shares."""
    size: int = Field(32, ge=8, multiple_of=4)
    """Pixels along the edge of a diffraction pattern and of the potential."""
    scan: int = Field(8, ge=2)
    """Probe positions along the edge of the scan: a sample has their square as channels."""
    field_A: float = Field(6.0, gt=0)
    """Edge of the scanned field, which is also that of the potential; the simulated box is twice as wide."""
    energy_keV: float = Field(100.0, gt=0)
    """Energy of the electrons."""
    semi_angle_mrad: float = Field(25.0, gt=0)
    """Semi-angle of the probe-forming aperture."""
    thickness_A: Range = (10.0, 30.0)
    """Least and largest thickness of the crystal."""
    slice_A: float = Field(2.0, gt=0)
    """Thickness of a slice of the simulation, about."""
    b_iso_A2: Range = (0.3, 0.8)
    """Least and largest thermal displacement factor B."""
    electrons: Range = (1e5, 1e6)
    """Least and largest number of electrons in a pattern, drawn uniformly in the logarithm; counting noise follows."""
    most_atoms: int = Field(64, ge=16)
    """Atoms in the conventional cell; a few groups take more."""
