"""One study out of any database, as a file that stands alone."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, Engine, delete, insert, select

from vitsearch.config import JobSpec
from vitsearch.config.addresses import without_passwords
from vitsearch.storage.database import database_url, open_engine
from vitsearch.storage.tables import FinalTable, ProfileTable, ResultTable, StudyTable, TrialTable

PARTS = (TrialTable, ResultTable, ProfileTable, FinalTable)  # parents first
ROWS = 1000


def copy_study(engine: Engine, study_id: int, folder: Path) -> JobSpec:
    """Write a study as it is at one moment into the database file of a folder; it may be running.

    What still has to be told to MLflow stays behind, and passwords do: telling it is the original's work.

    Args:
        engine: Where the study lives.
        study_id: Its row.
        folder: An empty folder.

    Returns:
        The copy's job, whose database is the file.
    """
    copy = open_engine(database_url(folder))
    try:
        with engine.connect() as connection, copy.begin() as target:
            source = _at_one_moment(connection)
            row = dict(
                source.execute(select(StudyTable.__table__).where(StudyTable.id == study_id)).mappings().one()
            )
            job = JobSpec.model_validate_json(row["job"])
            here = job.storage.model_copy(update={"url": None, "artifacts": None})
            job = without_passwords(job.model_copy(update={"storage": here}))
            row |= {"job": job.model_dump_json(), "owner": "", "lease_until": 0.0}
            target.execute(delete(StudyTable))
            target.execute(insert(StudyTable), [row])
            for table in PARTS:
                chosen = select(table.__table__).where(table.study_id == study_id)
                for rows in source.execute(chosen).mappings().partitions(ROWS):
                    target.execute(insert(table), [dict(one) for one in rows])
    finally:
        copy.dispose()
    return job


def _at_one_moment(source: Connection) -> Connection:
    """Let all reads of a connection see the same state."""
    if source.dialect.name == "sqlite":
        source.exec_driver_sql("BEGIN")  # its driver by itself begins at the first write only
        return source
    return source.execution_options(isolation_level="REPEATABLE READ")
