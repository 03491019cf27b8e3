"""RunLog: exclusive, flushed, in order of time, resumable, and loud when a line cannot be written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import sciml_hpc
from sciml_hpc.errors import UserError
from sciml_hpc.results import mllog
from sciml_hpc.results.logfile import read
from sciml_hpc.results.mllog import RunLog


def events(path: Path):
    lines, findings = read(path)
    assert findings == []
    return lines


def test_a_line_is_in_the_file_as_soon_as_it_is_written(tmp_path, capsys):
    log = RunLog(tmp_path / "log")
    time_ms = log.run_start()
    (line,) = events(tmp_path / "log")
    assert (line.key, line.event, line.time_ms, line.value) == ("run_start", "INTERVAL_START", time_ms, None)
    assert abs(time_ms - time.time() * 1000) < 5000
    assert capsys.readouterr() == ("", "")


def test_lines_name_the_caller_by_a_path_within_the_package(tmp_path):
    code = 'log.epoch_start(1)\nlog.target("accuracy", "max", 0.9, "somebody", False)\n'
    caller = Path(sciml_hpc.__file__).parent / "training" / "loop.py"
    exec(compile(code, str(caller), "exec"), {"log": RunLog(tmp_path / "log")})
    places = [(line.metadata["file"], line.metadata["lineno"]) for line in events(tmp_path / "log")]
    assert places == [("sciml_hpc/training/loop.py", 1), ("sciml_hpc/training/loop.py", 2)]


def test_a_log_is_never_overwritten(tmp_path):
    path = tmp_path / "log"
    path.write_text("of another run\n")
    with pytest.raises(UserError, match="exists"):
        RunLog(path)
    assert path.read_text() == "of another run\n"


def test_counts_are_integers(tmp_path):
    log = RunLog(tmp_path / "log")
    sizes = {"seed": 1, "train_samples": 8, "eval_samples": 2, "nodes": 1, "ranks": 1, "accelerators_per_node": 0}
    log.configuration(**sizes | {"train_samples": np.int64(8)}, global_batch=4, recipe={"base_lr": 0.1, "depth": 3})
    values = {line.key: line.value for line in events(tmp_path / "log")}
    assert values["train_samples"] == 8
    assert type(values["train_samples"]) is int
    assert (values["global_batch_size"], values["opt_base_learning_rate"]) == (4, 0.1)
    assert values["recipe"] == {"base_lr": 0.1, "depth": 3}
    with pytest.raises(TypeError):
        log.configuration(**sizes | {"nodes": "1"}, global_batch=4, recipe={})
    with pytest.raises(TypeError):
        log.epoch_start(1.0)


@pytest.mark.parametrize(
    ("benchmark", "metric", "direction", "key"),
    [
        ("cloudmask", "accuracy", "max", "eval_accuracy"),
        ("stemdl", "macro_f1", "max", "f1_score"),
        ("stemdl", "top1_accuracy", "max", "eval_accuracy"),
        ("stemdl", "pixel_error", "min", "eval_error"),
        ("uno", "loss", "min", "eval_error"),
        ("earthquake", "nnse", "max", "eval_accuracy"),
        ("a_new_one", "psnr_db", "max", "eval_accuracy"),
        ("a_new_one", "mae_meV", "min", "eval_error"),
        ("a_new_one", "f1_score", "max", "f1_score"),
        ("stemdl", "f1_score", "max", "f1_score"),
        ("stemdl", "eval_accuracy", "max", "eval_accuracy"),
    ],
)
def test_the_judged_metric_gets_the_publishers_key(tmp_path, benchmark, metric, direction, key):
    log = RunLog(tmp_path / "log")
    log.submission(benchmark=benchmark, org="o", platform="p", version="v", commit=None)
    log.target(metric, direction, 0.5, "somebody", False)
    log.metrics({"other": 3.0, metric: 0.6}, 1)
    *_, judged, rest = events(tmp_path / "log")
    assert (judged.key, judged.value, judged.metadata["metric"]) == (key, 0.6, metric)
    assert (rest.key, rest.value, rest.metadata["epoch_num"]) == ("tracked_stats", {"other": 3.0}, 1)


def test_stemdl_logs_accuracy_beside_f1(tmp_path):
    log = RunLog(tmp_path / "log")
    log.submission(benchmark="stemdl", org="o", platform="p", version="v", commit=None)
    log.target("macro_f1", "max", 0.9, "somebody", True)
    log.metrics({"top1_accuracy": 0.95, "macro_f1": 0.92}, 1)
    assert [(line.key, line.value) for line in events(tmp_path / "log")[-2:]] == [
        ("f1_score", 0.92),
        ("eval_accuracy", 0.95),
    ]


def test_an_evaluation_without_the_targets_metric_is_an_error(tmp_path):
    log = RunLog(tmp_path / "log")
    log.target("accuracy", "max", 0.9, "somebody", False)
    with pytest.raises(ValueError, match=r"'accuracy' is not among .*'loss'"):
        log.metrics({"loss": 1.0}, 1)


def test_a_step_of_the_wall_clock_changes_no_duration(tmp_path, clock):
    log = RunLog(tmp_path / "log")
    start = log.run_start()
    wall = clock.time_ns
    clock.time_ns = lambda: wall() - 3_600_000_000_000
    clock.pass_s(10)
    assert log.run_stop("success") - start == 10_001


def test_the_first_end_stands(tmp_path):
    log = RunLog(tmp_path / "log")
    log.run_start()
    log.fault("rank 3 on n2 was lost", rank=3, host="n2")
    ended = log.run_stop("aborted")
    assert log.run_stop("success") == ended
    *_, fault, stop = events(tmp_path / "log")
    assert (fault.value, fault.metadata["rank"]) == ("rank 3 on n2 was lost", 3)
    assert (stop.key, stop.metadata["status"]) == ("run_stop", "aborted")


def test_many_threads_write_whole_lines_in_order_of_time(tmp_path):
    log = RunLog(tmp_path / "log")
    threads = [
        threading.Thread(target=lambda: [log.tracked_stats({"throughput": n}, n) for n in range(200)]) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = events(tmp_path / "log")
    assert len(lines) == 1600
    assert [line.time_ms for line in lines] == sorted(line.time_ms for line in lines)


def test_a_thread_does_not_hang_behind_anothers_write(tmp_path, monkeypatch):
    monkeypatch.setattr(mllog, "LOCK_TIMEOUT_S", 0.05)
    log = RunLog(tmp_path / "log")
    log._lock.acquire()
    with pytest.raises(TimeoutError, match="has not returned"):
        log.run_stop("aborted")


def test_a_full_file_system_is_an_error(tmp_path):
    log = RunLog(tmp_path / "log")
    with open("/dev/full", "wb", buffering=0) as full, open("/dev/null", "wb") as void:
        os.dup2(full.fileno(), log._handler.stream.fileno())
        with pytest.raises(OSError, match="No space left"):
            log.run_start()
        os.dup2(void.fileno(), log._handler.stream.fileno())


def test_what_is_not_json_is_an_error_and_leaves_no_line(tmp_path):
    log = RunLog(tmp_path / "log")
    with pytest.raises(TypeError):
        log.result({"accuracy": object()})
    assert (tmp_path / "log").read_bytes() == b""


def started(path: Path) -> RunLog:
    log = RunLog(path)
    log.submission(benchmark="stemdl", org="o", platform="p", version="v", commit=None)
    log.target("macro_f1", "max", 0.9, "somebody", True)
    log.run_start()
    return log


def test_a_resumed_log_goes_on_where_the_first_part_was_cut(tmp_path):
    path = tmp_path / "log"
    started(path).interrupted(2, 17, "SIGTERM")
    with open(path, "a") as file:
        file.write(':::MLLOG {"namespace": "", "time')
    log = RunLog(path, resume=True)
    log.resumed(2, 17)
    log.metrics({"macro_f1": 0.91}, 2)  # the target's key is known from the first part
    *_, interrupted, resumed, restored, metric = events(path)
    assert (interrupted.metadata["epoch_num"], interrupted.metadata["step"]) == (2, 17)
    assert (resumed.key, resumed.metadata["cut_bytes"]) == ("resumed", 32)
    assert (restored.key, restored.metadata["epoch_num"], restored.metadata["step"]) == ("restored", 2, 17)
    assert metric.key == "f1_score"


def test_a_resumed_log_does_not_go_back_behind_the_first_part(tmp_path, monkeypatch):
    path = tmp_path / "log"
    last = started(path).interrupted(1, 1, "time limit")

    class Behind:
        monotonic_ns = staticmethod(time.monotonic_ns)
        time_ns = staticmethod(lambda: time.time_ns() - 60_000_000_000)

    monkeypatch.setattr(mllog, "time", Behind)
    log = RunLog(path, resume=True)
    assert log.resumed(1, 1) >= last
    assert events(path)[-2].metadata["clock_behind_ms"] == pytest.approx(60_000, abs=1000)


def test_what_cannot_be_resumed_is_the_users_mistake(tmp_path):
    with pytest.raises(UserError, match="no log to resume"):
        RunLog(tmp_path / "nothing", resume=True)
    ended = started(tmp_path / "ended")
    ended.run_stop("success")
    with pytest.raises(UserError, match="has ended"):
        RunLog(tmp_path / "ended", resume=True)
    RunLog(tmp_path / "early").init_start()
    with pytest.raises(UserError, match="never started"):
        RunLog(tmp_path / "early", resume=True)
    (tmp_path / "foreign").write_text("something else\n")
    with pytest.raises(UserError, match="is not an event"):
        RunLog(tmp_path / "foreign", resume=True)


def test_importing_the_modules_imports_nothing_heavy():
    code = (
        "import sys, json; import sciml_hpc.results.mllog, sciml_hpc.results.check; "
        "print(json.dumps([m for m in ('torch', 'pandas', 'numpy', 'mlperf_logging', 'scipy') if m in sys.modules]))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(out.stdout) == []
