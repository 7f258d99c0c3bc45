"""Opening a database: SQLite tuned for one driver and many readers, or any SQLAlchemy URL."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, create_engine, event, inspect, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from vitsearch.errors import InputError, MissingExtraError, StudyError, hide_passwords

DATABASE_FILE = "study.db"
MIGRATIONS = Path(__file__).parent / "migrations"


DatabaseError = SQLAlchemyError  # whatever a database can raise at any statement


def database_url(folder: Path, url: str | None = None) -> str:
    """``url``, or the SQLite file of a run's folder."""
    return url or f"sqlite:///{(folder / DATABASE_FILE).resolve()}"


def open_engine(url: str) -> Engine:
    """Connect and bring the schema up to date.

    Raises:
        InputError: The address is none, or its driver is not installed.
        StudyError: The database cannot be reached, or was written by a newer vitsearch.
    """
    engine = _new_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _tune_sqlite)
    try:
        _upgrade(engine)
    except DBAPIError as error:
        engine.dispose()
        raise _unreachable(url, error) from error
    return engine


def open_existing(url: str) -> Engine:
    """The same for a database that holds studies already; nothing is made where there is none.

    Raises:
        InputError: As ``open_engine``, and where there is no database, or none of ours.
        StudyError: As ``open_engine``.
    """
    engine = _new_engine(url)
    try:
        file = engine.url.database if engine.dialect.name == "sqlite" else None
        there = (file is None or Path(file).is_file()) and inspect(engine).has_table("studies")
    except DBAPIError as error:
        raise _unreachable(url, error) from error
    finally:
        engine.dispose()
    if not there:
        raise InputError(
            "is no database that holds studies", where=hide_passwords(url), remedy="check its address"
        )
    return open_engine(url)


def has_password(url: str) -> bool:
    """Whether a database's address that ``check_url`` has passed holds a password."""
    return bool(make_url(url).password)


def check_url(url: str) -> None:
    """Refuse an address that no installed driver understands; nothing is connected or created.

    Raises:
        InputError: It is no database's address, or names an unknown database or driver.
        MissingExtraError: The driver comes with an extra of vitsearch.
    """
    _new_engine(url).dispose()


def _unreachable(url: str, error: DBAPIError) -> StudyError:
    reason = hide_passwords(str(error.orig).strip().splitlines()[0])
    return StudyError(f"cannot open the database {hide_passwords(url)}: {reason}")


def _new_engine(url: str) -> Engine:
    remedy = "write sqlite:////FOLDER/FILE.db or postgresql+psycopg://USER@HOST/DATABASE"
    try:
        return create_engine(url, pool_pre_ping=make_url(url).get_backend_name() != "sqlite")
    except ModuleNotFoundError as error:
        if error.name == "psycopg":
            raise MissingExtraError("a study in PostgreSQL", "postgres") from error
        rule = f"names the database driver {error.name!r}, which is not installed"
        raise InputError(rule, field="storage.url", value=url, remedy=remedy) from error
    except (ArgumentError, ValueError) as error:  # ValueError: a port that is no number
        rule = "must be the address of a database that is known here"
        raise InputError(rule, field="storage.url", value=url, remedy=remedy) from error


def _tune_sqlite(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")  # readers never wait for the driver
    cursor.execute("PRAGMA synchronous=NORMAL")  # a commit costs a millisecond instead of fifty
    cursor.execute("PRAGMA busy_timeout=15000")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _upgrade(engine: Engine) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    logging.getLogger("alembic").setLevel(logging.WARNING)
    with engine.begin() as connection:
        if inspect(connection).has_table("alembic_version") and _is_current(connection, config):
            return
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _is_current(connection: Any, config: Config) -> bool:
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(config)
    current = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in scripts.walk_revisions()}
    if current is not None and current not in known:
        raise StudyError(f"the database has schema {current!r}, newer than this vitsearch; upgrade vitsearch")
    return current == scripts.get_current_head()
