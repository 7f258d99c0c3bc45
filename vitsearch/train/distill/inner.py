"""Losses that listen to what a teacher computes on the way to its answer.

Shape suffixes: B batch, N tokens, P patches, D width of the student, T width of the teacher, H heads, K width of
one head, G side of the grid of patches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitsearch.config import INNER_DISTILLERS, DistillSpec
from vitsearch.config.named import Imported
from vitsearch.models import AttentionState, VisionTransformer
from vitsearch.train.batches import Batch
from vitsearch.train.distill.answers import LiveAnswers
from vitsearch.train.losses import LossTerm, Outputs

RANDOM_PATCHES = 192


class Seen:
    """What one network has computed for a batch, by hooks on its modules.

    Attributes:
        blocks: Tokens that leave each block (B, N, D), prefix tokens first.
        parts: Queries, keys and values of each block (B, N, H K), heads side by side.
        grid: The last feature map (B, T, G, G) of a network without blocks.
    """

    def __init__(self) -> None:
        self.blocks: list[Tensor] = []
        self.parts: list[tuple[Tensor, Tensor, Tensor]] = []
        self.grid: Tensor | None = None

    def usable(self) -> Seen:
        """Copies that a loss may use; what was computed in inference mode may not enter one."""
        copied = Seen()
        copied.blocks = [x_BND.clone() for x_BND in self.blocks]
        copied.parts = [(q.clone(), k.clone(), v.clone()) for q, k, v in self.parts]
        copied.grid = None if self.grid is None else self.grid.clone()
        return copied

    def clear(self) -> None:
        """Forget."""
        self.blocks.clear()
        self.parts.clear()
        self.grid = None


class InnerDistiller(Protocol):
    """A loss between what student and teacher have computed."""

    def __call__(self, student_BPX: dict[str, Tensor], teacher_BPX: dict[str, Tensor]) -> Tensor:
        """A scalar.

        Args:
            student_BPX: Patch tokens under ``tokens``, projected to the teacher's width, and as they are under
                ``own``; ``q``, ``k`` and ``v`` where the teacher has them. All of as many patches.
            teacher_BPX: Likewise.
        """
        ...


def tokens(student: dict[str, Tensor], teacher: dict[str, Tensor]) -> Tensor:
    """L = mean over images, patches and channels of (P z_s - LayerNorm(z_t))^2 (Romero et al., 2015, Eq. 3).

    P is a linear map that is learned with the student, and LayerNorm is without parameters: it takes the few
    channels of a trained ViT that are hundreds of times as large as the others to the size of the rest.
    """
    z_BPT = teacher["tokens"]
    return F.mse_loss(student["tokens"], F.layer_norm(z_BPT, z_BPT.shape[-1:]))


def manifold(student: dict[str, Tensor], teacher: dict[str, Tensor]) -> Tensor:
    """Relations of patches within an image, across images, and over random patches (Hao et al., 2022, Eq. 4-7).

    With M(Z) = Z Z^T of patches whose features are normalised to length 1, L is the sum of three means of
    (M(z_s) - M(z_t))^2: over the P x P pairs of patches of one image, over the B x B pairs of images at one place,
    and over the pairs of 192 random patches of the batch. The paper weighs the three 4, 0.1 and 0.2 and sums where
    this takes means.
    """
    ours_BPD, theirs_BPT = (F.normalize(one, dim=-1) for one in (student["own"], teacher["tokens"]))
    within = F.mse_loss(_gram(ours_BPD), _gram(theirs_BPT))
    across = F.mse_loss(_gram(ours_BPD.transpose(0, 1)), _gram(theirs_BPT.transpose(0, 1)))
    count = ours_BPD.shape[0] * ours_BPD.shape[1]
    chosen = torch.randperm(count, device=ours_BPD.device)[:RANDOM_PATCHES]
    ours, theirs = ours_BPD.flatten(0, 1)[chosen], theirs_BPT.flatten(0, 1)[chosen]
    return within + across + F.mse_loss(_gram(ours[None]), _gram(theirs[None]))


def minivit(student: dict[str, Tensor], teacher: dict[str, Tensor]) -> Tensor:
    """Relations of queries, keys and values (MiniViT: Zhang et al., 2022; survey Eq. 20-22).

    With S_1, S_2, S_3 the queries, keys and values of all heads side by side, of width d, and
    R_ij = softmax(S_i S_j^T / sqrt(d)) over patches::

        L = mean over i, j and rows n of CE(R_ij,n of the student, R_ij,n of the teacher)
    """
    total = torch.zeros((), device=student["q"].device)
    for one in "qkv":
        for other in "qkv":
            log_BPP = _logits(student[one], student[other]).log_softmax(dim=-1)
            target_BPP = _logits(teacher[one], teacher[other]).softmax(dim=-1)
            total = total - (target_BPP * log_BPP).sum(dim=-1).mean()
    return total / 9


def _gram(z: Tensor) -> Tensor:
    return z @ z.transpose(-1, -2)


def _logits(a_BPX: Tensor, b_BPX: Tensor) -> Tensor:
    return a_BPX @ b_BPX.transpose(1, 2) / math.sqrt(a_BPX.shape[-1])


_INNER: Imported[InnerDistiller] = Imported(INNER_DISTILLERS)


@contextmanager
def inner_losses(
    spec: DistillSpec, student: VisionTransformer, teacher: LiveAnswers | None, epochs: int
) -> Iterator[tuple[LossTerm, ...]]:
    """The summand w L while a student trains inside the ``with`` block; nothing where the recipe asks for none.

    Student and teacher are compared by the patches that leave the last block in which the student still has all of
    them, and the block of the teacher that is as far up. Where their grids differ, the teacher's is resampled
    (bilinear). A teacher without blocks, such as a CNN, is taken by its last feature map. Only patches count. With
    ``until`` < 1 the summand ends after that share of the epochs (DearKD: Chen et al., 2022).

    Args:
        spec: Which loss, its weight, and until when.
        student: Gets a projection ``distill_projection`` as a part of it meanwhile, so that it trains along.
        teacher: Asked for every batch; such answers are too large to be remembered.
        epochs: Of this training.
    """
    if spec.inner == "none" or teacher is None or not epochs:
        yield ()
        return
    distil, ours, theirs = _INNER[spec.inner], Seen(), Seen()
    width = _teacher_width(teacher, theirs)
    projection = student.distill_projection = nn.Linear(student.widths[0].width, width).to(student.pos_embed)
    last = math.ceil(spec.until * epochs)

    def loss(outputs: Outputs, batch: Batch) -> Tensor:  # noqa: ARG001
        if batch.epoch >= last:
            return torch.zeros((), device=batch.images_BCHW.device)
        theirs.clear()
        with torch.no_grad(), _watching(teacher.network, theirs):
            teacher.logits(batch.images_BCHW)
        found = _compared(student, ours, theirs.usable())
        if found is None:
            return torch.zeros((), device=batch.images_BCHW.device)
        student_BPX, teacher_BPX = found
        student_BPX["tokens"] = projection(student_BPX["own"])
        return spec.inner_weight * distil(student_BPX, teacher_BPX)

    first = student.blocks[0].register_forward_pre_hook(lambda *_: ours.clear())
    try:
        with _watching(student, ours):
            yield (loss,)
    finally:
        first.remove()
        del student.distill_projection


def has_relations(network: nn.Module) -> bool:
    """Whether a network has blocks whose attention tells queries, keys and values."""
    blocks = getattr(network, "blocks", None)
    return blocks is not None and len(blocks) > 0 and hasattr(getattr(blocks[0], "attn", None), "qkv")


@contextmanager
def _watching(network: Any, seen: Seen) -> Iterator[None]:
    """Keep what a network computes; ours, one of timm's, or any with ``forward_features``."""
    if has_relations(network):
        handles = [
            block.register_forward_hook(lambda _, __, output: seen.blocks.append(_tokens(output)))
            for block in network.blocks
        ]
        own = isinstance(network, VisionTransformer)
        # blocks that share their weights share this module, which is called for each of them
        watched = dict.fromkeys(block.attn if own else block.attn.qkv for block in network.blocks)
        handles += [
            one.register_forward_hook(lambda _, __, output: seen.parts.append(_qkv(output))) for one in watched
        ]
    else:
        handles = [
            child.register_forward_hook(lambda _, __, output: _keep_map(seen, output))
            for child in network.children()
        ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _keep_map(seen: Seen, output: Any) -> None:
    if isinstance(output, Tensor) and output.dim() == 4 and output.shape[-1] > 1:
        seen.grid = output


def _tokens(output: Any) -> Tensor:
    tokens_BND: Tensor = output[0] if isinstance(output, tuple) else output
    return tokens_BND


def _qkv(output: Any) -> tuple[Tensor, Tensor, Tensor]:
    if isinstance(output, tuple):
        state = output[1]
        assert isinstance(state, AttentionState)
        return tuple(one.transpose(1, 2).flatten(2) for one in (state.q_BHNK, state.k_BHNK, state.v_BHNK))  # type: ignore[return-value]
    q_BNX, k_BNX, v_BNX = output.chunk(3, dim=-1)
    return q_BNX, k_BNX, v_BNX


def _teacher_width(teacher: LiveAnswers, seen: Seen) -> int:
    with torch.no_grad(), _watching(teacher.network, seen):
        teacher.logits(teacher.example())
    return int(seen.blocks[-1].shape[-1] if seen.blocks else _map_of(seen).shape[1])


def _map_of(seen: Seen) -> Tensor:
    if seen.grid is None:
        raise ValueError("the teacher computes no blocks and no feature map to compare with")
    return seen.grid


def _compared(
    student: VisionTransformer, ours: Seen, theirs: Seen
) -> tuple[dict[str, Tensor], dict[str, Tensor]] | None:
    """What both have computed at the same height and on the same grid; None where the student has it nowhere."""
    a = student.architecture
    blocks = ours.blocks[: a.self_attention_part.depth]
    complete = sum(1 for _ in takewhile(lambda x_BND: x_BND.shape[1] == a.num_tokens, blocks)) - 1
    if complete < 0:
        return None
    side = a.image_size // a.patch_size
    own_BPD = ours.blocks[complete][:, a.num_prefix_tokens :].float()
    mine = {"own": own_BPD}
    if not theirs.blocks:
        return mine, {"tokens": _resampled(_map_of(theirs).float().flatten(2).transpose(1, 2), side)}
    height = math.ceil((complete + 1) / len(blocks) * len(theirs.blocks)) - 1
    yours = {"tokens": _resampled(theirs.blocks[height].float(), side)}
    if len(ours.parts) == len(ours.blocks) and len(theirs.parts) == len(theirs.blocks):
        for name, x_BND, y_BND in zip("qkv", ours.parts[complete], theirs.parts[height], strict=True):
            mine[name] = x_BND[:, -own_BPD.shape[1] :].float()
            yours[name] = _resampled(y_BND.float(), side)
    return mine, yours


def _resampled(x_BNT: Tensor, side: int) -> Tensor:
    """The patches of a square grid, prefix tokens left out, on a grid of another side."""
    G = math.isqrt(x_BNT.shape[1])
    patches_BPT = x_BNT[:, x_BNT.shape[1] - G * G :]
    if side == G:
        return patches_BPT
    grid_BTGG = patches_BPT.transpose(1, 2).reshape(x_BNT.shape[0], -1, G, G)
    return F.interpolate(grid_BTGG, size=(side, side), mode="bilinear", antialias=True).flatten(2).transpose(1, 2)
