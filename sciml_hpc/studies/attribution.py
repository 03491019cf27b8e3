"""What became of the time that a larger machine should have saved: lost seconds by cause, adding up to the whole loss.

At N ranks a run takes T(N); perfect scaling from N₀ ranks would take T(N₀)·N₀/N (strong) or T(N₀) (weak). The loss is
the difference. With E epochs to the target, E₀ at N₀, and c the parts of a run (`times.Parts`), it is, part by part,

    epochs     what the epochs beyond E₀ took: (1 − E₀/E) of the parts that grow with the number of epochs
    each part  c(N)·E₀/E − c(N₀)·N₀/N    (a part of the start, c(N) − c(N₀)·N₀/N)

and the sum of these is the loss, identically. Means over the runs of each size; the parts are seconds of wall time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from sciml_hpc.studies.efficiency import by_size
from sciml_hpc.studies.times import PARTS, Timed
from sciml_hpc.studies.wording import number

ONCE = ("staging", "setup")
"""Parts of the start: they do not grow with the number of epochs."""
LABELS = {
    "staging": "staging",
    "setup": "start-up",
    "compute": "computing",
    "stragglers": "stragglers",
    "communication": "exposed communication",
    "data_stall": "data stall",
    "evaluation": "evaluation",
    "other": "checkpoints and other",
    "epochs": "more epochs",
}
SHARED_CORES = "computing, with cores shared by several ranks"


@dataclass(frozen=True)
class Attribution:
    """The loss of one size against the smallest."""

    ranks: int
    nodes: int
    time_s: float
    """Mean time of the runs."""
    ideal_s: float
    loss_s: float
    """time − ideal; negative where scaling was better than perfect."""
    parts_s: dict[str, float]
    """By cause (`LABELS`); their sum is the loss."""
    labels: dict[str, str]
    """What each cause is called here: sharing of cores is named where it explains the loss in computing."""
    largest: str
    """The cause of the largest loss; empty if nothing was lost."""
    notes: tuple[str, ...]

    def sentence(self) -> str:
        """The finding in words."""
        if not self.largest or self.loss_s <= 0:
            return f"{self.ranks} ranks: no loss against perfect scaling"
        part = self.parts_s[self.largest]
        share = "most" if part > self.loss_s / 2 else "the largest part"
        return (
            f"{self.ranks} ranks: {number(self.loss_s)} s of {number(self.time_s)} s lost against perfect scaling, "
            f"{share} of it to {self.labels[self.largest]} ({number(part)} s)"
        )


def attribute(point: Sequence[Timed], reference: Sequence[Timed], scaling: Literal["strong", "weak"]) -> Attribution:
    """The loss of the runs of one size against those of the reference size, by cause."""
    n, n0 = point[0].ranks, reference[0].ranks
    share = n0 / n if scaling == "strong" else 1.0
    here, there = _means(point), _means(reference)
    epochs, epochs0 = (fmean(r.epochs for r in runs) for runs in (point, reference))
    kept = epochs0 / epochs
    parts, more = {}, 0.0
    for name in PARTS:
        same_epochs = here[name] if name in ONCE else here[name] * kept
        parts[name] = same_epochs - there[name] * share
        more += here[name] - same_epochs
    parts["epochs"] = more
    time, ideal = fmean(r.time_s for r in point), fmean(r.time_s for r in reference) * share
    crowded = max(r.oversubscription for r in point)
    labels = dict(LABELS)
    notes = []
    if crowded > 1:
        if crowded > max(r.oversubscription for r in reference):
            labels["compute"] = SHARED_CORES
        notes.append(
            f"{n} ranks have {crowded:.3g} times as many threads as there are cores: they take turns, and what they "
            "lose by it shows as computing, and in part as communication and stragglers"
        )
    if 0 < point[0].machines < point[0].nodes:
        notes.append(f"the {point[0].nodes} nodes are {point[0].machines} machine(s): the figures are not of {n} nodes")
    largest = max(parts, key=lambda name: parts[name])
    return Attribution(
        ranks=n,
        nodes=point[0].nodes,
        time_s=time,
        ideal_s=ideal,
        loss_s=time - ideal,
        parts_s=parts,
        labels=labels,
        largest=largest if parts[largest] > 0 else "",
        notes=tuple(notes),
    )


def attributions(runs: Sequence[Timed], scaling: Literal["strong", "weak"]) -> list[Attribution]:
    """The losses of every size but the smallest, against it."""
    reference, *larger = by_size(runs).values()
    return [attribute(point, reference, scaling) for point in larger]


def _means(runs: Sequence[Timed]) -> dict[str, float]:
    return {name: fmean(getattr(run.parts, name) for run in runs) for name in PARTS}
