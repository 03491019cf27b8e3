"""The score: normalised Nash–Sutcliffe efficiency (NNSE) of forecast magnitudes.

For one location and one forecast quantity over all windows, with o observed, p forecast and ō the location's mean:
V = Σ(o − ō)², E = Σ(o − p)², NNSE = V / (V + E) = 1 / (2 − NSE) (Nossent and Bauwens 2012). It is 1 for a perfect
forecast and 0.5 for one as bad as the location's own mean, which a forecaster does not know beforehand.

A quantity is "the magnitude of n steps, the last of which is h steps after the first one ahead", written
`1year_h25` for n = 26, h = 25. With h = n − 1 or more all n steps are in the future, else n − 1 − h of them are
among those seen: that is how published figures of 0.9 come about (`1year_h0` shares 25 of 26 steps with the input).
What the publisher's target range (0.8 to 0.99) applies to is not said. Here `eval_accuracy`, the figure that
embedded data sets gate on, is the mean over the four targets at their first horizon that is all future (2 weeks, 3
months, 6 months, a year), each averaged over the validation locations: all three models forecast these, and no step
of the input is in them. On the published files the gate is `average_nnse_1year_h0` ≥ 0.8, the quantity of the best
published figure; persistence reaches that as well, so read it beside the others.

Each figure is given as average over the locations, and for the sum of the locations; and beside each what
persistence scores: the last n steps go on as they were. Values not observed (NaN) count for neither. Everything is
a sum over windows, so that batches and ranks add up exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from sciml_hpc.benchmarks.tevolop.windows import AHEAD, FORECAST, TARGET_STEPS, scaled_index

if TYPE_CHECKING:
    import torch

LABELS = {1: "2weeks", 2: "4weeks", 4: "2months", 7: "3months", 13: "6months", 26: "1year", 52: "2years", 104: "4years"}
HORIZONS = (0, 6, 12, 25)
"""Those of the 26 horizons that are published."""
FUTURE = tuple((n, n - 1) for n in TARGET_STEPS)
"""The quantities of `eval_accuracy`."""
OVERLAPPING = tuple((n, 0) for n in TARGET_STEPS[1:])
"""What LSTM and science transformer do not forecast themselves, but follows from the steps seen and the next one."""
MEAN_PREDICTOR = 0.5
_SUMS = 5
"""Per series: windows, Σo, Σo², Σ(o − p)² and Σ(o − q)², q being persistence."""


def label(quantity: tuple[int, int]) -> str:
    """`(26, 25)` → `1year_h25`."""
    return f"{LABELS[quantity[0]]}_h{quantity[1]}"


class NNSE:
    """Sums per location and for the sum of locations; the sum of a split's samples gives its scores.

    All samples of a validation split must be of the same locations in the same order, as those of `windows.Windows`
    are.
    """

    def __init__(self, model: str, locations: int) -> None:
        self.locations = locations
        self._tft = model == "tft"
        if self._tft:
            self.quantities = tuple((n, h) for h in HORIZONS for n in TARGET_STEPS)
        else:
            self.quantities = AHEAD + OVERLAPPING

    def update(self, output: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Contribution of a batch: float64, ((locations + 1) · quantities · 5,).

        `output` is the model's, scaled, in any floating type: (batch, locations, 26, 4) or (batch, locations, 24).
        """
        import torch

        output, history = output.double(), batch["history"].double()
        low, span = batch["scale"].double().unbind(1)
        if self._tft:
            index = [scaled_index(n) for n in TARGET_STEPS]
            forecast = output * span[:, None, None, index] + low[:, None, None, index]
            chosen = list(HORIZONS)
            forecast, observed = (a[:, :, chosen].flatten(2) for a in (forecast, batch["future"].double()))
        else:
            index = [scaled_index(n) for n, _ in AHEAD]
            forecast = output[..., : len(AHEAD)] * span[:, None, index] + low[:, None, index]
            step = 10 ** (1.5 * torch.cat([history[..., 0], forecast[..., :1]], -1))
            completed = [torch.log10(step[..., -n:].sum(-1)) / 1.5 for n, _ in OVERLAPPING]
            forecast = torch.cat([forecast, torch.stack(completed, -1)], -1)
            next_step = batch["future"][:, :, 0, [TARGET_STEPS.index(n) for n, _ in OVERLAPPING]]
            observed = torch.cat([batch["ahead"], next_step], -1).double()
        persistent = torch.stack([_persistence(history, n) for n, _ in self.quantities], -1)
        of_locations = _sums(observed, forecast, persistent)
        whole = _sums(*(a.sum(1, keepdim=True) for a in (observed, forecast, persistent)))
        return torch.cat([of_locations, whole]).flatten()

    def compute(self, total: np.ndarray) -> dict[str, float]:
        """Scores: per quantity `average_nnse_…` and `summed_nnse_…`, the same of persistence, and `eval_accuracy`.

        A location whose value never changes has no score and is left out of the average; `locations_scored` is the
        smallest number of locations in an average of `eval_accuracy`.
        """
        sums = np.asarray(total, np.float64).reshape(self.locations + 1, len(self.quantities), _SUMS)
        scores, scored = {}, {}
        for k, quantity in enumerate(self.quantities):
            model, persistence, valid = _scores(sums[:, k])
            scored[quantity] = int(valid[:-1].sum())
            for name, value in (("", model), ("persistence_", persistence)):
                average = value[:-1][valid[:-1]].mean() if scored[quantity] else float("nan")
                scores[f"{name}average_nnse_{label(quantity)}"] = float(average)
                scores[f"{name}summed_nnse_{label(quantity)}"] = float(value[-1])

        def over_future(prefix: str) -> float:
            return float(np.mean([scores[f"{prefix}_{label(q)}"] for q in FUTURE]))

        return {
            "eval_accuracy": over_future("average_nnse"),
            "persistence_accuracy": over_future("persistence_average_nnse"),
            "mean_predictor_accuracy": MEAN_PREDICTOR,
            "summed_accuracy": over_future("summed_nnse"),
            "persistence_summed_accuracy": over_future("persistence_summed_nnse"),
            "locations_scored": float(min(scored[q] for q in FUTURE)),
            **scores,
        }


def _persistence(history: torch.Tensor, steps: int) -> torch.Tensor:
    """The magnitude of the last `steps` steps; beyond a year, that of the last year going on at the same rate."""
    within = min(steps, FORECAST)
    return history[:, :, -1, scaled_index(within)] + np.log10(steps / within) / 1.5


def _sums(observed: torch.Tensor, forecast: torch.Tensor, persistent: torch.Tensor) -> torch.Tensor:
    """(windows, series, quantities) each, to the five sums: (series, quantities, 5)."""
    import torch

    seen = observed.isfinite()
    o = observed.where(seen, 0)
    errors = [(observed - other).where(seen, 0) ** 2 for other in (forecast, persistent)]
    return torch.stack([seen.double(), o, o * o, *errors], -1).sum(0)


def _scores(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """NNSE of model and persistence for each row of five sums, and which rows have one."""
    n, o, oo, model, persistence = sums.T
    with np.errstate(invalid="ignore", divide="ignore"):
        variation = oo - o * o / n
        valid = variation > 1e-9 * oo  # else a constant series, left over from rounding
        return variation / (variation + model), variation / (variation + persistence), valid
