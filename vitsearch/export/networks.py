"""Trained networks that a job names: teachers, and weights to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from vitsearch.candidate import Candidate
from vitsearch.config import NetworkSpec, Place
from vitsearch.errors import InputError
from vitsearch.export.bundle import Bundle, load
from vitsearch.fetching import fetched, only_folder
from vitsearch.models import VisionTransformer, architecture_of_timm, build_dense
from vitsearch.models.pretrained import load_timm
from vitsearch.train.distill import LiveAnswers
from vitsearch.train.tensors import TensorData

FIELD = "train.distill.teacher"
START_FIELD = "train.pretrained"


def load_teacher(spec: NetworkSpec, data: TensorData) -> LiveAnswers:
    """The teacher a job names, ready for batches of the job's data.

    Raises:
        InputError: It cannot be loaded, or it tells other classes apart than the data has.
    """
    if spec.bundle is not None:
        bundle = _bundle(spec.bundle, FIELD)
        _check_classes(len(bundle.preprocess.class_names), data, str(spec.bundle))
        if bundle.preprocess.class_names != data.source.class_names:
            raise InputError(
                "must name the classes as the data does", field=f"{FIELD}.bundle",
                value=list(bundle.preprocess.class_names), remedy=f"the data has {list(data.source.class_names)}",
            )  # fmt: skip
        shape = bundle.preprocess.model_dump(include={"image_size", "in_chans", "mean", "std"})
        return _live(bundle.model, data, **shape)
    assert spec.timm is not None
    network: Any = load_timm(spec.timm, _checkpoint(spec, FIELD), field=FIELD)
    _check_classes(network.num_classes, data, spec.timm)
    from timm.data import resolve_model_data_config

    config = resolve_model_data_config(network)
    channels, side, _ = config["input_size"]
    return _live(network, data, image_size=side, in_chans=channels, mean=config["mean"], std=config["std"])


def _checkpoint(spec: NetworkSpec, field: str) -> Path | None:
    return None if spec.checkpoint is None else fetched(spec.checkpoint, field=f"{field}.checkpoint")


def _bundle(place: Place, field: str) -> Bundle:
    folder = fetched(place, field=f"{field}.bundle")
    return load(folder if folder == place else only_folder(folder))


def load_start(spec: NetworkSpec) -> VisionTransformer:
    """The network whose weights a job's candidates start from.

    Raises:
        InputError: It cannot be loaded, is no plain ViT, or was compressed.
    """
    if spec.bundle is not None:
        bundle = _bundle(spec.bundle, START_FIELD)
        own = bundle.candidate
        if own != Candidate(architecture=own.architecture, training=own.training).canonical():
            raise InputError(
                "must be a dense float32 network", field=f"{START_FIELD}.bundle", value=bundle.candidate.summary(),
                remedy="choose a bundle of a candidate that is not compressed, or a timm network",
            )  # fmt: skip
        return bundle.model
    assert spec.timm is not None
    network = load_timm(spec.timm, _checkpoint(spec, START_FIELD), field=START_FIELD)
    try:
        architecture = architecture_of_timm(network)
    except ValueError as error:
        raise InputError(
            str(error),
            field=f"{START_FIELD}.timm",
            value=spec.timm,
            remedy="choose a plain vit_* or deit_* network",
        ) from error
    model = build_dense(architecture).eval()
    model.load_state_dict(network.state_dict())
    return model


def _live(
    network: nn.Module,
    data: TensorData,
    *,
    image_size: int,
    in_chans: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> LiveAnswers:
    return LiveAnswers(
        network, image_size=image_size, in_chans=in_chans, mean=mean, std=std,
        student_mean=data.mean, student_std=data.std,
    )  # fmt: skip


def _check_classes(found: int, data: TensorData, teacher: str) -> None:
    if found != data.source.num_classes:
        raise InputError(
            f"must tell the data's {data.source.num_classes} classes apart, but {teacher} tells {found}",
            field=FIELD,
            remedy="fine-tune it on these images first, or choose another teacher",
        )  # fmt: skip
