"""Pages in a real browser: the front without a network, and a study in MLflow's server."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil
import pytest

from tests.command_line import PROGRAM
from tests.e2e.harness import ENVIRONMENT, run, write_job
from tests.unit.report import factory
from vitsearch.cli.run_folder import job_yaml
from vitsearch.report import StudyReport
from vitsearch.report.plots import front_html
from vitsearch.tracking.addresses import run_url

pytestmark = pytest.mark.xdist_group("e2e-browser")

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
START_S, STOP_S, PAGE_MS = 120, 120, 90_000  # a shared machine may take its time


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not Path(CHROMIUM).exists():
        pytest.skip("chromium is not installed")
    with api.sync_playwright() as playwright:
        one = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield one
        one.close()


class Watched:
    """A page that remembers what it asked of the network and what it complained about."""

    def __init__(self, browser: Any, *, offline: bool) -> None:
        self.context = browser.new_context(viewport={"width": 1500, "height": 1000}, offline=offline)
        self.page = self.context.new_page()
        self.page.set_default_timeout(PAGE_MS)
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))


@contextlib.contextmanager
def watched(browser: Any, *, offline: bool = False) -> Iterator[Watched]:
    one = Watched(browser, offline=offline)
    try:
        yield one
    finally:
        one.context.close()


@pytest.mark.parametrize(
    "objectives", [["accuracy", "eer"], ["accuracy", "eer", "params"]], ids=["two", "three objectives"]
)
def test_the_front_opens_without_a_network(browser: Any, tmp_path: Path, objectives: list[str]) -> None:
    report = factory.report(tmp_path, factory.job(objectives=objectives))
    page_file = tmp_path / "pareto.html"
    page_file.write_text(front_html(report), encoding="utf-8")
    with watched(browser, offline=True) as one:
        page = one.page
        page.goto(page_file.as_uri())
        page.wait_for_selector("#figure0 .scatterlayer .points path.point")
        assert page.locator("#figure0 g.infolayer").get_by_text("accuracy").count()
        drawn = page.evaluate("document.getElementById('figure0').data.map(t => [t.name, t.x.length])")
        assert dict(drawn)["Pareto front"] == len(report.front)

        texts = page.evaluate("document.getElementById('figure0').data.find(t => t.name == 'Pareto front').text")
        numbers = {int(found) for text in texts for found in re.findall(r"trial (\d+)", text)}
        assert numbers == {trial.number for trial in report.front}
        index = len(report.front) // 2
        x, y = page.evaluate(
            """index => {
                const figure = document.getElementById('figure0'), layout = figure._fullLayout;
                const front = figure.data.find(t => t.name == 'Pareto front');
                const box = figure.getBoundingClientRect();
                return [box.left + layout.xaxis._offset + layout.xaxis.d2p(front.x[index]),
                        box.top + layout.yaxis._offset + layout.yaxis.d2p(front.y[index])];
            }""",
            index,
        )
        page.mouse.move(x, y)
        page.wait_for_selector("#figure0 .hoverlayer .hovertext")
        assert f"trial {report.front[index].number}" in page.text_content("#figure0 .hoverlayer")

        rows = page.locator("table tr").all_inner_texts()
        assert len(rows) == 1 + len(report.front)
        assert sum("★ knee" in row for row in rows) == 1
        assert page.locator("#figure1 .parcoords").count() == (1 if len(objectives) > 2 else 0)
        assert one.requests == [page_file.as_uri()], "everything is inside the page"
        assert one.errors == []


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """``vitsearch ui FOLDER`` on a free port until Ctrl-C; the address it prints."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    log = folder.parent / f"ui-{port}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*PROGRAM, "ui", str(folder), "--port", str(port)],
            stdout=file, stderr=subprocess.STDOUT, env=ENVIRONMENT, start_new_session=True,
        )  # fmt: skip
    children: list[psutil.Process] = []
    try:
        wait_until_healthy(port, process, log)
        found = re.match(r"open (\S+) +\(Ctrl-C stops\)\n", log.read_text())
        assert found, log.read_text()
        children = psutil.Process(process.pid).children(recursive=True)
        yield found.group(1)
        process.send_signal(signal.SIGINT)
        assert process.wait(STOP_S) in {0, 130}, log.read_text()
        _, alive = psutil.wait_procs(children, timeout=STOP_S)
        assert alive == [], "nothing of the server is left"
        assert "Traceback" not in log.read_text()
    finally:
        for left in (process, *children):
            with contextlib.suppress(psutil.NoSuchProcess):
                left.kill()
        process.wait()


def wait_until_healthy(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(OSError), urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            if answer.status == 200:
                return
        time.sleep(0.2)
    raise AssertionError(f"not up in {START_S} s: {log.read_text()}")


@pytest.mark.slow
def test_the_server_starts_answers_and_stops_at_ctrl_c(tmp_path: Path) -> None:
    folder = tmp_path / "a study's folder"
    folder.mkdir()
    store = factory.new_store(folder)
    (folder / "job.yaml").write_text(job_yaml(store.study().job), encoding="utf-8")
    factory.add_trials(store, 3)
    with served(folder) as address:
        base = address.partition("/#")[0]
        with urlopen(f"{base}/version") as answer:  # noqa: S310 - our own server
            assert answer.read().startswith(b"3.")
        assert listens_only_here(int(base.rpartition(":")[2]))
    assert StudyReport.load(store).front, "the study is as it was"


def listens_only_here(port: int) -> bool:
    found = [c.laddr.ip for c in psutil.net_connections("inet") if c.status == "LISTEN" and c.laddr.port == port]
    return found == ["127.0.0.1"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real search, recorded in MLflow."""
    folder = tmp_path_factory.mktemp("browser")
    job = write_job(
        folder, search={"trials": 4}, final={"retrain": "knee", "epochs": 2}, tracking={"enabled": True}
    )
    found = run("run", job, "--out", folder / "out")
    assert found.returncode == 0, found.stderr
    return folder / "out"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_study_in_mlflow(browser: Any, finished: Path) -> None:
    front = json.loads(run("pareto", finished, "--json").stdout)
    members = {member["trial"]: member for member in front["front"]}
    with served(finished) as address, watched(browser) as one:
        base, page = address.partition("/#")[0], one.page

        page.goto(address)
        page.wait_for_selector("a:has-text('tiny')")
        page.get_by_text("Model registry", exact=True).wait_for()
        parent, children, count = runs_of(base)
        page.get_by_text(f"{count} matching runs").wait_for()
        for word in ("Prompts", "Agent versions", "Judges"):  # of the layout for language models
            assert page.get_by_text(word, exact=True).count() == 0

        page.goto(run_url(base, parent["experiment_id"], parent["run_id"]))
        table = page.locator("table", has_text="★ knee")
        table.wait_for()
        rows = table.locator("tbody tr")
        assert rows.count() == len(members)
        shown = [int(re.split(r"\s", row.strip())[0]) for row in rows.all_inner_texts()]
        assert set(shown) == set(members)
        assert "Finished" in page.inner_text("body")

        assert set(children) == set(members)
        knee = children[front["knee"]]
        page.goto(run_url(base, knee["experiment_id"], knee["run_id"]))
        page.get_by_text("Artifacts", exact=True).click()
        page.get_by_text("candidate.json", exact=True).click()
        page.get_by_text('"patch_size"').first.wait_for()
        width = members[front["knee"]]["candidate"]["architecture"]["width"]
        assert re.search(rf'"width":\s*{width}\b', page.inner_text("body"))

        page.goto(run_url(base, parent["experiment_id"], parent["run_id"]))
        page.get_by_text("Artifacts", exact=True).click()
        page.get_by_text("pareto.html", exact=True).click()
        page.frame_locator("iframe").locator("#figure0 .scatterlayer path.point").first.wait_for()
        assert {url.split("/")[2] for url in one.requests if url.startswith("http")} == {base.split("/")[2]}


def runs_of(base: str) -> tuple[dict[str, Any], dict[int, dict[str, Any]], int]:
    """The study's run, its front members' runs by number, and how many runs there are with former members."""
    from mlflow import MlflowClient

    client = MlflowClient(base)
    experiment = client.get_experiment_by_name("vitsearch/tiny")
    runs = client.search_runs([experiment.experiment_id])
    parent, members = {}, {}
    for found in runs:
        tags, info = found.data.tags, {"run_id": found.info.run_id, "experiment_id": found.info.experiment_id}
        if tags["vitsearch.kind"] == "study":
            parent = info
        elif tags["pareto"] == "current":
            members[int(tags["vitsearch.trial"])] = info
    return parent, members, len(runs)
