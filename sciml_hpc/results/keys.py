"""The vocabulary of our logs: every key, how often it may occur and in which part of a run.

Names are MLCommons' (mlperf-logging, MLPerf HPC and Science policy 0.5); those without a counterpart there (`dataset`,
`target`, `recipe`, `interrupted`, `resumed`, `restored`, `fault`) are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

POINT, START, STOP = "POINT_IN_TIME", "INTERVAL_START", "INTERVAL_END"

RULESETS = ("1.0.0", "2.0.0", "3.0.0")
"""MLPerf HPC rulesets that one log must pass."""

METRICS = ("eval_accuracy", "eval_error", "f1_score")
"""Keys under which a target is judged."""


@dataclass(frozen=True)
class Key:
    """What a log may do with a key."""

    event: str = POINT
    once: bool = True
    part: Literal["setup", "run", "after", "any"] = "setup"
    """Where it may stand: before `run_start`, within the run, within or after it, anywhere."""


_PAIRS = {
    f"{name}_{end}": Key(event, once=False, part="run")
    for name in ("staging", "epoch", "eval")
    for end, event in (("start", START), ("stop", STOP))
}
_ONCE = (
    *(f"submission_{n}" for n in ("benchmark", "org", "platform", "division", "status", "version")),
    "submission_github_commit_version",
    *("number_of_nodes", "number_of_ranks", "accelerators_per_node"),
    *("seed", "global_batch_size", "train_samples", "eval_samples", "dataset", "target", "recipe"),
)

KEYS: dict[str, Key] = {
    "cache_clear": Key(once=False),
    "init_start": Key(START),
    "init_stop": Key(STOP),
    "run_start": Key(START, part="any"),
    "run_stop": Key(STOP, part="any"),
    **_PAIRS,
    **{name: Key() for name in _ONCE},
    **{name: Key(once=False, part="run") for name in METRICS},
    "tracked_stats": Key(once=False, part="after"),
    "result": Key(once=False, part="after"),
    "resumed": Key(once=False, part="run"),
    "restored": Key(once=False, part="run"),
    "interrupted": Key(once=False, part="any"),
    "fault": Key(once=False, part="any"),
}

RECIPE = {
    "optimizer": "opt_name",
    "base_lr": "opt_base_learning_rate",
    "min_lr": "opt_end_learning_rate",
    "warmup_epochs": "opt_learning_rate_warmup_epochs",
    "schedule": "opt_learning_rate_decay_schedule",
    "weight_decay": "opt_weight_decay",
}
"""Log keys of the fields of a Recipe; the whole recipe is written under `recipe`."""


def key(name: str) -> Key | None:
    """The rules of a key; None for one that our logs never hold. All `opt_` keys are hyper-parameters, each once."""
    return Key() if name.startswith("opt_") else KEYS.get(name)
