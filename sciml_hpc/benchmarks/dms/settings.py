"""What a user may set of the simulators and readers: the `parameters` of a data set in the manifest."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from sciml_hpc.benchmarks.base import Settings

PERIOD_DEG = 90.0
"""Azimuths that differ by this are the same for a tetragonal crystal, whose c axis is fourfold."""
MONOCLINIC, TETRAGONAL = 0, 1
"""Labels of the phases, as sciml-bench has them (`dms_inference_dataset.py`: 0 if the path says monoclinic)."""


def _increasing(limits: tuple[float, float]) -> tuple[float, float]:
    if not limits[0] <= limits[1]:
        raise ValueError("two numbers, the smaller first")
    return limits


Range = Annotated[tuple[float, float], AfterValidator(_increasing)]
_Positive = Annotated[float, Field(gt=0)]
PositiveRange = Annotated[tuple[_Positive, _Positive], AfterValidator(_increasing)]


class PatternGenerator(Settings):
    """Patterns of single crystals on one detector, 84 mm high and 34 mm wide, at one place."""

    rows: int = Field(487, ge=16)
    """Pixels along the detector's height; fewer are larger ones, the field of view is the same."""
    columns: int = Field(195, ge=16)
    """Pixels along its width."""
    spread: float = Field(0.002, ge=0, le=0.01)
    """Relative standard deviation of the cell's edge a about 4.037 Å: composition and temperature vary."""
    c_over_a: PositiveRange = (1.02, 1.03)
    """Least and largest ratio of axes; 1.025 is published."""
    tilt_mrad: float = Field(2.0, ge=0, le=50)
    """Standard deviation of the misalignments of the crystal's c* along and across the plane of scattering."""
    counts: PositiveRange = (15.0, 80.0)
    """Least and largest mean number of photons in a real pixel (of 487 × 195), drawn uniformly in the logarithm."""


class AzimuthGenerator(PatternGenerator):
    """Patterns of tetragonal crystals at any azimuth, uniform over the 90° of its period."""


class StructureGenerator(PatternGenerator):
    """Patterns of tetragonal crystals and of monoclinic ones of a single domain, whose direction is roughly known."""

    distortion: PositiveRange = (0.4, 1.0)
    """Least and largest monoclinic distortion; 1 is the published one of PbZr₀.₅₂Ti₀.₄₈O₃ (β = 90.53°)."""
    azimuth_deg: Range = (-4.0, 4.0)
    """Least and largest azimuth."""
    split: Literal["publisher", "anew"] = "publisher"
    """Of published files: train and test as they are; or both together divided anew, by the data set's seed."""
    validation_fraction: float = Field(0.25, gt=0, lt=1)
    """Share of the images that a new division takes for validation."""
