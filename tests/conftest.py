"""Fixtures for all tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cluster.slurm_cluster import SlurmCluster, unavailable


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-cluster",
        action="store_true",
        help="fail, rather than skip, where no Slurm cluster can be brought up",
    )


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[SlurmCluster]:
    """A Slurm cluster of four nodes, brought up once for all tests that use it."""
    if reason := unavailable():
        if request.config.getoption("--require-cluster"):
            pytest.fail(f"no Slurm cluster: {reason}", pytrace=False)
        pytest.skip(f"no Slurm cluster: {reason}")
    cluster = SlurmCluster(nodes=4)
    yield cluster
    cluster.down()
