"""Asking a teacher once per study: the answers are kept beside the study and shared by all workers."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vitsearch.config import JobSpec, TrainSpec
from vitsearch.errors import InputError

if TYPE_CHECKING:
    from vitsearch.train.data import ImageData
    from workers import RayExecutor

# What decides which batches a teacher sees and what it says of them.
DECISIVE = {
    "epochs", "batch_size", "label_smoothing", "mixup", "cutmix", "randaugment_ops", "randaugment_magnitude",
    "flip", "crop_padding_px", "erasing", "distill",
}  # fmt: skip


def check_networks(job: JobSpec, data: ImageData) -> None:
    """Load the teacher and the initial weights that a job names, and let them go again.

    Raises:
        InputError: One cannot be loaded, or does not fit.
    """
    spec = job.train
    if spec.distill.teacher is not None and (spec.distill.is_active or spec.distill.inner != "none"):
        import torch

        from vitsearch.export import load_teacher
        from vitsearch.train.distill import has_relations
        from vitsearch.train.tensors import TensorData

        teacher = load_teacher(spec.distill.teacher, TensorData(data, torch.device("cpu")))
        if spec.distill.inner == "minivit" and not has_relations(teacher.network):
            raise InputError(
                "minivit compares queries, keys and values, but the teacher has none", field="train.distill.inner",
                value="minivit", remedy="choose a ViT as teacher, or inner: tokens or manifold",
            )  # fmt: skip
    if spec.pretrained is not None and spec.init == "pretrained":
        from vitsearch.export import load_start

        load_start(spec.pretrained)


def teach(
    train: TrainSpec, seed: int, fingerprint: str, out: Path, executor: RayExecutor, on_step: Callable[[str], None]
) -> None:
    """Give all trainers the teacher's answers, from the run's folder if they are there already.

    Args:
        train: The recipe.
        seed: Seed of order and augmentation.
        fingerprint: Of the data.
        out: The run's folder.
        executor: Whose trainers ask and learn.
        on_step: Told how far it is.
    """
    recipe = train.model_dump_json(include=DECISIVE)
    key = hashlib.sha256(f"{recipe}:{seed}:{fingerprint}".encode()).hexdigest()[:16]
    file = out / "artifacts" / "teacher" / f"{key}.npz"
    answers = _read(file)
    if answers is None:
        on_step(f"asking the teacher about {train.epochs} epochs of images, once for all trials")
        answers = executor.ask_teacher(
            train, seed, lambda done: on_step(f"the teacher has answered epoch {done}/{train.epochs}")
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        with partial.open("wb") as stream:
            np.savez(stream, classes_ENT=answers[0], log_probs_ENT=answers[1])
        partial.replace(file)
    executor.share_answers(*answers)


def _read(file: Path) -> tuple[np.ndarray, np.ndarray] | None:
    try:
        with np.load(file, allow_pickle=False) as stored:
            return stored["classes_ENT"], stored["log_probs_ENT"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):  # none, or not whole: ask again
        return None
