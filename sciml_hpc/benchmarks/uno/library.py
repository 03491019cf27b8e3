"""Simulated libraries: cell lines with expression profiles, compounds with Dragon-like descriptors, and the latent
factors behind both, from which `synthetic.py` makes responses.

Realistic: the widths and kinds of the 30 Dragon 7 descriptor blocks; columns that are correlated within and across
blocks, skewed, count-like or almost always zero; congeneric series of compounds; genes that share pathways and
cancer types; standardisation over the library as CANDLE does it. Not realistic: no molecule stands behind a compound
and no gene behind a column, so that nothing can be learnt from one column's meaning; latent factors are Gaussian.
For the statistics of the descriptors against those of real compounds see the tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

PATHWAYS = 24
"""Latent activities of a cell; a choice of this simulator, of the order of the 50 MSigDB hallmark gene sets."""
CANCER_TYPES = 21
"""Cancer types of the published data set ("top_21")."""
CHEMISTRY = 40
"""Latent factors of a compound; a choice of this simulator: about 50 principal components hold 90 % of the variance
of 1,386 Mordred descriptors of 400 NCI compounds."""
COMPOUNDS_PER_SERIES = 12
"""Mean size of a congeneric series; a choice of this simulator."""

Kind = Literal["size", "shape", "conformer", "count", "presence"]

BLOCKS: tuple[tuple[str, int, Kind], ...] = (
    ("constitutional indices", 47, "count"),
    ("ring descriptors", 32, "count"),
    ("topological indices", 75, "size"),
    ("walk and path counts", 46, "size"),
    ("connectivity indices", 37, "size"),
    ("information indices", 50, "shape"),
    ("2D matrix-based descriptors", 607, "size"),
    ("2D autocorrelations", 213, "shape"),
    ("Burden eigenvalues", 96, "shape"),
    ("P_VSA-like descriptors", 55, "shape"),
    ("ETA indices", 23, "shape"),
    ("edge adjacency indices", 324, "shape"),
    ("geometrical descriptors", 38, "conformer"),
    ("3D matrix-based descriptors", 99, "conformer"),
    ("3D autocorrelations", 80, "conformer"),
    ("RDF descriptors", 210, "conformer"),
    ("3D-MoRSE descriptors", 224, "conformer"),
    ("WHIM descriptors", 114, "conformer"),
    ("GETAWAY descriptors", 273, "conformer"),
    ("Randic molecular profiles", 41, "size"),
    ("functional group counts", 154, "count"),
    ("atom-centred fragments", 115, "count"),
    ("atom-type E-state indices", 172, "count"),
    ("CATS 2D", 150, "count"),
    ("2D atom pairs: presence", 780, "presence"),
    ("2D atom pairs: frequency", 780, "count"),
    ("2D atom pairs: weighted", 36, "shape"),
    ("3D atom pairs", 36, "conformer"),
    ("charge descriptors", 15, "shape"),
    ("molecular properties", 20, "shape"),
    ("drug-like indices", 28, "presence"),
    ("CATS 3D", 300, "conformer"),
)
"""Dragon 7.0's blocks and their widths (Kode Chemoinformatics, Dragon 7 list of molecular descriptors), 5,270 columns
in all, with 2D atom pairs in their three parts; the kind of each is this simulator's reading of it."""
DESCRIPTORS = sum(width for _, width, _ in BLOCKS)
GENES = 942
"""LINCS1000 landmark genes found in CANDLE's expression table (Pilot1/Uno README)."""


@dataclass(frozen=True)
class Library:
    """Items (cells or compounds) as a network sees them and as the simulator knows them."""

    features: np.ndarray
    """float32 (items, columns), each column of mean 0 and standard deviation 1 over the library, or all zero."""
    latent: np.ndarray
    """float64 (items, factors), of order one."""


def cells(count: int, genes: int, rng: np.random.Generator) -> Library:
    """`count` cell lines: pathway activities around the mean of their cancer type, and `genes` expression values.

    Expression is a sparse linear read-out of the pathways plus a tissue signature and what is the line's own, cut off
    below (genes that are not expressed), then standardised.
    """
    kind = rng.integers(0, CANCER_TYPES, count)
    pathways = 0.7 * rng.normal(size=(CANCER_TYPES, PATHWAYS))[kind] + 0.7 * rng.normal(size=(count, PATHWAYS))
    loading = rng.normal(size=(PATHWAYS, genes)) * (rng.random((PATHWAYS, genes)) < 0.15)
    signature = 0.5 * rng.normal(size=(CANCER_TYPES, genes))[kind]
    expression = matmul(pathways, loading) + signature + 0.5 * rng.normal(size=(count, genes))
    floor = rng.normal(-2.5, 1.0, genes)
    return Library(_standardise(np.maximum(expression, floor)), pathways)


def compounds(count: int, descriptors: int, rng: np.random.Generator) -> Library:
    """`count` compounds in congeneric series and `descriptors` of the 5,270 columns, evenly spaced over the blocks.

    Cost: about 1 s and 150 MB at the published size (1,779 x 5,270), once per process.
    """
    series = rng.integers(0, max(2, count // COMPOUNDS_PER_SERIES), count)
    scaffold = rng.normal(size=(series.max() + 1, CHEMISTRY))
    latent = np.sqrt(0.6) * scaffold[series] + np.sqrt(0.4) * rng.normal(size=(count, CHEMISTRY))
    chosen = np.zeros(DESCRIPTORS, bool)
    chosen[np.arange(descriptors) * DESCRIPTORS // descriptors] = True
    features = np.empty((count, descriptors), np.float32)
    first = start = 0
    for _, width, kind in BLOCKS:
        weights = _weights(width, rng)
        columns = chosen[start : start + width]
        n = int(columns.sum())
        features[:, first : first + n] = _standardise(_block(kind, latent, weights[:, columns], rng))
        first, start = first + n, start + width
    return Library(features, latent)


def _weights(width: int, rng: np.random.Generator) -> np.ndarray:
    """Unit vectors (CHEMISTRY, width) of a block's columns: within a six-dimensional subspace, so that they correlate,
    and heavier on the first factors, so that blocks correlate with each other."""
    basis = rng.normal(size=(CHEMISTRY, 6)) * (1.0 + np.arange(CHEMISTRY))[:, None] ** -0.5
    weights = matmul(basis, rng.normal(size=(6, width))) + 0.3 * rng.normal(size=(CHEMISTRY, width)) / np.sqrt(
        CHEMISTRY
    )
    return weights / np.linalg.norm(weights, axis=0)


def _block(kind: Kind, latent: np.ndarray, weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Raw columns of one block, float64 (compounds, columns).

    The logarithm of the number of heavy atoms is the first factor: 0.4 of its standard deviation, as among NCI
    compounds (16.3 +- 7.4 atoms).
    """
    shape = (len(latent), weights.shape[1])
    size = 0.4 * latent[:, :1]
    own = matmul(latent, weights)
    noise = rng.normal(size=shape)
    power = rng.uniform(0.0, 2.0, shape[1])
    if kind == "size":  # graph invariants that grow with a power of the number of atoms: skewed, nearly collinear
        return np.exp(power * size + 0.35 * own + 0.05 * noise)
    if kind == "shape":  # intensive: a curved dependence on structure, long tails
        return own + 0.5 * own**2 + power * size + 0.15 * noise
    if kind == "conformer":  # three-dimensional: one conformer's geometry is partly chance
        return np.exp(0.5 * (power * size + own + 0.4 * noise))
    abundance = rng.uniform(np.log(0.02), np.log(4.0), shape[1])
    counts = np.floor(np.exp(np.minimum(abundance + power * size + own + 0.2 * noise, 6.0)))
    return np.minimum(counts, 1.0) if kind == "presence" else counts


def _standardise(x: np.ndarray) -> np.ndarray:
    """Columns to mean 0 and standard deviation 1, float32; a constant column to 0 (scikit-learn's StandardScaler)."""
    spread = x.std(axis=0)
    return ((x - x.mean(axis=0)) / np.where(spread > 0, spread, 1.0)).astype(np.float32)


def matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a @ b by numpy's own loops: unlike BLAS, the same sums whatever the number of threads."""
    return np.einsum("ik,kj->ij", a, b, optimize=False)
