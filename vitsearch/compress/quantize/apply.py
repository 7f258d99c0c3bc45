"""Put simulated quantisers into a trained network and calibrate them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from vitsearch.candidate import Precision
from vitsearch.compress.quantize.calibration import CALIBRATIONS
from vitsearch.compress.quantize.capture import capture
from vitsearch.compress.quantize.codes import QUANTIZERS, Site
from vitsearch.compress.quantize.layers import QuantizedAttention, QuantizedProjection
from vitsearch.compress.quantize.mixed import remember_bits
from vitsearch.compress.quantize.noise import noisy_projections, remove_noise, set_noise
from vitsearch.compress.quantize.repq import fold_norms
from vitsearch.models import Block, ConvStem, MultiplexedBlock, RepeatedBlock, VisionTransformer

NOISE_ROWS = 512


def insert_quantizers(model: VisionTransformer, precision: Precision) -> VisionTransformer:
    """Put quantisers before every product and around every weight; the identity at 32 bits.

    The patch projection and the convolutions before it take the bits of the first block, the classifier heads
    those of the last. Blocks that share their weights share the ranges of what these read, too. Layers at 32-bit
    weights and activations are left as they are. Weights are quantised when the network is calibrated. Beside
    16-bit weights, biases, norms, embeddings, tokens and scales are rounded to float16 too: their stored
    size is counted at that width.
    """
    if precision.is_float32:
        return model
    depth = model.architecture.depth
    weights = precision.weight_bits_per_block(depth)
    activations = precision.activation_bits_per_block(depth)

    def wrap(parent: nn.Module, name: str, weight_bits: int, activation_bits: int, site: Site) -> None:
        layer = getattr(parent, name)
        if isinstance(layer, nn.Linear | nn.Conv2d) and min(weight_bits, activation_bits) < 32:
            in_mlp = name in {"fc1", "fc2"}
            projection = QuantizedProjection(layer, weight_bits, activation_bits, precision, site, in_mlp=in_mlp)
            setattr(parent, name, projection)

    for block, w, a in zip(model.blocks, weights, activations, strict=True):
        assert isinstance(block, Block)
        if isinstance(block, MultiplexedBlock):
            wrap(block.mixing, "before", w, a, "logits")
            wrap(block.mixing, "after", w, a, "softmax")
        if isinstance(block, RepeatedBlock):
            continue
        for name in block.attn.inputs:
            wrap(block.attn, name, w, a, "norm")
        wrap(block.attn, "proj", w, a, "attention")
        wrap(block.mlp, "fc1", w, a, "norm")
        wrap(block.mlp, "fc2", w, a, "gelu")
        if a < 32:
            block.attn = QuantizedAttention(
                block.attn, a, QUANTIZERS[precision.quantizer](), mixes_heads=isinstance(block, MultiplexedBlock)
            )
    if isinstance(model.patch_embed, ConvStem):
        for number in range(len(model.patch_embed.convs)):
            wrap(model.patch_embed.convs, str(number), weights[0], activations[0], "relu" if number else "patches")
    wrap(model.patch_embed, "proj", weights[0], activations[0], "patches")
    for name in model.head_names:
        wrap(model, name, weights[-1], activations[-1], "norm")
    round_beside_half_weights(model, weights)
    remember_bits(model, precision)
    return model


@torch.no_grad()
def round_beside_half_weights(model: VisionTransformer, weight_bits: Sequence[int]) -> None:
    """Everything outside the blocks goes with the first one; the final norm and the heads with the last."""
    groups = {f"{name}.": weight_bits[-1] for name in ("norm", *model.head_names)}
    groups |= {f"blocks.{i}.": bits for i, bits in enumerate(weight_bits)}
    for name, parameter in model.named_parameters():
        bits = next((b for prefix, b in groups.items() if name.startswith(prefix)), weight_bits[0])
        if bits == 16:
            parameter.copy_(parameter.to(torch.float16))


@torch.no_grad()
def calibrate(model: VisionTransformer, batches: Iterable[Tensor]) -> None:
    """Quantise the weights and choose every range, as the network's precision says.

    Args:
        model: A network with quantisers, in evaluation mode.
        batches: Normalised images (B, C, H, W).
    """
    projections = [module for module in model.modules() if isinstance(module, QuantizedProjection)]
    if not projections:
        return
    images, precision = list(batches), projections[0].precision
    noisy = noisy_projections(projections)
    for projection in noisy:
        remove_noise(projection)
    if projections[0].quantizer.folds_norms:
        fold_norms(model, images)
    rows = capture(model, noisy, images, max_rows=NOISE_ROWS, max_products=0) if noisy else {}
    CALIBRATIONS[precision.calibration](model, images)
    for number, projection in enumerate(noisy):
        if rows[projection].left:
            set_noise(projection, number, torch.cat(rows[projection].left), torch.cat(rows[projection].output))
    round_beside_half_weights(model, precision.weight_bits_per_block(model.architecture.depth))
