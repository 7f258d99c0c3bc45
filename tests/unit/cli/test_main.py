"""What a process of ours writes."""

from __future__ import annotations

import subprocess
import sys

import pytest


def test_half_a_character_is_written_as_what_it_is():
    program = r"import typer; from vitsearch.cli.main import run_app; run_app(lambda: typer.echo('a\ud800b'))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout, found.stderr) == (0, "a\\ud800b\n", "")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("ConnectionRefusedError(111, 'Connection refused')", "Connection refused"),
        ("OSError('ftp://me:geheim@h/x: FTPError: no')", "ftp://***@h/x: FTPError: no"),
        ("OSError(28, 'No space left on device', '/data/x')", "/data/x: No space left on device"),
    ],
)
def test_what_a_network_refuses_is_no_error_of_the_output(error: str, words: str):
    program = f"from vitsearch.cli.main import run_app\ndef fail(): raise {error}\nrun_app(fail)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (1, f"error: {words}\n")


def test_what_a_database_refuses_is_one_line_without_its_rows():
    program = """
from sqlalchemy import create_engine, text
from vitsearch.cli.main import run_app
from vitsearch.storage import open_engine

def fail():
    with open_engine("sqlite://").begin() as connection:
        connection.execute(text("INSERT INTO studies (name) VALUES (:name)"), {"name": "geheim"})

run_app(fail)
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (1, "")
    (line,) = found.stderr.splitlines()
    assert line.startswith("error: the study's database failed (")
    assert "geheim" not in line
