"""Asking a teacher once per study: the answers are kept beside the study and shared by all workers."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vitsearch.artifacts import join, workspace
from vitsearch.config import NetworkSpec, TrainSpec
from vitsearch.config.paths import is_there

if TYPE_CHECKING:
    from vitsearch.candidate import Candidate
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
    """Refuse recipes whose students lack what they would learn by, and teachers that nobody listens to.

    Raises:
        InputError: The message names the file and the setting.
    """
    from vitsearch.errors import InputError
    from vitsearch.space import recipes

    found = recipes(space, train)
    for candidate in space.probed:
        recipe = found[candidate.training]
        tokens = DISTILLATION_TOKENS.get(recipe.distill.method, 0)
        if tokens and candidate.architecture.num_distillation_tokens != tokens:
            needed = "a distillation token" if tokens == 1 else "two distillation tokens"
            raise InputError(
                f"{recipe.distill.method} needs {needed}",
                where=str(where), field="train.distill.method",
                remedy="fix architecture.distilled: true and "
                f"architecture.distillation_tokens: {tokens} in the space, or choose hard",
            )  # fmt: skip
        inner = recipe.distill.inner_weights
        if inner and recipe.tokens == "start" and _reduces_in_the_first_block(candidate):
            raise InputError(
                f"{', '.join(inner)} compare patches after a block that keeps all of them, but "
                f"{candidate.tokens.reducer} can remove some in block 1 from the start of training",
                where=str(where), field="train.tokens", value="start",
                remedy="name tokens.blocks from 2 on, or write train.tokens: finetune",
            )  # fmt: skip
    listening = [recipe for recipe in found.values() if listens(recipe)]
    if train.distill.teacher is not None and not listening:
        raise InputError(
            "nobody listens to it", where=str(where), field="train.distill.teacher",
            remedy="name a method or inner, in the job or the space, or leave the teacher out",
        )  # fmt: skip
    varied = [name for name in space.spec.dimensions if name.removeprefix("train.") in DECISIVE]
    if varied and any(recipe.distill.is_active and recipe.distill.cache for recipe in listening):
        raise InputError(
            f"the teacher's answers are asked once, about the same images for all trials, but {varied[0]} varies",
            where=str(where), field="train.distill.cache", value=True,
            remedy=f"write cache: false, or fix {varied[0]}",
        )  # fmt: skip


def listens(train: TrainSpec) -> bool:
    """Whether a recipe has another network as a teacher."""
    return train.distill.is_active or bool(train.distill.inner_weights)


def _reduces_in_the_first_block(candidate: Candidate) -> bool:
    from vitsearch.candidate import BlockwiseRule

    rule = candidate.tokens
    if not isinstance(rule, BlockwiseRule) or rule.learns:
        return False
    return 1 in rule.active_blocks(candidate.pruned_architecture.depth)


def check_named(space: SearchSpace, train: TrainSpec, where: Path) -> None:
    """Refuse teachers and initial weights that are not there, without loading them.

    Raises:
        InputError: A file or bundle is missing, or timm does not know the name.
    """
    from vitsearch.errors import InputError
    from vitsearch.space import recipes

    found = recipes(space, train).values()
    for field, network in (
        ("train.distill.teacher", train.distill.teacher if any(map(listens, found)) else None),
        ("train.distill.second_teacher", train.distill.second_teacher),
        ("train.pretrained", train.pretrained if any(one.init == "pretrained" for one in found) else None),
    ):
        try:
            if network is not None:
                _require_there(network, field)
        except InputError as error:
            error.where = str(where)
            raise


def _require_there(network: NetworkSpec, field: str) -> None:
    from vitsearch.artifacts import check_address
    from vitsearch.errors import InputError

    for part, place in (("bundle", network.bundle), ("checkpoint", network.checkpoint)):
        if isinstance(place, str):
            check_address(place, field=f"{field}.{part}")
    if isinstance(network.bundle, Path):
        from vitsearch.compress.saved import CANDIDATE_FILE

        if not is_there(network.bundle / CANDIDATE_FILE, as_file=True):
            raise InputError("must be the folder of a bundle", field=f"{field}.bundle", value=str(network.bundle),
                             remedy="name a folder that vitsearch export wrote")  # fmt: skip
    if isinstance(network.checkpoint, Path) and not is_there(network.checkpoint, as_file=True):
        raise InputError("the file does not exist", field=f"{field}.checkpoint", value=str(network.checkpoint))
    if network.timm is not None:
        from vitsearch.models.pretrained import require_known

        require_known(network.timm, field=field)


def check_networks(space: SearchSpace, train: TrainSpec, data: ImageData) -> None:
    """Load the teachers and the initial weights that candidates of a space use, and let them go again.

    Raises:
        InputError: One cannot be loaded, or does not fit.
    """
    from vitsearch.space import recipes

    found = recipes(space, train).values()
    listening = [recipe for recipe in found if listens(recipe)]
    if listening and train.distill.teacher is not None:
        import torch

        from vitsearch.export import load_teacher
        from vitsearch.train.distill import check_inner
        from vitsearch.train.tensors import TensorData

        images = TensorData(data, torch.device("cpu"))
        teacher = load_teacher(train.distill.teacher, images)
        for recipe in listening:
            if recipe.distill.inner_weights:
                check_inner(recipe.distill, teacher)
        if train.distill.second_teacher is not None:
            load_teacher(train.distill.second_teacher, images)
    if train.pretrained is not None and any(recipe.init == "pretrained" for recipe in found):
        from vitsearch.export import load_start

        load_start(train.pretrained)


def teach(
    train: TrainSpec, seed: int, fingerprint: str, root: str, executor: RayExecutor, on_step: Callable[[str], None]
) -> None:
    """Give all trainers the teachers' answers, from beside the study if they are there already.

    Args:
        train: The recipe.
        seed: Seed of order and augmentation.
        fingerprint: Of the data.
        root: Where the study keeps what its trials make.
        executor: Whose trainers ask and learn.
        on_step: Told how far it is.
    """
    who, answers = ("the teacher", "the second teacher"), []
    for name, teacher in zip(who, train.distill.teachers, strict=False):
        alone = train.model_copy(update={"distill": train.distill.of_teacher(teacher)})
        recipe = alone.model_dump_json(include=DECISIVE)
        key = hashlib.sha256(f"{recipe}:{seed}:{fingerprint}".encode()).hexdigest()[:16]
        with workspace(join(root, "teacher"), [f"{key}.npz"]) as place:
            file = place.folder / f"{key}.npz"
            found = _read(file)
            if found is None:
                on_step(f"asking {name} about {train.epochs} epochs of images, once for all trials")
                told = partial(_tell, on_step, name, train.epochs)
                found = executor.ask_teacher(alone, seed, told)
                _write(file, found)
                place.publish(file.name)
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
