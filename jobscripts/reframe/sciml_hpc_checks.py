"""ReFrame tests: a run must be VALID (sanity); its figures are judged apart from that (performance).

    reframe -C SETTINGS.py -c jobscripts/reframe/sciml_hpc_checks.py -r --performance-report
    reframe … -P nodes=1,2,4,8 -S num_tasks_per_node=4 -S num_gpus_per_node=4     # scaling
    reframe … --distribute=all --repeat=5 -S options=--epochs=2,--fixed-work      # every node by itself, five times

What may be set with -S: benchmark, preset, data, options (of the command line, separated by commas), and ReFrame's own.
`python -m sciml_hpc` needs its environment: the one ReFrame is started in, or that of SETTINGS.py. What a figure has to
be is the centre's to say, in the `reference` of a subclass; without one it is reported and not judged.
"""
# ruff: noqa: RUF012 (what ReFrame takes from a class are variables, not mutable defaults)

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import reframe as rfm
import reframe.utility.sanity as sn
import reframe.utility.typecheck as typ
from reframe.core.builtins import parameter, run_after, run_before, sanity_function, variable

FIGURES = {
    "samples_per_s": ("throughput", "samples_per_s", "1/s"),
    "time_to_convergence_s": ("time", "time_to_convergence_s", "s"),
    "steady_epoch_s": ("time", "steady_epoch_s", "s"),
    "staging_s": ("time", "staging_s", "s"),
    "au": ("io", "au", "1"),
}
"""Names of performance variables: section and key of the result file, and unit."""


@rfm.simple_test
class sciml_hpc_check(rfm.RunOnlyRegressionTest):
    descr = "Scientific machine-learning benchmark to its verdict"
    valid_systems = ["*"]
    valid_prog_environs = ["*"]
    benchmark = variable(str, value="cloudmask")
    preset = variable(str, value="node")
    data = variable(str, value="data")
    """Where the data sets are; relative to where ReFrame is started."""
    options = variable(typ.List[str], value=[])
    nodes = parameter([1], type=int, loggable=True)
    num_tasks_per_node = 1
    time_limit = "1h"
    sourcesdir = None
    executable = "python"
    keep_files = ["results"]

    @run_after("init")
    def shape(self) -> None:
        self.num_tasks = self.nodes * self.num_tasks_per_node
        data = Path(self.data).absolute()
        self.executable_opts = ["-m", "sciml_hpc", self.benchmark, "--preset", self.preset]
        self.executable_opts += ["--data", str(data), "--output", "results", *self.options]

    @run_before("sanity")
    def read(self) -> None:
        found = [*Path(self.stagedir, "results").rglob("result_0.json")]
        self.result: dict[str, Any] = json.loads(found[0].read_text()) if found else {}

    @sanity_function
    def valid(self) -> bool:
        sn.evaluate(sn.assert_true(self.result, "there is no result file: the run did not come to a verdict"))
        return sn.assert_eq(self.result["verdict"], "VALID", "; ".join(self.result["reasons"]) or None)

    @run_before("performance")
    def figures(self) -> None:
        for name, (section, key, unit) in FIGURES.items():
            value = self.result[section][key]
            if value is not None:  # for what this run does not have, such as a time to convergence of fixed work
                self.perf_variables[name] = sn.make_performance_function(sn.defer(value), unit)
