"""Who owns a study: one driver at a time, known by an epoch number that every write carries."""

from __future__ import annotations

import os
import socket
import time

from sqlalchemy import Engine, select, update
from sqlalchemy.orm import Session

from vitsearch.errors import StudyLockedError
from vitsearch.storage.tables import StudyTable

LEASE_S = 30.0


def this_driver() -> str:
    """Host, process id and process start, so that a recycled id is not mistaken for its predecessor."""
    import psutil

    return f"{socket.gethostname()}:{os.getpid()}:{psutil.Process().create_time():.0f}"


def take_lease(engine: Engine, study_id: int, owner: str) -> int:
    """Become the study's driver.

    A lease is free when it was given back, has run out, or belongs to a process of this host that is gone.

    Returns:
        The new epoch; writes of any earlier epoch are refused from now on.

    Raises:
        StudyLockedError: Another driver is alive.
    """
    with Session(engine) as session, session.begin():
        study = session.execute(select(StudyTable).where(StudyTable.id == study_id).with_for_update()).scalar_one()
        if study.owner and study.owner != owner and study.lease_until > time.time() and not _is_gone(study.owner):
            raise StudyLockedError(
                f"study {study.name!r} is driven by {study.owner.rpartition(':')[0]}; stop that driver, or wait "
                f"{study.lease_until - time.time():.0f} s if it died on another machine"
            )
        seen = study.epoch
        taken = session.execute(
            update(StudyTable)
            .where(StudyTable.id == study_id, StudyTable.epoch == seen)
            .values(epoch=seen + 1, owner=owner, lease_until=time.time() + LEASE_S)
        )
        if taken.rowcount != 1:  # type: ignore[attr-defined]
            raise StudyLockedError(f"study {study.name!r} was taken by another driver at the same moment")
    return seen + 1


def hold_lease(session: Session, study_id: int, epoch: int) -> None:
    """Renew the lease as part of the transaction at hand.

    Raises:
        StudyLockedError: A later driver owns the study; nothing of this transaction is kept.
    """
    held = session.execute(
        update(StudyTable)
        .where(StudyTable.id == study_id, StudyTable.epoch == epoch)
        .values(lease_until=time.time() + LEASE_S)
    )
    if held.rowcount != 1:  # type: ignore[attr-defined]
        raise StudyLockedError("another driver has taken over this study; this one stops")


def _is_gone(owner: str) -> bool:
    import psutil

    host, pid, started = owner.rsplit(":", 2)
    if host != socket.gethostname():
        return False
    try:
        return abs(psutil.Process(int(pid)).create_time() - float(started)) > 2
    except (psutil.NoSuchProcess, ValueError):
        return True
