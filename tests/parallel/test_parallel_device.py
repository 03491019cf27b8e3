"""Where a rank computes, and on how many cores."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from worlds import alone

from sciml_hpc.parallel import device as devices

pytest_plugins = ["mpi_fixtures"]


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_threads_are_those_asked_for(no_gpu, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    device = devices.choose(alone())
    assert (device.threads, device.threads_from, torch.get_num_threads()) == (3, "OMP_NUM_THREADS", 3)
    assert (device.torch, device.name, device.accelerators_per_node) == (torch.device("cpu"), "CPU", 0)


@pytest.mark.parametrize("asked", ["", "0", "many"])
def test_else_the_cores_of_the_process(no_gpu, monkeypatch, asked: str):
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 5, 6})
    device = devices.choose(alone())
    assert (device.threads, device.threads_from) == (5, "5 cores, shared by 1 ranks")


PROGRAM = """
import resource, sys
import torch
from worlds import alone
from sciml_hpc.parallel import device as devices
print(devices.choose(alone()).allocator)
for step in range(15):
    if step == 5:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(16 << 20).sum()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.parametrize("said", [False, True])
def test_memory_that_a_step_frees_is_there_for_the_next(said: bool):
    """Ten times 64 MiB: hardly a page is new, where by a map each time 163,840 are."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_") and k != "GLIBC_TUNABLES"}
    environment |= {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    if said:
        environment["MALLOC_MMAP_THRESHOLD_"] = "1000000"
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    how, faults = done.stdout.splitlines()
    if said:
        assert how == "as the environment has it: MALLOC_MMAP_THRESHOLD_"
        assert int(faults) > 150_000
    else:
        assert how.startswith("the C library was told to keep it")
        assert int(faults) < 40_000


@pytest.mark.mpi(min_size=2)
def test_ranks_share_cores_they_may_all_use_but_not_cores_of_their_own(no_gpu, monkeypatch, world):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))
    assert devices.choose(world).threads == 16 // world.size
    mine = {2 * world.rank, 2 * world.rank + 1}
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: mine)
    assert devices.choose(world).threads == 2
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    assert devices.choose(world).threads == 1


class Cards:
    """torch.cuda with so many GPUs in sight."""

    def __init__(self, uuids: list[str]) -> None:
        self.uuids = uuids
        self.current = -1

    def is_available(self) -> bool:
        return True

    def device_count(self) -> int:
        return len(self.uuids)

    def set_device(self, number: int) -> None:
        self.current = number

    def get_device_properties(self, number: int) -> object:
        return type("Properties", (), {"uuid": self.uuids[number]})

    def get_device_name(self, number: int) -> str:
        return "Card"


@pytest.mark.mpi
def test_each_rank_takes_its_own_gpu_as_far_as_they_go(monkeypatch, world):
    cards = Cards(["a", "b"])
    monkeypatch.setattr(torch, "cuda", cards)
    device = devices.choose(world)
    used = min(2, world.size)
    assert device.torch == torch.device("cuda", world.local_rank % 2)
    assert cards.current == world.local_rank % 2
    assert (device.accelerators_per_node, device.ranks_per_accelerator) == (used, world.size / used)
    # A launcher that shows each rank one GPU of its own.
    monkeypatch.setattr(torch, "cuda", Cards([f"gpu{world.rank}"]))
    device = devices.choose(world)
    assert device.torch == torch.device("cuda", 0)
    assert (device.accelerators_per_node, device.ranks_per_accelerator) == (world.size, 1.0)
