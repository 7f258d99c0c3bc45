"""Which study a command means: a run's folder, or a name in a database or on a cluster."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vitsearch.cli.options import ADDRESS_VARIABLE, DATABASE_VARIABLE, DEFAULT_ADDRESS
from vitsearch.errors import InputError, StudyError, hide_password, holds_password

if TYPE_CHECKING:
    from vitsearch.search import Places
    from vitsearch.storage import StudyStore


@dataclass(frozen=True, kw_only=True)
class FoundStudy:
    """A study that a command has opened.

    Attributes:
        store: Its records.
        folder: Its run's folder, or a copy of it; None where it is read from its database.
        words: What names it again on a command line.
    """

    store: StudyStore
    folder: Path | None
    words: str

    @property
    def places(self) -> Places:
        """Where its weights are.

        Raises:
            InputError: In a folder that is not known here.
        """
        from vitsearch.search import Places

        study = self.store.study()
        if self.folder is None and study.job.storage.artifacts is None:
            raise InputError(
                "names a study whose weights lie in its run's folder, which its database does not tell",
                field="--study", value=study.name,
                remedy="give that folder instead, or --address of the cluster that it was submitted to",
            )  # fmt: skip
        return Places.of(study.job, self.folder or Path())


@dataclass(frozen=True, kw_only=True)
class StudyName:
    """A study that is named rather than pointed to, and where to ask for it.

    Attributes:
        name: ``--study``.
        address: Of the cluster to ask; None to read the database here.
        database: Address of the database; None where nobody has named one.
        withheld: Whether the environment names one that a cluster is not told, since a password is in it.
    """

    name: str
    address: str | None
    database: str | None
    withheld: bool = False

    @classmethod
    def of(cls, name: str, address: str | None, database: str | None) -> StudyName:
        """What the options say, and the environment where they say nothing.

        An option counts more than a variable, and a cluster more than a database, which it is told of; but a
        variable's password stays on this machine.

        Raises:
            InputError: ``--database`` is no database's address, or would show its password to everybody.
        """
        elsewhere = address or (None if database is not None else os.environ.get(ADDRESS_VARIABLE)) or None
        if database is not None:
            _check_option(database, here=elsewhere is None)
        known = database or os.environ.get(DATABASE_VARIABLE) or None
        if elsewhere is None and known is None:
            elsewhere = DEFAULT_ADDRESS
        if elsewhere is not None and known is not None and holds_password(known):
            return cls(name=name, address=elsewhere, database=None, withheld=True)
        return cls(name=name, address=elsewhere, database=known)

    @property
    def words(self) -> str:
        """What names it again on a command line; a database in the environment is not written out."""
        words = f"--study {shlex.quote(self.name)}"
        if self.address is not None:
            return f"{words} --address {shlex.quote(self.address)}"
        if self.database is None or self.database == os.environ.get(DATABASE_VARIABLE):
            return words
        shown = f"{DATABASE_VARIABLE}'s" if holds_password(self.database) else shlex.quote(self.database)
        return f"{words} --database {shown}"


def named_place(
    place: Path | str | None,
    study: str | None,
    address: str | None,
    database: str | None,
    *,
    submissions: bool = False,
) -> Path | StudyName:
    """What a command's options mean: a run's folder, or a study to ask a cluster or a database for.

    Args:
        place: ``DIR`` as given.
        study: ``--study`` as given.
        address: ``--address`` as given.
        database: ``--database`` as given.
        submissions: Whether ``DIR`` may be the ID of a submission, too.

    Raises:
        InputError: Neither folder nor study are given, or both, or an option that says nothing of a folder.
    """
    or_id = ", a submission's ID with --address" if submissions else ""
    if (place is None) == (study is None):
        raise InputError(f"needs a run: its folder{or_id}, or --study NAME with --address or --database, not both",
                         remedy="give one of them")  # fmt: skip
    if place is None:
        return StudyName.of(study or "", address, database)
    clustered = address or (None if database is not None else os.environ.get(ADDRESS_VARIABLE))
    if submissions and clustered and not Path(place).is_dir():
        return StudyName.of(str(place), address, database)
    for option, given in (("--address", address), ("--database", database)):
        if given is not None:
            raise InputError(
                f"says where to ask for a study by its name, and {place} is meant as a folder here", field=option,
                remedy="leave it out, or give --study NAME instead of the folder",
            )  # fmt: skip
    return Path(place)


def in_folder(folder: Path) -> FoundStudy:
    """The study of a run's folder.

    Raises:
        InputError: It holds none.
    """
    from vitsearch.cli.run_folder import open_study

    return FoundStudy(store=open_study(folder), folder=folder, words=shlex.quote(str(folder)))


def in_database(url: str, name: str, words: str = "") -> FoundStudy:
    """The study of that name in a database.

    Raises:
        InputError: The database is none, or holds no such study.
        StudyError: It cannot be reached.
    """
    from vitsearch.storage import StudyStore, open_existing

    with _told_of("--database"):
        engine = open_existing(url)
    try:
        store = StudyStore.find(engine, name)
    except StudyError as error:
        raise InputError(str(error), where=hide_password(url), field="--study") from error
    return FoundStudy(store=store, folder=None, words=words or f"--study {shlex.quote(name)}")


@contextmanager
def found_study(
    folder: Path | None, study: str | None, address: str | None, database: str | None, weights: str = "none"
) -> Iterator[FoundStudy]:
    """The study that a command's options name; from a cluster it is a copy, which is gone afterwards.

    Args:
        folder: ``DIR`` as given.
        study: ``--study`` as given.
        address: ``--address`` as given.
        database: ``--database`` as given.
        weights: Which weights a copy must hold, as ``pack_study`` takes it.

    Raises:
        InputError: The options do not go together, or there is no such study.
        StudyError: The cluster or the database does not answer.
    """
    from vitsearch.cli.remote import copied_study

    named = named_place(folder, study, address, database)
    if isinstance(named, Path):
        yield in_folder(named)
        return
    if named.address is None:
        yield in_database(named.database or "", named.name, named.words)
        return
    with copied_study(named, weights) as copy:
        found = in_folder(copy)
        yield FoundStudy(store=found.store, folder=copy, words=named.words)


def _check_option(url: str, *, here: bool) -> None:
    """Refuse what no ``--database`` may be; ``here`` is whether it is connected to from this machine.

    What it leaves open, and its driver, are the business of whoever connects.
    """
    from vitsearch.config.addresses import check_address_text
    from vitsearch.storage import check_url

    check_address_text(url, field="--database")
    if here:
        with _told_of("--database"):
            check_url(url)
    if holds_password(url):
        raise InputError(
            "must hold no password, which the list of processes would show", field="--database", value=url,
            remedy=f"set {DATABASE_VARIABLE} to it, or write ${{NAME}} in its place, a variable that holds it",
        )  # fmt: skip


@contextmanager
def _told_of(field: str) -> Iterator[None]:
    """Let an error about a database name the option rather than a job's field."""
    try:
        yield
    except InputError as error:
        error.field = field
        raise
