"""Places of files: a folder, and a store that only fsspec reaches."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem

from vitsearch import artifacts
from vitsearch.artifacts import check_place, discard, join, names_in, remove, workspace
from vitsearch.errors import InputError


@pytest.fixture(params=["folder", "store"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The same folder, worked in directly, and through fsspec as any remote store."""
    return join(str(tmp_path) if request.param == "folder" else f"local://{tmp_path}", "deep", "00003")


def test_what_is_published_is_there_for_the_next_one(place: str, tmp_path: Path):
    assert names_in(place) == []
    with workspace(place) as one:
        one.folder.mkdir(parents=True, exist_ok=True)
        for name in ("a.txt", "b.txt", "c.bin"):
            (one.folder / name).write_text(name)
        one.publish("a.txt", "b.txt", "c.bin")
    assert names_in(place) == ["a.txt", "b.txt", "c.bin"]
    assert (tmp_path / "deep" / "00003" / "a.txt").read_text() == "a.txt"
    with workspace(place, ["*.txt"]) as another:
        assert (another.folder / "b.txt").read_text() == "b.txt"
    for _ in range(2):
        remove(place, ["a.txt"])
    assert names_in(place) == ["b.txt", "c.bin"]
    remove(place, ["*.bin", "none"])
    assert names_in(place) == ["b.txt"]
    assert names_in(join(place.rpartition("/")[0])) == ["00003"]


def test_a_place_is_discarded_whole_and_alone(place: str, tmp_path: Path):
    beside = tmp_path / "deep" / "00003b"
    beside.mkdir(parents=True)
    discard(place)
    with workspace(place) as one:
        one.folder.mkdir(parents=True, exist_ok=True)
        for name in ("a.txt", ".b"):
            (one.folder / name).write_text(name)
        one.publish("a.txt", ".b")
    discard(place)
    assert names_in(place.rpartition("/")[0]) == ["00003b"]


def test_only_what_is_needed_is_fetched(tmp_path: Path):
    (tmp_path / "big.bin").write_bytes(b"0" * 1000)
    (tmp_path / "small.txt").write_text("x")
    with workspace(f"local://{tmp_path}", ["*.txt"]) as one:
        assert [file.name for file in one.folder.iterdir()] == ["small.txt"]
        assert one.folder != tmp_path
    assert not one.folder.exists()


def test_what_a_killed_process_left_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A trainer that is stopped in the midst of a trial deletes nothing."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    leave = """
import os, signal
from vitsearch.artifacts import workspace
with workspace("memory://x") as one:
    (one.folder / "epoch.pt").write_bytes(b"weights")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", leave], env={**os.environ, "TMPDIR": str(tmp_path)}, check=False)
    (left,) = tmp_path.iterdir()
    os.utime(left, (0, 0))
    with workspace("memory://x") as one:
        assert not left.exists()
        assert one.folder.is_relative_to(tmp_path)


def test_a_kill_while_a_file_is_sent_leaves_the_last_one_whole(tmp_path: Path):
    """A trial whose only checkpoint is half a file begins anew; and what is left of it is no file of the place."""
    place = f"file://{tmp_path}/00003"
    with workspace(place, fetch=()) as one:
        (one.folder / "epoch.pt").write_text("good")
        one.publish("epoch.pt")
    die = f"""
import os, signal
from fsspec.implementations.local import LocalFileSystem
from vitsearch.artifacts import workspace

def half(store, source, target, **_):
    with open(target, "w") as file:
        file.write("ha")
    os.kill(os.getpid(), signal.SIGKILL)

LocalFileSystem.put_file = half
with workspace({place!r}, fetch=()) as one:
    (one.folder / "epoch.pt").write_text("half")
    one.publish("epoch.pt")
"""
    died = subprocess.run([sys.executable, "-c", die], env={**os.environ, "TMPDIR": str(tmp_path)}, check=False)
    assert died.returncode == -9
    assert (tmp_path / "00003" / "epoch.pt").read_text() == "good"
    assert names_in(place) == ["epoch.pt"]
    with workspace(place) as one:
        assert [file.name for file in one.folder.iterdir()] == ["epoch.pt"]
        (one.folder / "epoch.pt").write_text("better")
        one.publish("epoch.pt")
        assert (tmp_path / "00003" / "epoch.pt").read_text() == "better"
    remove(place, ["epoch.pt"])
    assert not list((tmp_path / "00003").iterdir()), "what was half sent goes with its file"


def test_what_a_store_refuses_leaves_nothing_half_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(_: object, source: str, target: str) -> None:
        Path(target).write_text("ha")
        raise OSError("No space left on device")

    monkeypatch.setattr(LocalFileSystem, "put_file", full)
    with workspace(f"file://{tmp_path}/00003") as one:
        (one.folder / "epoch.pt").write_text("half")
        with pytest.raises(OSError, match="No space left"):
            one.publish("epoch.pt")
    assert not list((tmp_path / "00003").iterdir())


@pytest.mark.parametrize("refusal", ["an error", "nothing"])
def test_a_store_that_moves_onto_no_file_is_obeyed(refusal: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """HDFS and many servers of SMB and FTP refuse, WebHDFS without a word."""

    def careful(store: LocalFileSystem, source: str, target: str) -> None:
        if not Path(target).exists():
            move(store, source, target)
        elif refusal == "an error":
            raise ValueError("it exists")

    move = LocalFileSystem.mv
    monkeypatch.setattr(LocalFileSystem, "mv", careful)
    for text in ("one", "two"):
        with workspace(f"file://{tmp_path}/00003") as one:
            (one.folder / "epoch.pt").write_text(text)
            one.publish("epoch.pt")
    assert {file.name: file.read_text() for file in (tmp_path / "00003").iterdir()} == {"epoch.pt": "two"}


def test_an_object_store_is_sent_each_file_once(monkeypatch: pytest.MonkeyPatch):
    """It shows a file when all of it has arrived, and would copy what it is asked to move."""
    calls: list[tuple[str, ...]] = []

    class Store:
        def __getattr__(self, name: str) -> Any:
            return lambda *arguments, **_: calls.append((name, *map(str, arguments))) or []

    import fsspec

    monkeypatch.setattr(fsspec.core, "url_to_fs", lambda _: (Store(), "bucket/x"))
    with workspace("s3://bucket/x", fetch=()) as one:
        one.publish("epoch.pt")
    assert [call[0] for call in calls] == ["invalidate_cache", "ls", "invalidate_cache", "makedirs", "put_file"]
    assert calls[-1][2] == "bucket/x/epoch.pt"


def test_whatever_a_store_raises_is_an_oserror_without_passwords(monkeypatch: pytest.MonkeyPatch):
    class Broken:
        def invalidate_cache(self) -> None:
            raise RuntimeError("no access to s3://me:geheim@bucket")

    import fsspec

    monkeypatch.setattr(fsspec.core, "url_to_fs", lambda _: (Broken(), "x"))
    with pytest.raises(OSError, match=r"s3://\*\*\*@bucket: RuntimeError: no access to s3://\*\*\*@bucket"):
        names_in("s3://me:geheim@bucket")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("relative/folder", "must be an absolute folder or an address"),
        ("nonsense://x", "names a store that nothing here reaches"),
        ("memory://x", "must be a place that every process sees"),
    ],
)
def test_what_is_no_place_is_refused(place: str, message: str):
    with pytest.raises(InputError, match=message):
        check_place(place)


def test_a_store_whose_package_is_missing_is_refused_with_its_name(monkeypatch: pytest.MonkeyPatch):
    import fsspec

    def missing(_: str) -> Any:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    with pytest.raises(InputError, match="Install s3fs to access S3"):
        check_place("s3://bucket/folder")
    check_place("/folder")
    assert artifacts.is_folder("/folder")
