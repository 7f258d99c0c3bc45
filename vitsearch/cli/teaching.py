"""Asking a teacher once per study: the answers are kept beside the study and shared by all workers."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vitsearch.config import JobSpec, NetworkSpec, TrainSpec

if TYPE_CHECKING:
    from vitsearch.space import SearchSpace
    from vitsearch.train.data import ImageData
    from workers import RayExecutor

# What decides which batches a teacher sees and what it says of them.
DECISIVE = {
    "epochs", "batch_size", "label_smoothing", "mixup", "cutmix", "randaugment_ops", "randaugment_magnitude",
    "flip", "crop_padding_px", "erasing", "three_augment", "repeats", "distill",
}  # fmt: skip

DISTILLATION_TOKENS = {"deit": 1, "co_advise": 2}  # what a method's students need


def check_students(space: SearchSpace, train: TrainSpec, where: Path) -> None:
    """Refuse a recipe whose students lack what they would learn by.

    Raises:
        InputError: The message names the file and the setting.
    """
    from vitsearch.errors import InputError

    spec = train.distill
    tokens = DISTILLATION_TOKENS.get(spec.method)
    drawn = set(space.values_of("architecture.distillation_tokens") or (1,))
    if tokens and (space.fixed.get("architecture.distilled") is not True or drawn != {tokens}):
        raise InputError(
            f"{spec.method} needs {'a distillation token' if tokens == 1 else 'two distillation tokens'}",
            where=str(where), field="train.distill.method",
            remedy="fix architecture.distilled: true and "
            f"architecture.distillation_tokens: {tokens} in the space, or choose hard",
        )  # fmt: skip
    reducer = _reduces_in_the_first_block(space)
    if spec.inner_weights and train.tokens == "start" and reducer:
        raise InputError(
            f"{', '.join(spec.inner_weights)} compare patches after a block that keeps all of them, but "
            f"{reducer} can remove some in block 1 from the start of training",
            where=str(where), field="train.tokens", value="start",
            remedy="name tokens.blocks from 2 on, or write train.tokens: finetune",
        )  # fmt: skip


def _reduces_in_the_first_block(space: SearchSpace) -> str:
    """A reducer of the space that can act in block 1, or nothing."""
    from vitsearch.candidate import TOKEN_RULES
    from vitsearch.candidate.tokens.blocks import BlockwiseRule
    from vitsearch.space.space import blocks_named

    depths = [int(str(depth)) for depth in space.values_of("architecture.depth")]
    named = [blocks_named(value, depth) for value in space.values_of("tokens.blocks") for depth in depths]
    for name in map(str, space.values_of("tokens.reducer")):
        rule = TOKEN_RULES[name]
        if not issubclass(rule, BlockwiseRule) or rule.examples()[0].learns:
            continue
        if any(1 in blocks for blocks in named or map(rule.default_blocks, depths)):
            return name
    return ""


def check_named(job: JobSpec, where: Path) -> None:
    """Refuse teachers and initial weights that are not there, without loading them.

    Raises:
        InputError: A file or bundle is missing, or timm does not know the name.
    """
    from vitsearch.errors import InputError

    train, distill = job.train, job.train.distill
    listens = distill.is_active or distill.inner_weights
    for field, network in (
        ("train.distill.teacher", distill.teacher if listens else None),
        ("train.distill.second_teacher", distill.second_teacher),
        ("train.pretrained", train.pretrained if train.init == "pretrained" else None),
    ):
        try:
            if network is not None:
                _require_there(network, field)
        except InputError as error:
            error.where = str(where)
            raise


def _require_there(network: NetworkSpec, field: str) -> None:
    from vitsearch.errors import InputError

    if network.bundle is not None:
        from vitsearch.trial.weights import CANDIDATE_FILE

        if not (network.bundle / CANDIDATE_FILE).is_file():
            raise InputError("holds no bundle", field=f"{field}.bundle", value=str(network.bundle),
                             remedy="name a folder that vitsearch export wrote")  # fmt: skip
    if network.checkpoint is not None and not network.checkpoint.is_file():
        raise InputError("the file does not exist", field=f"{field}.checkpoint", value=str(network.checkpoint))
    if network.timm is not None:
        from vitsearch.models.pretrained import require_known

        require_known(network.timm, field=field)


def check_networks(job: JobSpec, data: ImageData) -> None:
    """Load the teacher and the initial weights that a job names, and let them go again.

    Raises:
        InputError: One cannot be loaded, or does not fit.
    """
    spec = job.train
    if spec.distill.teacher is not None and (spec.distill.is_active or spec.distill.inner_weights):
        import torch

        from vitsearch.export import load_teacher
        from vitsearch.train.distill import check_inner
        from vitsearch.train.tensors import TensorData

        images = TensorData(data, torch.device("cpu"))
        teacher = load_teacher(spec.distill.teacher, images)
        if spec.distill.inner_weights:
            check_inner(spec.distill, teacher)
        if spec.distill.second_teacher is not None:
            load_teacher(spec.distill.second_teacher, images)
    if spec.pretrained is not None and spec.init == "pretrained":
        from vitsearch.export import load_start

        load_start(spec.pretrained)


def teach(
    train: TrainSpec, seed: int, fingerprint: str, out: Path, executor: RayExecutor, on_step: Callable[[str], None]
) -> None:
    """Give all trainers the teachers' answers, from the run's folder if they are there already.

    Args:
        train: The recipe.
        seed: Seed of order and augmentation.
        fingerprint: Of the data.
        out: The run's folder.
        executor: Whose trainers ask and learn.
        on_step: Told how far it is.
    """
    who, answers = ("the teacher", "the second teacher"), []
    for name, teacher in zip(who, train.distill.teachers, strict=False):
        alone = train.model_copy(update={"distill": train.distill.of_teacher(teacher)})
        recipe = alone.model_dump_json(include=DECISIVE)
        key = hashlib.sha256(f"{recipe}:{seed}:{fingerprint}".encode()).hexdigest()[:16]
        file = out / "artifacts" / "teacher" / f"{key}.npz"
        found = _read(file)
        if found is None:
            on_step(f"asking {name} about {train.epochs} epochs of images, once for all trials")
            told = partial(_tell, on_step, name, train.epochs)
            found = executor.ask_teacher(alone, seed, told)
            _write(file, found)
        answers.append(found)
    executor.share_answers(answers)


def _tell(on_step: Callable[[str], None], name: str, epochs: int, done: int) -> None:
    on_step(f"{name} has answered epoch {done}/{epochs}")


def _write(file: Path, answers: tuple[np.ndarray, np.ndarray]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".partial")
    with unfinished.open("wb") as stream:
        np.savez(stream, classes_ENT=answers[0], log_probs_ENT=answers[1])
    unfinished.replace(file)


def _read(file: Path) -> tuple[np.ndarray, np.ndarray] | None:
    try:
        with np.load(file, allow_pickle=False) as stored:
            return stored["classes_ENT"], stored["log_probs_ENT"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):  # none, or not whole: ask again
        return None
