"""Form factors P(q) of homogeneous particles in random orientation, P(0) = 1, and what a spread of sizes makes of them.

P is the average over orientations of |∫ exp(i q·r) d³r / V|² (Guinier and Fournet, Small-Angle Scattering of X-rays,
1955). Profiles are computed one at a time, so that one is the same whatever else is made.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

BAND = 1.3
"""Values of q within such a factor share one set of nodes."""
WEIGHT_SPREADS = 4.0
"""The distribution of sizes is cut so many standard deviations from its middle."""


def sphere(q: np.ndarray, radius: float) -> np.ndarray:
    """P(q) of a sphere, float64: [3 (sin x − x cos x) / x³]², x = qR (Rayleigh 1911). q > 0 in Å⁻¹, `radius` in Å."""
    x = q * radius
    return (3 * (np.sin(x) - x * np.cos(x)) / x**3) ** 2


def parallelepiped(q: np.ndarray, edges: tuple[float, float, float]) -> np.ndarray:
    """P(q) of a rectangular parallelepiped, float64 (Mittelbach and Porod 1961, Acta Physica Austriaca 14, 185).

    q > 0 in Å⁻¹, ascending; `edges` in Å, in any order. P is the mean over directions n of the product, over the three
    edges, of [sin(q L n/2) / (q L n/2)]². As a function of n this is a sum of spherical harmonics up to the order q·D,
    D the diagonal, and nearly nothing beyond, so the number of nodes has to grow with q·D: one that serves at q·D = 20
    is wrong by factors at 200. The polar cosine takes Gauss and Legendre's nodes; the azimuth those of the midpoint
    rule, which does as well for a periodic function. The integrand is computed in float32: the relative error of P is
    below 3e-5 up to q·D = 250.
    """
    a, b, c = sorted(edges)
    diagonal, across = float(np.hypot(np.hypot(a, b), c)), float(np.hypot(a, b))
    out = np.empty(len(q))
    done = 0
    while done < len(q):
        end = max(8 / diagonal, q[done] * BAND)
        stop = max(done + 1, int(np.searchsorted(q, end)))
        highest = float(q[stop - 1])
        cosine, weight = _legendre(_nodes(highest * diagonal))
        azimuths = _nodes(highest * across)
        phi = (np.arange(azimuths) + 0.5) * (np.pi / 2 / azimuths)
        sine = np.sqrt(1 - cosine**2)[:, np.newaxis]
        k = q[done:stop, np.newaxis].astype(np.float32)
        x = k[..., np.newaxis] * (a / 2 * sine * np.cos(phi)).astype(np.float32)
        y = k[..., np.newaxis] * (b / 2 * sine * np.sin(phi)).astype(np.float32)
        z = k * (c / 2 * cosine).astype(np.float32)
        inner = np.square(np.sin(x) * np.sin(y) / (x * y)).mean(2)
        out[done:stop] = (inner * np.square(np.sin(z) / z) * weight).sum(1)
        done = stop
    return out


def polydisperse(
    form: Callable[[np.ndarray], np.ndarray], lowest_q: float, step: float, points: int, sigma: float
) -> np.ndarray:
    """Scattering of particles of one shape and many sizes, relative to I(0), float64.

    The size is that of `form` (P(q), q ascending) times a lognormal factor t with median 1 in number and standard
    deviation `sigma` of ln t. A particle scatters as its squared volume, so I(q) = ∫ p(t) t⁶ P(qt) dt / ∫ p(t) t⁶ dt.
    On the grid q_i = `lowest_q`·exp(i·`step`), i < `points`, that is a convolution in ln q, for which P is computed a
    little beyond both ends. The weight of ln t is normal again, with mean 6σ²; the trapezoidal rule errs by less than
    1e-3 for σ above 0.6 `step` and by nothing for σ = 0.
    """
    if sigma == 0:
        return form(lowest_q * np.exp(step * np.arange(points)))
    below = max(0, int(np.ceil((WEIGHT_SPREADS * sigma - 6 * sigma**2) / step)))
    above = int(np.ceil((WEIGHT_SPREADS * sigma + 6 * sigma**2) / step))
    log_t = step * np.arange(-below, above + 1)
    weight = np.exp(-0.5 * ((log_t - 6 * sigma**2) / sigma) ** 2)
    values = form(lowest_q * np.exp(step * np.arange(-below, points + above)))
    return np.correlate(values, weight / weight.sum(), mode="valid")


def _nodes(order: float) -> int:
    """Nodes on a quarter circle for harmonics up to `order` (n nodes serve up to 4n − 1), and for what lies beyond."""
    half = order / 2
    return int(np.ceil(half / 2 + half ** (1 / 3) + 1))


@lru_cache(maxsize=256)
def _legendre(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss and Legendre's nodes and weights for the mean of an even function over −1 … 1, those of one half.

    By Newton's method, which gives the same bits whatever the number of threads.
    """
    n = 2 * nodes
    x = np.cos(np.pi * (np.arange(nodes) + 0.75) / (n + 0.5))
    for _ in range(8):
        last, value = np.ones(nodes), x
        for degree in range(2, n + 1):
            last, value = value, ((2 * degree - 1) * x * value - (degree - 1) * last) / degree
        slope = n * (x * value - last) / (x**2 - 1)
        x = x - value / slope
    return x, 2 / ((1 - x**2) * slope**2)
