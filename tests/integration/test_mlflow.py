"""A real MLflow: its SQLite store, and its server as a process of its own with deliveries over HTTP."""

import json
import logging
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from tests.unit.report import factory
from vitsearch.report import StudyReport
from vitsearch.storage import StudyStore, TrialRecord
from vitsearch.tracking import Tracker, default_uri, server_command, study_url
from vitsearch.tracking import tracker as tracker_module
from vitsearch.tracking.runs import MAX_PARAM, MAX_TAG, StudyRuns

pytestmark = [
    # MLflow 3.17 warns about its own dependencies while it is imported and makes its tables
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
SECRET = "geheim"  # noqa: S105 - the word the tests look for


class Server:
    """``mlflow server`` on a run's folder, on a free port that is known before it starts."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.folder, self.url = folder, f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self._process is None:
            with (self.folder / "server.log").open("wb") as log:
                self._process = subprocess.Popen(
                    server_command(self.folder, self.port), cwd=self.folder, stdout=log, stderr=subprocess.STDOUT
                )
        wait_until(self._is_up, 120)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)

    def _is_up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "server.log").read_text()
        try:
            with urlopen(f"{self.url}/health", timeout=2) as answer:  # noqa: S310 - our own server
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    one = Server(tmp_path_factory.mktemp("the server's folder"))
    yield one
    one.stop()


@pytest.fixture
def store(tmp_path: Path) -> StudyStore:
    storage = {"url": f"postgresql://user:{SECRET}@host/db"}  # never opened: only what is shown of it matters
    dataset = {"kind": "npz", "path": f"https://bucket/photos.npz?X-Amz-Signature={SECRET}&sig={SECRET}"}
    store = factory.new_store(tmp_path, factory.job(storage=storage, dataset=dataset))
    (tmp_path / "job.yaml").write_text(f"storage:\n  url: {storage['url']}\n")
    return store


def wait_until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def deliver(store: StudyStore, out: Path, uri: str | None = None, *, interrupted: bool = False) -> bool:
    tracker = Tracker(store, out, uri, None)
    tracker.start()
    return tracker.close(120, interrupted=interrupted)


def client_of(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def runs_of(uri: str, name: str = "vitsearch/digits") -> tuple[Any, dict[int, Any]]:
    """The study's run and its trials' runs by number; fails when a trial has two."""
    client = client_of(uri)
    experiment = client.get_experiment_by_name(name)
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    parents = [run for run in runs if run.data.tags["vitsearch.kind"] == "study"]
    numbers = [int(run.data.tags["vitsearch.trial"]) for run in runs if run not in parents]
    assert len(parents) == 1
    assert len(set(numbers)) == len(numbers)
    children = [run for run in runs if run not in parents]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} <= {parents[0].info.run_id}
    return parents[0], {int(run.data.tags["vitsearch.trial"]): run for run in children}


def artifacts(uri: str, run: Any) -> set[str]:
    return {file.path for file in client_of(uri).list_artifacts(run.info.run_id)}


def text_of(uri: str, run: Any, name: str, folder: Path) -> str:
    return Path(client_of(uri).download_artifacts(run.info.run_id, name, str(folder))).read_text("utf-8")


def finish(store: StudyStore) -> None:
    store.enqueue("front", {"members": [trial.number for trial in StudyReport.load(store).front]})
    store.enqueue("finished", {})


def test_a_whole_study_in_the_run_folder(store: StudyStore, tmp_path: Path):
    uri = default_uri(tmp_path)
    factory.add_trials(store, 12)
    early = factory.announce_front(store)
    assert deliver(store, tmp_path)
    parent, children = runs_of(uri)
    assert parent.info.status == "RUNNING"
    assert set(children) == set(early)
    assert {run.info.status for run in children.values()} == {"FINISHED"}

    factory.add_trials(store, 39, seed=1)
    factory.add_best(store)
    knee = factory.finalize(store, accuracy=0.9)
    finish(store)
    assert deliver(store, tmp_path)
    parent, children = runs_of(uri)
    report = StudyReport.load(store)
    current = {trial.number for trial in report.front}
    assert set(children) == current | set(early)
    assert set(early) - current, "the factory should push someone off the front"
    for number, run in children.items():
        trial = report.trials[number]
        assert run.data.tags["pareto"] == ("current" if number in current else "former")
        assert run.data.tags["knee"] == ("true" if number == knee else "false")
        assert run.data.metrics["accuracy"] == trial.figures["accuracy"]
        assert run.data.metrics["eer_pct"] == trial.figures["eer_pct"]
        assert run.data.metrics.get("test_accuracy") == (0.9 if number == knee else None)
        assert run.data.params["architecture.width"] == str(trial.candidate.architecture.width)
        assert trial.candidate.hash in run.data.tags["mlflow.note.content"]
        text = text_of(uri, run, "candidate.json", tmp_path)
        assert json.loads(text) == trial.candidate.model_dump(mode="json")

    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["hypervolume"] == pytest.approx(report.hypervolume)
    assert parent.data.metrics["front_size"] == len(report.front)
    assert parent.data.metrics["trials_done"] == 52
    assert parent.data.metrics["best_accuracy"] == max(t.figures["accuracy"] for t in report.trials)
    assert parent.data.params["search.sampler"] == "nsga2"
    assert "★ knee" in parent.data.tags["mlflow.note.content"]
    assert artifacts(uri, parent) == {"pareto.html", "pareto.png", "trials.csv", "job.yaml"}
    assert "plotly.js v" in text_of(uri, parent, "pareto.html", tmp_path)
    history = client_of(uri).get_metric_history(parent.info.run_id, "hypervolume")
    assert [point.step for point in history] == [12, 52]


def test_passwords_are_nowhere(store: StudyStore, tmp_path: Path):
    factory.add_trials(store, 4)
    finish(store)
    assert deliver(store, tmp_path)
    parent, children = runs_of(default_uri(tmp_path))
    assert parent.data.params["storage.url"] == "postgresql://***@host/db"
    assert SECRET not in text_of(default_uri(tmp_path), parent, "job.yaml", tmp_path / "mlartifacts")
    assert SECRET not in repr([parent, *children.values()])
    for file in (tmp_path / "mlartifacts").rglob("*"):
        assert not file.is_file() or SECRET not in file.read_text("utf-8", errors="ignore")
    assert SECRET.encode() not in (tmp_path / "mlflow.db").read_bytes()


def test_delivering_twice_changes_nothing(store: StudyStore, tmp_path: Path):
    factory.add_trials(store, 12)
    finish(store)
    assert deliver(store, tmp_path)
    before = runs_of(default_uri(tmp_path))
    finish(store)
    assert deliver(store, tmp_path)
    after = runs_of(default_uri(tmp_path))
    assert set(after[1]) == set(before[1])
    assert after[0].info.run_id == before[0].info.run_id
    assert after[0].data.metrics == before[0].data.metrics
    history = client_of(default_uri(tmp_path)).get_metric_history(after[0].info.run_id, "hypervolume")
    assert len(history) == 1


def test_a_death_in_the_middle_of_a_delivery_makes_no_second_run(
    store: StudyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    factory.add_trials(store, 12)
    finish(store)
    written = []

    def die_at_the_third(self: StudyRuns, *args: Any, **kwargs: Any) -> None:
        written.append(args)
        if len(written) >= 3:
            raise RuntimeError("the driver dies")
        original(self, *args, **kwargs)

    original = StudyRuns.write
    monkeypatch.setattr(StudyRuns, "write", die_at_the_third)
    tracker = Tracker(store, tmp_path, None, None)
    tracker.start()
    wait_until(lambda: len(written) > 3)
    assert not tracker.close(0.1)
    wait_until(lambda: not tracker._thread.is_alive())
    monkeypatch.setattr(StudyRuns, "write", original)
    assert deliver(store, tmp_path)
    _, children = runs_of(default_uri(tmp_path))
    assert set(children) == {trial.number for trial in StudyReport.load(store).front}
    assert all("accuracy" in run.data.metrics and run.info.status == "FINISHED" for run in children.values())


def test_of_runs_that_a_slow_server_has_made_twice_one_stays(store: StudyStore, tmp_path: Path):
    """A create of which nothing was heard is tried again, and may have been carried out nevertheless."""
    uri = default_uri(tmp_path)
    factory.add_trials(store, 8)
    finish(store)
    assert deliver(store, tmp_path)
    before = runs_of(uri)

    def make_twice(run: Any) -> None:
        kept = {key: value for key, value in run.data.tags.items() if key != "mlflow.note.content"}
        client_of(uri).create_run(run.info.experiment_id, start_time=run.info.start_time, tags=kept)

    for run in (before[0], *before[1].values()):
        make_twice(run)
    finish(store)
    tracker = Tracker(store, tmp_path, None, None)
    assert tracker._deliver_next()
    after = runs_of(uri)
    assert after[0].info.run_id == before[0].info.run_id
    assert {run.info.run_id for run in after[1].values()} == {run.info.run_id for run in before[1].values()}

    make_twice(before[0])  # carried out later than it was looked for
    assert tracker._deliver_next()
    assert runs_of(uri)[0].info.run_id == before[0].info.run_id


def test_runs_that_may_not_be_deleted_hold_nothing_up(
    store: StudyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    def forbidden(*_: object) -> None:
        raise MlflowException("permission denied")

    factory.add_trials(store, 4)
    finish(store)
    assert deliver(store, tmp_path)
    parent, _ = runs_of(default_uri(tmp_path))
    client_of(default_uri(tmp_path)).create_run(parent.info.experiment_id, tags=parent.data.tags)
    monkeypatch.setattr(MlflowClient, "delete_run", forbidden)
    finish(store)
    assert deliver(store, tmp_path)
    assert "permission denied" in caplog.text


class NeverDone(BaseHTTPRequestHandler):
    """An MLflow that knows the experiment and lets whoever makes a run wait in vain."""

    made: list[str]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        experiment = {"experiment_id": "1", "name": "x", "lifecycle_stage": "active"}
        answer = json.dumps({"experiment": experiment, "runs": []}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.endswith("/runs/create"):
            self.made.append(self.path)
            time.sleep(2)
        else:
            self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


def test_nobody_but_the_tracker_makes_a_run_again(
    store: StudyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """MLflow's client would, without looking whether the first one was made, after it has waited in vain."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setattr(NeverDone, "made", [], raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), NeverDone)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    factory.add_trials(store, 4)
    finish(store)
    tracker = Tracker(store, tmp_path, f"http://127.0.0.1:{server.server_port}", None)
    with pytest.raises(Exception, match="timed out"):
        tracker._deliver_next()
    server.shutdown()
    server.server_close()
    assert len(NeverDone.made) == 1


def test_trials_are_read_once_however_often_mlflow_fails(
    store: StudyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from mlflow import MlflowClient

    def full(*_: object) -> None:
        failed.append(1)
        raise OSError("the artifact store is full")

    def counted(*row: Any) -> TrialRecord:
        read.append(row[0].number)
        return record(*row)

    failed: list[int] = []
    read: list[int] = []
    record = StudyStore._record
    factory.add_trials(store, 8)
    finish(store)
    monkeypatch.setattr(MlflowClient, "log_artifact", full)
    monkeypatch.setattr(StudyStore, "_record", staticmethod(counted))
    monkeypatch.setattr(tracker_module, "FIRST_PAUSE_S", 0.1)
    monkeypatch.setattr(tracker_module, "LONGEST_PAUSE_S", 0.1)
    tracker = Tracker(store, tmp_path, None, None)
    tracker.start()
    wait_until(lambda: len(failed) >= 3)
    assert not tracker.close(0.1)
    wait_until(lambda: not tracker._thread.is_alive())
    assert sorted(read) == list(range(8))


def test_a_resumed_study_with_a_larger_budget_goes_on_in_its_run(store: StudyStore, tmp_path: Path):
    factory.add_trials(store, 8)
    finish(store)
    assert deliver(store, tmp_path, interrupted=True)
    first, _ = runs_of(default_uri(tmp_path))
    assert first.info.status == "KILLED"
    store.set_job(store.study().job.with_overrides(trials=999))  # MLflow refuses to change a parameter
    factory.add_trials(store, 8, seed=1)
    factory.announce_front(store)
    assert deliver(store, tmp_path)
    parent, _ = runs_of(default_uri(tmp_path))
    assert (parent.info.run_id, parent.info.status) == (first.info.run_id, "RUNNING")
    assert parent.data.metrics["trials_done"] == 16


@pytest.mark.slow
def test_long_values_fit_the_limits(tmp_path: Path):
    job = factory.job(objectives=["accuracy", "macs"], dataset={"kind": "npz", "path": "/" + "x" * 9000})
    store = factory.new_store(tmp_path, job)
    factory.add_trials(store, 150)
    for trial in range(150, 400):
        factory.add_trials(store, 1, seed=trial)
    finish(store)
    assert deliver(store, tmp_path)
    parent, _ = runs_of(default_uri(tmp_path))
    assert len(parent.data.params["dataset.path"]) == MAX_PARAM
    assert len(parent.data.tags["mlflow.note.content"]) <= MAX_TAG


def test_two_folders_with_one_job_are_two_studies(tmp_path: Path):
    uri = f"sqlite:///{tmp_path / 'shared.db'}"
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        one = factory.new_store(tmp_path / name)
        factory.add_trials(one, 3)
        finish(one)
        tracker = Tracker(one, tmp_path / name, uri, "shared")
        tracker.start()
        assert tracker.close(120)
        time.sleep(0.01)
    client = client_of(uri)
    runs = client.search_runs([client.get_experiment_by_name("shared").experiment_id])
    assert sum(run.data.tags["vitsearch.kind"] == "study" for run in runs) == 2


@pytest.mark.slow
def test_a_server_that_comes_up_late_gets_everything(
    server: Server, store: StudyStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    factory.add_trials(store, 6)
    factory.announce_front(store)
    with caplog.at_level(logging.WARNING):
        absent = Tracker(store, tmp_path, server.url, None)
        absent.start()
        wait_until(lambda: "MLflow did not take" in caplog.text, 120)
        assert not absent.close(0.1)
    assert len(store.undelivered()) == 1

    patient = Tracker(store, tmp_path, server.url, None)
    patient.start()
    time.sleep(1)
    server.start()
    wait_until(lambda: not store.undelivered(), 120)
    factory.add_trials(store, 20)
    factory.finalize(store)
    finish(store)
    assert patient.close(120)
    parent, children = runs_of(server.url)
    assert parent.info.status == "FINISHED"
    assert {n for n, run in children.items() if run.data.tags["pareto"] == "current"} == {
        trial.number for trial in StudyReport.load(store).front
    }
    assert artifacts(server.url, parent) == {"pareto.html", "pareto.png", "trials.csv", "job.yaml"}
    assert "plotly.js v" in text_of(server.url, parent, "pareto.html", tmp_path)

    before = {run.info.run_id for run in children.values()}
    finish(store)
    assert deliver(store, tmp_path, server.url)
    assert {run.info.run_id for run in runs_of(server.url)[1].values()} == before


@pytest.mark.slow
def test_the_server_of_a_folder_shows_what_the_driver_wrote_there(server: Server):
    """The driver writes into the folder's database directly; the folder's server shows runs and files."""
    server.start()
    store = factory.new_store(server.folder, factory.job(name="local"))
    factory.add_trials(store, 6)
    finish(store)
    assert deliver(store, server.folder)
    parent, _ = runs_of(server.url, "vitsearch/local")
    assert {"pareto.html", "trials.csv"} <= artifacts(server.url, parent)
    for path in ("pareto.png", "pareto.html"):
        with urlopen(f"{server.url}/get-artifact?path={path}&run_uuid={parent.info.run_id}") as answer:  # noqa: S310
            assert len(answer.read()) > 10_000
    experiment = client_of(server.url).get_experiment_by_name("vitsearch/local")
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    page = study_url(server.url, server.folder, store.study().job)
    assert page == f"{server.url}/#/experiments/{experiment.experiment_id}/runs?workflowType=machine_learning"
    remote = factory.job(name="local", tracking={"uri": server.url})
    assert study_url(server.url, Path("elsewhere"), remote) == page


def test_a_page_that_is_there_before_the_first_trial_makes_no_second_run(
    store: StudyStore, server: Server, tmp_path: Path
):
    server.start()
    store.set_job(factory.job(name="greeted"))
    tracker = Tracker(store, tmp_path, server.url, "vitsearch/greeted")
    assert tracker.page == f"{server.url}/#/experiments?workflowType=machine_learning"
    tracker.start()
    wait_until(lambda: "/runs" in tracker.page)
    factory.add_trials(store, 12)
    store.enqueue("front", {"members": [trial.number for trial in StudyReport.load(store).front]})
    assert tracker.close(60)
    finish(store)
    again = Tracker(store, tmp_path, server.url, "vitsearch/greeted")
    again.start()
    assert again.close(60)
    assert again.page == tracker.page
    runs_of(server.url, "vitsearch/greeted")
