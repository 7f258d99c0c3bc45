"""Ranges chosen block after block (APQ-ViT, Ding et al. 2022, Section 3.2).

With the blocks before it quantised already, the activation ranges of block l minimise::

    sum over its outputs of (f_l(x; ranges) - f_l*(x*))^2

where f* and x* are the block and its input without quantisation. Ranges are searched one after the other, each
among shares of the range that covers all values, in the order the block computes them. Weights are covered channel
by channel; the patch projection and the heads are searched by their own mean squared error. All differences count
alike: the paper's preference for those that matter more to the final output is not part of this.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vitsearch.compress.quantize.calibration.local import covering_range, mse_range, settle_by
from vitsearch.compress.quantize.layers import ActivationQuantizer, observing
from vitsearch.models import Block, TokenState, VisionTransformer

CHOICES = 5
MAX_IMAGES = 8


def blockwise(model: VisionTransformer, batches: Sequence[Tensor]) -> None:
    """Set every range of the network and quantise its weights; blocks look at 8 of the images."""
    images_BCHW = _first(batches, MAX_IMAGES)
    exact = _block_outputs(model, images_BCHW)
    settle_by(mse_range, model, batches)
    state = model.entering(images_BCHW)
    for block, target_BND in zip(model.blocks, exact, strict=True):
        assert isinstance(block, Block)
        with observing(block) as quantizers:
            starts = [
                (quantizer, covering_range(quantizer.observed(), quantizer.bits, quantizer.codes))
                for quantizer in _in_order(quantizers, block, state)
            ]
        for quantizer, start in starts:
            _search(block, state, target_BND, quantizer, start)
        state = block.run(state)


def _in_order(
    quantizers: Sequence[ActivationQuantizer], block: Block, state: TokenState
) -> list[ActivationQuantizer]:
    """Those that the block uses, as it comes to them: modules stand in another order."""
    called: list[ActivationQuantizer] = []
    handles = [one.register_forward_hook(lambda module, *_: called.append(module)) for one in quantizers]
    block.run(state)
    for handle in handles:
        handle.remove()
    return [one for one in dict.fromkeys(called) if len(one.observed())]


def _search(
    block: Block, state: TokenState, target_BND: Tensor, quantizer: ActivationQuantizer, start: Tensor
) -> None:
    """Set one range; the one in force is among the choices."""
    shares = torch.linspace(0.4, 1.0, CHOICES, device=start.device)
    ranges = [quantizer.theta.clone(), *quantizer.codes.choices(start, shares, quantizer.bits)]
    errors = []
    for theta in ranges:
        quantizer.settle(theta)
        errors.append(_distance(block.run(state).x_BND, target_BND))
    quantizer.settle(ranges[int(torch.stack(errors).argmin())])


def _distance(x_BND: Tensor, target_BND: Tensor) -> Tensor:
    if x_BND.shape != target_BND.shape:  # a reducer that decides by the image kept another number of tokens
        x_BND, target_BND = x_BND.mean(dim=1), target_BND.mean(dim=1)
    return (x_BND - target_BND).square().mean()


def _block_outputs(model: VisionTransformer, images_BCHW: Tensor) -> list[Tensor]:
    """Tokens after each block without quantisation."""
    outputs: list[Tensor] = []
    with observing(model):
        state = model.entering(images_BCHW)
        for block in model.blocks:
            assert isinstance(block, Block)
            state = block.run(state)
            outputs.append(state.x_BND)
    return outputs


def _first(batches: Sequence[Tensor], count: int) -> Tensor:
    images, left = [], count
    for batch in batches:
        images.append(batch[:left])
        left -= len(images[-1])
        if not left:
            break
    return torch.cat(images)
