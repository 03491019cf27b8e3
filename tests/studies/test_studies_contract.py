"""Contracts: the examples, and one message for each mistake in one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from studies.acceptance_runs import GOAL, contract, terms

from sciml_hpc import errors
from sciml_hpc.cli import main
from sciml_hpc.errors import UserError
from sciml_hpc.studies.contract import load

EXAMPLES = sorted((Path(__file__).parents[2] / "jobscripts/acceptance").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_load_and_judge_nothing_before_they_are_filled_in(path, accept, tmp_path, capsys):
    assert load(path).contract.template
    assert main(["accept", str(path), str(tmp_path)]) == errors.USER_ERROR
    assert "template: this file's figures are placeholders" in capsys.readouterr().err


def test_there_are_three_examples():
    assert len(EXAMPLES) == 3


def with_check(repeats: int = 3, **check: Any) -> dict[str, Any]:
    return contract(work=terms(repeats=repeats, checks=[{"metric": "samples_per_s", "stat": "min", **check}]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("cases: [", "not YAML: while parsing"),
        ("name: a\nname: b\n", "not YAML: 'name' is there twice"),
        ("[]", "must be a mapping with name, template,"),
        ({"name": "x"}, "field 'cases' is missing"),
        (contract() | {"clauses": 1}, "unknown field 'clauses'"),
        (contract(work=terms(node=4)), "unknown field 'cases.work.node' (did you mean 'nodes'?); allowed: benchmark"),
        (with_check(gee=1), "unknown field 'cases.work.checks.0.gee' (did you mean 'ge'?); allowed: metric, stat, ge"),
        (with_check(ge="fast"), "cases.work.checks.0.ge: found 'fast'; input should be a valid number"),
        (with_check(ge=float("nan")), "cases.work.checks.0.ge: found nan"),
        (with_check(stat="best", ge=1), "cases.work.checks.0.stat: found 'best'; input should be 'min', 'median'"),
        (with_check(), "cases.work.checks.0: needs ge, le or reference"),
        (with_check(ge=2, le=1), "cases.work.checks.0: ge: found 2.0, above le, 1.0: no value would do"),
        (with_check(reference=[1, 0.1, 0.2, "s"]), "must be from −1 to 0, and from 0 up"),
        (with_check(reference=[0, -0.1, 0.2, "s"]), "reference: found 0; tolerances are fractions of it"),
        (with_check(reference=[1, None, None, "s"]), "both tolerances are null: nothing is asked"),
        (with_check(reference=[1, 0, 0, "s"], ge=1), "reference: stands alone"),
        (with_check(ge=1, against="work"), "against: goes with throughput_efficiency"),
        (with_check(metric="time_efficiency", ge=1), "against: goes with throughput_efficiency"),
        (with_check(metric="node_samples_per_s", stat="cv", le=1), "records have min, median, max and range_over_mean"),
        (contract(work=terms(checks=[])), "cases.work.checks: found []; tuple should have at least 1 item"),
        (with_check(metric="run_s", stat="olympic_mean", le=1, repeats=2), "olympic_mean needs at least 3 repeats"),
        (contract(work=terms(benchmark="clodmask")), "unknown benchmark 'clodmask' (did you mean 'cloudmask'?)"),
        (contract(work=terms(benchmark="stemdl")), "cases.work.task: found ''; stemdl needs one, as '"),
        (contract(work=terms(tier="fast")), "cases.work.tier: found 'fast'; input should be 'baseline', 'ported' or"),
        (contract(work=terms(ranks=16)), "cases.work.ranks: needs either ranks or ranks_per_node"),
        (contract(work=terms(ranks=6, ranks_per_node=None)), "ranks: found 6; must be a multiple of the 4 nodes"),
        (contract(work=terms(global_batch=100)), "global_batch: found 100; must be shared evenly by the 16 ranks"),
        (contract(work=terms(target=GOAL)), "cases.work.epochs: needs either epochs (fixed work) or target"),
        (contract(work=terms(seeds=[1, 2])), "cases.work.seeds: found 2; must be one for each of the 4 runs"),
        (contract(work=terms(seeds=[1, 2, 3, 3])), "cases.work.seeds: one is there twice"),
        (contract(work=terms(configuration={})), "cases.work.configuration: needs either sha256 or preset"),
        (
            contract(work=terms(configuration={"preset": "small", "set": {"train.base_rl": 1}})),
            "cases.work.configuration: --set train.base_rl=1: unknown key 'train.base_rl' (did you mean",
        ),
        (
            contract(work=terms(configuration={"preset": "small", "set": {"train.epochs": 9}})),
            "configuration.set: train.epochs is not set here: it follows from epochs",
        ),
        (
            contract(work=terms(configuration={"preset": "small", "may_differ": ["train.presicion"]})),
            "configuration.may_differ: unknown key 'train.presicion' (did you mean 'train.precision'?)",
        ),
        *(
            (
                contract(work=terms(configuration={"preset": "small", "may_differ": [name]})),
                f"configuration.may_differ: {name} cannot be left open",
            )
            for name in ("measure.enabled", "measure", "train", "loader", "dataset", "train.global_batch")
        ),
        (contract(work=terms(dataset={"name": "small", "index_sha256": "ab"})), "dataset.index_sha256: found 'ab'"),
        (contract() | {"code": {}}, "code: needs commit or source_sha256"),
        (contract() | {"code": None}, "cases.work.code: needs a commit or source_sha256, here or for"),
        (contract(work=terms(), again=terms()), "cases.again: asks for the same runs as cases.work"),
        (contract(work=terms(gated_by="gates")), "cases.work.gated_by: found 'gates'; must be another case: "),
        (
            contract(work=terms(gated_by="other"), other=terms(nodes=8, global_batch=128)),
            "cases.work.gated_by: other does fixed work; a gate is a case with a target",
        ),
        (
            contract(work=terms(gated_by="gate"), gate=terms(epochs=None, target=GOAL, global_batch=128)),
            "cases.work.gated_by: gate has another global_batch: 128, not 64",
        ),
        (contract(**{"a b": terms()}), "cases: a name must be letters, digits, '.', '-' and '_'; found 'a b'"),
    ],
)  # fmt: skip
def test_a_malformed_contract_is_one_message(tmp_path, content, message):
    path = tmp_path / "acceptance.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(UserError) as refused:
        load(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert message in str(refused.value)


def test_cases_that_lean_on_each_other_in_a_circle(tmp_path):
    def leaning(nodes: int, on: str) -> dict[str, Any]:
        check = {"metric": "throughput_efficiency", "stat": "min", "ge": 0.8, "against": on}
        return terms(nodes=nodes, checks=[check])

    path = tmp_path / "acceptance.yaml"
    path.write_text(yaml.safe_dump(contract(a=leaning(1, "b"), b=leaning(2, "a"))))
    with pytest.raises(UserError, match=r"cases\.a: leans on itself: a → b → a"):
        load(path)


def test_a_contract_that_is_not_there(accept, tmp_path, capsys):
    assert main(["accept", str(tmp_path / "no.yaml"), str(tmp_path)]) == errors.USER_ERROR
    assert capsys.readouterr().err == f"error: {tmp_path}/no.yaml: cannot be read: No such file or directory\n"
