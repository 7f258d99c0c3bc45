"""Who owns a study: one driver at a time, known by an epoch number that every write carries."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time

from sqlalchemy import ColumnElement, Engine, Float, cast, extract, func, literal, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from vitsearch.errors import StudyLockedError
from vitsearch.storage.tables import StudyTable

LEASE_S = 30.0
log = logging.getLogger(__name__)


def this_driver() -> str:
    """Host, process id and process start, so that a recycled id is not mistaken for its predecessor."""
    import psutil

    return f"{socket.gethostname()}:{os.getpid()}:{psutil.Process().create_time():.0f}"


def take_lease(engine: Engine, study_id: int, owner: str) -> int:
    """Become the study's driver.

    A lease is free when it was given back, when its owner is a process of this host that is gone, or when its
    owner lives on another host and has not renewed it in time. On this host processes are trusted, not the clock.

    Returns:
        The new epoch; writes of any earlier epoch are refused from now on.

    Raises:
        StudyLockedError: Another driver is alive.
    """
    with Session(engine) as session, session.begin():
        study = session.execute(select(StudyTable).where(StudyTable.id == study_id).with_for_update()).scalar_one()
        left_s = study.lease_until - session.execute(select(_clock(session))).scalar_one()
        if study.owner and study.owner != owner and _is_alive(study.owner, left_s):
            raise StudyLockedError(
                f"study {study.name!r} is driven by {study.owner.rpartition(':')[0]}; stop that driver, or wait "
                f"{left_s:.0f} s if it died on another machine"
            )
        seen = study.epoch
        taken = session.execute(
            update(StudyTable)
            .where(StudyTable.id == study_id, StudyTable.epoch == seen)
            .values(epoch=seen + 1, owner=owner, lease_until=_clock(session) + LEASE_S)
            .execution_options(synchronize_session=False)
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
        .values(lease_until=_clock(session) + LEASE_S)
        .execution_options(synchronize_session=False)
    )
    if held.rowcount != 1:  # type: ignore[attr-defined]
        raise StudyLockedError("another driver has taken over this study; this one stops")


class Heartbeat:
    """Renews a lease in the background, so that no long step of its driver can let it run out.

    Ends by itself once a later driver owns the study; the next write of this one then says so.

    Args:
        engine: The database.
        study_id: Row id.
        epoch: The driver's.
    """

    def __init__(self, engine: Engine, study_id: int, epoch: int) -> None:
        self._engine, self._study_id, self._epoch = engine, study_id, epoch
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="study-lease", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait until a beat under way is over."""
        self._stopped.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._stopped.wait(LEASE_S / 3):
            try:
                with Session(self._engine) as session, session.begin():
                    hold_lease(session, self._study_id, self._epoch)
            except StudyLockedError:
                return
            except SQLAlchemyError as error:  # the database may be back by the next beat
                log.warning("the study's lease could not be renewed: %s", type(error).__name__)


def _clock(session: Session) -> ColumnElement[float]:
    """The time in seconds, by a server's own clock where there is one: hosts may differ by minutes."""
    if session.get_bind().dialect.name == "postgresql":
        return cast(extract("epoch", func.clock_timestamp()), Float)
    return literal(time.time())


def _is_alive(owner: str, left_s: float) -> bool:
    import psutil

    host, pid, started = owner.rsplit(":", 2)
    if host != socket.gethostname():
        return left_s > 0
    try:
        return abs(psutil.Process(int(pid)).create_time() - float(started)) <= 2
    except (psutil.NoSuchProcess, ValueError):
        return False
