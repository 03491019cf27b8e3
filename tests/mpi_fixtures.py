"""Fixtures under MPI; a test module that wants them says pytest_plugins = ["mpi_fixtures"]."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from worlds import CPU

from sciml_hpc.config import Communication
from sciml_hpc.parallel.horovod import HorovodEngine
from sciml_hpc.parallel.world import World, join


@pytest.fixture(scope="session")
def world() -> World:
    """All ranks of the job."""
    return join()


@pytest.fixture(scope="session")
def horovod(world: World) -> Iterator[HorovodEngine]:
    """Horovod over all ranks, as a run has it by default."""
    pytest.importorskip("horovod.torch")
    engine = HorovodEngine(Communication(), world, CPU)
    yield engine
    engine.close()
