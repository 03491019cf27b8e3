"""The data set of a plan, ready: found prepared, or made now, before any clock starts."""

from __future__ import annotations

from pathlib import Path

from sciml_hpc.console import Console
from sciml_hpc.data import prepare
from sciml_hpc.data.shards import Index
from sciml_hpc.errors import UserError
from sciml_hpc.manifest import Dataset
from sciml_hpc.parallel.world import World
from sciml_hpc.plan import Plan, source_of


def ready(plan: Plan, data: Path, world: World, console: Console) -> Index:
    """The index of the plan's data set; a simulated one that is not there yet is made first. Collective.

    Raises UserError if a published data set has not been prepared, naming the commands that do, or if what is there is
    not what the manifest says.
    """
    name, dataset = plan.dataset_name, plan.dataset
    index = world.once(lambda: prepare.load_prepared(data, name, dataset))
    if index is not None:
        return index
    if dataset.origin.kind == "files":
        raise UserError(
            f"data set {name} has not been prepared below {data}. A centre gets its files with:\n"
            f"  {dataset.origin.get}\nand prepares them, on any number of nodes, with:\n"
            f"  python -m sciml_hpc prepare {dataset.benchmark} --dataset {name} --data {data}"
        )
    console.line(f"data set {name} is not below {data} yet: it is made now, before the clock starts")
    return make(plan, data, world, console)


def make(plan: Plan, data: Path, world: World, console: Console) -> Index:
    """Prepare the plan's data set, in parallel over the ranks. Collective."""
    name, dataset = plan.dataset_name, plan.dataset
    source = world.together(lambda: source_of(plan.benchmark(), name, dataset, data))
    index = prepare.prepare(
        source,
        name,
        dataset,
        data,
        world,
        lambda done, total: console.progress(f"preparing {name}", done, total, "shards"),
    )
    console.line(summary(index, dataset, prepare.dataset_directory(data, name)))
    return index


def summary(index: Index, dataset: Dataset, directory: Path) -> str:
    """One line on a prepared data set."""
    counts = ", ".join(f"{index.samples(split):,} {split}" for split in dataset.samples)
    return (
        f"data set {index.dataset}: {counts} samples in {len(index.shards)} shards, {index.bytes / 1e6:,.1f} MB, "
        f"in {directory}, index SHA-256 {index.sha256[:16]}…"
    )
