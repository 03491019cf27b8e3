"""The command `scaling`: settle the design, then run it, write its job scripts, or say what it found."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from sciml_hpc import errors
from sciml_hpc.console import Console
from sciml_hpc.errors import UserError, explain
from sciml_hpc.launch import expected_size
from sciml_hpc.plan import Request, settle
from sciml_hpc.studies import allocation, findings, jobs
from sciml_hpc.studies import scaling as runner
from sciml_hpc.studies.design import Design
from sciml_hpc.studies.ledger import Study

OWN = {
    "--output": "the study keeps its results in its own directory (--study)",
    "--system": "every size is a system of its own",
    "--weak": "it is the study's first word",
    "--resume": "a study goes on by itself",
    "--reference": "a study compares its own points",
}
"""Options of a run that the study sets itself, and why."""


def scaling(options: argparse.Namespace, request: Request) -> int:
    """Run a study, or go on with it, and print what it found. The exit status: 0 if every point is complete.

    Everything is settled before the first run: every point's configuration, the nodes there are, the directory. Raises
    UserError for what cannot be.
    """
    if expected_size()[0] > 1 and options.nodes is None:
        raise UserError("scaling starts the runs itself: start it once, not by srun or mpirun")
    design = _design(options, request)
    directory = (options.study or Path("studies") / f"{design.benchmark}-{design.scaling}").resolve()
    only = _only(options, design)
    console = Console(True)
    if design.unit == "ranks":
        where = allocation.Allocation("local", launcher=allocation.local_launcher())
    elif allocation.scheduler_here() is None:
        return _write_jobs(options, directory, design, console)
    else:
        where = allocation.find()
    needed = max(only) * max(1, design.instances)
    if design.unit == "nodes" and needed > len(where.hosts):
        raise UserError(
            f"point {design.name(max(only))} needs {needed} nodes; the allocation has {len(where.hosts)} "
            f"({where.scheduler}): take --only for the points that fit, or a larger allocation"
        )
    study = Study.open(directory, design)
    console.line(
        f"{design.scaling} scaling of {design.benchmark}: points {', '.join(map(design.name, only))}, "
        f"{design.repeats} repeats, {design.warm_ups} warm-up; by {where.launcher}; in {directory}"
    )
    try:
        runner.run(study, where, only, console)
    except runner.Stopped as stopped:
        console.error(f"stopped by {stopped}: the same command goes on where it stopped")
        return errors.FAULT
    found = findings.of_study(study, options.project)
    for line in findings.lines(found):
        console.line(line)
    return errors.VALID if found.complete else errors.INVALID


def _design(options: argparse.Namespace, request: Request) -> Design:
    words = options.run_options
    for word in words:
        if (name := word.partition("=")[0]) in OWN:
            raise UserError(f"{name} is not for scaling: {OWN[name]}")
    fixed = bool(request.options.get("fixed_epochs"))
    gates = options.gates if options.gates is not None else int(fixed)
    if gates and not fixed:
        raise UserError("--gates is for --fixed-work: without it every run goes to the target itself")
    if options.instances and options.scaling == "strong":
        raise UserError("--instances is MLPerf's weak scaling: scaling weak")
    if options.fixed_local_batch and options.scaling == "weak":
        raise UserError("--fixed-local-batch is for strong scaling; in weak scaling the batch of a rank is always held")
    points = options.nodes or options.ranks
    try:
        design = Design(
            schema="sciml_hpc.study/1",
            scaling=options.scaling,
            benchmark=options.benchmark,
            arguments=tuple(words),
            unit="nodes" if options.nodes else "ranks",
            points=tuple(sorted(points)),
            ranks_per_node=options.ranks_per_node,
            repeats=options.repeats,
            warm_ups=options.warm_ups,
            instances=options.instances,
            fixed_local_batch=options.fixed_local_batch,
            gates=gates,
            probes=not options.no_probes,
            seed=options.seed,
        )
    except ValidationError as error:
        raise explain("command line", error, Design) from None
    if options.scaling == "weak" and not options.instances:
        request.options["scaling"] = "weak"
    smallest = settle(request, design.ranks(design.points[0])).global_batch
    if design.fixed_local_batch:
        design = design.model_copy(update={"global_batch": smallest})
    for point in design.points[1:]:
        batch = [f"train.global_batch={design.batch(point)}"] if design.fixed_local_batch else []
        settle(replace(request, assignments=[*request.assignments, *batch]), design.ranks(point))
    return design


def _only(options: argparse.Namespace, design: Design) -> tuple[int, ...]:
    only = tuple(sorted(options.only)) if options.only else design.points
    strange = [str(point) for point in only if point not in design.points]
    if strange:
        raise UserError(f"--only {', '.join(strange)}: the study's points are {', '.join(map(str, design.points))}")
    return only


def _write_jobs(options: argparse.Namespace, directory: Path, design: Design, console: Console) -> int:
    scheduler = options.scheduler or allocation.submitter()
    if scheduler is None:
        raise UserError(
            "this is no allocation, and no scheduler's command is here: take --ranks to run on this machine, or "
            "--scheduler to write job scripts for another one"
        )
    study = Study.open(directory, design)
    arguments = [word for word in options.arguments if word != "--submit"]
    if options.study is None:
        arguments += ["--study", str(directory)]
    paths = jobs.write(scheduler, study, arguments, options.time_limit, options.job_option)
    for path in paths:
        console.line(f"{path}{': ' + jobs.submit(scheduler, path) if options.submit else ''}")
    if not options.submit:
        console.line(f"not submitted: the same command with --submit does, or {allocation.SUBMIT[scheduler]} by hand")
    return errors.VALID
