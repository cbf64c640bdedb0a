"""A PostgreSQL server for tests."""

from collections.abc import Iterator

import pytest

from loadtests.harness.postgres import IN_URL, OLDEST, PASSWORD, Postgres, programs, temporary

__all__ = ["IN_URL", "PASSWORD", "Postgres", "postgres", "programs"]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    if (folder := programs()) is None:
        pytest.skip(f"no PostgreSQL {OLDEST} or newer is installed: apt-get install postgresql")
    with temporary(folder) as server:
        yield server
