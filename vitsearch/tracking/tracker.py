"""Delivering the outbox in the background, so that a slow or dead MLflow delays nothing and loses nothing."""

from __future__ import annotations

import json
import logging
import threading
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from vitsearch.errors import StudyLockedError, hide_passwords
from vitsearch.storage import KnownTrials, OutboxRecord, StudyStore
from vitsearch.tracking.addresses import address_of, default_uri, experiment_url, experiments_url

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from vitsearch.tracking.view import View

POLL_S = 1.0
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
CLOSING_PAUSE_S = 2.0  # a search that ends waits a minute: a server that comes back in it must be noticed

log = logging.getLogger(__name__)


class Tracker:
    """Mirrors one study into MLflow from a thread of its own.

    Messages are delivered in order and at least once; the view is idempotent. Several ``front`` messages in a row
    are delivered as one. Only the driver that holds the study's lease delivers: one that has lost it ends without
    a word, since the messages are its successor's. Nothing here raises into the search: an error is logged,
    without passwords, and tried again after 1, 2, 4, ... 30 seconds. What ``close`` leaves undelivered stays in
    the outbox for the study's next driver.

    Args:
        store: The study; read, never written but for delivery marks.
        out: The run's folder.
        uri: Tracking server; None for the SQLite store in ``out``.
        experiment: Experiment; None for ``vitsearch/<job name>``.

    Raises:
        InputError: The server's address leaves open what is not there.
    """

    def __init__(self, store: StudyStore, out: Path, uri: str | None, experiment: str | None) -> None:
        self._store, self._out = store, out
        self._uri, self._experiment = default_uri(out) if uri is None else address_of(uri), experiment
        self._is_local = uri is None
        self._closing, self._giving_up = threading.Event(), threading.Event()
        self._wake = threading.Event()
        self._interrupted = False
        self._view: View | None = None
        self._known = KnownTrials()  # stays when the view does not: reading all trials again takes seconds
        self._last_error = self._page = ""
        self._thread = threading.Thread(target=self._run, name="vitsearch-mlflow", daemon=True)

    @property
    def page(self) -> str:
        """The study's page on the tracking server; its list of experiments until the server has answered."""
        if self._is_local or not self._uri.startswith(("http://", "https://")):
            return ""
        return self._page or experiments_url(self._uri)

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def close(self, timeout_s: float, *, interrupted: bool = False) -> bool:
        """Deliver what is left; returns whether everything was delivered.

        Args:
            timeout_s: For at most how long.
            interrupted: Whether the study ends here for now, and MLflow should say so.
        """
        self._interrupted = interrupted
        self._closing.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        self._giving_up.set()
        self._wake.set()
        try:
            return not self._thread.is_alive() and not self._store.undelivered(limit=1)
        except Exception as error:  # noqa: BLE001 - a view must not end a search
            self._warn(error)
            return False

    def _run(self) -> None:
        pause_s = 0.0
        if not self._is_local:
            self._greet()
        while not self._giving_up.is_set():
            closing = self._closing.is_set()
            try:
                more = self._deliver_next()
                if closing and not more:
                    self._leave()
                    return
                pause_s = 0.0
            except StudyLockedError:
                return
            except Exception as error:  # noqa: BLE001 - whatever MLflow raises, the search goes on
                more, self._view = False, None  # what it remembers of MLflow may be what is wrong
                self._warn(error)
                if closing != self._closing.is_set():
                    continue  # asked to close meanwhile: try at once, once
                longest_s = CLOSING_PAUSE_S if closing else LONGEST_PAUSE_S
                pause_s = min(longest_s, max(FIRST_PAUSE_S, 2 * pause_s))
            if not more:
                self._pause(pause_s or POLL_S)

    def _greet(self) -> None:
        """Make the experiment before there is anything to tell, so that people find its page.

        No view yet: it takes the study's key from the first trial.
        """
        try:
            self._connect()
        except Exception as error:  # noqa: BLE001 - as below
            self._warn(error)

    def _pause(self, seconds: float) -> None:
        if self._wake.wait(seconds) and not self._giving_up.is_set():
            self._wake.clear()  # closing wakes us once; from then on pauses are slept through

    def _deliver_next(self) -> bool:
        """Deliver the oldest message, or the run of front messages it begins; returns whether there was one.

        Raises:
            StudyLockedError: Another driver has the study.
        """
        messages = self._store.undelivered()
        if not messages:
            return False
        self._check_lease()
        if messages[0].kind == "front":
            batch = _leading_fronts(messages)
            self._mlflow().sync({number for message in batch for number in _members(message)})
        elif messages[0].kind == "finished":
            batch = messages[:1]
            self._mlflow().finish()
        else:
            batch = messages[:1]
            log.warning("MLflow is not told of %r: this vitsearch does not know that message", messages[0].kind)
        self._store.mark_delivered([message.id for message in batch])
        self._last_error = ""
        return True

    def _leave(self) -> None:
        """Say in MLflow that an interrupted study is not running any more."""
        if self._view is not None and self._interrupted:
            self._check_lease()
            self._view.interrupt()

    def _check_lease(self) -> None:
        if not self._store.holds_lease():
            raise StudyLockedError("another driver has taken over this study, and delivers")

    def _mlflow(self) -> View:
        if self._view is None:
            from vitsearch.tracking.view import View

            client, experiment_id = self._connect()
            self._view = View(client, experiment_id, self._store, self._out, self._known)
        return self._view

    def _connect(self) -> tuple[MlflowClient, str]:
        from vitsearch.tracking.client import connect

        job = self._store.study().job
        client, experiment_id = connect(job, self._out, self._uri, self._experiment, is_local=self._is_local)
        self._page = experiment_url(self._uri, experiment_id)
        return client, experiment_id

    def _warn(self, error: Exception) -> None:
        text = hide_passwords(f"{type(error).__name__}: {error}")
        if text != self._last_error:  # a server that stays away is one warning, not one every 30 seconds
            log.warning("MLflow did not take the latest front, trying again: %s", text.partition("\n")[0])
            self._last_error = text


def _leading_fronts(messages: list[OutboxRecord]) -> list[OutboxRecord]:
    """The messages up to the first of another kind."""
    return list(takewhile(lambda message: message.kind == "front", messages))


def _members(message: OutboxRecord) -> list[int]:
    return [int(number) for number in json.loads(message.payload)["members"]]
