"""Reading and writing one study.

Each method is one transaction, and waits while the database is away. Methods that write take part in the driver's
lease: under a stale epoch they raise ``StudyLockedError`` and change nothing. All of them may run twice: what is
there already stays as it is, the latest measurement counts, the outbox delivers at least once.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import Engine, delete, func, insert, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from vitsearch.candidate import Candidate
from vitsearch.config import JobSpec
from vitsearch.cost import Cost
from vitsearch.errors import StudyError, first_line
from vitsearch.messages import Outcome, Profile, TrialFailure, TrialResult
from vitsearch.storage.copy import copy_study
from vitsearch.storage.lease import Heartbeat, hold_lease, take_lease, this_driver
from vitsearch.storage.patience import is_away, patiently, reason_of
from vitsearch.storage.records import DataSummary, KnownTrials, OutboxRecord, StudyRecord, StudyState, TrialRecord
from vitsearch.storage.tables import (
    FinalTable,
    MeasurementTable,
    OutboxTable,
    ProfileTable,
    ResultTable,
    StudyTable,
    TrialTable,
)

PATIENCE_S = 600.0
AT_ONCE = 500  # numbers in one query, of the few thousand that databases take
_OUTCOME: TypeAdapter[TrialResult | TrialFailure] = TypeAdapter(Outcome)


@contextmanager
def _reading() -> Iterator[None]:
    """Tell of a database that is damaged, or in which somebody else has written.

    Raises:
        StudyError: With what does not fit.
    """
    remedy = "restore the database from a copy, or copy the study again"
    try:
        yield
    except DBAPIError as error:
        if not isinstance(error.orig, sqlite3.Error) or is_away(error):
            raise
        raise StudyError(f"the study's database is damaged ({reason_of(error)}); {remedy}") from error
    except (ValueError, LookupError, TypeError, ArithmeticError, RecursionError) as error:
        raise StudyError(
            f"the study's database holds what no vitsearch has written ({first_line(error)}); {remedy}"
        ) from error


class StudyStore:
    """One study in one database.

    Args:
        engine: From ``open_engine``.
        study_id: Row id.

    Attributes:
        patience_s: How long a database may be away before its error is raised.
        on_wait: Told, again and again, that the database is away.
    """

    def __init__(self, engine: Engine, study_id: int) -> None:
        self.patience_s = PATIENCE_S
        self.on_wait: Callable[[str], None] = lambda _: None
        self._engine = engine
        self.study_id = study_id
        self._epoch: int | None = None
        self._heartbeat: Heartbeat | None = None

    @classmethod
    def create(cls, engine: Engine, job: JobSpec) -> StudyStore:
        """Add a study.

        Raises:
            StudyError: The database has one of that name already.
        """
        row = StudyTable(name=job.name, job=job.model_dump_json(), created_at=time.time())
        try:
            with Session(engine) as session, session.begin():
                session.add(row)
                session.flush()
                study_id = row.id
        except IntegrityError as error:
            raise StudyError(
                f"the database already has a study named {job.name!r}; resume it, or change the job's name"
            ) from error
        return cls(engine, study_id)

    @classmethod
    def find(cls, engine: Engine, name: str | None = None) -> StudyStore:
        """The study of that name, or the only one.

        Raises:
            StudyError: There is none, or no name was given and there are several.
        """
        with _reading(), Session(engine) as session:
            rows = session.execute(select(StudyTable.id, StudyTable.name)).all()
        found = [row.id for row in rows if name is None or row.name == name]
        if len(found) != 1:
            names = ", ".join(row.name for row in rows) or "none"
            wanted = "it is not the only one" if name is None else f"none is named {name!r}"
            raise StudyError(f"no single study matches, since {wanted}; the database holds: {names}")
        return cls(engine, found[0])

    def copy_to(self, folder: Path) -> JobSpec:
        """Write the study into a database file of its own; see ``copy_study``."""
        return copy_study(self._engine, self.study_id, folder)

    @patiently
    def study(self) -> StudyRecord:
        """The study's own row."""
        with _reading(), Session(self._engine) as session:
            row = session.get_one(StudyTable, self.study_id)
            return StudyRecord.model_validate(
                {
                    "id": row.id,
                    "name": row.name,
                    "job": JobSpec.model_validate_json(row.job),
                    "state": row.state,
                    "data": DataSummary.model_validate_json(row.data) if row.data != "{}" else None,
                    "elapsed_s": row.elapsed_s,
                }
            )

    @patiently
    def acquire(self) -> None:
        """Become the driver and keep the lease alive; see ``take_lease``."""
        self._stop_heartbeat()
        self._epoch = take_lease(self._engine, self.study_id, this_driver())
        self._heartbeat = Heartbeat(self._engine, self.study_id, self._epoch)
        self._heartbeat.start()

    @patiently
    def holds_lease(self) -> bool:
        """Whether this driver has the study: it has taken it, and no later one did."""
        with Session(self._engine) as session:
            epoch = session.execute(select(StudyTable.epoch).where(StudyTable.id == self.study_id)).scalar_one()
            return epoch == self._epoch

    @patiently
    def release(self, state: StudyState) -> None:
        """Give the lease back and leave the study in ``state``."""
        with self._writing() as session:
            session.execute(
                update(StudyTable)
                .where(StudyTable.id == self.study_id)
                .values(owner="", lease_until=0.0, state=state)
            )
        self._stop_heartbeat()
        self._epoch = None

    def _stop_heartbeat(self) -> None:
        if self._heartbeat is not None:
            self._heartbeat.stop()
            self._heartbeat = None

    @patiently
    def renew(self, elapsed_s: float) -> None:
        """Keep the lease alive and note the search time used."""
        with self._writing() as session:
            session.execute(
                update(StudyTable)
                .where(StudyTable.id == self.study_id)
                .values(elapsed_s=elapsed_s, state="running")
            )

    def set_job(self, job: JobSpec) -> None:
        """Replace the job, for a resume with a larger budget."""
        self._update_study(job=job.model_dump_json())

    def set_data(self, data: DataSummary) -> None:
        """Remember the data set."""
        self._update_study(data=data.model_dump_json())

    @patiently
    def add_trial(self, trial: TrialRecord) -> None:
        """Store an ask before anything is done about it."""
        with self._writing() as session:
            there = session.get(TrialTable, (self.study_id, trial.number))
            if there is not None and there.candidate_hash == trial.candidate.hash:
                return
            session.execute(
                insert(TrialTable).values(
                    study_id=self.study_id,
                    number=trial.number,
                    state=trial.state,
                    kind=trial.kind,
                    candidate_hash=trial.candidate.hash,
                    candidate=trial.candidate.model_dump_json(),
                    cost=trial.cost.model_dump_json(),
                    draw=json.dumps(dict(trial.draw)),
                    sampler_state=trial.sampler_state,
                    note=trial.note,
                    same_as=trial.same_as,
                    attempts=trial.attempts,
                    worker=trial.worker,
                    lease_until=0.0,
                    asked_at=time.time(),
                    finished_at=time.time() if trial.state == "told" else None,
                )
            )

    def lease_trial(self, number: int, worker: str, attempt: int) -> None:
        """Note who trains a trial."""
        self._update_trial(number, state="leased", worker=worker, attempts=attempt)

    def unlease_trial(self, number: int, attempts: int) -> None:
        """Queue a trial again."""
        self._update_trial(number, state="asked", worker="", attempts=attempts)

    @patiently
    def store_outcome(
        self,
        number: int,
        outcome: TrialResult | TrialFailure,
        figures: Mapping[str, float],
        profiles: Sequence[Profile] = (),
    ) -> bool:
        """Persist what a trial found, before anybody is told.

        Returns:
            Whether this is the outcome of the trial; another one after the first is dropped.
        """
        with self._writing() as session:
            first = session.get(ResultTable, (self.study_id, number))
            if first is not None:
                return first.outcome == outcome.model_dump_json()
            session.execute(
                insert(ResultTable).values(
                    study_id=self.study_id,
                    trial=number,
                    outcome=outcome.model_dump_json(),
                    figures=json.dumps(dict(figures)),
                )
            )
            self._insert_profiles(session, number, profiles)
            session.execute(self._trial_update(number, state="result", finished_at=time.time()))
        return True

    @patiently
    def add_profiles(self, number: int, profiles: Sequence[Profile], figures: Mapping[str, float]) -> None:
        """Add measurements made after the search, and the figures that follow from them."""
        with self._writing() as session:
            self._insert_profiles(session, number, profiles)
            session.execute(
                update(ResultTable)
                .where(ResultTable.study_id == self.study_id, ResultTable.trial == number)
                .values(figures=json.dumps(dict(figures)))
            )

    @patiently
    def measurements(self, keys: Sequence[str]) -> dict[str, Profile]:
        """Earlier measurements of any study, by their keys, as far as there are any."""
        query = select(MeasurementTable).where(MeasurementTable.key.in_(keys))
        with Session(self._engine) as session:
            found = {}
            for row in session.scalars(query):
                with suppress(ValueError):  # of another vitsearch: as good as none
                    found[row.key] = Profile.model_validate_json(row.profile)
            return found

    @patiently
    def keep_measurements(self, found: Mapping[str, Profile]) -> None:
        """Let any study use measurements again; the latest of a key counts."""
        # another study may have kept the same one a moment ago, which is as good; in one order none waits for none
        with suppress(IntegrityError), self._writing() as session:
            for key, profile in sorted(found.items()):
                row = MeasurementTable(key=key, profile=profile.model_dump_json(), measured_at=time.time())
                session.merge(row)

    def set_unmeasured(self, number: int, reason: str) -> None:
        """Note that a needed measurement has failed for good."""
        self._update_trial(number, unmeasured=reason)

    def set_told(self, number: int) -> None:
        """Note that Optuna knows the outcome."""
        self._update_trial(number, state="told")

    @patiently
    def store_final(self, number: int, outcome: TrialResult | TrialFailure) -> None:
        """Persist the full-length retraining of a winner."""
        with self._writing() as session:
            session.merge(FinalTable(study_id=self.study_id, trial=number, outcome=outcome.model_dump_json()))

    @patiently
    def trials(self, known: KnownTrials | None = None) -> list[TrialRecord]:
        """All trials, by number.

        Args:
            known: What the caller has read before; brought up to date. Reading a trial costs almost a millisecond,
                looking whether it has changed a hundredth of one.
        """
        known = KnownTrials() if known is None else known
        with _reading(), Session(self._engine) as session:
            marks = self._marks(session)
            changed = [number for number, mark in marks.items() if known.marks.get(number) != mark]
            for first in range(0, len(changed), AT_ONCE):
                for row in self._rows(session, changed[first : first + AT_ONCE]):
                    record = self._record(*row)
                    known.trials[record.number], known.marks[record.number] = record, marks[record.number]
            return [known.trials[number] for number in marks]

    @patiently
    def num_trials(self) -> int:
        """Asks so far."""
        with Session(self._engine) as session:
            query = select(func.count()).select_from(TrialTable).where(TrialTable.study_id == self.study_id)
            return int(session.execute(query).scalar_one())

    @patiently
    def enqueue(self, kind: str, payload: Mapping[str, object]) -> None:
        """Put a message for MLflow into the outbox."""
        with self._writing() as session:
            session.execute(
                insert(OutboxTable).values(
                    study_id=self.study_id, kind=kind, payload=json.dumps(payload), created_at=time.time()
                )
            )

    @patiently
    def undelivered(self, limit: int = 50) -> list[OutboxRecord]:
        """The oldest messages MLflow has not seen."""
        query = (
            select(OutboxTable)
            .where(OutboxTable.study_id == self.study_id, OutboxTable.delivered_at.is_(None))
            .order_by(OutboxTable.id)
            .limit(limit)
        )
        with Session(self._engine) as session:
            return [OutboxRecord(id=row.id, kind=row.kind, payload=row.payload) for row in session.scalars(query)]

    @patiently
    def mark_delivered(self, message_ids: Sequence[int]) -> None:
        """Note deliveries, and forget earlier ones; needs no lease, since delivering twice is harmless.

        The latest stay, so that no message ever gets the number of another.
        """
        if not message_ids:
            return
        with Session(self._engine) as session, session.begin():
            session.execute(
                delete(OutboxTable).where(
                    OutboxTable.study_id == self.study_id,
                    OutboxTable.delivered_at.is_not(None),
                    OutboxTable.id < min(message_ids),
                )
            )
            session.execute(
                update(OutboxTable).where(OutboxTable.id.in_(message_ids)).values(delivered_at=time.time())
            )

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        if self._epoch is None:
            raise StudyError("only the driver that holds the study's lease may write")
        with Session(self._engine) as session, session.begin():
            hold_lease(session, self.study_id, self._epoch)
            yield session

    @patiently
    def _update_study(self, /, **values: Any) -> None:
        with self._writing() as session:
            session.execute(update(StudyTable).where(StudyTable.id == self.study_id).values(**values))

    @patiently
    def _update_trial(self, number: int, /, **values: Any) -> None:
        with self._writing() as session:
            session.execute(self._trial_update(number, **values))

    def _trial_update(self, number: int, **values: Any) -> Any:
        where = (TrialTable.study_id == self.study_id, TrialTable.number == number)
        return update(TrialTable).where(*where).values(**values)

    def _insert_profiles(self, session: Session, number: int, profiles: Sequence[Profile]) -> None:
        for profile in profiles:
            target = profile.conditions.target
            values = {"study_id": self.study_id, "trial": number, "target": target}
            session.execute(insert(ProfileTable).values(**values, profile=profile.model_dump_json()))

    def _marks(self, session: Session) -> dict[int, tuple[object, ...]]:
        """For each trial, by number, all that changes when it does: figures change with a state or a profile."""
        profiled = (
            select(ProfileTable.trial, func.max(ProfileTable.id).label("latest"))
            .where(ProfileTable.study_id == self.study_id)
            .group_by(ProfileTable.trial)
            .subquery()
        )
        t = TrialTable
        query = (
            select(t.number, t.state, t.attempts, t.worker, t.unmeasured, profiled.c.latest, FinalTable.outcome)
            .outerjoin(profiled, profiled.c.trial == t.number)
            .outerjoin(FinalTable, (FinalTable.study_id == t.study_id) & (FinalTable.trial == t.number))
            .where(t.study_id == self.study_id)
            .order_by(t.number)
        )
        return {row.number: tuple(row) for row in session.execute(query)}

    def _rows(
        self, session: Session, numbers: Sequence[int]
    ) -> Iterator[tuple[TrialTable, str | None, str | None, str | None, list[str]]]:
        profiles: dict[int, list[str]] = {}
        wanted = ProfileTable.study_id == self.study_id, ProfileTable.trial.in_(numbers)
        for profile in session.scalars(select(ProfileTable).where(*wanted).order_by(ProfileTable.id)):
            profiles.setdefault(profile.trial, []).append(profile.profile)
        query = (
            select(TrialTable, ResultTable.outcome, ResultTable.figures, FinalTable.outcome)
            .outerjoin(
                ResultTable,
                (ResultTable.study_id == TrialTable.study_id) & (ResultTable.trial == TrialTable.number),
            )
            .outerjoin(
                FinalTable, (FinalTable.study_id == TrialTable.study_id) & (FinalTable.trial == TrialTable.number)
            )
            .where(TrialTable.study_id == self.study_id, TrialTable.number.in_(numbers))
            .order_by(TrialTable.number)
        )
        for row, outcome, figures, final in session.execute(query):
            yield row, outcome, figures, final, profiles.get(row.number, [])

    @staticmethod
    def _record(
        row: TrialTable, outcome: str | None, figures: str | None, final: str | None, profiles: list[str]
    ) -> TrialRecord:
        measured = [Profile.model_validate_json(text) for text in profiles]
        return TrialRecord.model_validate(
            {
                "number": row.number,
                "state": row.state,
                "kind": row.kind,
                "candidate": Candidate.model_validate_json(row.candidate),
                "cost": Cost.model_validate_json(row.cost),
                "draw": json.loads(row.draw),
                "sampler_state": row.sampler_state,
                "note": row.note,
                "unmeasured": row.unmeasured,
                "same_as": row.same_as,
                "attempts": row.attempts,
                "worker": row.worker,
                "outcome": None if outcome is None else _OUTCOME.validate_json(outcome),
                "figures": json.loads(figures) if figures else {},
                "profiles": {profile.conditions.target: profile for profile in measured},
                "final": None if final is None else _OUTCOME.validate_json(final),
                "asked_at": row.asked_at,
                "finished_at": row.finished_at,
            }
        )
