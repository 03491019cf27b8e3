"""What was spent, as it goes into the record: per device and phase, summed over nodes, null with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sciml_hpc.metering.sensors import Kind, Provenance

KINDS: tuple[Kind, ...] = ("gpu", "cpu", "dram", "node")


@dataclass(frozen=True)
class PhaseEnergy:
    """What one device spent in all windows of one phase."""

    wall_s: float
    windows: int
    energy_J: float | None
    integrated_J: float | None
    uncertainty_J: float | None
    """Counters are up to a period old when read: windows × period × the highest power seen (mean power without one)."""


@dataclass(frozen=True)
class DeviceEnergy:
    """What one device spent between start and stop."""

    kind: Kind
    id: str
    name: str
    source: str
    scope: str
    power_scope: str
    period_s: float
    provenance: Provenance
    wall_s: float
    energy_J: float | None
    """From the counter, from start to stop."""
    integrated_J: float | None
    """Trapezoids over sampled power, from start to stop; None without a power reading at every sample."""
    disagreement: float | None
    """|integrated − counter| ÷ counter; None where the two do not exist or do not cover the same."""
    flagged: bool
    """Whether the disagreement is above 5 %."""
    max_W: float | None
    idle_W: float | None
    """Mean power in the idle window before the run, from the counter."""
    samples: int
    phases: Mapping[str, PhaseEnergy]
    reason: str | None
    """Why `energy_J` is null, where it is."""
    power_reason: str | None
    """Why `integrated_J` is null, where it is."""


@dataclass(frozen=True)
class NodeEnergy:
    """The energy of the devices one rank owns."""

    wall_s: float
    devices: tuple[DeviceEnergy, ...]
    absent: Mapping[str, str]
    """Kind → why it was not metered."""
    meter_cpu_s: float
    """Processor time the metering itself took."""


@dataclass(frozen=True)
class Sum:
    """A sum over devices of one kind that is null as soon as one part is."""

    devices: int = 0
    energy_J: float | None = 0.0
    integrated_J: float | None = 0.0
    idle_W: float | None = 0.0
    phases_J: Mapping[str, float | None] = field(default_factory=dict)
    scopes: frozenset[str] = frozenset()
    """Source and scope of every device's figure, as "NVML: gpu"."""
    flagged: tuple[str, ...] = ()
    """Devices whose two figures differ by more than 5 %: the first eight ids."""
    reasons: tuple[str, ...] = ()
    """Why there is no figure: the first eight different ones."""

    def __add__(self, other: Sum) -> Sum:
        phases = set(self.phases_J) | set(other.phases_J)
        return Sum(
            self.devices + other.devices,
            _add(self.energy_J, other.energy_J),
            _add(self.integrated_J, other.integrated_J),
            _add(self.idle_W, other.idle_W),
            {p: _add(self.phases_J.get(p, 0.0), other.phases_J.get(p, 0.0)) for p in sorted(phases)},
            self.scopes | other.scopes,
            (self.flagged + other.flagged)[:8],
            tuple(dict.fromkeys(self.reasons + other.reasons))[:8],
        )


@dataclass(frozen=True)
class JobEnergy:
    """Sums per kind over nodes: `+` adds two of them, so a tree reduction over nodes moves a few hundred bytes.

    Kinds overlap (a node's figure contains its GPUs) and are never added to each other. Measured and recorded figures
    are never added either: ValueError.
    """

    provenance: Provenance
    wall_s: float
    sums: Mapping[str, Sum]

    @classmethod
    def of(cls, node: NodeEnergy) -> JobEnergy:
        """The figures of one node. A node without any device is "measured": its figures are null."""
        provenances = {d.provenance for d in node.devices}
        if len(provenances) > 1:
            raise ValueError("measured and recorded figures of one node cannot be added")
        sums = {kind: Sum() for kind in KINDS}
        for device in node.devices:
            sums[device.kind] += Sum(
                1,
                device.energy_J,
                device.integrated_J,
                device.idle_W,
                {name: phase.energy_J for name, phase in device.phases.items()},
                frozenset({f"{device.source}: {device.scope}"}),
                (device.id,) if device.flagged else (),
                (f"{device.id}: {device.reason}",) if device.reason else (),
            )
        for kind, reason in node.absent.items():
            sums[kind] += Sum(0, None, None, None, reasons=(reason,))
        return cls(provenances.pop() if provenances else "measured", node.wall_s, sums)

    def __add__(self, other: JobEnergy) -> JobEnergy:
        if self.provenance != other.provenance:
            raise ValueError("measured and recorded figures cannot be added")
        sums = {kind: self.sums[kind] + other.sums[kind] for kind in KINDS}
        return replace(self, wall_s=max(self.wall_s, other.wall_s), sums=sums)

    def record(self) -> dict[str, Any]:
        """The figures for the log: `gpu_energy_J`, `cpu_energy_J`, … each a number or null with its reason.

        Only measured figures are figures: of a recorded trace every `_J` and `_W` is null and the reason says so.
        """
        sources = sorted({scope.partition(":")[0] for scope in self.sums["gpu"].scopes})
        label = f"GPU energy ({', '.join(sources) or 'none'}; not MLPerf Power)"
        entry: dict[str, Any] = {"provenance": self.provenance, "gpu_energy_label": label, "wall_s": self.wall_s}
        for kind, total in self.sums.items():
            simulated = self.provenance != "measured"
            void = simulated or total.devices == 0
            reason = "recorded trace, not a measurement" if simulated else "; ".join(total.reasons) or "no such sensor"
            entry[f"{kind}_devices"] = total.devices
            entry[f"{kind}_energy_J"] = None if void else total.energy_J
            entry[f"{kind}_integrated_power_J"] = None if void else total.integrated_J
            entry[f"{kind}_idle_W"] = None if void else total.idle_W
            entry[f"{kind}_phases_J"] = None if void else _joules(total)
            entry[f"{kind}_scope"] = sorted(total.scopes)
            entry[f"{kind}_disagreeing_devices"] = list(total.flagged)
            entry[f"{kind}_energy_reason"] = reason if entry[f"{kind}_energy_J"] is None else None
        return entry


def _add(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a + b


def _joules(total: Sum) -> dict[str, float | None]:
    """Energy per phase; a kind without a total has none per phase either."""
    return {name: None if total.energy_J is None else joules for name, joules in total.phases_J.items()}
