"""One request, one outcome: build, train, compress, evaluate, save. No Ray here."""

from __future__ import annotations

import copy
import hashlib
import itertools
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from vitsearch.artifacts import Workspace, claim_on, workspace
from vitsearch.candidate import Candidate
from vitsearch.compress import (
    PruneContext,
    TokenMeter,
    build_reducers,
    calibrate,
    fit_reducers,
    insert_quantizers,
    metered,
    prune,
    token_losses,
    train_quantised,
)
from vitsearch.compress.inherit import inherit
from vitsearch.compress.quantize.mixed import share_out_bits
from vitsearch.compress.saved import CANDIDATE_FILE, WEIGHTS_FILE, save_model
from vitsearch.compress.weights import Trainer
from vitsearch.cost import Tokens, cost_kind, measured_cost
from vitsearch.errors import TrialError, WorkerError
from vitsearch.messages import (
    CHECKPOINT_FILES,
    EpochReport,
    MeasuredCost,
    Stage,
    TrialFailure,
    TrialRequest,
    TrialResult,
)
from vitsearch.models import VisionTransformer, build_dense
from vitsearch.models.conv_stem import fold_batch_norms, learn_batch_norms
from vitsearch.models.lsa import fold_temperatures, learn_temperatures
from vitsearch.train.checkpoint import EpochCheckpoint
from vitsearch.train.distill import LiveAnswers, TeacherAnswers, distillation_loss, inner_losses, masked_losses
from vitsearch.train.evaluate import evaluate, normalized_batches
from vitsearch.train.loop import Hooks, train
from vitsearch.train.losses import LossTerm, classification_loss
from vitsearch.train.seeds import seed_everything
from vitsearch.train.tensors import TensorData, indices_of

FINETUNE_LR_SHARE = 0.2
INHERIT_IMAGES = 64
INIT_EPOCH, COMPRESS_EPOCH = 1_000_001, 1_000_002  # seeds of their own, apart from every epoch's


class TrialStopped(BaseException):
    """Raised from ``on_batch`` to abandon a trial; no outcome results."""


@dataclass(frozen=True, kw_only=True)
class TrialContext:
    """What a worker lends to its trials.

    Attributes:
        data: The images, on the device that trains.
        on_epoch: Called after each epoch.
        on_batch: Called between batches; may block, or raise ``TrialStopped``.
        teachers: Answers for recipes that distil, of each teacher.
        inner_teacher: The teacher itself, for recipes that learn from what it computes.
        start: A dense network for recipes that start from trained weights.
    """

    data: TensorData
    on_epoch: Callable[[EpochReport], None] = lambda _: None
    on_batch: Callable[[], None] = lambda: None
    teachers: tuple[TeacherAnswers, ...] = ()
    inner_teacher: LiveAnswers | None = None
    start: VisionTransformer | None = None


def run_trial(request: TrialRequest, context: TrialContext) -> TrialResult | TrialFailure:
    """Run one evaluation from start to end.

    What goes wrong with the candidate is returned as data.

    Raises:
        TrialStopped: ``on_batch`` raised it.
        WorkerError: The device refuses all further work, and only a new process can go on; or another attempt at
            the trial has begun, because this worker was taken for lost.
    """
    try:
        return _run(request, context)
    except TrialError as error:
        return _failure(request, error)
    except WorkerError:
        raise
    except Exception as error:  # noqa: BLE001 - a candidate must never take the worker down
        trace = traceback.format_exc(limit=-3)
        message = f"{type(error).__name__}: {error}\n{trace}"
        return TrialFailure(trial=request.trial, stage="worker", failure="unexpected", message=message)


def _run(request: TrialRequest, context: TrialContext) -> TrialResult:
    with ExitStack() as stack:
        with _stage("build"):
            place = stack.enter_context(workspace(request.artifact_dir, fetch=[CHECKPOINT_FILES]))
            _require_claim(request)
        return _run_in(place, request, context)


def _run_in(place: Workspace, request: TrialRequest, context: TrialContext) -> TrialResult:
    started = time.perf_counter()
    data, candidate = context.data, request.candidate
    if data.source.fingerprint != request.data_fingerprint:
        raise TrialError(
            "data",
            "other_data",
            f"the worker holds data {data.source.fingerprint}, not {request.data_fingerprint}",
            retryable=True,
        )
    hooks = Hooks(
        on_epoch=context.on_epoch,
        on_batch=context.on_batch,
        checkpoint=_checkpoint(place, request),
        accuracy_to_beat=request.accuracy_to_beat,
        further_epochs=_further_epochs(request),
    )
    with _stage("build"):
        seed_everything(request.seed, INIT_EPOCH)
        spec = request.train
        dense = build_dense(
            candidate.architecture,
            drop_path=spec.drop_path,
            dropout=spec.dropout,
            pos_embed_std=spec.pos_embed_std,
        ).to(data.device)
        if spec.init == "pretrained":
            _inherit(dense, request, context)
        learn_temperatures(dense)
        learn_batch_norms(dense)
        if _reduces_from_the_start(request):
            dense.set_reducers(build_reducers(candidate))
    with (
        _stage("train"),
        masked_losses(spec.distill, dense, spec.epochs) as own,
        _inner_losses(request, context, dense, spec.epochs) as inner,
    ):
        outcome = train(
            dense, data, spec, seed=request.seed, data_seed=request.data_seed, trial=request.trial, hooks=hooks,
            loss_terms=(*_loss_terms(request, context), *inner, *own), eval_batch_size=request.evaluate.batch_size,
        )  # fmt: skip
    train_s = time.perf_counter() - started
    with _stage("compress"):
        fold_temperatures(dense)
        fold_batch_norms(dense)
        dense.set_reducers({})
        model = compress(dense, candidate, request, context, _trainer(request, context, place))
    with _stage("evaluate"):
        split = indices_of(data.source, request.split)
        with metered(model) as meter:
            score = evaluate(model, data, split, batch_size=request.evaluate.batch_size, on_batch=context.on_batch)
        checksum = save_model(model, candidate, place.folder, before_save=partial(_require_claim, request))
        _require_claim(request)  # a store has not got them yet
        place.publish(CANDIDATE_FILE, WEIGHTS_FILE)
    return TrialResult(
        trial=request.trial,
        accuracy=score.accuracy,
        loss=score.loss,
        dense_accuracy=outcome.accuracy,
        split=request.split,
        epochs_run=outcome.epochs_run,
        stopped_early=outcome.stopped_early,
        train_s=train_s,
        total_s=time.perf_counter() - started,
        num_params=sum(p.numel() for p in model.parameters()),
        measured=_measured(model, candidate, meter),
        weights_file=WEIGHTS_FILE,
        weights_sha256=checksum,
        device=str(data.device),
        autocast=request.train.autocast,
    )


def compress(
    dense: VisionTransformer,
    candidate: Candidate,
    request: TrialRequest,
    context: TrialContext,
    fine_tune: Trainer,
) -> VisionTransformer:
    """Tokens, then structure and fine-tuning with tokens already removed, then bits: calibrated, then trained."""
    data = context.data
    if candidate.sparsity.prunes:
        model = prune(dense, candidate, _prune_context(request, context, fine_tune))
    else:
        model = _with_tokens_reduced(dense, request, context, fine_tune)
    model.to(data.device).eval()
    quantised = not candidate.precision.is_float32
    images = list(_sample_batches(request, data, request.evaluate.calibration_images)) if quantised else []
    insert_quantizers(model, share_out_bits(model, candidate, images))
    model.to(data.device).eval()
    if quantised:
        calibrate(model, images)
        with token_losses(model, candidate, dense) as terms:
            train_quantised(model, partial(fine_tune, terms=terms), request.train.qat_epochs)
    return model


def _with_tokens_reduced(
    dense: VisionTransformer, request: TrialRequest, context: TrialContext, fine_tune: Trainer
) -> VisionTransformer:
    """The network with the candidate's reducers, fine-tuned with them where the recipe or they ask for it."""
    candidate, tuning = request.candidate, _fine_tunes(request)
    model = copy.deepcopy(dense) if tuning else dense  # what the dense network knows may teach
    model.set_reducers(build_reducers(candidate))
    if candidate.tokens.is_fitted:
        images = _sample_batches(request, context.data, request.evaluate.calibration_images)
        fit_reducers(model, candidate, next(images))
    if tuning:
        with token_losses(model, candidate, dense) as terms:
            fine_tune(model, request.train.finetune_epochs, terms)
    return model


def _fine_tunes(request: TrialRequest) -> bool:
    """Whether training is followed by fine-tuning."""
    candidate, spec = request.candidate, request.train
    reduces = spec.tokens == "finetune" and candidate.tokens.reducer != "none"
    wanted = candidate.sparsity.prunes or candidate.tokens.learns or reduces
    return wanted and spec.finetune_epochs > 0


def _reduces_from_the_start(request: TrialRequest) -> bool:
    """Whether the dense network trains with fewer tokens; reducers number the blocks that pruning leaves."""
    candidate = request.candidate
    rule = candidate.tokens
    early = not rule.learns and not rule.is_fitted and candidate.sparsity.blocks is None
    return request.train.tokens == "start" and early


def _measured(model: VisionTransformer, candidate: Candidate, meter: TokenMeter) -> MeasuredCost | None:
    """The cost of the network, where that was not known exactly; its tokens are those that the meter has seen."""
    if cost_kind(candidate) == "exact":
        return None
    a, tokens = candidate.pruned_architecture, None
    if candidate.tokens.cost_kind != "exact":
        part = a.self_attention_part
        per_block, final = meter.per_block(part.num_tokens, part.depth)
        tokens = Tokens([*per_block, *[(final, final)] * a.class_attention_blocks], final)
    return measured_cost(candidate, model.widths, tokens)


def _loss_terms(request: TrialRequest, context: TrialContext) -> tuple[LossTerm, ...]:
    """What the recipe trains on: labels, or labels and a teacher."""
    spec = request.train
    if not spec.distill.is_active:
        return (classification_loss(spec.label_smoothing, spec.distill.labels_weight),)
    if len(context.teachers) != len(spec.distill.teachers):
        raise TrialError("train", "no_teacher", "the worker has no teacher for train.distill", retryable=True)
    return (distillation_loss(spec.distill, spec.label_smoothing, *context.teachers),)


def _inner_losses(
    request: TrialRequest, context: TrialContext, model: VisionTransformer, epochs: int
) -> AbstractContextManager[tuple[LossTerm, ...]]:
    """What the recipe takes from the teacher's own computation."""
    spec = request.train.distill
    if spec.inner_weights and context.inner_teacher is None:
        raise TrialError(
            "train",
            "no_teacher",
            "the worker has no teacher whose computation train.distill asks for",
            retryable=True,
        )
    return inner_losses(spec, model, context.inner_teacher, epochs)


def _inherit(dense: VisionTransformer, request: TrialRequest, context: TrialContext) -> None:
    """Trained weights in place of random ones, wherever shapes allow."""
    if context.start is None:
        raise TrialError("build", "no_weights", "the worker has no weights for train.init", retryable=True)
    inherit(dense, context.start, next(_sample_batches(request, context.data, INHERIT_IMAGES)))


def _checkpoint(place: Workspace, request: TrialRequest, run: int = 0) -> EpochCheckpoint:
    """Where a run of training is saved: the dense network's (0), then those while it is compressed.

    Each has a file of its own, kept until the trial ends: a trial that goes on compresses anew, from run to run.
    """
    name = f"epoch-{run}.pt" if run else "epoch.pt"
    key = f"{_checkpoint_key(request)}:{run}" if run else _checkpoint_key(request)
    return EpochCheckpoint(
        place.folder / name,
        key=key,
        before_save=partial(_require_claim, request),
        on_saved=lambda: place.publish(name),
    )


def _require_claim(request: TrialRequest) -> None:
    """Leave the files to a later attempt at the trial, if there is one: a worker taken for lost may live on."""
    if claim_on(request.artifact_dir) != request.claim:
        raise WorkerError("another attempt at the trial has begun elsewhere")


def _checkpoint_key(request: TrialRequest) -> str:
    """Everything that decides how training goes on."""
    recipe = hashlib.sha256(request.train.model_dump_json().encode()).hexdigest()[:16]
    return f"{request.candidate.hash}:{request.data_fingerprint}:{recipe}:{request.seed}:{request.data_seed}"


def _further_epochs(request: TrialRequest) -> int:
    """Epochs of training while the network is compressed."""
    candidate, spec = request.candidate, request.train
    tuning = spec.finetune_epochs if _fine_tunes(request) else 0
    return tuning + (spec.qat_epochs if candidate.precision.training != "none" else 0)


def _prune_context(request: TrialRequest, context: TrialContext, fine_tune: Trainer) -> PruneContext:
    """What rankings look at, the images that calibrate and their labels, and how to fine-tune."""
    batches = tuple(_labelled_batches(request, context.data, request.evaluate.calibration_images))
    return PruneContext(seed=request.seed, batches=batches, train=fine_tune, epochs=request.train.finetune_epochs)


def _trainer(request: TrialRequest, context: TrialContext, place: Workspace) -> Trainer:
    """Trains what pruning or quantisation has changed, by the recipe, with smaller steps."""
    spec = request.train.model_copy(
        update={"lr": request.train.lr * FINETUNE_LR_SHARE, "warmup_epochs": 0.0, "early_stop": False}
    )
    runs = itertools.count(1)  # each has a seed and a checkpoint of its own

    def fine_tune(model: VisionTransformer, epochs: int, terms: tuple[LossTerm, ...] = ()) -> None:
        run = next(runs)
        hooks = Hooks(
            on_epoch=context.on_epoch, on_batch=context.on_batch, checkpoint=_checkpoint(place, request, run)
        )
        with _inner_losses(request, context, model, epochs) as inner:
            train(
                model, context.data, spec, seed=request.seed + run, data_seed=request.data_seed,
                trial=request.trial, epochs=epochs, loss_terms=(*_loss_terms(request, context), *inner, *terms),
                hooks=hooks, eval_batch_size=request.evaluate.batch_size,
            )  # fmt: skip

    return fine_tune


def _sample_batches(request: TrialRequest, data: TensorData, count: int) -> Iterator[Tensor]:
    """A fixed random sample of training images, as ``_labelled_batches`` takes it."""
    return (images for images, _ in _labelled_batches(request, data, count))


def _labelled_batches(request: TrialRequest, data: TensorData, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """A fixed random sample of training images; validation and test images decide nothing."""
    generator = np.random.default_rng([request.seed, COMPRESS_EPOCH])
    count = min(count, len(data.source.train))
    indices = generator.choice(data.source.train, size=count, replace=False)
    return normalized_batches(data, indices, request.evaluate.batch_size)


@contextmanager
def _stage(stage: Stage) -> Iterator[None]:
    """Name the stage of whatever goes wrong inside, and recognise exhausted memory."""
    try:
        yield
    except (TrialError, TrialStopped, WorkerError):
        raise
    except Exception as error:
        if _is_out_of_memory(error):
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            raise TrialError(stage, "out_of_memory", f"not enough memory: {error}") from error
        if isinstance(error, torch.AcceleratorError):  # a CUDA context stays broken until its process ends
            raise WorkerError(f"the device failed in stage {stage}: {error}") from error
        if isinstance(error, OSError):
            raise TrialError(stage, "storage", f"cannot write or read: {error}", retryable=True) from error
        raise TrialError(stage, "unexpected", f"{type(error).__name__}: {error}") from error


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)


def _failure(request: TrialRequest, error: TrialError) -> TrialFailure:
    return TrialFailure.model_validate(
        {
            "trial": request.trial,
            "stage": error.stage,
            "failure": error.kind,
            "message": str(error),
            "retryable": error.retryable,
        }
    )
