"""A Ray cluster seen from outside, through its Jobs API alone: one address, one port, no shared folder."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import ray
import requests
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient

from vitsearch.errors import InputError, StudyError, first_line, hide_passwords, holds_password

DEFAULT_PORT = 8265
CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 120
YOUNG_CLUSTER_S = 60.0
META = "vitsearch_"
SUBMISSION_VARIABLE = "VITSEARCH_SUBMISSION"
"""Names the submission to the job itself."""


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """One job of ours on a cluster.

    Attributes:
        id: Its submission id.
        study: The study it drives.
        out: The study's folder, on the cluster.
        status: ``PENDING``, ``RUNNING``, ``SUCCEEDED``, ``FAILED`` or ``STOPPED``.
        message: What Ray says of it.
        submitted_at: Seconds since the epoch.
        ended_at: The same, None while it runs.
        node_id: Ray node of its driver; None until it has one.
        exit_code: What its process ended with; None before, and where it never ran.
    """

    id: str
    study: str
    out: str
    status: str
    message: str
    submitted_at: float
    ended_at: float | None
    node_id: str | None
    exit_code: int | None = None

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.status in {"SUCCEEDED", "FAILED", "STOPPED"}


def state_file(submission: str) -> str:
    """Name of the file in Ray's log folder in which a job tells its state."""
    return f"vitsearch-{submission}.json"


class Cluster:
    """The Jobs API of one cluster.

    Args:
        address: ``http://HEAD:8265``, where Ray's dashboard listens; the scheme and the port may be left out.
        supported: The versions of Ray that this vitsearch works with.

    Raises:
        InputError: The address is none.
        StudyError: Nobody answers there, a token is missing or wrong, or Ray's version is another.
    """

    def __init__(self, address: str, *, supported: str = "") -> None:
        self.address = _as_url(address)
        for name in ("ray.dashboard.modules.dashboard_sdk", "ray._private.runtime_env.packaging"):
            logging.getLogger(name).setLevel(logging.WARNING)  # the terminal is ours
        self._require_listener()
        with self._talking(), _address_as_given():
            self._client: Any = JobSubmissionClient(self.address)
            told = self._client._do_request("GET", "/api/version").json()  # noqa: SLF001
            version = str(Version(told["ray_version"]))
        if supported and not SpecifierSet(supported).contains(version, prereleases=True):
            raise StudyError(
                f"the cluster at {self.address} runs Ray {version}, and this vitsearch works with Ray {supported} "
                f"(here is {ray.__version__}); upgrade the older of the two"
            )

    def submit(
        self,
        *,
        submission: str,
        command: str,
        package: Path,
        metadata: Mapping[str, str],
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """Start a job.

        Args:
            submission: Its id.
            command: Shell words of its entry point.
            package: Zip file that is unpacked as its working folder, and leads Python's path on every worker.
            metadata: What ``Submitted`` is read back from: ``study`` and ``out``.
            variables: Environment of the job and its workers.

        Raises:
            StudyError: The cluster refuses it.
        """
        environment = {
            **(variables or {}),
            SUBMISSION_VARIABLE: submission,
            "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_TIMEOUT_S),
        }
        deadline = time.monotonic() + YOUNG_CLUSTER_S
        while True:
            try:
                with self._talking():
                    self._client.submit_job(
                        entrypoint=command,
                        submission_id=submission,
                        runtime_env={"working_dir": str(package), "env_vars": environment},
                        metadata={f"{META}{key}": value for key, value in metadata.items()},
                    )
            except StudyError as error:
                if "No available agent" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(1)  # a head that has just started takes jobs some seconds later than questions
            else:
                return

    def jobs(self) -> list[Submitted]:
        """Our searches, latest first."""
        with self._talking():
            listed = self._client.list_jobs()
        found = [_submitted(job) for job in listed if f"{META}study" in (job.metadata or {})]
        return sorted(found, key=lambda job: job.submitted_at, reverse=True)

    def info(self, submission: str) -> Submitted:
        """One job, by its exact id."""
        with self._talking():
            return _submitted(self._client.get_job_info(submission))

    def job(self, name: str) -> Submitted:
        """The submission of that id, or the latest one of the study of that name or folder.

        Raises:
            InputError: There is none.
        """
        jobs = self.jobs()
        for job in jobs:
            if job.id == name:
                return job
        for job in jobs:
            if name in {job.study, job.out}:
                return job
        known = ", ".join(dict.fromkeys(job.id for job in jobs[:10]))
        raise InputError(
            "is neither a submission nor a study of this cluster", where=self.address, value=name,
            remedy=f"known are {known}" if known else "nothing was submitted to it yet",
        )  # fmt: skip

    def log(self, job: Submitted) -> str:
        """Everything the job has printed."""
        with self._talking():
            return str(self._client.get_job_logs(job.id))

    def follow(self, job: Submitted) -> Iterator[str]:
        """What the job prints, from its beginning and as it comes, until it ends."""
        from aiohttp import ClientError

        loop = asyncio.new_event_loop()
        lines = self._client.tail_job_logs(job.id)
        asked: asyncio.Task[str] | None = None
        try:
            with self._talking():
                while True:
                    asked = loop.create_task(_next(lines))
                    try:
                        yield loop.run_until_complete(asked)
                    except StopAsyncIteration:
                        return
                    except ClientError as error:
                        raise ConnectionError(str(error)) from error
        finally:
            if asked is not None:  # Ctrl-C ends the loop, not what it waits for
                asked.cancel()
                loop.run_until_complete(asyncio.gather(asked, return_exceptions=True))
            loop.run_until_complete(lines.aclose())
            loop.close()

    def stop(self, job: Submitted) -> None:
        """Ask the job to stop, as Ctrl-C would; returns at once."""
        with self._talking():
            self._client.stop_job(job.id)

    def forget(self, job: Submitted) -> None:
        """Remove an ended job from the cluster's list."""
        with self._talking():
            self._client.delete_job(job.id)

    def read(self, job: Submitted, name: str) -> bytes | None:
        """A small file that the job keeps in Ray's log folder; None while there is none."""
        if job.node_id is None:
            return None
        with self._talking(), self._open(job, name) as answer:
            content = bytes(answer.content) if answer.status_code == requests.codes.ok else b""
        return content or None  # of a file that is not there the dashboard may also answer with nothing

    def download(self, job: Submitted, name: str, to: Path, *, sha256: str) -> None:
        """Copy a file that the job keeps in Ray's log folder.

        Raises:
            StudyError: It is gone, or arrived damaged.
        """
        digest = hashlib.sha256()
        with self._talking(), self._open(job, name) as answer, to.open("wb") as file:
            if answer.status_code != requests.codes.ok:
                raise StudyError(f"{self.address} does not hand over {name}: {answer.text[:200]}")
            for chunk in answer.iter_content(2**20):
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != sha256:
            raise StudyError(f"{name} arrived damaged from {self.address}; try again")

    def _open(self, job: Submitted, name: str) -> requests.Response:
        query = {"node_id": job.node_id or "", "filename": name, "lines": "-1"}
        answer: requests.Response = self._client._do_request(  # noqa: SLF001 - it alone knows the token
            "GET", "/api/v0/logs/file", params=query, stream=True, timeout=READ_TIMEOUT_S
        )
        return answer

    def _require_listener(self) -> None:
        """Fail in seconds where nobody listens; the client itself would wait for minutes."""
        parts = urlsplit(self.address)
        try:
            port = parts.port or {"http": 80, "https": 443}[parts.scheme]
            socket.create_connection((parts.hostname or "", port), timeout=CONNECT_TIMEOUT_S).close()
        except (OSError, UnicodeError) as error:  # the latter of a name with an empty or an endless part
            raise StudyError(
                f"no Ray cluster answers at {self.address} ({_why(error)}); give the address of its "
                f"dashboard, http://HEAD:{DEFAULT_PORT}, and check that the cluster is up"
            ) from error

    @contextmanager
    def _talking(self) -> Iterator[None]:
        """Turn what can go wrong between here and there into one line.

        Raises:
            StudyError: With the remedy.
        """
        try:
            yield
        except AuthenticationError as error:
            what = "refuses this token" if "failed" in str(error) else "wants a token"
            raise StudyError(
                f"the cluster at {self.address} {what}; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or "
                f"RAY_AUTH_TOKEN_PATH) to what the cluster was started with"
            ) from error
        except requests.exceptions.JSONDecodeError as error:
            raise StudyError(
                f"what answers at {self.address} is not the dashboard of a Ray cluster; give http://HEAD:{DEFAULT_PORT}"
            ) from error
        except (ConnectionError, requests.exceptions.RequestException) as error:
            reason = first_line(error)[:200]
            raise StudyError(
                f"the Ray cluster at {self.address} does not answer ({reason}); give the address of its "
                f"dashboard, http://HEAD:{DEFAULT_PORT}"
            ) from error
        except RuntimeError as error:
            if "returned 404" in str(error):
                raise StudyError(
                    f"what answers at {self.address} is not the dashboard of a Ray cluster; "
                    f"give http://HEAD:{DEFAULT_PORT}"
                ) from error
            lines = [line for line in str(error).splitlines() if line.strip()]
            reason = hide_passwords(lines[-1] if "Traceback" in str(error) else lines[0])[:300]
            raise StudyError(f"the Ray cluster at {self.address} says: {reason}") from error
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            # Ray's client believes what it is told
            raise StudyError(
                f"what answers at {self.address} is not the dashboard of a Ray cluster, or one that this "
                f"vitsearch does not understand ({type(error).__name__}); give http://HEAD:{DEFAULT_PORT}"
            ) from error


@contextmanager
def _address_as_given() -> Iterator[None]:
    """Hide Ray's variables, which its client puts above the address that it is given."""
    hidden = {name: os.environ.pop(name, None) for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")}
    try:
        yield
    finally:
        os.environ.update({name: value for name, value in hidden.items() if value is not None})


def _as_url(address: str) -> str:
    url = address if "://" in address else f"http://{address}"
    if holds_password(url):
        raise InputError(
            "must hold no password, which the list of processes and each hint would show", field="--address",
            value=url, remedy="write http://HEAD:8265, and set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH",
        )  # fmt: skip
    refused = InputError("must be the address of a Ray dashboard", field="--address", value=address,
                         remedy=f"write http://HEAD:{DEFAULT_PORT}")  # fmt: skip
    try:
        parts = urlsplit(url.rstrip("/"))
        port = parts.port
    except ValueError as error:
        raise refused from error
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise refused
    if port is None and parts.scheme == "http":
        return f"{parts.scheme}://{parts.netloc}:{DEFAULT_PORT}{parts.path}"
    return url.rstrip("/")


def _why(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)


async def _next(lines: AsyncIterator[str]) -> str:
    return await anext(lines)


def _submitted(job: JobDetails) -> Submitted:
    metadata = job.metadata or {}
    return Submitted(
        id=job.submission_id or "",
        study=metadata.get(f"{META}study", ""),
        out=metadata.get(f"{META}out", ""),
        status=str(job.status.value),
        message=(job.message or "").strip(),
        submitted_at=(job.start_time or 0) / 1000,
        ended_at=None if not job.end_time else job.end_time / 1000,
        node_id=job.driver_node_id,
        exit_code=job.driver_exit_code,
    )
