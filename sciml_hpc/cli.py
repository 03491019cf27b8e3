"""The command line: commands and options, no logic. What a command needs is imported when it runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import sciml_hpc
from sciml_hpc import benchmarks, errors
from sciml_hpc.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from sciml_hpc.parallel.world import World
    from sciml_hpc.plan import Request

PROGRAM = "python -m sciml_hpc"
EXIT_STATUS = """exit status:
  0  VALID: the result counts          2  the user's input is wrong: a message names what
  1  it ran, but the result is INVALID 3  a fault of the run: lost rank, I/O, a loss that is not finite"""
COMMANDS = {
    "list": "the benchmarks, their presets and data sets",
    "info": "a benchmark or data set: science, target, published figures, what --set can change",
    "prepare": "make the shards of a data set, in parallel over the ranks",
    "simulate": "write a simulated data set in the published file format, to rehearse with",
    "io": "the loader of a benchmark without its model, cold and warm, against a raw read",
    "comm": "the all-reduce of a benchmark's gradients, by the engine and by plain MPI",
    "scaling": "a strong- or weak-scaling study: runs, repeats, efficiencies, where the time went",
    "verify": "compare the shards of a data set with their checksums",
    "system": "what this node is, and what was found and built",
    "check": "judge the log of a run: MLCommons' checker and our own rules",
    "package": "lay out results as a submission, with checksums over every file",
    "accept": "judge results by the figures that a contract commits to",
    "report": "one page that says what was measured, for those who decide: verdict, curves, causes, hashes",
}


class _Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are UserErrors.

    A command's options are added when it is the one that was given: all of them take as long as Python takes to start.
    """

    options: Callable[[argparse.ArgumentParser], None] | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[argparse.Namespace, list[str]]:
        options, self.options = self.options, None
        if options is not None:
            options(self)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}\n{self.format_usage().strip()}")


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    names = benchmarks.names()
    top = _Parser(
        prog=PROGRAM,
        description="Scientific machine-learning benchmarks for supercomputers. The first word is a benchmark to run, "
        f"or a command:\n\n  benchmarks: {', '.join(names)}\n"
        + "\n".join(f"  {name:10}  {text}" for name, text in COMMANDS.items()),
        epilog=f"examples:\n  {PROGRAM} cloudmask\n  srun -N 64 {PROGRAM} cloudmask --preset full\n"
        f"  mpirun -n 2 {PROGRAM} cloudmask --set train.base_lr=0.002\n\n{EXIT_STATUS}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"sciml_hpc {sciml_hpc.__version__}")
    commands = top.add_subparsers(dest="command", metavar="BENCHMARK|COMMAND", parser_class=_Parser)

    def add(
        name: str,
        text: str,
        work: Callable[[argparse.Namespace], int],
        options: Callable[[argparse.ArgumentParser], None] | None,
    ) -> None:
        made = commands.add_parser(
            name, description=text, epilog=EXIT_STATUS, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        made.set_defaults(work=work)
        made.options = options

    for name in names:
        add(name, f"Run {name}; under srun or mpirun on all their ranks, else on one.", _run, _run_options)
    for name, work, options in (
        ("list", _list, _manifest_option),
        ("info", _info, _info_options),
        ("prepare", _prepare, _prepare_options),
        ("simulate", _simulate, _simulate_options),
        ("io", _io, _probe_options),
        ("comm", _comm, _probe_options),
        ("scaling", _scaling, _scaling_options),
        ("verify", _verify, _verify_options),
        ("system", _system, None),
        ("check", _check, _check_options),
        ("package", _package, _package_options),
        ("accept", _accept, _accept_options),
        ("report", _report, _report_options),
    ):
        add(name, COMMANDS[name], work, options)
    return top


def main(arguments: Sequence[str]) -> int:
    """Do what the command line says; the exit status. A user's mistake is one message, from the first rank."""
    from sciml_hpc.launch import is_first_process

    try:
        top = parser()
        known = [*benchmarks.names(), *COMMANDS]
        if not arguments:
            top.print_help()
            return errors.VALID
        if not arguments[0].startswith("-") and arguments[0] not in known:
            raise UserError(
                f"unknown benchmark or command {arguments[0]!r}{did_you_mean(arguments[0], known)}; benchmarks: "
                f"{', '.join(benchmarks.names())}; commands: {', '.join(COMMANDS)}"
            )
        if arguments[0] == "scaling":  # what it does not know are options of the runs
            options, options.run_options = top.parse_known_args(arguments)
            options.arguments = list(arguments)
        else:
            options = top.parse_args(arguments)
        return options.work(options)
    except UserError as error:
        if getattr(error, "speaks", is_first_process()):
            print(f"error: {error}", file=sys.stderr, flush=True)
        return errors.USER_ERROR
    except BrokenPipeError:
        return errors.VALID


def _manifest_option(made: argparse.ArgumentParser) -> None:
    made.add_argument("--manifest", type=Path, metavar="FILE", help="further data sets, in the form of datasets.yaml")


def _data_option(made: argparse.ArgumentParser) -> None:
    made.add_argument("--data", type=Path, default=Path("data"), metavar="DIR", help="where data sets are (./data)")


def _data_options(made: argparse.ArgumentParser) -> None:
    made.add_argument("--task", help="the benchmark's task, where it has several")
    made.add_argument("--preset", help="size: tiny, small, node or full (default: tiny)")
    made.add_argument("--dataset", metavar="NAME", help="data set (default: the preset's)")
    _manifest_option(made)
    _data_option(made)


def _info_options(made: argparse.ArgumentParser) -> None:
    made.add_argument("name", metavar="NAME", help="a benchmark or a data set")
    _manifest_option(made)


def _prepare_options(made: argparse.ArgumentParser) -> None:
    made.add_argument("benchmark", metavar="BENCHMARK")
    _data_options(made)


def _simulate_options(made: argparse.ArgumentParser) -> None:
    _prepare_options(made)
    made.add_argument("--output", type=Path, required=True, metavar="DIR", help="new directory for the files")


def _probe_options(made: argparse.ArgumentParser) -> None:
    made.add_argument("benchmark", metavar="BENCHMARK")
    _run_options(made)
    made.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this new file, too")


def _verify_options(made: argparse.ArgumentParser) -> None:
    made.add_argument("dataset", metavar="DATASET|PACKAGE", help="a data set's name, or the directory of a package")
    _data_option(made)
    _manifest_option(made)


def _check_options(made: argparse.ArgumentParser) -> None:
    made.add_argument("log", type=Path, metavar="RESULT_FILE")


def _package_options(made: argparse.ArgumentParser) -> None:
    made.add_argument("results", type=Path, nargs="+", metavar="RESULT_FILE", help="result_N.txt of several runs")
    made.add_argument("--output", type=Path, required=True, metavar="DIR", help="new directory for the package")
    made.add_argument("--org", default="unknown", help="the submitting organisation")


def _accept_options(made: argparse.ArgumentParser) -> None:
    made.add_argument("contract", type=Path, metavar="ACCEPTANCE.yaml", help="the contract; see jobscripts/acceptance")
    made.add_argument("results", type=Path, nargs="+", metavar="RESULTS", help="result_N.txt, or directories of them")
    made.add_argument("--junit", type=Path, metavar="FILE", help="write the checks to this new file as JUnit XML, too")
    made.add_argument("--json", type=Path, metavar="FILE", help="write the judgement to this new file, too")


def _report_options(made: argparse.ArgumentParser) -> None:
    made.add_argument("results", type=Path, nargs="+", metavar="RESULTS", help="studies, result_N.txt, directories")
    made.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="new HTML file")
    made.add_argument("--acceptance", type=Path, metavar="FILE", help="contract to judge the results by")
    made.add_argument("--figures", type=Path, metavar="DIR", help="figures (SVG, PNG) and tables (CSV) as files, too")
    made.add_argument("--project", type=_sizes, default=(), metavar="64,256", help="nodes to project a model to")


def _run_options(made: argparse.ArgumentParser) -> None:
    _data_options(made)
    made.add_argument("--model", help="the network, where the benchmark has several (train.model)")
    made.add_argument("--scratch", type=Path, metavar="DIR", help="node-local storage (default: found by environment)")
    made.add_argument("--output", type=Path, default=Path("results"), metavar="DIR", help="for results (./results)")
    made.add_argument("--system", metavar="NAME", help="name results are filed under (default: cluster and size)")
    made.add_argument("--org", default="unknown", help="the submitting organisation, for the log")
    made.add_argument("--epochs", type=int, metavar="N", help="most epochs (train.epochs)")
    made.add_argument("--seed", type=int, metavar="N", help="seed of weights, order and all random choices")
    made.add_argument("--engine", help="horovod, ddp or single (communication.engine)")
    made.add_argument("--staging", help="partition, replicate or none (staging.mode)")
    made.add_argument("--weak", action="store_true", help="weak scaling: samples and batch grow with the ranks")
    made.add_argument("--fixed-work", action="store_true", help="all epochs, whatever the target (fixed_epochs)")
    made.add_argument("--config", type=Path, metavar="FILE", help="configuration in YAML, over the preset")
    made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="over both; see info BENCHMARK")
    made.add_argument("--reference", type=Path, metavar="RESULT.json", help="run at another size, for efficiencies")
    made.add_argument("--resume", action="store_true", help="go on with the last interrupted run of this kind")


def _scaling_options(made: argparse.ArgumentParser) -> None:
    made.allow_abbrev = False
    made.usage = f"{PROGRAM} scaling strong|weak BENCHMARK [options of the study] [options of a run]"
    made.add_argument("scaling", choices=("strong", "weak"), help="fixed problem, or samples that grow with the ranks")
    made.add_argument("benchmark", metavar="BENCHMARK")
    sizes = made.add_mutually_exclusive_group(required=True)
    sizes.add_argument("--nodes", type=_sizes, metavar="1,2,4", help="nodes of each point, in an allocation or by jobs")
    sizes.add_argument("--ranks", type=_sizes, metavar="1,2", help="ranks of each point, by mpirun on this machine")
    made.add_argument("--ranks-per-node", type=int, default=1, metavar="N", help="with --nodes (1)")
    made.add_argument("--repeats", type=int, default=3, metavar="N", help="runs of each point that count (3)")
    made.add_argument("--warm-ups", type=int, default=1, metavar="N", help="runs of each point that are dropped (1)")
    made.add_argument("--seed", type=int, default=1, metavar="N", help="of the first run; each has its own (1)")
    made.add_argument("--fixed-local-batch", action="store_true", help="strong: hold a rank's batch, not the job's")
    made.add_argument(
        "--instances", type=int, default=0, metavar="M", help="weak: M trainings at once, MLPerf's metric"
    )
    made.add_argument("--gates", type=int, metavar="N", help="runs to convergence of each point, with --fixed-work (1)")
    made.add_argument("--no-probes", action="store_true", help="leave out io and comm at each point")
    made.add_argument("--project", type=_sizes, default=(), metavar="64,256", help="nodes to project a model to")
    made.add_argument("--study", type=Path, metavar="DIR", help="directory (./studies/BENCHMARK-strong|weak)")
    made.add_argument("--only", type=_sizes, metavar="4", help="run these points of the study alone")
    made.add_argument("--scheduler", choices=("slurm", "pbs", "lsf", "flux"), help="whose job scripts to write")
    made.add_argument("--submit", action="store_true", help="submit the job scripts, too")
    made.add_argument("--time-limit", default="01:00:00", metavar="HH:MM:SS", help="of each job (01:00:00)")
    made.add_argument("--job-option", action="append", default=[], metavar="OPTION", help="more for the scheduler")


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be whole numbers with commas between them, found {text!r}") from None


def _request(options: argparse.Namespace) -> Request:
    from sciml_hpc.plan import Request

    given = vars(options)
    return Request(
        benchmark=given.get("benchmark") or options.command,
        task=options.task,
        preset=options.preset,
        dataset=options.dataset,
        manifest=options.manifest,
        data=options.data,
        scratch=given.get("scratch"),
        output=given.get("output") or Path("results"),
        system=given.get("system"),
        org=given.get("org", "unknown"),
        config=given.get("config"),
        assignments=given.get("set", []),
        options={
            "train.model": given.get("model"),
            "train.epochs": given.get("epochs"),
            "seed": given.get("seed"),
            "communication.engine": given.get("engine"),
            "staging.mode": given.get("staging"),
            "scaling": "weak" if given.get("weak") else None,
            "fixed_epochs": given.get("fixed_work") or None,
        },
        resume=given.get("resume", False),
        reference=given.get("reference"),
    )


def _with_world(work: Callable[[World], int]) -> int:
    """Join the other ranks and do `work`; a fault on one rank alone ends all of them."""
    from sciml_hpc.launch import with_world

    return with_world(work)


def _list(options: argparse.Namespace) -> int:
    from sciml_hpc import show

    return show.print_list(options.manifest)


def _info(options: argparse.Namespace) -> int:
    from sciml_hpc import show

    return show.print_info(options.name, options.manifest)


def _system(options: argparse.Namespace) -> int:
    from sciml_hpc import show

    return show.print_system()


def _run(options: argparse.Namespace) -> int:
    from sciml_hpc.console import Console

    def work(world: World) -> int:
        from sciml_hpc.run import run

        return run(_request(options), world, Console(world.is_root))

    return _with_world(work)


def _prepare(options: argparse.Namespace) -> int:
    from sciml_hpc.console import Console

    def work(world: World) -> int:
        from sciml_hpc import preparation
        from sciml_hpc.plan import settle

        plan = world.once(lambda: settle(_request(options), 1))
        preparation.make(plan, options.data, world, Console(world.is_root))
        return errors.VALID

    return _with_world(work)


def _simulate(options: argparse.Namespace) -> int:
    from sciml_hpc.console import Console

    def work(world: World) -> int:
        from sciml_hpc import preparation
        from sciml_hpc.plan import settle

        plan = world.once(lambda: settle(_request(options), 1))
        preparation.simulate(plan, options.output, world, Console(world.is_root))
        return errors.VALID

    return _with_world(work)


def _scaling(options: argparse.Namespace) -> int:
    from sciml_hpc.studies.command import scaling

    runs = _Parser(prog=f"{PROGRAM} scaling …", add_help=False, allow_abbrev=False)
    _run_options(runs)
    return scaling(
        options, _request(runs.parse_args(options.run_options, argparse.Namespace(command=options.benchmark)))
    )


def _io(options: argparse.Namespace) -> int:
    return _probe(options, "probe_io")


def _comm(options: argparse.Namespace) -> int:
    return _probe(options, "probe_comm")


def _probe(options: argparse.Namespace, name: str) -> int:
    from sciml_hpc.console import Console

    def work(world: World) -> int:
        from sciml_hpc import probes
        from sciml_hpc.results.record import write_new

        figures = getattr(probes, name)(_request(options), world, Console(world.is_root))
        world.once(lambda: write_new(options.json, figures) if options.json else None)
        return errors.VALID

    return _with_world(work)


def _verify(options: argparse.Namespace) -> int:
    from sciml_hpc.console import Console

    if (Path(options.dataset) / "SHA256SUMS").exists():
        from sciml_hpc.results.package import verify

        found = verify(Path(options.dataset))
        print("\n".join(found.lines()))
        return errors.VALID if found.ok else errors.INVALID

    def work(world: World) -> int:
        from sciml_hpc import preparation

        return preparation.verify(options.dataset, options.manifest, options.data, world, Console(world.is_root))

    return _with_world(work)


def _check(options: argparse.Namespace) -> int:
    from sciml_hpc.results.check import check

    report = check(options.log)
    print("\n".join(report.lines()))
    return errors.VALID if report.ok else errors.INVALID


def _package(options: argparse.Namespace) -> int:
    from sciml_hpc.results.package import package

    print("\n".join(package(options.results, options.output, options.org).lines()))
    return errors.VALID


def _accept(options: argparse.Namespace) -> int:
    from sciml_hpc.studies.acceptance import accept

    judgement = accept(options.contract, options.results, options.junit, options.json)
    print("\n".join(judgement.lines()))
    return errors.VALID if judgement.accepted else errors.INVALID


def _report(options: argparse.Namespace) -> int:
    from sciml_hpc.studies.report.command import report

    print("\n".join(report(options.results, options.output, options.acceptance, options.figures, options.project)))
    return errors.VALID
