"""Opening a database: SQLite tuned for one driver and many readers, or any SQLAlchemy URL."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from vitsearch.config.placeholders import filled_in, is_placeholder, sample_of
from vitsearch.errors import InputError, MissingExtraError, StudyError, first_line, hide_password

DATABASE_FILE = "study.db"
FIELD = "storage.url"
SCHEMA_LOCK = 8_407_165_821  # any number that no other program takes
# Without them a host that vanished is noticed only by TCP, after a quarter of an hour in which nobody is told.
POSTGRES_TIMEOUTS = {
    "connect_timeout": 10,
    "keepalives_idle": 20,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
MIGRATIONS = Path(__file__).parent / "migrations"
HEAD = "0002"
"""The last of ``MIGRATIONS``: what has it already is spared loading Alembic, which takes half a second."""


DatabaseError = SQLAlchemyError  # whatever a database can raise at any statement


def database_url(folder: Path, url: str | None = None) -> str:
    """``url``, or the SQLite file of a run's folder."""
    return url or f"sqlite:///{(folder / DATABASE_FILE).resolve()}"


def open_engine(url: str) -> Engine:
    """Connect and bring the schema up to date.

    Args:
        url: The address as written; what its placeholders stand for is read now.

    Raises:
        InputError: The address is none, its driver is not installed, or what it leaves open is not there.
        StudyError: The database cannot be reached, or was written by a newer vitsearch.
    """
    engine = _new_engine(url, filled_in(url, field=FIELD))
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _tune_sqlite)
    try:
        _upgrade(engine)
    except DBAPIError as error:
        engine.dispose()
        raise _unreachable(url, error) from error
    except UnicodeDecodeError as error:
        engine.dispose()
        raise StudyError(f"the database {hide_password(url)} is damaged: {error.reason}") from error
    return engine


def open_existing(url: str) -> Engine:
    """The same for a database that holds studies already; nothing is made where there is none.

    Raises:
        InputError: As ``open_engine``, and where there is no database, or none of ours.
        StudyError: As ``open_engine``.
    """
    engine = _new_engine(url, filled_in(url, field=FIELD))
    try:
        file = engine.url.database if engine.dialect.name == "sqlite" else None
        there = (file is None or Path(file).is_file()) and inspect(engine).has_table("studies")
    except DBAPIError as error:
        raise _unreachable(url, error) from error
    finally:
        engine.dispose()
    if not there:
        raise InputError("is no database that holds studies", where=hide_password(url), remedy="check its address")
    return open_engine(url)


def check_url(url: str, *, here: bool = True) -> None:
    """Refuse an address that no installed driver understands; nothing is connected or created.

    Args:
        url: The address as written.
        here: Whether it will be connected to from here, so that what it leaves open must be there.

    Raises:
        InputError: It is no database's address, names an unknown one or driver, or leaves open what is missing.
        MissingExtraError: The driver comes with an extra of vitsearch.
    """
    if here:
        _new_engine(url, filled_in(url, field=FIELD)).dispose()
    elif not is_placeholder(url):
        _new_engine(url, sample_of(url)).dispose()


def _unreachable(url: str, error: DBAPIError) -> StudyError:
    reason = first_line(error.orig or error)
    return StudyError(f"cannot open the database {hide_password(url)}: {reason}")


def _new_engine(written: str, url: str) -> Engine:
    """An engine for an address, which messages show as it was written."""
    remedy = "write sqlite:////FOLDER/FILE.db or postgresql+psycopg://HOST/DATABASE"
    try:
        parts = make_url(url)
        remote = parts.get_backend_name() != "sqlite"
        timeouts = POSTGRES_TIMEOUTS if parts.get_driver_name() in {"psycopg", "psycopg2"} else {}  # libpq's
        return create_engine(
            url,
            pool_pre_ping=remote,
            connect_args={name: value for name, value in timeouts.items() if name not in parts.query},
            hide_parameters=True,  # a study's row holds its job, whose addresses may hold passwords
        )
    except ModuleNotFoundError as error:
        if error.name == "psycopg":
            raise MissingExtraError("a study in PostgreSQL", "postgres") from error
        rule = f"names the database driver {error.name!r}, which is not installed"
        raise InputError(rule, field=FIELD, value=written, remedy=remedy) from error
    except (ArgumentError, ValueError):  # ValueError: a port that is no number
        rule = "must be the address of a database that is known here"
        # from None: what they say may hold a piece of a password
        raise InputError(rule, field=FIELD, value=written, remedy=remedy) from None


def _tune_sqlite(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")  # readers never wait for the driver
    cursor.execute("PRAGMA synchronous=NORMAL")  # a commit costs a millisecond instead of fifty
    cursor.execute("PRAGMA busy_timeout=15000")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _upgrade(engine: Engine) -> None:
    with engine.begin() as connection:
        current = _version(connection)
        if current == HEAD:
            return
        from alembic import command
        from alembic.config import Config
        from alembic.script import ScriptDirectory

        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        if current is not None and current not in known:
            raise StudyError(f"the database has schema {current!r}, newer than this vitsearch; upgrade vitsearch")
        logging.getLogger("alembic").setLevel(logging.WARNING)
        _alone(connection)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _alone(connection: Connection) -> None:
    """Let one process at a time change the schema, and all of its changes happen or none."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # its driver by itself begins at no change of a schema
    elif connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({SCHEMA_LOCK})")


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found
