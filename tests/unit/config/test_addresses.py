"""The addresses of a job, and the secrets in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.report.factory import job
from vitsearch.config import JobSpec
from vitsearch.config.addresses import (
    addresses_in,
    check_address_text,
    check_addresses,
    fields_with_password,
    without_passwords,
)
from vitsearch.errors import InputError


def everywhere(secret: str) -> JobSpec:
    """A job with addresses wherever it can have one."""
    network = {"timm": "test_vit", "checkpoint": f"https://me:{secret}@h/x.pth"}
    return job(
        dataset={"kind": "npz", "path": f"s3://h/x.npz?X-Amz-Signature={secret}"},
        train={
            "init": "pretrained",
            "pretrained": {"bundle": f"https://me:{secret}@h/bundle.zip"},
            "distill": {"method": "co_advise", "teacher": network, "second_teacher": network},
        },
        storage={"url": f"postgresql://me:{secret}@h/db", "artifacts": f"ftp://me:{secret}@h/folder"},
        tracking={"uri": f"https://me:{secret}@h"},
    )


def test_every_address_is_known():
    assert set(addresses_in(everywhere("geheim"))) == {
        "dataset.path", "train.pretrained.bundle", "train.distill.teacher.checkpoint",
        "train.distill.second_teacher.checkpoint", "storage.url", "storage.artifacts", "tracking.uri",
    }  # fmt: skip
    assert set(fields_with_password(everywhere("geheim"))) == set(addresses_in(everywhere("geheim")))
    assert fields_with_password(everywhere("${PW}")) == []


def test_secrets_are_taken_out_and_nothing_else_changes():
    written = everywhere("geheim")
    cleaned = without_passwords(written)
    assert "geheim" not in cleaned.model_dump_json()
    assert set(addresses_in(cleaned)) == set(addresses_in(written))
    assert fields_with_password(cleaned) == []
    kept = job(tracking={"uri": "https://me:${PW}@h"}, dataset={"kind": "npz", "path": "/data/x.npz"})
    assert without_passwords(kept) is kept


@pytest.mark.parametrize("address", [
    "x://me:a b@h", "x://me:a'b@h", 'x://me:a"b@h', "x://me:a\nb@h", "x://h?password=a'b", "x://a b@h",
])  # fmt: skip
def test_what_would_hide_the_end_of_a_password_is_refused_unseen(address: str):
    with pytest.raises(InputError, match="--database: must have no blanks, quotes") as caught:
        check_address_text(address, field="--database")
    assert address not in str(caught.value)


@pytest.mark.parametrize("address", [
    "sqlite:////home/a b/it's @ c:d/x.db", "postgresql://me:${file:/a/b}@h/db", "https://h/it's?a=b", "x://u:a%20b@h",
])  # fmt: skip
def test_what_is_outside_of_secrets_or_encoded_is_left_alone(address: str):
    check_address_text(address, field="--database")


@pytest.mark.parametrize("path", ["https://me:a b@h/x", "https:/me:ab@h/x", "/jobs/s3:/a b"])
def test_an_address_that_became_a_path_is_refused_unseen(path: str):
    with pytest.raises(InputError, match=r"job\.yaml: dataset\.path: must be a path, or an address") as caught:
        check_addresses(job(dataset={"kind": "npz", "path": path}), where="job.yaml")
    assert "me:" not in str(caught.value)
    check_addresses(job(dataset={"kind": "npz", "path": Path("/a:b/x y.npz")}), where="job.yaml")
