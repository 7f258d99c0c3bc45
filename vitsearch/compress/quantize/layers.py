"""Network layers whose operands pass through simulated quantisers.

Shape suffixes: B batch, H heads, N tokens, K width of one head; P numbers that describe a range.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from vitsearch.candidate import Precision
from vitsearch.compress.quantize.codes import QUANTIZERS, Codes, Quantizer, ScaledByWeights, Site, per_channel
from vitsearch.compress.quantize.straight_through import fake_quantize, scaled
from vitsearch.models import Attention, AttentionState

OBSERVED_VALUES = 65_536


class ActivationQuantizer(nn.Module):
    """Quantises one activation tensor; observes it first.

    While ``is_observing``, values pass unchanged and a sample of them is kept; ``settle`` sets the range. In
    training mode gradients pass as ``fake_quantize`` says.

    Args:
        bits: Code width; 16 rounds to float16, 32 is the identity.
        codes: The rule at fewer bits.
        noise_width: Channels of the noise added to values before they are rounded; none at 0.

    Attributes:
        log_step: Logarithm of a learned factor of the step, while it is learned.
        subtracts_noise: Whether the noise is subtracted here, and not by the bias of the layer that follows.
    """

    delta: Tensor
    noise_D: Tensor | None
    log_step: nn.Parameter | None

    def __init__(self, bits: int, codes: Codes, noise_width: int = 0) -> None:
        super().__init__()
        self.bits = bits
        self.codes = codes
        self.is_observing = False
        self.subtracts_noise = False
        self._observed: list[Tensor] = []
        self.register_parameter("log_step", None)
        self.register_buffer("delta", torch.ones(codes.numbers if codes.numbers > 1 else ()))
        self.register_buffer("noise_D", torch.zeros(noise_width) if noise_width and bits < 16 else None)

    @property
    def has_codes(self) -> bool:
        """Whether there is a range to choose."""
        return self.bits < 16

    @property
    def theta(self) -> Tensor:
        """The range (P,)."""
        return self.delta.view(self.codes.numbers)

    def forward(self, x: Tensor) -> Tensor:
        """The quantised tensor, of the same shape; with noise not yet subtracted, where there is some."""
        if self.bits == 32:
            return x
        if self.bits == 16:
            return x.to(torch.float16).to(x.dtype)
        if self.is_observing:
            flat = x.detach().flatten()
            sample = spread_sample(flat, OBSERVED_VALUES)
            if len(sample) < len(flat):
                sample = torch.cat([sample, torch.stack(flat.aminmax())])  # never lose the range
            self._observed.append(sample)
            return x
        if self.noise_D is not None:
            x = x + self.noise_D
        x = self._rounded(x)
        return x - self.noise_D if self.noise_D is not None and self.subtracts_noise else x

    def _rounded(self, x: Tensor) -> Tensor:
        if self.training:
            return fake_quantize(x.float(), self.theta, self.bits, self.codes, self.log_step).to(x.dtype)
        theta = self.theta if self.log_step is None else scaled(self.theta, self.log_step)
        return self.codes.quantize(x, theta, self.bits)

    def observe(self) -> None:
        """Forget what was seen and let values pass from now on."""
        self._observed.clear()
        self.is_observing = self.has_codes

    def observed(self) -> Tensor:
        """A sample of the values seen, with the least and the largest; empty where none came."""
        return torch.cat(self._observed) if self._observed else self.delta.new_empty(0)

    def settle(self, theta: Tensor | None = None) -> None:
        """Quantise from now on, in the given range (P,) or else the one in force."""
        self.is_observing = False
        if theta is not None:
            self.delta.copy_(theta.view_as(self.delta))
        self._observed.clear()


class QuantizedProjection(nn.Module):
    """A linear or convolution layer with quantised weights and input.

    Args:
        layer: The trained layer; ``settle`` replaces its weights by their quantised values.
        weight_bits: Code width of the weights; 16 rounds to float16, 32 leaves them.
        activation_bits: Code width of the input.
        precision: What the layer's network is to be; names the quantiser.
        site: What made the input.
        in_mlp: Whether it is one of the two layers of an MLP.

    Attributes:
        codes: The rule for its weights.
        before: Weights as they were before ``settle`` and their ranges (P, C), for a training through quantisers.
    """

    def __init__(
        self,
        layer: nn.Linear | nn.Conv2d,
        weight_bits: int,
        activation_bits: int,
        precision: Precision,
        site: Site,
        *,
        in_mlp: bool = False,
    ) -> None:
        super().__init__()
        self.layer = layer
        self.weight_bits = weight_bits
        self.before: tuple[Tensor, Tensor] | None = None
        self.precision = precision
        self.quantizer: Quantizer = QUANTIZERS[precision.quantizer]()
        mlp_codes = self.quantizer.mlp_weight if in_mlp else None
        self.codes: Codes = mlp_codes or self.quantizer.weight
        noisy = precision.noisy and isinstance(layer, nn.Linear) and layer.bias is not None
        noise_width = layer.in_features if noisy and isinstance(layer, nn.Linear) else 0
        self.input_quantizer = ActivationQuantizer(activation_bits, self.quantizer.at(site), noise_width)

    def forward(self, x: Tensor) -> Tensor:
        """Quantise the input, apply the layer."""
        return self.layer(self.input_quantizer(x))

    @torch.no_grad()
    def settle(self, theta: Tensor | None = None) -> None:
        """Quantise the weights, in the ranges (P, C) given or else those that cover each channel."""
        weight, codes, mask = self.layer.weight, self.codes, masked(self.layer)
        if self.weight_bits < 16 and theta is None:
            theta = covering_channels(weight, self.weight_bits, codes)
        if self.precision.training != "none":
            self.before = weight.detach().clone(), weight.new_empty(0) if theta is None else theta
        quantised = quantized_weight(weight, self.weight_bits, codes, theta)
        weight.copy_(quantised if mask is None else quantised * mask)


class Product(nn.Module):
    """A matrix product of two activations; a module so that a calibration can look at its operands."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """``a @ b``."""
        return a @ b


class QuantizedAttention(Attention):
    """Attention whose four matrix-product operands are quantised; the matrix is materialised for that.

    Where heads are mixed, the mixing quantises its own inputs, and ``softmax`` stands for what it makes of the
    softmax outputs: not positive any more, so that codes for ``mixed`` apply.

    Args:
        attention: The trained layer, whose projections (possibly quantised already) are taken over.
        activation_bits: Code width of q, k, v and the softmax outputs.
        quantizer: Their codes.
        mixes_heads: Whether heads are mixed after the softmax.
    """

    def __init__(
        self, attention: Attention, activation_bits: int, quantizer: Quantizer, *, mixes_heads: bool = False
    ) -> None:
        nn.Module.__init__(self)
        self.__dict__.update({k: v for k, v in vars(attention).items() if k not in self.__dict__})
        self.hides_self, self.temperature_H = attention.hides_self, attention.temperature_H
        self.fused = False
        self._modules.update(attention._modules)  # noqa: SLF001 - whatever the layer is made of is taken over
        sites: dict[str, Site] = {"q": "q", "k": "k", "v": "v", "softmax": "mixed" if mixes_heads else "softmax"}
        self.quantizers = nn.ModuleDict(
            {name: ActivationQuantizer(activation_bits, quantizer.at(site)) for name, site in sites.items()}
        )
        self.logits_product, self.value_product = Product(), Product()

    def quantizer_of(self, operand: Site) -> ActivationQuantizer:
        """The quantiser of q, k, v or softmax."""
        quantizer = self.quantizers[operand]
        assert isinstance(quantizer, ActivationQuantizer)
        return quantizer

    def project(self, x_BND: Tensor, bias_B11N: Tensor | None) -> AttentionState:
        """Quantised queries, keys and values."""
        state = super().project(x_BND, bias_B11N)
        q, k, v = (
            self.quantizers[name](operand)
            for name, operand in zip("qkv", (state.q_BHNK, state.k_BHNK, state.v_BHNK), strict=True)
        )
        return replace(state, q_BHNK=q, k_BHNK=k, v_BHNK=v)

    def mix(self, state: AttentionState) -> Tensor:
        """Q(softmax(q k^T * scale + bias)) v, with plain matrix products."""
        logits_BHMN = self.logits_product(state.q_BHNK, state.k_BHNK.transpose(-2, -1)) * self.scale
        if state.mixing is not None:
            logits_BHMN = state.mixing.before(logits_BHMN)
        bias = state.bias_B1MN(state.q_BHNK.shape[2])
        if bias is not None:
            logits_BHMN = logits_BHMN + bias
        attention_BHMN = logits_BHMN.softmax(dim=-1)
        if state.mixing is not None:
            attention_BHMN = state.mixing.after(attention_BHMN)
        return self.value_product(self.quantizers["softmax"](attention_BHMN), state.v_BHNK)


def quantized_weight(weight: Tensor, bits: int, codes: Codes, theta: Tensor | None = None) -> Tensor:
    """Weights rounded to ``bits``-bit codes per output channel and back; in ranges (P, C), or those that cover."""
    if bits == 32:
        return weight
    if bits == 16:
        return weight.to(torch.float16).to(weight.dtype)
    theta = covering_channels(weight, bits, codes) if theta is None else theta
    return codes.quantize(weight, per_channel(theta, weight), bits)


def covering_channels(weight: Tensor, bits: int, codes: Codes) -> Tensor:
    """The ranges (P, C) that cover each output channel, or that the codes make of its weights."""
    if isinstance(codes, ScaledByWeights) and codes.measures(bits):
        return codes.of_weights(weight.detach(), bits)
    low, high = weight.detach().flatten(1).aminmax(dim=1)
    return codes.covering(low, high, bits)


def masked(layer: nn.Module) -> Tensor | None:
    """Ones where a layer has weights, zeros where pruning has removed them; None where it has all."""
    mask = getattr(layer, "weight_mask", None)
    assert mask is None or isinstance(mask, Tensor)
    return mask


@contextmanager
def observing(model: nn.Module) -> Iterator[list[ActivationQuantizer]]:
    """Every activation quantiser lets values pass and watches them; afterwards they quantise again."""
    quantizers = [module for module in model.modules() if isinstance(module, ActivationQuantizer)]
    for quantizer in quantizers:
        quantizer.observe()
    try:
        yield quantizers
    finally:
        for quantizer in quantizers:
            quantizer.settle()


def spread_sample(flat: Tensor, count: int) -> Tensor:
    """About ``count`` values of a flattened tensor, evenly spread.

    The stride shares no factor with the length: one that shares a factor with the width of a layer would look at
    a few channels only.
    """
    stride = max(1, flat.numel() // count)
    while math.gcd(stride, flat.numel()) > 1:
        stride += 1
    return flat[::stride]
