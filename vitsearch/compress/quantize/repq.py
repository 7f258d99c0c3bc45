"""Quantisation by scale reparameterisation (RepQ-ViT, Li et al. 2023).

Outputs of LayerNorm differ by channel, so each channel d gets Delta_d and z_d of its own (zero point as in
``asymmetric``). With Delta, z their means over channels, r1 = Delta_d / Delta and r2 = z_d - z::

    beta' = (beta + Delta_d r2) / r1,   gamma' = gamma / r1                (the LayerNorm; Eq. 8 and 9)
    W' = W diag(r1),                    b' = b - W (Delta_d r2)            (the layer that follows; Eq. 10)

compute the same, and the new outputs of the LayerNorm fit one Delta and z. Softmax outputs have codes of powers of
sqrt(2) (Eq. 13-15)::

    Q(a) = s * sqrt(2)^-clamp(round(-log_sqrt2(a / s)), 0, 2^k - 1),   s = max(a)

so values beyond the last code are clamped to it. Everything else has a zero point.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from vitsearch.compress.quantize.asymmetric import Asymmetric
from vitsearch.compress.quantize.codes import Quantizer
from vitsearch.compress.quantize.layers import QuantizedProjection, observing
from vitsearch.compress.quantize.uniform import positive
from vitsearch.models import Block, PoolingBlock, PoolingBranches, RepeatedBlock, VisionTransformer


class LogSqrt2:
    """Codes that are powers of sqrt(2), described by the largest value s."""

    numbers = 1
    continuous = True
    scales = True

    def covering(self, low: Tensor, high: Tensor, bits: int) -> Tensor:  # noqa: ARG002
        """The largest value on the code 0."""
        return positive(high)[None]

    def choices(self, theta: Tensor, shares: Tensor, bits: int) -> Tensor:  # noqa: ARG002
        """Shares of s."""
        return theta * shares[:, None]

    def quantize(self, x: Tensor, theta: Tensor, bits: int) -> Tensor:
        """Round to codes and back; zero goes to the smallest code."""
        exponent = (-2 * torch.log2(x / theta[0])).round().clamp(0, 2**bits - 1)
        return theta[0] * torch.exp2(-exponent / 2)

    def bounds(self, theta: Tensor, bits: int) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Zero, which takes the smallest code, and s."""
        return torch.zeros_like(theta[0]), theta[0]

    def step(self, theta: Tensor, bits: int) -> Tensor:  # noqa: ARG002
        """From s to s / sqrt(2)."""
        return theta[0] * (1 - 2**-0.5)


def build_repq() -> Quantizer:
    """Folded norms, softmax in powers of sqrt(2), a zero point everywhere."""
    return Quantizer(weight=Asymmetric(), activation=Asymmetric(), sites={"softmax": LogSqrt2()}, folds_norms=True)


@torch.no_grad()
def fold_norms(model: VisionTransformer, batches: Sequence[Tensor]) -> None:
    """Scale the outputs of each LayerNorm in a block so that one range fits all channels; outputs stay the same.

    The last norm stays as it is where two heads follow it. In class attention two layers read one norm; where
    blocks share their weights, the norms of each use are read by one layer, and get one scaling.
    """
    extremes: dict[nn.LayerNorm, tuple[Tensor, Tensor]] = {}

    def watch(norm: nn.Module, _: object, output_BND: Tensor) -> None:
        assert isinstance(norm, nn.LayerNorm)
        low, high = output_BND.flatten(0, -2).aminmax(dim=0)
        if norm in extremes:
            low, high = torch.minimum(low, extremes[norm][0]), torch.maximum(high, extremes[norm][1])
        extremes[norm] = low, high

    groups = list(_norms_and_layers(model))
    handles = [norm.register_forward_hook(watch) for norms, _, _ in groups for norm in norms]
    with observing(model):
        for images_BCHW in batches:
            model(images_BCHW)
    for handle in handles:
        handle.remove()
    for norms, projections, branches in groups:
        low_D = torch.stack([extremes[norm][0] for norm in norms]).amin(dim=0)
        high_D = torch.stack([extremes[norm][1] for norm in norms]).amax(dim=0)
        layers = [projection.layer for projection in projections]
        fold(norms, [*layers, *branches], low_D, high_D, projections[0].input_quantizer.bits)


@torch.no_grad()
def fold(
    norms: Sequence[nn.LayerNorm], layers: Sequence[nn.Module], low_D: Tensor, high_D: Tensor, bits: int
) -> None:
    """Eq. 8 to 10, in place.

    Args:
        norms: Have gamma and beta.
        layers: The linear layers and branches that read their outputs.
        low_D: Least output of each channel.
        high_D: Largest.
        bits: Code width of the outputs.
    """
    delta_D, zero_D = Asymmetric().covering(low_D, high_D, bits)
    delta, zero = delta_D.mean(), zero_D.mean().round()
    ratio_D, shift_D = delta_D / delta, delta_D * (zero_D - zero)
    for norm in norms:
        norm.bias.copy_((norm.bias + shift_D) / ratio_D)
        norm.weight.div_(ratio_D)
    for layer in layers:
        if isinstance(layer, PoolingBranches):
            layer.absorb(ratio_D, shift_D)
            continue
        assert isinstance(layer, nn.Linear)
        layer.bias.sub_(layer.weight @ shift_D)
        layer.weight.mul_(ratio_D)


def _norms_and_layers(
    model: VisionTransformer,
) -> Iterator[tuple[list[nn.LayerNorm], list[QuantizedProjection], list[PoolingBranches]]]:
    """Norms with the layers and branches that read them; those of blocks that share the layers together."""
    groups: list[tuple[list[nn.LayerNorm], list[nn.Module]]] = []
    for block in model.blocks:
        assert isinstance(block, Block)
        if isinstance(block, RepeatedBlock):
            groups[-2][0].append(block.norm1)
            groups[-1][0].append(block.norm2)
            continue
        inputs = [getattr(block.attn, name) for name in block.attn.inputs]
        branches = [block.branches] if isinstance(block, PoolingBlock) else []
        groups += [([block.norm1], inputs), ([block.norm2], [block.mlp.fc1, *branches])]
    if len(model.head_names) == 1:
        groups.append(([model.norm], [model.head]))
    for norms, layers in groups:
        projections = [
            one for one in layers if isinstance(one, QuantizedProjection) and one.input_quantizer.bits < 16
        ]
        if projections:
            yield norms, projections, [one for one in layers if isinstance(one, PoolingBranches)]
