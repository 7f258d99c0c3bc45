"""A search whose database and MLflow store ask for a password: it is nowhere but where it was put."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest
import yaml

from tests.command_line import PROGRAM
from tests.conftest import Guarded
from tests.e2e.harness import ENVIRONMENT, run, write_job
from vitsearch.errors import InputError
from vitsearch.storage import StudyStore, open_engine

pytestmark = pytest.mark.xdist_group("e2e-passwords")


def spellings(password: str) -> set[str]:
    return {password, quote(password, safe=""), quote(password), password[:7]}


def commands() -> str:
    """What the process list shows of every process."""
    lines = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            lines.append(" ".join(process.cmdline()))
    return "\n".join(lines)


@pytest.mark.slow
def test_a_password_is_only_where_it_was_put(
    guarded: Guarded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    psycopg = pytest.importorskip("psycopg")
    secret_file = tmp_path / "secrets" / "password"
    secret_file.parent.mkdir()
    secret_file.write_text(f"{guarded.password}\n")
    seen = tmp_path / "seen"
    seen.mkdir()
    url = guarded.url(f"${{file:{secret_file}}}")
    records = guarded.url("${TRACKING_PASSWORD}", "records")
    job = write_job(
        seen,
        search={"trials": 2, "max_workers": 1},
        storage={"url": url},
        tracking={"enabled": True, "uri": records},
    )
    ray_folder = Path(tempfile.mkdtemp(prefix="vs-", dir="/tmp"))  # names of sockets are short
    environment = {**ENVIRONMENT, "TRACKING_PASSWORD": guarded.password, "RAY_TMPDIR": str(ray_folder)}
    with (seen / "output").open("wb") as output:
        process = subprocess.Popen(
            [*PROGRAM, "run", str(job), "--out", str(seen / "out"), "--json"],
            stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=seen,
        )  # fmt: skip
        listed = ""
        while process.poll() is None:
            listed += commands()
            time.sleep(0.5)
    output_text = (seen / "output").read_text()
    assert process.returncode == 0, output_text
    assert "did not take" not in output_text

    status = run("pareto", seen / "out", "--json")
    assert status.returncode == 0, status.stderr
    kept = yaml.safe_load((seen / "out" / "job.yaml").read_text())
    assert (kept["storage"]["url"], kept["tracking"]["uri"]) == (url, records)

    engine = open_engine(url)
    stored = StudyStore.find(engine, "tiny").study().job
    engine.dispose()
    assert (stored.storage.url, stored.tracking.uri) == (url, records)
    monkeypatch.setenv("PGPASSWORD", guarded.password)
    with psycopg.connect(guarded.url("", "records").replace("+psycopg", "", 1)) as connection:
        query = "SELECT key, value FROM params WHERE key IN ('storage.url', 'tracking.uri')"
        assert dict(connection.execute(query).fetchall()) == {"storage.url": url, "tracking.uri": records}

    places = {"the process list": listed, "pareto --json": status.stdout + status.stderr}
    logs = [file for file in ray_folder.rglob("*") if file.is_file() and not file.is_symlink()]
    assert logs, "Ray's logs are not where they were looked for"
    for file in [*seen.rglob("*"), *logs]:
        if file.is_file():
            places[str(file)] = file.read_bytes().decode("latin-1")
    for name, text in places.items():
        assert not [one for one in spellings(guarded.password) if one in text], name
    shutil.rmtree(ray_folder, ignore_errors=True)


@pytest.mark.parametrize("field", ["storage.url", "tracking.uri"])
def test_a_variable_that_is_missing_is_one_line_before_anything_is_made(tmp_path: Path, field: str) -> None:
    part, _, name = field.partition(".")
    job = write_job(tmp_path, **{part: {"enabled": True} if part == "tracking" else {}})
    written = yaml.safe_load(job.read_text())
    written[part][name] = "postgresql+psycopg://me:${NO_SUCH_VARIABLE}@127.0.0.1/db"
    job.write_text(yaml.safe_dump(written))
    assert "NO_SUCH_VARIABLE" not in os.environ
    found = run("run", job, "--out", tmp_path / "out")
    assert found.returncode == InputError.exit_code
    assert found.stderr == (
        f"error: {job}: {field}: needs the environment variable NO_SUCH_VARIABLE, which is not set where the "
        f"search is driven; export NO_SUCH_VARIABLE there, or name a file: ${{file:/FOLDER/FILE}}\n"
    )
    assert not (tmp_path / "out").exists()
    assert run("validate", job).returncode == 0  # it may be driven elsewhere
