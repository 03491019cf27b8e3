"""Stands in for mpirun in tests of the study runner: leaves what a run would leave, as `plan.json` beside it tells.

The plan maps "SEED@RANKS" (or "io@RANKS", "comm@RANKS") to what the attempts do, in order: "valid", "invalid", "fault",
"hang" (until it is ended), "slow" (2 s), "user error". Without an entry an attempt is valid. It appends what it was
called with to `calls`.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from pathlib import Path

here = Path(__file__).parent
words = sys.argv[1:]
ranks = int(words[words.index("-n") + 1])
option = dict(itertools.pairwise(words))
kind = next((k for k in ("io", "comm") if k in words), "")
name = f"{kind or option['--seed']}@{ranks}"
calls = here / "calls"
before = calls.read_text().splitlines() if calls.exists() else []
with calls.open("a") as file:
    file.write(name + "\n")
plan = json.loads((here / "plan.json").read_text())
does = [*plan.get(name, []), *["valid"] * 9][before.count(name)]

if does == "user error":
    print("error: train.width: found 0; must be greater than 0")
    sys.exit(2)
if kind:
    Path(option["--json"]).write_text("{}")
    sys.exit(0)
folder = Path(option["--output"]) / f"here_n1x{ranks}" / ("weak" if "--weak" in words else "strong") / words[5]
folder.mkdir(parents=True, exist_ok=True)
log = folder / f"result_{len(list(folder.glob('*.config.json')))}.txt"
log.with_suffix(".config.json").write_text(json.dumps({"config": {"seed": int(option["--seed"])}}))
log.touch()
if does == "hang":
    (here / "hangs").touch()
    time.sleep(100)
if does == "slow":
    (here / "hangs").touch()
    time.sleep(2)
if does == "fault":
    log.with_suffix(".json").write_text(json.dumps({"verdict": "INVALID", "status": "fault"}))
    print("fault: rank 1 on here was lost")
    sys.exit(3)
verdict = "INVALID" if does == "invalid" else "VALID"
log.with_suffix(".json").write_text(json.dumps({"verdict": verdict, "status": "success"}))
print(f"{verdict}\nFOM: samples_per_s = 1")
sys.exit(does == "invalid")
