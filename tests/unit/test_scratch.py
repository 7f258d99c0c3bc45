"""Folders of processes that were killed go; those of processes that live stay."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vitsearch.scratch import PREFIX, scratch_folder
from vitsearch.search import scratch_prefix

HOLDER = """
import sys, time
from pathlib import Path
from vitsearch.scratch import PREFIX, scratch_folder
from vitsearch.search import scratch_prefix
with scratch_folder("one-", Path(sys.argv[1])) as folder:
    (folder / "checkpoint").write_bytes(b"weights")
    print(folder, flush=True)
    time.sleep(600)
"""


def test_a_folder_is_empty_and_goes(tmp_path: Path) -> None:
    with scratch_folder("one-", tmp_path) as folder:
        assert folder.is_relative_to(tmp_path)
        assert list(folder.iterdir()) == []
        (folder / "x").write_text("x")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_stays_as_long_as_its_process(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    with holder, holder.stdout:
        held = Path(holder.stdout.readline().strip())
        with scratch_folder("one-", tmp_path, spare_s=-1):
            assert (held / "checkpoint").is_file()
        holder.kill()
        holder.wait()
    with scratch_folder("one-", tmp_path):
        assert held.exists(), "too young to tell"
    with scratch_folder("other-", tmp_path, spare_s=-1):
        assert held.exists(), "another kind of folder"
    with scratch_folder("one-", tmp_path, spare_s=-1) as folder:
        assert list(tmp_path.iterdir()) == [folder.parent]


def test_a_folder_that_was_never_locked_goes_when_it_is_old(tmp_path: Path) -> None:
    (tmp_path / "one-a").mkdir()
    os.utime(tmp_path / "one-a", (0, 0))
    with scratch_folder("one-", tmp_path) as folder:
        assert list(tmp_path.iterdir()) == [folder.parent]


def test_a_link_is_not_followed_and_others_folders_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "one-link").symlink_to(tmp_path / "mine")
    with scratch_folder("one-", tmp_path, spare_s=-1):
        assert (tmp_path / "mine").is_dir()
        assert (tmp_path / "one-link").is_symlink()
    (tmp_path / "one-b").mkdir()
    monkeypatch.setattr(os, "getuid", lambda: -1)
    with scratch_folder("one-", tmp_path, spare_s=-1):
        assert (tmp_path / "one-b").is_dir()


def test_folders_that_studies_are_worked_on_in_are_no_such_folders() -> None:
    assert not scratch_prefix("work-").startswith(PREFIX)
    assert not PREFIX.startswith(scratch_prefix(""))
