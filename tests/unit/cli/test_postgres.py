"""The PostgreSQL of a site: told where it does not start, found whoever has started it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from vitsearch.cli import postgres
from vitsearch.errors import StudyError


@pytest.mark.parametrize(
    "error",
    [
        subprocess.CalledProcessError(1, ["/there/pg_ctl", "-w", "start"]),
        subprocess.TimeoutExpired("pg_ctl", 10),
        AssertionError("not ready"),
        RuntimeError("another version"),
        PermissionError(13, "Permission denied"),
    ],
)
def test_a_server_that_does_not_start_is_one_line_with_its_last_words(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fails(folder: Path, **_: object) -> None:
        (folder / "log").write_text("LOG: starting\nFATAL: no room\n")
        raise error

    monkeypatch.setattr(postgres, "_library", lambda: SimpleNamespace(get_server=fails))
    with pytest.raises(
        StudyError, match=r"does not come up in .* ends with: LOG: starting / FATAL: no room"
    ) as caught:
        postgres.start(tmp_path / "postgres")
    assert "\n" not in str(caught.value)


def test_a_server_that_somebody_has_started_is_found_and_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An `up` that was killed meanwhile could not record it."""
    folder = tmp_path / "postgres"
    folder.mkdir()
    program = tmp_path / "postgres.py"
    program.write_text(
        "import sys, time; open('/proc/self/comm', 'w').write('postgres'); print('', flush=True); time.sleep(60)"
    )
    assert postgres.running(folder) is None
    with subprocess.Popen([sys.executable, program, "-D", folder], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        server.stdout.readline()
        (folder / "postmaster.pid").write_text(f"{server.pid}\n{folder}\nready\n")
        monkeypatch.setattr(postgres, "_library", lambda: None)
        assert postgres.start(folder) == psutil.Process(server.pid)
        assert postgres.running(tmp_path) is None
        postgres.stop(psutil.Process(server.pid))
        assert postgres.running(folder) is None
