"""A teacher that tells other classes apart is refused before anything trains, wherever it comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from tests.unit.export.factory import CANDIDATES, digits, facts, summary, trained
from vitsearch.candidate import Candidate
from vitsearch.cli.teaching import check_networks
from vitsearch.config import DatasetSpec, JobSpec
from vitsearch.errors import InputError
from vitsearch.export import export_bundle
from vitsearch.space import SearchSpace, resolve_preset
from vitsearch.train.data import ImageData, load_dataset

RULE = "must tell the data's 10 classes apart, but"
REMEDY = "fine-tune it on these images first, or choose another teacher"


@pytest.fixture(scope="module")
def data() -> ImageData:
    return load_dataset(DatasetSpec(kind="digits", max_images=200), image_size=8, seed=0)


def job(teacher: dict[str, Any], **distill: Any) -> JobSpec:
    settings = {"method": "soft", **distill, "teacher": teacher}
    return JobSpec.model_validate(
        {"name": "a", "dataset": {"kind": "digits"}, "space": "vit_micro_8", "train": {"distill": settings}}
    )


def check(job: JobSpec, data: ImageData) -> None:
    space = SearchSpace(resolve_preset(job.space), in_chans=data.in_chans, num_classes=data.num_classes)
    check_networks(space, job.train, data)


def refused(teacher: dict[str, Any], data: ImageData, **distill: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        check(job(teacher, **distill), data)
    assert caught.value.exit_code == 2
    return caught.value


@pytest.mark.parametrize("distill", [{}, {"method": "none", "inner": "manifold"}], ids=["answers", "inner"])
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet10t"])
def test_a_published_network(name: str, distill: dict[str, Any], data: ImageData, monkeypatch: pytest.MonkeyPatch):
    """ImageNet's thousand classes; the weights are random, as the test has no network to fetch them over."""
    make = timm.create_model

    def without_download(name: str, *, pretrained: bool) -> nn.Module:
        assert pretrained
        return make(name)

    monkeypatch.setattr(timm, "create_model", without_download)
    error = refused({"timm": name}, data, **distill)
    assert error.rule == f"{RULE} {name} tells 1000"
    assert (error.field, error.remedy) == ("train.distill.teacher", REMEDY)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet10t"])
def test_a_checkpoint(name: str, suffix: str, data: ImageData, tmp_path: Path):
    file = tmp_path / f"teacher.{suffix}"
    teacher = {"timm": name, "checkpoint": str(file)}
    for classes in (7, 10):
        state = timm.create_model(name, num_classes=classes).state_dict()
        if suffix == "pth":
            torch.save(state, file)
        else:
            save_file(state, file)
        if classes == 10:
            check(job(teacher), data)
        else:
            error = refused(teacher, data)
            assert error.rule == f"{RULE} {name} tells 7"
            assert error.remedy == REMEDY


def bundle(folder: Path, num_classes: int, names: tuple[str, ...]) -> dict[str, str]:
    images = digits()
    dense = CANDIDATES["dense"].architecture.model_copy(update={"num_classes": num_classes})
    candidate = Candidate(architecture=dense)
    _, checksum = trained(candidate, images, folder / "weights")
    export_bundle(
        candidate=candidate, weights_folder=folder / "weights", data=summary(images, class_names=names),
        facts=facts(candidate, checksum), images_NHWC=images.images_NHWC[images.val[:8]], out=folder / "bundle",
    )  # fmt: skip
    return {"bundle": str(folder / "bundle")}


def test_a_bundle(data: ImageData, tmp_path: Path):
    check(job(bundle(tmp_path, 10, data.class_names)), data)
    other = tmp_path / "other"
    other.mkdir()
    error = refused(bundle(other, 7, tuple("abcdefg")), data)
    assert error.rule == f"{RULE} {other / 'bundle'} tells 7"
    assert (error.field, error.remedy) == ("train.distill.teacher", REMEDY)


def test_a_bundle_of_as_many_classes_of_other_names(data: ImageData, tmp_path: Path):
    error = refused(bundle(tmp_path, 10, tuple("abcdefghij")), data)
    assert error.rule == "must name the classes as the data does"
    assert (error.field, error.value) == ("train.distill.teacher.bundle", list("abcdefghij"))
    assert "the data has ['0'" in error.remedy
