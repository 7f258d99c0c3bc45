"""What a process of ours writes."""

from __future__ import annotations

import subprocess
import sys


def test_half_a_character_is_written_as_what_it_is():
    program = r"import typer; from vitsearch.cli.main import run_app; run_app(lambda: typer.echo('a\ud800b'))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout, found.stderr) == (0, "a\\ud800b\n", "")
