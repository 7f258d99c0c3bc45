"""A site keeps to what it began with, however it is started again."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from vitsearch.cli import postgres
from vitsearch.cli.services import MARK, Service, Settings, Site
from vitsearch.errors import InputError, StudyError

DATABASE = "postgresql+psycopg://host/db"


def quiet(_: object) -> None:
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

    def start_postgres(_: Path) -> psutil.Process:
        found["database"] = Settings()
        return psutil.Process(sleeper("PostgreSQL of its own").pid)

    monkeypatch.setattr(Site, "_launch_mlflow", starts("mlflow"))
    monkeypatch.setattr(Site, "_launch_ray", starts("ray"))
    monkeypatch.setattr(Site, "_wait", lambda *_: None)
    monkeypatch.setattr(postgres, "start", start_postgres)
    monkeypatch.setattr(postgres, "stop", quiet)
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
        patched.setattr(Site, "_launch_mlflow", taken)
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


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[Service]:
    """An MLflow of the site that never answers."""
    environment = {**os.environ, MARK: f"{tmp_path}:mlflow"}
    with subprocess.Popen(["sleep", "60"], env=environment) as process:
        yield Service.of(psutil.Process(process.pid), "http://127.0.0.1:1")
        process.kill()


@pytest.mark.usefixtures("started")
def test_a_service_that_is_waited_for_is_known_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whoever kills `up` then leaves nothing that `down` would not find."""
    seen: list[dict[str, Any]] = []

    def killed(site: Site, *_: object) -> None:
        seen.append(begun(site))
        raise KeyboardInterrupt

    monkeypatch.setattr(Site, "_launch_mlflow", lambda *_: unmarked)
    monkeypatch.setattr(Site, "_wait", killed)
    with subprocess.Popen(["sleep", "60"]) as process:
        unmarked = Service.of(psutil.Process(process.pid), "http://127.0.0.1:1")
        with pytest.raises(KeyboardInterrupt):
            again(tmp_path)
    known = Service(**seen[0]["mlflow"])
    assert known.process is None, "an interrupted `up` ends what it has started"
    assert begun(Site(tmp_path)) == {}


@pytest.mark.usefixtures("started")
def test_what_a_killed_up_has_not_recorded_is_stopped(tmp_path: Path, silent: Service):
    assert Site(tmp_path).stop(quiet) == ["mlflow"]
    assert silent.process is None


def test_a_site_is_one_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def killed(_: Path) -> None:
        assert Site(tmp_path).exists
        raise KeyboardInterrupt

    monkeypatch.setattr(postgres, "start", killed)
    with pytest.raises(KeyboardInterrupt):
        again(tmp_path)


@pytest.mark.parametrize("name", ["my site", "site's", "x" * 120])
def test_a_folder_in_which_postgresql_cannot_be_is_refused_before_anything_starts(
    name: str, tmp_path: Path, started: dict[str, Settings]
):
    folder = tmp_path / name
    with pytest.raises(InputError, match=r"--dir: must .* with --database-file"):
        again(folder)
    assert not started
    assert not folder.exists()
    again(folder, database_url=DATABASE)
