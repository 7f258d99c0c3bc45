"""The training loop: timm's optimisers and schedules around batches of tensors."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from vitsearch.config import TrainSpec
from vitsearch.errors import TrialError
from vitsearch.messages import EpochReport
from vitsearch.models import VisionTransformer, set_fused_attention
from vitsearch.train.batches import TrainingBatches
from vitsearch.train.checkpoint import EpochCheckpoint, Progress
from vitsearch.train.early_stop import out_of_reach
from vitsearch.train.evaluate import evaluate
from vitsearch.train.losses import LossTerm, Outputs, classification_loss
from vitsearch.train.seeds import seed_everything
from vitsearch.train.tensors import TensorData

DROPOUT = 1  # a stream of draws apart from the augmentation's


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What a training run tells its surroundings.

    Attributes:
        on_epoch: Called after each epoch.
        on_batch: Called between batches; may block (a paused worker) or raise.
        checkpoint: Where epochs are saved, if anywhere.
        accuracy_to_beat: Below it the run may end early.
        further_epochs: Epochs of fine-tuning that follow this run; a forecast counts on them too.
    """

    on_epoch: Callable[[EpochReport], None] = lambda _: None
    on_batch: Callable[[], None] = lambda: None
    checkpoint: EpochCheckpoint | None = None
    accuracy_to_beat: float | None = None
    further_epochs: int = 0


@dataclass(frozen=True, kw_only=True)
class TrainOutcome:
    """How a run ended.

    Attributes:
        epochs_run: Epochs trained.
        accuracy: Validation accuracy after the last.
        stopped_early: Whether planned epochs were left out.
    """

    epochs_run: int
    accuracy: float
    stopped_early: bool


def train(
    model: VisionTransformer,
    data: TensorData,
    spec: TrainSpec,
    *,
    seed: int,
    data_seed: int | None = None,
    trial: int = 0,
    epochs: int | None = None,
    loss_terms: tuple[LossTerm, ...] = (),
    hooks: Hooks = Hooks(),
    eval_batch_size: int = 256,
) -> TrainOutcome:
    """Train in place on the training split, scoring the validation split after each epoch.

    The run is a function of its arguments: every step seeds its augmentation and its dropout from (seed, epoch,
    step), so a run resumed from its checkpoint ends with the weights of one never interrupted (same machine, same
    threads).

    Args:
        model: The network, on ``data``'s device.
        data: The data set.
        spec: The recipe; ``autocast`` must be resolved (not ``auto``).
        seed: Seed of order, augmentation and dropout.
        data_seed: Seed of order and augmentation alone, where runs of several seeds must see the same batches.
        trial: Number quoted in reports.
        epochs: Overrides the recipe's.
        loss_terms: Summands of the loss; cross-entropy by default.
        hooks: Reports, pauses, checkpoints, early end.
        eval_batch_size: Images of one validation pass.

    Raises:
        TrialError: The loss is not finite.
    """
    epochs = spec.epochs if epochs is None else epochs
    batches = TrainingBatches(data, spec)
    steps = batches.steps
    optimizer, scheduler = _optimizer_and_schedule(model, spec, epochs, steps)
    terms = loss_terms or (classification_loss(spec.label_smoothing),)
    set_fused_attention(model, spec.autocast != "bf16_unfused")
    progress = hooks.checkpoint.restore(model, optimizer) if hooks.checkpoint else Progress()

    while progress.epoch < epochs and not progress.ended:
        epoch = progress.epoch
        model.train()
        started = time.perf_counter()
        loss_sum = torch.zeros((), device=data.device)
        for batch in batches.epoch(epoch, seed if data_seed is None else data_seed):
            scheduler.step_update(epoch * steps + batch.step)
            seed_everything(seed, epoch, batch.step, DROPOUT)
            with autocast(spec, data.device):
                heads_BK = model.forward_heads(batch.images_BCHW)
            outputs = Outputs.of(heads_BK)
            loss = sum((term(outputs, batch) for term in terms), torch.zeros((), device=data.device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            if spec.clip_grad_norm:
                nn.utils.clip_grad_norm_(model.parameters(), spec.clip_grad_norm, foreach=True)
            optimizer.step()
            loss_sum += loss.detach()
            hooks.on_batch()
        mean_loss = float(loss_sum) / steps
        if not np.isfinite(mean_loss):
            raise TrialError("train", "nan_loss", f"the loss is not finite in epoch {epoch + 1}; lower train.lr")
        seconds = time.perf_counter() - started
        score = evaluate(model, data, data.source.val, batch_size=eval_batch_size, on_batch=hooks.on_batch)
        history = (*progress.history, score.accuracy)
        hopeless = spec.early_stop and out_of_reach(history, epochs + hooks.further_epochs, hooks.accuracy_to_beat)
        progress = Progress(epoch=epoch + 1, history=history, ended=hopeless or epoch + 1 == epochs)
        if hooks.checkpoint:
            hooks.checkpoint.save(progress, model, optimizer)  # what is reported is safe
        hooks.on_epoch(
            EpochReport(
                trial=trial,
                epoch=progress.epoch,
                epochs=epochs,
                train_loss=mean_loss,
                accuracy=score.accuracy,
                learning_rate=optimizer.param_groups[0]["lr"],
                images_per_s=len(batches) / seconds,
            )
        )
    seed_everything(seed, progress.epoch)  # what follows draws the same after a run that was restored at its end
    set_fused_attention(model, fused=True)
    model.eval()
    return TrainOutcome(
        epochs_run=progress.epoch, accuracy=progress.history[-1], stopped_early=progress.epoch < epochs
    )


def _optimizer_and_schedule(
    model: nn.Module, spec: TrainSpec, epochs: int, steps: int
) -> tuple[torch.optim.Optimizer, Any]:
    """By timm's factories; the cosine starts at the peak where the linear warm-up ends."""
    from timm.optim import create_optimizer_v2
    from timm.scheduler.scheduler_factory import create_scheduler_v2

    warmup_epochs = min(spec.warmup_epochs, epochs / 2)
    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        model, opt=spec.optimizer, lr=spec.lr, weight_decay=spec.weight_decay, filter_bias_and_bn=True
    )
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched="cosine",
        num_epochs=epochs - warmup_epochs,
        min_lr=spec.min_lr,
        warmup_lr=spec.lr / 100,
        warmup_epochs=warmup_epochs,
        warmup_prefix=warmup_epochs > 0,
        step_on_epochs=False,
        updates_per_epoch=steps,
    )
    return optimizer, scheduler


def autocast(spec: TrainSpec, device: torch.device) -> AbstractContextManager[object]:
    """The number format of the forward pass."""
    if spec.autocast in {"fp32", "auto"}:
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
