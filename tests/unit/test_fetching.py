"""Files named by an address: fetched once, whole or not at all, and never outside their folder."""

from __future__ import annotations

import io
import os
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from vitsearch.cli.ports import any_port
from vitsearch.config import DatasetSpec, JobSpec
from vitsearch.errors import InputError
from vitsearch.fetching import fetched
from vitsearch.train.data import load_dataset

FIELD = "dataset.path"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VITSEARCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def asked() -> list[str]:
    """Paths that the web server was asked for, with the verb."""
    return []


@pytest.fixture
def web(tmp_path: Path, asked: list[str]) -> Iterator[str]:
    """A web server over ``tmp_path / "web"``."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            asked.append(f"{self.command} {self.path}")

    (tmp_path / "web").mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path / "web")))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def picture(colour: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), colour, dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def pictures(count: int = 30) -> dict[str, bytes]:
    return {
        f"{name}/{i}.png": picture(i + shift) for name, shift in (("cat", 0), ("dog", 90)) for i in range(count)
    }


def write_zip(file: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def test_a_file_is_fetched_once_and_again_when_it_has_changed(tmp_path: Path, cache: Path):
    source, steps = tmp_path / "weights.pth", list[str]()
    source.write_bytes(b"one")
    address = f"file://{source}"
    first = fetched(address, field=FIELD, on_step=steps.append)
    assert first.name == "weights.pth"
    assert cache in first.parents
    assert fetched(address, field=FIELD, on_step=steps.append) == first
    assert steps == [f"fetching {address}"]
    source.write_bytes(b"another")
    second = fetched(address, field=FIELD, on_step=steps.append)
    assert (first.read_bytes(), second.read_bytes(), len(steps)) == (b"one", b"another", 2)
    assert not list(cache.glob(".partial-*"))
    assert fetched(source, field=FIELD) == source


def test_a_file_of_the_web(tmp_path: Path, web: str, asked: list[str]):
    (tmp_path / "web" / "a b.npz").write_bytes(b"x" * 100_000)
    found = fetched(f"{web}/a%20b.npz?token=geheim", field=FIELD)
    assert found.name == "a b.npz"
    assert found.read_bytes() == b"x" * 100_000
    asked.clear()
    assert fetched(f"{web}/a%20b.npz?token=geheim", field=FIELD) == found
    assert not [one for one in asked if one.startswith("GET")]


@pytest.mark.parametrize(
    "signature",
    [
        "X-Amz-Algorithm=A&X-Amz-Credential=c&X-Amz-Date=2{}&X-Amz-Expires=9&X-Amz-Signature=s{}",
        "sv=2022&st=1{}&se=2{}&sr=b&sp=r&sig=s{}",
        "Expires=1{}&Signature=s{}&Key-Pair-Id=k",
    ],
)
def test_another_signature_is_the_same_file(tmp_path: Path, web: str, asked: list[str], signature: str):
    (tmp_path / "web" / "a.npz").write_bytes(b"x")
    found = [
        fetched(f"{web}/a.npz?part={part}&{signature.replace('{}', str(day))}", field=FIELD)
        for part, day in ((1, 1), (1, 2), (2, 2))
    ]
    assert found[0] == found[1] != found[2]
    assert len([one for one in asked if one.startswith("GET")]) == 2


def test_a_folder_of_a_store_comes_with_all_below_it():
    store = fsspec.filesystem("memory")
    store.pipe({"/photos/cat/1.png": b"1", "/photos/dog/old/2.png": b"2"})
    folder = fetched("memory://photos", field=FIELD)
    assert folder.name == "photos"
    found = {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*.png")}
    assert found == {"cat/1.png": b"1", "dog/old/2.png": b"2"}
    store.pipe("/photos/dog/3.png", b"3")
    assert (fetched("memory://photos", field=FIELD) / "dog" / "3.png").is_file()


@pytest.mark.parametrize("top", ["", "photos/"])
def test_images_in_an_archive_are_a_folder(tmp_path: Path, web: str, top: str):
    members = {f"{top}{name}": content for name, content in pictures().items()}
    write_zip(tmp_path / "web" / "photos.zip", members)
    with tarfile.open(tmp_path / "web" / "photos.tar.gz", "w:gz") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    prints = set()
    for name in ("photos.zip", "photos.tar.gz"):
        spec = DatasetSpec(kind="imagefolder", path=f"{web}/{name}")
        data = load_dataset(spec, image_size=8, seed=0)
        assert data.class_names == ("cat", "dog")
        assert len(data.images_NHWC) == 60
        prints.add(data.fingerprint)
    assert len(prints) == 1


def test_an_archive_of_parts_keeps_them(tmp_path: Path):
    write_zip(tmp_path / "parts.zip", {f"train/{name}": content for name, content in pictures().items()})
    data = load_dataset(DatasetSpec(kind="imagefolder", path=f"file://{tmp_path}/parts.zip"), image_size=8, seed=0)
    assert data.class_names == ("cat", "dog")


@pytest.mark.parametrize("name", ["../evil.png", "/evil.png", "cat/../../evil.png", "..\\evil.png", "C:\\e.png"])
def test_a_member_that_would_leave_its_folder_is_refused(tmp_path: Path, cache: Path, name: str):
    write_zip(tmp_path / "evil.zip", {"cat/1.png": b"1", name: b"evil"})
    with pytest.raises(InputError, match="would land outside its folder") as caught:
        fetched(f"file://{tmp_path}/evil.zip", field=FIELD)
    assert caught.value.field == FIELD
    assert not list(tmp_path.rglob("*.png"))
    assert not list(cache.iterdir())


def test_a_tar_that_would_leave_its_folder_is_refused(tmp_path: Path, cache: Path):
    for entry in (tarfile.TarInfo("../evil.png"), tarfile.TarInfo("link")):
        if entry.name == "link":
            entry.type, entry.linkname = tarfile.SYMTYPE, "/etc"
        with tarfile.open(tmp_path / "evil.tar", "w") as archive:
            archive.addfile(entry)
        with pytest.raises(InputError, match="must be an archive that can be unpacked"):
            fetched(f"file://{tmp_path}/evil.tar", field=FIELD)
    assert not list(cache.iterdir())


def test_what_cannot_be_fetched_is_one_sentence(tmp_path: Path, web: str, cache: Path):
    (tmp_path / "broken.zip").write_bytes(b"no archive")
    (tmp_path / "empty").mkdir()
    free = any_port()
    for address, rule in (
        (f"{web}/absent.npz", "cannot be read"),
        (f"http://user:geheim@127.0.0.1:{free}/x.npz", "cannot be read"),
        (f"file://{tmp_path}/absent.npz", "cannot be read (FileNotFoundError"),
        (f"file://{tmp_path}/empty", "the folder is empty"),
        (f"file://{tmp_path}/broken.zip", "must be an archive that can be unpacked (File is not a zip file)"),
        ("nostore://x/y.npz", "names a store that nothing here reaches (Protocol not known: nostore)"),
    ):
        with pytest.raises(InputError) as caught:
            fetched(address, field=FIELD)
        assert rule in str(caught.value)
        assert str(caught.value).startswith(f"{FIELD}: ")
        assert "geheim" not in str(caught.value)
        assert caught.value.remedy
    assert not list(cache.iterdir())


def test_a_store_without_its_package_names_it(monkeypatch: pytest.MonkeyPatch):
    def missing(protocol: str) -> None:
        raise ImportError(f"Install s3fs to access {protocol.upper()}")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    with pytest.raises(InputError, match="Install s3fs to access S3") as caught:
        fetched("s3://bucket/photos.zip", field=FIELD)
    assert caught.value.remedy.startswith("install the package named")


def test_a_cache_that_cannot_be_written_names_its_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("VITSEARCH_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(InputError, match="VITSEARCH_CACHE: cannot be made"):
        fetched(f"file://{tmp_path}/file", field=FIELD)


def test_what_killed_processes_left_is_deleted_after_a_day(tmp_path: Path, cache: Path):
    for name, age_s in (("old", 90_000), ("new", 60_000)):
        file = cache / f".partial-{name}" / "work" / "made" / "photos.zip"
        file.parent.mkdir(parents=True)
        file.write_bytes(b"half")
        os.utime(cache / f".partial-{name}", (0, time.time() - age_s))
    (tmp_path / "x.npz").write_bytes(b"x")
    kept = fetched(f"file://{tmp_path}/x.npz", field=FIELD)
    assert {one.name for one in cache.iterdir()} == {".partial-new", kept.parent.name}


def test_many_at_once_get_one_copy(tmp_path: Path, cache: Path):
    (tmp_path / "x.npz").write_bytes(b"x" * 1000)
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(fetched(f"file://{tmp_path}/x.npz", field=FIELD)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert len(list(cache.iterdir())) == 1


def test_an_address_stays_what_it_is_in_a_job(tmp_path: Path):
    job = JobSpec.model_validate(
        {"name": "x", "dataset": {"kind": "npz", "path": "s3://bucket/images.npz"}, "space": "vit_micro_8"}
    )
    resolved = job.resolve_paths(tmp_path)
    assert resolved.dataset.path == "s3://bucket/images.npz"
    assert JobSpec.model_validate_json(resolved.model_dump_json()) == resolved
    relative = JobSpec.model_validate({**job.model_dump(), "dataset": {"kind": "npz", "path": "a/images.npz"}})
    assert relative.resolve_paths(tmp_path).dataset.path == tmp_path / "a" / "images.npz"
