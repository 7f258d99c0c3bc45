"""MACs counted on a traced network, by fvcore with the gaps closed."""

from __future__ import annotations

import warnings
from collections import Counter
from typing import Any

import torch
from torch import nn

# Operators that cost nothing by convention: activations, softmax, additions, indexing, sorting, rounding.
FREE_OPERATORS = frozenset(
    f"aten::{name}"
    for name in [
        "add",
        "add_",
        "sub",
        "rsub",
        "mul",
        "mul_",
        "div",
        "neg",
        "abs",
        "amax",
        "log",
        "log2",
        "exp",
        "exp2",
        "pow",
        "sqrt",
        "square",
        "rsqrt",
        "sum",
        "mean",
        "avg_pool2d",
        "var",
        "norm",
        "linalg_vector_norm",
        "clamp_min",
        "clamp_max",
        "gelu",
        "relu",
        "sigmoid",
        "softmax",
        "log_softmax",
        "_softmax",
        "argmax",
        "argmin",
        "argsort",
        "sort",
        "topk",
        "scatter",
        "scatter_add",
        "scatter_reduce",
        "index_select",
        "expand_as",
        "where",
        "max",
        "min",
        "maximum",
        "minimum",
        "lt",
        "gt",
        "le",
        "ge",
        "eq",
        "round",
        "repeat",
        "pad",
        "masked_fill",
        "unflatten",
        "ones_like",
        "rand_like",
        "cumsum",
        "scalar_tensor",
        "new_ones",
        "new_tensor",
        "clone",
        "lift_fresh",
        "logical_not",
        "logical_and",
        "one_hot",
        "feature_dropout",
        "bitwise_and",
        "bitwise_not",
        "__and__",
        "__or__",
        "fill_",
        "to",
        "_to_copy",
        "meshgrid",
        "numpy_T",
        "item",
        "is_nonzero",
        "floor_divide",
        "alias",
        "fake_quantize_per_tensor_affine",
        "fake_quantize_per_channel_affine",
    ]
)


def count_macs(model: nn.Module, images_BCHW: torch.Tensor, *, nonzero: bool = False) -> int:
    """MACs of one forward pass for one image, counted operator by operator.

    fvcore's counters (LayerNorm 5 per element) plus scaled dot-product attention, which fvcore skips silently.

    Args:
        model: The network, in evaluation mode.
        images_BCHW: A batch; the count is divided by its size.
        nonzero: Leave out the products of linear and convolution layers with weights that are zero, whether a mask
            or rounding made them so.

    Raises:
        ValueError: The network runs an operator that is neither counted nor on the free list.
    """
    with warnings.catch_warnings():
        # fvcore is built on torch.jit, which warns of its age: script at fvcore's import, trace in each count
        warnings.filterwarnings("ignore", r".*torch\.jit\.", FutureWarning)
        warnings.filterwarnings("ignore", r".*torch\.jit\.", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]  # shapes are constants here, on purpose
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(model, images_BCHW)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        analysis.set_op_handle("aten::scaled_dot_product_attention", _attention_macs)
        analysis.set_op_handle(**dict.fromkeys(FREE_OPERATORS, None))
        total = analysis.total()
        skipped = {op: n for op, n in analysis.unsupported_ops().items() if not op.startswith("prim::")}
    if skipped:
        raise ValueError(f"operators without a count: {sorted(skipped)}; add a counter or list them as free")
    if nonzero:
        total -= _macs_with_zeros(model, images_BCHW)
    macs, rest = divmod(int(total), images_BCHW.shape[0])
    if rest:
        raise ValueError(f"the count {total} is no multiple of the batch size {images_BCHW.shape[0]}")
    return macs


@torch.no_grad()
def _macs_with_zeros(model: nn.Module, images_BCHW: torch.Tensor) -> int:
    """Of linear and convolution layers: how often each weight that is zero is multiplied."""
    found: list[int] = []

    def count(layer: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> None:  # noqa: ARG001
        assert isinstance(layer, nn.Linear | nn.Conv2d)
        uses = output.numel() // layer.weight.shape[0]  # each weight: once for a place of the output's channel
        found.append(uses * int((layer.weight == 0).sum()))

    layers = [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    handles = [layer.register_forward_hook(count) for layer in layers]
    try:
        model(images_BCHW)
    finally:
        for handle in handles:
            handle.remove()
    return sum(found)


def _attention_macs(inputs: list[Any], outputs: list[Any]) -> Counter[str]:  # noqa: ARG001
    """Q K^T and A V: B H N M Q + B H N M V, with queries Q and values V wide."""
    batch, heads, queries, width = inputs[0].type().sizes()
    keys = inputs[1].type().sizes()[2]
    value_width = inputs[2].type().sizes()[3]
    return Counter({"attention": batch * heads * queries * keys * (width + value_width)})
