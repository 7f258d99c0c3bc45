"""A site keeps to what it began with, however it is started again."""

from __future__ import annotations

import json
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from vitsearch.cli import services
from vitsearch.cli.services import Service, Settings, Site
from vitsearch.errors import InputError, StudyError

DATABASE = "postgresql+psycopg://host/db"


def quiet(_: str) -> None:
    """Nobody listens."""


def begun(site: Site) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((site.folder / "site.json").read_text())
    return loaded


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Settings]]:
    """What each service was last started with; each is a process that sleeps."""
    found: dict[str, Settings] = {}
    sleeping: list[subprocess.Popen[bytes]] = []

    def sleeper(address: str) -> Service:
        sleeping.append(subprocess.Popen(["sleep", "60"]))
        pid = sleeping[-1].pid
        return Service(pid=pid, started=psutil.Process(pid).create_time(), address=address)

    def starts(name: str) -> Any:
        def start(_: Site, settings: Settings) -> Service:
            found[name] = settings
            return sleeper(name)

        return start

    def postgres(_: Path) -> Service:
        found["database"] = Settings()
        return sleeper("PostgreSQL of its own")

    monkeypatch.setattr(Site, "_start_mlflow", starts("mlflow"))
    monkeypatch.setattr(Site, "_start_ray", starts("ray"))
    monkeypatch.setattr(services, "_start_postgres", postgres)
    monkeypatch.setattr(services, "_stop_postgres", quiet)
    yield found
    for process in sleeping:
        process.kill()
        process.wait()


def kill(site: Site, name: str) -> None:
    process = psutil.Process(begun(site)[name]["pid"])
    process.kill()
    process.wait()


def again(folder: Path, **wanted: Any) -> Site:
    """``up`` once more, in a process that knows the folder only."""
    site = Site(folder)
    site.start(site.settings_for(Settings(**wanted), "vitsearch down"), quiet)
    return site


@pytest.mark.usefixtures("started")
def test_other_options_are_refused_together_and_touch_nothing(tmp_path: Path):
    site = again(tmp_path)
    before = begun(site)
    with pytest.raises(InputError) as caught:
        again(tmp_path, database_url=DATABASE, host="1.2.3.4", dashboard_port=9, ray_port=6379)
    said = str(caught.value)
    assert "--host: is 1.2.3.4 here and 127.0.0.1 in the site" in said
    assert f"--database-file: is {DATABASE} here and one of its own in the site" in said
    assert "--dashboard-port: is 9 here and 8265" in said
    assert "--ray-port" not in said
    assert said.endswith("vitsearch down")
    assert begun(site) == before


def test_what_has_died_comes_back_with_the_options_that_the_site_began_with(
    tmp_path: Path, started: dict[str, Settings]
):
    site = again(tmp_path, database_url=DATABASE, host="127.0.0.2", cpus=2)
    kill(site, "mlflow")
    kill(site, "ray")
    started.clear()
    site = again(tmp_path)
    assert set(started) == {"mlflow", "ray"}, "no PostgreSQL of its own"
    assert started["ray"].database_url == DATABASE
    assert (started["ray"].host, started["ray"].cpus) == ("127.0.0.2", 2)
    assert site.addresses["database"] == DATABASE


@pytest.mark.usefixtures("started")
def test_a_database_with_a_password_is_kept_for_the_owner_alone(tmp_path: Path):
    site = again(tmp_path, database_url="postgresql+psycopg://me:SECRET@host/db")
    assert stat.S_IMODE((tmp_path / "site.json").stat().st_mode) == 0o600
    assert "SECRET" not in site.addresses["database"]


@pytest.mark.usefixtures("started")
def test_a_stopped_site_takes_other_options(tmp_path: Path):
    assert again(tmp_path, cpus=2).stop(quiet) == ["ray", "mlflow", "database"]
    assert begun(Site(tmp_path)) == {}
    again(tmp_path, cpus=3)


def test_what_never_came_up_binds_nobody(
    tmp_path: Path, started: dict[str, Settings], monkeypatch: pytest.MonkeyPatch
):
    def taken(_: Site, __: Settings) -> Service:
        raise StudyError("cannot listen")

    with monkeypatch.context() as patched:
        patched.setattr(Site, "_start_mlflow", taken)
        with pytest.raises(StudyError):
            again(tmp_path, mlflow_port=1)
    assert begun(Site(tmp_path)) == {}
    again(tmp_path, mlflow_port=2)
    assert started["mlflow"].mlflow_port == 2


def test_a_site_of_an_older_vitsearch_has_to_be_stopped(tmp_path: Path):
    own = psutil.Process()
    running = {"pid": own.pid, "started": own.create_time(), "address": "http://127.0.0.1:5000"}
    (tmp_path / "site.json").write_text(json.dumps({"mlflow": running}))
    with pytest.raises(InputError, match="was started by an older vitsearch"):
        again(tmp_path)
