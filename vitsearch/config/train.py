"""Training recipes by name, and what a job may override in them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from vitsearch.config.base import Spec
from vitsearch.config.distill import DistillSpec
from vitsearch.config.named import KeyOf
from vitsearch.config.network import NetworkSpec

Share = Annotated[float, Field(ge=0, le=1)]
Autocast = Literal["auto", "fp32", "bf16_fused", "bf16_unfused"]


SETTINGS: dict[str, dict[str, float]] = {
    "plain": {},
    # A light form of AugReg (Steiner et al., 2021) for small images and short runs.
    "augreg_light": {
        "epochs": 30, "batch_size": 128, "label_smoothing": 0.1, "mixup": 0.2, "randaugment_ops": 1,
        "randaugment_magnitude": 7, "flip": 0.5, "crop_padding_px": 4, "drop_path": 0.05,
    },
    # AugReg (Steiner et al., 2021, Section 3.2: medium augmentation, stochastic depth and dropout 0.1).
    "augreg": {
        "epochs": 100, "batch_size": 128, "label_smoothing": 0.1, "mixup": 0.5, "cutmix": 1.0,
        "randaugment_ops": 2, "randaugment_magnitude": 15, "flip": 0.5, "crop_padding_px": 4, "erasing": 0.25,
        "drop_path": 0.1, "dropout": 0.1, "repeats": 2,
    },
    # DeiT (Touvron et al., 2021, Table 9), with the batch of a small machine.
    "deit": {
        "epochs": 300, "batch_size": 128, "lr": 5e-4, "warmup_epochs": 5, "label_smoothing": 0.1, "mixup": 0.8,
        "cutmix": 1.0, "randaugment_ops": 2, "randaugment_magnitude": 9, "flip": 0.5, "crop_padding_px": 4,
        "erasing": 0.25, "drop_path": 0.1,
    },
}  # fmt: skip


class TrainSpec(Spec):
    """One training run. Fields left out of a job come from its recipe.

    Attributes:
        recipe: Name in ``RECIPES``.
        epochs: Passes over the training split.
        batch_size: Images of one step.
        optimizer: Name known to ``timm.optim.create_optimizer_v2``.
        lr: Peak learning rate.
        weight_decay: Decoupled weight decay; norms, biases and embeddings are exempt.
        warmup_epochs: Epochs of linear warm-up; may be a fraction.
        min_lr: Learning rate at the end of the cosine.
        label_smoothing: Mass spread over the other classes.
        mixup: Alpha of mixup; 0 switches it off.
        cutmix: Alpha of cutmix; 0 switches it off.
        randaugment_ops: RandAugment operations per image group; 0 switches it off.
        randaugment_magnitude: Strength of RandAugment, 0 to 30.
        flip: Probability of a horizontal flip (leave 0 for digits).
        crop_padding_px: Padding of the random crop; 0 switches it off.
        erasing: Probability of random erasing.
        three_augment: Grey, solarised or blurred with equal probability, and colour jitter (DeiT III).
        repeats: Views of each image in one epoch, which then sees 1/repeats of the images (repeated augmentation:
            Hoffer et al., 2020).
        drop_path: Stochastic depth rate of the last block.
        dropout: Dropout rate after the projections.
        pos_embed_std: Deviation of initial position embeddings. timm's 0.02 suits long runs and photographs; with
            tiny patches and few steps 0.5 learns positions much sooner (digits, patch 2: 74 % against 96 %).
        clip_grad_norm: Bound of the gradient norm; 0 switches it off.
        autocast: ``auto`` measures once per study and node type which of the others is fastest.
        finetune_epochs: Epochs after structured pruning, and of reducers that learn.
        tokens: When token reducers come in: ``after`` training; for the ``finetune`` epochs, as they always do in
            pruned networks and where they learn; or at the ``start``, unless they learn or blocks are pruned.
        qat_epochs: Epochs through the quantisers of a candidate that names a ``precision.training``.
        init: ``random``, or ``pretrained``: weights of a trained ViT, its patches and positions resampled to the
            images, its blocks, heads, channels and hidden units cut by importance to each candidate's shape.
        pretrained: That ViT.
        distill: A teacher and how to listen to it.
        early_stop: End a trial whose plausible final accuracy cannot beat a model that already costs less.
    """

    recipe: Annotated[str, KeyOf(SETTINGS)] = "plain"
    epochs: Annotated[int, Field(ge=1)] = 10
    batch_size: Annotated[int, Field(ge=1)] = 64
    optimizer: Literal["adamw", "lamb", "sgd", "lion", "adam", "nadamw"] = "adamw"
    lr: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    warmup_epochs: Annotated[float, Field(ge=0)] = 1.0
    min_lr: Annotated[float, Field(ge=0)] = 1e-5
    label_smoothing: Share = 0.0
    mixup: Annotated[float, Field(ge=0)] = 0.0
    cutmix: Annotated[float, Field(ge=0)] = 0.0
    randaugment_ops: Annotated[int, Field(ge=0, le=5)] = 0
    randaugment_magnitude: Annotated[int, Field(ge=0, le=30)] = 9
    flip: Share = 0.0
    crop_padding_px: Annotated[int, Field(ge=0)] = 0
    erasing: Share = 0.0
    three_augment: bool = False
    repeats: Annotated[int, Field(ge=1, le=16)] = 1
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    pos_embed_std: Annotated[float, Field(gt=0, le=2)] = 0.02
    clip_grad_norm: Annotated[float, Field(ge=0)] = 1.0
    autocast: Autocast = "auto"
    finetune_epochs: Annotated[int, Field(ge=0)] = 1
    tokens: Literal["after", "finetune", "start"] = "after"
    qat_epochs: Annotated[int, Field(ge=0)] = 1
    init: Literal["random", "pretrained"] = "random"
    pretrained: NetworkSpec | None = None
    distill: DistillSpec = DistillSpec()
    early_stop: bool = True

    @model_validator(mode="after")
    def _has_weights_to_start_from(self) -> Self:
        if self.init == "pretrained" and self.pretrained is None:
            raise ValueError("init: pretrained needs weights; add pretrained: {timm: NAME} or {bundle: FOLDER}")
        return self


RECIPES: dict[str, TrainSpec] = {
    name: TrainSpec.model_validate({"recipe": name, **settings}) for name, settings in SETTINGS.items()
}
