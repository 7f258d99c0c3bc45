"""What travels with a job."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.report.factory import job
from vitsearch.cli import packing
from vitsearch.cli.packing import write_package
from vitsearch.errors import InputError
from vitsearch.space import preset_names


def packed(folder: Path, **settings: Any) -> zipfile.ZipFile:
    file = folder / "package.zip"
    write_package(file, job(**settings), folder=folder, where="job.yaml")
    return zipfile.ZipFile(file)


def test_relative_files_travel_and_absolute_ones_stay(tmp_path: Path):
    (tmp_path / "images" / "cats").mkdir(parents=True)
    (tmp_path / "images" / "cats" / "1.png").write_bytes(b"picture")
    (tmp_path / "teacher.safetensors").write_bytes(b"weights")
    package = packed(
        tmp_path,
        dataset={"kind": "imagefolder", "path": "images"},
        train={
            "distill": {"method": "soft", "teacher": {"timm": "resnet18", "checkpoint": "teacher.safetensors"}}
        },
    )
    written = yaml.safe_load(package.read("job.yaml"))
    assert written["dataset"]["path"] == "files/0-images"
    assert written["train"]["distill"]["teacher"]["checkpoint"] == "files/1-teacher.safetensors"
    assert package.read("files/0-images/cats/1.png") == b"picture"
    assert package.read("files/1-teacher.safetensors") == b"weights"

    package = packed(tmp_path, dataset={"kind": "imagefolder", "path": "/data/images"})
    assert yaml.safe_load(package.read("job.yaml"))["dataset"]["path"] == "/data/images"
    assert not [name for name in package.namelist() if name.startswith("files/")]


def test_linked_folders_travel_as_folders(tmp_path: Path):
    (tmp_path / "store" / "cats").mkdir(parents=True)
    (tmp_path / "store" / "cats" / "1.png").write_bytes(b"picture")
    (tmp_path / "store" / "cats" / "back").symlink_to(tmp_path / "store")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "cats").symlink_to(tmp_path / "store" / "cats")
    package = packed(tmp_path, dataset={"kind": "imagefolder", "path": "images"})
    found = [name for name in package.namelist() if name.startswith("files/")]
    assert found == ["files/0-images/cats/1.png"]


def test_files_of_one_name_do_not_meet(tmp_path: Path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.bin").write_text(folder)
    teacher = {"timm": "resnet18", "checkpoint": "a/x.bin"}
    package = packed(tmp_path, dataset={"kind": "npz", "path": "b/x.bin"},
                     train={"distill": {"method": "soft", "teacher": teacher}})  # fmt: skip
    assert package.read("files/0-x.bin") == b"b"
    assert package.read("files/1-x.bin") == b"a"


def test_the_same_job_is_the_same_package(tmp_path: Path):
    contents = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        packed(tmp_path / name)
        contents.append((tmp_path / name / "package.zip").read_bytes())
    assert contents[0] == contents[1]


def test_job_and_database_are_unpacked_for_their_owner_alone(tmp_path: Path):
    (tmp_path / "x.npz").write_bytes(b"0")
    file = tmp_path / "package.zip"
    written = job(dataset={"kind": "npz", "path": "x.npz"})
    write_package(file, written, folder=tmp_path, database="postgresql://me@h/db")
    with zipfile.ZipFile(file) as package:
        modes = {entry.filename: entry.external_attr >> 16 for entry in package.infolist()}
    assert {name for name, mode in modes.items() if mode == 0o600} == {"job.yaml", "database.txt"}
    assert modes["files/0-x.npz"] == 0o644


def test_missing_and_oversized_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(InputError, match="does not exist here"):
        packed(tmp_path, dataset={"kind": "npz", "path": "absent.npz"})
    (tmp_path / "large.npz").write_bytes(b"0" * 2_000_000)
    monkeypatch.setattr(packing, "MAX_MB", 1)
    with pytest.raises(InputError, match=r"names files of 2 MB in all .* at most 1 MB travel"):
        packed(tmp_path, dataset={"kind": "npz", "path": "large.npz"})


def test_the_package_runs_where_nothing_of_ours_is_installed(tmp_path: Path):
    """Its code, its presets and its requirements; -I and -S leave the installed ones out of the path."""
    packed(tmp_path).extractall(tmp_path / "there")
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    script = (
        f"import sys; sys.path[:0] = ['.', *{libraries!r}]\n"
        "import vitsearch, workers\n"
        "from vitsearch.space import preset_names\n"
        "from vitsearch.config import load_job\n"
        "from pathlib import Path\n"
        "print(vitsearch.__file__, workers.__file__, len(preset_names()), load_job(Path('job.yaml')).name)\n"
    )
    found = subprocess.run([sys.executable, "-I", "-S", "-c", script], cwd=tmp_path / "there", capture_output=True,
                           text=True, check=True)  # fmt: skip
    package, workers, presets, name = found.stdout.split()
    assert Path(package).is_relative_to(tmp_path)
    assert Path(workers).is_relative_to(tmp_path)
    assert int(presets) == len(preset_names())
    assert name == "digits"
    assert "torch>=2.8" in json.loads((tmp_path / "there" / "requirements.json").read_text())


@pytest.mark.parametrize("name", ["x" * 300, "loop", "~nosuchuser/x"])
def test_a_name_that_no_file_has_is_one_line(tmp_path: Path, name: str):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InputError, match="names a file that does not exist here"):
        packed(tmp_path, dataset={"kind": "imagefolder", "path": name})
