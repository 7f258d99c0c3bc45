"""The processes of a site: started detached, remembered by process id and start time, stopped as what they are."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from vitsearch.cli import postgres
from vitsearch.cli.options import DATABASE_VARIABLE, TRACKING_VARIABLE
from vitsearch.cli.ports import any_port, is_free
from vitsearch.config import Spec
from vitsearch.errors import InputError, StudyError, hide_password
from vitsearch.tracking import SERVER_SETTINGS, server_command

SITE_FILE = "site.json"
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 30.0
LEFT_TIMEOUT_S = 5.0
MARK = "VITSEARCH_SITE"
"""Variable that everything a site starts inherits."""
LOG_TAIL = 5
SERVICES = ("ray", "mlflow", "database")
"""In the order in which they are stopped: what depends on others first."""
HEALTH = {"ray": "/api/version", "mlflow": "/health"}
OPTIONS = {
    "host": "--host", "cpus": "--cpus", "database_url": "--database-file", "dashboard_port": "--dashboard-port",
    "ray_port": "--ray-port", "mlflow_port": "--mlflow-port",
}  # fmt: skip
"""What a person sets each of the settings by."""


class Settings(Spec):
    """What a site is started with, and started again with when something has died.

    Attributes:
        host: Address to listen on.
        dashboard_port: Ray's dashboard and Jobs API.
        ray_port: Where nodes join.
        mlflow_port: MLflow.
        cpus: Processors for Ray; None for all.
        database_url: A PostgreSQL that is there already; None for one of the site's own.
    """

    host: str = "127.0.0.1"
    dashboard_port: int = 8265
    ray_port: int = 6379
    mlflow_port: int = 5000
    cpus: int | None = None
    database_url: str | None = None


@dataclass(frozen=True, kw_only=True)
class Service:
    """A process that was started here.

    Attributes:
        pid: Its id.
        started: When it began, in seconds since the epoch: an id alone may be another process by now.
        address: What people are told, without passwords.
    """

    pid: int
    started: float
    address: str

    @classmethod
    def of(cls, process: psutil.Process, address: str) -> Service:
        """What is remembered of a process."""
        return cls(pid=process.pid, started=process.create_time(), address=address)

    @property
    def process(self) -> psutil.Process | None:
        """The very process; None once it has gone."""
        with suppress(psutil.Error):
            process = psutil.Process(self.pid)
            if abs(process.create_time() - self.started) < 1 and process.status() != psutil.STATUS_ZOMBIE:
                return process
        return None


class Site:
    """A folder and the processes that serve from it.

    Args:
        folder: Where everything of the site is kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.token_file = folder / "token"
        self._services: dict[str, Service] = {}
        self._settings: Settings | None = None
        with suppress(OSError, ValueError, TypeError):
            found = json.loads((folder / SITE_FILE).read_text(encoding="utf-8"))
            settings = found.pop("settings", None)
            self._services = {name: Service(**service) for name, service in found.items()}
            self._settings = None if settings is None else Settings.model_validate(settings)

    @property
    def exists(self) -> bool:
        """Whether anything was started here, running or not."""
        return (self.folder / SITE_FILE).is_file()

    @property
    def addresses(self) -> dict[str, str]:
        """Where each service listens."""
        return {name: service.address for name, service in self._services.items()}

    def settings_for(self, wanted: Settings, remedy: str) -> Settings:
        """What to start with: until the site is stopped, what it began with.

        Args:
            wanted: What is asked for now; what is not set counts for a new site only.
            remedy: How to stop the site.

        Raises:
            InputError: Something else is asked for than what its services have; it names all of it.
        """
        if self._settings is None:
            if any(service.process is not None for service in self._services.values()):
                raise InputError("was started by an older vitsearch", where=str(self.folder), remedy=remedy)
            return wanted
        kept = self._settings
        errors = [
            InputError(
                f"is {_shown(name, getattr(wanted, name))} here and {_shown(name, getattr(kept, name))} in the "
                "site, whose services would not notice",
                where=str(self.folder), field=OPTIONS[name],
            )
            for name in OPTIONS if name in wanted.model_fields_set and getattr(wanted, name) != getattr(kept, name)
        ]  # fmt: skip
        if errors:
            errors[-1].remedy = remedy
            errors[0].more = errors[1:]
            raise errors[0]
        return kept

    def start(self, settings: Settings, on_step: Callable[[str], None]) -> None:
        """Start what does not run yet; what this call has started goes again when something fails.

        Args:
            settings: What to start it with.
            on_step: Told what happens.

        Raises:
            InputError: PostgreSQL is to be the site's own, and cannot be in this folder.
            StudyError: A port is taken, or something does not come up; its log's last words are in the message.
            MissingExtraError: PostgreSQL is to be the site's own, and is not installed.
        """
        if settings.database_url is None:
            postgres.check_folder(self._database)
        self._make_folder()
        before = {name for name, service in self._services.items() if service.process is not None}
        for name in ("ray", "mlflow"):
            if name not in before:
                self._stop(name)  # what a dead one has left behind
        settled, self._settings = self._settings, settings
        self._save()  # who is killed from here on leaves a folder that `down` takes for a site
        try:
            if settings.database_url is not None:
                nobody = Service(pid=0, started=0.0, address=hide_password(settings.database_url))
                self._keep("database", nobody)
            elif "database" not in before:
                on_step("starting PostgreSQL")
                server = postgres.start(self._database)
                self._keep("database", Service.of(server, f"PostgreSQL in {self._database}"))
            if "mlflow" not in before:
                on_step("starting MLflow")
                self._begin("mlflow", self._launch_mlflow(settings))
            if "ray" not in before:
                on_step("starting Ray")
                self._begin("ray", self._launch_ray(settings))
            for name in sorted(before & HEALTH.keys()):  # an `up` that was killed may have left it to start
                self._wait(name, self._services[name])
        except BaseException:
            self._settings = settled  # what never came up binds nobody
            for name in SERVICES:
                if name not in before:
                    self._stop(name)
            self._save()
            raise

    def stop(self, on_step: Callable[[str], None]) -> list[str]:
        """Stop everything, what depends on others first; returns what was running."""
        stopped: list[str] = []
        for name in SERVICES:
            if self._alive(name):
                on_step(f"stopping {name}")
                stopped.append(name)
            self._stop(name)
        self._settings = None
        self._save()
        return stopped

    def _make_folder(self) -> None:
        for folder in (self.folder, *(self.folder / name for name in ("logs", "mlflow", "studies"))):
            folder.mkdir(parents=True, exist_ok=True)
        if not self.token_file.exists():
            _write_private(self.token_file, secrets.token_hex(32))

    def _keep(self, name: str, service: Service) -> None:
        self._services[name] = service
        self._save()

    def _save(self) -> None:
        partial = self.folder / f".{SITE_FILE}.partial"
        content: dict[str, object] = {name: asdict(service) for name, service in self._services.items()}
        if self._settings is not None:
            content["settings"] = self._settings.model_dump(mode="json")
        partial.unlink(missing_ok=True)
        _write_private(partial, json.dumps(content, indent=2))  # the database's address may hold a password
        partial.replace(self.folder / SITE_FILE)

    def _begin(self, name: str, service: Service) -> None:
        self._keep(name, service)  # before it is waited for: whoever interrupts that is to find it
        self._wait(name, service)

    def _stop(self, name: str) -> None:
        alive = self._alive(name)
        self._services.pop(name, None)
        if name != "database":
            self._end(name, alive[:1])
        else:
            for server in alive:
                postgres.stop(server)
        self._save()

    def _alive(self, name: str) -> list[psutil.Process]:
        """What runs of a service, first what it began with; not all of it is recorded where an `up` was killed."""
        known = self._services[name].process if name in self._services else None
        if name == "database":
            found = postgres.running(self._database)
            others = [] if found is None else [found]
        else:
            others = self._marked(name)
        return [*([] if known is None else [known]), *(other for other in others if other != known)]

    def _end(self, name: str, begun_with: list[psutil.Process]) -> None:
        """Ask a service to end; then end what it has started and left behind, by the mark they carry."""
        for first in begun_with:
            with suppress(psutil.Error):
                first.terminate()
            psutil.wait_procs([first], timeout=STOP_TIMEOUT_S)
        for ask in (psutil.Process.terminate, psutil.Process.kill):
            left = self._marked(name)
            for process in left:
                with suppress(psutil.Error):
                    ask(process)
            psutil.wait_procs(left, timeout=LEFT_TIMEOUT_S)

    def _marked(self, name: str) -> list[psutil.Process]:
        """Every process of a service that is alive, whoever its parent is by now."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.environ().get(MARK) == self._mark(name) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def _mark(self, name: str) -> str:
        return f"{self.folder}:{name}"

    @property
    def _database(self) -> Path:
        return self.folder / "postgres"

    def _launch_mlflow(self, settings: Settings) -> Service:
        host, port = settings.host, settings.mlflow_port
        _require_free(host, port, "--mlflow-port")
        command = server_command(self.folder / "mlflow", port, host)
        return self._launch("mlflow", command, f"http://{host}:{port}", SERVER_SETTINGS)

    def _launch_ray(self, settings: Settings) -> Service:
        host, cpus = settings.host, settings.cpus
        _require_free(host, settings.dashboard_port, "--dashboard-port")
        _require_free(host, settings.ray_port, "--ray-port")
        command = [
            str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--disable-usage-stats",
            "--node-ip-address", host, "--port", str(settings.ray_port),
            "--dashboard-host", host, "--dashboard-port", str(settings.dashboard_port),
            "--dashboard-agent-listen-port", str(any_port(host)),
            *([] if cpus is None else ["--num-cpus", str(cpus)]),
        ]  # fmt: skip
        environment = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token_file),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
            TRACKING_VARIABLE: self._services["mlflow"].address,
            DATABASE_VARIABLE: settings.database_url or postgres.url(self._database),
        }
        return self._launch("ray", command, f"http://{host}:{settings.dashboard_port}", environment)

    def _launch(self, name: str, command: list[str], address: str, variables: Mapping[str, str]) -> Service:
        environment = {
            key: value for key, value in os.environ.items() if key not in {"RAY_AUTH_TOKEN", "RAY_ADDRESS"}
        }
        with self._log(name).open("ab") as log:
            process = subprocess.Popen(  # noqa: S603 - our own command
                command, env={**environment, **variables, MARK: self._mark(name)},
                stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True, cwd=self.folder,
            )  # fmt: skip
        return Service.of(psutil.Process(process.pid), address)

    def _wait(self, name: str, service: Service) -> None:
        """Until it answers anything; a question without a token is answered too."""
        url, deadline = f"{service.address}{HEALTH[name]}", time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and service.process is not None:
            try:
                urllib.request.urlopen(url, timeout=2).close()  # noqa: S310 - our own server
            except urllib.error.HTTPError:
                return
            except OSError:
                time.sleep(0.2)
            else:
                return
        lines = self._log(name).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise StudyError(
            f"{name} does not come up; its log {self._log(name)} ends with: {' / '.join(lines[-LOG_TAIL:])}"
        )

    def _log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"


def _write_private(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def _shown(name: str, value: object) -> str:
    if value is None:
        return "one of its own" if name == "database_url" else "not given"
    return hide_password(str(value))


def _require_free(host: str, port: int, option: str) -> None:
    if not is_free(port, host):
        raise StudyError(f"cannot listen on {host}:{port}; is it taken? choose another port with {option}")
