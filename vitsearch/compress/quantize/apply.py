"""Put simulated quantisers into a trained network and calibrate them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from vitsearch.candidate import Precision
from vitsearch.compress.quantize.layers import ActivationQuantizer, QuantizedAttention, QuantizedProjection
from vitsearch.models import Block, VisionTransformer


def insert_quantizers(model: VisionTransformer, precision: Precision) -> VisionTransformer:
    """Quantise weights in place and put activation quantisers before every product; the identity at 32 bits.

    The patch projection takes the bits of the first block, the classifier heads those of the last. Layers at
    32-bit weights and activations are left as they are. Beside 16-bit weights, biases, norms, embeddings, tokens
    and scales are rounded to float16 too: their stored size is counted at that width.
    """
    if precision.is_float32:
        return model
    depth = model.architecture.depth
    weights = precision.weight_bits_per_block(depth)
    activations = precision.activation_bits_per_block(depth)
    calibration = precision.calibration

    def wrap(parent: nn.Module, name: str, weight_bits: int, activation_bits: int) -> None:
        layer = getattr(parent, name)
        if isinstance(layer, nn.Linear | nn.Conv2d) and min(weight_bits, activation_bits) < 32:
            setattr(parent, name, QuantizedProjection(layer, weight_bits, activation_bits, calibration))

    for block, w, a in zip(model.blocks, weights, activations, strict=True):
        assert isinstance(block, Block)
        for parent, name in ((block.attn, "qkv"), (block.attn, "proj"), (block.mlp, "fc1"), (block.mlp, "fc2")):
            wrap(parent, name, w, a)
        if a < 32:
            block.attn = QuantizedAttention(block.attn, a, calibration)
    wrap(model.patch_embed, "proj", weights[0], activations[0])
    wrap(model, "head", weights[-1], activations[-1])
    if model.head_dist is not None:
        wrap(model, "head_dist", weights[-1], activations[-1])
    _round_beside_half_weights(model, weights)
    return model


@torch.no_grad()
def _round_beside_half_weights(model: VisionTransformer, weight_bits: Sequence[int]) -> None:
    """Everything outside the blocks goes with the first one; the final norm and the heads with the last."""
    groups = {"norm.": weight_bits[-1], "head.": weight_bits[-1], "head_dist.": weight_bits[-1]}
    groups |= {f"blocks.{i}.": bits for i, bits in enumerate(weight_bits)}
    for name, parameter in model.named_parameters():
        bits = next((b for prefix, b in groups.items() if name.startswith(prefix)), weight_bits[0])
        if bits == 16:
            parameter.copy_(parameter.to(torch.float16))


@torch.inference_mode()
def calibrate(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Run calibration images through the network and set every activation step.

    Args:
        model: A network with quantisers, in evaluation mode.
        batches: Normalised images (B, C, H, W).
    """
    quantizers = [module for module in model.modules() if isinstance(module, ActivationQuantizer)]
    for quantizer in quantizers:
        quantizer.observing = True
    for images_BCHW in batches:
        model(images_BCHW)
    for quantizer in quantizers:
        quantizer.settle()
