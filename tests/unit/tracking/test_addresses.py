import sqlite3
import sys
from pathlib import Path

import pytest

from tests.unit.report import factory
from vitsearch.tracking import experiment_url, experiments_url, run_url, server_command, study_url


def test_pages_open_in_the_training_layout():
    base = "http://127.0.0.1:5000/"
    assert experiment_url(base, "7") == "http://127.0.0.1:5000/#/experiments/7/runs?workflowType=machine_learning"
    assert (
        run_url(base, "7", "ab") == "http://127.0.0.1:5000/#/experiments/7/runs/ab?workflowType=machine_learning"
    )
    assert "pw" not in run_url("https://user:pw@host", "7", "ab")


def test_the_server_of_a_folder(tmp_path: Path):
    command = server_command(tmp_path / "a b", 5001)
    assert command[:4] == [sys.executable, "-m", "mlflow", "server"]
    assert f"sqlite:///{tmp_path.resolve()}/a b/mlflow.db" in command
    assert (tmp_path / "a b" / "mlartifacts").resolve().as_uri() in command
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--port") + 1] == "5001"


@pytest.mark.parametrize("host", ["203.0.113.7", "Head.example.com", "10.0.0.5"])
def test_a_server_that_others_reach_answers_to_its_address(host: str, tmp_path: Path):
    """MLflow refuses every host that it is not told of, with 403."""
    security = pytest.importorskip("mlflow.server.security_utils")
    command = server_command(tmp_path, 5001, host)
    allowed = command[command.index("--allowed-hosts") + 1].split(",")
    for asked in (host.lower(), f"{host.lower()}:5001", f"{host}:5001", "localhost:5001", "127.0.0.1:5001"):
        assert security.is_allowed_host_header(allowed, asked)
    for asked in ("192.168.1.10:5001", "172.20.0.3", "[::1]:5001"):
        assert security.is_allowed_host_header(allowed, asked), "as where nothing is said: a port is mapped to it"
    for asked in ("evil.example.com", "evil.example.com:5001", "172.32.0.1:5001"):
        assert not security.is_allowed_host_header(allowed, asked)
    origins = command[command.index("--cors-allowed-origins") + 1].split(",")
    assert not security.should_block_cors_request(f"http://{host.lower()}:5001", "POST", origins), "its own pages"
    assert security.should_block_cors_request("http://evil.example.com", "POST", origins)


def test_what_mlflow_is_told_by_its_own_variables_counts_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_SERVER_ALLOWED_HOSTS", "proxy.example.com")
    command = server_command(tmp_path, 5001, "203.0.113.7")
    assert "--allowed-hosts" not in command
    assert "--cors-allowed-origins" in command


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost"])
def test_a_server_of_this_machine_alone_answers_as_mlflow_does(host: str, tmp_path: Path):
    assert "--allowed-hosts" not in server_command(tmp_path, 5001, host)


def test_the_page_of_a_study(tmp_path: Path):
    job, base = factory.job(), "http://127.0.0.1:5000"
    listing = f"{base}/#/experiments?workflowType=machine_learning"
    assert study_url(base, tmp_path, job) == listing
    (tmp_path / "mlflow.db").write_text("not a database, and long enough to be looked into " * 20)
    assert study_url(base, tmp_path, job) == listing
    (tmp_path / "mlflow.db").unlink()
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        connection.execute("CREATE TABLE experiments (experiment_id INTEGER, name TEXT)")
        connection.execute("INSERT INTO experiments VALUES (3, 'vitsearch/digits')")
    connection.close()
    assert study_url(base, tmp_path, job) == experiment_url(base, "3")
    assert study_url("databricks://u:geheim@profile", tmp_path, job) == "databricks://***@profile"


def test_what_an_address_leaves_open_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NO_SUCH", raising=False)
    (tmp_path / "password").write_text("geheim/x\n")
    for uri in (f"http://me:${{file:{tmp_path}/password}}@127.0.0.1:1", "http://me:${NO_SUCH}@127.0.0.1:1"):
        page = study_url(uri, tmp_path, factory.job(tracking={"uri": uri}))
        assert "geheim" not in page
        assert page in {uri, "http://127.0.0.1:1/#/experiments?workflowType=machine_learning"}
    assert experiments_url(uri) == "http://127.0.0.1:1/#/experiments?workflowType=machine_learning"


def test_a_server_that_is_away_gives_the_list(tmp_path: Path):
    job = factory.job(tracking={"uri": "http://127.0.0.1:1"})
    assert study_url("http://127.0.0.1:1", tmp_path, job).endswith("/#/experiments?workflowType=machine_learning")
