"""Where MLflow lives: URIs, pages, the server of a run's folder. Imports no mlflow."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import sqlite3
import sys
from contextlib import closing
from http.client import HTTPException
from pathlib import Path
from urllib.parse import quote
from urllib.request import urlopen

from vitsearch.config import JobSpec
from vitsearch.config.placeholders import filled_in
from vitsearch.errors import InputError, hide_password

DATABASE = "mlflow.db"
ARTIFACTS = "mlartifacts"
# it must not phone home, and its seven processes for jobs of GenAI have nothing to do here
SERVER_SETTINGS = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
# without it MLflow opens its pages in the GenAI layout, where runs have no metrics table
LAYOUT = "workflowType=machine_learning"


def address_of(uri: str) -> str:
    """The tracking server's address, passwords and all; to connect to, not to keep or to show.

    Args:
        uri: The address as the job has it; what its placeholders stand for is read now.

    Raises:
        InputError: Something that it leaves open is not there.
    """
    return filled_in(uri, field="tracking.uri")


def default_uri(out: Path) -> str:
    """The SQLite store in a run's folder."""
    return f"sqlite:///{(out / DATABASE).resolve()}"


def artifact_location(out: Path) -> str:
    """Where that store keeps files; absolute, since MLflow writes it into the database."""
    return (out / ARTIFACTS).resolve().as_uri()


def experiment_name(job: JobSpec) -> str:
    """The experiment a job is recorded in."""
    return job.tracking.experiment or f"vitsearch/{job.name}"


def experiment_url(base_url: str, experiment_id: str) -> str:
    """The page with all runs of an experiment.

    Args:
        base_url: Address of an MLflow server.
        experiment_id: MLflow's id.
    """
    return f"{_page(base_url)}/experiments/{quote(experiment_id, safe='')}/runs?{LAYOUT}"


def experiments_url(base_url: str) -> str:
    """The page with all experiments."""
    return f"{_page(base_url)}/experiments?{LAYOUT}"


def run_url(base_url: str, experiment_id: str, run_id: str) -> str:
    """The page of one run."""
    return f"{_page(base_url)}/experiments/{quote(experiment_id, safe='')}/runs/{quote(run_id, safe='')}?{LAYOUT}"


def study_url(base_url: str, out: Path, job: JobSpec) -> str:
    """The page of a study: its experiment, or the list of experiments where that cannot be found out.

    Looks into the run's own database, or asks the job's tracking server for at most three seconds. An address that
    no browser opens, or that leaves open what is not there, is returned as it is, without passwords.
    """
    written = base_url
    try:
        base_url = address_of(written)
    except InputError:
        return hide_password(written)
    if not base_url.startswith(("http://", "https://")):
        return hide_password(written)
    name = experiment_name(job)
    found = _stored_id(out / DATABASE, name) if job.tracking.uri is None else _served_id(base_url, name)
    return experiments_url(base_url) if found is None else experiment_url(base_url, found)


def server_command(out: Path, port: int, host: str = "127.0.0.1") -> list[str]:
    """The command line that serves a folder's records; ``SERVER_SETTINGS`` belong into its environment."""
    return [
        sys.executable, "-m", "mlflow", "server",
        "--backend-store-uri", default_uri(out),
        "--artifacts-destination", artifact_location(out),
        "--host", host,
        "--port", str(port),
        "--workers", "1",
        *([] if _is_loopback(host) else _reached_at(host, port)),
    ]  # fmt: skip


LOCAL_HOSTS = [
    "localhost", "localhost:*", "127.0.0.1", "127.0.0.1:*", "[[]::1]:*",
    "10.*", "192.168.*", *(f"172.{number}.*" for number in range(16, 32)), "fc00:*", "fd00:*",
]  # fmt: skip
"""What MLflow admits where nothing is said: this machine, and private addresses, whatever they are mapped to."""


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _reached_at(host: str, port: int) -> list[str]:
    """What lets MLflow answer there: by itself it refuses names, public addresses and its own pages there.

    A tunnel ends at any port of the machine that it begins at. Clients write a name in small letters. What MLflow
    admits by itself is admitted still, and what its own variables say counts more.
    """
    there = list(dict.fromkeys((f"{host}:{port}", host, f"{host.lower()}:{port}", host.lower())))
    origins = list(dict.fromkeys((f"http://{host}:{port}", f"http://{host.lower()}:{port}")))
    options = {
        "MLFLOW_SERVER_ALLOWED_HOSTS": ("--allowed-hosts", [*there, *LOCAL_HOSTS]),
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": ("--cors-allowed-origins", origins),
    }
    given = [(option, values) for name, (option, values) in options.items() if not os.environ.get(name)]
    return [word for option, values in given for word in (option, ",".join(values))]


def _page(base_url: str) -> str:
    return f"{re.sub(r'://.*@', '://', base_url).rstrip('/')}/#"


def _stored_id(database: Path, name: str) -> str | None:
    if not database.is_file():
        return None
    try:
        with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            row = connection.execute("SELECT experiment_id FROM experiments WHERE name = ?", (name,)).fetchone()
    except sqlite3.Error:  # a database of some other MLflow; the list of experiments will do
        return None
    return None if row is None else str(row[0])


def _served_id(base_url: str, name: str) -> str | None:
    address = (
        f"{base_url.rstrip('/')}/api/2.0/mlflow/experiments/get-by-name?experiment_name={quote(name, safe='')}"
    )
    try:
        with urlopen(address, timeout=3) as answer:  # noqa: S310 - study_url lets only http and https through
            return str(json.load(answer)["experiment"]["experiment_id"])
    except (OSError, ValueError, KeyError, TypeError, HTTPException):  # away, or asks for a login
        return None
