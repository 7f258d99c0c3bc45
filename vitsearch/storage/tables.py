"""The tables. Ours are the truth: Optuna's study and MLflow's runs are rebuilt from them."""

from __future__ import annotations

from sqlalchemy import Float, ForeignKey, ForeignKeyConstraint, Index, Integer, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """Declarative base; times are seconds since the epoch, documents are JSON text."""


class StudyTable(Base):
    """One study and the lease of the driver that owns it."""

    __tablename__ = "studies"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    name: Mapped[str] = mapped_column(String(80), unique=True)
    job: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(16), default="created")
    data: Mapped[str] = mapped_column(Text, default="{}")
    created_at: Mapped[float] = mapped_column(Float)
    elapsed_s: Mapped[float] = mapped_column(Float, default=0.0)
    epoch: Mapped[int] = mapped_column(Integer, default=0)
    owner: Mapped[str] = mapped_column(String(120), default="")
    lease_until: Mapped[float] = mapped_column(Float, default=0.0)


class TrialTable(Base):
    """One ask and what became of it."""

    __tablename__ = "trials"

    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    kind: Mapped[str] = mapped_column(String(16))
    candidate_hash: Mapped[str] = mapped_column(String(16))
    candidate: Mapped[str] = mapped_column(Text)
    cost: Mapped[str] = mapped_column(Text)
    draw: Mapped[str] = mapped_column(Text)
    sampler_state: Mapped[str] = mapped_column(Text, default="{}")
    note: Mapped[str] = mapped_column(Text, default="")
    unmeasured: Mapped[str] = mapped_column(Text, default="")
    same_as: Mapped[int | None] = mapped_column(Integer, default=None)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    worker: Mapped[str] = mapped_column(String(64), default="")
    lease_until: Mapped[float] = mapped_column(Float, default=0.0)
    asked_at: Mapped[float] = mapped_column(Float)
    finished_at: Mapped[float | None] = mapped_column(Float, default=None)

    __table_args__ = (Index("ix_trials_hash", "study_id", "candidate_hash"),)


class ResultTable(Base):
    """The outcome of one trial; written once, first writer wins."""

    __tablename__ = "results"

    study_id: Mapped[int] = mapped_column(Integer, primary_key=True)
    trial: Mapped[int] = mapped_column(Integer, primary_key=True)
    outcome: Mapped[str] = mapped_column(Text)
    figures: Mapped[str] = mapped_column(Text)

    __table_args__ = (ForeignKeyConstraint(["study_id", "trial"], ["trials.study_id", "trials.number"]),)


class ProfileTable(Base):
    """One measurement; the latest of each (trial, target) counts."""

    __tablename__ = "profiles"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    study_id: Mapped[int] = mapped_column(Integer)
    trial: Mapped[int] = mapped_column(Integer)
    target: Mapped[str] = mapped_column(String(64))
    profile: Mapped[str] = mapped_column(Text)

    __table_args__ = (
        ForeignKeyConstraint(["study_id", "trial"], ["trials.study_id", "trials.number"]),
        Index("ix_profiles_trial", "study_id", "trial"),
    )


class MeasurementTable(Base):
    """What one model costs on one runtime of one kind of machine, for every study of the database."""

    __tablename__ = "measurements"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    profile: Mapped[str] = mapped_column(Text)
    measured_at: Mapped[float] = mapped_column(Float)


class FinalTable(Base):
    """The full-length retraining of a winner and its score on the test split."""

    __tablename__ = "finals"

    study_id: Mapped[int] = mapped_column(Integer, primary_key=True)
    trial: Mapped[int] = mapped_column(Integer, primary_key=True)
    outcome: Mapped[str] = mapped_column(Text)

    __table_args__ = (ForeignKeyConstraint(["study_id", "trial"], ["trials.study_id", "trials.number"]),)


class OutboxTable(Base):
    """What still has to be told to MLflow, in order."""

    __tablename__ = "outbox"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"))
    kind: Mapped[str] = mapped_column(String(32))
    payload: Mapped[str] = mapped_column(Text)
    created_at: Mapped[float] = mapped_column(Float)
    delivered_at: Mapped[float | None] = mapped_column(Float, default=None)
