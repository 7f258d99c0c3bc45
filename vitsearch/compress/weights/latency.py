"""What leaving out a head or a hidden unit saves in time, from a table measured on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import torch
from timm.layers import Mlp
from torch import nn

from vitsearch.candidate import BlockWidths
from vitsearch.models import Attention

BATCH, WARMUP, REPEATS = 8, 2, 7


class Gains(NamedTuple):
    """Seconds that one unit of a block takes, for a batch of images.

    Attributes:
        head: Of a head.
        unit: Of a hidden unit.
    """

    head: float
    unit: float


def latency_gains(widths: Sequence[BlockWidths], tokens: Sequence[int], device: torch.device) -> tuple[Gains, ...]:
    """A row for each block.

    The saving is linear between two measured sizes, all n units and half of them, h = ceil(n / 2)::

        gain = max(0, (t(n) - t(h)) / (n - h)),  t the median time of the attention or the MLP

    One unit less is within the noise of a clock. The only head or unit of a block gains nothing: it has to stay.

    Args:
        widths: Sizes of the blocks.
        tokens: Tokens that enter block 1, ..., depth, and leave the last.
        device: Where to measure.
    """
    return tuple(
        Gains(head=_head_gain(w, tokens[i], str(device)), unit=_unit_gain(w, tokens[i + 1], str(device)))
        for i, w in enumerate(widths)
    )


def _head_gain(w: BlockWidths, tokens: int, device: str) -> float:
    def seconds(heads: int) -> float:
        return attention_seconds(w.width, heads, w.qk_dim, w.v_dim, tokens, device)

    half = (w.heads + 1) // 2
    return max(0.0, (seconds(w.heads) - seconds(half)) / (w.heads - half)) if half < w.heads else 0.0


def _unit_gain(w: BlockWidths, tokens: int, device: str) -> float:
    half = (w.mlp_units + 1) // 2
    if half == w.mlp_units:
        return 0.0
    saved = mlp_seconds(w.width, w.mlp_units, tokens, device) - mlp_seconds(w.width, half, tokens, device)
    return max(0.0, saved / (w.mlp_units - half))


@cache
def attention_seconds(width: int, heads: int, qk_dim: int, v_dim: int, tokens: int, device: str) -> float:
    """One entry of the table, measured once in the life of a process: trials of one worker see one table."""
    return _seconds(Attention(width, heads, qk_dim, 0.0, qk_dim=qk_dim, v_dim=v_dim), width, tokens, device)


@cache
def mlp_seconds(width: int, units: int, tokens: int, device: str) -> float:
    """As ``attention_seconds``."""
    return _seconds(Mlp(in_features=width, hidden_features=units), width, tokens, device)


@torch.no_grad()
def _seconds(layer: nn.Module, width: int, tokens: int, device: str) -> float:
    def wait() -> None:
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)

    layer = layer.eval().to(device)
    x_BND = torch.zeros(BATCH, tokens, width, device=device)
    times = []
    for _ in range(WARMUP + REPEATS):
        started = time.perf_counter()
        # attention also returns its state
        layer(x_BND) if isinstance(layer, Mlp) else layer(x_BND, None)
        wait()
        times.append(time.perf_counter() - started)
    return statistics.median(times[WARMUP:])
