"""The study's database: SQLAlchemy tables, one repository, Alembic migrations."""

from vitsearch.storage.database import (
    DATABASE_FILE,
    DatabaseError,
    check_url,
    database_url,
    open_engine,
    open_existing,
)
from vitsearch.storage.records import DataSummary, KnownTrials, OutboxRecord, StudyRecord, StudyState, TrialRecord
from vitsearch.storage.store import StudyStore

__all__ = [
    "DATABASE_FILE",
    "DataSummary",
    "DatabaseError",
    "KnownTrials",
    "OutboxRecord",
    "StudyRecord",
    "StudyState",
    "StudyStore",
    "TrialRecord",
    "check_url",
    "database_url",
    "open_engine",
    "open_existing",
]
