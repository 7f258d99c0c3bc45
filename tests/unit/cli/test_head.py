"""What a submitted job takes from the cluster's environment."""

from __future__ import annotations

import pytest

from tests.unit.report.factory import job
from vitsearch.cli.head import DATABASE_VARIABLE, TRACKING_VARIABLE, with_site_defaults

PLAIN = "postgresql+psycopg://me@host/db"


def test_a_job_that_names_nothing_takes_the_site_s_addresses(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(TRACKING_VARIABLE, "http://mlflow:5000")
    monkeypatch.setenv(DATABASE_VARIABLE, PLAIN)
    found = with_site_defaults(job())
    assert (found.tracking.uri, found.storage.url) == ("http://mlflow:5000", PLAIN)
    own = job(tracking={"uri": "http://mine:1"}, storage={"url": "sqlite:////a.db"})
    assert with_site_defaults(own) == own


def test_without_any_the_job_stays_as_it_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(TRACKING_VARIABLE, raising=False)
    monkeypatch.setenv(DATABASE_VARIABLE, "")
    assert with_site_defaults(job()) == job()


def test_an_address_with_a_password_stays_in_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(TRACKING_VARIABLE, "https://me:geheim@mlflow")
    monkeypatch.setenv(DATABASE_VARIABLE, "postgresql+psycopg://me:geheim@host/db")
    found = with_site_defaults(job())
    assert (found.tracking.uri, found.storage.url) == ("${MLFLOW_TRACKING_URI}", "${VITSEARCH_DATABASE_URL}")
