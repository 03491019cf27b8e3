"""What was spent, as it goes into the record: per device and phase, summed over nodes, null with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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
    uncertainty_J: float | None
    """Of `energy_J`: at each end the counter may be a period old, so period × the highest power seen."""
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
    """A sum over devices of one kind that is null as soon as one part is, and measured only if all parts are."""

    devices: int = 0
    energy_J: float | None = 0.0
    integrated_J: float | None = 0.0
    idle_W: float | None = 0.0
    uncertainty_J: float | None = 0.0
    phases_J: Mapping[str, float | None] = field(default_factory=dict)
    largest_disagreement: float | None = None
    provenance: Provenance = "measured"
    scopes: frozenset[str] = frozenset()
    """Source and scope of every device's figure, as "NVML: gpu"."""
    flagged: tuple[str, ...] = ()
    """Devices whose two figures differ by more than 5 %: the first eight ids."""
    reasons: tuple[str, ...] = ()
    """Why there is no figure: the first eight different ones."""

    @classmethod
    def of(cls, device: DeviceEnergy) -> Sum:
        """One device."""
        return cls(
            devices=1,
            energy_J=device.energy_J,
            integrated_J=device.integrated_J,
            idle_W=device.idle_W,
            uncertainty_J=device.uncertainty_J,
            phases_J={name: phase.energy_J for name, phase in device.phases.items()},
            largest_disagreement=device.disagreement,
            provenance=device.provenance,
            scopes=frozenset({f"{device.source}: {device.scope}"}),
            flagged=(device.id,) if device.flagged else (),
            reasons=(f"{device.id}: {device.reason}",) if device.reason else (),
        )

    def __add__(self, other: Sum) -> Sum:
        phases = sorted(set(self.phases_J) | set(other.phases_J))
        disagreements = [d for d in (self.largest_disagreement, other.largest_disagreement) if d is not None]
        return Sum(
            devices=self.devices + other.devices,
            energy_J=_add(self.energy_J, other.energy_J),
            integrated_J=_add(self.integrated_J, other.integrated_J),
            idle_W=_add(self.idle_W, other.idle_W),
            uncertainty_J=_add(self.uncertainty_J, other.uncertainty_J),
            phases_J={p: _add(self.phases_J.get(p, 0.0), other.phases_J.get(p, 0.0)) for p in phases},
            largest_disagreement=max(disagreements, default=None),
            provenance=self.provenance if self.provenance != "measured" else other.provenance,
            scopes=self.scopes | other.scopes,
            flagged=(self.flagged + other.flagged)[:8],
            reasons=tuple(dict.fromkeys(self.reasons + other.reasons))[:8],
        )

    def record(self, kind: str) -> dict[str, Any]:
        """The figures with their names for the log; null, all of them, unless every part was measured."""
        measured = self.provenance == "measured"
        known = measured and self.devices > 0
        energy = self.energy_J if known else None
        reason = "; ".join(self.reasons) or "no such sensor"
        if not measured:
            reason = "recorded trace, not a measurement"
        return {
            f"{kind}_devices": self.devices,
            f"{kind}_provenance": self.provenance if self.devices else None,
            f"{kind}_energy_J": energy,
            f"{kind}_energy_uncertainty_J": None if energy is None else self.uncertainty_J,
            f"{kind}_energy_reason": reason if energy is None else None,
            f"{kind}_integrated_power_J": self.integrated_J if known else None,
            f"{kind}_largest_disagreement": self.largest_disagreement if known else None,
            f"{kind}_disagreeing_devices": list(self.flagged),
            f"{kind}_idle_W": self.idle_W if known else None,
            f"{kind}_phases_J": None if energy is None else dict(self.phases_J),
            f"{kind}_scope": sorted(self.scopes),
        }


@dataclass(frozen=True)
class JobEnergy:
    """Sums per kind over nodes: `+` adds two of them, so a tree reduction over nodes moves about a kilobyte.

    Kinds overlap (a node's figure contains its GPUs) and are never added to each other.
    """

    wall_s: float
    sums: Mapping[str, Sum]

    @classmethod
    def of(cls, node: NodeEnergy) -> JobEnergy:
        """The figures of one node (or of the devices one rank owns; of a rank that owns none, nothing)."""
        sums = {kind: Sum() for kind in KINDS}
        for device in node.devices:
            sums[device.kind] += Sum.of(device)
        for kind, reason in node.absent.items():
            sums[kind] += Sum(energy_J=None, integrated_J=None, idle_W=None, uncertainty_J=None, reasons=(reason,))
        return cls(node.wall_s, sums)

    def __add__(self, other: JobEnergy) -> JobEnergy:
        sums = {kind: self.sums[kind] + other.sums[kind] for kind in KINDS}
        return JobEnergy(max(self.wall_s, other.wall_s), sums)

    def record(self) -> dict[str, Any]:
        """The figures for the log: `gpu_energy_J`, `cpu_energy_J`, … each a number or null with its reason.

        Only measured figures are figures: of a recorded trace every `_J` and `_W` is null and the reason says so.
        """
        sources = sorted({scope.partition(":")[0] for scope in self.sums["gpu"].scopes})
        entry: dict[str, Any] = {"gpu_energy_label": f"GPU energy ({', '.join(sources) or 'none'}; not MLPerf Power)"}
        entry["energy_wall_s"] = self.wall_s
        for kind, total in self.sums.items():
            entry |= total.record(kind)
        return entry


def _add(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a + b
