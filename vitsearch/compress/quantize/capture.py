"""What layers of the unquantised network read, write and contribute to the loss.

Shape suffixes: R sampled rows, I inputs, O outputs; G sampled products of one image and head each, of shapes N M
K.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitsearch.compress.quantize.layers import Product, QuantizedProjection, observing
from vitsearch.models import VisionTransformer

SEED = 0


@dataclass(kw_only=True)
class Rows:
    """Sampled operands, outputs and gradients of one layer.

    Attributes:
        left: Inputs (R, I) of a projection, or left operands (G, N, K) of a product.
        right: Right operands (G, K, M) of a product; empty for a projection, whose weights are at hand.
        output: Outputs (R, O) or (G, N, M) without quantisation; a projection's with its bias.
        gradient: Of the loss with respect to them, zero where it does not depend on them; empty where it was not
            asked for.
    """

    left: list[Tensor] = field(default_factory=list)
    right: list[Tensor] = field(default_factory=list)
    output: list[Tensor] = field(default_factory=list)
    gradient: list[Tensor] = field(default_factory=list)


def capture(
    model: VisionTransformer,
    layers: Iterable[nn.Module],
    batches: Sequence[Tensor],
    *,
    max_rows: int | None,
    max_products: int | None,
    with_gradient: bool = False,
) -> dict[nn.Module, Rows]:
    """Run images through the network with quantisers idle, and keep rows of its layers.

    The loss is cross-entropy with the class that the network itself finds most likely, image by image.

    Args:
        model: With quantisers.
        layers: Projections and products of the network.
        batches: Images.
        max_rows: About how many rows of each projection are kept; all when None.
        max_products: Likewise for images times heads of each product.
        with_gradient: Whether to keep gradients too.
    """
    generator = torch.Generator().manual_seed(SEED)
    found: dict[nn.Module, Rows] = {layer: Rows() for layer in layers}

    def sampled(count: int, limit: int | None, device: torch.device) -> Tensor | slice:
        if limit is None or count <= limit:
            return slice(None)
        return torch.randperm(count, generator=generator)[:limit].sort().values.to(device)

    def watch(layer: nn.Module, operands: tuple[Tensor, ...], output: Tensor) -> None:
        rows = found[layer]
        is_product = isinstance(layer, Product)
        limit = max_products if is_product else max_rows
        flat = _products if is_product else _rows_of
        flat_output = flat(layer, output)
        chosen = sampled(len(flat_output), None if limit is None else -(-limit // len(batches)), output.device)
        rows.left.append(_inputs(layer, operands[0])[chosen].detach())
        if is_product:
            rows.right.append(_products(layer, operands[1])[chosen].detach())
        rows.output.append(flat_output[chosen].detach())
        if with_gradient:
            place = len(rows.gradient)  # backward goes the other way where blocks share a layer
            rows.gradient.append(torch.zeros_like(rows.output[-1]))

            def keep(grad: Tensor) -> None:
                rows.gradient[place] = flat(layer, grad)[chosen].detach()

            output.register_hook(keep)  # type: ignore[no-untyped-call]

    handles = [layer.register_forward_hook(watch) for layer in found]
    try:
        with observing(model):
            for images_BCHW in batches:
                _pass(model, images_BCHW, with_gradient=with_gradient)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _pass(model: VisionTransformer, images_BCHW: Tensor, *, with_gradient: bool) -> None:
    if not with_gradient:
        model(images_BCHW)
        return
    with torch.enable_grad():
        inputs_BCHW = images_BCHW.detach().requires_grad_()
        logits_BC = model(inputs_BCHW)
        loss = F.cross_entropy(logits_BC, logits_BC.argmax(dim=1), reduction="sum")
        torch.autograd.grad(loss, inputs_BCHW)  # hooks see the gradients on their way; weights need none


def _inputs(layer: nn.Module, x: Tensor) -> Tensor:
    if isinstance(layer, Product):
        return _products(layer, x)
    if isinstance(layer, QuantizedProjection) and isinstance(layer.layer, nn.Conv2d):
        conv = layer.layer
        assert isinstance(conv.padding, tuple)
        columns = F.unfold(x, conv.kernel_size, padding=conv.padding, stride=conv.stride)
        return columns.transpose(1, 2).flatten(0, 1)
    return x.flatten(0, -2)


def _rows_of(layer: nn.Module, y: Tensor) -> Tensor:
    """Outputs or their gradients as rows."""
    if isinstance(layer, QuantizedProjection) and isinstance(layer.layer, nn.Conv2d):
        return y.flatten(2).transpose(1, 2).flatten(0, 1)
    return y.flatten(0, -2)


def _products(layer: nn.Module, x_BHNM: Tensor) -> Tensor:  # noqa: ARG001
    return x_BHNM.flatten(0, 1)
