"""Addresses that leave a password to the environment or a file."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.unit.report.factory import job
from vitsearch.cli.job_checks import check_space, check_tracking, check_written, passwords_that_travel
from vitsearch.cli.packing import write_package
from vitsearch.errors import InputError

PLACES = {
    "storage": {"url": "postgresql+psycopg://me:${DB_PASSWORD}@host/db"},
    "tracking": {"uri": "https://me:${file:/nowhere/password}@host"},
}


def test_what_is_missing_is_told_with_the_job_s_file(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("DB_PASSWORD", raising=False)
    with pytest.raises(InputError, match=r"job\.yaml: storage\.url: needs the environment variable DB_PASSWORD"):
        check_written(job(**PLACES), Path("job.yaml"))
    with pytest.raises(InputError, match=r"job\.yaml: tracking\.uri: needs the first line of the file /nowhere/"):
        check_tracking(job(**PLACES), Path("job.yaml"))
    check_written(job(**PLACES), Path("job.yaml"), here=False)
    check_tracking(job(tracking={**PLACES["tracking"], "enabled": False}), Path("job.yaml"))


def test_what_travels_to_a_cluster_holds_the_placeholder_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DB_PASSWORD", "geheim")
    write_package(tmp_path / "package.zip", job(**PLACES))
    with zipfile.ZipFile(tmp_path / "package.zip") as package:
        text = package.read("job.yaml").decode()
    assert "${DB_PASSWORD}" in text
    assert "geheim" not in text


def test_passwords_that_are_written_out_are_named():
    assert not list(passwords_that_travel(job(**PLACES)))
    written = job(dataset={"kind": "npz", "path": "https://me:geheim@host/x.npz"}, storage={
        "url": "postgresql://me:geheim@host/db"})  # fmt: skip
    notes = list(passwords_that_travel(written))
    assert [note.partition(" ")[0] for note in notes] == ["dataset.path", "storage.url"]
    assert ["${NAME}" in note for note in notes] == [False, True]
    assert "geheim" not in "".join(notes)


@pytest.mark.parametrize(
    "settings",
    [
        {"dataset": {"kind": "npz", "path": "https://me:SEC RET@h/x.npz"}},
        {"storage": {"url": "postgresql+psycopg://me:SEC'RET@127.0.0.1:9/db"}},
    ],
)
def test_a_password_that_is_not_encoded_is_refused_unseen(settings: dict[str, object]):
    with pytest.raises(InputError, match=r"job\.yaml: (dataset\.path|storage\.url): must ") as caught:
        check_written(job(**settings), Path("job.yaml"))
    assert "SEC" not in str(caught.value)
    assert "RET" not in str(caught.value)


@pytest.mark.parametrize("network", [{"timm": "test_vit", "checkpoint": "x" * 300}, {"bundle": "x" * 300}])
def test_a_network_whose_name_no_file_can_have_is_not_there(network: dict[str, str]):
    train = {"distill": {"method": "soft", "teacher": network}}
    with pytest.raises(InputError, match=r"job\.yaml: train\.distill\.teacher\.(checkpoint|bundle): "):
        check_written(job(train=train), Path("job.yaml"))


TEACHER = {"bundle": "/teacher"}


@pytest.mark.parametrize(
    ("settings", "unread"),
    [
        (
            {"dataset": {"kind": "digits", "path": "/flowers", "name": "x/y", "download": True,
                         "image_column": "foo", "on_broken_image": "skip"}},
            [f"dataset.{field}" for field in ("path", "name", "download", "image_column", "on_broken_image")],
        ),
        ({"dataset": {"kind": "npz", "path": "/a.npz", "download": True}}, ["dataset.download"]),
        ({"search": {"sampler": "tpe", "population": 20}}, ["search.population"]),
        ({"train": {"pretrained": {"timm": "vit_tiny_patch16_224"}}}, ["train.pretrained"]),
    ],
)  # fmt: skip
def test_what_nothing_would_read_is_refused(settings: dict[str, Any], unread: list[str]):
    with pytest.raises(InputError, match="is not read with") as caught:
        check_space(job(**settings), Path("job.yaml"))
    assert sorted(one.field for one in (caught.value, *caught.value.more)) == sorted(unread)


@pytest.mark.parametrize(
    "settings",
    [
        {"dataset": {"kind": "digits", "download": False, "image_column": "image"}},  # as stored
        {"dataset": {"kind": "huggingface", "name": "x/y", "image_column": "foo", "on_broken_image": "skip"}},
        {"dataset": {"kind": "cifar10", "path": "data", "download": True}},
        {"search": {"sampler": "nsga3", "population": 20}},
        {"train": {"init": "pretrained", "pretrained": {"timm": "vit_tiny_patch16_224"}}},
        {"train": {"distill": {"teacher": TEACHER, "method": "soft"}}},
        {
            "space": {"preset": "vit_micro_8", "dimensions": {
                "train.init": {"choices": ["random", "pretrained"]},
                "train.distill.method": {"choices": ["none", "soft"]},
            }},
            "train": {"pretrained": {"timm": "vit_tiny_patch16_224"}, "distill": {"teacher": TEACHER}},
        },
    ],
)  # fmt: skip
def test_what_something_reads_is_taken(settings: dict[str, Any]):
    check_space(job(**settings), Path("job.yaml"))
