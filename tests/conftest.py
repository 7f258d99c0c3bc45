"""Shared fixtures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

from tests.postgres import postgres_server, url_of

settings.register_profile("no deadline", deadline=None)  # a machine that others use has slow moments
settings.load_profile("no deadline")

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
    """The database of a real PostgreSQL server."""
    with postgres_server() as server:
        yield url_of(server)


@dataclass(frozen=True)
class Guarded:
    """Databases ``guarded`` and ``records`` that ask for a password.

    Attributes:
        password: The one of their user, with everything in it that an address cannot hold as it is.
        folder: Of the server's socket.
    """

    password: str
    folder: str

    def url(self, password: str, database: str = "guarded") -> str:
        """The address with something in the place of the password; without one if that is empty."""
        user = f"guarded:{password}" if password else "guarded"
        return f"postgresql+psycopg://{user}@/{database}?host={self.folder}"


@pytest.fixture(scope="session")
def guarded(postgres_url: str) -> Guarded:
    """A role and databases of that server, which lets it in with its password only."""
    import psycopg
    from sqlalchemy import make_url

    password = "gehe/im:x@y %z?"  # noqa: S105 - the word the tests look for
    server = make_url(postgres_url)
    with psycopg.connect(postgres_url.replace("+psycopg", "", 1), autocommit=True) as connection:
        connection.execute(f"CREATE ROLE guarded LOGIN PASSWORD '{password}'")
        connection.execute("CREATE DATABASE guarded OWNER guarded")
        connection.execute("CREATE DATABASE records OWNER guarded")
        row = connection.execute("SHOW hba_file").fetchone()
        assert row
        rules = Path(str(row[0]))
        rules.write_text(f"local all guarded scram-sha-256\n{rules.read_text()}")
        connection.execute("SELECT pg_reload_conf()")
    return Guarded(password, str(server.query["host"]))


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout's folder."""
    return Path(__file__).parents[1]
