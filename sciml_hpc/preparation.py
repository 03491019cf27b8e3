"""The data set of a plan, ready: found prepared, or made now, before any clock starts."""

from __future__ import annotations

from pathlib import Path

import yaml

from sciml_hpc import errors
from sciml_hpc.console import Console
from sciml_hpc.data import prepare
from sciml_hpc.data.shards import Index, collector_resting
from sciml_hpc.errors import UserError
from sciml_hpc.manifest import Dataset, load_manifest, select
from sciml_hpc.parallel.world import World
from sciml_hpc.plan import Plan, generator_of, source_of


def ready(plan: Plan, data: Path, world: World, console: Console) -> Index:
    """The index of the plan's data set; a simulated one that is not there yet is made first. Collective.

    Raises UserError if a published data set has not been prepared, naming the commands that do, or if what is there is
    not what the manifest says.
    """
    name, dataset = plan.dataset_name, plan.dataset
    with collector_resting():
        index = world.once(lambda: prepare.load_prepared(data, name, dataset))
    if index is not None:
        return index
    if dataset.origin.kind == "files":
        task = f" --task {dataset.task}" if dataset.task else ""
        own = "" if plan.shipped else " --manifest FILE"
        raise UserError(
            f"data set {name} has not been prepared below {data}. A centre gets its files with:\n"
            f"  {dataset.origin.get}\nand prepares them, on any number of nodes, with:\n"
            f"  python -m sciml_hpc prepare {dataset.benchmark}{task} --dataset {name} --data {data}{own}"
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


def simulate(plan: Plan, output: Path, world: World, console: Console) -> None:
    """Write the plan's simulated data set in the published file format to the new directory `output`. Collective.

    Raises UserError if the data set is not simulated, or `output` is there already.
    """
    dataset, benchmark = plan.dataset, plan.benchmark()

    def begin() -> None:
        if dataset.origin.kind != "simulator":
            raise UserError(f"data set {plan.dataset_name} is published, not simulated: take one of the embedded ones")
        try:
            output.mkdir(parents=True)
        except FileExistsError:
            raise UserError(f"--output {output}: exists; files are only written to a new directory") from None
        except OSError as error:
            raise UserError(f"--output {output}: cannot be made: {error.strerror}") from None

    world.once(begin)
    generator = generator_of(benchmark, plan.dataset_name, dataset)
    written = benchmark.write_native(
        output, generator, dataset.samples, dataset.origin.seed, part=world.rank, parts=world.size
    )
    total = world.sum(len(written))
    console.line(f"wrote {total} files in the published format to {output}")
    entry = dataset.model_dump(mode="json", exclude_none=True)
    which = f"{f' --task {dataset.task}' if dataset.task else ''} --dataset {plan.dataset_name}"
    entry["origin"] = {
        "kind": "files",
        "path": str(output.resolve()),
        "get": f"python -m sciml_hpc simulate {dataset.benchmark}{which} --output {output}",
        "seed": dataset.origin.seed,
        "parameters": dataset.origin.parameters,
    }
    manifest = yaml.safe_dump({"datasets": {f"my-{plan.dataset_name}": entry}}, sort_keys=False, allow_unicode=True)
    console.line("a manifest entry for them (a file to give with --manifest):\n\n" + manifest)


def verify(name: str, manifest: Path | None, data: Path, world: World, console: Console) -> int:
    """Compare the shards of a prepared data set with its index, spread over the ranks; the exit status. Collective."""
    dataset = world.once(lambda: select(load_manifest(manifest), name))
    with collector_resting():
        index = world.once(lambda: prepare.load_prepared(data, name, dataset))
    if index is None:
        raise UserError(f"data set {name} has not been prepared below {data}")
    directory = prepare.dataset_directory(data, name)
    faults = prepare.verify(index, directory, world)
    for fault in faults:
        console.line(f"BAD  {fault}")
    console.line(summary(index, dataset, directory))
    console.line(f"{len(index.shards) - len(faults)} of {len(index.shards)} shards are intact")
    return errors.INVALID if faults else errors.VALID
