"""Searches that are interrupted or killed, for real."""

from __future__ import annotations

import csv
import json
import os
import signal
import sqlite3
import subprocess
import time
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest
from sqlalchemy import Engine, text

from tests.e2e.harness import (
    RESULTS,
    assert_front_is_that_of_the_results,
    query,
    results_stored,
    run,
    start,
    wait_for,
    write_job,
)
from tests.postgres import postgres_server, url_of
from vitsearch.errors import StudyError
from vitsearch.storage import StudyStore, open_engine

pytestmark = pytest.mark.xdist_group("e2e-survive")


def all_told_once(out: Path, trials: int) -> None:
    rows = query(out, "SELECT number, state, kind FROM trials ORDER BY number")
    assert [number for number, _, _ in rows] == list(range(len(rows)))
    assert {state for _, state, _ in rows} == {"told"}
    assert sum(kind == "evaluate" for _, _, kind in rows) == trials


@pytest.mark.slow
def test_a_killed_driver_is_resumed_without_loss(tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = write_job(tmp_path, search={"trials": 8}, train={"epochs": 8})
    process = start("run", job, "--out", out)
    wait_for(lambda: results_stored(out) >= 2, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    before = query(out, "SELECT trial, outcome FROM results ORDER BY trial")

    found = run("resume", out)

    assert found.returncode == 0, found.stderr
    after = dict(query(out, "SELECT trial, outcome FROM results"))
    assert all(after[trial] == outcome for trial, outcome in before)
    all_told_once(out, 8)
    assert_front_is_that_of_the_results(out)


@pytest.mark.slow  # test_cli_interrupt.py sends signals, too
def test_ctrl_c_once_reports_the_front_and_can_be_resumed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = write_job(tmp_path, search={"trials": 40}, train={"epochs": 8})
    process = start("run", job, "--out", out)
    wait_for(lambda: results_stored(out) >= 3, process)
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=120)

    assert process.returncode == 130, output
    assert "Pareto front of tiny" in output
    assert (out / "pareto.png").exists()
    assert "leased" not in {state for (state,) in query(out, "SELECT state FROM trials")}
    assert query(out, "SELECT state, owner FROM studies") == [("interrupted", "")]

    found = run("resume", out, "--trials", str(results_stored(out) + 2))
    assert found.returncode == 0, found.stderr


def trainers(parent: int) -> list[psutil.Process]:
    """Worker processes with the most processor time, which Ray names after the actor's method."""
    children = psutil.Process(parent).children(recursive=True)
    return [p for p in children if any("Trainer" in part for part in p.cmdline())]


@pytest.mark.slow  # tests/conformance/test_executors.py kills one, too
def test_a_killed_trainer_costs_one_attempt(tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = write_job(tmp_path, search={"trials": 2, "max_workers": 1}, train={"epochs": 15, "early_stop": False})
    process = start("run", job, "--out", out)
    wait_for(lambda: bool(list(out.glob("artifacts/trials/*/epoch.pt"))), process)
    victim = trainers(process.pid)[0]
    victim.kill()
    output, _ = process.communicate(timeout=240)

    assert process.returncode == 0, output
    all_told_once(out, 2)
    assert max(attempts for (attempts,) in query(out, "SELECT attempts FROM trials")) == 2
    outcomes = [json.loads(text) for (text,) in query(out, "SELECT outcome FROM results")]
    assert {o["kind"] for o in outcomes} == {"result"}
    assert_front_is_that_of_the_results(out)


def kill_trainer(process: subprocess.Popen[str], out: Path, attempt: int) -> None:
    """Kill the only trainer once trial 0 has trained for an epoch in this attempt."""
    since, checkpoint = time.time(), out / "artifacts" / "trials" / "00000" / "epoch.pt"

    def trains() -> bool:
        if not checkpoint.exists() or checkpoint.stat().st_mtime < since:
            return False
        return query(out, "SELECT state, attempts FROM trials WHERE number = 0") == [("leased", attempt)]

    wait_for(trains, process)
    (victim,) = trainers(process.pid)
    victim.kill()


@pytest.mark.slow
def test_a_trial_whose_trainers_are_all_killed_fails_with_a_reason(tmp_path: Path) -> None:
    out = tmp_path / "out"
    search = {"trials": 2, "max_workers": 1, "max_retries": 1}
    job = write_job(tmp_path, search=search, train={"epochs": 30, "early_stop": False})
    process = start("run", job, "--out", out)
    for attempt in (1, 2):
        kill_trainer(process, out, attempt)
    output, _ = process.communicate(timeout=240)

    assert process.returncode == 0, output
    all_told_once(out, 2)
    assert query(out, "SELECT attempts FROM trials WHERE kind = 'evaluate' ORDER BY number") == [(2,), (1,)]
    lost, well = (json.loads(text) for (text,) in query(out, "SELECT outcome FROM results ORDER BY trial"))
    assert (lost["kind"], lost["stage"], lost["failure"]) == ("failure", "worker", "worker_lost")
    assert lost["message"]
    assert well["kind"] == "result"
    with (out / "trials.csv").open(encoding="utf-8", newline="") as file:
        first = next(csv.DictReader(file))
    assert (first["trial"], first["fate"]) == ("0", "failed")
    assert first["why"] == f"worker: worker_lost: {lost['message']}"
    assert_front_is_that_of_the_results(out)


def take_over(out: Path) -> int:
    """Make a driver on another machine the study's, as the one here would find it; returns the results so far."""
    with closing(sqlite3.connect(out / "study.db", timeout=30, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE studies SET epoch = epoch + 1, owner = 'elsewhere:1:0', lease_until = 4e9")
        stored = int(connection.execute("SELECT count(*) FROM results").fetchone()[0])
        connection.execute("COMMIT")
    return stored


@pytest.mark.slow
def test_a_driver_that_another_has_replaced_ends_and_writes_nothing_more(tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = write_job(tmp_path, search={"trials": 8}, train={"epochs": 8, "early_stop": False})
    process = start("run", job, "--out", out, stderr=subprocess.PIPE)
    wait_for(lambda: results_stored(out) >= 1, process)
    owners = "SELECT epoch, owner, lease_until FROM studies"
    ((epoch, _, _),) = query(out, owners)
    stored = take_over(out)
    _, said = process.communicate(timeout=40)

    assert process.returncode == 1, said
    assert "another driver has taken over" in said
    assert "Traceback" not in said
    assert query(out, owners) == [(epoch + 1, "elsewhere:1:0", 4e9)]
    assert results_stored(out) == stored
    time.sleep(5)
    assert results_stored(out) == stored

    with closing(sqlite3.connect(out / "study.db", timeout=30)) as connection, connection:
        connection.execute("UPDATE studies SET lease_until = 0")
    before = query(out, "SELECT trial, outcome FROM results")
    found = run("resume", out)
    assert found.returncode == 0, found.stderr
    all_told_once(out, 8)
    assert set(before) <= set(query(out, "SELECT trial, outcome FROM results"))
    assert_front_is_that_of_the_results(out)


@pytest.mark.slow
def test_a_second_driver_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start("run", write_job(tmp_path, search={"trials": 60}, train={"epochs": 20}), "--out", out)
    wait_for(lambda: results_stored(out) >= 1, process)
    try:
        found = run("resume", out)
        assert found.returncode == 1
        assert "is driven by" in found.stderr
        assert process.poll() is None
    finally:
        os.kill(process.pid, signal.SIGINT)
        process.communicate(timeout=120)


@pytest.mark.slow
def test_a_database_that_is_gone_for_a_minute(tmp_path: Path) -> None:
    """PostgreSQL stops under a running search; the driver waits, and nothing is lost or told twice."""
    with postgres_server() as server:
        url = url_of(server)
        job = write_job(tmp_path, search={"trials": 8}, train={"epochs": 4}, storage={"url": url})
        engine = open_engine(url)
        process = start("run", job, "--out", tmp_path / "out")
        try:
            wait_for(lambda: has_study(engine), process)
            store = StudyStore.find(engine, "tiny")
            wait_for(lambda: sum(t.outcome is not None for t in store.trials()) >= 2, process)
            server.stop()
            time.sleep(60)
            assert process.poll() is None, "the search has ended"
            server.ensure_postgres_running()
            output, _ = process.communicate(timeout=240)

            assert process.returncode == 0, output
            assert "the database does not answer" in output
            trials = store.trials()
            assert {trial.state for trial in trials} == {"told"}
            assert [trial.number for trial in trials] == list(range(len(trials)))
            assert sum(trial.kind == "evaluate" for trial in trials) == 8
            assert all(trial.succeeded for trial in trials if trial.kind == "evaluate")
            with engine.connect() as connection:
                assert_front_is_that_of_the_results(tmp_path / "out", connection.execute(text(RESULTS)))
        finally:
            process.kill()
            engine.dispose()


def has_study(engine: Engine) -> bool:
    """Whether the search has made its study."""
    with suppress(StudyError):
        StudyStore.find(engine, "tiny")
        return True
    return False
