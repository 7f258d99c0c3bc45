"""Which number format trains fastest here: measured, never guessed.

On a CPU the bf16 fused attention backward is slow at small widths while unfused bf16 wins there, and at larger
widths the order turns; so a study measures once per node type and keeps the answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F

from vitsearch.candidate import Architecture
from vitsearch.config import TrainSpec
from vitsearch.models import build_dense, set_fused_attention
from vitsearch.train.loop import autocast

Mode = Literal["fp32", "bf16_fused", "bf16_unfused"]
MODES: tuple[Mode, ...] = ("fp32", "bf16_fused", "bf16_unfused")
ROUNDS = 6


def executes_bf16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16 rather than emulating it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))


def fastest_autocast(architecture: Architecture, batch_size: int, device: torch.device) -> Mode:
    """The mode with the shortest training step on a network of this shape.

    Args:
        architecture: A typical member of the search space.
        batch_size: Training batch.
        device: Where training will run, with its threads already set.
    """
    if not executes_bf16(device):
        return "fp32"
    steps = {mode: _training_step(architecture, batch_size, device, mode) for mode in MODES}
    seconds = dict.fromkeys(MODES, float("inf"))
    for _ in range(ROUNDS):  # in turns, so that a busy moment does not decide against one mode
        for mode, step in steps.items():
            seconds[mode] = min(seconds[mode], step())
    return min(MODES, key=lambda mode: seconds[mode])


def _training_step(
    architecture: Architecture, batch_size: int, device: torch.device, mode: Mode
) -> Callable[[], float]:
    """A training step that returns its own duration in seconds."""
    model = build_dense(architecture).to(device).train()
    set_fused_attention(model, mode != "bf16_unfused")
    optimizer = torch.optim.AdamW(model.parameters())
    a = architecture
    images_BCHW = torch.randn(batch_size, a.in_chans, a.image_size, a.image_size, device=device)
    labels_B = torch.zeros(batch_size, dtype=torch.long, device=device)

    def step() -> float:
        started = time.perf_counter()
        with autocast(TrainSpec(autocast=mode), device):
            loss = F.cross_entropy(model(images_BCHW).float(), labels_B)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    return step
