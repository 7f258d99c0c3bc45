"""Studies on a cluster, from a machine that shares nothing with it: reached through its Jobs API."""

from __future__ import annotations

import json
import re
import secrets
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitsearch import __version__
from vitsearch.cli.copying import require_alone, unpack_study
from vitsearch.cli.options import DATABASE_VARIABLE
from vitsearch.cli.packing import write_package
from vitsearch.config import Spec
from vitsearch.errors import InputError, StudyError, VitsearchError
from vitsearch.messages import LiveState, Progress, TargetFacts
from vitsearch.storage import StudyState

if TYPE_CHECKING:
    from vitsearch.cli.finding import StudyName
    from vitsearch.config import JobSpec
    from workers import Cluster, Submitted

MODULE = "python -m vitsearch.cli.on_cluster"
POLL_S = 0.5
START_TIMEOUT_S = 300.0


class RemoteError(VitsearchError):
    """A job on the cluster ended with an error; the message and the exit code are its own."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class UnknownStudyError(InputError):
    """The head of a cluster has looked for a study and found none."""


def connect(address: str) -> Cluster:
    """The cluster at an address.

    Raises:
        InputError: The address is none.
        StudyError: It does not answer, does not let us in, or runs another Ray.
    """
    from workers import Cluster

    ours = [text for text in metadata.requires("vitsearch") or [] if text.startswith("ray")]
    return Cluster(address, supported=re.sub(r"^ray(\[[^]]*\])?", "", ours[0]) if ours else "")


def begin(cluster: Cluster, job: JobSpec, out: str | None, *, folder: Path, where: str) -> Submitted:
    """Submit a new study.

    Args:
        cluster: Where to.
        job: The job with paths as written.
        out: The study's folder on the cluster; None where it needs none.
        folder: Where the job's relative paths begin.
        where: The job's file, for messages.
    """
    out = out or ""
    _refuse_if_running(cluster, job.name, out)
    with tempfile.TemporaryDirectory(prefix="vitsearch-") as temporary:
        package = Path(temporary) / "package.zip"
        write_package(package, job, folder=folder, where=where)
        return _submit(cluster, job.name, out, f"run{_folder(out)}", package)


def go_on(cluster: Cluster, place: Place, *, trials: int | None, workers: int | None) -> Submitted:
    """Submit the rest of a study, or a larger budget for it."""
    study, out = place.study or _looked_up(cluster, place).study, place.out
    _refuse_if_running(cluster, study, out)
    given = {"--trials": trials, "--workers": workers}
    options = "".join(f" {name} {value}" for name, value in given.items() if value is not None)
    with tempfile.TemporaryDirectory(prefix="vitsearch-") as temporary:
        package = Path(temporary) / "package.zip"
        write_package(package, database=place.database)
        return _submit(cluster, study, out, f"resume{place.words}{options}", package)


def _submit(cluster: Cluster, study: str, out: str, command: str, package: Path) -> Submitted:
    submission = f"{study}-{secrets.token_hex(3)}"
    facts = {"study": study, "out": out, "version": __version__}
    cluster.submit(submission=submission, command=f"exec {MODULE} {command}", package=package, metadata=facts)
    return cluster.info(submission)


def _refuse_if_running(cluster: Cluster, study: str, out: str) -> None:
    """Say at once what the study's lease would say in a while."""
    for job in cluster.jobs():
        if not job.has_ended and (job.study, job.out) == (study, out):
            raise StudyError(
                f"study {study!r} is being driven already by submission {job.id}; "
                f"watch it with: vitsearch watch {shlex.quote(job.id)} --address {shlex.quote(cluster.address)}"
            )


def state_of(cluster: Cluster, job: Submitted) -> LiveState | None:
    """What a search tells of itself; None before it has begun."""
    from workers import state_file

    content = cluster.read(job, state_file(job.id))
    if content is None:
        return None
    with suppress(ValueError):  # written by another version
        return LiveState.model_validate_json(content)
    return None


def wait_until_begun(cluster: Cluster, job: Submitted, on_step: Callable[[str], None]) -> LiveState | None:
    """Follow a submission until its trials run; what is wrong with a job shows by then.

    Args:
        cluster: Where it is.
        job: The submission.
        on_step: Told what it does meanwhile.

    Returns:
        Its state; None where it has not begun in five minutes.

    Raises:
        RemoteError: It ended with an error.
    """
    deadline, step = time.monotonic() + START_TIMEOUT_S, ""
    while time.monotonic() < deadline:
        job = cluster.info(job.id)
        state = state_of(cluster, job)
        if job.has_ended:
            raise_if_failed(cluster, job)
            return state
        if state is not None and state.progress is not None:
            return state
        now = f"waiting for the cluster ({job.status.lower()})" if state is None else state.step
        if now and now != step:
            step = now
            on_step(now)
        time.sleep(POLL_S)
    return None


def raise_if_failed(cluster: Cluster, job: Submitted) -> None:
    """Raise what a job's own last words say.

    Raises:
        RemoteError: The job ended with an error.
    """
    if job.status == "FAILED":
        words = last_error(cluster.log(job)) or job.message or "it failed without a word"
        ended_with = job.exit_code or 0  # below zero where a signal has ended it
        raise RemoteError(f"submission {job.id} ended with: {words}", ended_with if ended_with > 0 else 1)


def last_error(log: str) -> str:
    """The last error that a log tells, without its first word; empty where there is none."""
    _, found, rest = log.rpartition("\nerror: ")
    return rest.strip() if found else ""


@contextmanager
def copied_study(
    named: StudyName, weights: str = "none", on_step: Callable[[str], None] = lambda _: None
) -> Iterator[Path]:
    """A copy of a study of a cluster, in a folder that is gone afterwards.

    Args:
        named: Its cluster, and its name, one of its submissions, or its folder there.
        weights: As ``pack_study`` takes it.
        on_step: Told what happens.

    Raises:
        InputError: The cluster knows no such study, or the selection names no model of it.
        StudyError: The cluster does not answer, or the study has found nothing.
    """
    with tempfile.TemporaryDirectory(prefix="vitsearch-") as temporary:
        folder = Path(temporary) / "study"
        folder.mkdir()
        copy_study_here(connect(named.address or ""), named, weights, folder, on_step)
        yield folder


def copy_study_here(
    cluster: Cluster, named: StudyName, weights: str, folder: Path, on_step: Callable[[str], None]
) -> None:
    """Copy a study of a cluster into a folder; see ``copied_study``."""
    place = place_of(cluster, named)
    command = f"hand-out{place.words} --weights {shlex.quote(weights)}"
    on_step("asking the cluster for a copy of the study")
    with (
        tempfile.TemporaryDirectory(prefix="vitsearch-") as temporary,
        _helper(cluster, "copy", command, place.database) as helper,
    ):
        with _understood(cluster):
            file, sha256 = str(helper.answer["file"]), str(helper.answer["sha256"])
            size_mb = int(helper.answer["bytes"]) / 1e6
        archive = Path(temporary) / "study.tar"
        on_step(f"copying {size_mb:.1f} MB")
        cluster.download(helper.job, file, archive, sha256=sha256)
        unpack_study(archive, folder)
        require_alone(folder)


def targets_of(cluster: Cluster) -> list[TargetFacts]:
    """Every target of a cluster, with what it says of itself.

    Raises:
        StudyError: The cluster does not answer.
    """
    with _helper(cluster, "targets", "targets") as helper, _understood(cluster):
        return [TargetFacts.model_validate(one) for one in helper.answer["targets"]]


@contextmanager
def _understood(cluster: Cluster) -> Iterator[None]:
    """Turn an answer that is not what was asked for into one line."""
    try:
        yield
    except (ValueError, LookupError, TypeError, ArithmeticError) as error:
        raise StudyError(
            f"what the cluster at {cluster.address} answers is that of another vitsearch "
            f"({type(error).__name__}); use the one that its nodes have"
        ) from error


@dataclass(frozen=True, kw_only=True)
class _Helper:
    """A short job on the cluster that has answered."""

    job: Submitted
    answer: dict[str, Any]


@contextmanager
def _helper(cluster: Cluster, kind: str, command: str, database: str | None = None) -> Iterator[_Helper]:
    """Run one of the head's commands; its job is gone from the cluster's list afterwards."""
    from workers import state_file

    submission = f"{kind}-{secrets.token_hex(6)}"
    with tempfile.TemporaryDirectory(prefix="vitsearch-") as temporary:
        package = Path(temporary) / "package.zip"
        write_package(package, database=database)
        cluster.submit(
            submission=submission, command=f"exec {MODULE} {command}", package=package, metadata={"helper": kind}
        )
    try:
        answer = _wait_for_answer(cluster, submission, state_file(submission))
        yield _Helper(job=cluster.info(submission), answer=answer)
    finally:
        _dismiss(cluster, cluster.info(submission))


class Stored(Spec):
    """What the database of a cluster's study says of it.

    Attributes:
        study: Its name.
        state: ``created``, ``running``, ``interrupted`` or ``finished``.
        progress: Where it stands; None before it has read its data.
    """

    study: str
    state: StudyState
    progress: Progress | None = None


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a cluster finds a study.

    Attributes:
        study: Its name; empty where a folder was named, and only the study there tells it.
        out: Its folder there; empty where it has none.
        database: Address of a database to look into first; None for those that the cluster knows itself.
    """

    study: str
    out: str
    database: str | None = None

    @property
    def words(self) -> str:
        """Options of the head's commands."""
        return _folder(self.out) or f" --study {shlex.quote(self.study)}"


def _folder(out: str) -> str:
    return f" --out {shlex.quote(out)}" if out else ""


def place_of(cluster: Cluster, named: StudyName) -> Place:
    """Name and folder of a study on the cluster.

    Args:
        cluster: Where it is.
        named: Its name, one of its submissions, or its folder. A cluster that was restarted has forgotten names,
            but may find a study in its database.

    Raises:
        InputError: The cluster knows no such study.
    """
    found = None if named.name.startswith("/") else job_or_stored(cluster, named)
    if found is None:
        known = [job.study for job in cluster.jobs() if named.name == job.out]
        return Place(study=known[0] if known else "", out=named.name)
    if isinstance(found, Stored):
        return Place(study=found.study, out="", database=named.database)
    return Place(study=found.study, out=found.out, database=None if found.out else named.database)


def job_or_stored(cluster: Cluster, named: StudyName) -> Submitted | Stored:
    """A submission; where the cluster knows none of that name, what a database says of the study.

    Raises:
        InputError: Neither is known.
    """
    try:
        return cluster.job(named.name)
    except InputError as error:
        if "/" in named.name:
            raise
        unknown = error
    try:
        return _looked_up(cluster, Place(study=named.name, out="", database=named.database))
    except UnknownStudyError as error:
        unknown.remedy += (
            f"; a cluster that was restarted forgets names, and takes --study /FOLDER, or --database URL where a "
            f"study has no folder; its head says: {error}"
        )
        if named.withheld:
            unknown.remedy += (
                f"; {DATABASE_VARIABLE} holds a password and is not sent there, but read from here with "
                f"--database '${{{DATABASE_VARIABLE}}}' in the place of --address"
            )
        raise unknown from error


def _looked_up(cluster: Cluster, place: Place) -> Stored:
    """What the head finds of a study in its database.

    Raises:
        UnknownStudyError: It has looked, and there is none.
        InputError: It cannot look there.
        StudyError: The same.
    """
    with _helper(cluster, "find", f"find{place.words}", place.database) as helper, _understood(cluster):
        words = helper.answer.get("unknown")
        if words is None:
            return Stored.model_validate(helper.answer)
    raise UnknownStudyError(str(words))


def _wait_for_answer(cluster: Cluster, submission: str, name: str) -> dict[str, Any]:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        job = cluster.info(submission)
        content = cluster.read(job, name)
        if content is not None:
            with suppress(ValueError, RecursionError):
                found = json.loads(content)
                if isinstance(found, dict):
                    return found
            raise StudyError(f"what the cluster at {cluster.address} answers cannot be read")
        if job.has_ended:
            words = last_error(cluster.log(job)) or job.message
            raise InputError(words) if job.exit_code == InputError.exit_code else StudyError(words)
        time.sleep(POLL_S)
    raise StudyError(f"the cluster at {cluster.address} has not answered in {START_TIMEOUT_S:g} s")


def _dismiss(cluster: Cluster, job: Submitted) -> None:
    """Stop the helper and take it off the cluster's list; its time is limited anyway."""
    with suppress(VitsearchError):
        if not job.has_ended:
            cluster.stop(job)
        for _ in range(20):
            if cluster.info(job.id).has_ended:
                cluster.forget(job)
                return
            time.sleep(POLL_S)
