"""Staging on one node against `cp` of the same files to the same place."""

from __future__ import annotations

import hashlib
import shutil
import statistics
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.loader import LARGE, shards
from bench.rows import Row, alternate, faster

from sciml_hpc.data import staging
from sciml_hpc.parallel.world import World


def one_node(world: World, rounds: int) -> list[Row]:
    """All write and let the kernel write back; `cp` alone does not check what it wrote, `sha256sum` after it does.

    What a verified copy cannot pass is the checksum itself: SHA-256 of data in memory, on as many threads.
    """
    with tempfile.TemporaryDirectory() as place:
        data, there = Path(place, "data"), Path(place, "there")
        data.mkdir()
        index = shards(data, LARGE, 192, 64 << 20)
        files = [str(data / s.file) for s in index.shards]

        def ours() -> None:
            staging.stage(index, data, world, "partition", Path(place), keep=False).remove()

        def cp() -> None:
            there.mkdir()
            subprocess.run(["cp", *files, str(there)], check=True)
            shutil.rmtree(there)

        def cp_checked() -> None:
            there.mkdir()
            subprocess.run(["cp", *files, str(there)], check=True)
            subprocess.run(["sha256sum", *(str(there / s.file) for s in index.shards)], check=True, capture_output=True)
            shutil.rmtree(there)

        held = [Path(file).read_bytes() for file in files]

        def sha256() -> None:
            with ThreadPoolExecutor(staging.COPY_THREADS) as pool:
                list(pool.map(hashlib.sha256, held))

        seconds = alternate(rounds, ours=ours, cp=cp, cp_checked=cp_checked, sha256=sha256)
        rate = index.bytes / statistics.median(seconds["ours"])
        return [
            Row("staging, one node, verified", "cp and sha256sum", faster(seconds["ours"], seconds["cp_checked"]),
                ("≥", 1.0), figures={"staging_bytes_per_s": rate}),
            Row("staging, one node, verified", "cp, nothing verified", faster(seconds["ours"], seconds["cp"]),
                ("≥", 0.8)),
            Row("staging, one node, verified", "SHA-256 alone, as many threads",
                faster(seconds["ours"], seconds["sha256"]), None),
        ]  # fmt: skip
