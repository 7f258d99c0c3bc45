"""Training throughput beside a plain timm loop.

The peer is what a careful engineer writes by hand: a timm VisionTransformer of the same shape, decoded tensors in
memory, AdamW, the same augmentation and batch, gradient clipping, and the fastest of fp32, fused bf16 and unfused
bf16 attention. Both run in this process on the same threads, in turns, and the median of the ratios is printed.
Run: ``python benchmarks/train_speed.py [--rounds N] [--threads N]``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import nullcontext

import numpy as np
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from timm.optim import create_optimizer_v2
from torch import nn

from vitsearch.candidate import Architecture
from vitsearch.config import TrainSpec
from vitsearch.models import build_dense
from vitsearch.train.augment import Augmenter
from vitsearch.train.autocast import fastest_autocast
from vitsearch.train.data import ImageData
from vitsearch.train.loop import Hooks, train
from vitsearch.train.tensors import TensorData

BATCH = 128
MODES = ("fp32", "bf16_fused", "bf16_unfused")


def images(count: int) -> ImageData:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 10, count)
    indices = np.arange(count)
    return ImageData(
        images_NHWC=generator.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), labels_N=labels, train=indices,
        val=indices[:BATCH], test=indices[:0], class_names=tuple("0123456789"), mean=(0.5,) * 3, std=(0.25,) * 3,
        fingerprint="0" * 16, skipped=(),
    )  # fmt: skip


def spec(mode: str) -> TrainSpec:
    return TrainSpec.model_validate(
        {
            "epochs": 1,
            "batch_size": BATCH,
            "autocast": mode,
            "flip": 0.5,
            "crop_padding_px": 4,
            "early_stop": False,
        }
    )


def ours(architecture: Architecture, data: TensorData, mode: str) -> float:
    """Images a second, as the training loop reports it (validation apart)."""
    rates: list[float] = []
    torch.manual_seed(0)
    hooks = Hooks(on_epoch=lambda report: rates.append(report.images_per_s))
    train(build_dense(architecture), data, spec(mode), seed=0, hooks=hooks)
    return rates[0]


def plain_timm(a: Architecture, data: TensorData, mode: str) -> float:
    """Images a second of the hand-written loop."""
    torch.manual_seed(0)
    model = VisionTransformer(
        img_size=a.image_size, patch_size=a.patch_size, num_classes=a.num_classes, embed_dim=a.width,
        depth=a.depth, num_heads=a.heads, mlp_ratio=a.mlp_ratio,
    ).train()  # fmt: skip
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = mode != "bf16_unfused"
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.05)
    augment = Augmenter(spec(mode), data.mean, data.std)
    order = torch.randperm(len(data.labels_N))
    started = time.perf_counter()
    for batch in order.split(BATCH):
        inputs, labels = augment(data.raw(batch)), data.labels_N[batch]
        with nullcontext() if mode == "fp32" else torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(inputs)
        loss = F.cross_entropy(logits.float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return len(order) / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--images", type=int, default=2560)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = TensorData(images(options.images), torch.device("cpu"))
    for width, patch in ((64, 4), (192, 8)):
        architecture = Architecture(
            image_size=32, in_chans=3, num_classes=10, patch_size=patch, depth=4, width=width, heads=width // 32,
            mlp_ratio=2.0,
        )  # fmt: skip
        mode = fastest_autocast(architecture, BATCH, torch.device("cpu"))
        peer = max(MODES, key=lambda m: plain_timm(architecture, data, m))
        pairs = [
            (ours(architecture, data, mode), plain_timm(architecture, data, peer)) for _ in range(options.rounds)
        ]
        ratios = [mine / theirs for mine, theirs in pairs]
        mine, theirs = (statistics.median(rates) for rates in zip(*pairs, strict=True))
        print(
            f"width {width:3d} patch {patch}: vitsearch {mine:6.0f} img/s ({mode}), "
            f"plain timm {theirs:6.0f} img/s ({peer}), "
            f"ratio {statistics.median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f}, "
            f"{options.rounds} rounds, {options.threads} threads)"
        )


if __name__ == "__main__":
    main()
