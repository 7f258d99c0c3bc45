"""``vitsearch run FOLDER``: a job made from nothing but images."""

from __future__ import annotations

import re
from pathlib import Path
from statistics import median

from vitsearch.config import (
    DatasetSpec,
    EerSpec,
    FinalSpec,
    JobSpec,
    ReferenceSpec,
    SearchSpec,
    SpaceSpec,
    TrainSpec,
)
from vitsearch.config.paths import files_below
from vitsearch.config.train import RECIPES
from vitsearch.errors import InputError

PRESETS_BY_SIDE = ((16, "vit_micro_8"), (48, "vit_tiny_32"), (128, "vit_small_64"))
SAMPLED_IMAGES = 25


def job_of_folder(folder: Path) -> JobSpec:
    """A job with sensible defaults for a folder of class sub-folders.

    The preset follows from the typical image side; large photographs are searched at 64 pixels, which a laptop can
    train, and the job that is saved says how to ask for more.

    Raises:
        InputError: The folder has no readable image.
    """
    side = _typical_side(folder)
    preset = next((name for limit, name in PRESETS_BY_SIDE if side <= limit), "vit_small_64")
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.resolve().name).strip("-._") or "images"
    return JobSpec(
        name=name[:80],
        dataset=DatasetSpec(kind="imagefolder", path=folder.resolve(), on_broken_image="skip"),
        space=SpaceSpec(name=preset, preset=preset),
        eer=EerSpec(reference=costliest(preset, max(2, sum(p.is_dir() for p in folder.iterdir())))),
        search=SearchSpec(trials=30),
        train=TrainSpec.model_validate({**RECIPES["augreg_light"].model_dump(), "epochs": 15}),
        final=FinalSpec(retrain="knee"),
    )


def costliest(preset: str, num_classes: int) -> ReferenceSpec:
    """The costliest member of a space, for EER to compare with: next to ViT-B/16 all small models look alike."""
    from vitsearch.cost import cost_of
    from vitsearch.report.extremes import eer_range
    from vitsearch.space import SearchSpace, load_preset

    space = SearchSpace(load_preset(preset), in_chans=3, num_classes=num_classes)
    cost = cost_of(eer_range(space).costliest)
    return ReferenceSpec(
        name=f"costliest {preset}",
        params_m=cost.num_params / 1e6,
        flops_g=cost.num_macs / 1e9,
        bits=cost.bits,
        size_mb=cost.size_mb,
    )


def _typical_side(folder: Path) -> float:
    from PIL import Image, UnidentifiedImageError

    sides = []
    for path in sorted(p for p in files_below(folder) if p.is_file() and not p.name.startswith(".")):
        try:
            with Image.open(path) as image:
                sides.append(min(image.size))
        except (UnidentifiedImageError, OSError, Image.DecompressionBombError):
            continue
        if len(sides) == SAMPLED_IMAGES:
            break
    if not sides:
        raise InputError("holds no image", where=str(folder),
                         remedy="give a job file, or a folder with a sub-folder of images per class")  # fmt: skip
    return median(sides)
